package bios.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// `bios gpu-check` on this machine's device, with small shapes.
final class GpuCheckTest {
    private final ByteArrayOutputStream printed = new ByteArrayOutputStream();
    @TempDir private Path folder;

    private ObjectNode check(List<String> only, Duration limit) throws Exception {
        return new GpuCheck(GpuCheck.Sizes.TINY, limit, Optional.empty(), only, folder,
                new PrintStream(printed, true, StandardCharsets.UTF_8)).run();
    }

    @Test void allPartsRunAndADeviceAgreesWithItself() throws Exception {
        ObjectNode result = check(List.of(), Duration.ofMinutes(10));
        assertEquals("[]", result.path("failed").toString(), printed.toString(StandardCharsets.UTF_8));
        for (String part : List.of("verbs", "models", "bits", "ceilings", "train", "tenants", "profile",
                "mixed", "decode", "decode-profile"))
            assertTrue(result.has(part), part);
        assertTrue(result.path("train").path("tok_s").asDouble() > 0);
        assertEquals(0, result.path("decode").path("goals").get(2).path("value").asDouble(),
                "sampler and trainer");
    }

    @Test void whatNoLongerFitsIntoItsTimeIsLeftOutByName() throws Exception {
        ObjectNode result = check(List.of("bits", "ceilings"), Duration.ZERO);
        assertEquals("[\"bits\",\"ceilings\"]", result.path("left_out").toString());
        assertEquals("[]", result.path("failed").toString());
    }
}
