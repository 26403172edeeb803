package bios.worker.model;

import bios.worker.device.Span;
import bios.worker.device.Tensor;
import java.util.List;

/// Where keys and values live: all that training and decoding do differently in a layer.
interface KeyValues {
    /// Takes the keys (rotated) and values `[rows, kvHeads·headDim]` of the pass's rows in a layer and says
    /// where each sequence finds all of its own, from position 0.
    List<Span> put(int layer, Tensor keys, Tensor values);
}
