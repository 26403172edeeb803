// Runs one case on the emulated device: planted KERNELS.cu CASE 0|1. With 1 the case has its error. Exit status 0:
// nothing was found; 1: the result is wrong; 86: the emulator ended the process.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

typedef uint64_t Ptr;
extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void**, int);
int cuDevicePrimaryCtxRelease_v2(int);
int cuCtxSetCurrent(void*);
int cuMemAlloc_v2(Ptr*, size_t);
int cuMemFree_v2(Ptr);
int cuMemFreeAsync(Ptr, void*);
int cuMemHostAlloc(void**, size_t, unsigned);
int cuMemFreeHost(void*);
int cuMemcpyHtoD_v2(Ptr, const void*, size_t);
int cuMemcpyDtoHAsync_v2(void*, Ptr, size_t, void*);
int cuMemcpyDtoH_v2(void*, Ptr, size_t);
int cuStreamCreate(void**, unsigned);
int cuStreamDestroy_v2(void*);
int cuStreamSynchronize(void*);
int cuStreamWaitEvent(void*, void*, unsigned);
int cuEventCreate(void**, unsigned);
int cuEventDestroy_v2(void*);
int cuEventRecord(void*, void*);
int cuEventSynchronize(void*);
int cuStreamBeginCapture_v2(void*, int);
int cuStreamEndCapture(void*, void**);
int cuGraphInstantiateWithFlags(void**, void*, unsigned long long);
int cuGraphLaunch(void*, void*);
int cuGraphDestroy(void*);
int cuGraphExecDestroy(void*);
int cuModuleLoadData(void**, const void*);
int cuModuleGetFunction(void**, void*, const char*);
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
int nvrtcCreateProgram(void**, const char*, const char*, int, const char* const*, const char* const*);
int nvrtcCompileProgram(void*, int, const char* const*);
int nvrtcGetCUBINSize(void*, size_t*);
int nvrtcGetCUBIN(void*, char*);
int nvrtcGetProgramLogSize(void*, size_t*);
int nvrtcGetProgramLog(void*, char*);
int nvrtcDestroyProgram(void**);
}

static bool planted;
static void *module_, *stream, *context;
static std::vector<Ptr> blocks;

static void ok(int result, const char* what) {
    if (result == 0) return;
    fprintf(stderr, "%s: %d\n", what, result);
    exit(2);
}
static Ptr block(size_t floats) {
    Ptr p;
    ok(cuMemAlloc_v2(&p, floats * 4), "cuMemAlloc");
    blocks.push_back(p);
    return p;
}
static Ptr block(const std::vector<float>& values) {
    Ptr p = block(values.size());
    ok(cuMemcpyHtoD_v2(p, values.data(), values.size() * 4), "cuMemcpyHtoD");
    return p;
}
static std::vector<float> values(size_t n) {
    std::vector<float> v(n);
    for (size_t i = 0; i < n; i++) v[i] = (float) (i % 97) - 31;
    return v;
}
template<class... A> static int launch(const char* name, unsigned gx, unsigned gy, unsigned bx, unsigned by, unsigned shared, A... a) {
    void* f;
    ok(cuModuleGetFunction(&f, module_, name), name);
    void* parameters[] = {&a...};
    return cuLaunchKernel(f, gx, gy, 1, bx, by, 1, shared, stream, parameters, nullptr);
}
// What `work` puts on a stream of its own, as a graph that can be launched.
static void* capture(const std::function<void()>& work) {
    void *own = stream, *graph, *program;
    ok(cuStreamCreate(&stream, 1), "cuStreamCreate");
    ok(cuStreamBeginCapture_v2(stream, 1), "cuStreamBeginCapture");
    work();
    ok(cuStreamEndCapture(stream, &graph), "cuStreamEndCapture");
    ok(cuStreamDestroy_v2(stream), "cuStreamDestroy");
    stream = own;
    ok(cuGraphInstantiateWithFlags(&program, graph, 0), "cuGraphInstantiate");
    ok(cuGraphDestroy(graph), "cuGraphDestroy");
    return program;
}
static std::vector<float> read(Ptr p, size_t n) {
    std::vector<float> v(n);
    ok(cuStreamSynchronize(stream), "cuStreamSynchronize");
    ok(cuMemcpyDtoH_v2(v.data(), p, n * 4), "cuMemcpyDtoH");
    return v;
}
static void expect(bool right) {
    if (right) return;
    fprintf(stderr, "the result is wrong\n");
    exit(1);
}

