// Runs a launch: blocks over a few threads of the system, the threads of a block as fibers on one of them.
#include "internal.h"
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <link.h>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

extern "C" {
__thread emu::Thread* emu_thread __attribute__((tls_model("initial-exec")));
void emu_switch(void** save, void* load);
}
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

namespace emu {
thread_local Running running;

uint64_t mix(uint64_t seed, uint64_t value) {
    uint64_t z = seed * 0x9e3779b97f4a7c15ull + value + 0x632be59bd9b4e019ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

namespace {
const size_t STACK = 128 << 10;
const unsigned MAX_THREADS = 1024;

struct Copy { void* to; const void* from; unsigned bytes, valid; };

struct Product { void (*compute)(const void*); alignas(8) char data[48]; };

struct State : Thread {
    void* sp;
    bool done;
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
    std::vector<Product> openProducts;
    std::deque<std::vector<Product>> productGroups;
};

// Lanes of a warp that meet under one mask.
struct Group {
    unsigned mask, arrived, parity;
    alignas(16) char slots[2][32 * 64];
};

struct Warp {
    unsigned present, sync;
    std::vector<std::unique_ptr<Group>> groups;
    Group& of(unsigned mask) {
        for (auto& g : groups) if (g->mask == mask) return *g;
        groups.push_back(std::make_unique<Group>());
        *groups.back() = {};
        groups.back()->mask = mask;
        return *groups.back();
    }
};

// The last accesses to two bytes of shared memory. An epoch is the time between two barriers of a block; `sync`
// counts the meetings of the accessing warp.
struct Cell {
    unsigned writeEpoch, readEpoch, writeSync, readSync;
    unsigned short writer, reader;
};
const unsigned short MANY = 0xffff, WARP = 0x8000;
// The writer of atomic operations.
const unsigned short ATOMIC = 0xfffe;
const uint64_t WATCHED = 12;
const unsigned MOST_ACCESSES = 200000;
const size_t SHARED_BYTES = 256 << 10;

struct Area {
    char* base = nullptr;
    size_t bytes = 0;
    std::unique_ptr<Cell[]> cells;
};

struct Runner {
    const Launch* launch = nullptr;
    std::vector<State> states;
    std::vector<Warp> warps;
    std::vector<unsigned> order;
    std::deque<State*> ready;
    std::vector<char*> freeStacks;
    char* stacks = nullptr;
    unsigned stacksMade = 0, next = 0, left = 0, count = 0;
    unsigned arrived = 0, firstArrived = 0, exited = 0, predicates = 0, counted = 0;
    uint64_t policy = 0;
    State* current = nullptr;
    void* mainSp = nullptr;
    char* dynamicShared = nullptr;
    Area dynamic;
    Area* statics = nullptr;
    std::map<const Kernel*, Area*> areas;
    unsigned epoch = 1, blockEpoch = 1;
    unsigned accesses = 0;
    // The static shared variables that threads of the block have come to, and their bytes.
    std::vector<const void*> declared;
    unsigned declaredBytes = 0;

    Runner() : states(MAX_THREADS), warps(MAX_THREADS / 32) {
        stacks = (char*) mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        char* pages = (char*) mmap(nullptr, SHARED_BYTES + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stacks == MAP_FAILED || pages == MAP_FAILED) abort();
        dynamicShared = pages + 4096;
        mprotect(dynamicShared, SHARED_BYTES, PROT_READ | PROT_WRITE);
        dynamic.base = dynamicShared;
        dynamic.bytes = SHARED_BYTES;
        dynamic.cells.reset(new Cell[SHARED_BYTES / 2]());
    }

    char* stack() {
        if (!freeStacks.empty()) {
            char* s = freeStacks.back();
            freeStacks.pop_back();
            return s;
        }
        char* s = stacks + STACK * stacksMade++;
        mprotect(s, 4096, PROT_NONE);
        return s;
    }

    Area* staticsOf(const Kernel* k);
    void* fresh(char* stack);
    void runBlock(const Launch& l, Dim block, uint64_t number);
    State* start();
    void park();
    void release(State* s) { if (policy & 1) ready.push_back(s); else ready.push_front(s); }
    void finished(State* s);
};

__thread Runner* runner __attribute__((tls_model("initial-exec")));
// Whether the block that this thread runs is watched.
__thread bool watching __attribute__((tls_model("initial-exec")));

State& me() { return *static_cast<State*>(emu_thread); }

// A fiber: runs threads of the block from their beginning until another one must go on elsewhere.
void fiber() {
    Runner& r = *runner;
    for (;;) {
        State* s = r.start();
        r.launch->kernel->call(r.launch->parameters.data());
        r.finished(s);
        bool fresh = r.next < r.count;
        if (!r.ready.empty() && (!fresh || r.policy & 2)) break;
        if (!fresh) break;
    }
    void* unused;
    r.freeStacks.push_back((char*) __builtin_frame_address(0) - ((char*) __builtin_frame_address(0) - r.stacks) % STACK);
    if (r.left == 0) {
        emu_thread = nullptr;
        emu_switch(&unused, r.mainSp);
    }
    if (r.ready.empty()) violation("the threads that are left wait for each other: a barrier or warp operation is not reached by all");
    State* to = r.ready.front();
    r.ready.pop_front();
    emu_thread = to;
    emu_switch(&unused, to->sp);
    __builtin_unreachable();
}

void* Runner::fresh(char* stack) {
    auto** top = (void**) (stack + STACK);
    *--top = nullptr;
    *--top = (void*) fiber;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    return top;
}

State* Runner::start() {
    State& s = states[order[next++]];
    emu_thread = &s;
    return &s;
}

void Runner::park() {
    State& s = me();
    if (!ready.empty() && (next == count || policy & 2)) {
        State* to = ready.front();
        ready.pop_front();
        if (to == &s) return;
        emu_thread = to;
        emu_switch(&s.sp, to->sp);
    } else if (next < count) {
        emu_switch(&s.sp, fresh(stack()));
    } else {
        violation("threads wait for each other: a barrier or warp operation is not reached by all");
    }
}

void Runner::finished(State* s) {
    s->done = true;
    left--;
    exited++;
    if (arrived || firstArrived) violation("a thread leaves the kernel while others wait at a barrier");
    Warp& w = warps[s->warp];
    w.present &= ~(1u << s->lane);
    for (auto& g : w.groups) {
        unsigned need = g->mask & w.present;
        if (g->arrived && (g->arrived & need) == need) {
            for (unsigned i = 0; i < 32; i++) if (g->arrived >> i & 1) release(&states[s->warp * 32 + i]);
            g->arrived = 0;
            g->parity ^= 1;
            w.sync++;
        }
    }
    if (!s->open.empty() || !s->groups.empty()) violation("a thread ends with cp.async copies that nobody waited for");
    if (!s->openProducts.empty() || !s->productGroups.empty())
        violation("a thread ends with products of its warpgroup that nobody waited for");
}

// The static shared arrays of a kernel's shared object are its thread-local variables.
Area* Runner::staticsOf(const Kernel* k) {
    auto& area = areas[k];
    if (area) return area;
    struct Search { char* probe; char* base; size_t bytes; } search{k->shared(), nullptr, 0};
    dl_iterate_phdr([](dl_phdr_info* info, size_t, void* data) {
        auto* s = (Search*) data;
        for (int i = 0; i < info->dlpi_phnum; i++) {
            auto& h = info->dlpi_phdr[i];
            auto* at = (char*) info->dlpi_tls_data;
            if (h.p_type == PT_TLS && at && s->probe >= at && s->probe < at + h.p_memsz) {
                s->base = at;
                s->bytes = h.p_memsz;
            }
        }
        return 0;
    }, &search);
    for (auto& [other, known] : areas) if (known && known->base == search.base) return area = known;
    area = new Area();
    area->base = search.base;
    area->bytes = search.bytes;
    area->cells.reset(new Cell[search.bytes / 2 + 1]());
    return area;
}

void Runner::runBlock(const Launch& l, Dim block, uint64_t number) {
    launch = &l;
    count = left = l.block.x * l.block.y * l.block.z;
    next = arrived = firstArrived = exited = predicates = 0;
    policy = mix(settings().seed, l.number * 1000003 + number);
    order.resize(count);
    for (unsigned i = 0; i < count; i++) order[i] = policy & 4 ? count - 1 - i : i;
    if (policy & 8) {
        uint64_t random = policy;
        for (unsigned i = count; i > 1; i--) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            std::swap(order[i - 1], order[(random >> 33) % i]);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        State& s = states[i];
        s.index = {i % l.block.x, i / l.block.x % l.block.y, i / (l.block.x * l.block.y)};
        s.block = block;
        s.blockSize = l.block;
        s.grid = l.grid;
        s.lane = i % 32;
        s.warp = i / 32;
        s.dynamicShared = dynamicShared;
        s.done = false;
        s.open.clear();
        s.groups.clear();
    }
    for (unsigned w = 0; w * 32 < count; w++) {
        unsigned lanes = std::min(32u, count - w * 32);
        warps[w].present = lanes == 32 ? ~0u : (1u << lanes) - 1;
        for (auto& g : warps[w].groups) g->arrived = 0;
    }
    uint64_t total = (uint64_t) l.grid.x * l.grid.y * l.grid.z;
    // Accesses to shared memory are checked in all blocks of a small grid and in some of a large one, and only so
    // many of a block.
    watching = total <= 2 * WATCHED || number == 0 || number == total - 1 || (policy >> 8) % (total / WATCHED) == 0;
    accesses = 0;
    declared.clear();
    declaredBytes = 0;
    blockEpoch = ++epoch;
    statics = staticsOf(l.kernel);
    memset(statics->base, 0xff, statics->bytes);
    memset(dynamicShared, 0xff, l.shared);
    ready.clear();
    emu_switch(&mainSp, fresh(stack()));
    emu_thread = nullptr;
}

// ---- threads of the system

// Blocks of a launch are taken by the runners in a seeded order.
struct Pool {
    std::mutex lock;
    std::condition_variable wake, finished;
    const Launch* launch = nullptr;
    std::atomic<uint64_t> next{0};
    uint64_t total = 0, generation = 0;
    unsigned busy = 0;
    bool started = false;
    std::function<void()> work;
    bool working = false;

    void blocks(const Launch& l) {
        uint64_t step = 1, salt = mix(settings().seed, l.number);
        for (uint64_t candidate : {7919u, 104729u, 1299709u, 15485863u})
            if (salt & 1 && total % candidate != 0) step = candidate;
        bool down = salt & 2;
        for (uint64_t i; (i = next.fetch_add(1)) < total;) {
            uint64_t b = (down ? total - 1 - i : i) * step % total;
            Dim at{(unsigned) (b % l.grid.x), (unsigned) (b / l.grid.x % l.grid.y), (unsigned) (b / l.grid.x / l.grid.y)};
            runner->runBlock(l, at, b);
        }
    }

    static void signalStack() {
        stack_t s{};
        s.ss_size = 64 << 10;
        s.ss_sp = malloc(s.ss_size);
        sigaltstack(&s, nullptr);
    }

    void help() {
        signalStack();
        runner = new Runner();
        uint64_t seen = 0;
        std::unique_lock guard(lock);
        for (;;) {
            wake.wait(guard, [&] { return generation != seen; });
            seen = generation;
            if (launch == nullptr) continue;
            const Launch& l = *launch;
            busy++;
            guard.unlock();
            running.what = l.kernel->name;
            blocks(l);
            running.what = nullptr;
            guard.lock();
            if (--busy == 0) finished.notify_all();
        }
    }

    void serve() {
        signalStack();
        runner = new Runner();
        std::unique_lock guard(lock);
        for (;;) {
            wake.wait(guard, [&] { return working; });
            guard.unlock();
            work();
            guard.lock();
            working = false;
            finished.notify_all();
        }
    }

    void onDevice(const std::function<void()>& f) {
        std::unique_lock guard(lock);
        if (!started) {
            started = true;
            std::thread([this] { serve(); }).detach();
            for (unsigned i = 1; i < settings().threads; i++) std::thread([this] { help(); }).detach();
        }
        work = f;
        working = true;
        wake.notify_all();
        finished.wait(guard, [&] { return !working; });
    }

    void run(const Launch& l) {
        uint64_t blocksTotal = (uint64_t) l.grid.x * l.grid.y * l.grid.z;
        bool alone = blocksTotal == 1 || blocksTotal * l.block.x * l.block.y * l.block.z < 2048;
        {
            std::lock_guard guard(lock);
            total = blocksTotal;
            next = 0;
            if (!alone) {
                launch = &l;
                generation++;
                wake.notify_all();
            }
        }
        blocks(l);
        std::unique_lock guard(lock);
        launch = nullptr;
        finished.wait(guard, [&] { return busy == 0; });
    }
};
Pool& pool() {
    static Pool* p = new Pool();
    return *p;
}
}  // namespace

void run(const Launch& launch) {
    running.what = launch.kernel->name;
    pool().run(launch);
    running.what = nullptr;
}

// Shared memory: two threads may not access the same bytes between two barriers if one of them writes.
__attribute__((noinline)) static void checkCell(Runner& r, Cell& c, const void* at, bool write, bool atomic = false) {
    State& s = me();
    unsigned short t = s.warp * 32 + s.lane;
    unsigned sync = r.warps[s.warp].sync;
    auto race = [&](const char* before, unsigned short other) {
        bool isDynamic = (size_t) ((char*) at - r.dynamicShared) < SHARED_BYTES;
        std::string who = other == MANY ? "several threads" : other == ATOMIC ? "an atomic operation" : other & WARP
                ? "threads of warp " + std::to_string(other & (WARP - 1)) : "thread " + std::to_string(other);
        violation("thread %u %s byte %zu of %s shared memory, which %s %s, with no barrier between", t, write ? "writes" : "reads",
                (size_t) ((char*) at - (isDynamic ? r.dynamicShared : r.statics->base)), isDynamic ? "dynamic" : "static",
                who.c_str(), before);
    };
    if (c.writeEpoch == r.epoch && c.writer != t && !(atomic && c.writer == ATOMIC) && (c.writer / 32u != s.warp || c.writeSync == sync)) race("wrote", c.writer);
    if (write) {
        if (c.readEpoch == r.epoch && c.reader != t) {
            if (c.reader == MANY) race("read", MANY);
            unsigned warp = c.reader & WARP ? c.reader & (WARP - 1) : c.reader / 32u;
            if (warp != s.warp || c.readSync == sync) race("read", c.reader);
        }
        if (atomic && c.writeEpoch < r.blockEpoch) violation("an atomic operation on shared memory that no thread wrote");
        c.writeEpoch = r.epoch;
        c.writeSync = sync;
        c.writer = atomic ? ATOMIC : t;
        return;
    }
    if (c.writeEpoch < r.blockEpoch) violation("reads shared memory at %p that no thread of the block wrote", at);
    unsigned warp = c.reader & WARP ? c.reader & (WARP - 1) : c.reader / 32u;
    if (c.readEpoch != r.epoch || (c.reader != MANY && warp == s.warp && c.readSync != sync)) c.reader = t;
    else if (c.reader != t && c.reader != MANY) c.reader = warp == s.warp ? WARP | s.warp : MANY;
    c.readEpoch = r.epoch;
    c.readSync = sync;
}

void checkShared(const void* at, size_t bytes, bool write, bool atomic) {
    Runner* r = runner;
    if (!r || !emu_thread || !watching) return;
    Area* area = &r->dynamic;
    size_t offset = (char*) at - area->base;
    if (offset >= area->bytes) {
        area = r->statics;
        offset = (char*) at - area->base;
        if (offset >= area->bytes) return;
    } else if (offset + bytes > r->launch->shared) {
        violation("%s %zu bytes at byte %zu of %u bytes of dynamic shared memory", write ? "writes" : "reads", bytes, offset,
                r->launch->shared);
    }
    if ((bytes & (bytes - 1)) == 0 && bytes <= 16 && (uintptr_t) at & (bytes - 1))
        violation("%s %zu bytes of shared memory at %p, which is not aligned to them", write ? "writes" : "reads", bytes, at);
    if (++r->accesses > MOST_ACCESSES) watching = false;
    unsigned warp = WARP | me().warp, sync = r->warps[me().warp].sync;
    for (size_t i = offset / 2; i <= (offset + bytes - 1) / 2; i++) {
        Cell& c = area->cells[i];
        // Most reads: written before the last barrier, and read by this warp or several ones since.
        if (!write && c.readEpoch == r->epoch && c.writeEpoch != r->epoch
                && (c.reader == MANY || (c.reader == warp && c.readSync == sync))) continue;
        checkCell(*r, c, at, write, atomic);
    }
}

__attribute__((always_inline)) inline void checkAccess(const void* at, size_t bytes, bool write) {
    if (!checkGlobal(at, bytes, write) && watching) checkShared(at, bytes, write, false);
}

void onDevice(const std::function<void()>& work) { pool().onDevice(work); }

std::string whereInKernel() {
    std::string s = running.what ? running.what : "";
    if (emu_thread) {
        char text[160];
        Thread& t = *emu_thread;
        snprintf(text, sizeof text, ", block (%u,%u,%u) of (%u,%u,%u), thread (%u,%u,%u)", t.block.x, t.block.y, t.block.z,
                t.grid.x, t.grid.y, t.grid.z, t.index.x, t.index.y, t.index.z);
        s += text;
    }
    return s;
}
}  // namespace emu

using namespace emu;

static void arrive(int predicate) {
    Runner& r = *runner;
    if (r.exited) violation("a thread waits at __syncthreads after others left the kernel");
    r.predicates += predicate;
    if (++r.arrived < r.count) {
        r.park();
        return;
    }
    r.arrived = 0;
    r.epoch++;
    r.counted = r.predicates;
    r.predicates = 0;
    State& self = me();
    for (unsigned i : r.order) if (&r.states[i] != &self) r.release(&r.states[i]);
    if (r.policy & 16) {
        r.ready.push_back(&self);
        r.park();
    }
}

// A barrier of the first threads. Accesses of the others count as if they had met them there: a race between a thread
// of both is found only if no such barrier is between the accesses.
static void arriveFirst(unsigned threads) {
    Runner& r = *runner;
    State& self = me();
    if (threads % 32 || threads > r.count) violation("a barrier of %u threads of %u", threads, r.count);
    if (self.warp * 32 + self.lane >= threads) violation("a barrier of the first %u threads", threads);
    if (r.exited) violation("a thread waits at a barrier after others left the kernel");
    if (++r.firstArrived < threads) {
        r.park();
        return;
    }
    r.firstArrived = 0;
    r.epoch++;
    for (unsigned i : r.order) if (i < threads && &r.states[i] != &self) r.release(&r.states[i]);
    if (r.policy & 16) {
        r.ready.push_back(&self);
        r.park();
    }
}

extern "C" {
void emu_block_barrier() { arrive(0); }
void emu_first_barrier(int threads) { arriveFirst(threads); }
int emu_block_count(int predicate) {
    arrive(predicate != 0);
    int counted = runner->counted;
    arrive(0);
    return counted;
}

static char* meet(unsigned mask, const void* mine, unsigned size, void (*finish)(char*)) {
    Runner& r = *runner;
    State& s = me();
    Warp& w = r.warps[s.warp];
    if (!(mask >> s.lane & 1)) violation("a lane calls a warp operation whose mask %08x does not name it", mask);
    Group& g = w.of(mask);
    char* slots = g.slots[g.parity];
    if (size) memcpy(slots + s.lane * 64, mine, size);
    g.arrived |= 1u << s.lane;
    unsigned need = mask & w.present;
    if ((g.arrived & need) != need) {
        r.park();
        return slots;
    }
    unsigned waiting = g.arrived & ~(1u << s.lane);
    g.arrived = 0;
    g.parity ^= 1;
    w.sync++;
    if (finish) finish(slots);
    for (unsigned i = 0; i < 32; i++) {
        unsigned lane = r.policy & 4 ? 31 - i : i;
        if (waiting >> lane & 1) r.release(&r.states[s.warp * 32 + lane]);
    }
    if (r.policy & 16) {
        r.ready.push_back(&s);
        r.park();
    }
    return slots;
}
void emu_warp_barrier(unsigned mask) { meet(mask, nullptr, 0, nullptr); }
char* emu_exchange(unsigned mask, const void* mine, unsigned size, void (*finish)(char*)) {
    return meet(mask, mine, size, finish);
}
struct Operands { float d[4]; unsigned a[4], b[2]; };
static float half(unsigned word, int high) {
    unsigned bits = high ? word & 0xffff0000u : word << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static void multiplyFragments(char* slots) {
    float A[16][16], B[16][8], D[16][8];
    for (int lane = 0; lane < 32; lane++) {
        auto* from = (Operands*) (slots + lane * 64);
        int group = lane / 4, pair = lane % 4 * 2;
        for (int i = 0; i < 4; i++) for (int h = 0; h < 2; h++)
            A[group + i % 2 * 8][pair + i / 2 * 8 + h] = half(from->a[i], h);
        for (int i = 0; i < 2; i++) for (int h = 0; h < 2; h++) B[pair + i * 8 + h][group] = half(from->b[i], h);
        for (int i = 0; i < 4; i++) D[group + i / 2 * 8][pair + i % 2] = from->d[i];
    }
    for (int r = 0; r < 16; r++) for (int k = 0; k < 16; k++) for (int n = 0; n < 8; n++) D[r][n] += A[r][k] * B[k][n];
    for (int lane = 0; lane < 32; lane++) {
        auto* to = (Operands*) (slots + lane * 64);
        int group = lane / 4, pair = lane % 4 * 2;
        for (int i = 0; i < 4; i++) to->d[i] = D[group + i / 2 * 8][pair + i % 2];
    }
}
void emu_mma_bf16(float* d, const unsigned* a, const unsigned* b) {
    Operands mine;
    memcpy(mine.d, d, sizeof mine.d);
    memcpy(mine.a, a, sizeof mine.a);
    memcpy(mine.b, b, sizeof mine.b);
    char* slots = meet(~0u, &mine, sizeof mine, multiplyFragments);
    memcpy(d, ((Operands*) (slots + me().lane * 64))->d, sizeof mine.d);
}
void emu_shared_variable(const void* at, unsigned bytes) {
    Runner& r = *runner;
    for (const void* known : r.declared) if (known == at) return;
    r.declared.push_back(at);
    r.declaredBytes += bytes;
    if (r.declaredBytes > r.launch->mostStatic)
        violation("refused: %u bytes of shared memory that it declares and %u dynamic ones are more than %u, which a device gives"
                " %s", r.declaredBytes, r.launch->shared, r.launch->shared + r.launch->mostStatic,
                r.launch->shared + r.launch->mostStatic > 48 << 10 ? "at most" : "without being asked");
}
unsigned emu_active() { return runner->warps[me().warp].present; }

void emu_copy_async(void* to, const void* from, unsigned bytes, unsigned valid) {
    if ((uintptr_t) to % bytes || (uintptr_t) from % bytes) violation("cp.async: an address is not aligned to %u bytes", bytes);
    if (valid) checkRead(from, valid, "cp.async");
    checkAccess(to, bytes, true);
    me().open.push_back({to, from, bytes, valid});
}
void emu_copy_commit() {
    State& s = me();
    s.groups.push_back(std::move(s.open));
    s.open.clear();
}
void emu_copy_wait(unsigned newest) {
    State& s = me();
    while (s.groups.size() > newest) {
        for (auto& c : s.groups.front()) {
            checkAccess(c.to, c.bytes, true);
            memcpy(c.to, c.from, c.valid);
            memset((char*) c.to + c.valid, 0, c.bytes - c.valid);
        }
        s.groups.pop_front();
    }
}
void emu_product(void (*compute)(const void*), const void* data, unsigned bytes) {
    Product p{compute, {}};
    memcpy(p.data, data, bytes);
    if (runner->policy >> 32 & 1) me().openProducts.push_back(p);
    else compute(p.data);
}
void emu_product_commit() {
    State& s = me();
    s.productGroups.push_back(std::move(s.openProducts));
    s.openProducts.clear();
}
void emu_product_wait(unsigned newest) {
    State& s = me();
    while (s.productGroups.size() > newest) {
        auto group = std::move(s.productGroups.front());
        s.productGroups.pop_front();
        for (Product p : group) p.compute(p.data);
    }
}
#define SIZE(N)                                                                               \
    void __asan_load##N##_noabort(void* p) { checkAccess(p, N, false); }                      \
    void __asan_store##N##_noabort(void* p) { checkAccess(p, N, true); }
// What kernels compiled with -fsanitize=kernel-address call before each access.
SIZE(1) SIZE(2) SIZE(4) SIZE(8) SIZE(16)
void __asan_loadN_noabort(void* p, size_t n) { checkAccess(p, n, false); }
void __asan_storeN_noabort(void* p, size_t n) { checkAccess(p, n, true); }
void __asan_handle_no_return() {}
void* __asan_memcpy(void* to, const void* from, size_t n) {
    checkAccess(from, n, false);
    checkAccess(to, n, true);
    return memcpy(to, from, n);
}
void* __asan_memset(void* to, int v, size_t n) {
    checkAccess(to, n, true);
    return memset(to, v, n);
}

void emu_check_atomic(const void* at, unsigned bytes) {
    if (!settings().checked || checkGlobal(at, bytes, false)) return;
    checkShared(at, bytes, true, true);
}
void emu_fail(const char* what) { violation("%s", what); }
}
