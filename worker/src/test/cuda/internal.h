// What the parts of the stand-in driver share.
#pragma once
#include "emu.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emu {
// ---- settings, from the environment

struct Settings {
    uint64_t seed;
    unsigned threads;
    size_t memory;
    int major, minor;
    bool checked;         // kernels are compiled with checks
    long outOfMemoryAt, launchFailureAt, lostAt, graphFaultAt;
    bool clustersFail;
};
const Settings& settings();
// A number that depends on the seed and on what it is for, nothing else.
uint64_t mix(uint64_t seed, uint64_t value);

// ---- messages

// Writes one line to the log (CUDA_EMULATOR_LOG, else standard error).
void log(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Reports a fault of the program under test with the kernel or call that runs, and ends the process.
[[noreturn]] void violation(const char* format, ...) __attribute__((format(printf, 1, 2)));
// What runs now, for messages.
struct Running { const char* what = nullptr; };
extern thread_local Running running;

// ---- launches

struct Launch {
    const Kernel* kernel;
    Dim grid, block;
    unsigned shared, mostStatic;    // bytes of dynamic shared memory, and most of what the kernel declares
    std::vector<char> parameters;
    uint64_t number;
    void* tlsProbe;
};
void run(const Launch& launch);
const unsigned MAX_SHARED = 227 * 1024;
// "kernel, block (..), thread (..)" if the calling thread is in a kernel.
std::string whereInKernel();
// Runs work on a thread of the emulator and waits for it.
void onDevice(const std::function<void()>& work);

// ---- memory

uint64_t allocate(size_t bytes, bool pinned);
// Whether there was such an allocation.
bool release(uint64_t address, bool pinned);
// Takes the block from the memory in use without unmapping it: for frees in the order of a stream.
bool isDevice(uint64_t address);
bool isPinned(uint64_t address);
size_t memoryInUse();
// The allocation around an address; 0 if none.
bool rangeOf(uint64_t address, uint64_t& start, size_t& bytes);
void checkRead(const void* from, size_t bytes, const char* what);
void checkWrite(const void* to, size_t bytes, const char* what);
// Only that it lies within one allocation.
void checkInside(const void* at, size_t bytes, const char* what);
// Where device memory and its state bytes lie.
const uint64_t BASE = 0x100000000000, STATE = 0x300000000000, REGION = 2ull << 40;
const unsigned char WRITTEN = 2;
// An access that needs a second look: misaligned, outside, or the first one.
void suspectGlobal(const void* at, size_t bytes, bool write);
// An access of a kernel to device memory; false if it is to other memory.
inline bool checkGlobal(const void* at, size_t bytes, bool write) {
    uint64_t offset = (uint64_t) at - BASE;
    if (__builtin_expect(offset >= REGION, 0)) return false;
    auto* s = (const unsigned char*) STATE + offset;
    bool fine;
    switch (bytes) {
        case 1: fine = *s == WRITTEN; break;
        case 2: fine = !(offset & 1) && *(const uint16_t*) s == 0x0202; break;
        case 4: fine = !(offset & 3) && *(const uint32_t*) s == 0x02020202; break;
        case 8: fine = !(offset & 7) && *(const uint64_t*) s == 0x0202020202020202; break;
        case 16: fine = !(offset & 15) && *(const uint64_t*) s == 0x0202020202020202
                && *(const uint64_t*) (s + 8) == 0x0202020202020202; break;
        default: fine = false;
    }
    if (__builtin_expect(!fine, 0)) suspectGlobal(at, bytes, write);
    return true;
}
// An access of a kernel to shared memory, if it is one.
void checkShared(const void* at, size_t bytes, bool write, bool atomic);
void copyState(void* to, const void* from, size_t bytes);
}  // namespace emu
