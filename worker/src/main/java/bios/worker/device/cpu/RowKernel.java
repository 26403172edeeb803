package bios.worker.device.cpu;

import static bios.worker.device.cpu.Assembler.RAX;
import static bios.worker.device.cpu.Assembler.RCX;
import static bios.worker.device.cpu.Assembler.RDI;
import static bios.worker.device.cpu.Assembler.RDX;
import static bios.worker.device.cpu.Assembler.RSI;
import static bios.worker.device.cpu.Assembler.RSP;
import static bios.worker.device.cpu.Assembler.R8;
import static bios.worker.device.cpu.Assembler.R9;
import static bios.worker.device.cpu.Assembler.R10;
import static bios.worker.device.cpu.Assembler.R11;

import bios.worker.device.cpu.Assembler.Address;
import bios.worker.device.cpu.Assembler.Label;
import java.util.function.IntConsumer;

/// The operations on rows between products: the formulas of [bios.worker.kernel], on vectors of 16 elements.
/// For a formula without a sum, the bits are those of the definition.
record RowKernel(Kind kind) {
    /// What a kernel computes, and its arguments, all longs.
    enum Kind {
        /// y ← silu(gate)·up. (y, gate, up, -, -, vectors, tail)
        SWIGLU,
        /// dgate, dup ← the gradients of [#SWIGLU]; they may be gate and up. (dgate, dup, dy, gate, up,
        /// vectors, tail)
        SWIGLU_BACKWARD,
        /// x ← factor·exp(x - shift). (x, address of shift and factor, -, -, -, vectors, tail)
        SCALED_EXP,
        /// The maximum of x, in 16 lanes, and Σ exp(x - maximum) in 16 doubles. (x, address of both, -, -,
        /// -, vectors, tail)
        LOG_SUM_EXP,
        /// One block of attention: scores of 64 keys a row become weights relative to the new maximum.
        /// (scores, maxima, sums, factors that rescale earlier sums, visible keys of each row as bits, rows)
        ABSORB,
        /// The backward of one block of attention: scores become weights, dweights become dscores. (scores,
        /// dweights, lse, delta, visible keys as bits, rows, bits of the scale)
        WEIGH,
        /// Each row times its factor. (rows, factors, vectors, bytes between rows, -, rows)
        SCALE_ROWS,
        /// Dot products of rows. (a, bytes between its rows, b, bytes between its rows, results, rows,
        /// vectors, tail)
        DOT_ROWS,
        /// y ← x + y. (y, x, -, -, -, vectors, tail)
        ADD,
        /// Rotates pairs of two halves of a head: (x₁, x₂) ← (x₁·c - x₂·s, x₂·c + x₁·s). (x₁, x₂, c, s, -,
        /// vectors, tail)
        ROTATE,
        /// The inverse rotation of [#ROTATE].
        ROTATE_BACK,
        /// y ← x·inverse·weight. (y, x, weight, address of inverse, -, vectors, tail)
        NORM,
        /// dx += inverse·(dy·weight - x·mean). (dx, dy, x, weight, address of inverse and mean, vectors,
        /// tail)
        NORM_BACKWARD,
        /// Σ x·y·z in 16 doubles. (address of the sums, x, y, z, -, vectors, tail)
        SUM_OF_PRODUCTS,
        /// Σ x² in 16 doubles. (address of the sums, x, -, -, -, vectors, tail)
        SUM_OF_SQUARES,
        /// y ← x rounded to bf16. (y, x, -, -, -, vectors, tail)
        HALVES,
        /// y ← x rounded to bf16, z ← the rest rounded. (y, x, z, -, -, vectors, tail)
        HALVES_AND_REST
    }

    // Constants of the exponential function, see bios.worker.kernel.Exp.
    private static final int LOWEST = 18, HIGHEST = 19, PER_LN2 = 20, ROUND = 21, LN2_HIGH = 22, LN2_LOW = 23,
            C6 = 24, ONE = 29;
    private static final float[] FLOATS = {-87f, 88f, 1.44269504f, 12582912f, 0.6931472f, -1.9046542e-9f,
            1.3863781e-3f, 8.3674826e-3f, 4.1667238e-2f, 1.6666535e-1f, 0.5f, 1f};
    /// Mask register for the last, partial vector of a row.
    private static final int TAIL = 1;

