package bios.worker.device.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.zip.ZipFile;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// NVIDIA's own compiler of kernels takes every source, as on a node: without a header of CUDA. It needs no
/// card and no driver. It takes half a minute for an architecture: all of them with `-Dbios.kernels=check`.
///
/// The library comes from the folder of `-Dbios.nvrtc`, or from the jar `org.bytedeco:cuda-redist` in the
/// local Maven repository. With 362 MB the jar is too large to be a dependency of the build: where it is not,
/// the test is skipped by name.
final class NvrtcTest {
    private static final Path SOURCES = Path.of("src/main/resources/bios/worker/device/cuda");
    private static final Path JARS = Path.of(System.getProperty("user.home"),
            ".m2/repository/org/bytedeco/cuda-redist");
    private static final List<String> ARCHITECTURES = System.getProperty("bios.kernels") == null
            ? List.of("sm_90a") : List.of("sm_80", "sm_90a", "sm_100");

    @TempDir Path folder;

    private static List<Path> files(Path in, String end) throws IOException {
        try (var files = Files.walk(in)) {
            return files.filter(file -> file.toString().endsWith(end)).sorted().toList();
        }
    }

    private Optional<Path> library() throws IOException {
        String given = System.getProperty("bios.nvrtc");
        if (given != null) return Optional.of(Path.of(given));
        var jars = Files.isDirectory(JARS) ? files(JARS, "-linux-x86_64.jar") : List.<Path>of();
        if (jars.isEmpty()) return Optional.empty();
        try (var jar = new ZipFile(jars.getLast().toFile())) {
            for (var entry : jar.stream().filter(e -> e.getName().contains("/libnvrtc")).toList())
                try (var in = jar.getInputStream(entry)) {
                    Files.copy(in, folder.resolve(Path.of(entry.getName()).getFileName()));
                }
        }
        return Optional.of(folder);
    }

    private static String magic(byte[] image) {
        return new String(image, 0, 4, StandardCharsets.ISO_8859_1);
    }

    @Test void theCompilerOfANodeTakesEverySource() throws IOException {
        var library = library();
        assumeTrue(library.isPresent(), "no NVRTC: the kernels are not compiled");
        var nvrtc = new Nvrtc(List.of(library.get().toString()));
        Map<String, String> headers = new TreeMap<>();
        for (Path file : files(SOURCES, ".cuh"))
            headers.put(file.getFileName().toString(), Files.readString(file));
        List<String> faults = new CopyOnWriteArrayList<>();
        files(SOURCES, ".cu").parallelStream().forEach(source -> ARCHITECTURES.stream()
                // products of warpgroups are Hopper's
                .filter(architecture -> !source.toString().matches(".*_(wgmma|clusters)(\\.cu)?")
                        || architecture.equals("sm_90a"))
                .forEach(architecture -> {
                    try {
                        assertEquals("\u007fELF", magic(nvrtc.compile(source.getFileName().toString(),
                                Files.readString(source), headers, List.of("--gpu-architecture="
                                        + architecture, "--std=c++17", "-default-device", "-lineinfo"))));
                    } catch (IllegalStateException | IOException refused) {
                        faults.add(architecture + ": " + refused.getMessage());
                    }
                }));
        assertEquals(List.of(), faults);
    }
}
