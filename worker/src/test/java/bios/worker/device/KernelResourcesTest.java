package bios.worker.device;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfSystemProperty;
import org.junit.jupiter.api.io.TempDir;

/// The kernels compile for every architecture of the backend without a warning, none of them spills
/// registers to memory on the cards that they are made for, and `docs/bench/kernels.md` has their registers
/// and shared memory.
///
/// Compiling takes minutes, so a source is compiled only if it is not the one that the table names by its
/// hash, and the test is run where it is asked for: `-Dbios.kernels=check`, or `-Dbios.kernels=write`, which
/// writes the table.
@EnabledIfSystemProperty(named = "bios.kernels", matches = "check|write")
final class KernelResourcesTest {
    private static final Path SOURCES = Path.of("src/main/resources/bios/worker/device/cuda");
    private static final Path TABLE = Path.of("../docs/bench/kernels.md");
    private static final List<String> ARCHITECTURES = List.of("sm_80", "sm_90a", "sm_100");
    /// No kernel is tuned for it: its compiler may spill a few bytes, which are in the table.
    private static final String UNTUNED = "sm_100";
    private static final int MOST_SPILLED = 128;
    /// Kernels that spill a little: the first is used on a card with warpgroups only if their bits differ;
    /// the others keep two numbers in memory beside their loop.
    private static final Map<String, Integer> SPILLING = Map.of("attention_mma_wide_128, sm_90a", 80,
            "few_rows_64_128, sm_80", 24, "few_rows_64_128_pairs, sm_80", 24);
    private static final Pattern INCLUDED = Pattern.compile("#include \"(\\w+\\.cuh)\"");
    private static final Pattern ENTRY = Pattern.compile(
            "Compiling entry function '(\\w+)' for '(\\w+)'[\\s\\S]*?"
                    + "(\\d+) bytes stack frame, (\\d+) bytes spill stores, "
                    + "(\\d+) bytes spill loads[\\s\\S]*?"
                    + "Used (\\d+) registers(?:, used \\d+ barriers)?"
                    + "(?:, \\d+ bytes cumulative stack size)?(?:, (\\d+) bytes smem)?");

    /// What the compiler says of a kernel: numbers for each architecture.
    private record Resources(List<Integer> registers, List<Integer> shared, List<Integer> spilled) {
        Resources() {
            this(new ArrayList<>(), new ArrayList<>(), new ArrayList<>());
        }

        private static String row(List<Integer> numbers) {
            return numbers.stream().distinct().count() == 1 ? numbers.getFirst().toString()
                    : String.join(" / ", numbers.stream().map(Object::toString).toList());
        }

        String line(String kernel) {
            return "| `%s` | %s | %s | %s |".formatted(kernel, row(registers), row(shared), row(spilled));
        }
    }

    @TempDir Path folder;

    private static List<Path> sources() throws IOException {
        try (var files = Files.list(SOURCES)) {
            return files.filter(file -> file.toString().endsWith(".cu")).sorted().toList();
        }
    }

    private static String hash(Path source) throws Exception {
        var files = new TreeSet<Path>();
        addWithHeaders(files, source);
        var digest = MessageDigest.getInstance("SHA-256");
        for (Path file : files) digest.update(Files.readAllBytes(file));
        return HexFormat.of().formatHex(digest.digest(), 0, 6);
    }

    private static void addWithHeaders(Set<Path> files, Path file) throws IOException {
        if (!files.add(file)) return;
        var headers = INCLUDED.matcher(Files.readString(file));
        while (headers.find()) addWithHeaders(files, SOURCES.resolve(headers.group(1)));
    }