    private static Address argument(int i) {
        return Address.of(RSP, 8 * (1 + i - 6));
    }

    byte[] code() {
        var to = new Assembler();
        switch (kind) {
            case SWIGLU -> swiglu(to);
            case SWIGLU_BACKWARD -> swigluBackward(to);
            case SCALED_EXP -> scaledExp(to);
            case LOG_SUM_EXP -> logSumExp(to);
            case ABSORB -> absorb(to);
            case WEIGH -> weigh(to);
            case SCALE_ROWS -> scaleRows(to);
            case DOT_ROWS -> dotRows(to);
            case ADD -> along(to, new int[] {RDI, RSI}, mask -> {
                read(to, 0, RDI, mask);
                read(to, 1, RSI, mask);
                to.addFloats(0, 0, 1);
                to.storeVector(Address.of(RDI, 0), 0, mask);
            });
            case ROTATE -> rotate(to, false);
            case ROTATE_BACK -> rotate(to, true);
            case NORM -> norm(to);
            case NORM_BACKWARD -> normBackward(to);
            case SUM_OF_PRODUCTS -> sum(to, true);
            case SUM_OF_SQUARES -> sum(to, false);
            case HALVES -> along(to, new int[] {RSI}, new int[] {RDI}, mask -> {
                read(to, 0, RSI, mask);
                to.toHalves(1, 0);
                to.storeLowerHalf(Address.of(RDI, 0), 1);
            });
            case HALVES_AND_REST -> along(to, new int[] {RSI}, new int[] {RDI, RDX}, mask -> {
                read(to, 0, RSI, mask);
                to.toHalves(1, 0);
                to.storeLowerHalf(Address.of(RDI, 0), 1);
                to.widenWords(1, 1);
                to.shiftLeft(1, 1, 16);
                to.subtractFloats(0, 0, 1);
                to.toHalves(1, 0);
                to.storeLowerHalf(Address.of(RDX, 0), 1);
            });
        }
        to.leave();
        return to.code();
    }

    // ---- pieces ----

    private static void constants(Assembler to) {
        for (int i = 0; i < FLOATS.length; i++) {
            to.constant(RAX, Float.floatToRawIntBits(FLOATS[i]));
            to.broadcastGeneral(LOWEST + i, RAX);
        }
    }

    /// x ← exp(x) for x of at most 88, with three vectors for intermediate results. Adding ROUND leaves n in
    /// the low bits of a sum, from where it is moved to the exponent. NaN gives NaN.
    private static void exp(Assembler to, int x, int sum, int n, int p) {
        to.maxFloats(x, LOWEST, x);
        to.copyVector(sum, x);
        to.scaleAndAdd(sum, PER_LN2, ROUND);
        to.subtractFloats(n, sum, ROUND);
        to.multiplySubtract(x, n, LN2_HIGH);
        to.multiplySubtract(x, n, LN2_LOW);
        to.copyVector(p, C6);
        for (int i = 1; i < 5; i++) to.scaleAndAdd(p, x, C6 + i);
        to.scaleAndAdd(p, x, ONE);
        to.scaleAndAdd(p, x, ONE);
        to.shiftLeft(sum, sum, 23);
        to.addInts(x, p, sum);
    }

    /// The same for any x.
    private static void expOfAny(Assembler to, int x, int sum, int n, int p) {
        to.minFloats(x, HIGHEST, x);
        exp(to, x, sum, n, p);
    }

    private static void read(Assembler to, int vector, int pointer, int mask) {
        if (mask == 0) to.loadVector(vector, Address.of(pointer, 0));
        else to.loadVector(vector, Address.of(pointer, 0), mask);
    }

    /// Emits the body for all whole vectors of a row and, masked, for the rest (arguments 5 and 6). Pointers
    /// are advanced.
    private static void along(Assembler to, int[] pointers, IntConsumer body) {
        along(to, pointers, new int[0], body);
    }

