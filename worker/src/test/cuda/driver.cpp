// The stand-in libcuda.so.1: the driver's calls. Work is only queued when it is asked for; it runs when something
// waits, stream by stream in a seeded order, so that a dependency that was not asked for gives a wrong result.
#include "internal.h"
#include <chrono>
#include <csignal>
#include <deque>
#include <dlfcn.h>
#include <fcntl.h>
#include <mutex>
#include <set>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

namespace emu {
namespace {
long number(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}
// The n of "kind@n" in CUDA_EMULATOR_FAULT ("memory@3,launch@5,lost@7,graph@1"); 0 if not asked for.
long faultAt(const char* kind) {
    const char* text = getenv("CUDA_EMULATOR_FAULT");
    const char* at = text ? strstr(text, kind) : nullptr;
    return at ? atol(at + strlen(kind)) : 0;
}
// The file of "lost@/path": the device is lost at the first call that finds this file, or the one of this name with
// a dot and the number of the card behind it. Empty if not asked for.
const std::string& lostFile() {
    static const std::string file = [] {
        const char* text = getenv("CUDA_EMULATOR_FAULT");
        const char* at = text ? strstr(text, "lost@/") : nullptr;
        return at ? std::string(at + 5, strcspn(at + 5, ",")) : std::string();
    }();
    return file;
}
}  // namespace

const Settings& settings() {
    static const Settings s{(uint64_t) number("CUDA_EMULATOR_SEED", 1), (unsigned) number("CUDA_EMULATOR_THREADS", 2),
            (size_t) number("CUDA_EMULATOR_MEMORY", 4l << 30), (int) number("CUDA_EMULATOR_CC", 80) / 10,
            (int) number("CUDA_EMULATOR_CC", 80) % 10, number("CUDA_EMULATOR_CHECK", 1) != 0,
            faultAt("memory@"), faultAt("launch@"), faultAt("lost@"),
            faultAt("graph@"), strstr(getenv("CUDA_EMULATOR_FAULT") ?: "", "clusters") != nullptr};
    return s;
}

void log(const char* format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    std::string line = std::string("CUDA emulator: ") + text + "\n";
    const char* path = getenv("CUDA_EMULATOR_LOG");
    int file = path && *path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0644) : 2;
    if (write(file, line.data(), line.size()) < 0) {}
    if (file != 2) {
        close(file);
        if (write(2, line.data(), line.size()) < 0) {}
    }
}

void violation(const char* format, ...) {
    char text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log("%s: %s", whereInKernel().c_str(), text);
    _exit(86);
}
}  // namespace emu

using namespace emu;

