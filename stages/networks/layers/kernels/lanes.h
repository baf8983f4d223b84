/* Vectors along a row of a clip, as wide as this processor has them. */

#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif

#ifdef __AVX__
#include <immintrin.h>
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int Mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* Else GCC reads a vector again from memory for each use, by addresses that take all registers. */
#define KEPT_PLACE(place) __asm__("" : "+r"(place))
#ifdef __AVX512F__
#define KEPT(vector) __asm__("" : "+v"(vector))
#else
#define KEPT(vector)
#endif

INLINE Lanes everywhere(float value)
{
    return value - (Lanes){0};
}

/* ReLU6 and the like; NaN stays NaN: of two numbers, x86 takes the second where one is NaN. */
INLINE Lanes within(Lanes value, float top)
{
#if defined(__AVX512F__)
    return (Lanes)_mm512_min_ps((__m512)everywhere(top), _mm512_max_ps(_mm512_setzero_ps(), (__m512)value));
#elif defined(__AVX__)
    return (Lanes)_mm256_min_ps((__m256)everywhere(top), _mm256_max_ps(_mm256_setzero_ps(), (__m256)value));
#else
    const Lanes most = everywhere(top);
    const Mask low = value < (Lanes){0}, high = value > most;
    return (Lanes)(((Mask)value & ~low & ~high) | ((Mask)most & high));
#endif
}