    /// @param halves pointers to two-byte elements
    private static void along(Assembler to, int[] pointers, int[] halves, IntConsumer body) {
        var rest = new Label();
        var next = new Label();
        var done = new Label();
        to.move(R11, R9);
        to.compare(R11, 0);
        to.jump(Assembler.EQUAL, rest);
        to.bind(next);
        body.accept(0);
        for (int pointer : pointers) to.addConstant(pointer, 64);
        for (int pointer : halves) to.addConstant(pointer, 32);
        to.subtract(R11, 1);
        to.jump(Assembler.NOT_EQUAL, next);
        to.bind(rest);
        to.load(RAX, argument(6));
        to.compare(RAX, 0);
        to.jump(Assembler.EQUAL, done);
        to.mask(TAIL, RAX);
        body.accept(TAIL);
        to.bind(done);
    }

    /// All lanes ← the maximum of x's lanes, or their sum; `room` is a vector for intermediate results.
    private static void across(Assembler to, int x, int room, boolean sum) {
        for (int round = 0; round < 4; round++) {
            switch (round) {
                case 0 -> to.quarters(room, x, x, 0x4e);
                case 1 -> to.quarters(room, x, x, 0xb1);
                case 2 -> to.withinQuarters(room, x, 0x4e);
                default -> to.withinQuarters(room, x, 0xb1);
            }
            if (sum) to.addFloats(x, x, room);
            else to.maxFloats(x, x, room);
        }
    }

    // ---- along one row ----

    private static void swiglu(Assembler to) {
        constants(to);
        to.zero(17);
        along(to, new int[] {RDI, RSI, RDX}, mask -> {
            read(to, 4, RSI, mask);
            read(to, 5, RDX, mask);
            to.subtractFloats(0, 17, 4);
            expOfAny(to, 0, 1, 2, 3);
            to.addFloats(0, ONE, 0);
            to.divideFloats(0, 4, 0);
            to.multiplyFloats(0, 0, 5);
            to.storeVector(Address.of(RDI, 0), 0, mask);
        });
    }

    private static void swigluBackward(Assembler to) {
        constants(to);
        to.zero(17);
        along(to, new int[] {RDI, RSI, RDX, RCX, R8}, mask -> {
            read(to, 4, RCX, mask);     // gate
            read(to, 5, R8, mask);      // up
            read(to, 6, RDX, mask);     // dy
            to.subtractFloats(0, 17, 4);
            expOfAny(to, 0, 1, 2, 3);
            to.addFloats(0, ONE, 0);
            to.divideFloats(0, ONE, 0);  // σ
            to.subtractFloats(1, ONE, 0);
            to.multiplyFloats(1, 4, 1);
            to.addFloats(1, ONE, 1);     // 1 + gate·(1 - σ)
            to.multiplyFloats(2, 6, 5);
            to.multiplyFloats(2, 2, 0);
            to.multiplyFloats(2, 2, 1);
            to.multiplyFloats(3, 6, 4);
            to.multiplyFloats(3, 3, 0);
            to.storeVector(Address.of(RDI, 0), 2, mask);
            to.storeVector(Address.of(RSI, 0), 3, mask);
        });
    }

    private static void scaledExp(Assembler to) {
        constants(to);
        to.broadcast(16, Address.of(RSI, 0));
        to.broadcast(17, Address.of(RSI, 4));
        along(to, new int[] {RDI}, mask -> {
            read(to, 0, RDI, mask);
            to.subtractFloats(0, 0, 16);
            expOfAny(to, 0, 1, 2, 3);
            to.multiplyFloats(0, 0, 17);
            to.storeVector(Address.of(RDI, 0), 0, mask);
        });
    }

    private static void logSumExp(Assembler to) {
        constants(to);
        to.move(R10, RDI);
        to.constant(RAX, Float.floatToRawIntBits(Float.NEGATIVE_INFINITY));
        to.broadcastGeneral(16, RAX);
        along(to, new int[] {R10}, mask -> {
            read(to, 0, R10, mask);
            to.maxFloats(16, 16, 0, mask);
        });
        across(to, 16, 0, false);
        to.storeVector(Address.of(RSI, 0), 16);
        to.zero(14);
        to.zero(15);
        along(to, new int[] {RDI}, mask -> {
            read(to, 0, RDI, mask);
            to.subtractFloats(0, 0, 16);
            exp(to, 0, 1, 2, 3);
            if (mask != 0) to.keepLanes(0, 0, mask);
            addDoubles(to, 0);
        });
        to.storeVector(Address.of(RSI, 64), 14);
        to.storeVector(Address.of(RSI, 128), 15);
    }

