/* Backward pass of softmax attention by tiles of a CPU with AMX, bfloat16, head_dim 64; built by tile_attention.py.

From P = exp(Q K^T scale - lse), which is computed again (FlashAttention-2, arXiv 2307.08691, algorithm 2):
dV = P^T dO, dS = P * (dO V^T - rowsum(O * dO)) scale, dK = dS^T Q, dQ = dS K. All of it transposed, keys by queries, so
that what belongs to a query lies in a lane: KEYS keys at a time against QUERIES queries, whose terms stay in the L2
cache. Sums and exponentials are float32; P and dS are rounded to bfloat16 for their products.

Products are 2 x 2 tiles: rows of the left factor as they lie in memory, of the right one pairs of rows side by side. */

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DIM 64
#define KEYS 128
#define QUERIES 256
#define LOG2E 1.44269504f
#define INLINE static inline __attribute__((always_inline))
typedef uint16_t number; /* bfloat16 */

/* Tile registers: 0 to 3 hold 2 x 2 sums, 4 and 5 rows of the left factor, 6 and 7 columns of the right one. */
static const struct {
    uint8_t palette, start_row, unused[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TILES = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

static const float EXP2[] = {7.80245222e-2f, 2.26067171e-1f, 6.95833527e-1f, 9.99925221e-1f}; /* of 2^x in [0, 1) */

INLINE __m512 exp2_of(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-100.0f), x);
    __m512 rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), sum = _mm512_set1_ps(EXP2[0]);
    for (int i = 1; i < 4; i++) sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(EXP2[i]));
    return _mm512_scalef_ps(sum, x);
}

INLINE __m512 widen(const number *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)), 16));
}

