package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

class SoloTest {
    private final Solo solo = new Solo();
    private final List<String> called = new ArrayList<>();

    private boolean take(String who) {
        return solo.take(who, () -> called.add(who));
    }

    @Test void oneAtATimeInTheOrderOfAsking() {
        assertTrue(take("a"));
        assertTrue(take("a"), "it keeps its turn");
        assertFalse(take("b"));
        assertFalse(take("c"));
        assertFalse(take("b"), "asking again changes nothing");
        solo.leave("a");
        assertEquals(List.of("b"), called);
        assertFalse(take("a"));
        assertTrue(take("b"));
        solo.leave("b");
        assertEquals(List.of("b", "c"), called);
    }

    @Test void whoEndsWhileItWaitsIsPassedOver() {
        assertTrue(take("a"));
        assertFalse(take("b"));
        assertFalse(take("c"));
        solo.leave("b");
        solo.leave("stranger");
        solo.leave("a");
        assertEquals(List.of("c"), called);
        solo.leave("c");
        assertTrue(take("b"));
    }
}
