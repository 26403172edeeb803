// Draws and rankings of tokens; the definition is bios.worker.kernel.Sampling. One block of threads works on
// one draw or one row. Sums of weights of ranked tokens are integers, in units of 2⁻⁴⁶, so that their order
// does not matter.
#include "common.cuh"
#include "tiles.cuh"

constexpr int WORDS = 1024;          // logits of a block (Sampling.BLOCK)
constexpr int THREADS = 512;
constexpr int BUCKETS = 2048;        // of one step of a search by keys
constexpr float UNIT = 70368744177664.0f;   // 2^46

// A draw of a pass.
struct Draw {
    double temperature;
    double topP;
    double uniform;      // its random number
    int row;
    int topK;            // -1: all
    int copy;            // row of the scaled copy; -1: the logits themselves
    int simple;          // whether it reads one block of logits
};

// exp(z - max), 0 if it underflows.
__device__ __forceinline__ float weight(float z, float max) {
    float below = __fsub_rn(z, max);
    return below > -87.0f ? exponential(below) : 0.0f;
}

// Increases with the value; NaN counts as -infinity, -0 as 0.
__device__ __forceinline__ unsigned keyOf(float x) {
    unsigned bits = __float_as_uint(x != x ? -INFINITE : x + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float valueOf(unsigned key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// Shared by the threads of a block.
struct Search {
    u64 buckets[BUCKETS];
    u64 parts[64];
    u64 rest;
    u64 sum;
    unsigned prefix;
    int count;
    int counts[THREADS / 32];
    float floats[THREADS];
    int ints[THREADS];
    float weights[WORDS];
};

// The largest logit of a row and the lowest index of it: of a NaN only if all are NaN.
__device__ void best(Search& s, const Matrix& m, int row, int from, int n, float& most, int& index) {
    float value = NOT_A_NUMBER;
    int at = from;
    bool any = false;
    for (int i = from + threadIdx.x; i < from + n; i += THREADS) {
        float x = load(m, row, i);
        if (x == x && (!any || x > value)) {
            value = x;
            at = i;
            any = true;
        }
    }
    s.floats[threadIdx.x] = value;
    s.ints[threadIdx.x] = at;
    __syncthreads();
    for (int step = THREADS / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            float other = s.floats[threadIdx.x + step];
            int j = s.ints[threadIdx.x + step];
            float mine = s.floats[threadIdx.x];
            if (other == other && (mine != mine || other > mine
                    || other == mine && j < s.ints[threadIdx.x])) {
                s.floats[threadIdx.x] = other;
                s.ints[threadIdx.x] = j;
            }
        }
        __syncthreads();
    }
    most = s.floats[0];
    index = s.ints[0];
    __syncthreads();
}

// Tokens in the order of their rank: all whose key is above `key`, then the first `ties` with that key.
struct Kept {
    unsigned key;
    u64 ties;
};

__device__ __forceinline__ u64 units(float w) {
    return (u64) __fmul_rn(w, UNIT);
}

// The key at which the sum over a set of tokens, from the best on, reaches `target` (> 0), and what is left
// of `target` at it. Each token counts its weight, or 1 if `max` is NaN. The sum reaches `target`.
__device__ void descend(Search& s, const Matrix& m, int row, float max, const Kept& kept, u64 target,
        unsigned& key, u64& left) {
    bool counting = max != max;
    unsigned prefix = 0;
    int shift = 32;
    for (int level = 0; level < 3; level++) {
        int bits = level == 2 ? 10 : 11;
        int above = shift;
        shift -= bits;
        for (int i = threadIdx.x; i < BUCKETS; i += THREADS) s.buckets[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < m.columns; i += THREADS) {
            float x = load(m, row, i);
            unsigned k = keyOf(x);
            if (x != x || k <= kept.key || (level > 0 && k >> above != prefix)) continue;
            u64 amount = counting ? 1 : units(weight(x, max));
            if (amount > 0) atomicAdd(&s.buckets[k >> shift & ((1u << bits) - 1)], amount);
        }
        __syncthreads();
        if (threadIdx.x == 0 && kept.ties > 0 && (level == 0 || kept.key >> above == prefix))
            s.buckets[kept.key >> shift & ((1u << bits) - 1)] +=
                kept.ties * (counting ? 1 : units(weight(valueOf(kept.key), max)));
        __syncthreads();
        if (threadIdx.x < 64) {
            u64 part = 0;
            for (int i = 0; i < BUCKETS / 64; i++) part += s.buckets[threadIdx.x * (BUCKETS / 64) + i];
            s.parts[threadIdx.x] = part;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            u64 rest = target;
            int part = 63;
            while (part > 0 && s.parts[part] < rest) rest -= s.parts[part--];
            int bucket = part * (BUCKETS / 64) + BUCKETS / 64 - 1;
            while (bucket > part * (BUCKETS / 64) && s.buckets[bucket] < rest) rest -= s.buckets[bucket--];
            s.rest = rest;
            s.prefix = prefix << bits | (unsigned) bucket;
        }
        __syncthreads();
        target = s.rest;
        prefix = s.prefix;
        __syncthreads();
    }
    key = prefix;
    left = target;
}

// Σ of the weights of a set, in units.
__device__ u64 sumOf(Search& s, const Matrix& m, int row, float max, const Kept& kept) {
    if (threadIdx.x == 0) s.sum = kept.ties > 0 ? kept.ties * units(weight(valueOf(kept.key), max)) : 0;
    __syncthreads();
    u64 mine = 0;
    for (int i = threadIdx.x; i < m.columns; i += THREADS) {
        float x = load(m, row, i);
        if (x == x && keyOf(x) > kept.key) mine += units(weight(x, max));
    }
    if (mine > 0) atomicAdd(&s.sum, mine);
    __syncthreads();
    u64 sum = s.sum;
    __syncthreads();
    return sum;
}

// How many earlier threads of the block say yes, and in `all` how many do.
__device__ int earlier(Search& s, bool yes, int& all) {
    unsigned votes = __ballot_sync(0xffffffffu, yes);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) s.counts[warp] = __popc(votes);
    __syncthreads();
    int before = __popc(votes & ((1u << lane) - 1));
    all = 0;
    for (int w = 0; w < THREADS / 32; w++) {
        if (w < warp) before += s.counts[w];
        all += s.counts[w];
    }
    __syncthreads();
    return before;
}

// The token of number j among those with a key, in the order of their ids.
__device__ int tokenOf(Search& s, const Matrix& m, int row, unsigned key, u64 j) {
    if (threadIdx.x == 0) s.count = -1;
    __syncthreads();
    for (int i0 = 0; i0 < m.columns; i0 += THREADS) {
        int i = i0 + threadIdx.x, all;
        float x = i < m.columns ? load(m, row, i) : NOT_A_NUMBER;
        bool yes = x == x && keyOf(x) == key;
        int before = earlier(s, yes, all);
        if (yes && (u64) before == j) s.count = i;
        if (j < (u64) all) break;
        j -= all;
    }
    __syncthreads();
    int token = s.count;
    __syncthreads();
    return token;
}

// The sum of java.util.stream.DoubleStream: compensated (Kahan).
__device__ double compensated(const double* x, int n) {
    double sum = 0, error = 0, plain = 0;
    for (int i = 0; i < n; i++) {
        double term = __dsub_rn(x[i], error);
        double next = __dadd_rn(sum, term);
        error = __dsub_rn(__dsub_rn(next, sum), term);
        sum = next;
        plain = __dadd_rn(plain, x[i]);
    }
    double total = __dsub_rn(sum, error);
    return total != total && isinf(plain) ? plain : total;
}

// The token of a block of logits where the running sum of weights exceeds `rest`; -1 if all weights are 0.
__device__ int within(Search& s, const Matrix& m, int row, int first, float max, double rest) {
    int n = min(WORDS, m.columns - first);
    for (int i = threadIdx.x; i < n; i += THREADS) s.weights[i] = weight(load(m, row, first + i), max);
    __syncthreads();
    if (threadIdx.x == 0) {
        int last = -1;
        for (int i = 0; i < n; i++) {
            double w = s.weights[i];
            if (w == 0) continue;
            last = i;
            rest = __dsub_rn(rest, w);
            if (rest < 0) break;
        }
        s.count = last < 0 ? -1 : first + last;
    }
    __syncthreads();
    int token = s.count;
    __syncthreads();
    return token;
}

// The last block of `sums` whose predecessors add up to at most `left`, which is reduced by them.
__device__ int blockAt(const double* sums, int n, double& left) {
    int block = 0;
    while (block < n - 1 && left >= sums[block]) left = __dsub_rn(left, sums[block++]);
    return block;
}

// maxima[row, b], sums[row, b] ← the maximum of each block of logits and Σ exp(logit - maximum). Grid:
// blocks, rows; 128 threads.
extern "C" __global__ void __launch_bounds__(128) softmax_blocks(Matrix maxima, Matrix sums, Matrix logits) {
    begin();
    __shared__ float values[WORDS];
    __shared__ float tops[128];
    __shared__ double lanes[4];
    int row = blockIdx.y, first = blockIdx.x * WORDS, n = min(WORDS, logits.columns - first);
    float top = -INFINITE;
    bool bad = false;
    for (int i = threadIdx.x; i < n; i += 128) {
        float x = load(logits, row, first + i);
        values[i] = x;
        bad |= x != x;
        top = fmaxf(top, x);
    }
    tops[threadIdx.x] = bad ? NOT_A_NUMBER : top;
    __syncthreads();
    for (int step = 64; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            float a = tops[threadIdx.x], b = tops[threadIdx.x + step];
            tops[threadIdx.x] = a != a ? a : b != b ? b : fmaxf(a, b);
        }
        __syncthreads();
    }
    top = tops[0];
    for (int i = threadIdx.x; i < n; i += 128) values[i] = exponential(__fsub_rn(values[i], top));
    __syncthreads();
    if (threadIdx.x < 4) {
        double sum = 0;
        for (int i = threadIdx.x; i < n; i += 4) sum = __dadd_rn(sum, values[i]);
        lanes[threadIdx.x] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        store(maxima, row, blockIdx.x, top);
        store(sums, row, blockIdx.x,
            (float) __dadd_rn(__dadd_rn(lanes[0], lanes[1]), __dadd_rn(lanes[2], lanes[3])));
    }
}

