// Runs a launch: blocks over a few threads of the system, the threads of a block as fibers on one of them.
#include "internal.h"
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <link.h>
#include <mutex>
#include <sched.h>
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
// Of all blocks of a cluster.
const unsigned MAX_THREADS = 8192;

struct Copy { void* to; const void* from; unsigned bytes, valid; };

struct Product { void (*compute)(const void*); alignas(8) char data[48]; };

struct Block;

struct State : Thread {
    Block* own;
    void* sp;
    bool done;
    // Meetings of the cluster that it has arrived at and waited for.
    unsigned clusterArrived, clusterAwaited;
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
// The writer of atomic operations, and of bulk copies, whose order is that of their barrier.
const unsigned short ATOMIC = 0xfffe, BULK = 0xfffd;
const uint64_t WATCHED = 12;
const unsigned MOST_ACCESSES = 200000;
const size_t SHARED_BYTES = 256 << 10;

struct Area {
    char* base = nullptr;
    size_t bytes = 0;
    std::unique_ptr<Cell[]> cells;
};

// A block of the cluster that runs: its threads are states from `first` on, its warps from first / 32 on.
struct Block {
    unsigned first = 0;
    unsigned arrived = 0, firstArrived = 0, exited = 0, predicates = 0, counted = 0;
    char* dynamicShared = nullptr;
    Area dynamic;
    unsigned epoch = 1, blockEpoch = 1;
    // Threads in the order in which they begin, among themselves.
    std::vector<State*> threads;

    Block() {
        char* pages = (char*) mmap(nullptr, SHARED_BYTES + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED) abort();
        dynamicShared = pages + 4096;
        mprotect(dynamicShared, SHARED_BYTES, PROT_READ | PROT_WRITE);
        dynamic.base = dynamicShared;
        dynamic.bytes = SHARED_BYTES;
        dynamic.cells.reset(new Cell[SHARED_BYTES / 2]());
    }
};

// A barrier in shared memory that counts arrivals and the bytes of bulk copies.
struct Barrier {
    Block* owner;
    unsigned count, missing, phase, initEpoch, initMeeting;
    const State* by;
    long long bytes;
    std::vector<State*> waiting;
};

// What is in the place of a barrier.
const uint64_t BARRIER = 0xba44135fba44135f;

// A bulk copy to one block of a cluster.
struct Bulk {
    char* to;
    const char* from;
    unsigned bytes;
    void* barrier;
};

struct Runner {
    const Launch* launch = nullptr;
    std::vector<State> states;
    std::vector<Warp> warps;
    std::vector<std::unique_ptr<Block>> blocks;
    unsigned blockThreads = 0;
    // Meetings of the threads of the cluster: those that are over, and arrivals at the next one.
    unsigned meetings = 0, clusterArrived = 0;
    std::vector<State*> clusterWaiting;
    std::map<const void*, Barrier> barriers;
    std::deque<Bulk> bulk;
    std::vector<unsigned> order;
    std::deque<State*> ready;
    std::vector<char*> freeStacks;
    char* stacks = nullptr;
    unsigned stacksMade = 0, next = 0, left = 0, count = 0;
    uint64_t policy = 0;
    void* mainSp = nullptr;
    Area* statics = nullptr;
    std::map<const Kernel*, Area*> areas;
    unsigned accesses = 0;
    // The static shared variables that threads of the block have come to, and their bytes.
    std::vector<const void*> declared;
    unsigned declaredBytes = 0;

    Runner() : states(MAX_THREADS), warps(MAX_THREADS / 32) {
        stacks = (char*) mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) abort();
    }