INLINE __m512i narrow(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

INLINE void zero(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* the sums += 32 rows of a, each 32 numbers, times 2 x 16 columns of pairs; strides in bytes */
INLINE void multiply(const number *a, int64_t a_stride, const number *b, const number *more, int64_t b_stride) {
    _tile_loadd(4, a, a_stride);
    _tile_loadd(5, (const char *)a + 16 * a_stride, a_stride);
    _tile_loadd(6, b, b_stride);
    _tile_loadd(7, more, b_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* the sums from, and to, 32 rows of 32 numbers; stride in numbers */
INLINE void take(const float *from, int64_t stride) {
    _tile_loadd(0, from, stride * 4);
    _tile_loadd(1, from + 16, stride * 4);
    _tile_loadd(2, from + 16 * stride, stride * 4);
    _tile_loadd(3, from + 16 * stride + 16, stride * 4);
}

INLINE void keep(float *to, int64_t stride) {
    _tile_stored(0, to, stride * 4);
    _tile_stored(1, to + 16, stride * 4);
    _tile_stored(2, to + 16 * stride, stride * 4);
    _tile_stored(3, to + 16 * stride + 16, stride * 4);
}

/* rows of DIM as columns: [row / 16][DIM / 2][16][2] */
static void pack_columns(const number *x, number *to, int64_t rows) {
    for (int64_t t = 0; t < rows; t += 16)
        for (int p = 0; p < DIM / 2; p++)
            for (int r = 0; r < 16; r++)
                ((uint32_t *)to)[t * DIM / 2 + p * 16 + r] = ((const uint32_t *)x)[(t + r) * DIM / 2 + p];
}

/* rows of DIM in pairs: [row / 2][DIM][2] */
static void pack_rows(const number *x, number *to, int64_t rows) {
    for (int64_t t = 0; t < rows; t += 2)
        for (int d = 0; d < DIM; d++)
            for (int i = 0; i < 2; i++) to[t * DIM + 2 * d + i] = x[(t + i) * DIM + d];
}

/* (rows, DIM) as (DIM, rows) */
static void transpose(const number *x, number *to, int64_t rows) {
    for (int64_t t = 0; t < rows; t += 32)
        for (int d = 0; d < DIM; d++)
            for (int r = 0; r < 32; r++) to[d * rows + t + r] = x[(t + r) * DIM + d];
}

typedef struct {
    const number *q, *k, *v, *out, *d_out;
    const float *lse;
    float *d_q; /* (heads, parts, tokens, DIM), to be summed over the parts */
    number *d_k, *d_v;
    int64_t tokens, parts, items, next;
    float scale;
    int failed;
} job;

/* What one head needs beside its tensors. */
typedef struct {
    number *q_columns, *g_columns, *q_rows, *g_rows, *k_turned; /* g: d_out */
    number *terms, *slopes, *slope_pairs;                       /* P^T, dS^T, and that in pairs of keys */
    float *d_q, *lse, *shift, *d_k, *d_v, *scores, *d_terms;    /* d_q: [token / 32][DIM][32] */
} room;

static char *make_room(room *r, size_t tokens) {
    size_t all = tokens * DIM, part = KEYS * QUERIES, block = KEYS * DIM;
    number **numbers[] = {&r->q_columns, &r->g_columns, &r->q_rows, &r->g_rows,
                          &r->k_turned,  &r->terms,     &r->slopes, &r->slope_pairs};
    float **floats[] = {&r->d_q, &r->lse, &r->shift, &r->d_k, &r->d_v, &r->scores, &r->d_terms};
    size_t sizes[] = {all, tokens, tokens, block, block, 1024, 1024};
    size_t bytes = (5 * all + 3 * part) * sizeof(number);
    for (int i = 0; i < 7; i++) bytes += sizes[i] * sizeof(float);
    char *memory = aligned_alloc(64, bytes), *at = memory;
    if (!memory) return NULL;
    for (int i = 0; i < 8; i++) *numbers[i] = (number *)at, at += (i < 5 ? all : part) * sizeof(number);
    for (int i = 0; i < 7; i++) *floats[i] = (float *)at, at += sizes[i] * sizeof(float);
    return memory;
}

static void prepare(const job *j, const room *r, int64_t head) {
    int64_t n = j->tokens, at = head * n * DIM;
    pack_columns(j->q + at, r->q_columns, n);
    pack_columns(j->d_out + at, r->g_columns, n);
    pack_rows(j->q + at, r->q_rows, n);
    pack_rows(j->d_out + at, r->g_rows, n);
    transpose(j->k + at, r->k_turned, n);
    memset(r->d_q, 0, n * DIM * sizeof(float));
    for (int64_t i = 0; i < n; i++, at += DIM) {
        __m512 sum = _mm512_setzero_ps();
        for (int d = 0; d < DIM; d += 16) sum = _mm512_fmadd_ps(widen(j->out + at + d), widen(j->d_out + at + d), sum);
        r->shift[i] = _mm512_reduce_add_ps(sum);
        r->lse[i] = j->lse[head * n + i] * LOG2E;
    }
}

/* P^T and dS^T of 32 keys and 32 queries, whose rows and columns in the buffers begin at `a` and `b` */
INLINE void soften(const room *r, float scale, int64_t query, int a, int b) {
    uint16_t places[32];
    for (int i = 0; i < 16; i++) places[2 * i] = i, places[2 * i + 1] = 16 + i;
    const __m512i pairs = _mm512_loadu_si512(places);
    const __m512 factor = _mm512_set1_ps(scale), factor2 = _mm512_set1_ps(scale * LOG2E);
    for (int row = 0; row < 32; row += 2) {
        __m512 slope[2][2], term[2][2];
        for (int i = 0; i < 2; i++)
            for (int half = 0; half < 2; half++) {
                int64_t at = (row + i) * 32 + 16 * half, lane = query + 16 * half;
                __m512 score = _mm512_loadu_ps(r->scores + at), d_term = _mm512_loadu_ps(r->d_terms + at);
                term[i][half] = exp2_of(_mm512_fmsub_ps(score, factor2, _mm512_loadu_ps(r->lse + lane)));
                slope[i][half] = _mm512_mul_ps(_mm512_mul_ps(term[i][half], factor),
                                               _mm512_sub_ps(d_term, _mm512_loadu_ps(r->shift + lane)));
            }
        for (int i = 0; i < 2; i++) {
            int64_t at = (a + row + i) * QUERIES + b;
            _mm512_storeu_si512(r->terms + at, narrow(term[i][0], term[i][1]));
            _mm512_storeu_si512(r->slopes + at, narrow(slope[i][0], slope[i][1]));
            _mm512_storeu_si512(r->slope_pairs + (a + row) * QUERIES + 2 * b + 32 * i,
                                _mm512_permutexvar_epi16(pairs, narrow(slope[0][i], slope[1][i])));
        }
    }
}

/* KEYS keys from `key` on against `width` queries from `query` on; a head's k and v */
static void add_block(const room *r, const number *k, const number *v, float scale, int64_t tokens, int64_t key,
                      int64_t query, int width) {
    for (int a = 0; a < KEYS; a += 32)
        for (int b = 0; b < width; b += 32) {
            const number *left[] = {k, v}, *right[] = {r->q_columns, r->g_columns};
            float *to[] = {r->scores, r->d_terms};
            for (int i = 0; i < 2; i++) {
                const number *row = left[i] + (key + a) * DIM, *column = right[i] + (query + b) * DIM;
                zero();
                for (int d = 0; d < DIM; d += 32)
                    multiply(row + d, DIM * 2, column + d * 16, column + (DIM + d) * 16, 64);
                keep(to[i], 32);
            }
            soften(r, scale, query + b, a, b);
        }
    for (int a = 0; a < KEYS; a += 32)
        for (int d = 0; d < DIM; d += 32) {
            const number *left[] = {r->terms, r->slopes}, *right[] = {r->g_rows, r->q_rows};
            float *to[] = {r->d_v, r->d_k};
            for (int i = 0; i < 2; i++) {
                take(to[i] + a * DIM + d, DIM);
                for (int b = 0; b < width; b += 32) {
                    const number *rows = right[i] + (query + b) * DIM + 2 * d;
                    multiply(left[i] + a * QUERIES + b, QUERIES * 2, rows, rows + 32, DIM * 4);
                }
                keep(to[i] + a * DIM + d, DIM);
            }
        }
    for (int b = 0; b < width; b += 32)
        for (int d = 0; d < DIM; d += 32) {
            float *to = r->d_q + (query + b) * DIM + d * 32;
            take(to, 32);
            for (int a = 0; a < KEYS; a += 32) {
                const number *pairs = r->slope_pairs + a * QUERIES + 2 * b;
                multiply(r->k_turned + d * tokens + key + a, tokens * 2, pairs, pairs + 32, QUERIES * 4);
            }
            keep(to, 32);
        }
}

static void round_block(const float *from, number *to) {
    for (int i = 0; i < KEYS * DIM; i += 32)
        _mm512_storeu_si512(to + i, narrow(_mm512_loadu_ps(from + i), _mm512_loadu_ps(from + i + 16)));
}

/* One part of a head's keys; returns nonzero if there is no memory. */
static int backward(const job *j, int64_t item) {
    int64_t n = j->tokens, head = item / j->parts, part = item % j->parts, at = head * n * DIM;
    room r;
    char *memory = make_room(&r, n);
    if (!memory) return 1;
    prepare(j, &r, head);
    int64_t last = n / KEYS * (part + 1) / j->parts * KEYS;
    for (int64_t key = n / KEYS * part / j->parts * KEYS; key < last; key += KEYS) {
        memset(r.d_k, 0, KEYS * DIM * sizeof(float));
        memset(r.d_v, 0, KEYS * DIM * sizeof(float));
        for (int64_t query = 0; query < n; query += QUERIES)
            add_block(&r, j->k + at, j->v + at, j->scale, n, key, query, n - query < QUERIES ? (int)(n - query) : QUERIES);
        round_block(r.d_k, j->d_k + at + key * DIM);
        round_block(r.d_v, j->d_v + at + key * DIM);
    }
    float *d_q = j->d_q + item * n * DIM;
    for (int64_t t = 0; t < n; t += 32)
        for (int d = 0; d < DIM; d++)
            for (int i = 0; i < 32; i++) d_q[(t + i) * DIM + d] = r.d_q[t * DIM + d * 32 + i];
    free(memory);
    return 0;
}

static void items(void *shared) {
    job *j = shared;
    char before[64]; /* what others have set up in this thread */
    _tile_storeconfig(before);
    _tile_loadconfig(&TILES);
    for (int64_t i; (i = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED)) < j->items;)
        if (backward(j, i)) j->failed = 1;
    _tile_loadconfig(before);
}

/* `spread` is GOMP_parallel of the OpenMP that torch runs on. */
void run(job *j, void (*spread)(void (*)(void *), void *, unsigned, unsigned), int threads) { spread(items, j, threads, 0); }
