// The stand-in libnvidia-ml.so.1: what a monitor says of the emulated cards. Numbers of its own, to be recognised.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {
enum { OK = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_FOUND = 6 };
bool started;
int cards() {
    const char* text = getenv("CUDA_EMULATOR_CARDS");
    return text && *text ? atoi(text) : 1;
}
}  // namespace

extern "C" {
int nvmlInit_v2() { started = true; return OK; }
// The UUIDs of the stand-in driver; a handle is the number of the card and 1.
int nvmlDeviceGetHandleByUUID(const char* uuid, void** card) {
    if (!started) return UNINITIALIZED;
    for (int c = 0; c < cards(); c++) {
        char own[41], *at = own + sprintf(own, "GPU");
        for (int i = 0; i < 16; i++)
            at += sprintf(at, "%s%02x", i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", (0xe0 + i + c) & 0xff);
        if (strcmp(own, uuid) == 0) {
            *card = (void*) (intptr_t) (c + 1);
            return OK;
        }
    }
    return NOT_FOUND;
}
int nvmlDeviceGetMemoryInfo(void* card, uint64_t* totalFreeUsed) {
    totalFreeUsed[0] = 4ull << 30;
    totalFreeUsed[2] = (uint64_t) (intptr_t) card << 20;
    totalFreeUsed[1] = totalFreeUsed[0] - totalFreeUsed[2];
    return OK;
}
int nvmlDeviceGetUtilizationRates(void*, unsigned* rates) { rates[0] = 37; rates[1] = 5; return OK; }
int nvmlDeviceGetClockInfo(void*, int type, unsigned* mhz) { *mhz = type == 1 ? 1410 : 0; return OK; }
int nvmlDeviceGetTemperature(void*, int, unsigned* celsius) { *celsius = 41; return OK; }
int nvmlDeviceGetPowerUsage(void*, unsigned*) { return NOT_SUPPORTED; }
}
