/* Block-sparse attention of one head for CPUs with AVX-512, in float32 or (-DBF16) in bfloat16.

Built by c_blocks.py with whatever C compiler there is. A query block walks its kept keys in chunks
that stay in the L2 cache, carrying the running maximum and sum of the softmax (FlashAttention-2,
arXiv 2307.08691). Products are register tiles of ROWS x 3 vectors: 24 sums, 3 operands, 1 broadcast
of the 32 registers there are.

Sums, maxima and exponentials are float32. Only the terms are rounded to bfloat16, for the product
with the values, as in every flash kernel. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 8   /* queries of a register tile */
#define TILE 16  /* keys of a vector */
#define CHUNK 24 /* tiles that are scored before their values are added */
#define SPAN (CHUNK * TILE)
#define INLINE static inline __attribute__((always_inline))

#ifdef BF16
typedef uint16_t element;
typedef __m512bh operand;
#define PAIR 2 /* numbers that one lane multiplies */
#define LOAD(p) ((operand)_mm512_loadu_si512(p))
#define SPREAD(p, i) ((operand)_mm512_set1_epi32(((const int32_t *)(p))[i]))
#define DOT(sum, a, b) _mm512_dpbf16_ps(sum, a, b)
#define STORE(p, x) _mm256_storeu_si256((__m256i *)(p), (__m256i)_mm512_cvtneps_pbh(x))
#else
typedef float element;
typedef __m512 operand;
#define PAIR 1
#define LOAD(p) _mm512_loadu_ps(p)
#define SPREAD(p, i) _mm512_set1_ps((p)[i])
#define DOT(sum, a, b) _mm512_fmadd_ps(a, b, sum)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#endif

