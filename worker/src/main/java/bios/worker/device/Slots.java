package bios.worker.device;

import java.util.List;

/// The adapters of a pass as device data, made once per pass by [Device#slots]; lives as long as its scope.
/// Slots stand in ascending order of rows and do not overlap; rows outside of all slots have no adapter.
public interface Slots {
    /// The slots, in order.
    List<Slot> slots();

    /// Largest rank of all slots at a site; 0 where no slot corrects it.
    int rank(int site);

    /// The slots of rows `from` to `from + count`, cut where they reach beyond, rows counted from `from`.
    /// Shares the device data.
    Slots rows(int from, int count);
}
