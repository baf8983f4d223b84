/* Clips on finer grids, for inference: pixel shuffle, interpolation with corners aligned, and one after the other.

   A clip is (batch, channel, frame, y, x) in memory, float32. Result p of n reads the place  p (m - 1) / (n - 1)  of m,
   between two neighbours. Interpolation along x comes last, of one row at a time that is made of up to four. */

#include "kernels.h"

typedef struct { long planes, t, y, x, time, space; } Grid; /* planes: batch times channels of the input */

typedef struct { long low, high; float weight; } Between;

static Between between(long place, long results, long inputs)
{
    if (results == inputs || inputs == 1) {
        const long at = inputs == 1 ? 0 : place;
        return (Between){at, at, 0};
    }
    const float at = place * ((float)(inputs - 1) / (results - 1));
    const long low = MIN((long)at, inputs - 1);
    return (Between){low, MIN(low + 1, inputs - 1), at - low};
}

/* out[2 x], out[2 x + 1] of even[x], odd[x], each of them between two frames */
INLINE void interleave(const float *restrict even, const float *restrict odd, long to_next, float weight,
                       float *restrict out, long count)
{
    if (weight == 0)
        for (long x = 0; x < count; x++) {
            out[2 * x] = even[x];
            out[2 * x + 1] = odd[x];
        }
    else
        for (long x = 0; x < count; x++) {
            out[2 * x] = even[x] * (1 - weight) + even[x + to_next] * weight;
            out[2 * x + 1] = odd[x] * (1 - weight) + odd[x + to_next] * weight;
        }
}

/* (planes = batch 4C, t, y, x) to (batch C, time t, 2 y, 2 x) */
void shuffle(const float *in, float *out, Grid g)
{
    const long plane = g.t * g.y * g.x, frames = g.time * g.t;
    for (long c = 0; c < g.planes / 4; c++)
        for (long t = 0; t < frames; t++) {
            const Between at = between(t, frames, g.t);
            const long to_next = (at.high - at.low) * g.y * g.x;
            for (long y = 0; y < g.y; y++)
                for (long below = 0; below < 2; below++) {
                    const float *even = in + (4 * c + 2 * below) * plane + (at.low * g.y + y) * g.x;
                    float *row = out + (((c * frames + t) * g.y + y) * 2 + below) * 2 * g.x;
                    interleave(even, even + plane, to_next, at.weight, row, g.x);
                }
        }
}

INLINE void mix(const float *restrict a, const float *restrict b, float weight, float *restrict out, long count)
{
    for (long x = 0; x < count; x++) out[x] = a[x] * (1 - weight) + b[x] * weight;
}

/* (planes, t, y, x) to (planes, time t, space y, space x) */
void interpolate(const float *in, float *out, Grid g)
{
    const long frames = g.time * g.t, rows = g.space * g.y, columns = g.space * g.x;
    float *row = malloc(sizeof(float) * (3 * g.x + columns)), *above = row + g.x, *below = above + g.x;
    float *weights = below + g.x;
    int *low = malloc(2 * sizeof(int) * columns), *high = low + columns;
    for (long x = 0; x < columns; x++) {
        const Between at = between(x, columns, g.x);
        low[x] = at.low, high[x] = at.high, weights[x] = at.weight;
    }
    for (long c = 0; c < g.planes; c++)
        for (long t = 0; t < frames; t++) {
            const Between at = between(t, frames, g.t);
            const float *first = in + (c * g.t + at.low) * g.y * g.x, *second = in + (c * g.t + at.high) * g.y * g.x;
            for (long y = 0; y < rows; y++) {
                const Between line = between(y, rows, g.y);
                float *into = out + ((c * frames + t) * rows + y) * columns;
                if (g.space == 1) {
                    mix(first + y * g.x, second + y * g.x, at.weight, into, g.x);
                    continue;
                }
                mix(first + line.low * g.x, second + line.low * g.x, at.weight, above, g.x);
                mix(first + line.high * g.x, second + line.high * g.x, at.weight, below, g.x);
                mix(above, below, line.weight, row, g.x);
                for (long x = 0; x < columns; x++)
                    into[x] = row[low[x]] * (1 - weights[x]) + row[high[x]] * weights[x];
            }
        }
    free(row);
    free(low);
}
