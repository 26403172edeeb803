// What kernels compiled with checks call before each access: -fsanitize=kernel-address with calls, and these answers.
#include "internal.h"

static inline void checkLoad(const void* from, size_t bytes) { emu::checkAccess(from, bytes, false); }
static inline void checkStore(void* to, size_t bytes) { emu::checkAccess(to, bytes, true); }

#define SIZE(N)                                                                               \
    void __asan_load##N##_noabort(void* p) { checkLoad(p, N); }                               \
    void __asan_store##N##_noabort(void* p) { checkStore(p, N); }
extern "C" {
SIZE(1) SIZE(2) SIZE(4) SIZE(8) SIZE(16)
void __asan_loadN_noabort(void* p, size_t n) { checkLoad(p, n); }
void __asan_storeN_noabort(void* p, size_t n) { checkStore(p, n); }
void __asan_handle_no_return() {}
void* __asan_memcpy(void* to, const void* from, size_t n) { checkLoad(from, n); checkStore(to, n); return memcpy(to, from, n); }
void* __asan_memset(void* to, int v, size_t n) { checkStore(to, n); return memset(to, v, n); }
}
