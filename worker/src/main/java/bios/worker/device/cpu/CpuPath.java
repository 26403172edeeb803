package bios.worker.device.cpu;

import bios.worker.device.Activations;
import bios.worker.device.DeviceSettings;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;

/// A set of kernels for the CPU (products, attention, rows) and the instructions that they may use. Fastest
/// first for most processors; [#best] decides. Results differ between paths in their last digits, so the
/// choice depends only on the kind of processor, never on a measurement.
enum CpuPath {
    /// This package's machine code, with AVX-512 and its bf16 instruction.
    OWN_AVX512_BF16("own-avx512-bf16", "AVX-512 with bf16, and memory that may become executable"),
    /// This package's machine code, with AVX-512 but without the bf16 instruction.
    OWN_AVX512("own-avx512", "AVX-512, and memory that may become executable"),
    /// oneDNN with all instructions up to AMX.
    ONEDNN_AMX("onednn-amx", "AMX with bf16, and oneDNN"),
    /// oneDNN with all instructions up to AVX-512 bf16.
    ONEDNN_AVX512_BF16("onednn-avx512-bf16", "AVX-512 with bf16, and oneDNN"),
    /// oneDNN with all instructions up to AVX-512.
    ONEDNN_AVX512("onednn-avx512", "AVX-512, and oneDNN"),
    /// oneDNN with all instructions up to AVX2.
    ONEDNN_AVX2("onednn-avx2", "AVX2, and oneDNN"),
    /// oneDNN with all instructions up to SSE4.1.
    ONEDNN_SSE41("onednn-sse41", "SSE4.1, and oneDNN"),
    /// The kernels in plain Java that define the results.
    PLAIN("plain", "nothing");

    /// Where a path's kernels come from.
    enum Family { OWN, ONEDNN, PLAIN }

    private final String label;
    private final String needs;

    CpuPath(String label, String needs) {
        this.label = label;
        this.needs = needs;
    }

    /// The name in settings.
    String label() {
        return label;
    }

    Family family() {
        return switch (this) {
            case OWN_AVX512_BF16, OWN_AVX512 -> Family.OWN;
            case ONEDNN_AMX, ONEDNN_AVX512_BF16, ONEDNN_AVX512, ONEDNN_AVX2, ONEDNN_SSE41 -> Family.ONEDNN;
            case PLAIN -> Family.PLAIN;
        };
    }

    /// Whether this machine can execute it.
    boolean executable() {
        return switch (this) {
            case OWN_AVX512_BF16 -> Processor.bf16() && MachineCode.allowed();
            case OWN_AVX512 -> Processor.avx512() && MachineCode.allowed();
            case ONEDNN_AMX -> Processor.amx() && Dnnl.loads();
            case ONEDNN_AVX512_BF16 -> Processor.bf16() && Dnnl.loads();
            case ONEDNN_AVX512 -> Processor.avx512() && Dnnl.loads();
            case ONEDNN_AVX2 -> Processor.avx2() && Dnnl.loads();
            case ONEDNN_SSE41 -> Dnnl.loads();
            case PLAIN -> true;
        };
    }

    /// The paths that this machine can execute, in the order of this enum.
    static List<CpuPath> executablePaths() {
        return Arrays.stream(values()).filter(CpuPath::executable).toList();
    }

    /// oneDNN if the processor has AMX or lacks AVX-512, or if the system does not let a process make code
    /// executable; else own kernels.
    static CpuPath best() {
        if (!Processor.amx() && OWN_AVX512.executable())
            return Processor.bf16() ? OWN_AVX512_BF16 : OWN_AVX512;
        return bestOfOneDnn();
    }

    /// oneDNN with all instructions of the processor; plain Java if oneDNN does not load.
    static CpuPath bestOfOneDnn() {
        return executablePaths().stream().filter(path -> path.family() == Family.ONEDNN).findFirst()
                .orElse(PLAIN);
    }

    /// The path of a setting's value.
    ///
    /// @throws IllegalArgumentException if there is no such path, or this machine cannot execute it
    static CpuPath of(String label) {
        if (label.equals(DeviceSettings.AUTO)) return best();
        var path = Arrays.stream(values()).filter(p -> p.label.equals(label.toLowerCase(Locale.ROOT)))
                .findFirst().orElseThrow(() -> new IllegalArgumentException("'" + label
                        + "' is not a path of the CPU; expected auto, " + labels(List.of(values()))));
        if (!path.executable())
            throw new IllegalArgumentException(label + " needs " + path.needs
                    + ", which this machine lacks; it can execute " + labels(executablePaths()));
        return path;
    }

    private static String labels(List<CpuPath> paths) {
        return paths.stream().map(CpuPath::label).collect(Collectors.joining(", "));
    }

    /// oneDNN limited to this path's instructions; without a limit if the processor has no others.
    Dnnl oneDnn() {
        var limit = this == bestOfOneDnn() ? Dnnl.Limit.NONE : switch (this) {
            case ONEDNN_AVX512_BF16 -> Dnnl.Limit.AVX512_BF16;
            case ONEDNN_AVX512 -> Dnnl.Limit.AVX512;
            case ONEDNN_AVX2 -> Dnnl.Limit.AVX2;
            case ONEDNN_SSE41 -> Dnnl.Limit.SSE41;
            case ONEDNN_AMX, OWN_AVX512_BF16, OWN_AVX512, PLAIN -> Dnnl.Limit.NONE;
        };
        return Dnnl.limited(limit).orElseThrow();
    }

    /// The default treatment of activations: mixed if the path uses bf16 instructions and the processor
    /// multiplies bf16 faster than fp32; else exact.
    Activations bestActivations() {
        boolean uses = this == OWN_AVX512_BF16 || this == ONEDNN_AMX || this == ONEDNN_AVX512_BF16;
        return uses && Processor.fastBf16() ? Activations.MIXED : Activations.EXACT;
    }

    /// The number that a bf16 weight `[out, in]` multiplies in place of an activation x. Without a bf16
    /// instruction splitting gains nothing, so x is used unchanged; own kernels then never round.
    float operand(Activations activations, float x, int out, int in) {
        return switch (this) {
            case OWN_AVX512_BF16, ONEDNN_AMX, ONEDNN_AVX512_BF16, PLAIN -> activations.operand(x, out, in);
            case OWN_AVX512 -> x;
            case ONEDNN_AVX512, ONEDNN_AVX2, ONEDNN_SSE41 ->
                activations.split(out, in) ? x : activations.operand(x, out, in);
        };
    }
}
