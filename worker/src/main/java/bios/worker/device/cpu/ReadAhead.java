package bios.worker.device.cpu;

import java.lang.foreign.MemorySegment;

/// Has the pages of mapped files read before they are looked at, each once: matrices come in the order of
/// their files, so the bytes behind one are likely to be looked at next. Asking takes time itself, the more
/// the less of a file is in memory, and so has a thread of its own.
final class ReadAhead {
    /// Most and fewest bytes behind the last matrix that are asked for.
    private static final long FAR = 256L << 20, NEAR = 128L << 20;
    /// Bytes of one wish.
    private static final long PIECE = 8L << 20;

    private long from;
    private long end;

    /// A matrix that is looked at now.
    synchronized void at(MemorySegment mapped) {
        long first = mapped.address() / Linux.PAGE * Linux.PAGE;
        long last = mapped.address() + mapped.byteSize();
        boolean follows = from <= first && first <= end;
        if (follows && last + NEAR <= end) return;
        long begin = follows ? end : first;
        from = first;
        end = last + FAR;
        Thread.ofPlatform().daemon().name("read-ahead").start(() -> ask(begin, last + FAR));
    }

    /// What lies behind a file's end is not read; asking for it does no harm.
    private static void ask(long begin, long end) {
        for (long at = begin; at < end; at += PIECE) Linux.ask(at, Math.min(PIECE, end - at));
    }
}
