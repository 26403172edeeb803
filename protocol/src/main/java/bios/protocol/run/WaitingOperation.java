package bios.protocol.run;

import bios.protocol.Fault;

/// The operation of a run that its owner can give up: it has no outcome, and others wait for it.
///
/// @param seq the client's sequence number
/// @param setAside whether it is not tried again by itself; otherwise it waits for a store, or meets the
///     same fault at each attempt of its replay
/// @param why what it met
public record WaitingOperation(long seq, OperationKind kind, boolean setAside, Fault why) {}
