package bios.coordinator.session;

import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand.Sampler;
import java.util.List;

/// What happened to a client session. Names in [SessionStored] never change, fields are only added;
/// times are epoch milliseconds.
public sealed interface SessionEvent {
    /// The session began.
    record SessionOpened(String owner, List<String> tags, String userMetadata, String sdkVersion,
            long timeMillis) implements SessionEvent {}

    /// A run was opened in it.
    record RunAdded(RunId run) implements SessionEvent {}

    /// A sampling client was opened in it.
    record SamplerPinned(long seq, Sampler sampler) implements SessionEvent {}

    /// Its client has been silent for too long and its snapshots are released.
    record SessionEnded(long timeMillis) implements SessionEvent {}
}
