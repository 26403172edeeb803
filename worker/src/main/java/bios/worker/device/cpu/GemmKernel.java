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

/// A small product on registers: c (+)= a·b for up to 18 rows of a against slivers of b, columns 16 or 32
/// wide. The sums of rows beyond the 14th have no registers; they are on the stack, in the L1 cache. Each
/// element of c is one accumulator to which the terms are added in the order of the steps, by fused
/// multiply-add. So its bits depend neither on the number of rows nor on how a longer sum is split into
/// calls, and are the same whether weights are widened before the call or in it.
///
/// @param rows 1 to [#ROWS]; to [#MOST] where b's steps are [Packed#STEP] bytes apart
/// @param vectors of 16 columns: 1 or 2
/// @param ahead whether right factors are prefetched: with few rows they are read from memory, not from a
///     cache
record GemmKernel(int rows, int vectors, Left left, Right right, Result result, boolean ahead) {
    /// Most rows: 28 accumulators, two vectors of b, one of a, one mask.
    static final int ROWS = 14;
    /// Most rows of a kernel that keeps some sums on the stack: that costs less than to read weights from
    /// memory twice.
    static final int MOST = 18;
    /// Number of arguments of a kernel, all longs: a, a's stride, b, bytes of b between steps, c, c's stride,
    /// steps, slivers, bytes of b between slivers, mask of the last sliver's columns, bits of the factor,
    /// prefetch distance in bytes of packed weights: they are read from memory, and the processor's own
    /// prefetcher stops at the end of a page.
    static final int ARGUMENTS = 12;

    /// Layout of a in memory.
    enum Left {
        /// Steps are contiguous, rows `stride` bytes apart.
        ROWS,
        /// Rows are contiguous, steps `stride` bytes apart: the transpose.
        COLUMNS
    }

    /// The elements of b that a step reads.
    enum Right {
        /// fp32 columns, times one fp32 of each row of a.
        FLOATS,
        /// Columns of bf16 pairs, widened to fp32, times two fp32 of each row of a: two terms a step.
        PAIRS,
        /// Columns of bf16 pairs, times a pair of each row of a, by the bf16 instruction: two terms a step.
        DOTS
    }

    /// How the result is written to c.
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
    /// Only kernels with more than [#ROWS] rows use the last one.
    private static final int[] GROUPS = {R11, RBX, RBP, R12, R13, RCX};
    private static final int[] SAVED = {RBX, RBP, R12, R13, R14, R15};
    private static final int UNROLLED = 4;

    GemmKernel {
        require(rows >= 1 && rows <= MOST && (vectors == 1 || vectors == 2), "a kernel of %d by %d", rows,
                vectors);
        require(left == Left.ROWS || right == Right.FLOATS && rows <= ROWS, "%d columns of %s", rows, right);
    }

    /// The mask of the last sliver's valid columns; all bits for a whole sliver.
    static long mask(int columns) {
        return columns >= Packed.SLIVER ? 0xffffffffL : (1L << columns) - 1;
    }

    /// register ← the `i`th argument of those that are passed on the stack.
    private void argument(Assembler to, int register, int i) {
        int stack = RSP;
        if (rows > ROWS) {
            to.load(register, Address.of(RSP, spilled()));
            stack = register;
        }
        to.load(register, Address.of(stack, 8 * (SAVED.length + 1 + i - 6)));
    }

    /// Bytes of the sums on the stack.
    private int spilled() {
        return 64 * vectors * Math.max(0, rows - ROWS);
    }

    /// The address of a sum on the stack.
    private Address spilled(int row, int vector) {
        return Address.of(RSP, 64 * sum(row - ROWS, vector));
    }

    byte[] code() {
        var to = new Assembler();
        for (int register : SAVED) to.push(register);
        if (rows > ROWS) {
            // sums in whole cache lines; after them the previous stack pointer
            to.move(RAX, RSP);
            to.addConstant(RSP, -spilled() - 64);
            to.andConstant(RSP, -64);
            to.store(Address.of(RSP, spilled()), RAX);
        }
        argument(to, R14, 7);
        argument(to, R15, 11);
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
        argument(to, RAX, 8);
        to.add(RDX, RAX);
        to.subtract(R14, 1);
        to.jump(Assembler.NOT_EQUAL, sliver);
        if (rows > ROWS) to.load(RSP, Address.of(RSP, spilled()));
        for (int i = SAVED.length - 1; i >= 0; i--) to.pop(SAVED[i]);
        to.leave();
        return to.code();
    }

    /// Mask registers 1 and 2: columns of the two vectors; all columns except in the last sliver.
    private void masks(Assembler to) {
        var last = new Label();
        argument(to, RAX, 9);
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
            for (int v = 0; v < vectors; v++) {
                int sum = row < ROWS ? sum(row, v) : A;
                if (result == Result.ADD) to.loadVector(sum, row(row, R9, 64 * v), 1 + v);
                else to.zero(sum);
                if (row >= ROWS) to.storeVector(spilled(row, v), sum);
            }
    }

    private void steps(Assembler to) {
        to.move(R10, RDX);
        if (left == Left.ROWS) groups(to, RDI, RSI);
        else to.move(R11, RDI);
        argument(to, RAX, 6);
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
        // rows of b are far apart here, and the processor's own prefetcher does not detect that
        if (left == Left.COLUMNS)
            for (int v = 0; v < vectors; v++) to.prefetch(1, Address.of(R10, 64 * (vectors + v)));
        if (rows > ROWS) to.addConstant(R10, Packed.STEP);
        else to.add(R10, RCX);
        if (left == Left.COLUMNS) to.add(R11, RSI);
    }

    private void terms(Assembler to, int displacement) {
        for (int row = ROWS; row < rows; row++)
            for (int v = 0; v < vectors; v++) {
                to.loadVector(A, spilled(row, v));
                if (right == Right.DOTS) to.dotPairsEach(A, B + v, row(row, RSI, displacement));
                else to.multiplyAddEach(A, B + v, row(row, RSI, displacement));
                to.storeVector(spilled(row, v), A);
            }
        for (int row = 0; row < Math.min(rows, ROWS); row++) {
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
            argument(to, RAX, 10);
            to.broadcastGeneral(A, RAX);
        }
        for (int row = 0; row < rows; row++)
            for (int v = 0; v < vectors; v++) {
                int sum = row < ROWS ? sum(row, v) : B + 1;
                if (row >= ROWS) to.loadVector(sum, spilled(row, v));
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
