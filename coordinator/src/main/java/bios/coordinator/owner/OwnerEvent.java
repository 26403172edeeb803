package bios.coordinator.owner;

import bios.protocol.owner.OwnerCommand.AuditEntry;
import bios.protocol.owner.OwnerCommand.SampledTotal;
import java.util.List;

/// The events of an account. Names in [OwnerSerializer] never change, fields are only added.
public sealed interface OwnerEvent {
    /// Sampling requests were counted.
    ///
    /// @param requests hashes of their ids
    /// @param more what they add, with its hour
    record SamplingCounted(String writer, long number, List<Long> requests, List<SampledTotal> more)
            implements OwnerEvent {}

    /// Something was done on behalf of the account.
    record Recorded(AuditEntry entry, String key) implements OwnerEvent {}
}
