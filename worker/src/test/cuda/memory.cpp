// Device memory: one region of addresses, never used twice; each allocation between pages without access; a state
// byte for each byte tells what was written. Kernels compiled with checks ask before each access.
#include "internal.h"
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>

namespace emu {
namespace {
const size_t PAGE = 4096, POISON_FILE = 16 << 20;

struct Allocation { size_t bytes; bool pinned, freed; uint64_t pages; size_t pageBytes; };

struct Memory {
    std::mutex lock;
    char* base;
    unsigned char* state;
    size_t top = 0, inUse = 0;
    int poison;
    std::map<uint64_t, Allocation> all;

    Memory() {
        base = (char*) mmap((void*) BASE, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        state = (unsigned char*) mmap((void*) STATE, REGION, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        if (base == MAP_FAILED || state == MAP_FAILED) {
            log("cannot reserve addresses");
            abort();
        }
        poison = memfd_create("cuda-emulator-poison", 0);
        std::vector<char> fill(POISON_FILE, (char) 0xff);
        if (poison < 0 || write(poison, fill.data(), fill.size()) != (ssize_t) fill.size()) abort();
    }

    // The allocation that begins at or before an address.
    std::map<uint64_t, Allocation>::iterator before(uint64_t address) {
        auto i = all.upper_bound(address);
        return i == all.begin() ? all.end() : std::prev(i);
    }
};
Memory& memory() {
    static Memory* m = new Memory();
    return *m;
}

bool inside(const void* at) { return (size_t) ((char*) at - memory().base) < REGION; }

[[noreturn]] void outside(const void* at, size_t bytes, const char* what) {
    Memory& m = memory();
    auto i = m.before((uint64_t) at);
    if (i == m.all.end()) violation("%s: %zu bytes at %p, outside of all allocations", what, bytes, at);
    auto& a = i->second;
    long past = (long) ((uint64_t) at + bytes - i->first - a.bytes);
    if (a.freed && past <= 0)
        violation("%s: %zu bytes at %p, byte %lu of a block of %zu bytes that was freed", what, bytes, at,
                (unsigned long) ((uint64_t) at - i->first), a.bytes);
    violation("%s: %zu bytes at %p, %ld bytes past the end of a block of %zu bytes", what, bytes, at, past, a.bytes);
}

// Whether the bytes lie in one allocation.
bool valid(const void* at, size_t bytes) {
    Memory& m = memory();
    std::lock_guard guard(m.lock);
    auto i = m.before((uint64_t) at);
    return i != m.all.end() && !i->second.freed && (uint64_t) at + bytes <= i->first + i->second.bytes;
}

void slowRead(const void* from, size_t bytes, const char* what) {
    if (!valid(from, bytes)) outside(from, bytes, what);
    if (!settings().checked) return;    // what kernels without checks write is not noted
    auto* s = memory().state + ((char*) from - memory().base);
    for (size_t i = 0; i < bytes; i++) if (s[i] != WRITTEN) {
        auto b = memory().before((uint64_t) from);
        if (b->second.pinned) return;
        violation("%s: %zu bytes at %p read that were never written: byte %lu of a block of %zu bytes", what, bytes,
                from, (unsigned long) ((uint64_t) from + i - b->first), b->second.bytes);
    }
}

void slowWrite(void* to, size_t bytes, const char* what) {
    if (!valid(to, bytes)) outside(to, bytes, what);
    memset(memory().state + ((char*) to - memory().base), WRITTEN, bytes);
}
}  // namespace

uint64_t allocate(size_t bytes, bool pinned) {
    Memory& m = memory();
    std::lock_guard guard(m.lock);
    size_t rounded = (bytes + 255) / 256 * 256, pages = (rounded + PAGE - 1) / PAGE * PAGE;
    if (m.top + pages + 2 * PAGE > REGION) return 0;
    char* at = m.base + m.top + PAGE;
    m.top += pages + PAGE;
    if (pages >= POISON_FILE / 4 && !pinned) {
        for (size_t i = 0; i < pages; i += POISON_FILE)
            mmap(at + i, std::min(POISON_FILE, pages - i), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, m.poison, 0);
    } else {
        mprotect(at, pages, PROT_READ | PROT_WRITE);
        memset(at, 0xff, pages);
    }
    uint64_t start = (uint64_t) at + pages - rounded;
    m.all[start] = {bytes, pinned, false, (uint64_t) at, pages};
    if (!pinned) m.inUse += bytes;
    return start;
}

bool release(uint64_t address, bool pinned) {
    Memory& m = memory();
    std::lock_guard guard(m.lock);
    auto i = m.all.find(address);
    if (i == m.all.end() || i->second.freed || i->second.pinned != pinned) return false;
    auto& a = i->second;
    auto* guardBytes = (unsigned char*) address + a.bytes;
    for (; (uint64_t) guardBytes < a.pages + a.pageBytes; guardBytes++)
        if (*guardBytes != 0xff) violation("a block of %zu bytes was written past its end (byte %zu)", a.bytes, (size_t) guardBytes - address);
    for (guardBytes = (unsigned char*) a.pages; (uint64_t) guardBytes < address; guardBytes++)
        if (*guardBytes != 0xff) violation("a block of %zu bytes was written before its beginning", a.bytes);
    a.freed = true;
    mmap((void*) a.pages, a.pageBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    madvise(m.state + ((char*) a.pages - m.base), a.pageBytes, MADV_DONTNEED);
    if (!pinned) m.inUse -= a.bytes;
    return true;
}

bool rangeOf(uint64_t address, uint64_t& start, size_t& bytes) {
    Memory& m = memory();
    std::lock_guard guard(m.lock);
    auto i = m.before(address);
    if (i == m.all.end() || i->second.freed || address >= i->first + i->second.bytes) return false;
    start = i->first;
    bytes = i->second.bytes;
    return true;
}

static bool is(uint64_t address, bool pinned) {
    Memory& m = memory();
    std::lock_guard guard(m.lock);
    auto i = m.before(address);
    return i != m.all.end() && i->second.pinned == pinned && address < i->first + i->second.bytes;
}
bool isDevice(uint64_t address) { return is(address, false); }
bool isPinned(uint64_t address) { return is(address, true); }
size_t memoryInUse() { return memory().inUse; }

void suspectGlobal(const void* at, size_t bytes, bool write) {
    const char* what = write ? "writes" : "reads";
    if ((bytes & (bytes - 1)) == 0 && bytes <= 16 && (uintptr_t) at & (bytes - 1))
        violation("%s %zu bytes at %p, which is not aligned to them", what, bytes, at);
    if (write) slowWrite((void*) at, bytes, what); else slowRead(at, bytes, what);
}

void checkInside(const void* at, size_t bytes, const char* what) {
    if (bytes && !valid(at, bytes)) outside(at, bytes, what);
}
void checkRead(const void* from, size_t bytes, const char* what) {
    if (bytes == 0) return;
    if (inside(from)) slowRead(from, bytes, what); else outside(from, bytes, what);
}
void checkWrite(const void* to, size_t bytes, const char* what) {
    if (bytes == 0) return;
    if (inside(to)) slowWrite((void*) to, bytes, what); else outside(to, bytes, what);
}
void copyState(void* to, const void* from, size_t bytes) {
    Memory& m = memory();
    memmove(m.state + ((char*) to - m.base), m.state + ((char*) from - m.base), bytes);
}
}  // namespace emu
