// Reductions of one block, for every element type: in the order of the sources, rounded once.
#include <stdint.h>
#include <string.h>

enum { BLOCK_BYTES = 16384 };

static inline float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float same_float(float x) { return x; }
static inline double same_double(double x) { return x; }
static inline int64_t same_int64(int64_t x) { return x; }
static inline int32_t same_int32(int32_t x) { return x; }
static inline uint8_t same_bool(uint8_t x) { return x; }

static inline float from_bfloat16(uint16_t x) { return bits_float((uint32_t)x << 16); }

static inline uint16_t to_bfloat16(float value) {
    uint32_t bits = float_bits(value), nearest = bits + 0x7fffu + (bits >> 16 & 1);
    return (uint16_t)(value != value ? 0x7fc0u : nearest >> 16);
}

// Half precision by integer arithmetic, as C compilers of x86 have the type only since 2022. A
// half moved into float bits is 2^112 too small; the product mends it, subnormals included.
static inline float from_half(uint16_t x) {
    uint32_t special = (x & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0;
    uint32_t size = float_bits(bits_float((x & 0x7fffu) << 13) * 0x1p112f);
    return bits_float(size | special | (uint32_t)(x & 0x8000u) << 16);
}

static inline uint16_t to_half(float value) {
    uint32_t bits = float_bits(value), size = bits & 0x7fffffffu;
    // Adding 0.5 leaves the subnormal's bits, rounded by the FPU, at the foot of the mantissa.
    uint32_t subnormal = float_bits(bits_float(size) + 0.5f) - 0x3f000000u;
    uint32_t normal = (size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13;
    uint32_t half = size < 0x38800000u ? subnormal : normal;
    half = size >= 0x47800000u ? 0x7c00u : half;
    half = size > 0x7f800000u ? 0x7e00u : half;
    return (uint16_t)(half | (bits >> 16 & 0x8000u));
}

// Reduces one block of each source in the given order. A NaN on either side wins in max and min.
#define REDUCE(NAME, ELEMENT, WIDE, LOAD, STORE)                                                  \
    static void reduce_##NAME(char *to, char *const *from, int64_t n, int64_t at, int64_t bytes, \
                              int op) {                                                           \
        WIDE sum[BLOCK_BYTES / sizeof(ELEMENT)];                                                  \
        ELEMENT *out = (ELEMENT *)to;                                                             \
        const ELEMENT *first = (const ELEMENT *)(from[0] + at);                                   \
        int64_t count = bytes / (int64_t)sizeof(ELEMENT);                                         \
        for (int64_t i = 0; i < count; i++) sum[i] = LOAD(first[i]);                              \
        for (int64_t k = 1; k < n; k++) {                                                         \
            const ELEMENT *next = (const ELEMENT *)(from[k] + at);                                \
            if (op == 0)                                                                          \
                for (int64_t i = 0; i < count; i++) sum[i] += LOAD(next[i]);                      \
            else if (op == 1)                                                                     \
                for (int64_t i = 0; i < count; i++) {                                             \
                    WIDE x = LOAD(next[i]);                                                       \
                    sum[i] = sum[i] > x || sum[i] != sum[i] ? sum[i] : x;                         \
                }                                                                                 \
            else                                                                                  \
                for (int64_t i = 0; i < count; i++) {                                             \
                    WIDE x = LOAD(next[i]);                                                       \
                    sum[i] = sum[i] < x || sum[i] != sum[i] ? sum[i] : x;                         \
                }                                                                                 \
        }                                                                                         \
        for (int64_t i = 0; i < count; i++) out[i] = STORE(sum[i]);                               \
    }

REDUCE(float32, float, float, same_float, same_float)
REDUCE(float64, double, double, same_double, same_double)
REDUCE(bfloat16, uint16_t, float, from_bfloat16, to_bfloat16)
REDUCE(float16, uint16_t, float, from_half, to_half)
REDUCE(int64, int64_t, int64_t, same_int64, same_int64)
REDUCE(int32, int32_t, int32_t, same_int32, same_int32)
REDUCE(bool, uint8_t, uint8_t, same_bool, same_bool)

typedef void Reduce(char *, char *const *, int64_t, int64_t, int64_t, int);
static Reduce *const reduce_of[] = {reduce_float32, reduce_float64, reduce_bfloat16, reduce_float16,
                                    reduce_int64,   reduce_int32,   reduce_bool};
