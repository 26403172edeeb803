package bios.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

final class PercentilesTest {
    @Test void aPercentileIsTheSmallestValueThatSoManyDoNotExceed() {
        Percentiles hundred = Percentiles.of(IntStream.rangeClosed(1, 100).mapToObj(i -> (double) i).toList()
                .reversed());
        assertEquals(50, hundred.median());
        assertEquals(90, hundred.at(90));
        assertEquals(99, hundred.at(99));
        assertEquals(100, hundred.at(100));
        assertEquals(1, hundred.at(0));
    }

    @Test void oneValueIsEveryPercentile() {
        assertEquals(7, Percentiles.of(List.of(7.0)).at(99));
    }
}
