package bios.worker.device;

/// Keys and values of decoding sequences on a device, in pages of [Device#BLOCK] positions of all layers. The
/// host assigns pages to sequences; a pass contains the page numbers ([Sequence#pages]).
public interface PagePool extends AutoCloseable {
    /// The shape of its contents.
    Shape shape();

    /// Bytes of one page.
    long pageBytes();

    /// Allocates pages 0 (inclusive) to `pages` (exclusive), all or none: [OutOfDeviceMemory] if they do not
    /// fit. Pages are freed only by [#close].
    void reserve(int pages);

    /// Frees all pages, after the earlier verbs.
    @Override void close();

    /// The shape and element type of the keys and values in a pool.
    ///
    /// @param dtype [DType#F32] or [DType#BF16]
    record Shape(int layers, int kvHeads, int headDim, DType dtype) {}
}