namespace {
enum Result { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NO_BINARY = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
    OUT_OF_RESOURCES = 701, DESTROYED = 709, LAUNCH_FAILED = 719, DEVICE_UNAVAILABLE = 46, NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_UNMATCHED = 903, CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908, ILLEGAL_ADDRESS = 700 };

struct Mark { bool done = false; double at = 0; };
using MarkPointer = std::shared_ptr<Mark>;
struct Work { const char* name; std::function<void()> run; MarkPointer wait, set; };

struct Graph { uint64_t magic = 0x67; std::vector<Work> work; bool broken = false; };

struct Stream {
    uint64_t magic = 0x57;
    bool blocking = true;
    std::deque<Work> queue;
    std::shared_ptr<Graph> capture;
};
struct Event { uint64_t magic = 0xe7; MarkPointer mark; Stream* captured = nullptr; bool timed = true; };
// What cuLaunchKernelEx is told, as the driver's header lays it out.
struct LaunchAttribute { int id; int pad; char value[64]; };
struct LaunchConfig {
    unsigned grid[3], block[3], shared;
    void* stream;
    LaunchAttribute* attributes;
    unsigned attributeCount;
};
constexpr int PROGRAMMATIC_SERIALIZATION = 6;

struct Function { uint64_t magic = 0xf7; const Kernel* kernel; std::string name; unsigned sharedLimit = 48 << 10; bool asked = false; bool* alive; };
struct Module { uint64_t magic = 0x77; void* handle; std::map<std::string, std::unique_ptr<Function>> functions; bool alive = true; };
struct Context { uint64_t magic = 0xc7; bool alive = true; int uses = 0; };

struct Device {
    std::recursive_mutex lock;
    bool initialized = false;
    Result sticky = OK;
    std::set<Stream*> streams;
    std::set<Event*> events;
    std::set<Module*> modules;
    Stream legacy;
    Context primary;
    std::set<Context*> contexts;
    uint64_t launches = 0, graphLaunches = 0, allocations = 0, random = 0, operations = 0;
    int card = 0;
    Stream* capturing = nullptr;
    // Of the capture: 0 forbids all threads what it cannot contain, 1 the capturing one, 2 none.
    int captureMode = 0;
    std::thread::id captureThread;
};
Device& device() {
    static Device* d = new Device();
    return *d;
}
thread_local std::vector<Context*> current;
thread_local const char* inCall;

struct Call {
    std::unique_lock<std::recursive_mutex> guard{device().lock};
    const char* outer;
    explicit Call(const char* name) : outer(inCall) {
        inCall = name;
        if (!running.what) running.what = name;
    }
    ~Call() { if (running.what == inCall) running.what = nullptr; inCall = outer; }
};

double now() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
uint64_t random() { return mix(settings().seed, ++device().random); }

// ---- running what is queued

bool canRun(Stream* s) { return !s->queue.empty() && (!s->queue.front().wait || s->queue.front().wait->done); }

void runOne(Stream* s) {
    Work w = std::move(s->queue.front());
    s->queue.pop_front();
    if (w.run) {
        running.what = w.name;
        w.run();
        running.what = nullptr;
    }
    if (w.set) {
        w.set->done = true;
        w.set->at = now();
    }
}

// Runs streams until `done`: those that it does not need lag behind, run first, or in between, as the seed says.
void runUntil(const std::function<bool()>& done, Stream* wanted) {
    if (done()) return;
    auto work = [&] {
        Device& d = device();
        uint64_t policy = random() % 4;
        while (!done()) {
            std::vector<Stream*> can;
            for (Stream* s : d.streams) if (canRun(s)) can.push_back(s);
            if (can.empty()) violation("waits for work that nothing in the streams will do");
            std::vector<Stream*> others;
            for (Stream* s : can) if (s != wanted) others.push_back(s);
            bool mine = others.size() < can.size();
            Stream* next = wanted;
            if (!mine || (policy == 1 && !others.empty()) || (policy == 2 && !others.empty() && random() % 2)) {
                // Of the others only what the wanted one waits for, unless the seed says that they come first.
                next = others.empty() ? can[0] : others[random() % others.size()];
            }
            runOne(next);
        }
    };
    std::string what = running.what ? running.what : "";
    onDevice([&] { work(); });
}

Stream* streamOf(void* handle) {
    if (handle == nullptr || handle == (void*) 1) return &device().legacy;
    auto* s = (Stream*) handle;
    if (!device().streams.count(s)) violation("%s: a stream that was destroyed or never created", inCall);
    return s;
}

void drain(Stream* s) { runUntil([s] { return s->queue.empty(); }, s); }

void drainBlocking() {
    std::vector<Stream*> all(device().streams.begin(), device().streams.end());
    for (Stream* s : all) if (s->blocking) drain(s);
}

void drainAll() {
    std::vector<Stream*> all(device().streams.begin(), device().streams.end());
    for (Stream* s : all) drain(s);
}

void runNow(const char* name, const std::function<void()>& f) {
    onDevice([&] {
        running.what = name;
        f();
        running.what = nullptr;
    });
}

const size_t LONGEST_QUEUE = 4096;

Result enqueue(Stream* s, Work w) {
    if (s->capture) {
        s->capture->work.push_back(std::move(w));
        return OK;
    }
    if (s == &device().legacy) {
        drainBlocking();
        runNow(w.name, [&] {
            if (w.run) w.run();
        });
        if (w.set) {
            w.set->done = true;
            w.set->at = now();
        }
        return OK;
    }
    s->queue.push_back(std::move(w));
    if (s->queue.size() > LONGEST_QUEUE) runUntil([s] { return s->queue.size() < LONGEST_QUEUE / 2; }, s);
    else if (random() % 61 == 0) {
        Stream* any = *std::next(device().streams.begin(), random() % device().streams.size());
        if (canRun(any)) runUntil([any, n = any->queue.size()] { return any->queue.size() < n; }, any);
    }
    return OK;
}

// What every call that uses a context looks at first.
Result ready() {
    Device& d = device();
    if (!d.initialized) return NOT_INITIALIZED;
    if (d.sticky) return d.sticky;
    if (current.empty() || !current.back()) return INVALID_CONTEXT;
    if (!current.back()->alive) violation("%s: the context was destroyed", inCall);
    bool now = settings().lostAt && ++d.operations == (uint64_t) settings().lostAt;
    auto exists = [](const std::string& file) { return access(file.c_str(), F_OK) == 0; };
    if (now || (!lostFile().empty() && (exists(lostFile()) || exists(lostFile() + "." + std::to_string(d.card))))) {
        log("%s: the device is lost, as asked for", inCall);
        return d.sticky = DEVICE_UNAVAILABLE;
    }
    return OK;
}
#define CALL(name)                                                                            \
    Call call(name);                                                                          \
    if (Result r = ready()) return r;

// A call that no capture contains: it ends the one that is under way, if that forbids it to this thread.
Result outsideCaptures(Stream* s = nullptr) {
    Device& d = device();
    if (!d.capturing) return OK;
    bool own = std::this_thread::get_id() == d.captureThread;
    bool forbidden = s ? s->capture != nullptr : d.captureMode == 0 || (d.captureMode == 1 && own);
    if (!forbidden) return OK;
    log("%s: refused: a stream is being captured", inCall);
    d.capturing->capture->broken = true;
    return CAPTURE_UNSUPPORTED;
}
#define OUTSIDE(stream)                                                                       \
    if (Result r = outsideCaptures(stream)) return r;

void crashed(int signal, siginfo_t* info, void* context);
struct sigaction before[2];
void crashed(int signal, siginfo_t* info, void* context) {
    if (emu_thread) violation("access to memory that is not there, at %p", info->si_addr);
    struct sigaction& old = before[signal == SIGSEGV];
    if (old.sa_flags & SA_SIGINFO) old.sa_sigaction(signal, info, context);
    else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) old.sa_handler(signal);
    else {
        sigaction(signal, &old, nullptr);
        raise(signal);
    }
}
void catchCrashes() {
    struct sigaction a{};
    a.sa_sigaction = crashed;
    a.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&a.sa_mask);
    sigaction(SIGSEGV, &a, &before[1]);
    sigaction(SIGBUS, &a, &before[0]);
}

void readDevice(void* to, uint64_t from, size_t n, const char* what) {
    checkInside((void*) from, n, what);
    memcpy(to, (void*) from, n);
    if (isPinned((uint64_t) to)) checkWrite(to, n, what);
}
void writeDevice(uint64_t to, const void* from, size_t n, const char* what) {
    checkWrite((void*) to, n, what);
    memcpy((void*) to, from, n);
}
void copyDevice(uint64_t to, uint64_t from, size_t n, const char* what) {
    checkInside((void*) from, n, what);
    checkInside((void*) to, n, what);
    memmove((void*) to, (void*) from, n);
    copyState((void*) to, (void*) from, n);
}
void hostIn(const void* at, size_t n, const char* what) {
    if (isPinned((uint64_t) at)) checkInside(at, n, what);
}

