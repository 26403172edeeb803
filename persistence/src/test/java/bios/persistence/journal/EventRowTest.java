package bios.persistence.journal;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;

class EventRowTest {
    private static StoredPayload payload(Random random) {
        byte[] bytes = new byte[random.nextInt(300)];
        random.nextBytes(bytes);
        return new StoredPayload(random.nextInt(), "mänifest".substring(0, random.nextInt(9)), bytes);
    }

    @Test void everyRowIsReadAsItWasWritten() {
        var random = new Random(1);
        for (int i = 0; i < 500; i++) {
            var events = new ArrayList<EventRow.Event>();
            for (int n = 1 + random.nextInt(5); n > 0; n--)
                events.add(new EventRow.Event(random.nextLong(), random.nextBoolean() ? "" : "adapter",
                        payload(random),
                                random.nextBoolean() ? Optional.of(payload(random)) : Optional.empty()));
            var row = new EventRow("p", 1 + random.nextInt(100), "w", events);
            ByteBuffer bytes = row.bytes();
            assertEquals(bytes.capacity(), bytes.remaining());
            EventRow read = EventRow.read("p", row.first(), "w", bytes);
            assertEquals(bytes, read.bytes());
            assertEquals(row.last(), read.last());
        }
    }

    @Test void everyFlippedBitAndEveryCutIsFound() {
        byte[] bytes = new EventRow("p", 5, "w", List.of(new EventRow.Event(7, "a",
                new StoredPayload(42, "mn", new byte[] {1, 2, 3}), Optional.empty()))).bytes().array();
        for (int bit = 8; bit < 8 * bytes.length; bit++) {
            byte[] flipped = bytes.clone();
            flipped[bit / 8] ^= (byte) (1 << bit % 8);
            assertThrows(JournalDamaged.class, () -> EventRow.read("p", 5, "w", ByteBuffer.wrap(flipped)));
        }
        for (int length = 1; length < bytes.length - 4; length++) {
            var cut = ByteBuffer.wrap(bytes, 0, length).slice();
            assertThrows(JournalDamaged.class, () -> EventRow.read("p", 5, "w", cut));
        }
        assertThrows(JournalDamaged.class, () -> EventRow.read("p", 6, "w", ByteBuffer.wrap(bytes)),
                "a row in the place of another one");
    }

    /// Bytes of stored rows. They never change; a new format gets a new version.
    @Test void theBytesOfVersionOneAreStillRead() {
        String golden = "01" + "00000001" + "0000000000000007" + "00000001" + "61" + "0000002a" + "00000002"
                + "6d6e"
                + "00000003" + "010203" + "00";
        var row = new EventRow("p", 5, "w", List.of(new EventRow.Event(7, "a",
                new StoredPayload(42, "mn", new byte[] {1, 2, 3}), Optional.empty())));
        assertEquals(golden + "7720c938", HexFormat.of().formatHex(row.bytes().array()));
        EventRow read = EventRow.read("p", 5, "w", ByteBuffer.wrap(HexFormat.of().parseHex(golden)));
        assertEquals(row.bytes(), read.bytes());
    }

    @Test void anUnknownVersionIsRefused() {
        var refused = assertThrows(IllegalStateException.class,
                () -> EventRow.read("p", 5, "w", ByteBuffer.wrap(new byte[] {2, 0, 0, 0, 0})));
        assertTrue(refused.getMessage().contains("event 5 of p"), refused.getMessage());
    }
}
