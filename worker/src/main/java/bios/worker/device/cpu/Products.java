package bios.worker.device.cpu;

import bios.worker.device.FrozenMatrix;
import bios.worker.device.Weight;
import java.util.List;
import java.util.Optional;

/// The matrix products of [bios.worker.device.Device]; one implementation for each family of paths. `add`
/// selects `+=` instead of `←`.
interface Products extends AutoCloseable {
    String description();

    Weight packWeight(FrozenMatrix matrix);

    /// Bytes that [#packWeight] allocates.
    long packedBytes(FrozenMatrix matrix);

    /// Allocates what [#projectBack] keeps for a weight, if it was not used before.
    default void prepareBackward(Weight w) {}

    /// y ← x·Wᵀ.
    void multiply(HostTensor y, HostTensor x, Weight w);

    /// dx += dy·W.
    void addInputGradient(HostTensor dx, HostTensor dy, Weight w);

    /// y ← onto + bias + x·Wᵀ + low·factor on the rows of each correction.
    default void project(HostTensor y, HostTensor x, Weight w, Optional<HostTensor> bias,
            Optional<HostTensor> onto,
            List<HostLowRank> corrections) {
        multiply(y, x, w);
        for (var c : corrections)
            multiplyBy(y.rows(c.row(), c.low().rows()), c.low(), c.factor(), 1, true);
        bias.ifPresent(b -> addToRows(y, b, true));
        onto.ifPresent(o -> addToRows(y, o, false));
    }

    /// dx ← or += dy·W + low·factorᵀ on the rows of each correction.
    default void projectBack(HostTensor dx, HostTensor dy, Weight w, boolean add,
            List<HostLowRank> corrections) {
        if (!add) for (int row = 0; row < dx.rows(); row++)
            dx.memory().asSlice(4L * row * dx.stride(), 4L * dx.columns()).fill((byte) 0);
        addInputGradient(dx, dy, w);
        for (var c : corrections)
            multiplyByTransposed(dx.rows(c.row(), c.low().rows()), c.low(), c.factor(), 1, true);
    }

    private static void addToRows(HostTensor y, HostTensor x, boolean sameRow) {
        float[] sum = new float[y.columns()];
        float[] term = new float[y.columns()];
        for (int row = 0; row < y.rows(); row++) {
            Rows.load(sum, y, row);
            Rows.load(term, x, sameRow ? 0 : row);
            for (int i = 0; i < sum.length; i++) sum[i] += term[i];
            Rows.store(y, row, sum);
        }
    }

    /// y ← or += s·x·aᵀ.
    void multiplyByTransposed(HostTensor y, HostTensor x, HostTensor a, float s, boolean add);

    /// y ← or += s·x·b.
    void multiplyBy(HostTensor y, HostTensor x, HostTensor b, float s, boolean add);

    /// Each y ← s·x·b.
    default void multiplyByEach(List<HostGroup> groups) {
        for (var group : groups)
            for (int i = 0; i < group.ys().size(); i++)
                multiplyBy(group.ys().get(i), group.x(), group.bs().get(i), group.s(), false);
    }

    /// g += s·yᵀ·x.
    void outerAdd(HostTensor g, HostTensor y, HostTensor x, float s);

    @Override void close();
}
