package bios.worker.model;

import bios.worker.device.AttentionShape;
import bios.worker.device.Device;
import bios.worker.device.Span;
import bios.worker.device.Tensor;
import java.util.List;
import java.util.Optional;

/// A decoder layer: attention and a gated layer, each behind a norm, each added to the residual stream. Line
/// n of a backward undoes line n of its forward, read from the bottom.
///
/// @param inputNorm, postNorm weights `[1, hidden]`
/// @param headNorms of q and k, weights `[1, headDim]`
record Layer(int index, Tensor inputNorm, Projection q, Projection k, Projection v,
        Optional<HeadNorms> headNorms, AttentionShape shape, Projection o, Tensor postNorm, Projection gate,
        Projection up, Projection down, float eps) {

    /// Norms over single heads (Qwen3).
    record HeadNorms(Tensor q, Tensor k) {}

    /// What a forward leaves for its backward: `[rows, ...]` matrices that live as long as a scope. q and k
    /// are behind norm and rotation, `rawQ` and `rawK` before; without head norms they are the same memory.
    /// h, h2 and act are quickly made again from the others, so that a kept tape is without them; a lean
    /// one is without gate and up as well, which take two products.
    static final class Tape {
        Tensor h, inverse, rawQ, rawK, q, k, v, inverseQ, inverseK, lse, attended, middle;
        Tensor h2, inverse2, gate, up, act;
        List<Optional<Tensor>> lowQ, lowK, lowV, lowO, lowGate, lowUp, lowDown;
        List<Span> spans;
    }

    /// next ← the layer's output for x, both `[rows, hidden]`; the tape lives as long as `scope`.
    ///
    /// @param lean whether it is to be a lean one
    Tape forward(Tensor next, Tensor x, Pass pass, Device.Scope scope, boolean lean) {
        Tape t = new Tape();
        try (Device.Scope brief = pass.on().scope()) {
            attend(t, x, pass, scope, brief);
            feed(t, pass, scope, lean ? brief : scope, brief);
            t.lowDown = down.low(t.act, pass.slots(), pass.on(), scope);
            down.forward(next, t.act, Optional.of(t.middle), t.lowDown, pass.slots(), pass.on());
        }
        t.h = null;
        t.h2 = null;
        t.act = null;
        if (lean) {
            t.gate = null;
            t.up = null;
        }
        return t;
    }

    /// The tape of [#forward] once more, bit for bit: all but the output, which nobody needs twice.
    Tape again(Tensor x, Pass pass, Device.Scope scope) {
        Tape t = new Tape();
        attend(t, x, pass, scope, scope);
        feed(t, pass, scope, scope, scope);
        t.lowDown = down.low(t.act, pass.slots(), pass.on(), scope);
        return t;
    }

    /// d in place: the gradient for the layer's output becomes that for its input x (undefined for the first
    /// layer). Uses the tape up.
    void backward(Tensor d, Tensor x, Tape t, Pass pass) {
        Device on = pass.on();
        try (Device.Scope scope = on.scope()) {
            if (t.h2 == null) {
                t.h2 = like(t.middle, on, scope);
                on.rmsNorm(t.h2, t.inverse2, t.middle, postNorm, eps);
                if (t.gate == null) widen(t, pass, scope);
                t.act = like(t.gate, on, scope);
                on.swiglu(t.act, t.gate, t.up);
            }
            feedBackward(d, t, pass, scope);
        }
        try (Device.Scope scope = on.scope()) {
            if (t.h == null) {
                t.h = like(t.middle, on, scope);
                on.rmsNorm(t.h, t.inverse, x, inputNorm, eps);
            }
            attendBackward(d, x, t, pass, scope);
        }
    }

    /// Bytes of a tape of one row, without the adapters' shares.
    long tapeBytes() {
        return leanTapeBytes() + 4 * 2L * gate.w().out();
    }

    /// The same of a lean tape.
    long leanTapeBytes() {
        long queriesAndKeys = (long) (shape.heads() + shape.kvHeads()) * shape.headDim();
        long copies = headNorms.isPresent() ? 3 : 2;      // raw, normed, and values with what attention gives
        return 4 * (inputNorm.columns() + copies * queriesAndKeys);
    }

    /// middle ← x + o(attention(rope(norm(q, k)), v)).
    private void attend(Tape t, Tensor x, Pass pass, Device.Scope scope, Device.Scope brief) {
        Device on = pass.on();
        int rows = x.rows();
        int headDim = shape.headDim();
        t.h = on.scratch(brief, rows, x.columns());
        t.inverse = on.scratch(scope, rows, 1);
        on.rmsNorm(t.h, t.inverse, x, inputNorm, eps);
        t.rawQ = on.scratch(scope, rows, shape.heads() * headDim);
        t.rawK = on.scratch(scope, rows, shape.kvHeads() * headDim);
        t.v = on.scratch(scope, rows, shape.kvHeads() * headDim);
        var low = Projection.low(List.of(q, k, v), t.h, pass.slots(), on, scope);
        t.lowQ = low.get(0);
        t.lowK = low.get(1);
        t.lowV = low.get(2);
        q.forward(t.rawQ, t.h, Optional.empty(), t.lowQ, pass.slots(), on);
        k.forward(t.rawK, t.h, Optional.empty(), t.lowK, pass.slots(), on);
        v.forward(t.v, t.h, Optional.empty(), t.lowV, pass.slots(), on);
        t.q = t.rawQ;
        t.k = t.rawK;
        headNorms.ifPresent(norms -> normHeads(t, norms, pass, scope));
        on.rope(t.q, pass.positions(), headDim, pass.cos(), pass.sin());
        on.rope(t.k, pass.positions(), headDim, pass.cos(), pass.sin());
        t.attended = on.scratch(scope, rows, shape.heads() * headDim);
        t.lse = on.scratch(scope, rows, shape.heads());
        t.spans = pass.keyValues().put(index, t.k, t.v);
        on.attention(t.attended, t.lse, t.q, t.spans, shape);
        t.middle = on.scratch(scope, rows, x.columns());
        t.lowO = o.low(t.attended, pass.slots(), on, scope);
        o.forward(t.middle, t.attended, Optional.of(x), t.lowO, pass.slots(), on);
    }

    private void attendBackward(Tensor d, Tensor x, Tape t, Pass pass, Device.Scope scope) {
        Device on = pass.on();
        int headDim = shape.headDim();
        Tensor dattended = like(t.attended, on, scope);
        o.backward(Optional.of(dattended), false, d, t.attended, t.lowO, pass.slots(), on);
        Tensor dq = like(t.q, on, scope);
        Tensor dk = like(t.k, on, scope);
        Tensor dv = like(t.v, on, scope);
        on.attentionBackward(dq, dk, dv, dattended, t.attended, t.lse, t.q, t.spans, shape);
        on.ropeBackward(dk, pass.positions(), headDim, pass.cos(), pass.sin());
        on.ropeBackward(dq, pass.positions(), headDim, pass.cos(), pass.sin());
        Tensor drawQ = dq;
        Tensor drawK = dk;
        if (headNorms.isPresent()) {
            drawQ = zeros(dq, on, scope);
            drawK = zeros(dk, on, scope);
            normHeadsBackwardAdd(drawQ, drawK, dq, dk, t, headNorms.get(), on);
        }
        // below the first layer nothing learns
        Optional<Tensor> dh = index == 0 ? Optional.empty() : Optional.of(like(t.h, on, scope));
        v.backward(dh, false, dv, t.h, t.lowV, pass.slots(), on);
        k.backward(dh, true, drawK, t.h, t.lowK, pass.slots(), on);
        q.backward(dh, true, drawQ, t.h, t.lowQ, pass.slots(), on);
        dh.ifPresent(gradient -> on.rmsNormBackwardAdd(d, gradient, x, t.inverse, inputNorm));
    }

    private void normHeads(Tape t, HeadNorms norms, Pass pass, Device.Scope scope) {
        Device on = pass.on();
        int headDim = shape.headDim();
        t.q = like(t.rawQ, on, scope);
        t.k = like(t.rawK, on, scope);
        t.inverseQ = on.scratch(scope, t.q.rows() * shape.heads(), 1);
        t.inverseK = on.scratch(scope, t.k.rows() * shape.kvHeads(), 1);
        on.rmsNorm(t.q.rowsOf(headDim), t.inverseQ, t.rawQ.rowsOf(headDim), norms.q(), eps);
        on.rmsNorm(t.k.rowsOf(headDim), t.inverseK, t.rawK.rowsOf(headDim), norms.k(), eps);
    }

    private void normHeadsBackwardAdd(Tensor drawQ, Tensor drawK, Tensor dq, Tensor dk, Tape t,
            HeadNorms norms, Device on) {
        int w = shape.headDim();
        on.rmsNormBackwardAdd(drawK.rowsOf(w), dk.rowsOf(w), t.rawK.rowsOf(w), t.inverseK, norms.k());
        on.rmsNormBackwardAdd(drawQ.rowsOf(w), dq.rowsOf(w), t.rawQ.rowsOf(w), t.inverseQ, norms.q());
    }

    /// act ← silu(gate(norm(middle))) · up(norm(middle)).
    ///
    /// @param wide how long gate and up live
    private void feed(Tape t, Pass pass, Device.Scope scope, Device.Scope wide, Device.Scope brief) {
        Device on = pass.on();
        t.h2 = like(t.middle, on, brief);
        t.inverse2 = on.scratch(scope, t.middle.rows(), 1);
        on.rmsNorm(t.h2, t.inverse2, t.middle, postNorm, eps);
        var low = Projection.low(List.of(gate, up), t.h2, pass.slots(), on, scope);
        t.lowGate = low.get(0);
        t.lowUp = low.get(1);
        widen(t, pass, wide);
        t.act = like(t.gate, on, brief);
        on.swiglu(t.act, t.gate, t.up);
    }

    /// gate and up ← their projections of h2, whose A·x is there.
    private void widen(Tape t, Pass pass, Device.Scope scope) {
        Device on = pass.on();
        t.gate = on.scratch(scope, t.h2.rows(), gate.w().out());
        t.up = on.scratch(scope, t.h2.rows(), up.w().out());
        gate.forward(t.gate, t.h2, Optional.empty(), t.lowGate, pass.slots(), on);
        up.forward(t.up, t.h2, Optional.empty(), t.lowUp, pass.slots(), on);
    }

    private void feedBackward(Tensor d, Tape t, Pass pass, Device.Scope scope) {
        Device on = pass.on();
        Tensor dact = like(t.act, on, scope);
        down.backward(Optional.of(dact), false, d, t.act, t.lowDown, pass.slots(), on);
        on.swigluBackward(t.gate, t.up, dact, t.gate, t.up);
        Tensor dh = like(t.h2, on, scope);
        up.backward(Optional.of(dh), false, t.up, t.h2, t.lowUp, pass.slots(), on);
        gate.backward(Optional.of(dh), true, t.gate, t.h2, t.lowGate, pass.slots(), on);
        on.rmsNormBackwardAdd(d, dh, t.middle, t.inverse2, postNorm);
    }

    private static Tensor like(Tensor x, Device on, Device.Scope scope) {
        return on.scratch(scope, x.rows(), x.columns());
    }

    private static Tensor zeros(Tensor x, Device on, Device.Scope scope) {
        Tensor zeros = like(x, on, scope);
        on.fill(zeros, 0);
        return zeros;
    }
}
