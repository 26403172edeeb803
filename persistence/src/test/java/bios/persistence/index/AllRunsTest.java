package bios.persistence.index;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.RunId;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.junit.jupiter.api.Test;

/// [RunIndex#allRuns] reads every page once, and no page that nothing asks for.
final class AllRunsTest {
    /// An index of this many runs, all the same, that notes which pages are read.
    private record Counted(int runs, List<Long> offsets) implements RunIndex {
        @Override public void put(RunSummary summary, long version) {}

        @Override public void remove(RunId run) {}

        @Override public ListingPage<RunSummary> runs(String owner, int limit, long offset) {
            offsets.add(offset);
            int rows = Math.clamp(runs - offset, 0, limit);
            return new ListingPage<>(Collections.nCopies(rows, RunIndexContract.run(1, owner, 0)), runs);
        }

        @Override public ListingPage<CheckpointManifest> checkpoints(String owner, int limit, long offset) {
            throw new UnsupportedOperationException();
        }
    }

    @Test void everyRunIsInTheStream() {
        for (int runs : new int[] {0, 1, 999, 1000, 1001, 2000, 2500}) {
            var index = new Counted(runs, new ArrayList<>());
            assertEquals(runs, index.allRuns("owner").mapToInt(_ -> 1).sum(), runs + " runs");
        }
    }

    @Test void pagesAreReadWhenTheyAreAskedFor() {
        var index = new Counted(2500, new ArrayList<>());
        assertTrue(index.allRuns("owner").anyMatch(_ -> true));
        assertEquals(List.of(0L), index.offsets());
        assertEquals(1500, index.allRuns("owner").limit(1500).count());
        assertEquals(List.of(0L, 0L, 1000L), index.offsets());
    }
}
