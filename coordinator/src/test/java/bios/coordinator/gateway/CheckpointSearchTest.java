package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.gateway.CheckpointSearch.Position;
import bios.persistence.index.ListingPage;
import bios.persistence.index.RunIndex;
import bios.persistence.index.RunSummary;
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
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;

/// Pages of a search while checkpoints come and go.
class CheckpointSearchTest {
    private static final ModelName MODEL = new ModelName("a/b");
    private static final LoraSpec LORA = new LoraSpec(8, 32, 7, List.of(TargetModule.Q));
    private static final ListingFilter ALL = new ListingFilter(Optional.empty(), Optional.empty(),
            Optional.empty(), Map.of(), Optional.empty(), Optional.empty(), Optional.empty());

    /// The checkpoints of one account, by number; two runs, and few different times.
    private static final class Stored implements RunIndex {
        final TreeMap<Integer, CheckpointManifest> all = new TreeMap<>();

        void save(int number, Random random) {
            var name = Optional.of(new CheckpointName("c" + number));
            all.put(number, new CheckpointManifest(run(number % 2), CheckpointKind.TRAINING, name, MODEL,
                    LORA, "x", new BlobRef(new BlobId("a", "0".repeat(64)), 1), Optional.empty(), 1,
                    AdamParams.DEFAULT, "adamw", "{}", Optional.empty(), random.nextInt(5),
                    Optional.empty()));
        }

        private static RunId run(int number) {
            return new RunId("b-00000000000" + number);
        }

        @Override public ListingPage<RunSummary> runs(String owner, int limit, long offset) {
            var runs = new ArrayList<RunSummary>();
            for (int i = 0; i < 2; i++) {
                int number = i;
                var config = new RunConfig(run(i), owner, MODEL, LORA, true, Optional.empty(), "{}", "s", i);
                runs.add(new RunSummary(config, LORA, 1, 1, all.values().stream().filter(c ->
                        c.run().equals(run(number))).toList(), false, Optional.empty(), Optional.empty(),
                        Optional.empty(), Optional.empty()));
            }
            return new ListingPage<>(runs, 2);
        }

        @Override public void put(RunSummary summary, long version) {
            throw new UnsupportedOperationException();
        }

        @Override public void remove(RunId run) {
            throw new UnsupportedOperationException();
        }

        @Override public ListingPage<CheckpointManifest> checkpoints(String owner, int limit, long offset) {
            throw new UnsupportedOperationException();
        }
    }

    @Test void aCheckpointThatIsThereAllTheTimeIsOnOnePageWhateverElseComesAndGoes() {
        for (int seed = 0; seed < 300; seed++) {
            var random = new Random(seed);
            var stored = new Stored();
            int saved = 0;
            while (saved < 30) stored.save(saved++, random);
            var always = new TreeMap<>(stored.all);
            var shown = new ArrayList<CheckpointManifest>();
            Optional<Position> after = Optional.empty();
            do {
                int limit = 1 + random.nextInt(7);
                var page = new CheckpointSearch(ALL, true, limit, after).page(stored, "alice", 10);
                assertTrue(page.checkpoints().size() <= limit);
                shown.addAll(page.checkpoints());
                after = page.next();
                for (int i = random.nextInt(4); i > 0; i--) {
                    stored.save(saved++, random);
                    int gone = random.nextInt(saved);
                    stored.all.remove(gone);
                    always.remove(gone);
                }
            } while (after.isPresent());
            assertEquals(shown.size(), shown.stream().map(CheckpointManifest::path).distinct().count());
            assertTrue(shown.containsAll(always.values()), "seed " + seed);
            assertEquals(shown, shown.stream().sorted((a, b) ->
                    Position.of(a).compareTo(Position.of(b))).toList());
        }
    }

    @Test void aCursorComesBackAsItWasGiven() {
        var position = new Position(1_800_000_000_123L, "bios://b-000000000000/weights/x");
        assertEquals(position, read(JsonWriter.write(position.body())));
        // as pydantic writes it
        assertEquals(new Position(123, "x"), read("""
                {"last_created_at": "1970-01-01T01:00:00.123000+01:00", "last_checkpoint_uuid": "x"}"""
                .getBytes(StandardCharsets.UTF_8)));
    }

    private static Position read(byte[] body) {
        return Position.read(Fields.of(FieldPath.BODY, new JsonReader(16, 1 << 16).read(body, _ -> { })));
    }
}