struct Memcpy2D {
    size_t srcX, srcY; int srcType; const char* srcHost; uint64_t srcDevice; void* srcArray; size_t srcPitch;
    size_t dstX, dstY; int dstType; char* dstHost; uint64_t dstDevice; void* dstArray; size_t dstPitch;
    size_t width, height;
};
Result copy2D(const Memcpy2D* p, Stream* s) {
    Memcpy2D c = *p;
    auto bad = [](int t) { return t != 1 && t != 2 && t != 4; };
    if (bad(c.srcType) || bad(c.dstType)) return NOT_SUPPORTED;
    if (c.height > 1 && (c.srcPitch < c.width || c.dstPitch < c.width)) return INVALID_VALUE;
    auto device = [](int type, uint64_t a) { return type == 2 || (type == 4 && isDevice(a)); };
    uint64_t from = c.srcType == 1 ? (uint64_t) c.srcHost : c.srcDevice, to = c.dstType == 1 ? (uint64_t) c.dstHost : c.dstDevice;
    bool fromDevice = device(c.srcType, from), toDevice = device(c.dstType, to);
    from += c.srcY * c.srcPitch + c.srcX;
    to += c.dstY * c.dstPitch + c.dstX;
    auto f = [=] {
        for (size_t i = 0; i < c.height; i++) {
            uint64_t a = from + i * c.srcPitch, b = to + i * c.dstPitch;
            if (fromDevice && toDevice) copyDevice(b, a, c.width, "cuMemcpy2D");
            else if (fromDevice) readDevice((void*) b, a, c.width, "cuMemcpy2D");
            else if (toDevice) { hostIn((void*) a, c.width, "cuMemcpy2D"); writeDevice(b, (void*) a, c.width, "cuMemcpy2D"); }
            else memcpy((void*) b, (void*) a, c.width);
        }
    };
    Result r = enqueue(s, {"cuMemcpy2D", f, nullptr, nullptr});
    if (!r && s != &::device().legacy && ((fromDevice && !toDevice && !isPinned(to)) || (toDevice && !fromDevice && !isPinned(from)))) drain(s);
    return r;
}

template<class T> void fill(uint64_t to, size_t pitch, T value, size_t width, size_t height) {
    for (size_t r = 0; r < height; r++) {
        checkWrite((void*) (to + r * pitch), width * sizeof(T), "cuMemset");
        for (size_t i = 0; i < width; i++) ((T*) (to + r * pitch))[i] = value;
    }
}
template<class T> Result memset2D(uint64_t to, size_t pitch, T value, size_t width, size_t height, Stream* s) {
    if (to % sizeof(T)) return INVALID_VALUE;
    return enqueue(s, {"cuMemset", [=] { fill<T>(to, pitch, value, width, height); }, nullptr, nullptr});
}

// Most shared memory of a block, for a kernel that asks for it.
unsigned mostShared() { return settings().major >= 9 ? 227 << 10 : 163 << 10; }

Result launch(Function* f, Dim grid, Dim block, unsigned shared, Stream* stream, void** params, void** extra) {
    Device& d = device();
    if (f == nullptr || f->magic != 0xf7 || !*f->alive) violation("%s: a function whose module is not loaded", inCall);
    const Kernel* k = f->kernel;
    auto refuse = [&](Result r, const char* why) {
        log("%s: refused: %s (grid %u,%u,%u, block %u,%u,%u, shared %u)", k->name, why, grid.x, grid.y, grid.z,
                block.x, block.y, block.z, shared);
        return r;
    };
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z) return refuse(INVALID_VALUE, "an empty grid or block");
    if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return refuse(INVALID_VALUE, "the grid is too large");
    if (block.x > 1024 || block.y > 1024 || block.z > 64 || (uint64_t) block.x * block.y * block.z > 1024)
        return refuse(INVALID_VALUE, "the block is too large");
    if (k->cluster > 1 && settings().major < 9) return refuse(NOT_SUPPORTED, "clusters");
    if (k->cluster > 8) return refuse(INVALID_VALUE, "more than 8 blocks of a cluster");
    if (grid.x % k->cluster) return refuse(INVALID_VALUE, "the grid is no multiple of the kernel's cluster");
    if (shared > f->sharedLimit) return refuse(INVALID_VALUE, "more dynamic shared memory than was set for the kernel");
    // Without being asked, a device gives 48 KiB to a block, what the kernel declares itself included.
    Launch l{k, grid, block, shared, (f->asked ? mostShared() : 48 << 10) - shared, std::vector<char>(k->bytes), 0, nullptr};
    if (extra) {
        const char* buffer = nullptr;
        size_t bytes = 0;
        for (void** e = extra; *e; e += 2) {
            if (*e == (void*) 1) buffer = (const char*) e[1];
            else if (*e == (void*) 2) bytes = *(size_t*) e[1];
            else return refuse(INVALID_VALUE, "an unknown extra parameter");
        }
        size_t padded = (k->bytes + 7) / 8 * 8;
        if (!buffer || (bytes != k->bytes && bytes != padded)) {
            log("%s: takes %u bytes of parameters, given %zu", k->name, k->bytes, bytes);
            return INVALID_VALUE;
        }
        memcpy(l.parameters.data(), buffer, k->bytes);
    } else {
        if (!params && k->count) return refuse(INVALID_VALUE, "no parameters");
        for (unsigned i = 0; i < k->count; i++) memcpy(l.parameters.data() + k->offsets[i], params[i], k->sizes[i]);
    }
    l.number = ++d.launches;
    if (settings().launchFailureAt && l.number == (uint64_t) settings().launchFailureAt) {
        log("%s: the launch fails, as asked for", k->name);
        return d.sticky = LAUNCH_FAILED;
    }
    if (k->cluster > 1 && settings().clustersFail) {
        log("%s: the launch of a cluster fails, as asked for", k->name);
        return d.sticky = LAUNCH_FAILED;
    }
    bool* alive = f->alive;
    auto shared_ = std::make_shared<Launch>(std::move(l));
    return enqueue(stream, {k->name, [shared_, alive] {
        if (!*alive) violation("its module was unloaded before it ran");
        run(*shared_);
    }, nullptr, nullptr});
}