    Warp& warpOf(const State& s) { return warps[s.own->first / 32 + s.warp]; }
    // A thread of the same block.
    State& of(const State& s, unsigned warp, unsigned lane) { return states[s.own->first + warp * 32 + lane]; }

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
    void runCluster(const Launch& l, uint64_t number);
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
    Block& b = *s->own;
    b.exited++;
    if (b.arrived || b.firstArrived) violation("a thread leaves the kernel while others wait at a barrier");
    if (s->clusterArrived != s->clusterAwaited) violation("a thread leaves the kernel and does not wait for its cluster");
    if (b.exited == blockThreads)
        for (auto& copy : bulk)
            if (barriers.at(copy.barrier).owner == &b) violation("a block ends before a bulk copy to it");
    Warp& w = warpOf(*s);
    w.present &= ~(1u << s->lane);
    for (auto& g : w.groups) {
        unsigned need = g->mask & w.present;
        if (g->arrived && (g->arrived & need) == need) {
            for (unsigned i = 0; i < 32; i++) if (g->arrived >> i & 1) release(&of(*s, s->warp, i));
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

// Runs the blocks of a cluster, usually one.
void Runner::runCluster(const Launch& l, uint64_t number) {
    launch = &l;
    unsigned size = l.kernel->cluster;
    blockThreads = l.block.x * l.block.y * l.block.z;
    count = left = blockThreads * size;
    next = 0;
    policy = mix(settings().seed, l.number * 1000003 + number);
    uint64_t total = (uint64_t) l.grid.x * l.grid.y * l.grid.z / size;
    // Accesses to shared memory are checked in all blocks of a small grid and in some of a large one, and only so
    // many of a block.
    watching = total <= 2 * WATCHED || number == 0 || number == total - 1 || (policy >> 8) % (total / WATCHED) == 0;
    accesses = 0;
    declared.clear();
    declaredBytes = 0;
    statics = staticsOf(l.kernel);
    memset(statics->base, 0xff, statics->bytes);
    meetings = clusterArrived = 0;
    clusterWaiting.clear();
    barriers.clear();
    bulk.clear();
    unsigned first = 0;
    for (unsigned rank = 0; rank < size; rank++) {
        if (blocks.size() == rank) blocks.push_back(std::make_unique<Block>());
        Block& b = *blocks[rank];
        uint64_t at = number * size + rank;
        Dim block{(unsigned) (at % l.grid.x), (unsigned) (at / l.grid.x % l.grid.y), (unsigned) (at / l.grid.x / l.grid.y)};
        b.first = first;
        first += (blockThreads + 31) / 32 * 32;
        b.arrived = b.firstArrived = b.exited = b.predicates = 0;
        b.blockEpoch = ++b.epoch;
        memset(b.dynamicShared, 0xff, l.shared);
        for (unsigned i = 0; i < blockThreads; i++) {
            State& s = states[b.first + i];
            s.own = &b;
            s.index = {i % l.block.x, i / l.block.x % l.block.y, i / (l.block.x * l.block.y)};
            s.block = block;
            s.blockSize = l.block;
            s.grid = l.grid;
            s.lane = i % 32;
            s.warp = i / 32;
            s.rank = rank;
            s.dynamicShared = b.dynamicShared;
            s.done = false;
            s.clusterArrived = s.clusterAwaited = 0;
            s.open.clear();
            s.groups.clear();
        }
        for (unsigned w = 0; w * 32 < blockThreads; w++) {
            unsigned lanes = std::min(32u, blockThreads - w * 32);
            Warp& warp = warps[b.first / 32 + w];
            warp.present = lanes == 32 ? ~0u : (1u << lanes) - 1;
            for (auto& g : warp.groups) g->arrived = 0;
        }
    }
    order.clear();
    for (unsigned rank = 0; rank < size; rank++)
        for (unsigned i = 0; i < blockThreads; i++) order.push_back(blocks[rank]->first + i);
    if (policy & 4) std::reverse(order.begin(), order.end());
    if (policy & 8) {
        uint64_t random = policy;
        for (unsigned i = count; i > 1; i--) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            std::swap(order[i - 1], order[(random >> 33) % i]);
        }
    }
    for (unsigned rank = 0; rank < size; rank++) blocks[rank]->threads.clear();
    for (unsigned i : order) states[i].own->threads.push_back(&states[i]);
    ready.clear();
    emu_switch(&mainSp, fresh(stack()));
    emu_thread = nullptr;
}

// ---- threads of the system

// Clusters of a launch, usually of one block, are taken by the runners in a seeded order.
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
            runner->runCluster(l, (down ? total - 1 - i : i) * step % total);
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
            total = blocksTotal / l.kernel->cluster;
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
    Block& b = *s.own;
    unsigned short t = s.warp * 32 + s.lane;
    unsigned sync = r.warpOf(s).sync;
    auto race = [&](const char* before, unsigned short other) {
        bool isDynamic = (size_t) ((char*) at - b.dynamicShared) < SHARED_BYTES;
        std::string who = other == MANY ? "several threads" : other == ATOMIC ? "an atomic operation" : other & WARP
                ? "threads of warp " + std::to_string(other & (WARP - 1)) : "thread " + std::to_string(other);
        violation("thread %u %s byte %zu of %s shared memory, which %s %s, with no barrier between", t, write ? "writes" : "reads",
                (size_t) ((char*) at - (isDynamic ? b.dynamicShared : r.statics->base)), isDynamic ? "dynamic" : "static",
                who.c_str(), before);
    };
    if (c.writeEpoch == b.epoch && c.writer != t && c.writer != BULK && !(atomic && c.writer == ATOMIC) && (c.writer / 32u != s.warp || c.writeSync == sync)) race("wrote", c.writer);
    if (write) {
        if (c.readEpoch == b.epoch && c.reader != t) {
            if (c.reader == MANY) race("read", MANY);
            unsigned warp = c.reader & WARP ? c.reader & (WARP - 1) : c.reader / 32u;
            if (warp != s.warp || c.readSync == sync) race("read", c.reader);
        }
        if (atomic && c.writeEpoch < b.blockEpoch) violation("an atomic operation on shared memory that no thread wrote");
        c.writeEpoch = b.epoch;
        c.writeSync = sync;
        c.writer = atomic ? ATOMIC : t;
        return;
    }
    if (c.writeEpoch < b.blockEpoch) violation("reads shared memory at %p that no thread of the block wrote", at);
    unsigned warp = c.reader & WARP ? c.reader & (WARP - 1) : c.reader / 32u;
    if (c.readEpoch != b.epoch || (c.reader != MANY && warp == s.warp && c.readSync != sync)) c.reader = t;
    else if (c.reader != t && c.reader != MANY) c.reader = warp == s.warp ? WARP | s.warp : MANY;
    c.readEpoch = b.epoch;
    c.readSync = sync;
}

void checkShared(const void* at, size_t bytes, bool write, bool atomic) {
    Runner* r = runner;
    if (!r || !emu_thread || !watching) return;
    Block& b = *me().own;
    Area* area = &b.dynamic;
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
    if (++r->accesses > MOST_ACCESSES * r->launch->kernel->cluster) watching = false;
    unsigned warp = WARP | me().warp, sync = r->warpOf(me()).sync;
    for (size_t i = offset / 2; i <= (offset + bytes - 1) / 2; i++) {
        Cell& c = area->cells[i];
        // Most reads: written before the last barrier, and read by this warp or several ones since.
        if (!write && c.readEpoch == b.epoch && c.writeEpoch != b.epoch
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

// The threads go on that were waiting, and then or before them the calling one.
static void goOn(const std::vector<State*>& waiting) {
    Runner& r = *runner;
    State& self = me();
    for (State* s : waiting) if (s != &self) r.release(s);
    if (r.policy & 16) {
        r.ready.push_back(&self);
        r.park();
    }
}

static void arrive(int predicate) {
    Runner& r = *runner;
    Block& b = *me().own;
    if (b.exited) violation("a thread waits at __syncthreads after others left the kernel");
    b.predicates += predicate;
    if (++b.arrived < r.blockThreads) {
        r.park();
        return;
    }
    b.arrived = 0;
    b.epoch++;
    b.counted = b.predicates;
    b.predicates = 0;
    goOn(b.threads);
}

// A barrier of the first threads. Accesses of the others count as if they had met them there: a race between a thread
// of both is found only if no such barrier is between the accesses.
static void arriveFirst(unsigned threads) {
    Runner& r = *runner;
    State& self = me();
    Block& b = *self.own;
    if (threads % 32 || threads > r.blockThreads) violation("a barrier of %u threads of %u", threads, r.blockThreads);
    if (self.warp * 32 + self.lane >= threads) violation("a barrier of the first %u threads", threads);
    if (b.exited) violation("a thread waits at a barrier after others left the kernel");
    if (++b.firstArrived < threads) {
        r.park();
        return;
    }
    b.firstArrived = 0;
    b.epoch++;
    std::vector<State*> waiting;
    for (State* s : b.threads) if (s->warp * 32 + s->lane < threads) waiting.push_back(s);
    goOn(waiting);
}

// ---- clusters

// A barrier of this block, or the one at the same place of another block of the cluster.
static Barrier& barrierAt(const void* at, unsigned rank, const char* what) {
    Runner& r = *runner;
    State& self = me();
    if (rank >= r.launch->kernel->cluster) violation("%s: block %u of a cluster of %u", what, rank, r.launch->kernel->cluster);
    Block& owner = *r.blocks[rank];
    const void* place = owner.dynamicShared + ((const char*) at - self.own->dynamicShared);
    auto found = r.barriers.find(place);
    if (found == r.barriers.end()) violation("%s: there is no barrier", what);
    Barrier& b = found->second;
    if (owner.exited == r.blockThreads) violation("%s: block %u of the cluster has ended", what, rank);
    if (*(const uint64_t*) place != BARRIER) violation("%s: the barrier was overwritten", what);
    bool known = b.initMeeting < r.meetings || (b.owner == self.own && (b.by == &self || b.initEpoch < owner.epoch));
    if (!known) violation("%s: whether the barrier is ready is not known: no meeting since", what);
    return b;
}

// Ends the phase of a barrier to which nothing is missing.
static void complete(Barrier& b) {
    Runner& r = *runner;
    if (b.missing > 0 || b.bytes != 0) return;
    b.phase++;
    b.missing = b.count;
    for (State* s : b.waiting) r.release(s);
    b.waiting.clear();
}

static void deliver(const Bulk& copy) {
    Runner& r = *runner;
    Barrier& b = r.barriers.at(copy.barrier);
    if (b.owner->exited == r.blockThreads) violation("a bulk copy to a block that has ended");
    memcpy(copy.to, copy.from, copy.bytes);
    size_t from = copy.to - b.owner->dynamicShared;
    for (size_t i = from / 2; watching && i < (from + copy.bytes) / 2; i++) {
        Cell& c = b.owner->dynamic.cells[i];
        c.writer = BULK;
        c.writeEpoch = b.owner->epoch;
    }
    b.bytes -= copy.bytes;
    complete(b);
}

// Makes the bulk copies that a barrier waits for.
static void deliverTo(const void* barrier) {
    Runner& r = *runner;
    std::deque<Bulk> due, rest;
    for (auto& copy : r.bulk) (copy.barrier == barrier ? due : rest).push_back(copy);
    r.bulk = std::move(rest);
    for (auto& copy : due) deliver(copy);
}

extern "C" {
void emu_block_barrier() { arrive(0); }
void emu_first_barrier(int threads) { arriveFirst(threads); }
int emu_block_count(int predicate) {
    arrive(predicate != 0);
    int counted = me().own->counted;
    arrive(0);
    return counted;
}

static char* meet(unsigned mask, const void* mine, unsigned size, void (*finish)(char*)) {
    Runner& r = *runner;
    State& s = me();
    Warp& w = r.warpOf(s);
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
        if (waiting >> lane & 1) r.release(&r.of(s, s.warp, lane));
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
    if (r.launch->kernel->cluster > 1) violation("static shared memory of a cluster, which the emulated device has not");
    for (const void* known : r.declared) if (known == at) return;
    r.declared.push_back(at);
    r.declaredBytes += bytes;
    if (r.declaredBytes > r.launch->mostStatic)
        violation("refused: %u bytes of shared memory that it declares and %u dynamic ones are more than %u, which a device gives"
                " %s", r.declaredBytes, r.launch->shared, r.launch->shared + r.launch->mostStatic,
                r.launch->shared + r.launch->mostStatic > 48 << 10 ? "at most" : "without being asked");
}
unsigned emu_active() { return runner->warpOf(me()).present; }

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
void emu_prefetch(const void* from, unsigned bytes) {
    if ((uintptr_t) from % 16 || bytes % 16) violation("a prefetch is not aligned to 16 bytes");
    checkRead(from, bytes, "a prefetch");
}
void emu_yield() {
    Runner& r = *runner;
    r.ready.push_back(&me());
    r.park();
    sched_yield();
}
void emu_cluster_arrive() {
    Runner& r = *runner;
    State& self = me();
    if (self.clusterArrived != self.clusterAwaited) violation("a thread arrives twice at a meeting of its cluster");
    self.clusterArrived++;
    if (++r.clusterArrived < r.count) return;
    r.clusterArrived = 0;
    r.meetings++;
    for (unsigned i = 0; i < r.launch->kernel->cluster; i++) r.blocks[i]->epoch++;
    for (State* s : r.clusterWaiting) r.release(s);
    r.clusterWaiting.clear();
}
void emu_cluster_wait() {
    Runner& r = *runner;
    State& self = me();
    if (self.clusterArrived == self.clusterAwaited) violation("a thread waits for a meeting of its cluster that it has not come to");
    self.clusterAwaited++;
    if (r.meetings < self.clusterAwaited) {
        r.clusterWaiting.push_back(&self);
        r.park();
    }
}
void emu_barrier_init(void* barrier, unsigned count) {
    Runner& r = *runner;
    State& self = me();
    Block& own = *self.own;
    if ((uintptr_t) barrier & 7 || (size_t) ((char*) barrier - own.dynamicShared) + 8 > r.launch->shared)
        violation("a barrier at %p", barrier);
    checkAccess(barrier, 8, true);
    *(uint64_t*) barrier = BARRIER;
    r.barriers[barrier] = {&own, count, count, 0, own.epoch, r.meetings, &self, 0, {}};
}
void emu_barrier_expect(void* barrier, unsigned bytes) {
    Barrier& b = barrierAt(barrier, me().rank, "an arrival");
    if (b.missing == 0) violation("an arrival at a barrier that misses none");
    b.missing--;
    b.bytes += bytes;
    complete(b);
}
void emu_barrier_arrive(void* barrier, unsigned rank) {
    Barrier& b = barrierAt(barrier, rank, "an arrival");
    if (b.missing == 0) violation("an arrival at a barrier that misses none");
    b.missing--;
    complete(b);
}
void emu_barrier_wait(void* barrier, unsigned parity) {
    Runner& r = *runner;
    Barrier& b = barrierAt(barrier, me().rank, "a wait");
    while ((b.phase & 1) == parity) {
        deliverTo(barrier);
        if ((b.phase & 1) != parity) break;
        b.waiting.push_back(&me());
        r.park();
    }
}
void emu_copy_bulk(void* to, const void* from, unsigned bytes, void* barrier, unsigned blocks) {
    Runner& r = *runner;
    State& self = me();
    if ((uintptr_t) to % 16 || (uintptr_t) from % 16 || bytes % 16) violation("a bulk copy is not aligned to 16 bytes");
    checkRead(from, bytes, "a bulk copy");
    size_t at = (char*) to - self.own->dynamicShared;
    if (at + bytes > r.launch->shared) violation("a bulk copy to byte %zu of %u bytes of dynamic shared memory", at, r.launch->shared);
    for (unsigned rank = 0; blocks >> rank; rank++) {
        if (!(blocks >> rank & 1)) continue;
        Barrier& b = barrierAt(barrier, rank, "a bulk copy");
        char* other = b.owner->dynamicShared;
        const void* place = other + ((char*) barrier - self.own->dynamicShared);
        Bulk copy{other + at, (const char*) from, bytes, (void*) place};
        // at once, or when something waits for it
        if (r.policy >> 33 & 1 || !b.waiting.empty()) deliver(copy);
        else r.bulk.push_back(copy);
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
