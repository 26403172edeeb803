package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.Tensor;
import java.util.List;

/// What all layers of one pass share.
///
/// @param positions of every row in its sequence
/// @param slots rows that adapters correct, in order, without overlap
/// @param cos, sin `[positions, headDim/2]`
record Pass(Device on, int[] positions, List<Slot> slots, KeyValues keyValues, Tensor cos, Tensor sin) {}
