package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.Tensor;
import java.util.ArrayDeque;
import java.util.Deque;

/// The tapes of a pass: whole ones of the last layers, lean ones below, none of the first, as memory allows.
/// What is not kept is made again going back, with the bits that it had.
final class Tapes implements AutoCloseable {
    private final Device on;
    private final int bare;
    private final int lean;
    private final Deque<Device.Scope> scopes = new ArrayDeque<>();
    private final Deque<Layer.Tape> tapes = new ArrayDeque<>();

    /// @param bare layers, the first ones, of which nothing is kept
    /// @param lean layers, those above, of which lean tapes are kept
    private Tapes(Device on, int bare, int lean) {
        this.on = on;
        this.bare = bare;
        this.lean = lean;
    }

    /// Nothing is kept of any layer.
    static Tapes none(Device on, int layers) {
        return new Tapes(on, layers, 0);
    }

    /// As much as fits. A lean tape saves more memory for each product that is made again than none does, so
    /// all layers become lean before one goes bare.
    ///
    /// @param budget bytes for all tapes
    /// @param whole bytes of a tape
    /// @param slim bytes of a lean one
    static Tapes within(long budget, Device on, int layers, long whole, long slim) {
        int held = (int) Math.min(layers, budget / slim);
        int full = (int) Math.min(held, (budget - held * slim) / (whole - slim));
        return new Tapes(on, layers - held, held - full);
    }

    /// Layers of which nothing is kept.
    int bare() {
        return bare;
    }

    /// Layers of which lean tapes are kept.
    int lean() {
        return lean;
    }

    /// The layer's forward; layers come in order.
    void forward(Layer layer, Tensor next, Tensor x, Pass pass) {
        tapes.push(layer.forward(next, x, pass, open(), layer.index() < bare + lean));
        if (layer.index() < bare) drop();
    }

    /// The layer's backward, see [Layer#backward]; layers come from the last to the first.
    void backward(Layer layer, Tensor d, Tensor x, Pass pass) {
        if (layer.index() < bare) tapes.push(layer.again(x, pass, open()));
        layer.backward(d, x, tapes.peek(), pass);
        drop();
    }

    /// One scope for all where there is room for all: it wastes less than one for each layer, which is given
    /// back sooner.
    private Device.Scope open() {
        if (scopes.isEmpty() || bare + lean > 0) scopes.push(on.scope());
        return scopes.peek();
    }

    private void drop() {
        tapes.pop();
        if (bare + lean > 0) scopes.pop().close();
    }

    @Override public void close() {
        scopes.forEach(Device.Scope::close);
    }
}