INLINE __m512 exp2_of(__m512 x) {
    /* x <= 0; a NaN stays one. Nothing gets smaller than 2^-100, which is nothing beside the 1 that
       every row holds: numbers below 2^-126 would be computed many times slower. */
    x = _mm512_max_ps(_mm512_set1_ps(-100.0f), x);
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_sub_ps(x, whole);
    __m512 sum = _mm512_set1_ps(1.5403530e-4f);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.3333558e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(9.6181291e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(5.5504109e-2f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(2.4022651e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(6.9314718e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(sum, whole);
}

/* scores[row][16 j ...] = q[row] . keys of tile j, for `width` tiles */
INLINE void score(const element *q, const element *k, const int64_t *tiles, float *scores, int dim,
                  const int width) {
    __m512 sums[ROWS][3];
    const element *key[3];
    for (int j = 0; j < width; j++) key[j] = k + tiles[j] * TILE * dim;
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < width; j++) sums[r][j] = _mm512_setzero_ps();
    for (int d = 0; d < dim / PAIR; d++) {
        operand b[3];
#pragma GCC unroll 3
        for (int j = 0; j < width; j++) b[j] = LOAD(key[j] + d * TILE * PAIR);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            operand a = SPREAD(q + r * dim, d);
#pragma GCC unroll 3
            for (int j = 0; j < width; j++) sums[r][j] = DOT(sums[r][j], a, b[j]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < width; j++) _mm512_storeu_ps(scores + r * SPAN + j * TILE, sums[r][j]);
}

/* out[row][...] = out[row] * shrink[row] + terms[row] . values, in `width` vectors of columns */
INLINE void add_values(const element *terms, const element *v, const int64_t *tiles, int count,
                       const float *shrink, float *out, int dim, const int width) {
    __m512 sums[ROWS][3];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < width; j++)
            sums[r][j] = _mm512_mul_ps(_mm512_loadu_ps(out + r * dim + j * 16),
                                       _mm512_set1_ps(shrink[r]));
    for (int t = 0; t < count; t++) {
        const element *value = v + tiles[t] * TILE * dim;
        for (int i = 0; i < TILE / PAIR; i++, value += dim * PAIR) {
            operand b[3];
#pragma GCC unroll 3
            for (int j = 0; j < width; j++) b[j] = LOAD(value + j * 16 * PAIR);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                operand a = SPREAD(terms + r * SPAN, t * (TILE / PAIR) + i);
#pragma GCC unroll 3
                for (int j = 0; j < width; j++) sums[r][j] = DOT(sums[r][j], a, b[j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < width; j++) _mm512_storeu_ps(out + r * dim + j * 16, sums[r][j]);
}

/* one row: scale, add `bias` if there is one, mask what lies behind `valid`, turn scores into terms */
INLINE void soften(float *scores, element *terms, int count, int valid, float scale,
                   const float *bias, float *peak, float *total, float *shrink) {
    __m512 highest = _mm512_set1_ps(*peak), sum = _mm512_setzero_ps();
    for (int t = 0; t < count; t++) {
        int left = valid - t * TILE;
        __m512 x = _mm512_mul_ps(_mm512_loadu_ps(scores + t * TILE), _mm512_set1_ps(scale));
        if (bias) x = _mm512_add_ps(x, _mm512_loadu_ps(bias + t * TILE));
        if (left < TILE)
            x = _mm512_mask_blend_ps((__mmask16)((1u << left) - 1), _mm512_set1_ps(-INFINITY), x);
        _mm512_storeu_ps(scores + t * TILE, x);
        highest = _mm512_max_ps(highest, x);
    }
    float now = _mm512_reduce_max_ps(highest);
    *shrink = *peak == now ? 1.0f : exp2f(*peak - now);
    if (now == -INFINITY) { /* all is masked so far, and inf - inf is NaN */
        memset(terms, 0, count * TILE * sizeof(element));
        return;
    }
    for (int t = 0; t < count; t++) {
        __m512 x = _mm512_loadu_ps(scores + t * TILE);
        x = exp2_of(_mm512_sub_ps(x, _mm512_set1_ps(now)));
        sum = _mm512_add_ps(sum, x);
        STORE(terms + t * TILE, x);
    }
    *total = *total * *shrink + _mm512_reduce_add_ps(sum);
    *peak = now;
}

/* `count` tiles of keys for all rows of a query block */
static void add_chunk(const element *q, const element *k, const element *v, const int64_t *tiles,
                      int count, int valid, int rows, int dim, float scale, const float *bias,
                      float *out, float *peak, float *total) {
    float scores[ROWS * SPAN], shrink[ROWS];
    element terms[ROWS * SPAN];
    for (int g = 0; g < rows; g += ROWS) {
        const element *here = q + g * dim;
        int t = 0;
        for (; t + 3 <= count; t += 3) score(here, k, tiles + t, scores + t * TILE, dim, 3);
        for (; t < count; t++) score(here, k, tiles + t, scores + t * TILE, dim, 1);
        for (int r = 0; r < ROWS; r++)
            soften(scores + r * SPAN, terms + r * SPAN, count, valid, scale, bias,
                   peak + g + r, total + g + r, shrink + r);
        float *to = out + g * dim;
        int c = 0;
        for (; c + 3 <= dim / 16; c += 3)
            add_values(terms, v + c * 16 * PAIR, tiles, count, shrink, to + c * 16, dim, 3);
        for (; c + 2 <= dim / 16; c += 2)
            add_values(terms, v + c * 16 * PAIR, tiles, count, shrink, to + c * 16, dim, 2);
        for (; c < dim / 16; c++)
            add_values(terms, v + c * 16 * PAIR, tiles, count, shrink, to + c * 16, dim, 1);
    }
}

/* sum[0 ... dim - 1] += x, by hand: compilers cannot know that the two do not overlap */
INLINE void add_numbers(float *sum, const element *x, int dim) {
    for (int d = 0; d < dim; d += 16) {
#ifdef BF16
        __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(x + d)));
        __m512 more = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
#else
        __m512 more = _mm512_loadu_ps(x + d);
#endif
        _mm512_storeu_ps(sum + d, _mm512_add_ps(_mm512_loadu_ps(sum + d), more));
    }
}

/* One head. Keys as [tile][dim / PAIR][TILE][PAIR], values as [keys / PAIR][dim][PAIR], zeros behind
   `valid`. `rows` says where each token lies, or is NULL. sum_k, sum_v: (blocks, dim), zeros so far,
   to which the keys and values of each block are added, or NULL. */
static void pack(const element *k, int64_t k_stride, const element *v, int64_t v_stride,
                 element *packed_k, element *packed_v, int64_t valid, int64_t padded, int dim,
                 const int64_t *rows, float *sum_k, float *sum_v, int64_t block) {
    for (int64_t i = 0; i < padded; i++) {
        element *tile = packed_k + i / TILE * TILE * dim + i % TILE * PAIR;
        element *pair = packed_v + i / PAIR * PAIR * dim + i % PAIR;
        if (i >= valid) {
            for (int d = 0; d < dim; d++) tile[d / PAIR * TILE * PAIR + d % PAIR] = pair[d * PAIR] = 0;
            continue;
        }
        const element *key = k + (rows ? rows[i] : i) * k_stride;
        const element *value = v + (rows ? rows[i] : i) * v_stride;
        for (int d = 0; d < dim; d++) {
            tile[d / PAIR * TILE * PAIR + d % PAIR] = key[d];
            pair[d * PAIR] = value[d];
        }
        if (!sum_k) continue;
        add_numbers(sum_k + i / block * dim, key, dim);
        add_numbers(sum_v + i / block * dim, value, dim);
    }
}

INLINE int64_t place(const int64_t *places, int64_t i) { return places ? places[i] : i; }

/* Query blocks first .. last - 1 of a head; returns nonzero if there is no memory.
   index: (blocks, width) kept key blocks; tokens: (blocks,) keys that each attends to.
   means_k, means_v: a packed key and value for each key block, which stand for it where it is not
   kept, or NULL; places: where each query lies, and its output goes, or NULL; sizes: log2 of how many tokens a key
   block has, -inf where none, to whole tiles. */
static int attend(const element *q, int64_t q_stride, const element *k, const element *v, element *out,
           int64_t out_stride, float *lse, const int32_t *index, const int64_t *tokens, int64_t width, int64_t first,
           int64_t last, int64_t queries, int block, int dim, float scale, const element *means_k,
           const element *means_v, const float *sizes, int64_t key_blocks, const int64_t *places) {
    int64_t mean_tiles = means_k ? (key_blocks + TILE - 1) / TILE : 0;
    size_t padded = (block + ROWS - 1) / ROWS * ROWS;
    float *mixed = malloc(padded * (dim + 2) * sizeof(float));
    element *here = malloc(padded * dim * sizeof(element));
    float *bias = malloc((mean_tiles + 1) * TILE * sizeof(float));
    if (!mixed || !here || !bias) return free(mixed), free(here), free(bias), 1;
    float *peak = mixed + padded * dim, *total = peak + padded;
    for (int64_t b = first; b < last; b++) {
        int rows = queries - b * block < block ? (int)(queries - b * block) : block;
        memset(mixed, 0, padded * (dim + 2) * sizeof(float));
        memset(here, 0, padded * dim * sizeof(element));
        for (int r = 0; r < rows; r++)
            memcpy(here + r * dim, q + place(places, b * block + r) * q_stride,
                   dim * sizeof(element));
        for (size_t r = 0; r < padded; r++) peak[r] = -INFINITY;
        int64_t tiles = (tokens[b] + TILE - 1) / TILE, per_block = block / TILE;
        for (int64_t t = 0; t < tiles; t += CHUNK) {
            int64_t listed[CHUNK];
            int count = tiles - t < CHUNK ? (int)(tiles - t) : CHUNK;
            for (int i = 0; i < count; i++)
                listed[i] = index[b * width + (t + i) / per_block] * per_block + (t + i) % per_block;
            int64_t left = tokens[b] - t * TILE;
            add_chunk(here, k, v, listed, count, left < SPAN ? (int)left : SPAN, rows, dim, scale,
                      NULL, mixed, peak, total);
        }
        if (mean_tiles) memcpy(bias, sizes, mean_tiles * TILE * sizeof(float));
        for (int64_t i = 0; mean_tiles && i < (tiles + per_block - 1) / per_block; i++)
            bias[index[b * width + i]] = -INFINITY;
        for (int64_t t = 0; t < mean_tiles; t += CHUNK) {
            int64_t listed[CHUNK];
            int count = mean_tiles - t < CHUNK ? (int)(mean_tiles - t) : CHUNK;
            for (int i = 0; i < count; i++) listed[i] = t + i;
            add_chunk(here, means_k, means_v, listed, count, count * TILE, rows, dim, scale,
                      bias + t * TILE, mixed, peak, total);
        }
        for (int r = 0; r < rows; r++) {
            __m512 share = _mm512_set1_ps(total[r] == 0.0f ? 0.0f : 1.0f / total[r]);
            int64_t at = place(places, b * block + r);
            element *to = out + at * out_stride;
            for (int d = 0; d < dim; d += 16)
                STORE(to + d, _mm512_mul_ps(_mm512_loadu_ps(mixed + r * dim + d), share));
            /* peak and total are of base 2 */
            if (lse) lse[at] = (peak[r] + log2f(total[r])) * 0.69314718f;
        }
    }
    return free(mixed), free(here), free(bias), 0;
}

/* Work that threads share: `table` has a row of numbers and addresses for each item. */
typedef void (*parallel)(void (*)(void *), void *, unsigned, unsigned);
typedef struct {
    const int64_t *table;
    int64_t items, *next, *failed, q_stride, k_stride, v_stride, out_stride, width, queries, key_blocks,
        padded;
    int block, dim;
    float scale;
} job;

static void pack_items(void *shared) {
    job *j = shared;
    for (int64_t i; (i = __atomic_fetch_add(j->next, 1, __ATOMIC_RELAXED)) < j->items;) {
        const int64_t *x = j->table + i * 8;
        pack((element *)x[0], j->k_stride, (element *)x[1], j->v_stride, (element *)x[2],
             (element *)x[3], x[4], j->padded, j->dim, (int64_t *)x[5], (float *)x[6], (float *)x[7],
             j->block);
    }
}

static void attend_items(void *shared) {
    job *j = shared;
    for (int64_t i; (i = __atomic_fetch_add(j->next, 1, __ATOMIC_RELAXED)) < j->items;) {
        const int64_t *x = j->table + i * 13;
        if (attend((element *)x[0], j->q_stride, (element *)x[1], (element *)x[2], (element *)x[3],
                   j->out_stride, (float *)x[4], (int32_t *)x[5], (int64_t *)x[6], j->width, x[7],
                   x[8], j->queries, j->block, j->dim, j->scale, (element *)x[9], (element *)x[10],
                   (float *)x[11], j->key_blocks, (int64_t *)x[12]))
            *j->failed = 1;
    }
}

/* `spread` is GOMP_parallel of the OpenMP that torch runs on, whose threads are awake: they wait
   busily for what comes next, and others would have to share their cores. Or NULL: run here alone. */
void run(job *j, int packing, parallel spread, int threads) {
    void (*work)(void *) = packing ? pack_items : attend_items;
    if (spread)
        spread(work, j, threads, 0);
    else
        work(j);
}
