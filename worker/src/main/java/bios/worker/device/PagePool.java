package bios.worker.device;

/// KV-cache pages on a device. One page holds [Device#BLOCK] positions of every layer. The host assigns pages
/// to sequences; a pass contains the page numbers ([Sequence#pages]).
public interface PagePool extends AutoCloseable {
    /// The dimensions and element type of the pages.
    Format format();

    /// Bytes of one page.
    long pageBytes();

    /// Allocates pages so that numbers 0 (inclusive) to `pages` (exclusive) are valid; does nothing if they
    /// already are. If it throws [OutOfDeviceMemory], nothing stays allocated. Pages are not freed before
    /// [#clear] or [#close].
    void growTo(int pages);

    /// Frees all pages, after the verbs called before; [#growTo] allocates again.
    void clear();

    /// Frees all pages, after the verbs called before.
    @Override void close();

    /// Dimensions and element type of keys and values.
    ///
    /// @param dtype [DType#F32] or [DType#BF16]
    record Format(int layers, int kvHeads, int headDim, DType dtype) {}
}
