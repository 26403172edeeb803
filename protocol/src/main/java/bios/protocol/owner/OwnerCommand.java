package bios.protocol.owner;

import bios.protocol.wire.Message;
import bios.protocol.wire.Reply;
import java.util.List;
import java.util.Optional;
import org.apache.pekko.actor.typed.ActorRef;

/// Commands to the entity of an account, which keeps what the account has sampled and what was done on its
/// behalf.
public sealed interface OwnerCommand extends Message {
    /// Counts finished sampling requests. A repeated batch, and a request that was counted before, change
    /// nothing. Reply: [OwnerReply.Done].
    ///
    /// @param writer who sends the batches: a process
    /// @param number of the batch, from 1, in the order in which the writer sends them
    record CountSampling(String writer, long number, List<SampleUse> uses, long nowMillis,
            ActorRef<OwnerReply> replyTo) implements OwnerCommand {}

    /// Adds an entry to the audit log. Reply: [OwnerReply.Done].
    ///
    /// @param key an entry with the same key is not added again; empty: each is
    record Record(AuditEntry entry, String key, ActorRef<OwnerReply> replyTo) implements OwnerCommand {}

    /// Asks for entries of the audit log. Reply: [OwnerReply.Audit].
    ///
    /// @param skip this many of the newest are left out
    record GetAudit(int skip, int limit, ActorRef<OwnerReply> replyTo) implements OwnerCommand {}

    /// Asks what was sampled. Reply: [OwnerReply.Sampled].
    record GetUsage(ActorRef<OwnerReply> replyTo) implements OwnerCommand {}

    /// The use of one sampling request.
    ///
    /// @param request hash of its id
    /// @param run whose weights were sampled; empty: the base model
    /// @param session that sent it
    record SampleUse(long request, Optional<String> run, String baseModel, String session, long prefilled,
            long sampled) {}

    /// Something that was done.
    ///
    /// @param event the call, e.g. `save_weights`
    /// @param path of a checkpoint, as a `bios://` URI
    /// @param keyId of the API key that was used; empty without keys
    record AuditEntry(long timeMillis, String event, Optional<String> run, Optional<String> path,
            String keyId) {}

    /// What was sampled from one source.
    ///
    /// @param run empty: the base model
    /// @param hour number of the hour since the epoch; -1: in all
    record SampledTotal(Optional<String> run, String baseModel, String session, long hour, long requests,
            long prefilled, long sampled) {}

    /// The replies.
    sealed interface OwnerReply extends Reply {
        /// The command was executed.
        record Done() implements OwnerReply {}

        /// @param entries the newest first
        /// @param total entries that are kept
        record Audit(List<AuditEntry> entries, int total) implements OwnerReply {}

        /// @param totals of each run and base model
        /// @param hours of the newest hours
        record Sampled(List<SampledTotal> totals, List<SampledTotal> hours) implements OwnerReply {}

        /// The entity cannot be read from the journal.
        record Unavailable(String message) implements OwnerReply {}
    }
}
