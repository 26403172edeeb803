package bios.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.CommandFailed;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalDouble;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A benchmark ends what exceeds its time limit, goes on with the rest, and says what it left out.
final class TimeLimitTest {
    private static final TimeLimit SHORT = new TimeLimit(Duration.ofMillis(400));
    private static final TimeLimit LONG = TimeLimit.seconds(60);

    @TempDir private Path folder;

    /// A peer that writes the process ids of itself and of a child of its own, then waits for that child.
    private String slowPeer() throws IOException {
        return script("slow", """
                sleep 300 &
                echo $$ $! > "%s"
                wait
                """.formatted(folder.resolve("pids")));
    }

    private String fastPeer() throws IOException {
        return script("fast", "echo '{\"train_tok_s\": 5}'");
    }

    private String script(String name, String body) throws IOException {
        Path file = folder.resolve(name);
        Files.writeString(file, "#!/bin/sh\n" + body + "\n");
        Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rwx------"));
        return file.toString();
    }

    private static ObjectNode run(Peer peer, boolean bf16) {
        return peer.run(Shape.LLAMA_110M, bf16, 8, List.of());
    }

    @Test void aPeerThatTakesTooLongIsEndedWithTheProcessesThatItStarted() throws Exception {
        Peer peer = new Peer(slowPeer(), SHORT);
        LeftOut reason = assertThrows(LeftOut.class, () -> run(peer, true));
        assertEquals("peer bf16: took longer than 400 ms (--limit)", reason.getMessage());
        for (String pid : Files.readString(folder.resolve("pids")).strip().split(" "))
            assertTrue(ended(Long.parseLong(pid)), "process " + pid + " still runs");
    }

    private static boolean ended(long pid) throws Exception {
        var process = ProcessHandle.of(pid);
        if (process.isEmpty()) return true;
        process.get().onExit().get(20, TimeUnit.SECONDS);
        return true;
    }

    @Test void aPeerThatFailsIsAFailureAndNotLeftOut() throws IOException {
        Peer peer = new Peer(script("wrong", "echo broken >&2; exit 4"), LONG);
        CommandFailed failure = assertThrows(CommandFailed.class, () -> run(peer, true));
        assertTrue(failure.getMessage().contains("exit status 4"), failure.getMessage());
        assertTrue(failure.getMessage().endsWith("broken"), failure.getMessage());
    }

    @Test void aReportSaysThatThePeerIsLeftOutAndWhy() throws IOException {
        Report report = new Report("train", "a device");
        report.line().put("train_tok_s", 10);
        Peer slow = new Peer(slowPeer(), SHORT);
        report.peer(() -> run(slow, true), "train_tok_s");
        assertEquals("peer bf16: took longer than 400 ms (--limit)",
                report.line().path("left_out").path(0).asText());
        assertFalse(report.line().has("ratio"));
        Report complete = new Report("train", "a device");
        complete.line().put("train_tok_s", 10);
        Peer fast = new Peer(fastPeer(), LONG);
        complete.peer(() -> run(fast, true), "train_tok_s");
        assertEquals(2, complete.line().path("ratio").asDouble());
        assertFalse(complete.line().has("left_out"));
    }

    @Test void whatIsLeftOutIsNotMeasuredAgainAndTheOthersAre() throws IOException {
        Peer slow = new Peer(slowPeer(), SHORT);
        Peer fast = new Peer(fastPeer(), LONG);
        int[] calls = new int[2];
        Map<String, Supplier<JsonNode>> turns = new LinkedHashMap<>();
        turns.put("slow", () -> {
            calls[0]++;
            return run(slow, true);
        });
        turns.put("fast", () -> {
            calls[1]++;
            return run(fast, false);
        });
        Runs runs = Runs.inTurn(3, turns);
        assertEquals(1, calls[0]);
        assertEquals(3, calls[1]);
        assertEquals(List.of("peer bf16: took longer than 400 ms (--limit)"), runs.leftOut("slow", "fast"));
        assertEquals(5, runs.mostOf("train_tok_s", "slow", "fast"));
        assertTrue(Double.isNaN(runs.most("slow", "train_tok_s")));
    }

    @Test void theTableAndTheJsonTellWhatIsLeftOut() {
        List<String> reasons = List.of("peer bf16: took longer than 300 s (--limit)");
        Row row = new Row("train", "tokens/s", 10, OptionalDouble.of(Double.NaN),
                OptionalDouble.of(Double.NaN), "2x the peer", OptionalDouble.empty(), false,
                Report.JSON.createArrayNode()).leavingOut(reasons);
        assertTrue(row.text().strip().endsWith("2x the peer; left out: " + reasons.getFirst()), row.text());
        assertFalse(row.text().contains("NaN"), row.text());
        assertEquals(reasons.getFirst(), row.json().path("left_out").path(0).asText());
        assertFalse(row.json().has("peer"));
        Row nothing = Row.without("train", "tokens/s", reasons);
        assertTrue(nothing.text().contains("left out: " + reasons.getFirst()), nothing.text());
        assertFalse(nothing.json().has("ours"));
        assertFalse(nothing.json().has("met"));
    }

    @Test void aMeasurementInThisProcessThatTakesTooLongIsReported() throws Exception {
        CountDownLatch told = new CountDownLatch(1);
        StringBuilder reason = new StringBuilder();
        Guard guard = new Guard(SHORT, why -> {
            reason.append(why);
            told.countDown();
        });
        guard.run("ours train", () -> told.await(60, TimeUnit.SECONDS));
        assertEquals("ours train: took longer than 400 ms (--limit)", reason.toString());
        Guard quiet = new Guard(LONG, _ -> told.countDown());
        assertEquals(7, quiet.<Integer, RuntimeException>run("ours", () -> 7));
    }
}