    /// Vectors 14 and 15 (doubles) += the 16 fp32 of x.
    private static void addDoubles(Assembler to, int x) {
        to.toDoubles(1, x);
        to.upperHalf(2, x);
        to.toDoubles(2, 2);
        to.addDoubles(14, 14, 1);
        to.addDoubles(15, 15, 2);
    }

    private static void sum(Assembler to, boolean products) {
        to.zero(14);
        to.zero(15);
        along(to, products ? new int[] {RSI, RDX, RCX} : new int[] {RSI}, mask -> {
            read(to, 4, RSI, mask);
            if (products) {
                read(to, 5, RDX, mask);
                read(to, 6, RCX, mask);
                to.multiplyFloats(4, 4, 5);
            } else to.copyVector(6, 4);
            to.toDoubles(1, 4);
            to.toDoubles(2, 6);
            to.multiplyAddDoubles(14, 1, 2);
            to.upperHalf(1, 4);
            to.upperHalf(2, 6);
            to.toDoubles(1, 1);
            to.toDoubles(2, 2);
            to.multiplyAddDoubles(15, 1, 2);
        });
        to.storeVector(Address.of(RDI, 0), 14);
        to.storeVector(Address.of(RDI, 64), 15);
    }

    private static void rotate(Assembler to, boolean back) {
        along(to, new int[] {RDI, RSI, RDX, RCX}, mask -> {
            read(to, 0, RDI, mask);
            read(to, 1, RSI, mask);
            read(to, 2, RDX, mask);
            read(to, 3, RCX, mask);
            to.multiplyFloats(4, 0, 2);
            to.multiplyFloats(5, 1, 3);
            to.multiplyFloats(6, 1, 2);
            to.multiplyFloats(7, 0, 3);
            if (back) {
                to.addFloats(4, 4, 5);
                to.subtractFloats(6, 6, 7);
            } else {
                to.subtractFloats(4, 4, 5);
                to.addFloats(6, 6, 7);
            }
            to.storeVector(Address.of(RDI, 0), 4, mask);
            to.storeVector(Address.of(RSI, 0), 6, mask);
        });
    }

    private static void norm(Assembler to) {
        to.broadcast(16, Address.of(RCX, 0));
        along(to, new int[] {RDI, RSI, RDX}, mask -> {
            read(to, 0, RSI, mask);
            read(to, 1, RDX, mask);
            to.multiplyFloats(0, 0, 16);
            to.multiplyFloats(0, 0, 1);
            to.storeVector(Address.of(RDI, 0), 0, mask);
        });
    }

    private static void normBackward(Assembler to) {
        to.broadcast(16, Address.of(R8, 0));
        to.broadcast(17, Address.of(R8, 4));
        along(to, new int[] {RDI, RSI, RDX, RCX}, mask -> {
            read(to, 0, RSI, mask);
            read(to, 1, RCX, mask);
            read(to, 2, RDX, mask);
            read(to, 3, RDI, mask);
            to.multiplyFloats(0, 0, 1);
            to.multiplyFloats(2, 2, 17);
            to.subtractFloats(0, 0, 2);
            to.multiplyFloats(0, 16, 0);
            to.addFloats(3, 3, 0);
            to.storeVector(Address.of(RDI, 0), 3, mask);
        });
    }

    // ---- rows of attention ----

    /// Mask registers 1 to 4 ← 64 bits.
    private static void visible(Assembler to) {
        to.load(RAX, Address.of(R8, 0));
        for (int v = 0; v < 4; v++) {
            to.mask(1 + v, RAX);
            if (v < 3) to.shiftRight(RAX, 16);
        }
    }

