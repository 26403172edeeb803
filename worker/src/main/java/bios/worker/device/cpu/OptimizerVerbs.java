package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.Device.AdamStep;
import bios.worker.kernel.AdamW;
import bios.worker.kernel.Sums;
import java.lang.foreign.ValueLayout;
import java.util.List;

/// The verbs on all tensors of an adapter at once. An adapter has few, long rows: each is split into parts,
/// whose bounds depend only on its length.
final class OptimizerVerbs {
    /// Elements of a part of a row.
    private static final int PART = 1 << 13;

    private final Pool pool;
    private final Workspace[] workspaces;

    OptimizerVerbs(Pool pool, Workspace[] workspaces) {
        this.pool = pool;
        this.workspaces = workspaces;
    }

    /// Processes columns `column` to `column + count` of one row of the `tensor`-th tensor.
    private interface PartTask {
        void run(int task, int tensor, int row, int column, int count, Workspace space);
    }

    private static int parts(HostTensor x) {
        return Math.multiplyExact(x.rows(), Math.ceilDiv(x.columns(), PART));
    }

    /// Index of the first part of each tensor; the last element is the number of all parts.
    private static int[] firsts(List<HostTensor> all) {
        int[] firsts = new int[all.size() + 1];
        for (int i = 0; i < all.size(); i++)
            firsts[i + 1] = Math.addExact(firsts[i], parts(all.get(i)));
        return firsts;
    }

    private void eachPart(List<HostTensor> all, int[] firsts, PartTask body) {
        long elements = all.stream().mapToLong(HostTensor::elements).sum();
        pool.run(firsts[all.size()], 16L * elements, (task, thread) -> {
            int i = 0;
            while (firsts[i + 1] <= task) i++;
            int columns = all.get(i).columns();
            int each = Math.ceilDiv(columns, PART);
            int column = (task - firsts[i]) % each * PART;
            body.run(task, i, (task - firsts[i]) / each, column, Math.min(PART, columns - column),
                    workspaces[thread]);
        });
    }

    /// sum ← Σ x²: parts of a tensor in order, then tensors in order.
    void sumOfSquares(HostTensor sum, List<HostTensor> all) {
        requireScalar(sum);
        int[] firsts = firsts(all);
        double[] parts = new double[firsts[all.size()]];
        eachPart(all, firsts, (task, i, row, column, count, space) -> {
            float[] values = space.row(0, count);
            Rows.load(values, 0, all.get(i), row, column, count);
            parts[task] = Sums.dot(values, values, count);
        });
        double total = 0;
        for (int i = 0; i < all.size(); i++) {
            double own = 0;
            for (int task = firsts[i]; task < firsts[i + 1]; task++) own += parts[task];
            total += own;
        }
        sum.memory().set(ValueLayout.JAVA_DOUBLE, 0, total);
    }

    private static void requireScalar(HostTensor sum) {
        require(sum.dtype() == DType.F64 && sum.rows() == 1 && sum.columns() == 1, "a sum is [1, 1] of F64");
    }

    /// Weights, first and second moments and gradients of an adapter, in lists of one shape.
    record Operands(List<HostTensor> w, List<HostTensor> m, List<HostTensor> v, List<HostTensor> g) {
        Operands {
            for (var other : List.of(m, v, g)) {
                require(other.size() == w.size(), "%d tensors beside %d", other.size(), w.size());
                for (int i = 0; i < w.size(); i++) RowVerbs.sameShape(w.get(i), other.get(i));
            }
        }
    }

    /// The step is computed twice: first only to learn whether all of it is finite, then to store it.
    void adamW(HostTensor notFinite, Operands all, HostTensor sumOfSquares, AdamStep step) {
        requireScalar(sumOfSquares);
        double norm = Math.sqrt(sumOfSquares.memory().get(ValueLayout.JAVA_DOUBLE, 0));
        var rule = AdamW.at(AdamW.clip(norm, step.gradClipNorm()), step.learningRate(), step.beta1(),
                step.beta2(), step.eps(), step.weightDecay(), step.step());
        int[] firsts = firsts(all.w);
        int[] found = new int[firsts[all.w.size()]];
        eachPart(all.w, firsts, (task, i, row, column, n, space) -> {
            stepped(rule, all, i, row, column, n, space);
            found[task] = AdamW.notFinite(space.row(0, n), space.row(1, n), space.row(2, n), space.row(3, n),
                    n);
        });
        int bits = 0;
        for (int part : found) bits |= part;
        Rows.store(notFinite, 0, new int[] {bits});
        if (bits != 0) return;
        eachPart(all.w, firsts, (_, i, row, column, n, space) -> {
            stepped(rule, all, i, row, column, n, space);
            Rows.store(all.w.get(i), row, column, space.row(0, n), 0, n);
            Rows.store(all.m.get(i), row, column, space.row(1, n), 0, n);
            Rows.store(all.v.get(i), row, column, space.row(2, n), 0, n);
        });
    }

    /// Rows 0 to 3 of the workspace ← weights and moments after the step, and the gradient.
    private static void stepped(AdamW rule, Operands all, int i, int row, int column, int n,
            Workspace space) {
        float[] weight = space.row(0, n);
        float[] first = space.row(1, n);
        float[] second = space.row(2, n);
        float[] gradient = space.row(3, n);
        Rows.load(weight, 0, all.w.get(i), row, column, n);
        Rows.load(first, 0, all.m.get(i), row, column, n);
        Rows.load(second, 0, all.v.get(i), row, column, n);
        Rows.load(gradient, 0, all.g.get(i), row, column, n);
        rule.step(weight, first, second, gradient, n);
    }
}
