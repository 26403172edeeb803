package bios.command;

import bios.persistence.cassandra.CassandraJars;
import bios.worker.device.CudaReport;
import bios.worker.device.CudaSettings;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import bios.worker.device.MatmulBaseline.Product;
import bios.worker.device.SmokeTest;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import com.typesafe.config.ConfigFactory;
import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/// `bios doctor`: prints the properties of this machine that matter to Bios, what is missing and how to get
/// it. Exit status 1 if Bios cannot run.
@Command(name = "doctor", mixinStandardHelpOptions = true,
        description = "Check this machine: what Bios can use, and what is missing.")
public final class DoctorCommand implements Callable<Integer> {
    private static final Duration COMMAND_LIMIT = Duration.ofSeconds(10);

    @Option(names = "--port", defaultValue = "8400",
            description = "The port that 'bios up' would use (default: ${DEFAULT-VALUE}).")
    private int port;

    private final Map<String, String> failures = new LinkedHashMap<>();

    @Override public Integer call() {
        line("JDK", Runtime.version() + " in " + System.getProperty("java.home"));
        line("cores", cores() + ", " + cpuName());
        line("memory", "%.1f GiB".formatted(memoryBytes() / (double) (1L << 30)));
        engine();
        gpus();
        line("python3", output("python3", "--version")
                .orElse("missing: the demo and the client package need Python 3.9 or newer"));
        line("Cassandra's Java", CassandraJars.findJava().map(Path::toString)
                .orElse("missing: 'bios cluster' needs a JDK 17 (or 11) to start a Cassandra; set"
                        + " JAVA17_HOME, or name a running one with --cassandra"));
        models();
        port();
        failures.forEach((what, remedy) -> System.out.println("\n✗ " + what + ": " + remedy));
        if (failures.isEmpty()) System.out.println("\n✓ Bios can run here.");
        return failures.isEmpty() ? 0 : 1;
    }

    private void engine() {
        Config program = ConfigFactory.load();
        line("CPU paths", paths(program.getString("bios.engine.cpu.path")));
        try (Device device = Devices.open(DeviceSettings.of(program, cores())
                .withDevice(DeviceSettings.CPU))) {
            line("CPU engine", device.description());
            line("CPU products", products());
            line("memory reads", "%.0f GB/s".formatted(
                    Devices.hardware().readBytesPerSecond(cores()) / 1e9));
        } catch (ConfigException.BadValue refused) {
            line("CPU engine", "does not start: " + refused.getMessage());
            failures.put("CPU path", refused.getMessage());
        } catch (RuntimeException | LinkageError failure) {
            line("CPU engine", "does not start: " + failure);
            failures.put("CPU engine",
                    "needs Linux on x86-64 with glibc 2.17 or newer and libgomp; " + failure.getMessage());
        }
    }

    /// The paths that this machine can execute, and the path in use.
    ///
    /// @param set value of the setting `bios.engine.cpu.path`
    private static String paths(String set) {
        String best = Devices.hardware().bestPath();
        return "%s; in use: %s".formatted(String.join(", ", Devices.hardware().paths()),
                set.equals(DeviceSettings.AUTO) ? best + " (auto)" : set + " (bios.engine.cpu.path)");
    }

    /// GFLOP/s of oneDNN's products of each type; either type can be the faster one.
    private static String products() {
        Product product = new Product(1024, 2048, 2048);
        return Devices.hardware().matmulBaseline(cores()).map(baseline -> {
            try (baseline) {
                String rates = baseline.types().stream().map(type -> "%.0f GFLOP/s in %s".formatted(
                        product.floatingPointOperations() / baseline.medianSeconds(product, type) / 1e9,
                        type.name().toLowerCase(Locale.ROOT))).collect(Collectors.joining(", "));
                return rates + (baseline.types().size() > 1 ? "" : "; no bf16 instructions");
            }
        }).orElse("plain Java; oneDNN cannot be loaded");
    }

    private static int cores() {
        return Runtime.getRuntime().availableProcessors();
    }

    /// The cards, what the CUDA backend finds and lacks, and whether it computes what the CPU does.
    private void gpus() {
        CudaSettings settings = CudaSettings.of(ConfigFactory.load());
        CudaReport report = Devices.cudaReport(settings);
        line("GPUs", report.cards().isEmpty() ? "none; only the CPU is used"
                : String.join("; ", report.cards()));
        line("CUDA libraries", report.libraries().isEmpty() ? "none" : String.join(", ",
                report.libraries()));
        report.missing().forEach(what -> line("", "not found: " + what));
        if (!report.usable()) return;
        try {
            line("CUDA engine", SmokeTest.run(DeviceSettings.ofThreads(1).withDevice("cuda")
                    .withCuda(settings)));
        } catch (RuntimeException | LinkageError failure) {
            line("CUDA engine", "does not work: " + failure);
            failures.put("CUDA engine", failure.getMessage() + "; see docs/guide/gpu.md, or compute on the"
                    + " CPU with bios.engine.device = cpu");
        }
    }

    private static void models() {
        Path tiny = Installation.tinyModel();
        line("base models", Files.exists(tiny.resolve("config.json"))
                ? "bios/tiny in " + tiny + " (shipped); others by --model or --models"
                : "none shipped here; give one by --model NAME=DIR");
    }

    private void port() {
        try (ServerSocket socket = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
            line("port", socket.getLocalPort() + " is free");
        } catch (IOException _) {
            line("port", port + " is taken; choose another with 'bios up --port'");
        }
    }

    private static String cpuName() {
        try (Stream<String> lines = Files.lines(Path.of("/proc/cpuinfo"))) {
            List<String> all = lines.toList();
            String name = value(all, "model name");
            String flags = " " + value(all, "flags") + " ";
            StringBuilder isa = new StringBuilder();
            for (String flag : List.of("avx2", "avx512f", "avx512_bf16", "amx_bf16"))
                if (flags.contains(" " + flag + " ")) isa.append(' ').append(flag);
            return name + " with" + (isa.isEmpty() ? " no AVX2" : isa);
        } catch (IOException _) {
            return System.getProperty("os.arch");
        }
    }

    private static String value(List<String> lines, String key) {
        return lines.stream().filter(l -> l.startsWith(key)).findFirst()
                .map(l -> l.substring(l.indexOf(':') + 1).strip()).orElse("");
    }

    private static long memoryBytes() {
        var system = ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);
        return system.getTotalMemorySize();
    }

    private static Optional<String> output(String... command) {
        return CommandOutput.of(COMMAND_LIMIT, command);
    }

    private static void line(String what, String value) {
        System.out.printf("%-15s %s%n", what, value);
    }
}
