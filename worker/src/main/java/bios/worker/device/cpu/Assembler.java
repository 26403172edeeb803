package bios.worker.device.cpu;

import static bios.protocol.Require.require;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/// Writes x86-64 machine code with AVX-512 (Intel 64 and IA-32 Architectures Software Developer's Manual,
/// volume 2): the instructions that the kernels of this package use. General registers and vector registers
/// are numbers; vectors have 512 bits, unless a name says otherwise.
final class Assembler {
    static final int RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7, R8 = 8, R9 = 9,
            R10 = 10, R11 = 11, R12 = 12, R13 = 13, R14 = 14, R15 = 15;
    /// Conditions of [#jump].
    static final int BELOW = 2, NOT_BELOW = 3, EQUAL = 4, NOT_EQUAL = 5;

    /// An address: base + index·scale + displacement; index -1 is none.
    record Address(int base, int index, int scale, int displacement) {
        static Address of(int base, int displacement) {
            return new Address(base, -1, 1, displacement);
        }

        static Address of(int base, int index, int scale, int displacement) {
            return new Address(base, index, scale, displacement);
        }
    }

    /// A position in the code; bound once, may be used before or after that.
    static final class Label {
        private int at = -1;
        private final List<Integer> uses = new ArrayList<>();
    }

    // Opcode maps and prefixes of EVEX.
    private static final int MAP_0F = 1, MAP_0F38 = 2, MAP_0F3A = 3;
    private static final int NONE = 0, P66 = 1, PF3 = 2;

    private byte[] code = new byte[4096];
    private int size;

    /// The code written so far.
    byte[] code() {
        return Arrays.copyOf(code, size);
    }

    private void bytes(int... values) {
        if (size + values.length > code.length) code = Arrays.copyOf(code, 2 * code.length);
        for (int value : values) code[size++] = (byte) value;
    }

    private void dword(int value) {
        bytes(value, value >> 8, value >> 16, value >> 24);
    }

    // ---- general registers ----

    private void rex(int reg, int index, int base) {
        bytes(0x48 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | base >> 3 & 1);
    }

    /// ModRM, SIB and displacement; an 8-bit displacement counts in units of `unit` bytes.
    private void operand(int reg, Address a, int unit) {
        int displacement = a.displacement;
        boolean fits = displacement % unit == 0 && displacement / unit == (byte) (displacement / unit);
        boolean bare = displacement == 0 && (a.base & 7) != RBP;
        int mod = bare ? 0 : fits ? 1 : 2;
        boolean sib = a.index >= 0 || (a.base & 7) == RSP;
        bytes(mod << 6 | (reg & 7) << 3 | (sib ? 4 : a.base & 7));
        if (sib) bytes(Integer.numberOfTrailingZeros(a.scale) << 6
                | (a.index < 0 ? 4 : a.index & 7) << 3 | a.base & 7);
        if (mod == 1) bytes(displacement / unit);
        else if (mod == 2) dword(displacement);
    }

    private void general(int opcode, int reg, Address a) {
        rex(reg, Math.max(0, a.index), a.base);
        bytes(opcode);
        operand(reg, a, 1);
    }

    void move(int to, int from) {
        rex(from, 0, to);
        bytes(0x89, 0xc0 | (from & 7) << 3 | to & 7);
    }

    void load(int to, Address from) {
        general(0x8b, to, from);
    }

    void address(int to, Address of) {
        general(0x8d, to, of);
    }

    void add(int to, int from) {
        rex(from, 0, to);
        bytes(0x01, 0xc0 | (from & 7) << 3 | to & 7);
    }

    void addConstant(int to, int value) {
        rex(0, 0, to);
        bytes(0x81, 0xc0 | to & 7);
        dword(value);
    }

    void subtract(int from, int value) {
        rex(0, 0, from);
        bytes(0x81, 0xe8 | from & 7);
        dword(value);
    }

