package bios.worker.device.cuda;

import static java.lang.Boolean.FALSE;
import static java.lang.Boolean.TRUE;

import bios.worker.device.CudaSettings;
import bios.worker.device.CudaSettings.Products;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Which [OptionalKernels] a card executes with the right bits. A [KernelTrial] finds out, once for each kind
/// of card, driver and version of the kernels; a file beside the compiled kernels keeps it. Kernels that fail
/// there are not used.
final class ProvenKernels {
    private static final Logger log = LoggerFactory.getLogger(ProvenKernels.class);
    private static final long TRIAL_SECONDS = 180;
    /// Lines of a failed process that are logged.
    private static final int LINES = 20;
    private static final String SOUND = " sound", FAULTY = " faulty";
    private static final List<String> JAVA = List.of("--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow", "-Xmx256m", "-XX:TieredStopAtLevel=1");

    private final CudaCard card;
    private final CudaSettings settings;
    private final KernelCompiler compiler;

    ProvenKernels(CudaCard card, CudaSettings settings, KernelCompiler compiler) {
        this.card = card;
        this.settings = settings;
        this.compiler = compiler;
    }

    /// The settings of products without kernels that are not known to be sound on this card. Called before
    /// this process uses the card, which may be for one process only.
    Products products() {
        Products products = settings.products();
        var wanted = Arrays.stream(OptionalKernels.values())
                .filter(kernels -> kernels.wanted(settings.products())).toList();
        if (!settings.kernelTrial() || wanted.isEmpty()) return products;
        Path file = compiler.file("kernels", List.of("few_rows", "few_rows_clusters"),
                Integer.toString(CudaDriver.version()), "txt");
        var known = read(file);
        if (!known.keySet().containsAll(wanted)) {
            log.info("trying kernels in a process of their own, once for this kind of card and driver");
            known.putAll(trial(wanted.stream().filter(kernels -> !FALSE.equals(known.get(kernels)))
                    .toList()));
            compiler.keep(file, known.entrySet().stream().map(entry -> entry.getKey()
                    + (entry.getValue() ? SOUND : FAULTY) + "\n").collect(Collectors.joining())
                    .getBytes(StandardCharsets.UTF_8));
        }
        for (var kernels : wanted) {
            if (TRUE.equals(known.get(kernels))) continue;
            products = kernels.off(products);
            log.warn("bios.engine.cuda.{} is off: its kernels {} on this card with this driver; they are "
                    + "tried again when {} is deleted", kernels.setting(), known.containsKey(kernels)
                    ? "failed" : "could not be tried", file);
        }
        return products;
    }

    private static Map<OptionalKernels, Boolean> read(Path file) {
        var known = new EnumMap<OptionalKernels, Boolean>(OptionalKernels.class);
        try {
            var lines = Files.exists(file) ? Files.readAllLines(file) : List.<String>of();
            for (var kernels : OptionalKernels.values())
                for (boolean sound : new boolean[] {true, false})
                    if (lines.contains(kernels + (sound ? SOUND : FAULTY))) known.put(kernels, sound);
        } catch (IOException failed) {
            log.warn("cannot read {}: {}", file, failed.toString());
        }
        return known;
    }

    /// Whether kernels are sound, of those that could be tried. Kernels that end the process are faulty;
    /// those after them are tried in another one.
    private Map<OptionalKernels, Boolean> trial(List<OptionalKernels> wanted) {
        var known = new EnumMap<OptionalKernels, Boolean>(OptionalKernels.class);
        while (!known.keySet().containsAll(wanted)) {
            var some = wanted.stream().filter(kernels -> !FALSE.equals(known.get(kernels))).toList();
            var lines = run(some);
            if (!lines.contains(KernelTrial.STARTED)) return known;
            for (var kernels : some) {
                boolean same = lines.contains(KernelTrial.LINE + kernels + KernelTrial.SAME);
                boolean ended = !same && !lines.contains(KernelTrial.LINE + kernels + KernelTrial.OTHER);
                known.put(kernels, same);
                if (ended) break;
            }
        }
        return known;
    }

    /// Runs a process that tries kernels; the lines that it printed.
    private List<String> run(List<OptionalKernels> some) {
        var command = new ArrayList<String>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(JAVA);
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), KernelTrial.class.getName(),
                Integer.toString(card.index()), compiler.cache().toAbsolutePath().toString(),
                String.join(File.pathSeparator, settings.libraryPath())));
        some.forEach(kernels -> command.add(kernels.name()));
        try {
            Path output = Files.createTempFile("bios-kernel-trial", ".log");
            try {
                var process = new ProcessBuilder(command).redirectErrorStream(true)
                        .redirectOutput(output.toFile()).start();
                boolean ended = process.waitFor(TRIAL_SECONDS, TimeUnit.SECONDS);
                if (!ended) process.destroyForcibly().waitFor(); // edge: a device is opened
                var lines = Files.readAllLines(output, StandardCharsets.ISO_8859_1);
                if (!ended || process.exitValue() != 0) log.warn("the process that tries kernels {}:\n{}",
                        ended ? "ended with status " + process.exitValue() : "did not end in time",
                        String.join("\n", lines.subList(Math.max(0, lines.size() - LINES), lines.size())));
                return lines;
            } finally {
                Files.deleteIfExists(output);
            }
        } catch (IOException failed) {
            log.warn("no process to try kernels in: {}", failed.toString());
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
        return List.of();
    }
}
