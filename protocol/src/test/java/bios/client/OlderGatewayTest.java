package bios.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;

import bios.protocol.client.Answer;
import bios.protocol.client.Request;
import bios.protocol.run.RunId;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.Optional;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/// This build's client at a gateway of minor version 0, which answers with the bytes that one wrote.
class OlderGatewayTest {
    private static byte[] golden(String name) {
        try {
            return HexFormat.of().parseHex(Files.readString(Path.of("golden/client", name + ".1.hex"))
                    .strip());
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }

    /// Answers as a build that ignores what it does not know, and refuses requests that it has not heard of.
    private static void answer(ScriptedGateway.Caller caller, Request request) {
        caller.answer(switch (request) {
            case Request.History _ -> golden("Answer.History");
            case Request.ListRuns _ -> golden("Answer.Runs");
            case Request _ -> golden("Answer.Refused");
        });
    }

    private static <T> T get(CompletionStage<T> stage) throws Exception {
        return stage.toCompletableFuture().get(60, TimeUnit.SECONDS);
    }

    @Test void whatItHasWorksAndSubscriptionsSayThatItIsOlder() throws Exception {
        try (var gateway = new ScriptedGateway(0, OlderGatewayTest::answer);
                BiosClient client = BiosClient.connect(ClientSettings.of(gateway.address()))) {
            TrainingRun run = client.run(new RunId("usf-tiny-0123456789ab"), 1);
            assertEquals(1, get(client.runs(0, 20)).total());
            Answer.HistoryEntry entry = get(run.history(10)).getFirst();
            assertEquals("opened", entry.kind());
            assertEquals(Optional.empty(), entry.number());
            // It would act on whichever operation is set aside.
            var numbered = assertThrows(ExecutionException.class, () -> get(run.giveUp(7)));
            assertEquals("unsupported", assertInstanceOf(BiosException.Refused.class, numbered.getCause())
                    .code());
            try (Subscription subscription = run.onHistory(0, _ -> { })) {
                var failed = assertThrows(ExecutionException.class, () -> get(subscription.ended()));
                assertEquals("unsupported", assertInstanceOf(BiosException.Refused.class, failed.getCause())
                        .code());
            }
        }
    }
}