// From the n-th launch on, as asked for, a graph forgets the last of its work.
Result launchGraph(const Graph& g, Stream* s) {
    bool faulty = settings().graphFaultAt && ++device().graphLaunches >= (uint64_t) settings().graphFaultAt;
    for (const Work& w : g.work) if (faulty && &w == &g.work.back()) log("%s: left out of a graph, as asked for", w.name);
    else if (Result r = enqueue(s, {w.name, w.run, nullptr, nullptr})) return r;
    return OK;
}
}  // namespace

typedef uint64_t Ptr;
extern "C" {
// ---- device

int cuInit(unsigned) {
    Call call("cuInit");
    if (getenv("CUDA_EMULATOR_NO_DEVICE")) return NO_DEVICE;
    if (!device().initialized) catchCrashes();
    device().initialized = true;
    return OK;
}
int cuDriverGetVersion(int* v) { *v = 12060; return OK; }
// All cards share what is one device here: a process uses one of them.
static int cards() { return (int) number("CUDA_EMULATOR_CARDS", 1); }
int cuDeviceGetCount(int* n) { *n = cards(); return device().initialized ? OK : NOT_INITIALIZED; }
int cuDeviceGet(int* d, int ordinal) { if (!device().initialized) return NOT_INITIALIZED; if (ordinal < 0 || ordinal >= cards()) return INVALID_DEVICE; *d = ordinal; return OK; }
int cuDeviceGetName(char* name, int n, int) { snprintf(name, n, "Emulated CUDA device"); return OK; }
int cuDeviceGetUuid(char* u, int d) { for (int i = 0; i < 16; i++) u[i] = (char) (0xe0 + i + d); return OK; }
int cuDeviceGetUuid_v2(char* u, int d) { return cuDeviceGetUuid(u, d); }
int cuDeviceTotalMem_v2(size_t* n, int) { *n = settings().memory; return OK; }
int cuDeviceComputeCapability(int* a, int* b, int) { *a = settings().major; *b = settings().minor; return OK; }
int cuDeviceGetPCIBusId(char* t, int n, int) { snprintf(t, n, "0000:e0:00.0"); return OK; }
int cuDeviceGetAttribute(int* v, int what, int) {
    switch (what) {
        case 1: case 2: case 3: *v = 1024; break;
        case 4: *v = 64; break;
        case 5: *v = 0x7fffffff; break;
        case 6: case 7: *v = 65535; break;
        case 8: *v = 48 << 10; break;
        case 9: *v = 64 << 10; break;
        case 10: *v = 32; break;
        case 12: case 82: *v = 65536; break;
        case 13: *v = 1400000; break;
        case 16: *v = 4; break;
        case 31: case 41: case 78: case 90: case 19: case 99: case 115: *v = 1; break;
        case 33: *v = 0xe0; break;
        case 36: *v = 1000000; break;
        case 37: *v = 128; break;
        case 38: *v = 4 << 20; break;
        case 39: *v = 2048; break;
        case 40: *v = 2; break;
        case 75: *v = settings().major; break;
        case 76: *v = settings().minor; break;
        case 81: *v = settings().major >= 9 ? 228 << 10 : 164 << 10; break;
        case 97: *v = settings().major >= 9 ? 227 << 10 : 163 << 10; break;
        case 106: *v = 32; break;
        case 111: *v = 1024; break;
        default: *v = 0;
    }
    return OK;
}
int cuGetErrorName(int e, const char** t) {
    switch (e) {
        case 0: *t = "CUDA_SUCCESS"; break;
        case 1: *t = "CUDA_ERROR_INVALID_VALUE"; break;
        case 2: *t = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case 46: *t = "CUDA_ERROR_DEVICE_UNAVAILABLE"; break;
        case 100: *t = "CUDA_ERROR_NO_DEVICE"; break;
        case 201: *t = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case 209: *t = "CUDA_ERROR_NO_BINARY_FOR_GPU"; break;
        case 500: *t = "CUDA_ERROR_NOT_FOUND"; break;
        case 600: *t = "CUDA_ERROR_NOT_READY"; break;
        case 700: *t = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
        case 719: *t = "CUDA_ERROR_LAUNCH_FAILED"; break;
        case 900: *t = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
        case 901: *t = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; break;
        case 907: *t = "CUDA_ERROR_CAPTURED_EVENT"; break;
        case 801: *t = "CUDA_ERROR_NOT_SUPPORTED"; break;
        default: *t = "CUDA_ERROR_UNKNOWN";
    }
    return OK;
}
int cuGetErrorString(int e, const char** t) { return cuGetErrorName(e, t); }

// ---- contexts

int cuDevicePrimaryCtxRetain(Context** c, int card) {
    Call call("cuDevicePrimaryCtxRetain");
    Device& d = device();
    if (!d.initialized) return NOT_INITIALIZED;
    if (d.sticky) return d.sticky;
    d.card = card;
    d.primary.alive = true;
    d.primary.uses++;
    *c = &d.primary;
    return OK;
}
static void endContext(Context* c) {
    drainAll();
    if (size_t left = memoryInUse()) violation("%zu bytes of device memory were not freed before the context's end", left);
    c->alive = false;
}
int cuDevicePrimaryCtxRelease_v2(int) {
    Call call("cuDevicePrimaryCtxRelease");
    Device& d = device();
    if (d.primary.uses == 0) return INVALID_CONTEXT;
    if (--d.primary.uses == 0) endContext(&d.primary);
    return OK;
}
int cuDevicePrimaryCtxReset_v2(int) {
    Call call("cuDevicePrimaryCtxReset");
    endContext(&device().primary);
    device().sticky = OK;
    return OK;
}
int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) { *flags = 0; *active = device().primary.uses > 0; return OK; }
int cuDevicePrimaryCtxSetFlags_v2(int, unsigned) { return OK; }
int cuCtxCreate_v2(Context** c, unsigned, int) {
    Call call("cuCtxCreate");
    if (!device().initialized) return NOT_INITIALIZED;
    if (device().sticky) return device().sticky;
    *c = new Context();
    device().contexts.insert(*c);
    current.push_back(*c);
    return OK;
}
int cuCtxDestroy_v2(Context* c) {
    Call call("cuCtxDestroy");
    if (!c || !c->alive) return INVALID_CONTEXT;
    endContext(c);
    if (!current.empty() && current.back() == c) current.pop_back();
    return OK;
}
int cuCtxSetCurrent(Context* c) {
    Call call("cuCtxSetCurrent");
    if (c && !c->alive) violation("cuCtxSetCurrent: the context was destroyed");
    if (current.empty()) current.push_back(c); else current.back() = c;
    return OK;
}
int cuCtxGetCurrent(Context** c) { *c = current.empty() ? nullptr : current.back(); return OK; }
int cuCtxPushCurrent_v2(Context* c) { current.push_back(c); return OK; }
int cuCtxPopCurrent_v2(Context** c) { if (current.empty()) return INVALID_CONTEXT; *c = current.back(); current.pop_back(); return OK; }
int cuCtxGetDevice(int* d) { *d = device().card; return OK; }
int cuCtxSynchronize() { CALL("cuCtxSynchronize") OUTSIDE(nullptr) drainAll(); return OK; }
int cuCtxGetStreamPriorityRange(int* low, int* high) { *low = 0; *high = -2; return OK; }
int cuCtxSetLimit(int, size_t) { return OK; }
int cuCtxSetCacheConfig(int) { return OK; }

