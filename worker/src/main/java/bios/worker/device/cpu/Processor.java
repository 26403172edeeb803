package bios.worker.device.cpu;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;

/// The instructions of this machine's processor, from Linux's /proc/cpuinfo.
final class Processor {
    private static final Set<String> FLAGS = new HashSet<>();
    private static String vendor = "";

    static {
        try {
            for (String line : Files.readAllLines(Path.of("/proc/cpuinfo"))) {
                String value = line.substring(line.indexOf(':') + 1).strip();
                if (line.startsWith("vendor_id")) vendor = value;
                if (line.startsWith("flags")) FLAGS.addAll(Arrays.asList(value.split(" ")));
                if (!FLAGS.isEmpty() && !vendor.isEmpty()) break;
            }
        } catch (IOException _) {
            // not Linux: the instructions are unknown
        }
    }

    private Processor() {}

    /// Whether the kernels of this package can run: 64-bit x86 with AVX-512 F, BW, DQ and VL.
    static boolean avx512() {
        return System.getProperty("os.arch").equals("amd64")
                && FLAGS.containsAll(Set.of("avx512f", "avx512bw", "avx512dq", "avx512vl"));
    }

    /// Whether there is AVX2 with fused multiply-add.
    static boolean avx2() {
        return FLAGS.containsAll(Set.of("avx2", "fma"));
    }

    /// Whether there is AVX-512 with its bf16 dot-product instruction.
    static boolean bf16() {
        return avx512() && FLAGS.contains("avx512_bf16");
    }

    /// Whether there is AMX with bf16.
    static boolean amx() {
        return FLAGS.contains("amx_bf16");
    }

    /// Bytes of a core's L2 cache; 0 if unknown.
    static int secondCache() {
        try {
            String size = Files.readString(Path.of("/sys/devices/system/cpu/cpu0/cache/index2/size")).strip();
            return Integer.parseInt(size.substring(0,
                    size.length() - 1)) * (size.endsWith("M") ? 1 << 20 : 1 << 10);
        } catch (IOException | NumberFormatException _) {
            return 0;
        }
    }

    /// Whether bf16 products are faster than fp32 products. AMD's processors do twice as many per cycle;
    /// Intel's without AMX do half as many (measured on Emerald Rapids).
    static boolean fastBf16() {
        return amx() || bf16() && vendor.equals("AuthenticAMD");
    }
}
