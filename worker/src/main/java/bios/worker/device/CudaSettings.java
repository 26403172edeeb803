package bios.worker.device;

import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/// The settings of the CUDA backend.
///
/// @param libraryPath folders where libraries of the CUDA runtime are looked for first
/// @param cache folder of compiled kernels; empty: in the user's cache
/// @param memoryBytes most bytes of a card that are used; what the card has free may be less
/// @param graphs whether decode passes are launched as graphs
/// @param earlyLaunches whether a kernel may be launched before the one before it has ended, where cards can
/// @param kernelTrial whether kernels that a device can do without are first executed in a process of their
///     own
/// @param products how products with frozen weights are computed
public record CudaSettings(List<String> libraryPath, Optional<Path> cache, long memoryBytes, boolean graphs,
        boolean earlyLaunches, boolean kernelTrial, Products products) {
    /// The defaults of all settings, without the trial of kernels.
    public static final CudaSettings DEFAULT = new CudaSettings(List.of(), Optional.empty(),
            Long.MAX_VALUE, true, true, false, Products.DEFAULT);
    private static final String WIDE = "float32", NARROW = "bfloat16";

    /// Whether blocks of the kernels for few rows share their copies of the rows, where a card can: `AUTO`
    /// where that is the fastest, which the card tries; `ON` wherever it is possible.
    public enum SharedRows { AUTO, ON, OFF }

    /// How products with frozen weights are computed. The last two change the last digits of results.
    ///
    /// @param fewRows whether kernels for few rows multiply them, where they give the library's bits
    /// @param lowRankBeside whether those kernels also compute the low-rank products of the same rows
    /// @param sharedRows whether blocks of those kernels share their copies of the rows
    /// @param prefetches whether those kernels prefetch weights into the card's L2 cache
    /// @param triedBytes bytes of weights from which on the card tries which of those kernels is the fastest
    /// @param forwardInBf16 whether the library rounds a bf16 result of forward itself: what is added to the
    ///     product is rounded to bf16 first
    /// @param algorithmRows number of rows that the library chooses its algorithms for
    public record Products(boolean fewRows, boolean lowRankBeside, SharedRows sharedRows, boolean prefetches,
            long triedBytes, boolean forwardInBf16, int algorithmRows) {
        /// The defaults of the settings.
        public static final Products DEFAULT = new Products(true, true, SharedRows.AUTO, true, 8 << 20,
                true, 1024);

        /// Checks the limits.
        public Products {
            if (algorithmRows < 1) throw new IllegalArgumentException(algorithmRows + " rows");
        }

        /// The same with or without kernels for few rows.
        public Products withFewRows(boolean few) {
            return new Products(few, lowRankBeside, sharedRows, prefetches, triedBytes, forwardInBf16,
                    algorithmRows);
        }

        /// The same with low-rank products beside others, or in launches of their own.
        public Products withLowRankBeside(boolean beside) {
            return new Products(fewRows, beside, sharedRows, prefetches, triedBytes, forwardInBf16,
                    algorithmRows);
        }

        /// The same with copies of rows shared in this way.
        public Products withSharedRows(SharedRows shared) {
            return new Products(fewRows, lowRankBeside, shared, prefetches, triedBytes, forwardInBf16,
                    algorithmRows);
        }

        /// The same with or without prefetching of weights.
        public Products withPrefetches(boolean some) {
            return new Products(fewRows, lowRankBeside, sharedRows, some, triedBytes, forwardInBf16,
                    algorithmRows);
        }

        /// The same, with trials for weights of at least this many bytes.
        public Products withTriedBytes(long bytes) {
            return new Products(fewRows, lowRankBeside, sharedRows, prefetches, bytes, forwardInBf16,
                    algorithmRows);
        }

        /// The same, with bf16 results of forward rounded by the library or by Bios.
        public Products withForwardInBf16(boolean narrow) {
            return new Products(fewRows, lowRankBeside, sharedRows, prefetches, triedBytes, narrow,
                    algorithmRows);
        }

        /// The same with algorithms chosen for this many rows.
        public Products withAlgorithmRows(int rows) {
            return new Products(fewRows, lowRankBeside, sharedRows, prefetches, triedBytes, forwardInBf16,
                    rows);
        }
    }

    /// Reads `bios.engine.cuda`.
    ///
    /// @throws ConfigException if a value is unknown or out of range
    public static CudaSettings of(Config program) {
        Config own = program.getConfig("bios.engine.cuda");
        String cache = own.getString("cache");
        return new CudaSettings(own.getStringList("library-path"),
                cache.equals(DeviceSettings.AUTO) ? Optional.empty() : Optional.of(Path.of(cache)),
                own.getString("memory-bytes").equals(DeviceSettings.AUTO) ? Long.MAX_VALUE
                        : own.getBytes("memory-bytes"), own.getBoolean("graphs"),
                own.getBoolean("early-launches"), own.getBoolean("kernel-trial"), products(own));
    }

    private static Products products(Config own) {
        String results = own.getString("forward-results");
        if (!results.equals(WIDE) && !results.equals(NARROW)) throw new ConfigException.BadValue(own.origin(),
                "bios.engine.cuda.forward-results", results + " is neither " + WIDE + " nor " + NARROW);
        int rows = own.getInt("algorithm-rows");
        if (rows < 1) throw new ConfigException.BadValue(own.origin(), "bios.engine.cuda.algorithm-rows",
                rows + " is less than 1");
        return new Products(own.getBoolean("few-rows"), own.getBoolean("low-rank-beside"), sharedRows(own),
                own.getBoolean("prefetch"), own.getBytes("tried-bytes"), results.equals(NARROW), rows);
    }

    private static SharedRows sharedRows(Config own) {
        String value = own.getString("shared-rows");
        return switch (value) {
            case DeviceSettings.AUTO -> SharedRows.AUTO;
            case "on" -> SharedRows.ON;
            case "off" -> SharedRows.OFF;
            default -> throw new ConfigException.BadValue(own.origin(), "bios.engine.cuda.shared-rows",
                    value + " is none of auto, on and off");
        };
    }

    /// The same with or without graphs.
    public CudaSettings withGraphs(boolean graphs) {
        return new CudaSettings(libraryPath, cache, memoryBytes, graphs, earlyLaunches, kernelTrial,
                products);
    }

    /// The same with or without early launches.
    public CudaSettings withEarlyLaunches(boolean early) {
        return new CudaSettings(libraryPath, cache, memoryBytes, graphs, early, kernelTrial, products);
    }

    /// The same with or without a trial of kernels.
    public CudaSettings withKernelTrial(boolean trial) {
        return new CudaSettings(libraryPath, cache, memoryBytes, graphs, earlyLaunches, trial, products);
    }

    /// The same with this memory limit.
    public CudaSettings withMemory(long bytes) {
        return new CudaSettings(libraryPath, cache, bytes, graphs, earlyLaunches, kernelTrial, products);
    }

    /// The same with products computed in this way.
    public CudaSettings withProducts(Products products) {
        return new CudaSettings(libraryPath, cache, memoryBytes, graphs, earlyLaunches, kernelTrial,
                products);
    }
}
