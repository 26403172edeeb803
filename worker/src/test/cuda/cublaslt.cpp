// The stand-in libcublasLt.so.12: products computed plainly, queued on the stream. The algorithm that the heuristic
// names depends on the shape, and the order of the sums on the algorithm, so a program whose bits must not depend
// on the shape has to keep an algorithm.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

extern "C" {
int emu_enqueue(void* stream, const char* name, void (*f)(void*), void (*end)(void*), void* context);
void emu_check_read(const void* from, size_t bytes, const char* what);
void emu_check_write(const void* to, size_t bytes, const char* what);
int emu_unsupported(const char* name);
}

namespace {
enum { OK = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };

struct Description { int compute, scale, transA = 0, transB = 0, epilogue = 1, biasType = -1; int pointerMode = 0; const void* bias = nullptr; };
struct Layout { int type; uint64_t rows, columns; int64_t ld; int order = 0; int batch = 1; int64_t batchStride = 0; };
struct Preference { uint64_t workspace = 0; };
struct Algorithm { uint64_t data[8]; };
struct Heuristic { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; };

float bf16(uint16_t v) {
    uint32_t u = (uint32_t) v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
uint16_t bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000) return u >> 16 | 64;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
size_t bytesOf(int type) { return type == F32 ? 4 : type == F64 ? 8 : 2; }
double load(const void* p, int type, int64_t i) {
    return type == F32 ? ((const float*) p)[i] : type == F64 ? ((const double*) p)[i] : bf16(((const uint16_t*) p)[i]);
}
void store(void* p, int type, int64_t i, double v) {
    if (type == F32) ((float*) p)[i] = (float) v;
    else if (type == F64) ((double*) p)[i] = v;
    else ((uint16_t*) p)[i] = bf16((float) v);
}
int64_t index(const Layout& l, uint64_t r, uint64_t c) { return l.order ? (int64_t) r * l.ld + c : (int64_t) c * l.ld + r; }

struct Product {
    Description d;
    Layout a, b, c, out;
    const char *A, *B, *C;
    char* D;
    float alpha, beta;
    uint64_t chunk;
};

void check(const Layout& l, const char* p, bool write, const char* what) {
    uint64_t lines = l.order ? l.rows : l.columns, length = l.order ? l.columns : l.rows;
    for (uint64_t i = 0; i < lines; i++) {
        const char* at = p + i * l.ld * bytesOf(l.type);
        if (write) emu_check_write(at, length * bytesOf(l.type), what);
        else emu_check_read(at, length * bytesOf(l.type), what);
    }
}

void multiply(const Product& p, const char* A, const char* B, const char* C, char* D) {
    uint64_t m = p.out.rows, n = p.out.columns, k = p.d.transA ? p.a.rows : p.a.columns;
    check(p.a, A, false, "cublasLtMatmul: A");
    check(p.b, B, false, "cublasLtMatmul: B");
    if (p.beta != 0) check(p.c, C, false, "cublasLtMatmul: C");
    // as seen on an H100: a bf16 product is rounded before it is added to what its result holds
    bool inPlace = p.beta != 0 && C == D && p.out.type == BF16;
    std::vector<float> packed(m * k), column(k), sum(m), total(m), result(m * n);
    for (uint64_t i = 0; i < k; i++) for (uint64_t r = 0; r < m; r++)
        packed[i * m + r] = (float) load(A, p.a.type, p.d.transA ? index(p.a, i, r) : index(p.a, r, i));
    for (uint64_t j = 0; j < n; j++) {
        std::fill(total.begin(), total.end(), 0.f);
        for (uint64_t begin = 0; begin < k; begin += p.chunk) {
            std::fill(sum.begin(), sum.end(), 0.f);
            for (uint64_t i = begin; i < std::min(k, begin + p.chunk); i++) {
                float v = (float) load(B, p.b.type, p.d.transB ? index(p.b, j, i) : index(p.b, i, j));
                const float* row = &packed[i * m];
                for (uint64_t r = 0; r < m; r++) sum[r] += row[r] * v;
            }
            for (uint64_t r = 0; r < m; r++) total[r] += sum[r];
        }
        for (uint64_t r = 0; r < m; r++) {
            float v = p.alpha * total[r];
            if (inPlace) v = bf16(bf16(v));
            if (p.beta != 0) v += p.beta * (float) load(C, p.c.type, index(p.c, r, j));
            if (p.d.epilogue & 4) v += (float) load(p.d.bias, p.d.biasType < 0 ? p.out.type : p.d.biasType, r);
            result[j * m + r] = v;
        }
    }
    check(p.out, D, true, "cublasLtMatmul: D");
    for (uint64_t j = 0; j < n; j++) for (uint64_t r = 0; r < m; r++) store(D, p.out.type, index(p.out, r, j), result[j * m + r]);
}

void runProduct(void* context) {
    const Product& p = *(Product*) context;
    if (p.d.epilogue & 4) emu_check_read(p.d.bias, p.out.rows * bytesOf(p.d.biasType < 0 ? p.out.type : p.d.biasType), "cublasLtMatmul: bias");
    for (int i = 0; i < std::max(1, p.out.batch); i++)
        multiply(p, p.A + i * p.a.batchStride * bytesOf(p.a.type), p.B + i * p.b.batchStride * bytesOf(p.b.type),
                p.C + i * p.c.batchStride * bytesOf(p.c.type), p.D + i * p.out.batchStride * bytesOf(p.out.type));
}
bool known(int t) { return t == F32 || t == BF16 || t == F64; }
Algorithm algorithmFor(uint64_t m, uint64_t n, uint64_t k, int i) {
    Algorithm a{};
    a.data[0] = 0x616c676f;
    int which = (m / 16 * 7 + n / 8 * 3 + k / 64 + i) % 4;
    a.data[1] = which == 3 ? 1ull << 20 : 32ull << which;      // the last one adds all terms in one chain
    return a;
}
// Whether the shapes fit and the types are among those that cuBLASLt multiplies.
int refuse(const Description& d, const Layout& a, const Layout& b, const Layout& c, const Layout& out) {
    uint64_t m = d.transA ? a.columns : a.rows, k = d.transA ? a.rows : a.columns;
    uint64_t k2 = d.transB ? b.columns : b.rows, n = d.transB ? b.rows : b.columns;
    if (m != out.rows || n != out.columns || k != k2 || c.rows != out.rows || c.columns != out.columns) return INVALID_VALUE;
    for (auto* l : {&a, &b, &c, &out}) {
        if (!known(l->type)) return NOT_SUPPORTED;
        if (l->ld < (int64_t) (l->order ? l->columns : l->rows)) return INVALID_VALUE;
    }
    if (a.type != b.type || c.type != out.type) return NOT_SUPPORTED;
    if (a.type == F32 && out.type != F32) return NOT_SUPPORTED;
    if (d.scale != F32 && !(d.scale == F64 && a.type == F64)) return NOT_SUPPORTED;
    if (d.epilogue != 1 && d.epilogue != 4) return NOT_SUPPORTED;
    return OK;
}
template<class T> int get(T& to, const void* from, size_t n) {
    if (n != sizeof(T)) return INVALID_VALUE;
    memcpy(&to, from, n);
    return OK;
}
}  // namespace