// copies[draw.copy] ← (logits - their largest) / temperature, by the first draw of each copy. Grid: draws;
// 512 threads.
extern "C" __global__ void __launch_bounds__(512) scale_logits(Matrix copies, Matrix logits,
        const Draw* draws, int firstRow, int firstCopy) {
    begin();
    __shared__ Search s;
    Draw draw = draws[blockIdx.x];
    if (draw.copy < 0) return;
    for (int i = (int) blockIdx.x - 1; i >= 0; i--) if (draws[i].copy == draw.copy) return;
    float max;
    int index, row = draw.row - firstRow;
    best(s, logits, row, 0, logits.columns, max, index);
    for (int i = threadIdx.x; i < logits.columns; i += THREADS)
        store(copies, draw.copy - firstCopy, i,
            (float) ((double) __fsub_rn(load(logits, row, i), max) / draw.temperature));
}

// A draw from unscaled logits without top-k and top-p, or of the largest logit.
__device__ int drawSimple(Search& s, const Matrix& logits, int row, const Matrix& maxima, const Matrix& sums,
        const Draw& draw, double* shares) {
    float most, ignored;
    int block;
    best(s, maxima, row, 0, maxima.columns, most, block);
    double rest = 0;
    if (draw.temperature != 0) {
        for (int i = threadIdx.x; i < maxima.columns; i += THREADS)
            shares[i] = __dmul_rn(load(sums, row, i), weight(load(maxima, row, i), most));
        __syncthreads();
        if (threadIdx.x == 0) {
            double left = __dmul_rn(draw.uniform, compensated(shares, maxima.columns));
            int found = blockAt(shares, maxima.columns, left);
            bool rounding = shares[found] == 0;
            s.count = rounding ? block : found;
            shares[0] = rounding ? 0 : left / (double) weight(load(maxima, row, found), most);
        }
        __syncthreads();
        block = s.count;
        rest = shares[0];
        __syncthreads();
    }
    int first = block * WORDS, n = min(WORDS, logits.columns - first), token;
    if (draw.temperature != 0) {
        token = within(s, logits, row, first, load(maxima, row, block), rest);
        if (token >= 0) return token;
    }
    best(s, logits, row, first, n, ignored, token);
    return token;
}

