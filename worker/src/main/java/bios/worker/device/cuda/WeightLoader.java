package bios.worker.device.cuda;

import static bios.protocol.Require.require;

import bios.worker.device.DType;
import bios.worker.device.FrozenMatrix;
import bios.worker.device.FrozenMatrix.WeightType;
import bios.worker.device.NotFiniteWeight;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.stream.LongStream;
import jcuda.driver.CUevent;

/// Copies frozen matrices from their files to the card: by two pinned buffers, one of which is filled from
/// the file, by several threads, while the other is copied. fp16 is widened to fp32 on the card, the others
/// stay as they are. Whether all elements are finite is found out on the card.
final class WeightLoader implements AutoCloseable {
    private static final long BUFFER_BYTES = 32L << 20;
    /// What one thread copies at a time.
    private static final long PIECE_BYTES = 2L << 20;
    private static final int BLOCK = 256;
    /// Blocks of threads of a scan.
    private static final int SCAN_BLOCKS = 1024;

    /// What tells that two matrices are the same part of the same mapped file.
    private record Source(MemorySegment.Scope file, long address, WeightType dtype, int rows, int columns) {
        static Source of(FrozenMatrix m) {
            return new Source(m.memory().scope(), m.memory().address(), m.dtype(), m.rows(), m.columns());
        }
    }

    private record Loaded(Source source, CudaTensor tensor) {}

    private final Cuda cuda;
    private final MemorySegment[] buffers = new MemorySegment[2];
    private final CUevent[] copied = new CUevent[2];
    private Loaded last;

    WeightLoader(Cuda cuda) {
        this.cuda = cuda;
    }

    /// Bytes that a matrix takes on the card.
    static long bytes(FrozenMatrix matrix) {
        return (long) matrix.rows() * matrix.columns() * dtype(matrix).bytes();
    }

    private static DType dtype(FrozenMatrix matrix) {
        return matrix.dtype() == WeightType.BF16 ? DType.BF16 : DType.F32;
    }

    /// The matrix `[rows, columns]` on the card, never freed: BF16 if the file has bf16, else F32. The same
    /// matrix twice in succession (a tied embedding and head) is the same memory.
    ///
    /// @throws NotFiniteWeight with the first element that is not finite; nothing stays allocated
    CudaTensor load(FrozenMatrix matrix) {
        var source = Source.of(matrix);
        if (last != null && last.source.equals(source)) return last.tensor;
        long bytes = (long) matrix.rows() * matrix.columns() * matrix.dtype().bytes();
        require(matrix.memory().byteSize() >= bytes, "a matrix of %d bytes in %d", bytes,
                matrix.memory().byteSize());
        var to = cuda.memory().undefined(dtype(matrix), matrix.rows(), matrix.columns());
        try (var scope = cuda.memory().scope()) {
            // fp16 is as wide as bf16: its bits are loaded as they are, and widened when they were checked
            CudaTensor raw = matrix.dtype() == WeightType.F16
                    ? cuda.memory().scratch(scope, DType.BF16, matrix.rows(), matrix.columns()) : to;
            copy(matrix.memory().asSlice(0, bytes), raw.address());
            requireFinite(matrix, raw, cuda.memory().scratch(scope, Long.BYTES));
            if (raw != to) cuda.kernels().of("widen_half").with(raw).with(to)
                    .launch(Cuda.blocks(to.elements(), BLOCK), BLOCK);
            last = new Loaded(source, to);
            return to;
        } catch (Throwable refused) {
            cuda.memory().release(to.address());
            throw refused;
        }
    }

    private void copy(MemorySegment from, long to) {
        int next = 0;
        for (long at = 0; at < from.byteSize(); at += BUFFER_BYTES, next ^= 1) {
            var part = from.asSlice(at, Math.min(BUFFER_BYTES, from.byteSize() - at));
            if (buffers[next] == null) {
                buffers[next] = cuda.driver().allocateHost(BUFFER_BYTES);
                copied[next] = cuda.driver().event();
            } else cuda.driver().await(copied[next]);
            var buffer = buffers[next];
            LongStream.range(0, Math.ceilDiv(part.byteSize(), PIECE_BYTES)).parallel().forEach(piece -> {
                long begin = piece * PIECE_BYTES;
                MemorySegment.copy(part, begin, buffer, begin,
                        Math.min(PIECE_BYTES, part.byteSize() - begin));
            });
            cuda.driver().toDevice(to + at, buffer.asSlice(0, part.byteSize()), cuda.compute());
            cuda.driver().record(copied[next], cuda.compute());
        }
    }

    /// @param first 8 bytes of the card
    private void requireFinite(FrozenMatrix matrix, CudaTensor raw, long first) {
        if (raw.elements() == 0) return;
        int exponent = switch (matrix.dtype()) {
            case BF16 -> 0x7f80;
            case F16 -> 0x7c00;
            case F32 -> 0x7f800000;
        };
        var none = cuda.pinned().take(Long.BYTES);
        none.set(ValueLayout.JAVA_LONG, 0, Long.MAX_VALUE);
        cuda.driver().toDevice(first, none.asSlice(0, Long.BYTES), cuda.compute());
        cuda.kernels().of("first_not_finite").with(raw).with(exponent).with(first)
                .launch(Math.min(SCAN_BLOCKS, Cuda.blocks(raw.elements(), BLOCK)), BLOCK);
        cuda.driver().toHost(none.asSlice(0, Long.BYTES), first, cuda.compute());
        var done = cuda.pinned().mark(cuda.compute());
        cuda.driver().await(done);
        cuda.pinned().give(done);
        long found = none.get(ValueLayout.JAVA_LONG, 0);
        cuda.pinned().give(none);
        if (found != Long.MAX_VALUE) throw new NotFiniteWeight(matrix, found);
    }

    /// Gives the buffers back: a model is loaded.
    void releaseUnused() {
        for (int i = 0; i < buffers.length; i++) {
            if (buffers[i] == null) continue;
            cuda.driver().await(copied[i]);
            cuda.driver().freeHost(buffers[i]);
            cuda.driver().destroy(copied[i]);
            buffers[i] = null;
        }
    }

    @Override public void close() {
        releaseUnused();
    }
}
