package bios.coordinator.session;

import bios.protocol.run.RunId;
import bios.protocol.session.SessionCommand.Sampler;
import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.List;
import java.util.Optional;

/// The events of a client session. Names in [SessionSerializer] never change, fields are only added; times
/// are epoch milliseconds.
public sealed interface SessionEvent {
    /// The session was opened.
    ///
    /// @param project of the runs that are created in it
    record SessionOpened(String owner, List<String> tags, String userMetadata, String sdkVersion,
            long timeMillis, @JsonInclude(JsonInclude.Include.NON_ABSENT) Optional<String> project)
            implements SessionEvent {
        public SessionOpened {
            if (project == null) project = Optional.empty(); // absent in earlier builds
        }

        SessionOpened(String owner, List<String> tags, String userMetadata, String sdkVersion,
                long timeMillis) {
            this(owner, tags, userMetadata, sdkVersion, timeMillis, Optional.empty());
        }
    }

    /// The session was moved to a project.
    record ProjectSet(Optional<String> project) implements SessionEvent {}

    /// A run was created in the session.
    record RunAdded(RunId run) implements SessionEvent {}

    /// A sampler was opened in the session.
    record SamplerPinned(long seq, Sampler sampler) implements SessionEvent {}

    /// A sampler was removed, because the session has many that were used later.
    record SamplerDropped(long seq) implements SessionEvent {}

    /// The session has ended after its client was inactive, and its snapshots are released.
    record SessionEnded(long timeMillis) implements SessionEvent {}
}