// Six clusters of a ring.
static void ring(const char* name) {
    auto x = values(6 * 64);
    Ptr y = block(12 * 64);
    ok(launch(name, 12, 1, 96, 1, 544, y, block(x)), "launch");
    auto got = read(y, 12 * 64);
    for (int i = 0; i < 12 * 64; i++) {
        float sum = 0;
        for (int n = 0; n < 6; n++) sum += x[n * 64 + i % 64];
        expect(got[i] == sum);
    }
}

static const std::map<std::string, std::function<void()>> CASES = {
    {"copyToBlocksNotAwaited", [] { ring("copyToBlocksNotAwaited"); }},
    {"stageFilledTooEarly", [] { ring("stageFilledTooEarly"); }},
    {"arrivalBeforeTheRead", [] { ring("arrivalBeforeTheRead"); }},
    {"overwrittenBarrier", [] { ring("overwrittenBarrier"); }},
    {"clusterWithoutMeeting", [] { ring("clusterWithoutMeeting"); }},
    {"arrivalAtAnEndedBlock", [] { ring("arrivalAtAnEndedBlock"); }},
    {"halfACluster", [] {
        Ptr y = block(12 * 64);
        ok(launch("stageFilledTooEarly", planted ? 11 : 12, 1, 96, 1, 544, y, block(values(6 * 64))), "launch");
        read(y, 64);
    }},
    {"missingBarrier", [] {
        auto x = values(1024);
        Ptr y = block(4);
        ok(launch("missingBarrier", 4, 1, 256, 1, 0, y, block(x)), "launch");
        auto sums = read(y, 4);
        for (int b = 0; b < 4; b++) {
            float s = 0;
            for (int i = 0; i < 256; i++) s += x[b * 256 + i];
            expect(s == sums[b]);
        }
    }},
    {"missingWarpBarrier", [] {
        auto x = values(32);
        Ptr y = block(32);
        ok(launch("missingWarpBarrier", 1, 1, 32, 1, 0, y, block(x)), "launch");
        auto got = read(y, 32);
        for (int i = 0; i < 32; i++) expect(got[i] == x[31 - i]);
    }},
    {"offByOneInATile", [] {
        int rows = 21, columns = 35;
        auto x = values(rows * columns);
        Ptr y = block(rows * columns);
        ok(launch("offByOneInATile", 3, 2, 16, 16, 0, y, block(x), rows, columns), "launch");
        auto got = read(y, rows * columns);
        for (int r = 0; r < rows; r++) for (int c = 0; c < columns; c++) expect(got[c * rows + r] == x[r * columns + c]);
    }},
    {"uninitialisedRead", [] {
        auto x = values(100);
        Ptr y = planted ? block(100) : block(values(100));
        ok(launch("uninitialisedRead", 1, 1, 128, 1, 0, y, block(x), 100), "launch");
        expect(read(y, 100)[3] == 2 * x[3]);
    }},
    {"misalignedVector", [] {
        Ptr y = block(128);
        ok(launch("misalignedVector", 1, 1, 32, 1, 0, y, block(values(132))), "launch");
        expect(read(y, 128)[5] == -26);
    }},
    {"sharedOverrun", [] {
        Ptr y = block(64);
        ok(launch("sharedOverrun", 1, 1, 64, 1, 256, y, block(values(64))), "launch");
        expect(read(y, 64)[5] == -26);
    }},
    {"earlyReturn", [] {
        Ptr y = block(64);
        ok(launch("earlyReturn", 1, 1, 64, 1, 0, y, block(values(64))), "launch");
        expect(read(y, 64)[5] == -31);
    }},
    {"missingBarrierAfterAScalar", [] {
        Ptr y = block(64);
        ok(launch("missingBarrierAfterAScalar", 1, 1, 64, 1, 0, y, block(values(64))), "launch");
        expect(read(y, 64)[5] == -31);
    }},
    {"missingBarrierBeforeReuse", [] {
        Ptr y = block(64);
        ok(launch("missingBarrierBeforeReuse", 1, 1, 64, 1, 0, y, block(values(64))), "launch");
        expect(read(y, 64)[5] == -90);
    }},
    {"missingBarrierBeforeAnAtomic", [] {
        Ptr y = block(64);
        ok(launch("missingBarrierBeforeAnAtomic", 1, 1, 64, 1, 0, y, block(values(64))), "launch");
        expect(read(y, 64)[5] == 32);
    }},
    {"missingBarrierOfSomeWarps", [] {
        Ptr y = block(96);
        ok(launch("missingBarrierOfSomeWarps", 1, 1, 96, 1, 0, y, block(values(96))), "launch");
        expect(read(y, 96)[5] == values(96)[58] && read(y, 96)[70] == values(96)[70]);
    }},
    {"barrierOfOtherWarps", [] {
        Ptr y = block(96);
        ok(launch("barrierOfOtherWarps", 1, 1, 96, 1, 0, y, block(values(96))), "launch");
        expect(read(y, 96)[5] == values(96)[5]);
    }},
    {"copyNotAwaited", [] {
        Ptr y = block(128);
        ok(launch("copyNotAwaited", 1, 1, 32, 1, 0, y, block(values(128))), "launch");
        expect(read(y, 128)[127] == -31);
    }},
    {"productNotAwaited", [] {
        Ptr y = block(16 * 128);
        ok(launch("productNotAwaited", 16, 1, 128, 1, 0, y, block(values(2))), "launch");
        float first = values(2)[0];
        for (float found : read(y, 16 * 128)) expect(found == 64 * first * first);
    }},
    {"laneOutsideItsMask", [] {
        Ptr y = block(32);
        ok(launch("laneOutsideItsMask", 1, 1, 32, 1, 0, y, block(values(32))), "launch");
        expect(read(y, 32)[0] == -61);
    }},
    // The copy to the host is on a stream of its own, which does not wait for the kernel.
    {"missingEvent", [] {
        void *copies, *done, *host;
        ok(cuStreamCreate(&copies, 1), "cuStreamCreate");
        ok(cuEventCreate(&done, 2), "cuEventCreate");
        ok(cuMemHostAlloc(&host, 4096, 0), "cuMemHostAlloc");
        Ptr x = block(values(1024)), y = block(std::vector<float>(1024));
        ok(launch("twice", 4, 1, 256, 1, 0, y, x, 1024), "launch");
        ok(cuEventRecord(done, stream), "cuEventRecord");
        if (!planted) ok(cuStreamWaitEvent(copies, done, 0), "cuStreamWaitEvent");
        ok(cuMemcpyDtoHAsync_v2(host, y, 4096, copies), "cuMemcpyDtoHAsync");
        ok(cuStreamSynchronize(copies), "cuStreamSynchronize");
        expect(((float*) host)[0] == -62);
        ok(cuMemFreeHost(host), "cuMemFreeHost");
    }},
    // A block is freed in the order of one stream while another one still reads it.
    {"freedTooEarly", [] {
        void *copies, *done, *host;
        ok(cuStreamCreate(&copies, 1), "cuStreamCreate");
        ok(cuEventCreate(&done, 2), "cuEventCreate");
        ok(cuMemHostAlloc(&host, 4096, 0), "cuMemHostAlloc");
        Ptr y = block(values(1024));
        ok(cuMemcpyDtoHAsync_v2(host, y, 4096, copies), "cuMemcpyDtoHAsync");
        ok(cuEventRecord(done, copies), "cuEventRecord");
        if (!planted) ok(cuStreamWaitEvent(stream, done, 0), "cuStreamWaitEvent");
        ok(cuMemFreeAsync(y, stream), "cuMemFreeAsync");
        blocks.clear();
        ok(cuStreamSynchronize(stream), "cuStreamSynchronize");
        ok(cuStreamSynchronize(copies), "cuStreamSynchronize");
        ok(cuMemFreeHost(host), "cuMemFreeHost");
    }},
    {"useAfterFree", [] {
        Ptr x = block(values(1024)), y = block(1024);
        if (planted) {
            ok(cuMemFree_v2(x), "cuMemFree");
            blocks = {y};
        }
        ok(launch("twice", 4, 1, 256, 1, 0, y, x, 1024), "launch");
        expect(read(y, 1024)[0] == -62);
    }},
    {"missingFree", [] {
        block(100);
        if (planted) blocks.clear();
    }},
    {"destroyedStream", [] {
        void* other;
        ok(cuStreamCreate(&other, 1), "cuStreamCreate");
        if (planted) ok(cuStreamDestroy_v2(other), "cuStreamDestroy");
        ok(cuStreamSynchronize(other), "cuStreamSynchronize");
    }},
    {"tooManyThreads", [] {
        Ptr y = block(4096);
        ok(launch("twice", 1, 1, planted ? 1025 : 1024, 1, 0, y, block(values(1024)), 1024), "launch");
        expect(read(y, 1)[0] == -62);
    }},
    {"tooMuchSharedMemory", [] {
        Ptr y = block(4096);
        ok(launch("twice", 4, 1, 256, 1, planted ? 49153 : 49152, y, block(values(1024)), 1024), "launch");
        expect(read(y, 1)[0] == -62);
    }},
    {"sharedMemoryInAll", [] {
        Ptr y = block(1024);
        ok(launch("sharedMemoryInAll", 4, 1, 256, 1, planted ? 33 << 10 : 32 << 10, y, block(values(1024))), "launch");
        expect(read(y, 1)[0] == -31);
    }},
    // A graph that is replayed sees what its memory contains by then.
    {"memoryFreedBeforeTheReplay", [] {
        Ptr x = block(values(1024)), y = block(1024);
        void* graph = capture([=] { ok(launch("twice", 4, 1, 256, 1, 0, y, x, 1024), "launch"); });
        ok(cuGraphLaunch(graph, stream), "cuGraphLaunch");
        expect(read(y, 1024)[0] == -62);
        ok(cuMemcpyHtoD_v2(x, std::vector<float>(1024, 7).data(), 4096), "cuMemcpyHtoD");
        if (planted) {
            ok(cuMemFree_v2(x), "cuMemFree");
            blocks = {y};
        }
        ok(cuGraphLaunch(graph, stream), "cuGraphLaunch");
        expect(read(y, 1024)[0] == 14);
        ok(cuGraphExecDestroy(graph), "cuGraphExecDestroy");
    }},
    {"destroyedGraph", [] {
        Ptr x = block(values(1024)), y = block(1024);
        void* graph = capture([=] { ok(launch("twice", 4, 1, 256, 1, 0, y, x, 1024), "launch"); });
        if (planted) ok(cuGraphExecDestroy(graph), "cuGraphExecDestroy");
        ok(cuGraphLaunch(graph, stream), "cuGraphLaunch");
        expect(read(y, 1024)[0] == -62);
    }},
    // Parameters are those of the capture.
    {"parameterWithoutUpdate", [] {
        Ptr x = block(values(1024)), y = block(std::vector<float>(1024));
        int n = 512;
        auto record = [&] { return capture([&] { ok(launch("twice", 4, 1, 256, 1, 0, y, x, n), "launch"); }); };
        void* graph = record();
        n = 1024;
        if (!planted) graph = record();
        ok(cuGraphLaunch(graph, stream), "cuGraphLaunch");
        expect(read(y, 1024)[970] == -62);
    }},
    {"allocationWhileCapturing", [] {
        Ptr x = block(values(1024)), y = block(1024);
        capture([=] {
            ok(launch("twice", 4, 1, 256, 1, 0, y, x, 1024), "launch");
            if (planted) block(4);
        });
    }},
    {"eventOfACapture", [] {
        Ptr x = block(values(1024)), y = block(1024);
        void* done;
        ok(cuEventCreate(&done, 2), "cuEventCreate");
        capture([=] {
            ok(launch("twice", 4, 1, 256, 1, 0, y, x, 1024), "launch");
            ok(cuEventRecord(done, stream), "cuEventRecord");
            if (planted) ok(cuEventSynchronize(done), "cuEventSynchronize");
        });
    }},
    {"destroyedContext", [] {
        if (!planted) return;
        ok(cuDevicePrimaryCtxRelease_v2(0), "cuDevicePrimaryCtxRelease");
        block(4);
    }},
};