// ---- memory

static int alloc(Ptr* p, size_t n) {
    Device& d = device();
    if (n == 0) return INVALID_VALUE;
    if (settings().outOfMemoryAt && ++d.allocations == (uint64_t) settings().outOfMemoryAt) {
        log("%s: out of memory, as asked for", inCall);
        return OUT_OF_MEMORY;
    }
    if (memoryInUse() + n > settings().memory) return OUT_OF_MEMORY;
    *p = allocate(n, false);
    return *p ? OK : OUT_OF_MEMORY;
}
int cuMemAlloc_v2(Ptr* p, size_t n) { CALL("cuMemAlloc") OUTSIDE(nullptr) return alloc(p, n); }
int cuMemFree_v2(Ptr p) {
    CALL("cuMemFree")
    OUTSIDE(nullptr)
    if (p == 0) return OK;
    drainAll();
    if (!release(p, false)) violation("cuMemFree: not a block that is allocated");
    return OK;
}
int cuMemAllocAsync(Ptr* p, size_t n, void* s) { CALL("cuMemAllocAsync") OUTSIDE(streamOf(s)) return alloc(p, n); }
int cuMemFreeAsync(Ptr p, void* s) {
    CALL("cuMemFreeAsync")
    OUTSIDE(streamOf(s))
    return enqueue(streamOf(s), {"cuMemFreeAsync", [p] {
        if (!release(p, false)) violation("not a block that is allocated");
    }, nullptr, nullptr});
}
int cuMemGetInfo_v2(size_t* free, size_t* total) {
    CALL("cuMemGetInfo")
    *total = settings().memory;
    *free = *total - memoryInUse();
    return OK;
}
int cuMemGetAddressRange_v2(Ptr* start, size_t* n, Ptr p) {
    CALL("cuMemGetAddressRange")
    return rangeOf(p, *start, *n) ? OK : NOT_FOUND;
}
int cuMemHostAlloc(void** p, size_t n, unsigned) {
    CALL("cuMemHostAlloc")
    OUTSIDE(nullptr)
    *p = (void*) allocate(n, true);
    return *p ? OK : OUT_OF_MEMORY;
}
int cuMemAllocHost_v2(void** p, size_t n) { return cuMemHostAlloc(p, n, 0); }
int cuMemFreeHost(void* p) {
    CALL("cuMemFreeHost")
    OUTSIDE(nullptr)
    drainAll();
    if (!release((uint64_t) p, true)) violation("cuMemFreeHost: not a block that is allocated");
    return OK;
}
int cuMemHostGetDevicePointer_v2(Ptr* d, void* p, unsigned) { *d = (Ptr) p; return OK; }
int cuMemHostRegister_v2(void*, size_t, unsigned) { return OK; }
int cuMemHostUnregister(void*) { return OK; }

