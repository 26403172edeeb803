package bios.worker.device.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/// A kernel that is started while the one before it is ending waits for it before it does anything else. The
/// emulated device executes kernels one after the other and would not see one that forgets it.
class EarlyLaunchesTest {
    private static final Pattern KERNEL = Pattern.compile("extern \"C\" __global__ void\\s+"
            + "(?:__launch_bounds__\\([^)]*\\)\\s+)?(\\w+)\\([^{;]*\\{\\s*(\\S+)");

    @Test void everyKernelBeginsByWaiting() {
        List<String> others = new ArrayList<>();
        int[] count = {0};
        KernelCompiler.allSources().forEach(source -> KERNEL.matcher(text(source)).results().forEach(kernel -> {
            count[0]++;
            if (!kernel.group(2).equals("begin();")) others.add(kernel.group(1));
        }));
        assertTrue(count[0] > 50, "found only " + count[0] + " kernels");
        // these read weights before, which no kernel writes
        assertEquals(Stream.of("8", "16", "32_1", "32_2", "32_4", "64_1", "64_2", "64_4")
                .map(n -> "few_rows_" + n).toList(), others);
    }

    private static String text(String source) {
        try (var in = KernelCompiler.class.getResourceAsStream(source + ".cu")) {
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
