package bios.worker.device;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/// The emulated CUDA device of `worker/src/test/cuda`: stand-ins for the driver, NVRTC and cuBLASLt, which
/// processes with its folder in LD_LIBRARY_PATH find in place of NVIDIA's.
public final class CudaEmulator {
    /// The exit status of a process that the emulator ends.
    public static final int VIOLATION = 86;

    private static final Path SOURCES = Files.isDirectory(Path.of("src/test/cuda"))
            ? Path.of("src/test/cuda") : Path.of("../worker/src/test/cuda");
    private static final Path FOLDER = SOURCES.resolve("../../../target/cuda-emulator").toAbsolutePath()
            .normalize();

    private CudaEmulator() {}

    /// What a process wrote, and how it ended.
    public record Ended(int status, String output) {}

    /// The folder of the libraries, built if the sources have changed. Skips the test where there is no g++.
    public static synchronized Path folder() {
        try {
            assumeTrue(available("g++"), "no g++: the CUDA device is not emulated");
            Path built = FOLDER.resolve(hash());
            Files.createDirectories(FOLDER);
            try (var lock = FileChannel.open(FOLDER.resolve("lock"), StandardOpenOption.CREATE,
                    StandardOpenOption.WRITE); var _ = lock.lock()) {
                return build(built);
            }
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    private static Path build(Path built) throws IOException {
        if (Files.exists(built)) return built;
        Path building = FOLDER.resolve("building-" + ProcessHandle.current().pid());
        var made = run(List.of(SOURCES.resolve("build.sh").toAbsolutePath().toString(),
                building.toString()), Map.of(), 300);
        if (made.status != 0) throw new AssertionError("the emulator does not build:\n" + made.output);
        Files.move(building, built);
        return built;
    }

    private static String hash() throws IOException {
        try (var files = Files.walk(SOURCES)) {
            var digest = MessageDigest.getInstance("SHA-256");
            for (Path file : files.filter(Files::isRegularFile).sorted().toList()) {
                digest.update(file.getFileName().toString().getBytes(StandardCharsets.UTF_8));
                digest.update(Files.readAllBytes(file));
            }
            return HexFormat.of().formatHex(digest.digest(), 0, 8);
        } catch (NoSuchAlgorithmException impossible) {
            throw new AssertionError(impossible);
        }
    }

    /// Whether a program is installed.
    static boolean available(String program) {
        for (String folder : System.getenv().getOrDefault("PATH", "").split(":"))
            if (Files.isExecutable(Path.of(folder, program))) return true;
        return false;
    }

    /// Runs a program of the emulator's folder, `kernels` being the cache of compiled kernels.
    static Ended run(List<String> command, Map<String, String> environment, int seconds) {
        try {
            Files.createDirectories(FOLDER);
            Path output = Files.createTempFile(FOLDER, "output-", ".log");
            var builder = new ProcessBuilder(command).redirectErrorStream(true)
                    .redirectOutput(output.toFile());
            builder.environment().putAll(environment);
            builder.environment().put("CUDA_EMULATOR_CACHE", FOLDER.resolve("kernels").toString());
            Process process = builder.start();
            boolean ended = process.waitFor(seconds, TimeUnit.SECONDS);
            if (!ended) process.destroyForcibly().waitFor();
            String text = Files.readString(output, StandardCharsets.ISO_8859_1);
            Files.delete(output);
            return new Ended(ended ? process.exitValue() : -1,
                    ended ? text : text + "\nnot ended after " + seconds + " s");
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        } catch (InterruptedException interrupted) {
            throw new AssertionError(interrupted);
        }
    }

    /// Runs a main class in a Java process on the emulated device.
    public static Ended java(Class<?> main, List<String> properties, List<String> arguments,
            Map<String, String> environment, int seconds) {
        Path folder = folder();
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        String golden = System.getProperty("bios.golden");
        if (golden != null) command.add("-Dbios.golden=" + golden);
        command.add("-D" + TestDevices.CUDA_PROPERTY + "=emulated");
        command.addAll(properties);
        command.addAll(List.of("-cp", System.getProperty("surefire.test.class.path",
                System.getProperty("java.class.path")), main.getName()));
        command.addAll(arguments);
        var all = new HashMap<>(environment);
        all.put("LD_LIBRARY_PATH", folder.toString());
        String checks = environment.getOrDefault("CUDA_EMULATOR_CHECK", "1");
        all.put("XDG_CACHE_HOME", folder.resolve("cache-" + checks).toString());
        return run(command, all, seconds);
    }
}