    /// register ← register AND a sign-extended constant.
    void andConstant(int register, int value) {
        rex(0, 0, register);
        bytes(0x81, 0xe0 | register & 7);
        dword(value);
    }

    void store(Address to, int from) {
        general(0x89, from, to);
    }

    void compare(int register, int value) {
        rex(0, 0, register);
        bytes(0x81, 0xf8 | register & 7);
        dword(value);
    }

    void push(int register) {
        if (register >= 8) bytes(0x41);
        bytes(0x50 | register & 7);
    }

    void pop(int register) {
        if (register >= 8) bytes(0x41);
        bytes(0x58 | register & 7);
    }

    void jump(int condition, Label to) {
        bytes(0x0f, 0x80 | condition);
        if (to.at < 0) to.uses.add(size);
        dword(to.at < 0 ? 0 : to.at - (size + 4));
    }

    void bind(Label label) {
        label.at = size;
        for (int use : label.uses) {
            int distance = size - (use + 4);
            for (int i = 0; i < 4; i++) code[use + i] = (byte) (distance >> 8 * i);
        }
    }

    /// Clears the upper halves of vector registers, which would slow down other code, and returns.
    void leave() {
        bytes(0xc5, 0xf8, 0x77, 0xc3);
    }

    /// Prefetches a cache line into L1, or into L2 only.
    void prefetch(int cache, Address a) {
        rex(cache, Math.max(0, a.index), a.base);
        bytes(0x0f, 0x18);
        operand(cache, a, 1);
    }

    /// Mask register `mask` ← the low 16 bits of a general register below [#R8].
    void mask(int mask, int from) {
        require(from < 8, "register %d", from);
        bytes(0xc5, 0xf8, 0x92, 0xc0 | mask << 3 | from);
    }

    /// register ← a 32-bit constant; a register below [#R8].
    void constant(int register, int value) {
        require(register < 8, "register %d", register);
        bytes(0xb8 | register);
        dword(value);
    }

    /// Jumps to the address stored in memory.
    void jumpTo(Address holder) {
        general(0xff, 4, holder);
    }

    /// All bits of a general register below [#R8] ← 1.
    void allOnes(int register) {
        require(register < 8, "register %d", register);
        bytes(0x48, 0x83, 0xc8 | register, 0xff);
    }

    /// register >>= count, 64 bits.
    void shiftRight(int register, int count) {
        rex(0, 0, register);
        bytes(0xc1, 0xe8 | register & 7, count);
    }

    // ---- vectors ----

    private void evex(int map, int prefix, int wide, int reg, int second, int x, int b, int broadcast,
            int mask,
            int length, boolean zero) {
        bytes(0x62,
                (~reg >> 3 & 1) << 7 | (~x & 1) << 6 | (~b & 1) << 5 | (~reg >> 4 & 1) << 4 | map,
                wide << 7 | (~second & 15) << 3 | 4 | prefix,
                (zero ? 1 : 0) << 7 | length << 5 | broadcast << 4 | (~second >> 4 & 1) << 3 | mask);
    }

    private void three(int map, int prefix, int wide, int opcode, int reg, int second, int third) {
        evex(map, prefix, wide, reg, second, third >> 4, third >> 3, 0, 0, 2, false);
        bytes(opcode, 0xc0 | (reg & 7) << 3 | third & 7);
    }

    private void memory(int map, int prefix, int wide, int opcode, int reg, int second, Address a,
            int broadcast,
            int mask, int unit) {
        evex(map, prefix, wide, reg, second, Math.max(0, a.index) >> 3, a.base >> 3, broadcast, mask, 2,
                false);
        bytes(opcode);
        operand(reg, a, unit);
    }

    void loadVector(int to, Address from) {
        memory(MAP_0F, NONE, 0, 0x10, to, 0, from, 0, 0, 64);
    }

