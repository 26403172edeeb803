package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

class ExclusiveReplayTest {
    private final ExclusiveReplay exclusive = new ExclusiveReplay();
    private final List<String> granted = new ArrayList<>();

    private void request(String run) {
        exclusive.request(run, () -> granted.add(run));
    }

    @Test void oneRunAtATimeInTheOrderOfRequests() {
        request("a");
        assertEquals(List.of("a"), granted);
        request("a");
        request("b");
        request("c");
        request("b");
        assertEquals(List.of("a"), granted, "a repeated request changes nothing");
        exclusive.release("a");
        assertEquals(List.of("a", "b"), granted);
        request("a");
        exclusive.release("b");
        assertEquals(List.of("a", "b", "c"), granted);
        exclusive.release("c");
        assertEquals(List.of("a", "b", "c", "a"), granted);
        exclusive.release("a");
        assertFalse(exclusive.held());
    }

    @Test void aRunThatEndsWhileItWaitsIsSkipped() {
        request("a");
        request("b");
        request("c");
        exclusive.release("b");
        exclusive.release("stranger");
        assertTrue(exclusive.held());
        exclusive.release("a");
        assertEquals(List.of("a", "c"), granted);
        exclusive.release("c");
        request("b");
        assertEquals(List.of("a", "c", "b"), granted);
    }
}
