package bios.worker.device;

/// Keys and values of decoding sequences on a device, in pages of [Device#BLOCK] positions of all layers. Who
/// holds which page is decided by the host; a pass brings the page numbers ([Sequence#pages]).
public interface PagePool extends AutoCloseable {
    /// What its pages hold.
    Shape shape();

    /// Bytes of one page.
    long pageBytes();

    /// Makes pages 0 (inclusive) to `pages` (exclusive) usable. [OutOfDeviceMemory] with nothing taken when
    /// there is no room. Pages are never given back before [#close].
    void reserve(int pages);

    /// Frees all pages, behind the verbs before.
    @Override void close();

    /// What a pool holds.
    ///
    /// @param dtype [DType#F32] or [DType#BF16]
    record Shape(int layers, int kvHeads, int headDim, DType dtype) {}
}
