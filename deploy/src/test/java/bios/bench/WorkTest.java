package bios.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

/// Against numbers worked out by hand for a model of one layer: q and o 4x4, k and v 4x2, gate, up and down
/// 4x6, head 4x10.
final class WorkTest {
    private static final Shape SMALL =
            new Shape("small", "LlamaForCausalLM", 10, 4, 6, 1, 2, 1, 16, 1e4, false);

    @Test void aTrainingStepPaysTwiceForEachWeightButForTheFirstInputs() {
        Work work = Work.training(SMALL, 1, new int[] {3});
        assertEquals(3 * (4 * (120 + 40) - 2 * 32), work.base());
    }

    @Test void aTrainingStepHasSixLowRankProductsButForTheFirstInputs() {
        Work work = Work.training(SMALL, 1, new int[] {3});
        assertEquals(3 * (6 * 58 - 2 * 12), work.lowRank());
        assertEquals(5 * work.lowRank(), Work.training(SMALL, 5, new int[] {3}).lowRank());
    }

    @Test void attentionIsHalfTheSquareOfEachSequence() {
        // 2 heads of 2, 2 operations each, for 4.5 pairs: 36 a product, six products
        assertEquals(6 * 36, Work.training(SMALL, 1, new int[] {3}).attention());
        assertEquals(2 * 6 * 36, Work.training(SMALL, 1, new int[] {3, 3}).attention());
        assertEquals(4 * 6 * 36, Work.training(SMALL, 1, new int[] {6}).attention());
    }

    @Test void aPromptPaysOnceAndForOneRowOfLogits() {
        Work work = Work.prefill(SMALL, 1, new int[] {3});
        assertEquals(3 * 2 * 120 + 2 * 40, work.base());
        assertEquals(3 * 2 * 58, work.lowRank());
        assertEquals(2 * 36, work.attention());
    }

    @Test void decodingReadsLayersAndHead() {
        assertEquals(2 * (120 + 40), SMALL.decodedBytes(true));
        assertEquals(4 * (120 + 40), SMALL.decodedBytes(false));
    }
}