    /// Masked lanes become zero, and their memory is not accessed.
    void loadVector(int to, Address from, int mask) {
        evex(MAP_0F, NONE, 0, to, 0, Math.max(0, from.index) >> 3, from.base >> 3, 0, mask, 2, true);
        bytes(0x10);
        operand(to, from, 64);
    }

    void storeVector(Address to, int from, int mask) {
        memory(MAP_0F, NONE, 0, 0x11, from, 0, to, 0, mask, 64);
    }

    void storeVector(Address to, int from) {
        storeVector(to, from, 0);
    }

    /// Stores the first lane to 4 bytes of memory, without a mask: a load close to a masked store waits for
    /// that store, even if the mask excludes its bytes.
    void storeFirst(Address to, int from) {
        memory(MAP_0F, PF3, 0, 0x11, from, 0, to, 0, 0, 4);
    }

    void zero(int vector) {
        three(MAP_0F, P66, 0, 0xef, vector, vector, vector);
    }

    void copyVector(int to, int from) {
        three(MAP_0F, NONE, 0, 0x28, to, 0, from);
    }

    /// All lanes ← one fp32 of memory.
    void broadcast(int to, Address from) {
        memory(MAP_0F38, P66, 0, 0x18, to, 0, from, 0, 0, 4);
    }

    /// All lanes ← the low 32 bits of a general register.
    void broadcastGeneral(int to, int from) {
        evex(MAP_0F38, P66, 0, to, 0, 0, from >> 3, 0, 0, 2, false);
        bytes(0x7c, 0xc0 | (to & 7) << 3 | from & 7);
    }

    /// sum += a·b.
    void multiplyAdd(int sum, int a, int b) {
        three(MAP_0F38, P66, 0, 0xb8, sum, a, b);
    }

    /// sum += a·b, where b is one fp32 of memory for all lanes.
    void multiplyAddEach(int sum, int a, Address b) {
        memory(MAP_0F38, P66, 0, 0xb8, sum, a, b, 1, 0, 4);
    }

    /// sum += a₀·b₀ + a₁·b₁ for pairs of bf16, where b is one pair of memory for all lanes.
    void dotPairsEach(int sum, int a, Address b) {
        memory(MAP_0F38, PF3, 0, 0x52, sum, a, b, 1, 0, 4);
    }

    /// sum -= a·b.
    void multiplySubtract(int sum, int a, int b) {
        three(MAP_0F38, P66, 0, 0xbc, sum, a, b);
    }

    /// x ← x·factor + term.
    void scaleAndAdd(int x, int factor, int term) {
        three(MAP_0F38, P66, 0, 0xa8, x, factor, term);
    }

    /// sum += a₀·b₀ + a₁·b₁ for pairs of bf16.
    void dotPairs(int sum, int a, int b) {
        three(MAP_0F38, PF3, 0, 0x52, sum, a, b);
    }

    void addFloats(int to, int a, int b) {
        three(MAP_0F, NONE, 0, 0x58, to, a, b);
    }

    void subtractFloats(int to, int a, int b) {
        three(MAP_0F, NONE, 0, 0x5c, to, a, b);
    }

    void multiplyFloats(int to, int a, int b) {
        three(MAP_0F, NONE, 0, 0x59, to, a, b);
    }

    void divideFloats(int to, int a, int b) {
        three(MAP_0F, NONE, 0, 0x5e, to, a, b);
    }

    /// `b` where one of both is NaN.
    void minFloats(int to, int a, int b) {
        three(MAP_0F, NONE, 0, 0x5d, to, a, b);
    }

    /// `b` where one of both is NaN.
    void maxFloats(int to, int a, int b) {
        three(MAP_0F, NONE, 0, 0x5f, to, a, b);
    }

    /// `b` where one of both is NaN; masked lanes of `to` are unchanged.
    void maxFloats(int to, int a, int b, int mask) {
        evex(MAP_0F, NONE, 0, to, a, b >> 4, b >> 3, 0, mask, 2, false);
        bytes(0x5f, 0xc0 | (to & 7) << 3 | b & 7);
    }

