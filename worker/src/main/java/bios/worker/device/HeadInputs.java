package bios.worker.device;

import static bios.protocol.Require.require;

import java.util.List;
import java.util.Optional;

/// What [Device#prepareHeads] makes ready for attention.
///
/// @param queries `[T, heads·headDim]`
/// @param keys `[T, kvHeads·headDim]`
/// @param pages where keys and values are cached; empty: nowhere
public record HeadInputs(Part queries, Part keys, int headDim, Rotation rotation, Optional<Pages> pages) {
    /// Queries or keys.
    ///
    /// @param to the result; `raw` itself if there is no norm
    /// @param raw the projection
    public record Part(Tensor to, Tensor raw, Optional<Norm> norm) {}

    /// A norm of single heads.
    ///
    /// @param weight `[1, headDim]`
    /// @param inverse `[T·heads, 1]`, written for the backward of the norm
    public record Norm(Tensor weight, Tensor inverse, float eps) {}

    /// The operands of [Device#rope] beside x.
    public record Rotation(Tensor positions, Tensor cos, Tensor sin) {}

    /// The operands of [Device#append] beside keys.
    public record Pages(PagePool pool, int layer, Tensor values, Sequences sequences) {}

    /// Checks all shapes.
    ///
    /// @throws IllegalStateException if they do not fit
    public HeadInputs {
        require(headDim > 0 && headDim % 2 == 0, "heads of %d elements", headDim);
        for (var part : List.of(queries, keys)) {
            requireShape("heads before their norm", part.raw, part.to.rows(), part.to.columns());
            require(part.to.rows() == queries.to.rows() && part.to.columns() % headDim == 0,
                    "[%d, %d] for heads of %d in %d rows", part.to.rows(), part.to.columns(), headDim,
                    queries.to.rows());
            part.norm.ifPresent(norm -> {
                requireShape("the weight of a norm", norm.weight, 1, headDim);
                requireShape("the results of a norm", norm.inverse, part.to.rows() * (part.to.columns()
                        / headDim), 1);
            });
        }
        requireShape("positions", rotation.positions, queries.to.rows(), 1);
        requireShape("cos", rotation.cos, rotation.sin.rows(), headDim / 2);
        requireShape("sin", rotation.sin, rotation.cos.rows(), headDim / 2);
        pages.ifPresent(to -> requireShape("values", to.values, keys.to.rows(), keys.to.columns()));
    }

    private static void requireShape(String what, Tensor t, int rows, int columns) {
        require(t.rows() == rows && t.columns() == columns, "%s [%d, %d] instead of [%d, %d]", what, t.rows(),
                t.columns(), rows, columns);
    }

    /// Queries, then keys.
    public List<Part> parts() {
        return List.of(queries, keys);
    }

    /// Prepares the heads by the single verbs of a device.
    public void prepareSingly(Device on) {
        for (var part : parts()) {
            part.norm.ifPresent(norm -> on.rmsNorm(part.to.rowsOf(headDim), norm.inverse,
                    part.raw.rowsOf(headDim), norm.weight, norm.eps));
            on.rope(part.to, rotation.positions, headDim, rotation.cos, rotation.sin);
        }
        pages.ifPresent(to -> on.append(to.pool, to.layer, keys.to, to.values, to.sequences));
    }
}