int cuMemcpyHtoDAsync_v2(Ptr to, const void* from, size_t n, void* stream) {
    CALL("cuMemcpyHtoDAsync")
    if (n == 0) return OK;
    Stream* s = streamOf(stream);
    if (isPinned((uint64_t) from))
        return enqueue(s, {"cuMemcpyHtoDAsync", [=] { hostIn(from, n, "the host's side"); writeDevice(to, from, n, "the device's side"); }, nullptr, nullptr});
    OUTSIDE(s)      // memory that is not pinned is copied at once
    auto copy = std::make_shared<std::vector<char>>((const char*) from, (const char*) from + n);
    return enqueue(s, {"cuMemcpyHtoDAsync", [=] { writeDevice(to, copy->data(), n, "the device's side"); }, nullptr, nullptr});
}
int cuMemcpyDtoHAsync_v2(void* to, Ptr from, size_t n, void* stream) {
    CALL("cuMemcpyDtoHAsync")
    if (n == 0) return OK;
    Stream* s = streamOf(stream);
    Result r = enqueue(s, {"cuMemcpyDtoHAsync", [=] { hostIn(to, n, "the host's side"); readDevice(to, from, n, "the device's side"); }, nullptr, nullptr});
    if (!r && !isPinned((uint64_t) to) && !s->capture) drain(s);
    return r;
}
int cuMemcpyDtoDAsync_v2(Ptr to, Ptr from, size_t n, void* stream) {
    CALL("cuMemcpyDtoDAsync")
    if (n == 0) return OK;
    return enqueue(streamOf(stream), {"cuMemcpyDtoDAsync", [=] { copyDevice(to, from, n, "device to device"); }, nullptr, nullptr});
}
int cuMemcpyHtoD_v2(Ptr to, const void* from, size_t n) { return cuMemcpyHtoDAsync_v2(to, from, n, nullptr); }
int cuMemcpyDtoH_v2(void* to, Ptr from, size_t n) { return cuMemcpyDtoHAsync_v2(to, from, n, nullptr); }
int cuMemcpyDtoD_v2(Ptr to, Ptr from, size_t n) { return cuMemcpyDtoDAsync_v2(to, from, n, nullptr); }
int cuMemcpyAsync(Ptr to, Ptr from, size_t n, void* s) {
    bool a = isDevice(from), b = isDevice(to);
    if (a && b) return cuMemcpyDtoDAsync_v2(to, from, n, s);
    if (a) return cuMemcpyDtoHAsync_v2((void*) to, from, n, s);
    if (b) return cuMemcpyHtoDAsync_v2(to, (void*) from, n, s);
    return INVALID_VALUE;
}
int cuMemcpy(Ptr to, Ptr from, size_t n) { return cuMemcpyAsync(to, from, n, nullptr); }
int cuMemcpy2DAsync_v2(const Memcpy2D* p, void* s) { CALL("cuMemcpy2DAsync") return copy2D(p, streamOf(s)); }
int cuMemcpy2D_v2(const Memcpy2D* p) { return cuMemcpy2DAsync_v2(p, nullptr); }
int cuMemcpy2DUnaligned_v2(const Memcpy2D* p) { return cuMemcpy2DAsync_v2(p, nullptr); }

int cuMemsetD8Async(Ptr to, unsigned char v, size_t n, void* s) { CALL("cuMemsetD8Async") return memset2D<unsigned char>(to, 0, v, n, 1, streamOf(s)); }
int cuMemsetD16Async(Ptr to, unsigned short v, size_t n, void* s) { CALL("cuMemsetD16Async") return memset2D<unsigned short>(to, 0, v, n, 1, streamOf(s)); }
int cuMemsetD32Async(Ptr to, unsigned v, size_t n, void* s) { CALL("cuMemsetD32Async") return memset2D<unsigned>(to, 0, v, n, 1, streamOf(s)); }
int cuMemsetD2D8Async(Ptr to, size_t p, unsigned char v, size_t w, size_t h, void* s) { CALL("cuMemsetD2D8Async") return memset2D<unsigned char>(to, p, v, w, h, streamOf(s)); }
int cuMemsetD2D16Async(Ptr to, size_t p, unsigned short v, size_t w, size_t h, void* s) { CALL("cuMemsetD2D16Async") return memset2D<unsigned short>(to, p, v, w, h, streamOf(s)); }
int cuMemsetD2D32Async(Ptr to, size_t p, unsigned v, size_t w, size_t h, void* s) { CALL("cuMemsetD2D32Async") return memset2D<unsigned>(to, p, v, w, h, streamOf(s)); }
int cuMemsetD8_v2(Ptr to, unsigned char v, size_t n) { return cuMemsetD8Async(to, v, n, nullptr); }
int cuMemsetD16_v2(Ptr to, unsigned short v, size_t n) { return cuMemsetD16Async(to, v, n, nullptr); }
int cuMemsetD32_v2(Ptr to, unsigned v, size_t n) { return cuMemsetD32Async(to, v, n, nullptr); }

// ---- streams and events

