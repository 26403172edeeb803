package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.Activations;
import bios.worker.device.CudaReport;
import bios.worker.device.CudaSettings;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/// Entry point of the CUDA backend, for [bios.worker.device.Devices].
public final class CudaBackend {
    /// Memory of the card that is left to the driver, libraries and modules.
    private static final long RESERVE_BYTES = 512L << 20;

    private CudaBackend() {}

    /// Numbers of the cards that kernels are written for; none without a driver.
    public static List<Integer> cards() {
        try {
            return CudaDriver.cards().stream().filter(CudaCard::supported).map(CudaCard::index).toList();
        } catch (IllegalStateException _) {
            return List.of();
        }
    }

    /// Throws if there is no such card, or it is not supported.
    ///
    /// @throws IllegalArgumentException with the reason
    public static void requireCard(String which) {
        try {
            choose(CudaDriver.cards(), which);
        } catch (IllegalStateException missing) {
            throw new IllegalArgumentException(which + ": " + missing.getMessage(), missing);
        }
    }

    /// What the machine has of all that the backend needs.
    public static CudaReport report(CudaSettings settings) {
        var libraries = new ArrayList<String>();
        var missing = new ArrayList<String>();
        List<CudaCard> cards = List.of();
        try {
            cards = CudaDriver.cards();
            libraries.add("driver for CUDA %d.%d".formatted(CudaDriver.version() / 1000,
                    CudaDriver.version() % 1000 / 10));
        } catch (IllegalStateException problem) {
            missing.add(problem.getMessage());
        }
        try {
            var nvrtc = new Nvrtc(settings.libraryPath());
            libraries.add(nvrtc.name() + " (" + nvrtc.version() + ")");
        } catch (IllegalStateException problem) {
            missing.add(problem.getMessage());
        }
        return new CudaReport(cards.stream().map(card -> card + (card.supported() ? ", compiled for "
                + card.architecture() : ", not used: compute capability 8.0 or higher is needed")).toList(),
                cards.stream().anyMatch(CudaCard::supported), List.copyOf(libraries), List.copyOf(missing));
    }

    /// A device on a card.
    ///
    /// @param which `auto` or `cuda` for the first card that is supported, else `cuda:INDEX` or `cuda:UUID`
    /// @throws IllegalArgumentException if there is no such card, or something that it needs is missing
    public static Device open(String which, DeviceSettings settings) {
        try {
            return open(choose(CudaDriver.cards(), which), settings);
        } catch (IllegalStateException missing) {
            throw new IllegalArgumentException(which + ": " + missing.getMessage(), missing);
        }
    }

    /// The card that a setting names.
    static CudaCard choose(List<CudaCard> cards, String which) {
        String wanted = which.startsWith("cuda:") ? which.substring("cuda:".length()) : "";
        for (var card : cards)
            if (wanted.isEmpty() ? card.supported()
                    : wanted.equals(Integer.toString(card.index())) || wanted.equalsIgnoreCase(card.uuid())) {
                if (card.supported()) return card;
                throw new IllegalStateException("compute capability 8.0 or higher is needed, the card is "
                        + card);
            }
        throw new IllegalStateException(cards.isEmpty() ? "the NVIDIA driver lists no card"
                : "no such card; the driver lists " + cards);
    }

    private static Device open(CudaCard card, DeviceSettings settings) {
        var compiler = new KernelCompiler(new Nvrtc(settings.cuda().libraryPath()), card,
                cache(settings.cuda()));
        var products = new ProvenKernels(card, settings.cuda(), compiler).products();
        var driver = new CudaDriver(card);
        try {
            var compute = driver.stream();
            long most = driver.memory()[0] - RESERVE_BYTES;
            require(most > 0, "only %d bytes of the card are free; other processes use it: %s",
                    most + RESERVE_BYTES, card);
            return open(card, settings.withCuda(settings.cuda().withProducts(products)), compiler,
                    new CudaMemory(driver, compute, Math.min(settings.cuda().memoryBytes(), most)), driver,
                    compute);
        } catch (Throwable failure) {
            driver.close();
            throw failure;
        }
    }

    private static Device open(CudaCard card, DeviceSettings settings, KernelCompiler compiler,
            CudaMemory memory, CudaDriver driver, CudaStream compute) {
        var own = settings.cuda();
        var computing = new ComputeStream(driver, compute);
        var kernels = new Kernels(driver, computing, compiler, own.earlyLaunches() && card.earlyLaunches());
        try {
            long faults = memory.tensor(DType.I32, 1, CudaTransfers.FAULT_BYTES / 4).address();
            return new CudaDevice(new Cuda(card, driver, memory, new PinnedMemory(driver), kernels, computing,
                    driver.stream(), faults, own.libraryPath(),
                    settings.activations().orElse(Activations.MIXED), own.products()), own.graphs());
        } catch (Throwable failure) {
            memory.close();
            throw failure;
        }
    }

    /// The folder of compiled kernels: the setting, else a folder of this user's cache.
    static Path cache(CudaSettings settings) {
        if (settings.cache().isPresent()) return settings.cache().get();
        var xdg = System.getenv("XDG_CACHE_HOME");
        var base = xdg == null || xdg.isBlank()
                ? Path.of(System.getProperty("user.home"), ".cache") : Path.of(xdg);
        return base.resolve("bios").resolve("cuda");
    }
}
