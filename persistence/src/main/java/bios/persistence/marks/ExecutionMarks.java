package bios.persistence.marks;

import bios.persistence.marks.DeathTally.Count;
import bios.persistence.marks.DeathTally.Mark;
import bios.persistence.process.ProcessEnd;
import bios.protocol.run.DeathReport;
import bios.protocol.run.RunId;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;

/// What a worker process executes at this moment, in a file that is mapped into memory: a mark costs some
/// stores, and it survives the process however it ends (not the loss of power of its machine). The next
/// process reads from it which operations were being executed at the end of the one before
/// ([#reports]; docs/decisions/0007-blame.md).
///
/// A process takes the first register of its folder that no living process holds. Thread-safe.
public final class ExecutionMarks implements AutoCloseable {
    private static final long MAGIC = 0x42494f534d41524bL;
    private static final int VERSION = 1;
    private static final int REGISTERS = 256;
    private static final int ACTIVE = 64;
    private static final int COUNTED = 64;
    private static final int EXECUTED = 2048;
    private static final int PROBES = 8;
    /// The flag of an executed operation that a recovery point contains: other workers need not be told.
    private static final int CONTAINED = 1;
    /// The flag of one that is not in a recovery point yet; each start subtracts one until it is contained.
    private static final int TOLD = 3;
    /// Most entries of sampling requests at a time: operations find room beside them.
    private static final int SAMPLES = 48;
    /// Names of sampling requests begin with it; a run's id does not contain it.
    private static final String SAMPLE = ":";
    /// A count is stored as one number: the ends alone, plus one, and above them all ends.
    private static final int ENDS_SHIFT = 16;
    private static final ValueLayout.OfLong LONG =
            ValueLayout.JAVA_LONG.withOrder(ByteOrder.LITTLE_ENDIAN);
    private static final ValueLayout.OfInt INT = ValueLayout.JAVA_INT.withOrder(ByteOrder.LITTLE_ENDIAN);
    // Header: magic, version, state, number of ends, id of the register, pid of its process (0: an earlier
    // build's).
    private static final long STATE = 12;
    private static final long DEATHS = 16;
    private static final long ID = 24;
    private static final long PID = 60;
    private static final long HEADER = 64;
    // An entry: flag or count, length of the name, position, the name (of a run or a sampling request).
    private static final long ENTRY = 224;
    private static final long SIZE = HEADER + ENTRY * (ACTIVE + COUNTED + EXECUTED);

    /// How a process ended, or what it does.
    private enum State { ENDED, RUNNING, STOPPING, DEVICE_LOST }

    /// A mark in place.
    ///
    /// @param entries their indices
    public record Handle(List<Integer> entries) {}

    private final Optional<FileLock> lock;
    private final Arena arena = Arena.ofShared();
    private final MemorySegment file;
    private final String id;
    private final Map<RunId, DeathReport> reports;
    private final Map<String, Count> samples = new HashMap<>();

    private ExecutionMarks(Optional<FileLock> lock, Optional<ProcessEnd> previous) throws IOException {
        this.lock = lock;
        file = lock.isEmpty() ? arena.allocate(SIZE, 8)
                : lock.get().channel().map(FileChannel.MapMode.READ_WRITE, 0, SIZE, arena);
        if (file.get(LONG, 0) != MAGIC || file.get(INT, 8) != VERSION) {
            file.fill((byte) 0);
            file.set(LONG, 0, MAGIC);
            file.set(INT, 8, VERSION);
            byte[] name = UUID.randomUUID().toString() // edge: a name of its own
                    .getBytes(StandardCharsets.US_ASCII);
            MemorySegment.copy(name, 0, file, ValueLayout.JAVA_BYTE, ID, name.length);
        }
        id = new String(file.asSlice(ID, 36).toArray(ValueLayout.JAVA_BYTE), StandardCharsets.US_ASCII);
        // With several workers another process may have had the register.
        reports = count(previous.filter(end -> end.pid() == file.get(INT, PID)));
        for (int i = 0; i < ACTIVE; i++) file.set(INT, active(i), 0);
        file.set(INT, PID, (int) ProcessHandle.current().pid());
        state(State.RUNNING);
    }