int cuStreamCreate(void** s, unsigned flags) {
    CALL("cuStreamCreate")
    auto* made = new Stream();
    made->blocking = !(flags & 1);
    device().streams.insert(made);
    *s = made;
    return OK;
}
int cuStreamCreateWithPriority(void** s, unsigned flags, int) { return cuStreamCreate(s, flags); }
int cuStreamDestroy_v2(void* stream) {
    CALL("cuStreamDestroy")
    Stream* s = streamOf(stream);
    drain(s);
    device().streams.erase(s);
    delete s;
    return OK;
}
int cuStreamSynchronize(void* stream) {
    CALL("cuStreamSynchronize")
    Stream* s = streamOf(stream);
    OUTSIDE(s)
    if (s == &device().legacy) drainBlocking(); else drain(s);
    return OK;
}
int cuStreamQuery(void* stream) {
    CALL("cuStreamQuery")
    Stream* s = streamOf(stream);
    OUTSIDE(s)
    if (s->queue.empty()) return OK;
    runUntil([s, n = s->queue.size()] { return s->queue.size() < n; }, s);
    return s->queue.empty() ? OK : NOT_READY;
}
int cuStreamGetFlags(void* stream, unsigned* f) { CALL("cuStreamGetFlags") *f = streamOf(stream)->blocking ? 0 : 1; return OK; }
int cuStreamGetPriority(void*, int* p) { *p = 0; return OK; }
int cuStreamGetCtx(void*, Context** c) { *c = current.empty() ? nullptr : current.back(); return OK; }
int cuStreamWaitEvent(void* stream, Event* e, unsigned) {
    CALL("cuStreamWaitEvent")
    if (!device().events.count(e)) violation("cuStreamWaitEvent: an event that was destroyed or never created");
    Stream* s = streamOf(stream);
    if (e->captured) {
        if (!e->captured->capture) return CAPTURE_UNSUPPORTED;
        s->capture = e->captured->capture;
        return OK;
    }
    if (!e->mark) return OK;
    if (s->capture) {
        log("cuStreamWaitEvent: refused: a stream that is captured waits for what is not");
        s->capture->broken = true;
        return CAPTURE_UNSUPPORTED;
    }
    if (s == &device().legacy) {
        runUntil([m = e->mark] { return m->done; }, nullptr);
        return OK;
    }
    return enqueue(s, {"cuStreamWaitEvent", nullptr, e->mark, nullptr});
}
int cuStreamAddCallback(void* stream, void (*f)(void*, int, void*), void* data, unsigned) {
    CALL("cuStreamAddCallback")
    return enqueue(streamOf(stream), {"cuStreamAddCallback", [=] { f(stream, 0, data); }, nullptr, nullptr});
}
int cuLaunchHostFunc(void* stream, void (*f)(void*), void* data) {
    CALL("cuLaunchHostFunc")
    return enqueue(streamOf(stream), {"cuLaunchHostFunc", [=] { f(data); }, nullptr, nullptr});
}
int cuEventCreate(Event** e, unsigned flags) {
    CALL("cuEventCreate")
    *e = new Event();
    (*e)->timed = !(flags & 2);
    device().events.insert(*e);
    return OK;
}
#define EVENT(name)                                                                           \
    CALL(name)                                                                                \
    if (!device().events.count(e)) violation(name ": an event that was destroyed or never created");
// An event of a capture never happens by itself.
#define CAPTURED(e)                                                                           \
    if (e->captured) {                                                                        \
        log("%s: refused: the event belongs to a capture", inCall);                           \
        return CAPTURED_EVENT;                                                                \
    }
int cuEventDestroy_v2(Event* e) {
    EVENT("cuEventDestroy")
    device().events.erase(e);
    delete e;
    return OK;
}
int cuEventRecord(Event* e, void* stream) {
    EVENT("cuEventRecord")
    Stream* s = streamOf(stream);
    if (s->capture) {
        e->captured = s;
        return OK;
    }
    e->captured = nullptr;
    e->mark = std::make_shared<Mark>();
    return enqueue(s, {"cuEventRecord", nullptr, nullptr, e->mark});
}
int cuEventRecordWithFlags(Event* e, void* s, unsigned) { return cuEventRecord(e, s); }
static Stream* recordedOn(const MarkPointer& m) {
    for (Stream* s : device().streams) for (auto& w : s->queue) if (w.set == m) return s;
    return nullptr;
}
int cuEventSynchronize(Event* e) {
    EVENT("cuEventSynchronize")
    CAPTURED(e)
    if (e->mark) runUntil([m = e->mark] { return m->done; }, recordedOn(e->mark));
    return OK;
}
int cuEventQuery(Event* e) {
    EVENT("cuEventQuery")
    CAPTURED(e)
    if (!e->mark || e->mark->done) return OK;
    Stream* s = recordedOn(e->mark);
    if (s && canRun(s)) runUntil([s, n = s->queue.size()] { return s->queue.size() < n; }, s);
    else if (s) runUntil([s] { return canRun(s); }, s);
    return e->mark->done ? OK : NOT_READY;
}
int cuEventElapsedTime(float* ms, Event* a, Event* b) {
    CALL("cuEventElapsedTime")
    if (!a->mark || !b->mark || !a->timed || !b->timed) return INVALID_HANDLE;
    if (!a->mark->done || !b->mark->done) return NOT_READY;
    *ms = (float) (b->mark->at - a->mark->at);
    return OK;
}

// ---- modules and launches

