package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.run.OperationResult;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;

class ResultCacheTest {
    private static FinishedOperation kept(long position, int logprobs) {
        return new FinishedOperation(position, 100 + position, "d", Optional.of(new OperationResult.Evaluated(
                List.of(new float[logprobs]), Map.of())), Optional.empty());
    }

    private static ResultsPage page(long first, long last, boolean fetched) {
        var id = new BlobId("runs/x/results", "%064x".formatted(last));
        return new StoredResults(LongStream.rangeClosed(first, last).mapToObj(p -> kept(p, 0)).toList())
                .page(new BlobRef(id, 1), fetched);
    }

    @Test void resultsOutsidePagesStayAndFetchedOnesAreEvictedFirst() {
        var results = new ResultCache(1000, 1 << 30, 3000);
        for (long p = 1; p <= 20; p++) results.add(kept(p, 100));
        assertEquals(20, results.unsaved(20).size());
        results.fetched(kept(4, 100));
        results.saved(10);
        assertEquals(10, results.unsaved(20).size());
        assertTrue(results.bySeq(104).isEmpty(), "the fetched result is evicted");
        assertTrue(results.bySeq(110).isPresent(), "the newest result stays");
        assertTrue(results.bytes() - results.unsavedBytes() <= 3000);
        results.shrink(0);
        assertEquals(results.unsavedBytes(), results.bytes());
        results.saved(20);
        results.shrink(0);
        assertEquals(0, results.bytes());
    }

    @Test void pagesThatWereNotFetchedAreKeptLonger() {
        var results = new ResultCache(320, 1 << 30, 0);
        List<ResultsPage> pages = new ArrayList<>();
        for (int i = 0; i < 100; i++) pages.add(page(10 * i + 1, 10 * i + 10, false));
        assertEquals(pages.subList(68, 100), results.kept(pages));
        List<ResultsPage> read = pages.stream().map(ResultsPage::asFetched).toList();
        assertEquals(read.subList(99, 100), results.kept(read));
        assertEquals(1, results.kept(List.of(page(1, 1000, false))).size(), "the newest page always stays");
    }

    @Test void aPageIsFetchedWhenAllItsResultsWereFetched() {
        var results = new ResultCache(320, 1 << 30, 0);
        var page = page(5, 8, false);
        for (long p = 5; p <= 7; p++) results.fetched(kept(p, 0));
        assertEquals(page, results.refreshed(page));
        results.fetched(kept(8, 0));
        assertEquals(page.asFetched(), results.refreshed(page));
    }

    @Test void whatWasFetchedOfResultsThatAreGoneIsForgotten() {
        var results = new ResultCache(320, 1 << 30, 0);
        List<ResultsPage> pages = new ArrayList<>();
        for (long p = 1; p <= 10_000; p++) {
            if (p % 2 == 0) results.fetched(kept(p, 0));
            if (p % 10 == 0) pages.add(page(p - 9, p, false));
            pages = new ArrayList<>(results.kept(pages));
        }
        assertEquals(32, pages.size());
        assertTrue(results.fetchedIntervals() <= 165, () -> results.fetchedIntervals() + " intervals");
    }

    @Test void theRunWithTheMostResultsIsAskedOnceToFreeMemory() {
        var asked = new ArrayList<String>();
        var memory = new NodeMemory(1000);
        var small = memory.open(() -> asked.add("small"));
        var large = memory.open(() -> asked.add("large"));
        small.results(300);
        large.results(600);
        assertEquals(List.of(), asked);
        small.results(500);
        assertEquals(List.of("large"), asked);
        small.results(550);
        assertEquals(List.of("large", "small"), asked, "a run that has not freed memory is not asked again");
        large.results(0);
        large.shrunk();
        assertEquals(550, memory.results());
        small.close();
        large.close();
        assertEquals(0, memory.results());
    }
}
