package bios.protocol.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.client.ClientMessage.Fetch;
import bios.protocol.client.ClientMessage.Offer;
import bios.protocol.client.ClientMessage.Part;
import bios.protocol.client.ClientMessage.Payload;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/// Large payloads in parts: whole after any loss, and no more in flight than a few.
class PartsTest {
    private static byte[] payload(int length) {
        var bytes = new byte[length];
        new Random(length).nextBytes(bytes);
        return bytes;
    }

    @Test void aSmallPayloadIsSentAsItIs() {
        var sender = new PartSender(1 << 20, _ -> { });
        assertTrue(sender.send(1, payload(ClientMessage.PART_BYTES), 0) instanceof Payload);
        assertEquals(Optional.empty(), sender.part(new Fetch(1, 0), 0));
    }

    @Test void everyPartArrivesThoughMessagesAreLostRepeatedAndReordered() {
        var random = new Random(5);
        for (int extra : new int[] {1, 17, ClientMessage.PART_BYTES}) {
            byte[] bytes = payload(20 * ClientMessage.PART_BYTES + extra);
            var sender = new PartSender(1 << 30, _ -> { });
            var receiver = new PartReceiver();
            var offer = (Offer) sender.send(3, bytes, 0);
            var wanted = new ArrayList<>(receiver.begin(offer, 0));
            Optional<byte[]> whole = Optional.empty();
            for (long time = 1; whole.isEmpty(); time++) {
                if (wanted.isEmpty()) wanted.addAll(receiver.askAgain(time, 0));
                assertTrue(wanted.size() <= 20, () -> "asked for " + wanted.size());
                Fetch next = wanted.remove(random.nextInt(wanted.size()));
                if (random.nextInt(4) == 0) continue;
                Part part = sender.part(next, time).orElseThrow();
                for (int copies = 1 + random.nextInt(2); copies > 0 && whole.isEmpty(); copies--) {
                    PartReceiver.Progress progress = receiver.add(part, time);
                    wanted.addAll(progress.next());
                    whole = progress.whole();
                }
            }
            assertArrayEquals(bytes, whole.get());
        }
    }

    @Test void fewPartsAreInFlight() {
        var receiver = new PartReceiver();
        var open = new ArrayDeque<>(receiver.begin(new Offer(1, 100 * ClientMessage.PART_BYTES), 0));
        int most = open.size();
        for (int i = 0; i < 99; i++) {
            Fetch fetch = open.remove();
            var part = new Part(1, fetch.index(), new byte[ClientMessage.PART_BYTES]);
            open.addAll(receiver.add(part, 0).next());
            most = Math.max(most, open.size());
        }
        assertEquals(8, most);
    }

    @Test void lostPartsAreAskedForAfterPausesThatDouble() {
        var receiver = new PartReceiver();
        receiver.begin(new Offer(1, 2 * ClientMessage.PART_BYTES), 0);
        var asked = new ArrayList<Integer>();
        for (int now = 1; now <= 40; now++) if (!receiver.askAgain(now, 2).isEmpty()) asked.add(now);
        assertEquals(List.of(3, 8, 17, 34), asked);
        receiver.add(new Part(1, 0, new byte[ClientMessage.PART_BYTES]), 40);
        assertEquals(List.of(), receiver.askAgain(42, 2));
        assertEquals(List.of(new Fetch(1, 1)), receiver.askAgain(43, 2));
    }

    @Test void aPayloadThatIsOfferedAgainIsFetchedFromItsBeginning() {
        var receiver = new PartReceiver();
        var full = new byte[ClientMessage.PART_BYTES];
        receiver.begin(new Offer(1, 2 * full.length), 0);
        receiver.add(new Part(1, 0, full), 0);
        assertEquals(List.of(new Fetch(1, 0), new Fetch(1, 1)),
                receiver.begin(new Offer(1, full.length + 3), 1));
        assertEquals(Optional.empty(), receiver.add(new Part(1, 1, new byte[3]), 1).whole());
        assertEquals(full.length + 3, receiver.add(new Part(1, 0, full), 1).whole().orElseThrow().length);
    }

    @Test void partsThatNobodyAskedForAreIgnored() {
        var receiver = new PartReceiver();
        receiver.begin(new Offer(1, 20 * ClientMessage.PART_BYTES), 0);
        var full = new byte[ClientMessage.PART_BYTES];
        for (Part part : List.of(new Part(1, 12, full), new Part(1, -1, full), new Part(2, 0, full),
                new Part(1, 0, new byte[3])))
            assertEquals(new PartReceiver.Progress(List.of(), Optional.empty()), receiver.add(part, 0));
    }

    @Test void whoAsksAndDoesNotReadIsNotSentThePayloadForEver() {
        var dropped = new ArrayList<Long>();
        var sender = new PartSender(1 << 30, dropped::add);
        sender.send(1, payload(10 * ClientMessage.PART_BYTES), 0);
        long sent = IntStream.range(0, 1000).filter(i ->
                sender.part(new Fetch(1, i % 10), i).isPresent()).count();
        assertEquals(74, sent);
        assertEquals(List.of(1L), dropped);
    }

    @Test void whatIsNotFetchedIsGivenUpAndDropped() {
        var dropped = new ArrayList<Long>();
        var sender = new PartSender(3 * ClientMessage.PART_BYTES, dropped::add);
        byte[] bytes = payload(2 * ClientMessage.PART_BYTES);
        sender.send(1, bytes, 0);
        sender.send(2, bytes, 5);
        assertEquals(List.of(1L), dropped, "no room for both");
        sender.part(new Fetch(2, 0), 9);
        sender.dropUnaskedSince(9);
        assertEquals(List.of(1L), dropped);
        sender.dropUnaskedSince(10);
        assertEquals(List.of(1L, 2L), dropped);
        var receiver = new PartReceiver();
        receiver.begin(new Offer(1, bytes.length), 4);
        assertEquals(List.of(), receiver.giveUp(4));
        assertEquals(List.of(1L), receiver.giveUp(5));
        assertTrue(!receiver.has(1));
    }
}
