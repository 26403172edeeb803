package bios.persistence.index;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.RunUsage;
import bios.protocol.run.StorageUse;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import java.util.stream.LongStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/// The contract of all run indexes. Each test has its own owners, so that tests may share an index.
abstract class RunIndexContract {
    private static final LoraSpec LORA = new LoraSpec(8, 32, 7, List.of(TargetModule.Q));
    final AtomicLong clock = new AtomicLong(1000);
    StoredRunIndex index;

    /// Opens the existing index, or a new one.
    abstract StoredRunIndex open();

    @BeforeEach void begin() {
        index = open();
    }

    @AfterEach void end() {
        index.close();
    }

    static RunSummary run(int number, String owner, long step, CheckpointManifest... checkpoints) {
        var config = new RunConfig(id(number), owner, new ModelName("m"), LORA, true, Optional.empty(),
                "{}", "s", number);
        return new RunSummary(config, LORA, step, 5, List.of(checkpoints), false,
                number % 3 == 0 ? Optional.of("tensor a has NaN") : Optional.empty(), number % 2 == 0
                ? Optional.of(RunUsage.NONE.plus(number, 5, 6, 7, 8)) : Optional.empty(), number % 2 == 0
                ? Optional.of(7L + number) : Optional.empty(), number % 2 == 0
                ? Optional.of(StorageUse.NONE.saved(number)) : Optional.empty());
    }

    static RunId id(int number) {
        return new RunId("m-%012x".formatted(number));
    }

    private static CheckpointManifest checkpoint(int run, String name, long created, Optional<Long> expires) {
        return new CheckpointManifest(id(run), CheckpointKind.TRAINING, Optional.of(new CheckpointName(name)),
                new ModelName("m"), LORA, "ab".repeat(32), new BlobRef(new BlobId("x", "ab".repeat(32)), 1),
                Optional.empty(), 1, AdamParams.DEFAULT, "adamw", "{}", Optional.empty(), created, expires);
    }

    @Test void runsOfAnOwnerAreListedNewestFirstByPage() {
        for (int i = 0; i < 10; i++) index.put(run(i, i % 2 == 0 ? "alice1" : "bob1", 0), 1);
        ListingPage<RunSummary> page = index.runs("alice1", 2, 1);
        assertEquals(5, page.total());
        assertEquals(List.of(id(6), id(4)), page.items().stream().map(r -> r.config().run()).toList());
        assertEquals(new ListingPage<>(List.of(), 5), index.runs("alice1", 10, 5));
        assertEquals(new ListingPage<>(List.of(), 0), index.runs("nobody", 10, 0));
        assertThrows(IllegalArgumentException.class, () -> index.runs("alice1", 0, 0));
        assertThrows(IllegalArgumentException.class, () -> index.runs("alice1", RunIndex.MAX_PAGE + 1, 0));
    }

    @Test void anOlderWriteNeverReplacesANewerOne() throws Exception {
        var versions = new ArrayList<>(LongStream.rangeClosed(1, 40).boxed().toList());
        Collections.shuffle(versions, new Random(1));
        List<Future<?>> writes = new ArrayList<>();
        index.put(run(1, "alice2", 0), 0);
        try (var threads = Executors.newVirtualThreadPerTaskExecutor()) {
            for (long version : versions)
                writes.add(threads.submit(() -> index.put(run(1, "alice2", version,
                        checkpoint(1, "v" + version, 1, Optional.empty())), version)));
        }
        for (var write : writes) write.get();
        assertEquals(40, index.runs("alice2", 1, 0).items().getFirst().step());
        assertEquals("v40",
                index.checkpoints("alice2", 10, 0).items().getFirst().name().orElseThrow().value());
        assertEquals(1, index.checkpoints("alice2", 10, 0).total());
    }

    @Test void checkpointsFollowTheirRunsAndExpire() {
        index.put(run(1, "alice3", 0, checkpoint(1, "a", 10, Optional.empty()),
                checkpoint(1, "b", 30, Optional.of(2000L))), 1);
        index.put(run(2, "alice3", 0, checkpoint(2, "c", 20, Optional.empty())), 1);
        index.put(run(3, "bob3", 0, checkpoint(3, "d", 40, Optional.empty())), 1);
        assertEquals(List.of("b", "c", "a"), names("alice3"));
        clock.set(2000);
        assertEquals(List.of("c", "a"), names("alice3"));
        index.put(run(1, "alice3", 0), 2);
        assertEquals(List.of("c"), names("alice3"));
        index.remove(id(2));
        assertEquals(List.of(), names("alice3"));
        assertEquals(1, index.runs("alice3", 10, 0).total());
    }

    @Test void runsWithAnExpiredCheckpointAreFoundWhoeverOwnsThem() {
        clock.set(1000);
        index.put(run(51, "alice5", 0, checkpoint(51, "a", 10, Optional.of(2000L)),
                checkpoint(51, "b", 30, Optional.of(2000L))), 1);
        index.put(run(52, "bob5", 0, checkpoint(52, "c", 20, Optional.of(3000L))), 1);
        index.put(run(53, "bob5", 0, checkpoint(53, "d", 20, Optional.empty())), 1);
        var ours = List.of(id(51), id(52), id(53));
        assertEquals(List.of(), index.expired().stream().filter(ours::contains).toList());
        clock.set(2000);
        assertEquals(List.of(id(51)), index.expired().stream().filter(ours::contains).toList());
        clock.set(4000);
        assertEquals(Set.of(id(51), id(52)), index.expired().stream().filter(ours::contains)
                .collect(Collectors.toSet()));
        index.put(run(51, "alice5", 0), 2);
        assertEquals(List.of(id(52)), index.expired().stream().filter(ours::contains).toList());
    }

    private List<String> names(String owner) {
        return index.checkpoints(owner, 10, 0).items().stream()
                .map(c -> c.name().orElseThrow().value()).toList();
    }

    @Test void theIndexSurvivesClosing() {
        index.put(run(1, "alice4", 3), 1);
        index.close();
        index = open();
        assertEquals(run(1, "alice4", 3), index.runs("alice4", 1, 0).items().getFirst());
    }
}
