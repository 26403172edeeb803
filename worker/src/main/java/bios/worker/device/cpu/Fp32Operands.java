package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Device.Scope;
import bios.worker.device.Tensor;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The operands of one verb as fp32 tensors, the only type that kernels compute with. An fp32 operand is used
/// directly. A bf16 operand is widened into scratch before the verb; a bf16 result is rounded (to nearest
/// even) after the verb.
final class Fp32Operands {
    /// A verb on fp32 tensors.
    interface Verb {
        void run(Fp32Operands operands);
    }

    /// What all verbs of a device share.
    record Source(Memory memory, Pool pool, Workspace[] workspaces) {
        /// Runs a verb. If it fails, bf16 results are unchanged.
        void run(Verb verb) {
            var operands = new Fp32Operands(this);
            try {
                verb.run(operands);
                for (var result : operands.results)
                    FloatRows.convert(result.narrow, result.wide, pool, workspaces);
            } finally {
                if (operands.scope != null) operands.scope.close();
            }
        }
    }

    private record Result(HostTensor narrow, HostTensor wide) {}

    private final Source source;
    private List<Result> results = List.of();
    private Scope scope;

    private Fp32Operands(Source source) {
        this.source = source;
    }

    /// An operand that the verb reads.
    HostTensor read(Tensor tensor) {
        return of(tensor, true, false);
    }

    /// An operand that the verb reads, or none.
    Optional<HostTensor> read(Optional<Tensor> tensor) {
        return tensor.map(this::read);
    }

    /// A result that the verb overwrites as a whole.
    HostTensor write(Tensor tensor) {
        return of(tensor, false, true);
    }

    /// An operand that the verb changes.
    HostTensor update(Tensor tensor) {
        return of(tensor, true, true);
    }

    private HostTensor of(Tensor tensor, boolean read, boolean write) {
        var own = HostTensor.of(tensor);
        if (own.dtype() == DType.F32) return own;
        require(own.dtype() == DType.BF16, "element type %s is not F32 or BF16", own.dtype());
        var wide = scratch(own.rows(), own.columns());
        if (read) FloatRows.convert(wide, own, source.pool, source.workspaces);
        if (write) {
            if (results.isEmpty()) results = new ArrayList<>();
            results.add(new Result(own, wide));
        }
        return wide;
    }

    /// An fp32 matrix that lives as long as the verb runs.
    HostTensor scratch(int rows, int columns) {
        if (scope == null) scope = source.memory.scope();
        return source.memory.scratch(scope, DType.F32, rows, columns);
    }
}
