package bios.worker.device.cuda;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

/// A kernel that is started while the one before it is ending waits for it before it does anything else. The
/// emulated device executes kernels one after the other and would not see one that forgets it.
class EarlyLaunchesTest {
    private static final Pattern KERNEL = Pattern.compile("extern \"C\" __global__ void\\s+"
            + "(?:__\\w+__\\([^)]*\\)\\s+)*(\\w+)\\([^{;]*\\{\\s*(\\S+)");

    @Test void everyKernelBeginsByWaiting() {
        List<String> others = new ArrayList<>();
        List<MatchResult> kernels = KernelCompiler.allSources().stream()
                .flatMap(source -> KERNEL.matcher(text(source + ".cu")).results()).toList();
        assertTrue(kernels.size() > 50, "found only " + kernels.size() + " kernels");
        for (MatchResult kernel : kernels)
            if (!kernel.group(2).equals("begin();")) others.add(kernel.group(1));
        // the kernels for few rows read weights before, which no kernel writes
        assertTrue(others.stream().allMatch(name -> name.startsWith("few_rows_")), others.toString());
    }

    /// Before rows are copied, unless they were complete when the kernel before began; then at the end.
    @Test void kernelsForFewRowsWaitBeforeTheyCopyRows() {
        String text = text("few_rows.cuh");
        int waits = text.indexOf("    if (!early) awaitPrevious();\n");
        assertTrue(waits > 0 && waits < text.indexOf("rows.start(") && waits < text.indexOf("rows.produce(")
                && waits < text.indexOf("lowRanks(x, lows);"), text);
        assertTrue(text.indexOf("    if (early) awaitPrevious();\n") > waits, text);
    }

    private static String text(String source) {
        try (var in = KernelCompiler.class.getResourceAsStream(source)) {
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
