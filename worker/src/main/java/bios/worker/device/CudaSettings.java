package bios.worker.device;

import com.typesafe.config.Config;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/// The settings of the CUDA backend.
///
/// @param libraryPath folders where libraries of the CUDA runtime are looked for first
/// @param cache folder of compiled kernels; empty: in the user's cache
/// @param memoryBytes most bytes of a card that are used; what the card has free may be less
/// @param graphs whether decode passes are launched as graphs
public record CudaSettings(List<String> libraryPath, Optional<Path> cache, long memoryBytes,
        boolean graphs) {
    /// Everything by itself.
    public static final CudaSettings DEFAULT = new CudaSettings(List.of(), Optional.empty(),
            Long.MAX_VALUE, true);

    /// Reads `bios.engine.cuda`.
    public static CudaSettings of(Config program) {
        Config own = program.getConfig("bios.engine.cuda");
        String cache = own.getString("cache");
        return new CudaSettings(own.getStringList("library-path"),
                cache.equals(DeviceSettings.AUTO) ? Optional.empty() : Optional.of(Path.of(cache)),
                own.getString("memory-bytes").equals(DeviceSettings.AUTO) ? Long.MAX_VALUE
                        : own.getBytes("memory-bytes"), own.getBoolean("graphs"));
    }
}
