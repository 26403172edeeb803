package bios.worker.device.cuda;

import bios.worker.device.Readback;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.ref.Cleaner;
import java.util.List;
import jcuda.driver.CUevent;

/// Results on their way to the host. The first value that is read takes all of them out of the pinned block.
final class CudaReadback implements Readback {
    private static final Cleaner CLEANER = Cleaner.create();

    private final CudaTransfers transfers;
    private final List<CudaTensor> tensors;
    private final long[] at;
    private final Copying copying;
    private final Cleaner.Cleanable unread;
    private Object[] arrays;
    private RuntimeException failure;

    /// The block that is copied to; given back once, by whoever takes it first.
    private static final class Copying {
        private final MemorySegment block;
        private final CUevent event;
        private boolean taken;

        Copying(MemorySegment block, CUevent event) {
            this.block = block;
            this.event = event;
        }

        synchronized boolean take() {
            boolean first = !taken;
            taken = true;
            return first;
        }
    }

    /// @param at where each tensor begins in `block`
    CudaReadback(CudaTransfers transfers, List<CudaTensor> tensors, MemorySegment block, long[] at,
            CUevent event) {
        this.transfers = transfers;
        this.tensors = tensors;
        this.at = at;
        var own = new Copying(block, event);
        copying = own;
        unread = CLEANER.register(this, () -> {
            if (own.take()) transfers.discard(own.block, own.event);
        });
    }

    private synchronized Object array(int i) {
        if (failure != null) throw failure;
        if (arrays == null) {
            try {
                copying.take();
                unread.clean();
                transfers.await(copying.event);
                arrays = transfers.take(copying.block, this::arrays);
            } catch (RuntimeException e) {
                failure = e;
                throw e;
            }
        }
        return arrays[i];
    }

    private Object[] arrays(MemorySegment block) {
        Object[] made = new Object[tensors.size()];
        for (int i = 0; i < made.length; i++) {
            var t = tensors.get(i);
            int n = Math.toIntExact(t.elements());
            var own = block.asSlice(at[i], (long) n * t.dtype().bytes());
            made[i] = switch (t.dtype()) {
                case F32, BF16 -> {
                    float[] values = new float[n];
                    CudaTransfers.load(values, 0, own, 0, t.dtype(), n);
                    yield values;
                }
                case I32 -> own.toArray(ValueLayout.JAVA_INT);
                case F64 -> own.toArray(ValueLayout.JAVA_DOUBLE);
            };
        }
        return made;
    }

    @Override public float[] floats(int i) {
        return (float[]) array(i);
    }

    @Override public int[] ints(int i) {
        return (int[]) array(i);
    }

    @Override public double[] doubles(int i) {
        return (double[]) array(i);
    }
}
