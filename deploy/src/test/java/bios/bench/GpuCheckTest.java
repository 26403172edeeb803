package bios.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.CommandFailed;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// `bios gpu-check` on this machine's device, with small shapes.
final class GpuCheckTest {
    private final ByteArrayOutputStream printed = new ByteArrayOutputStream();
    @TempDir private Path folder;

    private GpuCheck of(List<String> only, Duration limit, Consumer<ObjectNode> done) {
        return new GpuCheck(GpuCheck.Sizes.TINY, limit, Optional.empty(), only, folder,
                new PrintStream(printed, true, StandardCharsets.UTF_8), done);
    }

    private ObjectNode check(List<String> only, Duration limit) throws Exception {
        return of(only, limit, _ -> {}).run();
    }

    @Test void allPartsRunAndADeviceAgreesWithItself() throws Exception {
        ObjectNode result = check(List.of(), Duration.ofMinutes(10));
        assertEquals("[]", result.path("failed").toString(), printed.toString(StandardCharsets.UTF_8));
        for (String part : GpuCheck.PARTS) assertTrue(result.path(part).size() > 1, part);
        assertTrue(result.path("train").path("tok_s").asDouble() > 0);
        assertEquals(0, result.path("decode").path("goals").get(2).path("value").asDouble(),
                "sampler and trainer");
        List<String> goals = new ArrayList<>();
        result.findValues("goals").forEach(all -> all.forEach(goal -> goals.add(goal.path("what").asText())));
        assertEquals(List.of("training, tokens/s", "training, share of the matmul ceiling",
                "load and first step, seconds", "training, ratio to PyTorch", "16 tenants beside one",
                "packed lengths beside equal ones", "decoding, one stream, share of the bandwidth",
                "decoding, all streams, share of the bandwidth", "sampler and trainer, largest difference",
                "sampler and trainer, mean difference",
                "decoding, all streams, with adapters beside without",
                "decoding, all streams, ratio to transformers' generate"), goals);
        assertTrue(printed.toString(StandardCharsets.UTF_8).contains("not measured: needs --peer"));
        assertEquals(11, result.path("variants").path("variants").size());
    }

    @Test void aPartThatDoesNotExistIsRefusedWithTheNamesOfAll() {
        String why = assertThrows(CommandFailed.class, () -> of(List.of("bits", "speed"), Duration.ZERO,
                _ -> {})).getMessage();
        assertEquals("--only speed: the parts are " + String.join(", ", GpuCheck.PARTS), why);
    }

    @Test void theResultsAreToldAfterEachPart() throws Exception {
        List<Boolean> known = new ArrayList<>();
        of(List.of("bits"), Duration.ofMinutes(10), result -> known.add(result.has("bits"))).run();
        // the parts before it are left out, and are told about as well
        assertEquals(false, known.getFirst());
        assertEquals(true, known.getLast());
    }

    @Test void whatNoLongerFitsIntoItsTimeIsLeftOutByName() throws Exception {
        ObjectNode result = check(List.of("bits", "ceilings"), Duration.ZERO);
        assertEquals("[\"bits\",\"ceilings\"]", result.path("left_out").toString());
        assertEquals("[]", result.path("failed").toString());
    }
}