    private static void absorb(Assembler to) {
        constants(to);
        var next = new Label();
        to.bind(next);
        visible(to);
        to.broadcast(4, Address.of(RSI, 0));
        to.copyVector(5, 4);
        for (int v = 0; v < 4; v++) {
            to.loadVector(v, Address.of(RDI, 64 * v));
            to.maxFloats(5, 5, v, 1 + v);
        }
        across(to, 5, 6, false);
        for (int v = 0; v < 4; v++) {
            to.subtractFloats(v, v, 5);
            exp(to, v, 6, 7, 8);
            to.keepLanes(v, v, 1 + v);
            to.storeVector(Address.of(RDI, 64 * v), v);
        }
        to.subtractFloats(4, 4, 5);
        // before the first visible key both maxima are -∞: their difference counts as the lowest number
        to.maxFloats(4, 4, LOWEST);
        exp(to, 4, 6, 7, 8);
        to.addFloats(0, 0, 1);
        to.addFloats(2, 2, 3);
        to.addFloats(0, 0, 2);
        across(to, 0, 6, true);
        to.broadcast(7, Address.of(RDX, 0));
        to.multiplyFloats(7, 7, 4);
        to.addFloats(7, 7, 0);
        to.storeFirst(Address.of(RSI, 0), 5);
        to.storeFirst(Address.of(RDX, 0), 7);
        to.storeFirst(Address.of(RCX, 0), 4);
        to.addConstant(RDI, 256);
        for (int pointer : new int[] {RSI, RDX, RCX}) to.addConstant(pointer, 4);
        to.addConstant(R8, 8);
        to.subtract(R9, 1);
        to.jump(Assembler.NOT_EQUAL, next);
    }

    private static void weigh(Assembler to) {
        constants(to);
        to.broadcast(17, argument(6));
        var next = new Label();
        to.bind(next);
        visible(to);
        to.broadcast(4, Address.of(RDX, 0));
        to.broadcast(5, Address.of(RCX, 0));
        for (int v = 0; v < 4; v++) {
            to.loadVector(v, Address.of(RDI, 64 * v));
            to.subtractFloats(v, v, 4);
            exp(to, v, 6, 7, 8);
            to.keepLanes(v, v, 1 + v);
            to.storeVector(Address.of(RDI, 64 * v), v);
            to.loadVector(9, Address.of(RSI, 64 * v));
            to.subtractFloats(9, 9, 5);
            to.multiplyFloats(9, 9, v);
            to.multiplyFloats(9, 9, 17);
            to.storeVector(Address.of(RSI, 64 * v), 9);
        }
        to.addConstant(RDI, 256);
        to.addConstant(RSI, 256);
        to.addConstant(RDX, 4);
        to.addConstant(RCX, 4);
        to.addConstant(R8, 8);
        to.subtract(R9, 1);
        to.jump(Assembler.NOT_EQUAL, next);
    }

    private static void scaleRows(Assembler to) {
        var row = new Label();
        var next = new Label();
        to.bind(row);
        to.broadcast(1, Address.of(RSI, 0));
        to.move(R10, RDI);
        to.move(R11, RDX);
        to.bind(next);
        to.loadVector(0, Address.of(R10, 0));
        to.multiplyFloats(0, 0, 1);
        to.storeVector(Address.of(R10, 0), 0);
        to.addConstant(R10, 64);
        to.subtract(R11, 1);
        to.jump(Assembler.NOT_EQUAL, next);
        to.add(RDI, RCX);
        to.addConstant(RSI, 4);
        to.subtract(R9, 1);
        to.jump(Assembler.NOT_EQUAL, row);
    }

    /// Each lane sums every 16th product; then the lanes are added in pairs.
    private static void dotRows(Assembler to) {
        to.load(RAX, argument(7));
        to.mask(TAIL, RAX);
        var row = new Label();
        var next = new Label();
        var rest = new Label();
        to.bind(row);
        to.zero(0);
        to.move(R10, RDI);
        to.move(R11, RDX);
        to.load(RAX, argument(6));
        to.compare(RAX, 0);
        to.jump(Assembler.EQUAL, rest);
        to.bind(next);
        to.loadVector(1, Address.of(R10, 0));
        to.loadVector(2, Address.of(R11, 0));
        to.multiplyAdd(0, 1, 2);
        to.addConstant(R10, 64);
        to.addConstant(R11, 64);
        to.subtract(RAX, 1);
        to.jump(Assembler.NOT_EQUAL, next);
        to.bind(rest);
        to.loadVector(1, Address.of(R10, 0), TAIL);
        to.loadVector(2, Address.of(R11, 0), TAIL);
        to.multiplyAdd(0, 1, 2);
        across(to, 0, 1, true);
        to.storeFirst(Address.of(R8, 0), 0);
        to.add(RDI, RSI);
        to.add(RDX, RCX);
        to.addConstant(R8, 4);
        to.subtract(R9, 1);
        to.jump(Assembler.NOT_EQUAL, row);
    }
}
