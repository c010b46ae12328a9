/* Block-sparse attention of one head for CPUs with AVX-512, in float32, (-DBF16) in bfloat16, (-DBF16 -DAMX)
in bfloat16 by tiles of a CPU with AMX, or (-DF16) on float16, which is widened as it is read: it lies in memory
as it came, and is multiplied as float32.

Built by c_blocks.py with whatever C compiler there is. A query block walks its kept keys in chunks
that stay in the L2 cache, carrying the running maximum and sum of the softmax (FlashAttention-2,
arXiv 2307.08691). Products are register tiles of ROWS x 3 vectors: 24 sums, 3 operands, 1 broadcast
of the 32 registers there are. With AMX they are 2 x 2 tiles of 16 queries and 16 keys or columns.

Sums, maxima and exponentials are float32. Only the terms are rounded to bfloat16, for the product
with the values, as in every flash kernel. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILE 16 /* keys of a vector */
#ifdef AMX
#define ROWS 32  /* queries of a register tile */
#define CHUNK 12 /* tiles that are scored before their values are added */
#define TWINS 2  /* tiles that lie side by side and are always taken together */
#else
#define ROWS 8
#define CHUNK 24
#define TWINS 1
#endif
#define SPAN (CHUNK * TILE)
#define INLINE static inline __attribute__((always_inline))

/* `element`s lie in memory; a query block and the terms, which are multiplied with them, are `factor`s. */
#ifdef BF16
typedef uint16_t element, factor;
typedef __m512bh operand;
#define PAIR 2 /* numbers that one lane multiplies */
#define LOAD(p) ((operand)_mm512_loadu_si512(p))
#define SPREAD(p, i) ((operand)_mm512_set1_epi32(((const int32_t *)(p))[i]))
#define DOT(sum, a, b) _mm512_dpbf16_ps(sum, a, b)
#define WIDEN(p) \
    _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))), 16))
#define STORE(p, x) _mm256_storeu_si256((__m256i *)(p), (__m256i)_mm512_cvtneps_pbh(x))
#define STORE_FACTOR STORE
#else
typedef float factor;
typedef __m512 operand;
#define PAIR 1
#define LOAD WIDEN
#define SPREAD(p, i) _mm512_set1_ps((p)[i])
#define DOT(sum, a, b) _mm512_fmadd_ps(a, b, sum)
#define STORE_FACTOR(p, x) _mm512_storeu_ps(p, x)
#ifdef F16
typedef uint16_t element;
#define WIDEN(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define STORE(p, x) _mm256_storeu_si256((__m256i *)(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT))
#else
typedef float element;
#define WIDEN(p) _mm512_loadu_ps(p)
#define STORE STORE_FACTOR
#endif
#endif

/* of 2^x in [0, 1), lowest power last: relative error 7e-8, and of terms that are rounded to bfloat16 7e-5 */
#ifdef BF16
static const float EXP2[] = {7.80245222e-2f, 2.26067171e-1f, 6.95833527e-1f, 9.99925221e-1f};
#else
static const float EXP2[] = {1.87757667e-3f, 8.98934034e-3f, 5.58263176e-2f, 2.40153617e-1f, 6.93153073e-1f, 9.99999925e-1f};
#endif

INLINE __m512 exp2_of(__m512 x) {
    /* x <= 0; a NaN stays one. Nothing gets smaller than 2^-100, which is nothing beside the 1 that
       every row holds: numbers below 2^-126 would be computed many times slower. */
    x = _mm512_max_ps(_mm512_set1_ps(-100.0f), x);
    __m512 rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 sum = _mm512_set1_ps(EXP2[0]);
#pragma GCC unroll 8
    for (unsigned i = 1; i < sizeof EXP2 / sizeof *EXP2; i++) sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(EXP2[i]));
    return _mm512_scalef_ps(sum, x); /* by 2 to the whole below x */
}

