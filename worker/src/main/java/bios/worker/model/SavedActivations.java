package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.Tensor;
import java.util.ArrayDeque;
import java.util.Deque;

/// The activations that a pass saves for its backward (activation checkpointing, Chen et al. 2016): all of
/// the last layers, a part of the layers below, none of the first, as memory allows. What is not saved is
/// recomputed in backward, bitwise identically.
final class SavedActivations implements AutoCloseable {
    private final Device device;
    private final int recomputed;
    private final int partial;
    private final Deque<Device.Scope> scopes = new ArrayDeque<>();
    private final Deque<Layer.Activations> saved = new ArrayDeque<>();

    private SavedActivations(Device device, int recomputed, int partial) {
        this.device = device;
        this.recomputed = recomputed;
        this.partial = partial;
    }

    /// Nothing is saved of any layer.
    static SavedActivations none(Device device, int layers) {
        return new SavedActivations(device, layers, 0);
    }

    /// Saves as much as the budget allows. Saving a part saves more memory for each recomputed product than
    /// saving nothing, so every layer saves a part only before one saves nothing.
    ///
    /// @param budget bytes for all layers
    /// @param fullBytes bytes of all activations of a layer
    /// @param partialBytes bytes of the part of a layer
    static SavedActivations within(long budget, Device device, int layers, long fullBytes,
            long partialBytes) {
        int kept = (int) Math.min(layers, budget / partialBytes);
        int full = (int) Math.min(kept, (budget - kept * partialBytes) / (fullBytes - partialBytes));
        return new SavedActivations(device, layers - kept, kept - full);
    }

    /// Layers, the first ones, of which nothing is saved.
    int recomputed() {
        return recomputed;
    }

    /// Layers, those above, of which a part is saved.
    int partial() {
        return partial;
    }

    /// The layer's forward; layers are called in order.
    void forward(Layer layer, Tensor next, Tensor x, PassContext pass) {
        saved.push(layer.forward(next, x, pass, open(), layer.index() < recomputed + partial));
        if (layer.index() < recomputed) drop();
    }

    /// The layer's backward, see [Layer#backward]; layers are called from the last to the first.
    void backward(Layer layer, Tensor d, Tensor x, PassContext pass) {
        if (layer.index() < recomputed) saved.push(layer.recompute(x, pass, open()));
        layer.backward(d, x, saved.peek(), pass);
        drop();
    }

    /// One scope for all layers where there is room for all: it wastes less than one for each layer, which is
    /// closed sooner.
    private Device.Scope open() {
        if (scopes.isEmpty() || recomputed + partial > 0) scopes.push(device.scope());
        return scopes.peek();
    }

    private void drop() {
        saved.pop();
        if (recomputed + partial > 0) scopes.pop().close();
    }

    @Override public void close() {
        scopes.forEach(Device.Scope::close);
    }
}
