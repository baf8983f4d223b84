/* Rows of clips on finer grids: pixel shuffle, interpolation with corners aligned, and one after the other.

   Result p of n reads the place  p (m - 1) / (n - 1)  of m, between two neighbours. */

typedef struct { long low, high; float weight; } Between;

static inline Between between(long place, long results, long inputs)
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

INLINE void mix(const float *restrict a, const float *restrict b, float weight, float *restrict out, long count)
{
    for (long x = 0; x < count; x++) out[x] = a[x] * (1 - weight) + b[x] * weight;
}

/* A clip (t, y, x) of one channel that becomes (time t, space y, space x); time and space are 1 or 2. */
typedef struct { long t, y, x, time, space; } Finer;

/* Floats that `finer_row` needs to work with. */
static inline long finer_work(Finer f) { return 2 * f.x + 3 * (f.x + 2); }

/* Weights along x, at the beginning of where `finer_row` works: of the right neighbour, for even and for odd places.
   Of twice as many, result 2 k lies between k - 1 and k, and 2 k + 1 between k and k + 1. */
static inline void find_finer_weights(float *work, Finer f)
{
    for (long k = 0; k < f.x; k++) {
        work[k] = k ? between(2 * k, 2 * f.x, f.x).weight : 1;
        work[f.x + k] = between(2 * k + 1, 2 * f.x, f.x).weight;
    }
}

/* Row y of frame t of the results. Interpolation along x comes last, of one row that is made of up to four. */
INLINE void finer_row(const float *in, float *out, float *work, long t, long y, Finer f)
{
    const Between at = between(t, f.time * f.t, f.t), line = between(y, f.space * f.y, f.y);
    const float *first = in + at.low * f.y * f.x, *second = in + at.high * f.y * f.x;
    if (f.space == 1) {
        mix(first + y * f.x, second + y * f.x, at.weight, out, f.x);
        return;
    }
    const float *restrict for_even = work, *restrict for_odd = work + f.x;
    float *above = work + 2 * f.x, *below = above + f.x, *restrict row = below + f.x + 1;
    mix(first + line.low * f.x, second + line.low * f.x, at.weight, above, f.x);
    mix(first + line.high * f.x, second + line.high * f.x, at.weight, below, f.x);
    mix(above, below, line.weight, row, f.x);
    row[-1] = row[0], row[f.x] = row[f.x - 1];
    for (long k = 0; k < f.x; k++) {
        out[2 * k] = row[k - 1] * (1 - for_even[k]) + row[k] * for_even[k];
        out[2 * k + 1] = row[k] * (1 - for_odd[k]) + row[k + 1] * for_odd[k];
    }
}
