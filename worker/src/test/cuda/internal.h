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
    long outOfMemoryAt, launchFailureAt, lostAt;
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
    unsigned shared;
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
// An access of a kernel to device memory; false if it is to other memory.
bool checkGlobal(const void* at, size_t bytes, bool write);
// An access of a kernel to any memory.
void checkShared(const void* at, size_t bytes, bool write, bool atomic);
void checkAccess(const void* at, size_t bytes, bool write);
void copyState(void* to, const void* from, size_t bytes);
}  // namespace emu
