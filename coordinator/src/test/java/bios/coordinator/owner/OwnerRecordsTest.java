package bios.coordinator.owner;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.owner.OwnerEvent.Recorded;
import bios.protocol.owner.OwnerCommand.AuditEntry;
import bios.protocol.owner.OwnerCommand.OwnerReply;
import bios.protocol.owner.OwnerCommand.SampleUse;
import bios.protocol.owner.OwnerCommand.SampledTotal;
import bios.protocol.model.ModelName;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;

/// The records of an account.
class OwnerRecordsTest {
    private static final long HOUR = 3_600_000;
    private static final Path GOLDEN = Path.of("../protocol/golden/owner");

    private static SampleUse use(long request, String run) {
        return new SampleUse(request, Optional.of(run), "m", "s", 10, 3);
    }

    private static OwnerRecords count(OwnerRecords owner, String writer, long number, long hour,
            SampleUse... uses) {
        return owner.count(writer, number, List.of(uses), hour * HOUR)
                .map(event -> owner.apply(event, 10)).orElse(owner);
    }

    @Test void aBatchAndARequestAreCountedOnce() {
        OwnerRecords once = count(OwnerRecords.NONE, "a", 1, 5, use(1, "r"), use(2, "r"), use(2, "r"));
        OwnerRecords repeated = count(once, "a", 1, 5, use(1, "r"), use(2, "r"), use(2, "r"));
        assertEquals(once, repeated);
        // Another process has executed a request again after the first one was lost.
        OwnerRecords again = count(once, "b", 1, 6, use(2, "r"), use(3, "r"));
        assertEquals(List.of(new SampledTotal(Optional.of("r"), "m", "", -1, 3, 30, 9)), again.totals());
        assertEquals(List.of(new SampledTotal(Optional.of("r"), "m", "s", 5, 2, 20, 6),
                new SampledTotal(Optional.of("r"), "m", "s", 6, 1, 10, 3)), again.hours());
    }

    @Test void whatIsKeptIsBounded() {
        OwnerRecords owner = OwnerRecords.NONE;
        for (int i = 0; i < 3; i++) owner = count(owner, "a", i + 1, 500L * i, LongStream.range(i * 10_000L,
                (i + 1) * 10_000L).mapToObj(n -> use(n, "r")).toArray(SampleUse[]::new));
        assertEquals(OwnerRecords.MOST_REQUESTS, owner.requests().size());
        assertEquals(1, owner.hours().size());
        assertEquals(30_000, owner.totals().getFirst().requests());
        for (int i = 0; i < 2 * OwnerRecords.MOST_WRITERS; i++)
            owner = count(owner, "w" + i, 1, 1000, use(-1 - i, "r"));
        assertEquals(OwnerRecords.MOST_WRITERS, owner.writers().size());
        for (int i = 0; i < 15; i++) owner = owner.apply(new Recorded(new AuditEntry(i, "e",
                Optional.empty(), Optional.empty(), ""), ""), 10);
        assertEquals(10, owner.audit().size());
        assertEquals(14, owner.audit().getLast().entry().timeMillis());
    }

    @Test void anEntryWithAKeyIsThereOnce() {
        var entry = new Recorded(new AuditEntry(1, "create_model", Optional.of("r"), Optional.empty(), "k"),
                "create r");
        OwnerRecords owner = OwnerRecords.NONE.apply(OwnerRecords.NONE.record(entry).orElseThrow(), 10);
        assertTrue(owner.record(entry).isEmpty());
        assertTrue(owner.record(new Recorded(entry.entry(), "")).isPresent());
    }

    @Test void bytesOfThisBuildAreReadByLaterOnes() throws Exception {
        var entry = new Recorded(new AuditEntry(7, "save_weights", Optional.of("r"), Optional.of("p"), "k"),
                "save r 7");
        OwnerRecords owner = count(OwnerRecords.NONE, "a", 1, 5, use(1, "r")).apply(entry, 10);
        List<Object> stored = List.of(entry, OwnerRecords.NONE.count("a", 1, List.of(use(1, "r")), 5 * HOUR)
                .orElseThrow(), owner);
        for (int i = 0; i < stored.size(); i++) {
            String manifest = OwnerSerializer.TYPES.manifest(stored.get(i));
            byte[] now = OwnerSerializer.TYPES.write(stored.get(i));
            Path file = GOLDEN.resolve("%02d-%s.hex".formatted(i, manifest.replace('/', '.')));
            if (Boolean.getBoolean("golden.write") && !Files.exists(file)) {
                Files.createDirectories(GOLDEN);
                Files.writeString(file, HexFormat.of().formatHex(now) + "\n");
            }
            byte[] old = HexFormat.of().parseHex(Files.readString(file).strip());
            assertEquals(stored.get(i), OwnerSerializer.TYPES.read(manifest, old), manifest);
            assertEquals(HexFormat.of().formatHex(old), HexFormat.of().formatHex(now), manifest);
        }
    }

    @Test void whatIsNotConfirmedIsSentAgainAndNothingIsCountedTwice() {
        var random = new Random(3);
        var owner = new ArrayList<>(List.of(OwnerRecords.NONE));
        var usage = new SamplingUsageReporter("w", () -> Instant.ofEpochMilli(0), (account, batch) -> {
            int fate = random.nextInt(3);
            if (fate > 0) owner.set(0, owner.get(0).count(batch.writer(), batch.number(), batch.uses(),
                    batch.nowMillis()).map(e -> owner.get(0).apply(e, 10)).orElse(owner.get(0)));
            return fate > 1 ? CompletableFuture.completedStage(new OwnerReply.Done())
                    : CompletableFuture.failedStage(new IllegalStateException("lost"));
        });
        var params = new SamplingParams(Optional.empty(), Optional.empty(), List.of(), List.of(), 1, -1, 1);
        for (int i = 0; i < 3000; i++) {
            usage.finished("alice", new SampleTask("s:sample:1:" + i, new ModelName("a/b"), Optional.empty(),
                    new int[] {1, 2, 3}, params, 1, 0, false, 0), 2);
            if (i % 50 == 0) usage.flush().toCompletableFuture().join();
        }
        for (int i = 0; i < 100; i++) usage.flush().toCompletableFuture().join();
        assertEquals(List.of(new SampledTotal(Optional.empty(), "a/b", "", -1, 3000, 9000, 6000)),
                owner.get(0).totals());
        assertEquals(Map.of("w", owner.get(0).writers().get("w")), owner.get(0).writers());
    }
}
