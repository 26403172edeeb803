package bios.worker.device;

import com.sun.management.OperatingSystemMXBean;
import com.typesafe.config.Config;
import java.lang.management.ManagementFactory;

/// The amount of native memory that this process may use.
public final class HostMemory {
    /// Native memory of the JVM itself: code, classes, stacks, the collector's tables.
    private static final long OF_JAVA = 256L << 20;

    private HostMemory() {}

    /// Memory of the machine in bytes, or the container's limit.
    public static long total() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getTotalMemorySize();
    }

    /// Reads `bios.engine.memory-bytes`; `auto` is [#total] less the maximum Java heap and the JVM's own
    /// native memory, but at least a quarter of [#total].
    public static long limit(Config program) {
        if (!program.getString("bios.engine.memory-bytes").equals("auto"))
            return program.getBytes("bios.engine.memory-bytes");
        long all = total();
        return Math.max(all / 4, all - Runtime.getRuntime().maxMemory() - OF_JAVA);
    }
}
