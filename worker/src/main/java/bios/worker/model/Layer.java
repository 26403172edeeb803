package bios.worker.model;

import bios.worker.device.AttentionShape;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.HeadInputs;
import bios.worker.device.KeyValues;
import bios.worker.device.Tensor;
import java.util.List;
import java.util.Optional;

/// A decoder layer: attention and a gated MLP, each after a norm, each added to the residual stream. Line n
/// of a backward undoes line n of its forward, read from the bottom. The residual stream and its gradient
/// are fp32; all that lies between a norm and the sum has the type of activations.
///
/// @param inputNorm, postNorm weights `[1, hidden]`
/// @param headNorms of q and k, weights `[1, headDim]`
record Layer(int index, Tensor inputNorm, Projection q, Projection k, Projection v,
        Optional<HeadNorms> headNorms, AttentionShape shape, Projection o, Tensor postNorm, Projection gate,
        Projection up, Projection down, float eps, DType activations) {

    /// Norms over single heads (Qwen3).
    record HeadNorms(Tensor q, Tensor k) {}

    /// The activations of a forward that its backward needs: `[rows, ...]` matrices that live as long as a
    /// scope. q and k are after norm and rotation, `rawQ` and `rawK` before; without head norms they are
    /// the same memory. h, h2 and act are quickly recomputed from the others and never saved; a partial save
    /// is without gate and up as well, which take two products.
    static final class Activations {
        Tensor h, inverse, rawQ, rawK, q, k, v, inverseQ, inverseK, lse, attended, middle;
        Tensor h2, inverse2, gate, up, act;
        Optional<Tensor> lowQ, lowK, lowV, lowO, lowGate, lowUp, lowDown;
    }

    /// next ← the layer's output for x, both `[rows, hidden]`; the activations live as long as `scope`.
    ///
    /// @param partial whether to save a part only
    Activations forward(Tensor next, Tensor x, PassContext pass, Device.Scope scope, boolean partial) {
        Activations a = new Activations();
        try (Device.Scope temporary = pass.device().scope()) {
            attention(a, x, pass, scope, temporary);
            mlp(a, pass, scope, partial ? temporary : scope, temporary);
            a.lowDown = down.low(a.act, pass.slots(), pass.device(), scope);
            down.forward(next, a.act, Optional.of(a.middle), a.lowDown, pass.slots(), pass.device());
        }
        a.h = null;
        a.h2 = null;
        a.act = null;
        if (partial) {
            a.gate = null;
            a.up = null;
        }
        return a;
    }

    /// The activations of [#forward] once more, bit for bit, without the layer's output.
    Activations recompute(Tensor x, PassContext pass, Device.Scope scope) {
        Activations a = new Activations();
        attention(a, x, pass, scope, scope);
        mlp(a, pass, scope, scope, scope);
        a.lowDown = down.low(a.act, pass.slots(), pass.device(), scope);
        return a;
    }

    /// d in place: the gradient for the layer's output becomes that for its input x (undefined for the first
    /// layer). Overwrites activations.
    void backward(Tensor d, Tensor x, Activations a, PassContext pass) {
        Device device = pass.device();
        try (Device.Scope scope = device.scope()) {
            if (a.h2 == null) {
                a.h2 = activations(a.middle, device, scope);
                device.rmsNorm(a.h2, a.inverse2, a.middle, postNorm, eps);
                if (a.gate == null) gateAndUp(a, pass, scope);
                a.act = like(a.gate, device, scope);
                device.swiglu(a.act, a.gate, a.up);
            }
            mlpBackward(d, a, pass, scope);
        }
        try (Device.Scope scope = device.scope()) {
            if (a.h == null) {
                a.h = activations(a.middle, device, scope);
                device.rmsNorm(a.h, a.inverse, x, inputNorm, eps);
            }
            attentionBackward(d, x, a, pass, scope);
        }
    }

    /// Bytes of the saved activations of one row, without the adapters' low-rank products.
    long fullBytes() {
        return partialBytes() + activations.bytes() * 2L * gate.w().out();
    }

    /// Bytes per row of a partial save.
    long partialBytes() {
        long queriesAndKeys = (long) (shape.heads() + shape.kvHeads()) * shape.headDim();
        long copies = headNorms.isPresent() ? 3 : 2;      // raw, normed, and values with attention's output
        return (long) DType.F32.bytes() * inputNorm.columns() + activations.bytes() * copies * queriesAndKeys;
    }

    /// middle ← x + o(attention(rope(norm(q, k)), v)).
    private void attention(Activations a, Tensor x, PassContext pass, Device.Scope scope,
            Device.Scope temporary) {
        Device device = pass.device();
        int rows = x.rows();
        int headDim = shape.headDim();
        a.h = activations(x, device, temporary);
        a.inverse = device.scratch(scope, rows, 1);
        device.rmsNorm(a.h, a.inverse, x, inputNorm, eps);
        a.rawQ = device.scratch(scope, activations, rows, shape.heads() * headDim);
        a.rawK = device.scratch(scope, activations, rows, shape.kvHeads() * headDim);
        a.v = device.scratch(scope, activations, rows, shape.kvHeads() * headDim);
        var low = Projection.low(List.of(q, k, v), a.h, pass.slots(), device, scope);
        a.lowQ = low.get(0);
        a.lowK = low.get(1);
        a.lowV = low.get(2);
        q.forward(a.rawQ, a.h, Optional.empty(), a.lowQ, pass.slots(), device);
        k.forward(a.rawK, a.h, Optional.empty(), a.lowK, pass.slots(), device);
        v.forward(a.v, a.h, Optional.empty(), a.lowV, pass.slots(), device);
        a.q = a.rawQ;
        a.k = a.rawK;
        headNorms.ifPresent(_ -> allocateNormed(a, device, scope));
        device.prepareHeads(new HeadInputs(
                new HeadInputs.Part(a.q, a.rawQ, headNorms.map(norms -> norm(norms.q(), a.inverseQ))),
                new HeadInputs.Part(a.k, a.rawK, headNorms.map(norms -> norm(norms.k(), a.inverseK))),
                headDim, pass.rotation(), pass.pages(index, a.v)));
        a.attended = device.scratch(scope, activations, rows, shape.heads() * headDim);
        a.lse = device.scratch(scope, rows, shape.heads());
        device.attention(a.attended, a.lse, a.q, pass.keyValues(index, a.k, a.v), pass.sequences(),
                shape);
        a.middle = like(x, device, scope);
        a.lowO = o.low(a.attended, pass.slots(), device, scope);
        o.forward(a.middle, a.attended, Optional.of(x), a.lowO, pass.slots(), device);
    }

    private void attentionBackward(Tensor d, Tensor x, Activations a, PassContext pass, Device.Scope scope) {
        Device device = pass.device();
        int headDim = shape.headDim();
        Tensor dattended = like(a.attended, device, scope);
        o.backward(Optional.of(dattended), false, entering(d, device, scope), a.attended, a.lowO,
                pass.slots(), device);
        Tensor dq = like(a.q, device, scope);
        Tensor dk = like(a.k, device, scope);
        Tensor dv = like(a.v, device, scope);
        device.attentionBackward(dq, dk, dv, dattended, a.attended, a.lse, a.q,
                new KeyValues.Packed(a.k, a.v),
                pass.sequences(), shape);
        device.ropeBackward(dk, pass.positions(), headDim, pass.cos(), pass.sin());
        device.ropeBackward(dq, pass.positions(), headDim, pass.cos(), pass.sin());
        Tensor drawQ = dq;
        Tensor drawK = dk;
        if (headNorms.isPresent()) {
            drawQ = zeros(dq, device, scope);
            drawK = zeros(dk, device, scope);
            normHeadsBackwardAdd(drawQ, drawK, dq, dk, a, headNorms.get(), device);
        }
        // nothing below the first layer is trained
        Optional<Tensor> dh = index == 0 ? Optional.empty() : Optional.of(like(a.h, device, scope));
        v.backward(dh, false, dv, a.h, a.lowV, pass.slots(), device);
        k.backward(dh, true, drawK, a.h, a.lowK, pass.slots(), device);
        q.backward(dh, true, drawQ, a.h, a.lowQ, pass.slots(), device);
        dh.ifPresent(gradient -> device.rmsNormBackwardAdd(d, gradient, x, a.inverse, inputNorm));
    }

    private HeadInputs.Norm norm(Tensor weight, Tensor inverse) {
        return new HeadInputs.Norm(weight, inverse, eps);
    }

    private void allocateNormed(Activations a, Device device, Device.Scope scope) {
        a.q = like(a.rawQ, device, scope);
        a.k = like(a.rawK, device, scope);
        a.inverseQ = device.scratch(scope, a.q.rows() * shape.heads(), 1);
        a.inverseK = device.scratch(scope, a.k.rows() * shape.kvHeads(), 1);
    }

    private void normHeadsBackwardAdd(Tensor drawQ, Tensor drawK, Tensor dq, Tensor dk, Activations a,
            HeadNorms norms, Device device) {
        int w = shape.headDim();
        device.rmsNormBackwardAdd(drawK.rowsOf(w), dk.rowsOf(w), a.rawK.rowsOf(w), a.inverseK, norms.k());
        device.rmsNormBackwardAdd(drawQ.rowsOf(w), dq.rowsOf(w), a.rawQ.rowsOf(w), a.inverseQ, norms.q());
    }

    /// act ← silu(gate(norm(middle))) · up(norm(middle)).
    ///
    /// @param wide scope of gate and up
    private void mlp(Activations a, PassContext pass, Device.Scope scope, Device.Scope wide,
            Device.Scope temporary) {
        Device device = pass.device();
        a.h2 = activations(a.middle, device, temporary);
        a.inverse2 = device.scratch(scope, a.middle.rows(), 1);
        device.rmsNorm(a.h2, a.inverse2, a.middle, postNorm, eps);
        var low = Projection.low(List.of(gate, up), a.h2, pass.slots(), device, scope);
        a.lowGate = low.get(0);
        a.lowUp = low.get(1);
        gateAndUp(a, pass, wide);
        a.act = like(a.gate, device, temporary);
        device.swiglu(a.act, a.gate, a.up);
    }

    /// gate and up ← their projections of h2, whose low-rank products exist.
    private void gateAndUp(Activations a, PassContext pass, Device.Scope scope) {
        Device device = pass.device();
        a.gate = device.scratch(scope, activations, a.h2.rows(), gate.w().out());
        a.up = device.scratch(scope, activations, a.h2.rows(), up.w().out());
        gate.forward(a.gate, a.h2, Optional.empty(), a.lowGate, pass.slots(), device);
        up.forward(a.up, a.h2, Optional.empty(), a.lowUp, pass.slots(), device);
    }

    private void mlpBackward(Tensor d, Activations a, PassContext pass, Device.Scope scope) {
        Device device = pass.device();
        Tensor dact = like(a.act, device, scope);
        down.backward(Optional.of(dact), false, entering(d, device, scope), a.act, a.lowDown, pass.slots(),
                device);
        device.swigluBackward(a.gate, a.up, dact, a.gate, a.up);
        Tensor dh = like(a.h2, device, scope);
        up.backward(Optional.of(dh), false, a.up, a.h2, a.lowUp, pass.slots(), device);
        gate.backward(Optional.of(dh), true, a.gate, a.h2, a.lowGate, pass.slots(), device);
        device.rmsNormBackwardAdd(d, dh, a.middle, a.inverse2, postNorm);
    }

    /// The gradient d of the residual stream in the type of activations, in which it enters a part of the
    /// layer: all products of that part take their operands as they are.
    private Tensor entering(Tensor d, Device device, Device.Scope scope) {
        if (d.dtype() == activations) return d;
        Tensor rounded = activations(d, device, scope);
        device.copy(rounded, d);
        return rounded;
    }

    /// A matrix of x's shape in the type of activations.
    private Tensor activations(Tensor x, Device device, Device.Scope scope) {
        return device.scratch(scope, activations, x.rows(), x.columns());
    }

    private static Tensor like(Tensor x, Device device, Device.Scope scope) {
        return device.scratch(scope, x.dtype(), x.rows(), x.columns());
    }

    private static Tensor zeros(Tensor x, Device device, Device.Scope scope) {
        Tensor zeros = like(x, device, scope);
        device.fill(zeros, 0);
        return zeros;
    }
}
