package bios.coordinator.session;

import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand.Sampler;
import java.util.List;

/// The events of a client session. Names in [SessionSerializer] never change, fields are only added; times
/// are epoch milliseconds.
public sealed interface SessionEvent {
    /// The session was opened.
    record SessionOpened(String owner, List<String> tags, String userMetadata, String sdkVersion,
            long timeMillis) implements SessionEvent {}

    /// A run was created in the session.
    record RunAdded(RunId run) implements SessionEvent {}

    /// A sampler was opened in the session.
    record SamplerPinned(long seq, Sampler sampler) implements SessionEvent {}

    /// A sampler was removed, because the session has many that were used later.
    record SamplerDropped(long seq) implements SessionEvent {}

    /// The session has ended after its client was inactive, and its snapshots are released.
    record SessionEnded(long timeMillis) implements SessionEvent {}
}