int cuModuleLoadData(Module** m, const char* image) {
    CALL("cuModuleLoadData")
    if (memcmp(image, "CUDAEMU1", 8) != 0) return INVALID_IMAGE;
    uint64_t bytes;
    int arch;
    memcpy(&bytes, image + 8, 8);
    memcpy(&arch, image + 16, 4);
    if (arch != settings().major * 10 + settings().minor) return NO_BINARY;
    int file = memfd_create("cuda-emulator-module", 0);
    if (file < 0 || write(file, image + 64, bytes) != (ssize_t) bytes) return OUT_OF_MEMORY;
    void* handle = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        log("cuModuleLoadData: %s", dlerror());
        return INVALID_IMAGE;
    }
    *m = new Module();
    (*m)->handle = handle;
    device().modules.insert(*m);
    return OK;
}
int cuModuleLoadDataEx(Module** m, const char* image, unsigned, int*, void**) { return cuModuleLoadData(m, image); }
int cuModuleLoadFatBinary(Module** m, const char* image) { return cuModuleLoadData(m, image); }
int cuModuleUnload(Module* m) {
    CALL("cuModuleUnload")
    if (!device().modules.count(m)) violation("cuModuleUnload: a module that is not loaded");
    m->alive = false;
    return OK;
}
int cuModuleGetFunction(Function** f, Module* m, const char* name) {
    CALL("cuModuleGetFunction")
    if (!device().modules.count(m) || !m->alive) violation("cuModuleGetFunction: a module that is not loaded");
    auto& slot = m->functions[name];
    if (!slot) {
        auto* k = (Kernel*) dlsym(m->handle, (std::string("emu_kernel_") + name).c_str());
        if (!k) {
            m->functions.erase(name);
            return NOT_FOUND;
        }
        slot = std::make_unique<Function>();
        slot->kernel = k;
        slot->name = name;
        slot->alive = &m->alive;
    }
    *f = slot.get();
    return OK;
}
int cuModuleGetGlobal_v2(Ptr*, size_t*, Module*, const char* name) {
    log("cuModuleGetGlobal: %s: not supported", name);
    return NOT_SUPPORTED;
}
int cuFuncSetAttribute(Function* f, int what, int value) {
    CALL("cuFuncSetAttribute")
    if (what != 8) return OK;
    int most = mostShared();
    if (value < 0 || value > most) {
        log("%s: refused: %d bytes of shared memory, at most %d", f->kernel->name, value, most);
        return INVALID_VALUE;
    }
    f->sharedLimit = value;
    f->asked = true;
    return OK;
}
int cuFuncGetAttribute(int* v, int what, Function* f) {
    CALL("cuFuncGetAttribute")
    switch (what) {
        case 0: *v = 1024; break;
        case 4: *v = 32; break;
        case 5: case 6: *v = settings().major * 10 + settings().minor; break;
        case 8: *v = f->sharedLimit; break;
        default: *v = 0;
    }
    return OK;
}
int cuFuncSetCacheConfig(Function*, int) { return OK; }
int cuLaunchKernel(Function* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
        unsigned shared, void* stream, void** params, void** extra) {
    CALL("cuLaunchKernel")
    return launch(f, {gx, gy, gz}, {bx, by, bz}, shared, streamOf(stream), params, extra);
}
// A launch that may begin early is executed in its turn here.
int cuLaunchKernelEx(const LaunchConfig* c, Function* f, void** params, void** extra) {
    CALL("cuLaunchKernelEx")
    for (unsigned i = 0; i < c->attributeCount; i++)
        if (c->attributes[i].id != PROGRAMMATIC_SERIALIZATION) return NOT_SUPPORTED;
    if (settings().major < 9) return NOT_SUPPORTED;
    return launch(f, {c->grid[0], c->grid[1], c->grid[2]}, {c->block[0], c->block[1], c->block[2]}, c->shared,
        streamOf(c->stream), params, extra);
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, Function*, int block, size_t shared) {
    int byThreads = 2048 / block, byShared = shared ? (int) ((settings().major >= 9 ? 228 << 10 : 164 << 10) / (shared + 1024)) : 32;
    *n = std::min(32, std::min(byThreads, byShared));
    return OK;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, Function* f, int block, size_t shared, unsigned) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(n, f, block, shared);
}

// ---- capture and graphs: a graph is its work in the order in which it was captured

int cuStreamBeginCapture_v2(void* stream, int mode) {
    CALL("cuStreamBeginCapture")
    Stream* s = streamOf(stream);
    if (s == &device().legacy || device().capturing) return CAPTURE_UNSUPPORTED;
    s->capture = std::make_shared<Graph>();
    device().capturing = s;
    device().captureMode = mode;
    device().captureThread = std::this_thread::get_id();
    return OK;
}
int cuStreamEndCapture(void* stream, Graph** g) {
    CALL("cuStreamEndCapture")
    Stream* s = streamOf(stream);
    *g = nullptr;
    if (!s->capture || device().capturing != s) return CAPTURE_UNMATCHED;
    if (device().captureMode != 2 && device().captureThread != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
    auto captured = s->capture;
    for (Stream* other : device().streams) if (other->capture == captured) other->capture = nullptr;
    for (Event* e : device().events) if (e->captured) e->captured = nullptr;
    device().capturing = nullptr;
    if (captured->broken) return CAPTURE_INVALIDATED;
    *g = new Graph(*captured);
    return OK;
}
int cuStreamIsCapturing(void* stream, int* status) { CALL("cuStreamIsCapturing") *status = streamOf(stream)->capture ? 1 : 0; return OK; }
int cuThreadExchangeStreamCaptureMode(int*) { return OK; }
int cuGraphInstantiateWithFlags(Graph** exec, Graph* g, unsigned long long) {
    CALL("cuGraphInstantiate")
    if (!g || g->magic != 0x67) violation("cuGraphInstantiate: a graph that was destroyed or never made");
    *exec = new Graph(*g);
    return OK;
}
int cuGraphLaunch(Graph* g, void* stream) {
    CALL("cuGraphLaunch")
    if (!g || g->magic != 0x67) violation("cuGraphLaunch: a graph that was destroyed or never made");
    return launchGraph(*g, streamOf(stream));
}
int cuGraphUpload(Graph*, void*) { return OK; }
int cuGraphDestroy(Graph* g) { g->magic = 0; g->work.clear(); return OK; }
int cuGraphExecDestroy(Graph* g) { g->magic = 0; g->work.clear(); return OK; }
int cuGraphGetNodes(Graph* g, void** nodes, size_t* n) {
    if (nodes) for (size_t i = 0; i < *n && i < g->work.size(); i++) nodes[i] = &g->work[i];
    *n = g->work.size();
    return OK;
}
int cuProfilerStart() { return OK; }
int cuProfilerStop() { return OK; }

// ---- for the stand-ins of other libraries

// Queues work that another library does on the device.
int emu_enqueue(void* stream, const char* name, void (*f)(void*), void (*end)(void*), void* context) {
    CALL(name)
    auto owned = std::shared_ptr<void>(context, end);
    return enqueue(streamOf(stream), {name, [=] { f(owned.get()); }, nullptr, nullptr});
}
void emu_check_read(const void* from, size_t bytes, const char* what) { checkRead(from, bytes, what); }
void emu_check_write(const void* to, size_t bytes, const char* what) { checkWrite(to, bytes, what); }
int emu_unsupported(const char* name) {
    log("%s: not supported", name);
    return NOT_SUPPORTED;
}
}
