package bios.worker.device.cpu;

import static bios.protocol.Require.require;
import static bios.worker.device.cpu.Assembler.RAX;
import static bios.worker.device.cpu.Assembler.RBP;
import static bios.worker.device.cpu.Assembler.RBX;
import static bios.worker.device.cpu.Assembler.RCX;
import static bios.worker.device.cpu.Assembler.RDI;
import static bios.worker.device.cpu.Assembler.RDX;
import static bios.worker.device.cpu.Assembler.RSI;
import static bios.worker.device.cpu.Assembler.RSP;
import static bios.worker.device.cpu.Assembler.R8;
import static bios.worker.device.cpu.Assembler.R9;
import static bios.worker.device.cpu.Assembler.R10;
import static bios.worker.device.cpu.Assembler.R11;
import static bios.worker.device.cpu.Assembler.R12;
import static bios.worker.device.cpu.Assembler.R13;
import static bios.worker.device.cpu.Assembler.R14;
import static bios.worker.device.cpu.Assembler.R15;

import bios.worker.device.cpu.Assembler.Address;
import bios.worker.device.cpu.Assembler.Label;

/// A small product on registers: c (+)= a·b for up to 14 rows of a against slivers of b, columns 16 or 32
/// wide. Each element of c is one accumulator that takes the terms in the order of the steps, by fused
/// multiply-add: so its bits depend neither on the number of rows nor on how a longer sum is cut into
/// calls, and are the same for weights widened before and here.
///
/// @param rows 1 to [#ROWS]
/// @param vectors of 16 columns: 1 or 2
/// @param ahead whether right factors are asked for before they are needed: with few rows they come from
///     memory
record GemmKernel(int rows, int vectors, Left left, Right right, Result result, boolean ahead) {
    /// Most rows: 28 accumulators, two vectors of b, one of a, one mask.
    static final int ROWS = 14;
    /// Longs that a kernel is called with: a, a's stride, b, bytes of b between steps, c, c's stride,
    /// steps, slivers, bytes of b between slivers, mask of the last sliver's columns, bits of the factor,
    /// how many bytes ahead packed weights are asked for: they come from memory, and the processor looks
    /// ahead to the end of a page only.
    static final int ARGUMENTS = 12;

    /// How a lies in memory.
    enum Left {
        /// Steps side by side, rows `stride` bytes apart.
        ROWS,
        /// Rows side by side, steps `stride` bytes apart: the transpose.
        COLUMNS
    }

    /// What a step reads of b.
    enum Right {
        /// fp32 columns, times one fp32 of each row of a.
        FLOATS,
        /// Columns of bf16 pairs, widened to fp32, times two fp32 of each row of a: two terms a step.
        PAIRS,
        /// Columns of bf16 pairs, times a pair of each row of a, by the bf16 instruction: two terms a step.
        DOTS
    }

    /// What becomes of c.
    enum Result {
        /// c ← a·b.
        WRITE,
        /// c ← c + a·b; the sum begins with c.
        ADD,
        /// c ← factor·(a·b).
        SCALE,
        /// c ← c + factor·(a·b).
        ADD_SCALED
    }

    private static final int A = 28, MASK = 29, B = 30;
    private static final int[] GROUPS = {R11, RBX, RBP, R12, R13};
    private static final int[] SAVED = {RBX, RBP, R12, R13, R14, R15};
    private static final int UNROLLED = 4;

    GemmKernel {
        require(rows >= 1 && rows <= ROWS && (vectors == 1 || vectors == 2), "a kernel of %d by %d", rows,
                vectors);
        require(left == Left.ROWS || right == Right.FLOATS, "columns of %s", right);
    }

    /// The mask of a last sliver of which so many columns are there: all of a whole one.
    static long mask(int columns) {
        return columns >= Packed.SLIVER ? 0xffffffffL : (1L << columns) - 1;
    }

    /// The `i`th argument behind those in registers.
    private static Address argument(int i) {
        return Address.of(RSP, 8 * (SAVED.length + 1 + i - 6));
    }

    byte[] code() {
        var to = new Assembler();
        for (int register : SAVED) to.push(register);
        to.load(R14, argument(7));
        to.load(R15, argument(11));
        if (right == Right.PAIRS) {
            to.ones(MASK);
            to.shiftLeft(MASK, MASK, 16);
        }
        var sliver = new Label();
        to.bind(sliver);
        masks(to);
        begin(to);
        steps(to);
        end(to);
        to.addConstant(R8, 64 * vectors);
        to.load(RAX, argument(8));
        to.add(RDX, RAX);
        to.subtract(R14, 1);
        to.jump(Assembler.NOT_EQUAL, sliver);
        for (int i = SAVED.length - 1; i >= 0; i--) to.pop(SAVED[i]);
        to.leave();
        return to.code();
    }

