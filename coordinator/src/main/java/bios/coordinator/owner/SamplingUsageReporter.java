package bios.coordinator.owner;

import bios.coordinator.sampling.SampleMeter;
import bios.protocol.checkpoint.BlobScope;
import bios.protocol.owner.OwnerCommand;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import bios.protocol.owner.OwnerCommand.SampleUse;
import bios.protocol.sampling.SampleTask;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.InstantSource;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Reports the finished sampling requests of a coordinator to the entities of their accounts, which count
/// them: in batches, one batch of an account at a time, which is sent until it is confirmed. Thread-safe.
public final class SamplingUsageReporter implements SampleMeter {
    private static final Logger LOG = LoggerFactory.getLogger(SamplingUsageReporter.class);
    private static final int BATCH = 1000;
    private static final int MOST_WAITING = 200_000;

    /// Sends a command to the entity of an account.
    @FunctionalInterface
    public interface Sender {
        /// Fails if no reply arrives in time.
        CompletionStage<OwnerReply> send(String account, OwnerCommand.CountSampling command);
    }

    private static final class Account {
        final Deque<SampleUse> waiting = new ArrayDeque<>();
        List<SampleUse> sent = List.of();
        long number;
        boolean asking;
    }

    private final String writer;
    private final InstantSource clock;
    private final Sender sender;
    private final Map<String, Account> accounts = new HashMap<>();

    /// @param writer unique name of this process
    public SamplingUsageReporter(String writer, InstantSource clock, Sender sender) {
        this.writer = writer;
        this.clock = clock;
        this.sender = sender;
    }

    @Override public void finished(String owner, SampleTask task, long sampled) {
        int end = task.id().indexOf(":sample:");
        String session = end < 0 ? "" : task.id().substring(0, end);
        var use = new SampleUse(hash(task.id()),
                task.adapter().map(a -> BlobScope.run(a.blob().id()).value()), task.baseModel().value(),
                session, task.prompt().length, sampled);
        synchronized (this) {
            Deque<SampleUse> waiting = accounts.computeIfAbsent(owner, _ -> new Account()).waiting;
            if (waiting.size() < MOST_WAITING) waiting.addLast(use);
            else LOG.warn("the usage of account {} cannot be recorded, and some of it is lost", owner);
        }
    }

    private static long hash(String text) {
        try {
            return ByteBuffer.wrap(MessageDigest.getInstance("SHA-256")
                    .digest(text.getBytes(StandardCharsets.UTF_8))).getLong();
        } catch (NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    /// Sends what waits. The stage is completed when every account has confirmed or failed; it never fails.
    public CompletionStage<Void> flush() {
        CompletionStage<Void> all = CompletableFuture.completedStage(null);
        dropUnused();
        for (String account : waiting()) all = all.thenCombine(send(account), (_, last) -> last);
        return all;
    }

    private synchronized void dropUnused() {
        accounts.values().removeIf(a -> a.number == 0 && a.waiting.isEmpty());
    }

    private synchronized List<String> waiting() {
        return accounts.entrySet().stream().filter(e -> !e.getValue().asking
                && (!e.getValue().sent.isEmpty() || !e.getValue().waiting.isEmpty()))
                .map(Map.Entry::getKey).toList();
    }

    private CompletionStage<Void> send(String name) {
        OwnerCommand.CountSampling command;
        synchronized (this) {
            Account account = accounts.get(name);
            if (account.sent.isEmpty()) {
                var batch = new ArrayList<SampleUse>();
                while (batch.size() < BATCH && !account.waiting.isEmpty())
                    batch.add(account.waiting.pollFirst());
                if (batch.isEmpty()) return CompletableFuture.completedStage(null);
                account.sent = List.copyOf(batch);
                account.number++;
            }
            account.asking = true;
            command = new OwnerCommand.CountSampling(writer, account.number, account.sent, clock.millis(),
                    null);
        }
        return sender.send(name, command).handle((reply, failed) -> {
            boolean counted = failed == null && reply instanceof OwnerReply.Done;
            synchronized (this) {
                Account account = accounts.get(name);
                account.asking = false;
                if (counted) account.sent = List.of();
            }
            return counted;
        }).thenCompose(counted -> counted ? send(name) : CompletableFuture.completedStage(null));
    }
}