extern "C" {
size_t cublasLtGetVersion() { return 120601; }
size_t cublasLtGetCudartVersion() { return 12060; }
const char* cublasLtGetStatusString(int s) { return s == 0 ? "CUBLAS_STATUS_SUCCESS" : s == 15 ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_INVALID_VALUE"; }
const char* cublasLtGetStatusName(int s) { return cublasLtGetStatusString(s); }
int cublasLtCreate(void** h) { *h = new char; return OK; }
int cublasLtDestroy(char* h) { delete h; return OK; }
int cublasLtMatmulDescCreate(Description** d, int compute, int scale) { *d = new Description{compute, scale}; return OK; }
int cublasLtMatmulDescDestroy(Description* d) { delete d; return OK; }
int cublasLtMatmulDescSetAttribute(Description* d, int what, const void* v, size_t n) {
    int ignored;
    switch (what) {
        case 0: return get(d->compute, v, n);
        case 1: return get(d->scale, v, n);
        case 2: return get(d->pointerMode, v, n) || d->pointerMode ? NOT_SUPPORTED : OK;
        case 3: return get(d->transA, v, n);
        case 4: return get(d->transB, v, n);
        case 7: return get(d->epilogue, v, n);
        case 8: return get(d->bias, v, n);
        case 15: case 6: return get(ignored, v, n);
        case 26: return get(d->biasType, v, n);
        default: emu_unsupported(("cublasLtMatmulDescSetAttribute " + std::to_string(what)).c_str()); return NOT_SUPPORTED;
    }
}
int cublasLtMatrixLayoutCreate(Layout** l, int type, uint64_t rows, uint64_t columns, int64_t ld) { *l = new Layout{type, rows, columns, ld}; return OK; }
int cublasLtMatrixLayoutDestroy(Layout* l) { delete l; return OK; }
int cublasLtMatrixLayoutSetAttribute(Layout* l, int what, const void* v, size_t n) {
    switch (what) {
        case 0: return get(l->type, v, n);
        case 1: return get(l->order, v, n);
        case 2: return get(l->rows, v, n);
        case 3: return get(l->columns, v, n);
        case 4: return get(l->ld, v, n);
        case 5: return get(l->batch, v, n);
        case 6: return get(l->batchStride, v, n);
        default: emu_unsupported(("cublasLtMatrixLayoutSetAttribute " + std::to_string(what)).c_str()); return NOT_SUPPORTED;
    }
}
int cublasLtMatmulPreferenceCreate(Preference** p) { *p = new Preference(); return OK; }
int cublasLtMatmulPreferenceDestroy(Preference* p) { delete p; return OK; }
int cublasLtMatmulPreferenceSetAttribute(Preference* p, int what, const void* v, size_t n) { return what == 1 ? get(p->workspace, v, n) : OK; }
int cublasLtMatmulAlgoGetHeuristic(void*, Description* d, Layout* a, Layout* b, Layout* c, Layout* out, Preference*, int wanted, Heuristic* results, int* found) {
    *found = 0;
    if (int r = refuse(*d, *a, *b, *c, *out)) return r;
    for (; *found < std::min(wanted, 4); ++*found) {
        Heuristic& h = results[*found];
        h = {};
        h.algorithm = algorithmFor(out->rows, out->columns, d->transA ? a->rows : a->columns, *found);
        h.waves = 1;
    }
    return OK;
}
int cublasLtMatmulAlgoGetIds(void*, int, int, int, int, int, int, int wanted, int* ids, int* found) {
    for (*found = 0; *found < std::min(wanted, 4); ++*found) ids[*found] = *found;
    return OK;
}
int cublasLtMatmulAlgoInit(void*, int, int, int, int, int, int, int id, Algorithm* a) {
    *a = algorithmFor(0, 0, 0, id);
    return OK;
}
int cublasLtMatmulAlgoCheck(void*, Description* d, Layout* a, Layout* b, Layout* c, Layout* out, Algorithm* algo, Heuristic* h) {
    if (int r = refuse(*d, *a, *b, *c, *out)) return r;
    *h = {};
    h->algorithm = *algo;
    return OK;
}
int cublasLtMatmulAlgoConfigSetAttribute(Algorithm*, int, const void*, size_t) { return OK; }
int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* a, int what, void* to, size_t n, size_t* written) {
    memset(to, 0, n);
    int id = what == 2 ? 1 : what == 3 ? 0 : (int) a->data[1];     // no sum is split
    if (n == 4) memcpy(to, &id, 4);
    if (written) *written = n;
    return OK;
}
int cublasLtMatmul(void*, Description* d, const void* alpha, const char* A, Layout* a, const char* B, Layout* b, const void* beta,
        const char* C, Layout* c, char* D, Layout* out, const Algorithm* algo, void*, size_t, void* stream) {
    if (int r = refuse(*d, *a, *b, *c, *out)) return r;
    Algorithm chosen = algo ? *algo : algorithmFor(out->rows, out->columns, d->transA ? a->rows : a->columns, 0);
    if (chosen.data[0] != 0x616c676f) return INVALID_VALUE;
    auto scalar = [&](const void* p) { return d->scale == F64 ? (float) *(const double*) p : *(const float*) p; };
    if ((uintptr_t) A % bytesOf(a->type) || (uintptr_t) B % bytesOf(b->type) || (uintptr_t) D % bytesOf(out->type)) return INVALID_VALUE;
    auto* p = new Product{*d, *a, *b, *c, *out, A, B, C, D, scalar(alpha), scalar(beta), chosen.data[1]};
    return emu_enqueue(stream, "cublasLtMatmul", runProduct, [](void* x) { delete (Product*) x; }, p) ? 14 : OK;
}
}