    /// Mask registers 1 and 2: columns of the two vectors; all but in the last sliver.
    private void masks(Assembler to) {
        var last = new Label();
        to.load(RAX, argument(9));
        to.compare(R14, 1);
        to.jump(Assembler.EQUAL, last);
        to.allOnes(RAX);
        to.bind(last);
        to.mask(1, RAX);
        to.shiftRight(RAX, 16);
        to.mask(2, RAX);
    }

    /// Pointers to every third row from `base` on.
    private void groups(Assembler to, int base, int stride) {
        to.move(GROUPS[0], base);
        for (int g = 1; g <= (rows - 1) / 3; g++) {
            to.address(GROUPS[g], Address.of(GROUPS[g - 1], stride, 2, 0));
            to.add(GROUPS[g], stride);
        }
    }

    private static Address row(int row, int stride, int displacement) {
        int group = GROUPS[row / 3];
        return row % 3 == 0 ? Address.of(group, displacement) : Address.of(group, stride, row % 3,
                displacement);
    }

    private int sum(int row, int vector) {
        return row * vectors + vector;
    }

    private void begin(Assembler to) {
        groups(to, R8, R9);
        for (int row = 0; row < rows; row++)
            for (int v = 0; v < vectors; v++) to.prefetch(1, row(row, R9, 64 * v));
        for (int row = 0; row < rows; row++)
            for (int v = 0; v < vectors; v++)
                if (result == Result.ADD) to.loadVector(sum(row, v), row(row, R9, 64 * v), 1 + v);
                else to.zero(sum(row, v));
    }

    private void steps(Assembler to) {
        to.move(R10, RDX);
        if (left == Left.ROWS) groups(to, RDI, RSI);
        else to.move(R11, RDI);
        to.load(RAX, argument(6));
        var rest = new Label();
        var many = new Label();
        var one = new Label();
        var done = new Label();
        to.compare(RAX, UNROLLED);
        to.jump(Assembler.BELOW, rest);
        to.bind(many);
        for (int i = 0; i < UNROLLED; i++) step(to, i);
        forward(to, UNROLLED);
        to.subtract(RAX, UNROLLED);
        to.compare(RAX, UNROLLED);
        to.jump(Assembler.NOT_BELOW, many);
        to.bind(rest);
        to.compare(RAX, 0);
        to.jump(Assembler.EQUAL, done);
        to.bind(one);
        step(to, 0);
        forward(to, 1);
        to.subtract(RAX, 1);
        to.jump(Assembler.NOT_EQUAL, one);
        to.bind(done);
    }

    private void forward(Assembler to, int steps) {
        if (left == Left.COLUMNS) return;
        int bytes = right == Right.PAIRS ? 8 : 4;
        for (int g = 0; g <= (rows - 1) / 3; g++) to.addConstant(GROUPS[g], steps * bytes);
    }

    private void step(Assembler to, int i) {
        if (right == Right.PAIRS) {
            for (int v = 0; v < vectors; v++) to.shiftLeft(B + v, Address.of(R10, 64 * v), 16);
            terms(to, 8 * i);
            for (int v = 0; v < vectors; v++) to.and(B + v, MASK, Address.of(R10, 64 * v));
            terms(to, 8 * i + 4);
        } else {
            for (int v = 0; v < vectors; v++) to.loadVector(B + v, Address.of(R10, 64 * v));
            terms(to, 4 * i);
        }
        if (ahead)
            for (int v = 0; v < vectors; v++) to.prefetch(2, Address.of(R10, R15, 1, 64 * v));
        // rows of b lie far apart here, which the processor does not foresee
        if (left == Left.COLUMNS)
            for (int v = 0; v < vectors; v++) to.prefetch(1, Address.of(R10, 64 * (vectors + v)));
        to.add(R10, RCX);
        if (left == Left.COLUMNS) to.add(R11, RSI);
    }

    private void terms(Assembler to, int displacement) {
        for (int row = 0; row < rows; row++) {
            to.broadcast(A, left == Left.ROWS ? row(row, RSI, displacement) : Address.of(R11, 4 * row));
            for (int v = 0; v < vectors; v++)
                if (right == Right.DOTS) to.dotPairs(sum(row, v), A, B + v);
                else to.multiplyAdd(sum(row, v), A, B + v);
        }
    }

    private void end(Assembler to) {
        groups(to, R8, R9);
        boolean scaled = result == Result.SCALE || result == Result.ADD_SCALED;
        if (scaled) {
            to.load(RAX, argument(10));
            to.broadcastGeneral(A, RAX);
        }
        for (int row = 0; row < rows; row++)
            for (int v = 0; v < vectors; v++) {
                int sum = sum(row, v);
                if (result == Result.SCALE) to.multiplyFloats(sum, sum, A);
                if (result == Result.ADD_SCALED) {
                    to.loadVector(B, row(row, R9, 64 * v), 1 + v);
                    to.multiplyAdd(B, sum, A);
                    sum = B;
                }
                to.storeVector(row(row, R9, 64 * v), sum, 1 + v);
            }
    }
}