#ifdef AMX
/* Tile registers: 0 to 3 hold 2 x 2 sums, 4 and 5 rows of the left factor, 6 and 7 columns of the right one. */
static const struct {
    uint8_t palette, start_row, unused[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TILES = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

/* the sums += 32 rows of a, each 32 numbers, times 2 x 16 columns of pairs; strides in bytes */
INLINE void multiply(const factor *a, int64_t a_stride, const element *b, const element *more, int64_t b_stride) {
    _tile_loadd(4, a, a_stride);
    _tile_loadd(5, (const char *)a + 16 * a_stride, a_stride);
    _tile_loadd(6, b, b_stride);
    _tile_loadd(7, more, b_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* write the sums to 32 rows of 32 numbers; stride in numbers */
INLINE void keep(float *to, int64_t stride) {
    _tile_stored(0, to, stride * 4);
    _tile_stored(1, to + 16, stride * 4);
    _tile_stored(2, to + 16 * stride, stride * 4);
    _tile_stored(3, to + 16 * stride + 16, stride * 4);
}

/* scores[row][16 j ...] = q[row] . keys of tile j, for all tiles */
INLINE void score_all(const factor *q, const element *k, const int64_t *tiles, int count, float *scores, int dim) {
    for (int t = 0; t < count; t += 2) {
        const element *key = k + tiles[t] * TILE * dim, *more = key + TILE * dim;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int d = 0; d < dim; d += 32) multiply(q + d, dim * 2, key + d * TILE, more + d * TILE, 64);
        keep(scores + t * TILE, SPAN);
    }
}

/* out[row][...] = out[row] * shrink[row] + terms[row] . values */
INLINE void add_all_values(const factor *terms, const element *v, const int64_t *tiles, int count, const float *shrink,
                           float *out, int dim) {
    for (int r = 0; r < ROWS; r++)
        for (int d = 0; shrink[r] != 1.0f && d < dim; d += 16)
            _mm512_storeu_ps(out + r * dim + d,
                             _mm512_mul_ps(_mm512_loadu_ps(out + r * dim + d), _mm512_set1_ps(shrink[r])));
    for (int d = 0; d < dim; d += 32) {
        float *to = out + d;
        _tile_loadd(0, to, dim * 4);
        _tile_loadd(1, to + 16, dim * 4);
        _tile_loadd(2, to + 16 * dim, dim * 4);
        _tile_loadd(3, to + 16 * dim + 16, dim * 4);
        for (int t = 0; t < count; t += 2) {
            const element *value = v + tiles[t] * TILE * dim + d * PAIR;
            multiply(terms + t * TILE, SPAN * 2, value, value + 16 * PAIR, dim * PAIR * 2);
        }
        keep(to, dim);
    }
}
#else
/* scores[row][16 j ...] = q[row] . keys of tile j, for `width` tiles */
INLINE void score(const factor *q, const element *k, const int64_t *tiles, float *scores, int dim,
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
INLINE void add_values(const factor *terms, const element *v, const int64_t *tiles, int count,
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

/* scores[row][16 j ...] = q[row] . keys of tile j, for all tiles */
INLINE void score_all(const factor *q, const element *k, const int64_t *tiles, int count, float *scores, int dim) {
    int t = 0;
    for (; t + 3 <= count; t += 3) score(q, k, tiles + t, scores + t * TILE, dim, 3);
    for (; t < count; t++) score(q, k, tiles + t, scores + t * TILE, dim, 1);
}

/* out[row][...] = out[row] * shrink[row] + terms[row] . values */
INLINE void add_all_values(const factor *terms, const element *v, const int64_t *tiles, int count, const float *shrink,
                           float *out, int dim) {
    int c = 0;
    for (; c + 3 <= dim / 16; c += 3)
        add_values(terms, v + c * 16 * PAIR, tiles, count, shrink, out + c * 16, dim, 3);
    for (; c + 2 <= dim / 16; c += 2)
        add_values(terms, v + c * 16 * PAIR, tiles, count, shrink, out + c * 16, dim, 2);
    for (; c < dim / 16; c++)
        add_values(terms, v + c * 16 * PAIR, tiles, count, shrink, out + c * 16, dim, 1);
}
#endif

INLINE __m512 scaled(const float *scores, int t, float scale, const float *bias) {
    __m512 x = _mm512_mul_ps(_mm512_loadu_ps(scores + t * TILE), _mm512_set1_ps(scale));
    return bias ? _mm512_add_ps(x, _mm512_loadu_ps(bias + t * TILE)) : x;
}

/* one row: scale, add `bias` if there is one, turn scores into terms */
INLINE void soften(const float *scores, factor *terms, int count, float scale, const float *bias, float *peak,
                   float *total, float *shrink) {
    __m512 highest = _mm512_set1_ps(*peak), sum = _mm512_setzero_ps();
    for (int t = 0; t < count; t++) highest = _mm512_max_ps(highest, scaled(scores, t, scale, bias));
    float now = _mm512_reduce_max_ps(highest);
    *shrink = *peak == now ? 1.0f : exp2f(*peak - now);
    if (now == -INFINITY) { /* all is masked so far, and inf - inf is NaN */
        memset(terms, 0, count * TILE * sizeof(factor));
        return;
    }
    for (int t = 0; t < count; t++) {
        __m512 x = exp2_of(_mm512_sub_ps(scaled(scores, t, scale, bias), _mm512_set1_ps(now)));
        sum = _mm512_add_ps(sum, x);
        STORE_FACTOR(terms + t * TILE, x);
    }
    *total = *total * *shrink + _mm512_reduce_add_ps(sum);
    *peak = now;
}

/* `count` tiles of keys for all rows of a query block */
static void add_chunk(const factor *q, const element *k, const element *v, const int64_t *tiles,
                      int count, int rows, int dim, float scale, const float *bias, float *out,
                      float *peak, float *total) {
    float scores[ROWS * SPAN], shrink[ROWS];
    factor terms[ROWS * SPAN];
    for (int g = 0; g < rows; g += ROWS) {
        const factor *here = q + g * dim;
        score_all(here, k, tiles, count, scores, dim);
        for (int r = 0; r < ROWS; r++)
            soften(scores + r * SPAN, terms + r * SPAN, count, scale, bias,
                   peak + g + r, total + g + r, shrink + r);
        add_all_values(terms, v, tiles, count, shrink, out + g * dim, dim);
    }
}

INLINE int64_t place(const int64_t *places, int64_t i) { return places ? places[i] : i; }

/* 16 rows of 16 numbers of 32 bits change places with their columns */
INLINE void transpose(__m512i *x) {
    __m512i y[TILE];
#pragma GCC unroll 8
    for (int i = 0; i < TILE; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < TILE; i += 4) { /* quarter l of x[i + j] then holds column 4 l + j of rows i .. i + 3 */
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i even = _mm512_shuffle_i32x4(x[j], x[4 + j], 0x88), odd = _mm512_shuffle_i32x4(x[j], x[4 + j], 0xdd);
        __m512i more_even = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0x88);
        __m512i more_odd = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0xdd);
        y[j] = _mm512_shuffle_i32x4(even, more_even, 0x88);
        y[4 + j] = _mm512_shuffle_i32x4(odd, more_odd, 0x88);
        y[8 + j] = _mm512_shuffle_i32x4(even, more_even, 0xdd);
        y[12 + j] = _mm512_shuffle_i32x4(odd, more_odd, 0xdd);
    }
    memcpy(x, y, sizeof y);
}

/* a tile of keys, NULL for zeros, as [dim / PAIR][TILE][PAIR] */
static void pack_keys(const element *const *keys, element *to, int dim) {
    int lanes = dim * (int)sizeof(element) / 4;
    for (int c = 0; c < lanes; c += TILE) {
        int width = lanes - c < TILE ? lanes - c : TILE;
        __mmask16 there = (__mmask16)((1u << width) - 1);
        __m512i x[TILE];
        for (int r = 0; r < TILE; r++)
            x[r] = keys[r] ? _mm512_maskz_loadu_epi32(there, (const int32_t *)keys[r] + c) : _mm512_setzero_si512();
        transpose(x);
        for (int j = 0; j < width; j++) {
            element *column = to + (c + j) * TILE * (4 / sizeof(element));
#ifdef F16 /* two numbers in 32 bits, which belong to two columns */
            _mm256_storeu_si256((__m256i *)column, _mm512_cvtepi32_epi16(x[j]));
            _mm256_storeu_si256((__m256i *)(column + TILE), _mm512_cvtepi32_epi16(_mm512_srli_epi32(x[j], 16)));
#else
            _mm512_storeu_si512(column, x[j]);
#endif
        }
    }
}

/* a tile of values, NULL for zeros, as [TILE / PAIR][dim][PAIR] */
static void pack_values(const element *const *values, element *to, int dim) {
#if PAIR == 2
    for (int r = 0; r < TILE; r += 2)
        for (int d = 0; d < dim; d += 16) {
            __m512i x[2];
            for (int i = 0; i < 2; i++)
                x[i] = values[r + i] ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(values[r + i] + d)))
                                     : _mm512_setzero_si512();
            _mm512_storeu_si512(to + r * dim + 2 * d, _mm512_or_si512(x[0], _mm512_slli_epi32(x[1], 16)));
        }
#else
    for (int r = 0; r < TILE; r++)
        if (values[r])
            memcpy(to + r * dim, values[r], dim * sizeof(element));
        else
            memset(to + r * dim, 0, dim * sizeof(element));
#endif
}

/* Tokens first .. last - 1 of a head, whole tiles, zeros from `valid` on; `places` says where each token lies, or is
   NULL. */
static void pack(const element *k, int64_t k_stride, const element *v, int64_t v_stride, element *packed_k,
                 element *packed_v, const int64_t *places, int64_t first, int64_t last, int64_t valid, int dim) {
    for (int64_t t = first; t < last; t += TILE) {
        const element *keys[TILE], *values[TILE];
        for (int r = 0; r < TILE; r++) {
            int64_t at = t + r < valid ? place(places, t + r) : -1;
            keys[r] = at < 0 ? NULL : k + at * k_stride;
            values[r] = at < 0 ? NULL : v + at * v_stride;
        }
        pack_keys(keys, packed_k + t * dim, dim);
        pack_values(values, packed_v + t * dim, dim);
    }
}

/* mean[0 ... 16 width - 1] of tokens first .. last - 1 */
INLINE void average_columns(const element *x, int64_t stride, float *mean, const int64_t *places, int64_t first,
                            int64_t last, const int width) {
    __m512 sums[4], share = _mm512_set1_ps(last > first ? 1.0f / (float)(last - first) : 0.0f);
#pragma GCC unroll 4
    for (int j = 0; j < width; j++) sums[j] = _mm512_setzero_ps();
    for (int64_t i = first; i < last; i++) {
        const element *token = x + place(places, i) * stride;
#pragma GCC unroll 4
        for (int j = 0; j < width; j++) sums[j] = _mm512_add_ps(sums[j], WIDEN(token + 16 * j));
    }
#pragma GCC unroll 4
    for (int j = 0; j < width; j++) _mm512_storeu_ps(mean + 16 * j, _mm512_mul_ps(sums[j], share));
}

/* Means of blocks first .. last - 1 of a head, (blocks, dim), over the first `valid` tokens; zeros of none. */
static void average(const element *x, int64_t stride, float *means, const int64_t *places, int64_t first,
                    int64_t last, int64_t valid, int64_t block, int dim) {
    for (int64_t b = first; b < last; b++) {
        int64_t end = (b + 1) * block < valid ? (b + 1) * block : valid;
        int d = 0;
        for (; d + 64 <= dim; d += 64) average_columns(x + d, stride, means + b * dim + d, places, b * block, end, 4);
        for (; d < dim; d += 16) average_columns(x + d, stride, means + b * dim + d, places, b * block, end, 1);
    }
}

INLINE void take_query(factor *to, const element *q, int dim) {
    if (sizeof(factor) == sizeof(element)) {
        memcpy(to, q, dim * sizeof(element));
        return;
    }
    for (int d = 0; d < dim; d += 16) STORE_FACTOR(to + d, WIDEN(q + d));
}

/* of so many kept keys */
INLINE int64_t tiles_of(int64_t tokens) { return (tokens + TILE * TWINS - 1) / (TILE * TWINS) * TWINS; }

/* Numbers that are added to the scores of tiles t ... t + count - 1 of a row: -inf behind its `tokens` kept keys; then
   come the means of all blocks, each with its size, -inf where the block is kept. NULL if none is needed. */
INLINE const float *biases(float *bias, int64_t t, int count, int64_t tokens, const float *mean_bias) {
    int64_t tiles = tiles_of(tokens);
    if (t + count <= tokens / TILE) return NULL;
    for (int i = 0; i < count; i++) {
        int64_t left = tokens - (t + i) * TILE;
        __m512 x = _mm512_setzero_ps();
        if (t + i >= tiles)
            x = _mm512_loadu_ps(mean_bias + (t + i - tiles) * TILE);
        else if (left < TILE)
            x = _mm512_mask_blend_ps(left > 0 ? (__mmask16)((1u << left) - 1) : 0, _mm512_set1_ps(-INFINITY), x);
        _mm512_storeu_ps(bias + i * TILE, x);
    }
    return bias;
}

/* Query blocks first .. last - 1 of a head; returns nonzero if there is no memory.
   index: (blocks, width) kept key blocks; tokens: (blocks,) keys that each attends to.
   mean_tiles: how many tiles of means lie behind the keys and values, one mean for each key block, which stands for it
   where it is not kept; places: where each query lies, and its output goes, or NULL; sizes: log2 of how many tokens a
   key block has, -inf where none, to whole tiles. */
static int attend(const element *q, int64_t q_stride, const element *k, const element *v, element *out,
                  int64_t out_stride, float *lse, const int32_t *index, const int64_t *tokens, int64_t width,
                  int64_t first, int64_t last, int64_t queries, int block, int dim, float scale, int64_t mean_tiles,
                  const float *sizes, int64_t key_blocks, const int64_t *places) {
    int64_t per_block = block / TILE;
    size_t padded = (block + ROWS - 1) / ROWS * ROWS;
    float *mixed = malloc(padded * (dim + 2) * sizeof(float));
    factor *here = malloc(padded * dim * sizeof(factor));
    float *mean_bias = malloc((mean_tiles + 1) * TILE * sizeof(float)), bias[SPAN];
    if (!mixed || !here || !mean_bias) return free(mixed), free(here), free(mean_bias), 1;
    float *peak = mixed + padded * dim, *total = peak + padded;
    for (int64_t b = first; b < last; b++) {
        int rows = queries - b * block < block ? (int)(queries - b * block) : block;
        memset(mixed, 0, padded * (dim + 2) * sizeof(float));
        memset(here, 0, padded * dim * sizeof(factor));
        for (int r = 0; r < rows; r++)
            take_query(here + r * dim, q + place(places, b * block + r) * q_stride, dim);
        for (size_t r = 0; r < padded; r++) peak[r] = -INFINITY;
        int64_t tiles = tiles_of(tokens[b]);
        memcpy(mean_bias, sizes, mean_tiles * TILE * sizeof(float));
        for (int64_t i = 0; mean_tiles && i < (tiles + per_block - 1) / per_block; i++)
            mean_bias[index[b * width + i]] = -INFINITY;
        for (int64_t t = 0; t < tiles + mean_tiles; t += CHUNK) {
            int64_t listed[CHUNK], rest = tiles + mean_tiles - t;
            int count = rest < CHUNK ? (int)rest : CHUNK;
            for (int i = 0; i < count; i++)
                listed[i] = t + i < tiles
                                ? index[b * width + (t + i) / per_block] * per_block + (t + i) % per_block
                                : key_blocks * per_block + t + i - tiles;
            add_chunk(here, k, v, listed, count, rows, dim, scale, biases(bias, t, count, tokens[b], mean_bias), mixed,
                      peak, total);
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
    return free(mixed), free(here), free(mean_bias), 0;
}

/* Work that threads share: `table` has a row of numbers and addresses for each item. */
typedef void (*parallel)(void (*)(void *), void *, unsigned, unsigned);
typedef struct {
    const int64_t *table;
    int64_t items, *next, *failed, q_stride, k_stride, v_stride, out_stride, width, queries, key_blocks,
        mean_tiles;
    int block, dim;
    float scale;
} job;

static void pack_items(void *shared) {
    job *j = shared;
    for (int64_t i; (i = __atomic_fetch_add(j->next, 1, __ATOMIC_RELAXED)) < j->items;) {
        const int64_t *x = j->table + i * 8;
        pack((element *)x[0], j->k_stride, (element *)x[1], j->v_stride, (element *)x[2], (element *)x[3],
             (int64_t *)x[4], x[6], x[7], x[5], j->dim);
    }
}

static void attend_items(void *shared) {
    job *j = shared;
#ifdef AMX
    char before[64]; /* what others have set up in this thread */
    _tile_storeconfig(before);
    _tile_loadconfig(&TILES);
#endif
    for (int64_t i; (i = __atomic_fetch_add(j->next, 1, __ATOMIC_RELAXED)) < j->items;) {
        const int64_t *x = j->table + i * 11;
        if (attend((element *)x[0], j->q_stride, (element *)x[1], (element *)x[2], (element *)x[3], j->out_stride,
                   (float *)x[4], (int32_t *)x[5], (int64_t *)x[6], j->width, x[9], x[10], j->queries, j->block, j->dim,
                   j->scale, j->mean_tiles, (float *)x[7], j->key_blocks, (int64_t *)x[8]))
            *j->failed = 1;
    }
#ifdef AMX
    _tile_loadconfig(before);
#endif
}

static void average_items(void *shared) {
    job *j = shared;
    for (int64_t i; (i = __atomic_fetch_add(j->next, 1, __ATOMIC_RELAXED)) < j->items;) {
        const int64_t *x = j->table + i * 6;
        average((element *)x[0], j->q_stride, (float *)x[1], (int64_t *)x[2], x[4], x[5], x[3], j->block, j->dim);
    }
}

/* `spread` is GOMP_parallel of the OpenMP that torch runs on, whose threads are awake: they wait
   busily for what comes next, and others would have to share their cores. Or NULL: run here alone. */
void run(job *j, int task, parallel spread, int threads) {
    void (*const tasks[])(void *) = {attend_items, pack_items, average_items};
    void (*work)(void *) = tasks[task];
    if (spread)
        spread(work, j, threads, 0);
    else
        work(j);
}
