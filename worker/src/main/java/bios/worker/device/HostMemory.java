package bios.worker.device;

import com.sun.management.OperatingSystemMXBean;
import com.typesafe.config.Config;
import java.lang.management.ManagementFactory;

/// How much memory this process may use beside the Java heap.
public final class HostMemory {
    /// What a JVM takes beside its heap: code, classes, stacks, its collector's tables.
    private static final long OF_JAVA = 256L << 20;

    private HostMemory() {}

    /// Bytes of the machine, or of the container where it has a limit.
    public static long total() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getTotalMemorySize();
    }

    /// Reads `bios.engine.memory-bytes`; `auto` is [#total] less the largest Java heap and what Java takes
    /// beside it, but at least a quarter of it.
    public static long limit(Config program) {
        if (!program.getString("bios.engine.memory-bytes").equals("auto"))
            return program.getBytes("bios.engine.memory-bytes");
        long all = total();
        return Math.max(all / 4, all - Runtime.getRuntime().maxMemory() - OF_JAVA);
    }
}
