/* The stem of the encoder for inference: a 3x3x3 convolution of three colours with stride 2 in all axes, zeros around
   the clip, its norm folded in, and ReLU6.

   A clip is (batch, frame, y, x, colour) in memory, as frames are scaled; results are (batch, channel, frame, y, x).
   Each row is taken apart once, by colours and into odd and even places, so that what neighbouring results read lies
   in one vector; the rows that a row of results reads stay in the cache. Weights are (block, colour, t, y, x, BLOCK),
   BLOCK output channels each. x is a multiple of 2 LANES. */

#include "kernels.h"
#include "lanes.h"

enum { COLOURS = 3, KERNEL = 3, BLOCK = 8, ACROSS = 2, RING = 4 };

typedef struct { long batch, outputs, t, y, x; } Stem; /* t, y, x of the input; outputs in whole blocks */

typedef struct { int count; const float *row[COLOURS * 9], *weight[COLOURS * 9]; } Rows;

int stem_block(void) { return BLOCK; }

/* Floats of a row of one colour: zeros, odd places, even places. */
static long row_of(Stem s) { return LANES + s.x; }

/* Floats that `stem` needs to work with. */
long stem_work(Stem s) { return RING * s.t * COLOURS * row_of(s); }

static float *place_of(float *work, long t, long y, Stem s)
{
    return work + (y % RING * s.t + t) * COLOURS * row_of(s);
}

static void take_apart(const float *in, float *rows, Stem s)
{
    const long half = s.x / 2;
    for (long c = 0; c < COLOURS; c++) {
        float *odd = rows + c * row_of(s) + LANES, *even = odd + half;
        for (long k = 0; k < half; k++) {
            even[k] = in[2 * COLOURS * k + c];
            odd[k] = in[2 * COLOURS * k + COLOURS + c];
        }
    }
}

/* The rows that row y of frame t of the results reads, and the weights of each for the first block of channels. */
static void find_rows(Rows *rows, float *work, const float *weight, long t, long y, Stem s)
{
    rows->count = 0;
    for (long c = 0; c < COLOURS; c++)
        for (long kt = t ? 0 : 1; kt < KERNEL; kt++)
            for (long ky = y ? 0 : 1; ky < KERNEL; ky++) {
                rows->row[rows->count] = place_of(work, 2 * t + kt - 1, 2 * y + ky - 1, s) + c * row_of(s) + LANES;
                rows->weight[rows->count++] = weight + ((c * KERNEL + kt) * KERNEL + ky) * KERNEL * BLOCK;
            }
}

INLINE void filter(const Rows *rows, long to_block, const float *bias, float *out, long plane, long x, Stem s,
                   int vectors)
{
    const long at[KERNEL] = {x - 1, x + s.x / 2, x};
    Lanes sum[BLOCK][ACROSS];
#pragma GCC unroll 8
    for (int o = 0; o < BLOCK; o++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[o][v] = everywhere(bias[o]);
    for (int tap = 0; tap < rows->count; tap++)
#pragma GCC unroll 3
        for (int k = 0; k < KERNEL; k++) {
            const float *weight = rows->weight[tap] + to_block + k * BLOCK;
            Lanes in[ACROSS];
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) {
                in[v] = *(const Lanes *)(rows->row[tap] + at[k] + v * LANES);
                KEPT(in[v]);
            }
#pragma GCC unroll 8
            for (int o = 0; o < BLOCK; o++)
#pragma GCC unroll 8
                for (int v = 0; v < vectors; v++) sum[o][v] += everywhere(weight[o]) * in[v];
        }
#pragma GCC unroll 8
    for (int o = 0; o < BLOCK; o++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) *(Lanes *)(out + o * plane + x + v * LANES) = within(sum[o][v], 6);
}

static void filter_row(const Rows *rows, const float *bias, float *out, Stem s)
{
    const long plane = s.t / 2 * (s.y / 2) * (s.x / 2), taps = COLOURS * KERNEL * KERNEL * KERNEL;
    for (long o = 0; o < s.outputs; o += BLOCK) {
        long x = 0;
        for (; x + ACROSS * LANES <= s.x / 2; x += ACROSS * LANES)
            filter(rows, o * taps, bias + o, out + o * plane, plane, x, s, ACROSS);
        for (; x < s.x / 2; x += LANES) filter(rows, o * taps, bias + o, out + o * plane, plane, x, s, 1);
    }
}

/* in (batch, t, y, x, 3) to out (batch, outputs, t / 2, y / 2, x / 2); `work` is where to work. */
void stem(const float *in, float *out, float *work, const float *weight, const float *bias, Stem s)
{
    const long out_t = s.t / 2, out_y = s.y / 2, out_x = s.x / 2;
    memset(work, 0, sizeof(float) * stem_work(s));
    for (long b = 0; b < s.batch; b++) {
        const float *clip = in + b * s.t * s.y * s.x * COLOURS;
        float *results = out + b * s.outputs * out_t * out_y * out_x;
        for (long y = 0; y < out_y; y++) {
            for (long row = 2 * y; row < 2 * y + 2; row++)
                for (long t = 0; t < s.t; t++)
                    take_apart(clip + (t * s.y + row) * s.x * COLOURS, place_of(work, t, row, s), s);
            for (long t = 0; t < out_t; t++) {
                Rows rows;
                find_rows(&rows, work, weight, t, y, s);
                filter_row(&rows, bias, results + (t * out_y + y) * out_x, s);
            }
        }
    }
}
