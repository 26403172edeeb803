package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.HeadInputs;
import bios.worker.device.KeyValues;
import bios.worker.device.PagePool;
import bios.worker.device.Sequences;
import bios.worker.device.Slots;
import bios.worker.device.Tensor;
import java.util.Optional;

/// The inputs that all layers of one pass share on the device.
///
/// @param positions of every row in its sequence, `[rows, 1]`
/// @param slots rows that adapters correct
/// @param pages where keys and values are cached; empty: whole sequences, packed
/// @param cos, sin `[positions, headDim/2]`
record PassContext(Device device, Tensor positions, Slots slots, Sequences sequences,
        Optional<PagePool> pages,
        Tensor cos, Tensor sin) {

    HeadInputs.Rotation rotation() {
        return new HeadInputs.Rotation(positions, cos, sin);
    }

    /// Where the values `[rows, kvHeads·headDim]` of the pass's rows are cached with their keys, if this is a
    /// pass over cached sequences.
    Optional<HeadInputs.Pages> pages(int layer, Tensor values) {
        return pages.map(pool -> new HeadInputs.Pages(pool, layer, values, sequences));
    }

    /// Where attention finds all keys and values of the sequences in a layer.
    ///
    /// @param keys, values of the pass's rows
    KeyValues keyValues(int layer, Tensor keys, Tensor values) {
        if (pages.isEmpty()) return new KeyValues.Packed(keys, values);
        return new KeyValues.Paged(pages.get(), layer);
    }
}
