package bios.bench;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import org.junit.jupiter.api.Test;

final class LengthsTest {
    @Test void mixedLengthsAreTheSameForASeedAndLieInTheirRange() {
        int[] lengths = Lengths.mixed(1);
        assertEquals(64, lengths.length);
        assertArrayEquals(lengths, Lengths.mixed(1));
        assertTrue(Arrays.stream(lengths).allMatch(n -> n >= 16 && n <= 512));
    }

    @Test void everyOctaveOfMixedLengthsIsAboutAsFrequent() {
        int[] octaves = new int[5];
        for (int seed = 0; seed < 100; seed++)
            for (int length : Lengths.mixed(seed))
                octaves[Math.min(4, (int) (Math.log(length / 16.0) / Math.log(2)))]++;
        for (int count : octaves) assertEquals(6400 / 5, count, 200);
    }

    @Test void levelledLengthsKeepCountAndTotal() {
        assertArrayEquals(new int[] {4, 4, 3}, Lengths.levelled(new int[] {1, 2, 8}));
    }

    @Test void tenantsTogetherAskForTheWorkOfTheOneBesideThem() {
        Workload tenants = Workload.tenants(8, 256);
        Workload one = tenants.merged();
        assertEquals(tenants.tokens(), one.tokens());
        assertEquals(tenants.work(Shape.LLAMA_110M).all(), one.work(Shape.LLAMA_110M).all(), 1);
    }
}
