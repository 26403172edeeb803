package bios.worker.train;

import bios.protocol.Fault;

/// An operation that cannot be executed on this model or in this state; nothing was changed. The engine turns
/// it into the operation's failure.
public final class Refused extends RuntimeException {
    private static final long serialVersionUID = 1;
    private final transient Fault fault;

    public Refused(Fault fault) {
        super(fault.code() + ": " + fault.message());
        this.fault = fault;
    }

    /// Why, as the user reads it.
    public Fault fault() {
        return fault;
    }
}