int main(int count, char** arguments) {
    if (count != 4) return 64;
    planted = arguments[3][0] == '1';
    auto found = CASES.find(arguments[2]);
    if (found == CASES.end()) return 64;
    std::ifstream in(arguments[1]);
    std::stringstream source;
    source << in.rdbuf();
    ok(cuInit(0), "cuInit");
    ok(cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
    ok(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    ok(cuStreamCreate(&stream, 1), "cuStreamCreate");
    void* program;
    const char* names[] = {"ptx.cuh", "wgmma.cuh", "clusters.cuh"};
    const char* text = "#error the emulated device has its own\n";
    const char* texts[] = {text, text, text};
    ok(nvrtcCreateProgram(&program, source.str().c_str(), "planted.cu", 3, texts, names), "nvrtcCreateProgram");
    const char* options[] = {"--gpu-architecture=sm_90", planted ? "-DPLANTED=1" : "-DPLANTED=0"};
    int compiled = nvrtcCompileProgram(program, 2, options);
    size_t bytes;
    if (compiled) {
        nvrtcGetProgramLogSize(program, &bytes);
        std::vector<char> log(bytes);
        nvrtcGetProgramLog(program, log.data());
        fprintf(stderr, "%s\n", log.data());
        return 2;
    }
    nvrtcGetCUBINSize(program, &bytes);
    std::vector<char> image(bytes);
    nvrtcGetCUBIN(program, image.data());
    nvrtcDestroyProgram(&program);
    ok(cuModuleLoadData(&module_, image.data()), "cuModuleLoadData");
    found->second();
    for (Ptr p : blocks) ok(cuMemFree_v2(p), "cuMemFree");
    ok(cuDevicePrimaryCtxRelease_v2(0), "cuDevicePrimaryCtxRelease");
    return 0;
}
