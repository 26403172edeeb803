package bios.protocol.run;

/// What the ends of a worker's processes say about one run. A process that was shut down in order leaves no
/// report.
///
/// @param run the run
/// @param worker identifies the register in which the worker's processes count their ends
/// @param death number of the last unordered end in this register, from 1
/// @param executed operations up to this position were executed to their end by processes of this worker; 0:
///     none is known
/// @param position the operation of the run that was being executed at the last end; 0: none was
/// @param alone the number of ends, up to the last one, at which this operation was the only one that was
///     being executed; an end outside of operations starts the count again
/// @param cause how the last process ended, as far as it is known
public record DeathReport(RunId run, String worker, long death, long executed, long position, int alone,
        String cause) {
    /// The same report of a worker that has executed operations up to `position` or further.
    public DeathReport executedUpTo(long position) {
        return position <= executed ? this
                : new DeathReport(run, worker, death, position, this.position, alone, cause);
    }
}
