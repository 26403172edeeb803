package bios.worker.device.cpu;

import static bios.worker.device.cpu.Assembler.RAX;
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

import bios.worker.device.cpu.Assembler.Address;
import bios.worker.device.cpu.Assembler.Label;

/// Converts right factors to the layout that [GemmKernel] reads: slivers of 32 columns, step by step. The
/// arguments are from, its stride, to, its stride, count, bytes of from between blocks, bytes of to between
/// blocks, and for [Form#TRANSPOSE_AHEAD] the distance from each row that is read to the row that is
/// prefetched.
///
/// @param form the conversion of each of `count` blocks
record PanelKernel(Form form) {
    /// The conversion of one block.
    enum Form {
        /// 16 rows of 16 dwords to their transpose.
        TRANSPOSE,
        /// The same, with prefetching, for rows that are read from memory.
        TRANSPOSE_AHEAD,
        /// 16 rows of 16 bf16 pairs to their transpose, widened: 16 rows of 32 fp32.
        TRANSPOSE_WIDEN,
        /// 16 rows of 16 bf16 pairs to 8 rows of 32 pairs: pairs of neighbouring rows of the transpose.
        TRANSPOSE_PAIRS,
        /// One step of 32 bf16 pairs to two steps of 32 fp32.
        WIDEN
    }

    private static final int ROWS = 16, OTHER = 16;

    byte[] code() {
        var to = new Assembler();
        to.load(RAX, Address.of(RSP, 8));   // between blocks of to: the first argument on the stack
        if (form == Form.TRANSPOSE_AHEAD) {
            to.push(RBX);
            to.load(RBX, Address.of(RSP, 24));
        }
        if (form == Form.WIDEN) {
            to.ones(31);
            to.shiftLeft(31, 31, 16);
        }
        var block = new Label();
        to.bind(block);
        if (form == Form.WIDEN) widen(to);
        else transpose(to);
        to.add(RDI, R9);
        to.add(RDX, RAX);
        to.subtract(R8, 1);
        to.jump(Assembler.NOT_EQUAL, block);
        if (form == Form.TRANSPOSE_AHEAD) to.pop(RBX);
        to.leave();
        return to.code();
    }

    private static void widen(Assembler to) {
        for (int v = 0; v < 2; v++) {
            to.loadVector(v, Address.of(RDI, 64 * v));
            to.shiftLeft(2 + v, v, 16);
            to.and(v, v, 31);
            to.storeVector(Address.of(RDX, 64 * v), 2 + v);
            to.storeVector(Address.of(RDX, 128 + 64 * v), v);
        }
    }

    /// Four rounds of interleaving, between vectors 0 to 15 and 16 to 31.
    private void transpose(Assembler to) {
        to.move(R10, RDI);
        for (int i = 0; i < 16; i++) {
            to.loadVector(ROWS + i, Address.of(R10, 0));
            if (form == Form.TRANSPOSE_AHEAD) to.prefetch(2, Address.of(R10, RBX, 1, 0));
            to.add(R10, RSI);
        }
        for (int i = 0; i < 16; i += 2) {
            to.interleaveLow(4, i, ROWS + i, ROWS + i + 1);
            to.interleaveHigh(4, i + 1, ROWS + i, ROWS + i + 1);
        }
        for (int i = 0; i < 16; i += 4) {
            to.interleaveLow(8, OTHER + i, i, i + 2);
            to.interleaveHigh(8, OTHER + i + 1, i, i + 2);
            to.interleaveLow(8, OTHER + i + 2, i + 1, i + 3);
            to.interleaveHigh(8, OTHER + i + 3, i + 1, i + 3);
        }
        for (int i = 0; i < 4; i++) {
            to.quarters(i, OTHER + i, OTHER + 4 + i, 0x88);
            to.quarters(4 + i, OTHER + i, OTHER + 4 + i, 0xdd);
            to.quarters(8 + i, OTHER + 8 + i, OTHER + 12 + i, 0x88);
            to.quarters(12 + i, OTHER + 8 + i, OTHER + 12 + i, 0xdd);
        }
        for (int i = 0; i < 4; i++) {
            to.quarters(OTHER + i, i, 8 + i, 0x88);
            to.quarters(OTHER + 8 + i, i, 8 + i, 0xdd);
            to.quarters(OTHER + 4 + i, 4 + i, 12 + i, 0x88);
            to.quarters(OTHER + 12 + i, 4 + i, 12 + i, 0xdd);
        }
        to.move(R11, RDX);
        for (int i = 0; i < 16; i++) {
            switch (form) {
                case TRANSPOSE, TRANSPOSE_AHEAD -> to.storeVector(Address.of(R11, 0), OTHER + i);
                case TRANSPOSE_WIDEN -> storeWidened(to, OTHER + i);
                case TRANSPOSE_PAIRS -> {
                    if (i % 2 == 0) continue;
                    storePairs(to, OTHER + i - 1, OTHER + i);
                }
                case WIDEN -> throw new AssertionError();
            }
            to.add(R11, RCX);
        }
    }

    private static void storeWidened(Assembler to, int row) {
        to.upperHalf(1, row);
        to.widenWords(0, row);
        to.widenWords(1, 1);
        for (int half = 0; half < 2; half++) {
            to.shiftLeft(half, half, 16);
            to.storeVector(Address.of(R11, 64 * half), half);
        }
    }

    /// Quarters of the interleaved words are 32 bytes apart.
    private static void storePairs(Assembler to, int even, int odd) {
        to.interleaveLow(2, 0, even, odd);
        to.interleaveHigh(2, 1, even, odd);
        for (int quarter = 0; quarter < 4; quarter++) {
            to.storeQuarter(Address.of(R11, 32 * quarter), 0, quarter);
            to.storeQuarter(Address.of(R11, 32 * quarter + 16), 1, quarter);
        }
    }
}