    /// Lanes that the mask leaves out become zero.
    void keepLanes(int to, int from, int mask) {
        evex(MAP_0F, NONE, 0, to, 0, from >> 4, from >> 3, 0, mask, 2, true);
        bytes(0x28, 0xc0 | (to & 7) << 3 | from & 7);
    }

    /// Permutes the lanes of each quarter: two bits of `choice` are the source of each lane.
    void withinQuarters(int to, int from, int choice) {
        three(MAP_0F3A, P66, 0, 0x04, to, 0, from);
        bytes(choice);
    }

    void addInts(int to, int a, int b) {
        three(MAP_0F, P66, 0, 0xfe, to, a, b);
    }

    void and(int to, int a, int b) {
        three(MAP_0F, P66, 0, 0xdb, to, a, b);
    }

    void and(int to, int a, Address b) {
        memory(MAP_0F, P66, 0, 0xdb, to, a, b, 0, 0, 64);
    }

    void ones(int to) {
        three(MAP_0F3A, P66, 0, 0x25, to, to, to);
        bytes(0xff);
    }

    void shiftLeft(int to, int from, int count) {
        three(MAP_0F, P66, 0, 0x72, 6, to, from);
        bytes(count);
    }

    void shiftLeft(int to, Address from, int count) {
        memory(MAP_0F, P66, 0, 0x72, 6, to, from, 0, 0, 64);
        bytes(count);
    }

    /// 16 words of the lower half to 16 dwords.
    void widenWords(int to, int from) {
        three(MAP_0F38, P66, 0, 0x33, to, 0, from);
    }

    /// The upper half of a vector, as the lower half of another.
    void upperHalf(int to, int from) {
        three(MAP_0F3A, P66, 1, 0x3b, from, 0, to);
        bytes(1);
    }

    /// The lower half of a vector to 32 bytes of memory.
    void storeLowerHalf(Address to, int from) {
        memory(MAP_0F3A, P66, 1, 0x3b, from, 0, to, 0, 0, 32);
        bytes(0);
    }

    /// 16 fp32 to 16 bf16 in the lower half, to nearest even.
    void toHalves(int to, int from) {
        three(MAP_0F38, PF3, 0, 0x72, to, 0, from);
    }

    /// A quarter of a vector to 16 bytes of memory.
    void storeQuarter(Address to, int from, int quarter) {
        memory(MAP_0F3A, P66, 0, 0x39, from, 0, to, 0, 0, 16);
        bytes(quarter);
    }

    /// 8 fp32 of the lower half to 8 fp64.
    void toDoubles(int to, int from) {
        three(MAP_0F, NONE, 0, 0x5a, to, 0, from);
    }

    void addDoubles(int to, int a, int b) {
        three(MAP_0F, P66, 1, 0x58, to, a, b);
    }

    /// sum += a·b in fp64.
    void multiplyAddDoubles(int sum, int a, int b) {
        three(MAP_0F38, P66, 1, 0xb8, sum, a, b);
    }

    /// Words, dwords (4 bytes) or qwords (8) of the lower halves of each quarter of a and b, in turn.
    void interleaveLow(int bytes, int to, int a, int b) {
        three(MAP_0F, P66, bytes == 8 ? 1 : 0, bytes == 8 ? 0x6c : bytes == 4 ? 0x62 : 0x61, to, a, b);
    }

    /// As [#interleaveLow], of the upper halves.
    void interleaveHigh(int bytes, int to, int a, int b) {
        three(MAP_0F, P66, bytes == 8 ? 1 : 0, bytes == 8 ? 0x6d : bytes == 4 ? 0x6a : 0x69, to, a, b);
    }

    /// Two quarters of a and two of b, selected by `choice`.
    void quarters(int to, int a, int b, int choice) {
        three(MAP_0F3A, P66, 0, 0x43, to, a, b);
        bytes(choice);
    }
}
