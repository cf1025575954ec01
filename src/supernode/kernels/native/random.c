// Counter-based random numbers: the words of element i depend on nothing but i and the draw.
//
// Philox4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as
// easy as 1, 2, 3", SC'11. A block of four 32-bit words comes from a key of 64 bits, the seed, and
// a counter of 128: the number of the block (64 bits), the number of the draw, the step.
//
// A chip's piece of a tensor is `rows` stretches of `run` elements each, that start at the global
// indices `starts`. `../philox.py` gives the same numbers on any device.

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { BLOCKS = 256 };  // made at a time: 4 KiB of words, which stay in the nearest cache

typedef struct {
    uint64_t seed;
    uint32_t draw, step;
    int64_t rows, run;
    const int64_t *starts;
} Piece;

static void blocks(const Piece *piece, uint64_t first, int64_t count, uint32_t *words)
{
    const uint32_t draw = piece->draw, step = piece->step;
    for (int64_t i = 0; i < count; i++) {
        const uint64_t block = first + (uint64_t)i;
        uint32_t x0 = (uint32_t)block, x1 = (uint32_t)(block >> 32), x2 = draw, x3 = step;
        uint32_t k0 = (uint32_t)piece->seed, k1 = (uint32_t)(piece->seed >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
            const uint64_t a = (uint64_t)x0 * 0xD2511F53u, b = (uint64_t)x2 * 0xCD9E8D57u;
            x0 = (uint32_t)(b >> 32) ^ x1 ^ k0;
            x1 = (uint32_t)b;
            x2 = (uint32_t)(a >> 32) ^ x3 ^ k1;
            x3 = (uint32_t)a;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        words[4 * i] = x0;
        words[4 * i + 1] = x1;
        words[4 * i + 2] = x2;
        words[4 * i + 3] = x3;
    }
}

// Fills `out` chunk by chunk: `words` are those of whole blocks with EACH elements a block, of which
// `count` elements from `skip` on are wanted.
#define FILL(EACH, WRITE)                                                             \
    uint32_t words[4 * BLOCKS];                                                       \
    for (int64_t row = 0; row < piece->rows; row++) {                                 \
        uint64_t at = (uint64_t)piece->starts[row];                                   \
        for (int64_t left = piece->run; left > 0;) {                                  \
            const int64_t skip = (int64_t)(at % EACH), most = BLOCKS * EACH - skip;   \
            const int64_t count = left < most ? left : most;                          \
            blocks(piece, at / EACH, (skip + count + EACH - 1) / EACH, words);        \
            WRITE                                                                     \
            out += count;                                                             \
            at += (uint64_t)count;                                                    \
            left -= count;                                                            \
        }                                                                             \
    }

static inline uint64_t wide(const uint32_t *words, int64_t i)
{
    return words[2 * i] | (uint64_t)words[2 * i + 1] << 32;
}

// In (0, 1), so that its logarithm is finite and not zero.
static inline double inside(uint32_t word) { return (word + 0.5) * 0x1p-32; }

static inline double inside_wide(uint64_t word) { return ((double)(word >> 12) + 0.5) * 0x1p-52; }

// [0, 1) in steps of 2^-digits.
void sn_uniform(const Piece *piece, float *out, int digits)
{
    const int shift = 32 - digits;
    const float step = ldexpf(1.0f, -digits);
    FILL(4, for (int64_t i = 0; i < count; i++) {
        // As a signed number, which vectors convert at once: at most 2^24.
        out[i] = (float)(int32_t)(words[skip + i] >> shift) * step;
    })
}

void sn_uniform_wide(const Piece *piece, double *out)
{
    FILL(2, for (int64_t i = 0; i < count; i++) {
        out[i] = (double)(wide(words, skip + i) >> 11) * 0x1p-53;
    })
}

// `one` where the word is at most `last`, else zero.
#define BERNOULLI(TYPE)                                                               \
    void sn_bernoulli_##TYPE(const Piece *piece, TYPE *out, TYPE one, uint32_t last)  \
    {                                                                                 \
        FILL(4, for (int64_t i = 0; i < count; i++) {                                 \
            out[i] = words[skip + i] <= last ? one : 0;                               \
        })                                                                            \
    }

BERNOULLI(uint8_t)
BERNOULLI(uint16_t)
BERNOULLI(uint32_t)
BERNOULLI(uint64_t)

// low + floor(word / 2^64 * range)
void sn_integer(const Piece *piece, int64_t *out, int64_t low, uint64_t range)
{
    FILL(2, for (int64_t i = 0; i < count; i++) {
        const unsigned __int128 product = (unsigned __int128)wide(words, skip + i) * range;
        out[i] = (int64_t)((uint64_t)low + (uint64_t)(product >> 64));
    })
}

void sn_exponential(const Piece *piece, float *out)
{
    FILL(4, for (int64_t i = 0; i < count; i++) {
        out[i] = (float)-log(inside(words[skip + i]));
    })
}

void sn_exponential_wide(const Piece *piece, double *out)
{
    FILL(2, for (int64_t i = 0; i < count; i++) {
        out[i] = -log(inside_wide(wide(words, skip + i)));
    })
}

// Two normal numbers from two uniform ones: G. E. P. Box, M. E. Muller, "A note on the generation of
// random normal deviates", Annals of Mathematical Statistics 29, 1958. In double precision, whatever
// comes out, so that another library's logarithm gives the same float.
// Twice pi, as torch and Python have it, is 0x1.921fb54442d18p+2.
static inline void pair(double u, double v, double *normal)
{
    const double radius = sqrt(-2.0 * log(u)), angle = 0x1.921fb54442d18p+2 * v;
    normal[0] = radius * cos(angle);
    normal[1] = radius * sin(angle);
}

void sn_normal(const Piece *piece, float *out)
{
    FILL(4, for (int64_t i = skip & ~1; i < skip + count; i += 2) {
        double normal[2];
        pair(inside(words[i]), inside(words[i + 1]), normal);
        for (int64_t k = i < skip; k < 2 && i + k < skip + count; k++)
            out[i + k - skip] = (float)normal[k];
    })
}

void sn_normal_wide(const Piece *piece, double *out)
{
    FILL(2, for (int64_t i = 0; i < skip + count; i += 2) {
        double normal[2];
        pair(inside_wide(wide(words, i)), inside_wide(wide(words, i + 1)), normal);
        for (int64_t k = i < skip; k < 2 && i + k < skip + count; k++)
            out[i + k - skip] = normal[k];
    })
}
