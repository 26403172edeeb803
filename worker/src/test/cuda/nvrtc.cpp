// The stand-in libnvrtc.so.12: compiles a kernel's source with g++ and shim.h, and hands the shared object back as
// the device's code. Compiled code is kept under CUDA_EMULATOR_CACHE by its content.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace fs = std::filesystem;
namespace {
enum { OK = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, COMPILATION = 6 };

struct Program {
    std::string source, name, log, image;
    std::map<std::string, std::string> headers;
};

std::string home() {
    Dl_info info;
    dladdr((void*) home, &info);
    return fs::path(info.dli_fname).parent_path().string();
}
std::string read(const fs::path& p) {
    std::ifstream in(p, std::ios::binary);
    std::stringstream s;
    s << in.rdbuf();
    return s.str();
}
void write(const fs::path& p, const std::string& text) { std::ofstream(p, std::ios::binary) << text; }

uint64_t hash(const std::string& text, uint64_t h) {
    for (unsigned char c : text) h = (h ^ c) * 0x100000001b3ull;
    return h;
}

std::string kernels(const Program& p) {
    static const std::regex kernel("extern\\s+\"C\"\\s+__global__\\s+((?:__\\w+__\\s*\\([^)]*\\)\\s*)*)void\\s+"
            "((?:__\\w+__\\s*\\([^)]*\\)\\s*)*)(\\w+)\\s*\\(");
    static const std::regex cluster("__cluster_dims__\\s*\\(\\s*(\\d+)\\s*\\)");
    std::string lines;
    auto find = [&](const std::string& text) {
        for (std::sregex_iterator i(text.begin(), text.end(), kernel), end; i != end; ++i) {
            std::string words = (*i)[1].str() + (*i)[2].str();
            std::smatch size;
            bool has = std::regex_search(words, size, cluster);
            if (!has && words.find("__cluster_dims__") != std::string::npos) lines += "#error clusters of one number only\n";
            lines += "EMU_KERNEL(" + (*i)[3].str() + ", " + (has ? size[1].str() : "1") + ")\n";
        }
    };
    find(p.source);
    return lines;
}

// Shared variables become references that the compiler cannot see through, or it would leave out the checks of
// accesses whose place it knows. Their bytes are counted: a device refuses a launch that takes too many.
std::string shared(const std::string& text) {
    static const std::regex variable("__shared__\\s+((?:__align__\\s*\\([^)]*\\)\\s*)?[\\w:<>, ]+?)\\s+(\\w+)\\s*"
            "((?:\\[[^\\]]*\\]\\s*)*);");
    return std::regex_replace(text, variable, "__shared__ $1 emu_$2$3; auto& $2 = *emu::declared(&emu_$2);");
}

bool warpgroupsDiffer() {
    const char* fault = getenv("CUDA_EMULATOR_FAULT");
    return fault && strstr(fault, "warpgroups");
}

int run(const std::vector<std::string>& words, const std::string& output) {
    std::vector<char*> argv;
    for (auto& w : words) argv.push_back((char*) w.c_str());
    argv.push_back(nullptr);
    pid_t child = fork();
    if (child == 0) {
        int out = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
        dup2(out, 1);
        dup2(out, 2);
        unsetenv("LD_LIBRARY_PATH");
        unsetenv("LD_PRELOAD");
        execvp(argv[0], argv.data());
        _exit(127);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
}  // namespace

extern "C" {
const char* nvrtcGetErrorString(int e) { return e == OK ? "NVRTC_SUCCESS" : e == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_INVALID_INPUT"; }
// Another version where images are others: programs keep them by it.
int nvrtcVersion(int* major, int* minor) { *major = 12; *minor = warpgroupsDiffer() ? 7 : 6; return OK; }
int nvrtcGetNumSupportedArchs(int* n) { *n = 4; return OK; }
int nvrtcGetSupportedArchs(int* a) { a[0] = 80; a[1] = 86; a[2] = 89; a[3] = 90; return OK; }
int nvrtcCreateProgram(Program** p, const char* source, const char* name, int n, const char* const* headers, const char* const* names) {
    *p = new Program();
    (*p)->source = source;
    (*p)->name = name ? name : "default_program";
    for (int i = 0; i < n; i++) (*p)->headers[names[i]] = headers[i];
    return OK;
}
int nvrtcDestroyProgram(Program** p) { delete *p; *p = nullptr; return OK; }
int nvrtcCompileProgram(Program* p, int n, const char* const* options) {
    std::string emulator = home(), arch;
    std::vector<std::string> defines;
    for (int i = 0; i < n; i++) {
        std::string o = options[i];
        for (const char* prefix : {"--gpu-architecture=", "-arch="}) if (o.rfind(prefix, 0) == 0) arch = o.substr(strlen(prefix));
        if (o.rfind("-D", 0) == 0) defines.push_back(o);
        if (o.rfind("--define-macro=", 0) == 0) defines.push_back("-D" + o.substr(15));
    }
    if (warpgroupsDiffer()) defines.push_back("-DEMU_WARPGROUPS_DIFFER");
    if (arch.rfind("sm_", 0) != 0) {
        p->log = "the emulated NVRTC needs an option --gpu-architecture=sm_..";
        return COMPILATION;
    }
    int cc = atoi(arch.c_str() + 3);
    const char* folder = getenv("CUDA_EMULATOR_CACHE");
    fs::path cache = folder && *folder ? fs::path(folder) : fs::path(emulator) / "kernels";
    const char* checkText = getenv("CUDA_EMULATOR_CHECK");
    bool check = !(checkText && std::string(checkText) == "0");
    uint64_t a = 0xcbf29ce484222325ull, b = 7;
    std::string key = "4" + p->name + "\1" + p->source + "\1" + arch + (check ? "c" : "f");
    for (auto& d : defines) key += "\1" + d;
    for (auto& [name, text] : p->headers) key += "\1" + name + "\1" + text;
    for (const char* file : {"shim.h", "emu.h", "ptx.cuh", "wgmma.cuh", "clusters.cuh"}) key += read(fs::path(emulator) / file);
    a = hash(key, a);
    b = hash(key, b);
    char hex[40];
    snprintf(hex, sizeof hex, "%016lx%016lx", a, b);
    fs::path built = cache / (std::string(hex) + ".so");
    static std::map<std::string, std::string> failed;
    if (auto known = failed.find(hex); known != failed.end()) {
        p->log = known->second;
        return COMPILATION;
    }
    if (!fs::exists(built)) {
        fs::path work = cache / (std::string(hex) + "." + std::to_string(getpid()));
        fs::create_directories(work);
        for (auto& [name, text] : p->headers) write(work / name, shared(text));
        for (auto& [name, text] : p->headers) if (name == "ptx.cuh" || name == "wgmma.cuh" || name == "clusters.cuh") write(work / name, read(fs::path(emulator) / name));
        fs::path unit = work / (fs::path(p->name).filename().string() + ".cpp");
        write(unit, "#line 1 \"" + p->name + "\"\n" + shared(p->source) + "\n" + kernels(*p));
        std::vector<std::string> words = {"g++", "-x", "c++", "-std=c++17", "-O2", "-g1", "-fPIC", "-shared", "-ffp-contract=off",
            "-fno-strict-aliasing", "-fvisibility=hidden", "-march=native", "-mtls-dialect=gnu2", "-w", "-fno-math-errno",
            "-D__CUDA_ARCH__=" + std::to_string(cc * 10), "-D__CUDACC_RTC__", "-D__CUDACC__",
            "-I" + work.string(), "-I" + emulator, "-include", "shim.h"};
        if (check) for (const char* o : {"-fsanitize=kernel-address", "--param", "asan-instrumentation-with-call-threshold=0",
            "--param", "asan-stack=0", "--param", "asan-globals=0", "-fno-tree-vectorize", "-fno-store-merging"}) words.push_back(o);
        for (auto& d : defines) words.push_back(d);
        words.insert(words.end(), {unit.string(), "-o", (work / "out.so").string(), "-L" + emulator, "-l:libcuda.so.1"});
        int status = run(words, (work / "log").string());
        p->log = read(work / "log");
        if (status != 0) {
            if (p->log.empty()) p->log = "g++ could not be started";
            failed[hex] = p->log;
            fs::remove_all(work);
            return COMPILATION;
        }
        fs::rename(work / "out.so", built);
        fs::remove_all(work);
    }
    std::string code = read(built);
    uint64_t bytes = code.size();
    std::string head(64, '\0');
    memcpy(head.data(), "CUDAEMU1", 8);
    memcpy(head.data() + 8, &bytes, 8);
    memcpy(head.data() + 16, &cc, 4);
    p->image = head + code;
    return OK;
}
int nvrtcGetCUBINSize(Program* p, size_t* n) { *n = p->image.size(); return OK; }
int nvrtcGetCUBIN(Program* p, char* to) { memcpy(to, p->image.data(), p->image.size()); return OK; }
int nvrtcGetPTXSize(Program* p, size_t* n) { return nvrtcGetCUBINSize(p, n); }
int nvrtcGetPTX(Program* p, char* to) { return nvrtcGetCUBIN(p, to); }
int nvrtcGetProgramLogSize(Program* p, size_t* n) { *n = p->log.size() + 1; return OK; }
int nvrtcGetProgramLog(Program* p, char* to) { memcpy(to, p->log.c_str(), p->log.size() + 1); return OK; }
int nvrtcAddNameExpression(Program*, const char*) { return OK; }
int nvrtcGetLoweredName(Program*, const char* name, const char** lowered) { *lowered = name; return OK; }
}