// A draw from all tokens of a scaled row; -1 if no weight is positive.
__device__ int drawAll(Search& s, const Matrix& m, int row, float max, double uniform, double* sums) {
    int blocks = (m.columns + WORDS - 1) / WORDS;
    for (int i = threadIdx.x; i < 4 * blocks; i += THREADS) {
        int end = min(m.columns, (i / 4 + 1) * WORDS);
        double sum = 0;
        for (int j = i / 4 * WORDS + i % 4; j < end; j += 4)
            sum = __dadd_rn(sum, exponential(__fsub_rn(load(m, row, j), max)));
        sums[blocks + i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < blocks; i += THREADS) {
        const double* l = sums + blocks + 4 * i;
        sums[i] = __dadd_rn(__dadd_rn(l[0], l[1]), __dadd_rn(l[2], l[3]));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double left = __dmul_rn(uniform, compensated(sums, blocks));
        s.count = blockAt(sums, blocks, left);
        sums[blocks] = left;
    }
    __syncthreads();
    int block = s.count;
    double left = sums[blocks];
    __syncthreads();
    return within(s, m, row, block * WORDS, max, left);
}

// A draw from the tokens that top-k and top-p keep; `kept` ← Σ of their weights.
__device__ int drawRanked(Search& s, const Matrix& m, int row, float max, const Draw& draw, double& kept) {
    Kept set{0, 0};
    if (draw.topK != -1 && draw.topK < m.columns)
        descend(s, m, row, NOT_A_NUMBER, set, draw.topK, set.key, set.ties);
    u64 all = sumOf(s, m, row, max, set);
    if (draw.topP < 1) {
        u64 share = (u64) ceil(draw.topP * (double) all);
        unsigned key;
        u64 left;
        descend(s, m, row, max, set, share < 1 ? 1 : share > all ? all : share, key, left);
        u64 each = units(weight(valueOf(key), max));
        set = Kept{key, (left + each - 1) / each};
        all = sumOf(s, m, row, max, set);
    }
    kept = (double) all / (double) UNIT;
    u64 target = (u64) (draw.uniform * (double) all);
    if (target >= all) target = all - 1;
    unsigned key;
    u64 left;
    descend(s, m, row, max, set, target + 1, key, left);
    return tokenOf(s, m, row, key, (left - 1) / units(weight(valueOf(key), max)));
}

// tokens, logprobs, own ← the draws. lse and copiesLse are log Σ exp of the rows of logits and copies. Grid:
// draws; 512 threads; shared memory: five doubles for each block of logits.
extern "C" __global__ void __launch_bounds__(512) draw_tokens(Matrix tokens, Matrix logprobs, Matrix own,
        Matrix logits, Matrix lse, Matrix copies, Matrix copiesLse, Matrix maxima, Matrix sums,
        const Draw* draws, int firstRow, int firstCopy) {
    begin();
    __shared__ Search s;
    DYNAMIC_SHARED(dynamic);
    double* room = (double*) dynamic;
    Draw draw = draws[blockIdx.x];
    int row = draw.row - firstRow;
    bool copied = draw.copy >= 0;
    Matrix m = copied ? copies : logits;
    int at = copied ? draw.copy - firstCopy : row;
    float logSum = copied ? load(copiesLse, at, 0) : load(lse, at, 0);
    float ownSum = load(lse, row, 0);
    double keptSum = NOT_A_NUMBER;
    int token;
    if (draw.simple) token = drawSimple(s, logits, row, maxima, sums, draw, room);
    else {
        float max;
        int index;
        best(s, m, at, 0, m.columns, max, index);
        bool some = draw.topK != -1 && draw.topK < m.columns;
        bool finite = fabsf(ownSum) < INFINITE;
        if (!finite) token = index;
        else if (!some && draw.topP == 1) token = drawAll(s, m, at, max, draw.uniform, room);
        else {
            double kept;
            token = drawRanked(s, m, at, max, draw, kept);
            keptSum = max + log(kept);
        }
        if (token < 0) token = index;
    }
    if (threadIdx.x != 0) return;
    float logit = load(m, at, token);
    ((int*) tokens.data)[blockIdx.x * tokens.stride] = token;
    store(logprobs, blockIdx.x, 0, keptSum != keptSum ? logit - logSum : (float) (logit - keptSum));
    store(own, blockIdx.x, 0, load(logits, row, token) - ownSum);
}

// ids, logprobs ← the k best tokens of each row, k the columns of ids. `room` has `size` keys for each row, a
// power of two and at least k. Grid: rows; 512 threads.
extern "C" __global__ void __launch_bounds__(512) top_tokens(Matrix ids, Matrix logprobs, Matrix logits,
        Matrix lse, u64* room, int size) {
    begin();
    __shared__ Search s;
    int row = blockIdx.x, k = ids.columns;
    u64* keys = room + (long long) row * size;
    int valid = 0;
    for (int i0 = 0; i0 < logits.columns; i0 += THREADS) {
        int i = i0 + threadIdx.x;
        float x = i < logits.columns ? load(logits, row, i) : NOT_A_NUMBER;
        valid += __syncthreads_count(x == x);
    }
    int n = min(k, valid);
    Kept set{0, 0};
    if (n > 0 && n < valid) descend(s, logits, row, NOT_A_NUMBER, set, n, set.key, set.ties);
    for (int i = threadIdx.x; i < size; i += THREADS) keys[i] = 0;
    if (threadIdx.x == 0) s.count = 0;
    __syncthreads();
    u64 ties = 0;
    for (int i0 = 0; i0 < logits.columns && n > 0; i0 += THREADS) {
        int i = i0 + threadIdx.x, all;
        float x = i < logits.columns ? load(logits, row, i) : NOT_A_NUMBER;
        unsigned key = keyOf(x);
        bool tie = x == x && key == set.key;
        int before = earlier(s, tie, all);
        bool chosen = x == x && (key > set.key || tie && ties + before < set.ties);
        ties += all;
        if (chosen) keys[atomicAdd(&s.count, 1)] = (u64) key << 32 | (0xffffffffu - (unsigned) i);
    }
    __syncthreads();
    for (int width = 2; width <= size; width *= 2)
        for (int step = width / 2; step > 0; step /= 2) {
            for (int i = threadIdx.x; i < size; i += THREADS) {
                int j = i ^ step;
                if (j <= i) continue;
                bool descending = (i & width) == 0;
                if (descending ? keys[i] < keys[j] : keys[i] > keys[j]) {
                    u64 swap = keys[i];
                    keys[i] = keys[j];
                    keys[j] = swap;
                }
            }
            __syncthreads();
        }
    float shift = load(lse, row, 0);
    for (int i = threadIdx.x; i < k; i += THREADS) {
        int id = i < n ? (int) (0xffffffffu - (unsigned) keys[i]) : -1;
        ((int*) ids.data)[row * ids.stride + i] = id;
        store(logprobs, row, i, id < 0 ? NOT_A_NUMBER : load(logits, row, id) - shift);
    }
}
