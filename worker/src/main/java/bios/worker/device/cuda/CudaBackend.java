package bios.worker.device.cuda;

import bios.worker.device.Activations;
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

    /// Whether the driver lists a card that kernels are written for.
    public static boolean available() {
        try {
            return CudaDriver.cards().stream().anyMatch(CudaCard::supported);
        } catch (IllegalStateException _) {
            return false;
        }
    }

    /// What the machine has of all that the backend needs, one line for each thing.
    public static List<String> report(CudaSettings settings) {
        var lines = new ArrayList<String>();
        try {
            for (var card : CudaDriver.cards())
                lines.add(card + (card.supported() ? ", " + card.architecture()
                        : ": not used, compute capability 8.0 or higher is needed"));
            if (lines.isEmpty()) lines.add("the NVIDIA driver lists no card");
            lines.add("driver for CUDA %d.%d".formatted(CudaDriver.version() / 1000,
                    CudaDriver.version() % 1000 / 10));
        } catch (IllegalStateException missing) {
            return List.of(missing.getMessage());
        }
        try {
            var nvrtc = new Nvrtc(settings.libraryPath());
            lines.add(nvrtc.name() + ", NVRTC " + nvrtc.version());
        } catch (IllegalStateException missing) {
            lines.add(missing.getMessage());
        }
        return lines;
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
        var own = settings.cuda();
        var nvrtc = new Nvrtc(own.libraryPath());
        var driver = new CudaDriver(card);
        try {
            var compute = driver.stream();
            var copies = driver.stream();
            long most = driver.memory()[0] - RESERVE_BYTES;
            var memory = new CudaMemory(driver, compute, Math.min(own.memoryBytes(), most));
            var pinned = new PinnedMemory(driver);
            var kernels = new Kernels(driver, compute, new KernelCompiler(nvrtc, card, cache(own)));
            long faults = memory.tensor(DType.I32, 1, CudaTransfers.FAULT_BYTES / 4)
                    .address();
            return new CudaDevice(new Cuda(card, driver, memory, pinned, kernels, compute, copies, faults,
                    own.libraryPath(), settings.activations().orElse(Activations.MIXED)));
        } catch (Throwable failure) {
            driver.close();
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
