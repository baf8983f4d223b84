/* A whole inverted residual for inference: 1x1 expansion, ReLU6, depthwise 3x3 over 1 to 3 frames, ReLU6, 1x1
   projection, with norms folded into all three. Its input may be brought to a finer grid as it is read, and its results
   be pixel-shuffled and added to others as they are written (grids.h), so that no large clip is passed over once more.

   The expanded clip, twice to six times the input, is what such a layer spends its time on when it is written out and
   read again. Here it never leaves the cache: of each frame, the rows that the next two rows of results read are kept,
   each row is expanded once, and rows lie along vectors, so that 7 channels cost no more than 7.

   A clip is (batch, channel, frame, y, x) in memory, float32. Weights of the products lie in blocks of BLOCK outputs,
   (block, input, BLOCK), the last filled up with zeros. Rows in `work` have LANES zeros on both sides; where x has
   stride 2 the odd places stand before the even ones, each half with zeros on its left. */

#include "kernels.h"
#include "grids.h"
#include "lanes.h"
#include "residual.h"
#include "residual_filter.h"

int residual_block(void) { return BLOCK; }

/* BLOCK outputs of `vectors` neighbouring vectors: out[o][x] = bias[o] + sum over i of weight[i][o] in[i][x] */
INLINE void product(const float *restrict weight, const float *restrict bias, const float *restrict in, long in_step,
                    long inputs, int vectors, Lanes sum[BLOCK][ACROSS])
{
#pragma GCC unroll 8
    for (int o = 0; o < BLOCK; o++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[o][v] = everywhere(bias[o]);
    for (long i = 0; i < inputs; i++) {
        Lanes x[ACROSS];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            x[v] = *(const Lanes *)(in + i * in_step + v * LANES);
            KEPT(x[v]);
        }
#pragma GCC unroll 8
        for (int o = 0; o < BLOCK; o++) {
            const Lanes w = everywhere(weight[i * BLOCK + o]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sum[o][v] += w * x[v];
        }
    }
}

INLINE void expand_block(const float *weight, const float *bias, const float *in, long inputs, float *out, long row,
                         int vectors)
{
    Lanes sum[BLOCK][ACROSS];
    product(weight, bias, in, row, inputs, vectors, sum);
#pragma GCC unroll 8
    for (int o = 0; o < BLOCK; o++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) *(Lanes *)(out + o * row + v * LANES) = within(sum[o][v], 6);
}

/* All hidden channels of one half of a row, from `seen`. */
static void expand_half(const float *seen, float *out, Weights w, const Work *work, Residual r)
{
    const long vectors = work->padded / LANES;
    for (long h = 0; h < r.hidden; h += BLOCK) {
        const float *weight = w.expand + h * r.inputs, *bias = w.expand_bias + h;
        float *into = out + h * work->row;
        long v = 0;
        for (; v + ACROSS <= vectors; v += ACROSS)
            expand_block(weight, bias, seen + v * LANES, r.inputs, into + v * LANES, work->row, ACROSS);
        for (; v < vectors; v++)
            expand_block(weight, bias, seen + v * LANES, r.inputs, into + v * LANES, work->row, 1);
    }
    if (work->half < work->padded) /* what a neighbour on the right reads there is nothing */
        for (long h = 0; h < r.hidden; h++)
            memset(out + h * work->row + work->half, 0, sizeof(float) * (work->padded - work->half));
}

static Finer finer_of(Residual r)
{
    return (Finer){r.in_t / r.time, r.in_y / r.space, r.in_x / r.space, r.time, r.space};
}

/* Row y of frame t of the input, all channels, as the expansion reads it. */
static void lay_out(const float *x, long t, long y, float *rows, const Work *work, Residual r)
{
    const Finer f = finer_of(r);
    for (long i = 0; i < r.inputs; i++) {
        const float *clip = x + i * f.t * f.y * f.x, *in = clip + (t * r.in_y + y) * r.in_x;
        float *row = rows + i * work->row + LANES;
        if (r.time * r.space > 1) finer_row(clip, row, work->finer, t, y, f);
        else if (r.stride == 1) memcpy(row, in, sizeof(float) * r.in_x);
        else
            for (long k = 0; k < work->half; k++) {
                row[k] = in[2 * k + 1];
                row[work->padded + LANES + k] = in[2 * k];
            }
    }
}

/* Input row y of frame t, into its place among the expanded rows. */
static void expand_row(const float *x, long t, long y, Weights w, const Work *work, Residual r)
{
    float *out = work->expanded + (y % RING * r.in_t + t) * work->channel;
    if (!r.expands) {
        lay_out(x, t, y, out, work, r);
        return;
    }
    lay_out(x, t, y, work->seen, work, r);
    for (long half = 0; half < r.stride; half++) {
        const long at = LANES + half * (work->padded + LANES);
        expand_half(work->seen + at, out + at, w, work, r);
    }
}

INLINE void project_block(const float *weight, const float *bias, const float *in, long row, long hidden,
                          const float *added, float *out, long plane, long outputs, long places, int vectors)
{
    Lanes sum[BLOCK][ACROSS];
    product(weight, bias, in, row, hidden, vectors, sum);
#pragma GCC unroll 8
    for (int o = 0; o < BLOCK; o++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            if (o >= outputs) continue;
            const long place = o * plane + v * LANES, left = places - v * LANES;
            if (left >= LANES) {
                if (added) sum[o][v] += *(const Lanes *)(added + place);
                *(Lanes *)(out + place) = sum[o][v];
            } else
                for (long x = 0; x < left; x++) out[place + x] = sum[o][v][x] + (added ? added[place + x] : 0);
        }
}

/* A row of a frame of the results, all channels; `plane` from one to the next, in `out` and in what is added. */
static void project_row(const float *filtered, const float *added, float *out, long plane, Weights w,
                        const Work *work, Residual r)
{
    const long vectors = filled(r.out_x, LANES) / LANES;
    for (long o = 0; o < r.outputs; o += BLOCK) {
        const float *weight = w.project + o * r.hidden, *bias = w.project_bias + o;
        for (long v = 0; v < vectors;) {
            const long place = o * plane + v * LANES, places = r.out_x - v * LANES;
            const float *in = filtered + v * LANES, *other = added ? added + place : 0;
            if (v + ACROSS <= vectors) {
                project_block(weight, bias, in, work->row, r.hidden, other, out + place, plane, r.outputs - o, places,
                              ACROSS);
                v += ACROSS;
            } else {
                project_block(weight, bias, in, work->row, r.hidden, other, out + place, plane, r.outputs - o, places,
                              1);
                v++;
            }
        }
    }
}

/* Row y of all frames of the results, as they are, out of the rows that were filtered. */
static void project_frames(const float *filtered, const float *added, float *out, long y, Weights w, const Work *work,
                           Residual r)
{
    const long plane = r.out_t * r.out_y * r.out_x;
    for (long t = 0; t < r.out_t; t++) {
        const long at = (t * r.out_y + y) * r.out_x;
        project_row(filtered + t * work->channel, added ? added + at : 0, out + at, plane, w, work, r);
    }
}

/* The same, four channels shuffled to two rows of one, and each frame to `lifts`. */
static void lift_frames(const float *filtered, const float *added, float *out, long y, Weights w, const Work *work,
                        Residual r)
{
    const long frames = r.lifts * r.out_t, of_frame = r.outputs * r.out_x;
    for (long t = 0; t < r.out_t; t++)
        project_row(filtered + t * work->channel, 0, work->lifted + t * of_frame, r.out_x, w, work, r);
    for (long c = 0; c < r.outputs / 4; c++)
        for (long t = 0; t < frames; t++) {
            const Between at = between(t, frames, r.out_t);
            for (long below = 0; below < 2; below++) {
                const float *even = work->lifted + at.low * of_frame + (4 * c + 2 * below) * r.out_x;
                const long place = (((c * frames + t) * r.out_y + y) * 2 + below) * 2 * r.out_x;
                interleave(even, even + r.out_x, (at.high - at.low) * of_frame, at.weight, out + place, r.out_x);
                for (long x = 0; added && x < 2 * r.out_x; x++) out[place + x] += added[place + x];
            }
        }
}

/* Rows of results that are made at once; of two with stride 2, the ring would have to hold five rows. */
static int rows_of(Residual r) { return r.stride == 1 ? 2 : 1; }

static Work work_of(float *place, Residual r)
{
    Work work = {.half = r.in_x / r.stride};
    work.padded = filled(work.half, LANES);
    work.row = r.stride * (work.padded + LANES) + LANES;
    work.channel = filled(r.hidden, BLOCK) * work.row;
    work.expanded = place;
    work.seen = work.expanded + RING * r.in_t * work.channel;
    work.filtered = work.seen + r.inputs * work.row;
    work.finer = work.filtered + rows_of(r) * r.out_t * work.channel;
    work.lifted = work.finer + finer_work(finer_of(r));
    return work;
}

/* Floats that `residual` needs to work with. */
long residual_work(Residual r)
{
    const Work work = work_of(0, r);
    const long lifted = r.lifts ? r.out_t * r.outputs * r.out_x : 0;
    return (RING * r.in_t + rows_of(r) * r.out_t) * work.channel + r.inputs * work.row + finer_work(finer_of(r)) + lifted;
}

/* x (batch, inputs, t / time, y / space, x / space) to y (batch, outputs, t / stride_t, y / stride, x / stride), or
   where it `lifts` (batch, outputs / 4, lifts t / stride_t, 2 y / stride, 2 x / stride); what is `added` has the shape of
   y, or is 0. `place` is where to work. */
void residual(const float *x, const float *added, float *y, float *place, Weights w, Residual r)
{
    const Work work = work_of(place, r);
    const Finer f = finer_of(r);
    memset(place, 0, sizeof(float) * residual_work(r));
    find_finer_weights(work.finer, f);
    for (long b = 0; b < r.batch; b++) {
        const float *in = x + b * r.inputs * f.t * f.y * f.x;
        const long at = b * MAX(r.lifts, 1) * r.outputs * r.out_t * r.out_y * r.out_x;
        const float *other = added ? added + at : 0;
        long expanded = 0;
        for (long row = 0; row < r.out_y; row += rows_of(r)) {
            const int rows = MIN(rows_of(r), r.out_y - row);
            for (; expanded < MIN(r.in_y, (row + rows - 1) * r.stride + 2); expanded++)
                for (long t = 0; t < r.in_t; t++) expand_row(in, t, expanded, w, &work, r);
            filter_rows(row, rows, w, &work, r);
            for (int more = 0; more < rows; more++) {
                const float *filtered = work.filtered + more * r.out_t * work.channel;
                if (r.lifts) lift_frames(filtered, other, y + at, row + more, w, &work, r);
                else project_frames(filtered, other, y + at, row + more, w, &work, r);
            }
        }
    }
}
