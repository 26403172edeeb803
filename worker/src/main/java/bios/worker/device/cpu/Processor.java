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
            // another system: nothing is known of its instructions
        }
    }

    private Processor() {}

    /// Whether the kernels of this package run: AVX-512 with words and doublewords, on 64-bit x86.
    static boolean avx512() {
        return System.getProperty("os.arch").equals("amd64")
                && FLAGS.containsAll(Set.of("avx512f", "avx512bw", "avx512dq", "avx512vl"));
    }

    /// Whether there are instructions for eight floats at a time, with fused multiply-adds.
    static boolean avx2() {
        return FLAGS.containsAll(Set.of("avx2", "fma"));
    }

    /// Whether there is an instruction for products of bf16.
    static boolean halves() {
        return avx512() && FLAGS.contains("avx512_bf16");
    }

    /// Whether there are instructions for products of whole tiles of bf16 (AMX).
    static boolean tiles() {
        return FLAGS.contains("amx_bf16");
    }

    /// Bytes of a core's second cache; 0 where unknown.
    static int secondCache() {
        try {
            String size = Files.readString(Path.of("/sys/devices/system/cpu/cpu0/cache/index2/size")).strip();
            return Integer.parseInt(size.substring(0,
                    size.length() - 1)) * (size.endsWith("M") ? 1 << 20 : 1 << 10);
        } catch (IOException | NumberFormatException _) {
            return 0;
        }
    }

    /// Whether products of bf16 are faster than those of fp32. AMD's do twice as many in a cycle. Intel's
    /// without AMX do half as many (measured on Emerald Rapids).
    static boolean fastHalves() {
        return tiles() || halves() && vendor.equals("AuthenticAMD");
    }
}
