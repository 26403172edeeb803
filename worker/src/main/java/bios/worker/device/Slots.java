package bios.worker.device;

import java.util.List;

/// The adapters of a pass as device data, created once per pass by [Device#slots]; valid until its scope is
/// closed. Slots are in ascending order of rows and do not overlap; rows outside all slots have no adapter.
public interface Slots {
    /// The slots, in order.
    List<Slot> slots();

    /// Largest rank of all slots at a site; 0 if no slot has an adapter there.
    int rank(int site);

    /// The slots of rows `from` to `from + count`, clipped to this range, with rows counted from `from`.
    /// Shares the device data.
    Slots rows(int from, int count);
}