    private List<String> compile(Path source, Map<String, Resources> kernels) {
        List<String> faults = new ArrayList<>();
        boolean hopper = source.toString().matches(".*_(wgmma|clusters)\\.cu");
        for (String architecture : hopper ? List.of("sm_90a") : ARCHITECTURES) {
            var ended = CudaEmulator.run(List.of("nvcc", "-std=c++17", "-x", "cu", "--cubin", "-arch="
                    + architecture, "-Xptxas", "-v", "-o", folder.resolve("out").toString(),
                    source.toAbsolutePath().toString()), Map.of(), 1200);
            // a loss of performance: products of warpgroups that wait for each other
            if (ended.status() != 0 || ended.output().contains("warning")
                    || ended.output().contains("Potential Performance Loss"))
                faults.add(source.getFileName() + " for " + architecture + ":\n" + ended.output());
            var entries = ENTRY.matcher(ended.output());
            while (entries.find()) {
                var resources = kernels.computeIfAbsent(entries.group(1), _ -> new Resources());
                int spilled = Integer.parseInt(entries.group(4)) + Integer.parseInt(entries.group(5));
                resources.registers.add(Integer.parseInt(entries.group(6)));
                resources.shared.add(entries.group(7) == null ? 0 : Integer.parseInt(entries.group(7)));
                resources.spilled.add(spilled);
                if (spilled > mostSpilled(entries.group(1), architecture))
                    faults.add(entries.group(1) + " spills " + spilled + " bytes for " + architecture);
                // an array or a parameter that is indexed by a number known only when the kernel runs
                if (spilled == 0 && !entries.group(3).equals("0"))
                    faults.add(entries.group(1) + " keeps " + entries.group(3) + " bytes of each thread in"
                            + " memory for " + architecture);
            }
        }
        return faults;
    }

    private static int mostSpilled(String kernel, String architecture) {
        return architecture.equals(UNTUNED) ? MOST_SPILLED
                : SPILLING.getOrDefault(kernel + ", " + architecture, 0);
    }

    private static String section(Path source, String hash, Map<String, Resources> kernels) {
        var text = new StringBuilder("## %s, %s\n\n| kernel | registers | static shared | spilled |\n"
                .formatted(source.getFileName(), hash)).append("|---|---|---|---|\n");
        kernels.forEach((kernel, resources) -> text.append(resources.line(kernel)).append('\n'));
        return text.append('\n').toString();
    }

    private static final String HEAD = """
            # What the compiler makes of the kernels

            Registers of a thread, static shared memory of a block and spilled bytes, by nvcc and ptxas
            13.0 for %s (one number if they agree). The hash is of the source and its headers; a test
            compiles a source whose hash is another one, and compares. Written by `KernelResourcesTest` with
            `-Dbios.kernels=write`.

            """.formatted(String.join(" / ", ARCHITECTURES));

    @Test void kernelsCompileForEveryArchitectureWithoutWarningsAndSpillsAndAreInTheTable() throws Exception {
        String table = Files.exists(TABLE) ? Files.readString(TABLE) : "";
        boolean write = System.getProperty("bios.kernels").equals("write");
        var text = new StringBuilder(HEAD);
        List<String> faults = new ArrayList<>();
        for (Path source : sources()) {
            String heading = "## %s, %s\n".formatted(source.getFileName(), hash(source));
            if (table.contains(heading)) {
                text.append(table, table.indexOf(heading), end(table, heading));
                continue;
            }
            assumeTrue(CudaEmulator.available("nvcc") && CudaEmulator.available("ptxas"),
                    "no nvcc: " + source.getFileName() + " is not compiled");
            var kernels = new TreeMap<String, Resources>();
            faults.addAll(compile(source, kernels));
            assertTrue(!kernels.isEmpty(), source + " has no kernel");
            text.append(section(source, hash(source), kernels));
        }
        assertEquals(List.of(), faults);
        if (write) Files.writeString(TABLE, text, StandardCharsets.UTF_8);
        else assertEquals(text.toString(), table, "docs/bench/kernels.md: -Dbios.kernels=write writes it");
    }

    private static int end(String table, String heading) {
        int next = table.indexOf("\n## ", table.indexOf(heading));
        return next < 0 ? table.length() : next + 1;
    }
}