    /// The first register in `folder` that no living process holds; creates it if it does not exist.
    public static ExecutionMarks open(Path folder) {
        return open(folder, Optional.empty());
    }

    /// As above.
    ///
    /// @param previous the end of an earlier process, which reports name if the register was its own; they
    ///     count and judge as without
    public static ExecutionMarks open(Path folder, Optional<ProcessEnd> previous) {
        try {
            Files.createDirectories(folder);
            for (int i = 0; i < REGISTERS; i++) {
                FileChannel channel = FileChannel.open(folder.resolve("worker-" + i + ".marks"),
                        StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
                Optional<FileLock> lock = tryLock(channel);
                if (lock.isPresent()) return new ExecutionMarks(lock, previous);
                channel.close();
            }
        } catch (IOException failed) {
            throw new UncheckedIOException("the marks of executed operations in " + folder
                    + " cannot be written: " + failed.getMessage(), failed);
        }
        throw new IllegalStateException(REGISTERS + " processes hold the registers in " + folder);
    }

    /// Marks that do not survive the process.
    public static ExecutionMarks inMemory() {
        try {
            return new ExecutionMarks(Optional.empty(), Optional.empty());
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
    }

    private static Optional<FileLock> tryLock(FileChannel channel) throws IOException {
        try {
            return Optional.ofNullable(channel.tryLock());
        } catch (OverlappingFileLockException _) {
            return Optional.empty(); // held by this process
        }
    }

    // ---- what earlier processes left ----

    /// Adds the end of the process before to the tally, if it was not in order.
    private Map<RunId, DeathReport> count(Optional<ProcessEnd> end) {
        State before = State.values()[Math.clamp(file.get(INT, STATE), 0, State.values().length - 1)];
        var tally = new DeathTally(counted());
        var marks = new ArrayList<Mark>();
        for (int i = 0; i < ACTIVE; i++)
            if (file.get(INT, active(i)) > 0)
                marks.add(new Mark(name(active(i)), position(active(i)), file.get(INT, active(i))));
        var all = new LinkedHashMap<RunId, DeathReport>();
        boolean died = before == State.RUNNING || before == State.DEVICE_LOST;
        DeathTally now = died ? tally.after(marks, c -> executed(c.name()) >= c.position()) : tally;
        if (died) {
            file.set(LONG, DEATHS, file.get(LONG, DEATHS) + 1);
            keep(now.counts());
        }
        String cause = before == State.DEVICE_LOST ? "its device was lost"
                : "it ended without a shutdown" + end.map(seen -> ", by " + seen.words()).orElse("");
        for (Count count : now.counts())
            if (count.name().startsWith(SAMPLE)) samples.put(count.name(), count);
            else all.putIfAbsent(new RunId(count.name()),
                    report(new RunId(count.name()), count.position(), count.alone(), cause));
        for (Count ended : now.ended(tally))
            if (!ended.name().startsWith(SAMPLE))
                all.putIfAbsent(new RunId(ended.name()), report(new RunId(ended.name()), 0, 0, cause));
        for (RunId run : executedLast(before == State.ENDED)) all.putIfAbsent(run, report(run, 0, 0, ""));
        return all;
    }

    /// The runs whose last executed operation is in no recovery point, as far as this register knows, and was
    /// told at less than two starts. After an orderly end there are none: the runs were handed over.
    private List<RunId> executedLast(boolean orderly) {
        var runs = new ArrayList<RunId>();
        for (int i = 0; i < EXECUTED; i++) {
            long at = executed(i);
            int flag = file.get(INT, at);
            if (flag <= CONTAINED) continue;
            if (!orderly) runs.add(new RunId(name(at)));
            file.set(INT, at, orderly ? CONTAINED : flag - 1);
        }
        return runs;
    }

    private DeathReport report(RunId run, long position, int alone, String cause) {
        return new DeathReport(run, id, file.get(LONG, DEATHS), executed(run.value()), position, alone,
                cause);
    }

    private List<Count> counted() {
        var counts = new ArrayList<Count>();
        for (int i = 0; i < COUNTED; i++)
            if (file.get(INT, counted(i)) > 0)
                counts.add(count(counted(i)));
        return counts;
    }

    private Count count(long at) {
        int stored = file.get(INT, at);
        return new Count(name(at), position(at), (stored & (1 << ENDS_SHIFT) - 1) - 1, stored >>> ENDS_SHIFT);
    }

    private void keep(List<Count> counts) {
        for (int i = 0; i < COUNTED; i++) file.set(INT, counted(i), 0);
        for (int i = 0; i < Math.min(COUNTED, counts.size()); i++)
            write(counted(i), counts.get(i).name(), counts.get(i).position(),
                    counts.get(i).alone() + 1 | Math.min(counts.get(i).ends(), 0x7fff) << ENDS_SHIFT);
    }

    /// What the ends of earlier processes say about runs: one report for each run of which an operation was
    /// being executed at the last end, or at the end before, or had been executed to its end since the last
    /// recovery point. The workers that replay these runs must know of it.
    public List<DeathReport> reports() {
        return List.copyOf(reports.values());
    }

    /// The report about one run, with what this process has executed of it since. A run without a mark has
    /// one if its executed operations are known.
    public synchronized Optional<DeathReport> report(RunId run) {
        Optional<DeathReport> start = Optional.ofNullable(reports.get(run));
        long executed = arena.scope().isAlive() ? executed(run.value()) : 0;
        if (executed == 0) return start;
        return Optional.of(start.map(report -> report.executedUpTo(executed)).orElseGet(() ->
                new DeathReport(run, id, file.get(LONG, DEATHS), executed, 0, 0, "")));
    }

    /// What the ends of earlier processes say about a sampling request.
    ///
    /// @param alone number of ends at which only it was being decoded
    /// @param ends number of all ends at which it was being decoded
    public record SampleDeaths(int alone, int ends) {}

    /// The ends at which a sampling request was being decoded; none if it was not, or has been decoded since.
    ///
    /// @param task its id
    public synchronized SampleDeaths sampleDeaths(String task) {
        Count count = samples.isEmpty() ? null : samples.get(sample(task));
        return count == null ? new SampleDeaths(0, 0) : new SampleDeaths(count.alone(), count.ends());
    }

    // ---- what this process does ----

    /// Marks operations that are executed together from now on.
    ///
    /// @param operations positions by run
    public synchronized Handle begin(Map<RunId, Long> operations) {
        var entries = new ArrayList<Integer>();
        operations.forEach((run, position) ->
                mark(run.value(), position, operations.size()).ifPresent(entries::add));
        return new Handle(entries);
    }

    /// Marks sampling requests that are decoded together from now on.
    ///
    /// @param tasks their ids
    public synchronized Handle beginSamples(Collection<String> tasks) {
        var entries = new ArrayList<Integer>();
        tasks.stream().limit(SAMPLES).forEach(task ->
                mark(sample(task), 1, tasks.size()).ifPresent(entries::add));
        return new Handle(entries);
    }

    private Optional<Integer> mark(String name, long position, int company) {
        Optional<Integer> slot = free();
        slot.ifPresent(at -> write(active(at), name, position, company));
        return slot;
    }

    /// The name of a sampling request in a register: a digest, because ids may be long.
    private static String sample(String task) {
        return SAMPLE + UUID.nameUUIDFromBytes(task.getBytes(StandardCharsets.UTF_8));
    }

    /// A sampling request has been decoded: its ends are not counted any more.
    public synchronized void sampled(String task) {
        if (samples.isEmpty() || samples.remove(sample(task)) == null || !arena.scope().isAlive()) return;
        for (int i = 0; i < COUNTED; i++)
            if (holds(counted(i), sample(task))) file.set(INT, counted(i), 0);
    }

    private Optional<Integer> free() {
        for (int i = 0; i < ACTIVE; i++) if (file.get(INT, active(i)) == 0) return Optional.of(i);
        return Optional.empty();
    }

    /// The operations of `handle` are no longer being executed.
    public synchronized void end(Handle handle) {
        if (!arena.scope().isAlive()) return;
        handle.entries().forEach(entry -> file.set(INT, active(entry), 0));
    }

    /// Records that an operation was executed to its end.
    public synchronized void executed(RunId run, long position) {
        if (!arena.scope().isAlive()) return;
        String name = run.value();
        int first = slot(name);
        long found = executed(first);
        for (int i = 0; i < PROBES; i++) {
            long at = executed((first + i) % EXECUTED);
            if (file.get(INT, at) == 0 || holds(at, name)) {
                found = at;
                break;
            }
        }
        if (!holds(found, name)) {
            file.set(INT, found, 0);
            write(found, name, position, TOLD);
        } else if (position > position(found)) {
            file.set(LONG, found + 8, position);
            file.set(INT, found, TOLD);
        }
    }

    /// Records that the run has a recovery point behind an operation.
    public synchronized void contained(RunId run, long position) {
        if (!arena.scope().isAlive()) return;
        int first = slot(run.value());
        for (int i = 0; i < PROBES; i++) {
            long at = executed((first + i) % EXECUTED);
            if (holds(at, run.value()) && position(at) <= position) file.set(INT, at, CONTAINED);
        }
    }

    private long executed(String name) {
        int first = slot(name);
        for (int i = 0; i < PROBES; i++) {
            long at = executed((first + i) % EXECUTED);
            if (holds(at, name)) return position(at);
        }
        return 0;
    }

    /// The process is being shut down: its end counts against nothing, even if it has to be killed.
    public synchronized void stopping() {
        if (arena.scope().isAlive() && file.get(INT, STATE) == State.RUNNING.ordinal()) state(State.STOPPING);
    }

    /// The device is lost: what is being executed is what was being executed then.
    public synchronized void deviceLost() {
        if (arena.scope().isAlive()) state(State.DEVICE_LOST);
    }

    /// Closes the register. If [#stopping] was not called, the end of the process counts.
    @Override public synchronized void close() {
        if (!arena.scope().isAlive()) return;
        if (file.get(INT, STATE) == State.STOPPING.ordinal()) state(State.ENDED);
        arena.close();
        if (lock.isPresent()) try {
            lock.get().channel().close();
        } catch (IOException _) {
            // The process ends.
        }
    }

    // ---- entries ----

    private void state(State now) {
        file.set(INT, STATE, now.ordinal());
    }

    private static long active(int slot) {
        return HEADER + slot * ENTRY;
    }

    private static long counted(int slot) {
        return HEADER + (ACTIVE + slot) * ENTRY;
    }

    /// Where the search for a run begins: ids that differ little begin far from each other.
    private static int slot(String name) {
        return (name.hashCode() * 0x9E3779B9 >>> 8) % EXECUTED;
    }

    private static long executed(int slot) {
        return HEADER + (ACTIVE + COUNTED + slot) * ENTRY;
    }

    /// Writes an entry; its flag last, so that an entry is complete or free at any moment.
    private void write(long at, String named, long position, int flag) {
        byte[] name = named.getBytes(StandardCharsets.US_ASCII);
        file.set(INT, at + 4, name.length);
        file.set(LONG, at + 8, position);
        MemorySegment.copy(name, 0, file, ValueLayout.JAVA_BYTE, at + 16, name.length);
        VarHandle.releaseFence();
        file.set(INT, at, flag);
    }

    private boolean holds(long at, String name) {
        return file.get(INT, at) > 0 && name(at).equals(name);
    }

    private String name(long at) {
        byte[] name = file.asSlice(at + 16, file.get(INT, at + 4)).toArray(ValueLayout.JAVA_BYTE);
        return new String(name, StandardCharsets.US_ASCII);
    }

    private long position(long at) {
        return file.get(LONG, at + 8);
    }
}
