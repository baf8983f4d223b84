/* A whole inverted residual for inference: 1x1 expansion, ReLU6, depthwise 3x3 over 1 to 3 frames, ReLU6, 1x1
   projection, with norms folded into all three. Its input may be brought to a finer grid as it is read, and its results
   be pixel-shuffled and added to others as they are written (grids.h), so that no large clip is passed over once more.

   The expanded clip, twice to six times the input, is what such a layer spends its time on when it is written out and
   read again. Here it never leaves the cache: of each frame, the three rows that the next row of results reads are
   kept, each row is expanded once, and rows lie along vectors, so that 7 channels cost no more than 7.

   A clip is (batch, channel, frame, y, x) in memory, float32. Weights of the products lie in blocks of BLOCK outputs,
   (block, input, BLOCK), the last filled up with zeros. Rows in `work` have LANES zeros on both sides; where x has
   stride 2 the odd places stand before the even ones, each half with zeros on its left. */

#include "kernels.h"
#include "grids.h"
#include "lanes.h"

#ifdef __AVX512F__
enum { BLOCK = 6, ACROSS = 4 };
#else
enum { BLOCK = 4, ACROSS = 2 };
#endif
enum { RING = 4, ALONG = 2 * ACROSS, FRAMES = 16 };

typedef struct {
    long batch, inputs, hidden, outputs;
    long in_t, in_y, in_x, out_t, out_y, out_x;
    long frames, stride_t, stride; /* of the depthwise kernel; y and x have one stride */
    long expands;                  /* whether there is an expansion */
    long time, space;              /* the input is a clip so many times coarser than in_t, in_y, in_x */
    long lifts;                    /* 0, or how many frames each becomes of results that are pixel-shuffled */
} Residual;

typedef struct { const float *expand, *expand_bias, *depthwise, *depthwise_bias, *project, *project_bias; } Weights;

typedef struct {
    long half;    /* places in a row of which neighbours are read: x, or the odd or the even ones */
    long padded;  /* those, filled up to whole vectors */
    long row;     /* floats of a row, zeros included */
    long channel; /* rows of a channel in `expanded` follow its neighbours' at this distance */
    float *expanded, *seen, *filtered;
    float *finer;  /* where rows of a finer grid are made */
    float *lifted; /* a row of results of all frames before it is shuffled: (frame, channel, x) */
} Work;

int residual_block(void) { return BLOCK; }

static long filled(long count, long parts) { return (count + parts - 1) / parts * parts; }

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

/* Rows of the expanded clip that one or two frames of a row of results read. */
typedef struct {
    int frames, first, both, second; /* how many rows are read by the one, by both, by the other; in this order */
    const float *rows[18], *weights[18][2];
    long offset[18], slice[18][2]; /* of a row of channel 0, and of its weights for either frame */
} Taps;

INLINE void filter_block(const Taps *taps, const long at[3], const float *bias, float *const out[2], long x, int frames,
                         int vectors)
{
    Lanes sum[2][ALONG];
#pragma GCC unroll 8
    for (int f = 0; f < frames; f++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sum[f][v] = everywhere(*bias);
#define ADD(count, from, to) \
    for (int end = tap + (count); tap < end; tap++) \
        _Pragma("GCC unroll 3") for (int k = 0; k < 3; k++) { \
            const float *place = taps->rows[tap] + x + at[k]; \
            KEPT_PLACE(place); \
            _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++) { \
                Lanes in = *(const Lanes *)(place + v * LANES); \
                KEPT(in); \
                _Pragma("GCC unroll 2") for (int f = from; f < to; f++) \
                    sum[f][v] += everywhere(taps->weights[tap][f][k]) * in; \
            } \
        }
    int tap = 0;
    ADD(taps->first, 0, 1)
    if (frames == 2) {
        ADD(taps->both, 0, 2)
        ADD(taps->second, 1, 2)
    }
#undef ADD
#pragma GCC unroll 8
    for (int f = 0; f < frames; f++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) *(Lanes *)(out[f] + x + v * LANES) = within(sum[f][v], 6);
}

/* The taps of row y of results, of frame t and of the next where there is one. */
static void find_taps(Taps *taps, long t, long y, const Work *work, Residual r)
{
    int count = 0, counts[3] = {0};
    taps->frames = t + 2 <= r.out_t ? 2 : 1;
    for (int kind = 0; kind < 3; kind++)
        for (long from_t = 0; from_t < r.in_t; from_t++) {
            const long first = from_t - t * r.stride_t + (r.frames - 1) / 2, second = first - r.stride_t;
            const int by_first = first >= 0 && first < r.frames;
            const int by_second = taps->frames == 2 && second >= 0 && second < r.frames;
            if (!(by_first || by_second) || kind != (by_first && by_second ? 1 : by_first ? 0 : 2)) continue;
            for (long ky = 0; ky < 3; ky++) {
                const long from_y = y * r.stride + ky - 1;
                if (from_y < 0 || from_y >= r.in_y) continue;
                taps->offset[count] = (from_y % RING * r.in_t + from_t) * work->channel + LANES;
                taps->slice[count][0] = 3 * (3 * first + ky);
                taps->slice[count++][1] = 3 * (3 * second + ky);
                counts[kind]++;
            }
        }
    taps->first = counts[0], taps->both = counts[1], taps->second = counts[2];
}

/* One channel of one or two frames of a row of what the projection reads. */
INLINE void filter_rows(Taps *taps, long h, float *filtered, Weights w, const Work *work, Residual r, int frames)
{
    const float *weight = w.depthwise + 9 * r.frames * h;
    for (int tap = 0; tap < taps->first + taps->both + taps->second; tap++) {
        taps->rows[tap] = work->expanded + taps->offset[tap] + h * work->row;
        for (int f = 0; f < frames; f++) taps->weights[tap][f] = weight + taps->slice[tap][f];
    }
    const long even = work->padded + LANES; /* from the odd places to the even ones */
    const long at[3] = {-1, r.stride == 1 ? 0 : even, r.stride == 1 ? 1 : 0};
    const long vectors = filled(r.out_x, LANES) / LANES, many = ALONG / frames;
    float *const out[2] = {filtered + h * work->row, filtered + work->channel + h * work->row};
    long v = 0;
    for (; v + many <= vectors; v += many)
        filter_block(taps, at, w.depthwise_bias + h, out, v * LANES, frames, ALONG / frames);
    for (; v < vectors; v++) filter_block(taps, at, w.depthwise_bias + h, out, v * LANES, frames, 1);
}

/* Row y of all frames of what the projection reads: channel by channel, so that frames share what lies in the cache. */
static void filter_row(long y, Weights w, const Work *work, Residual r)
{
    Taps taps[(FRAMES + 1) / 2];
    for (long t = 0; t < r.out_t; t += 2) find_taps(taps + t / 2, t, y, work, r);
    for (long h = 0; h < r.hidden; h++)
        for (long t = 0; t < r.out_t; t += 2) {
            float *filtered = work->filtered + t * work->channel;
            if (taps[t / 2].frames == 2) filter_rows(taps + t / 2, h, filtered, w, work, r, 2);
            else filter_rows(taps + t / 2, h, filtered, w, work, r, 1);
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
            float *into = out + o * plane + v * LANES;
            const long left = places - v * LANES;
            Lanes other = {0};
            if (added) memcpy(&other, added + o * plane + v * LANES, sizeof(float) * MIN(left, LANES));
            other += sum[o][v];
            if (left >= LANES) *(Lanes *)into = other;
            else memcpy(into, &other, sizeof(float) * left);
        }
}

/* A row of frame t of the results, all channels; `plane` from one to the next, in `out` and in what is added. */
static void project_row(const float *added, float *out, long plane, long t, Weights w, const Work *work, Residual r)
{
    const float *filtered = work->filtered + t * work->channel;
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

/* Row y of all frames of the results, as they are. */
static void project_rows(const float *added, float *out, long y, Weights w, const Work *work, Residual r)
{
    for (long t = 0; t < r.out_t; t++) {
        const long at = (t * r.out_y + y) * r.out_x;
        project_row(added ? added + at : 0, out + at, r.out_t * r.out_y * r.out_x, t, w, work, r);
    }
}

/* The same, four channels shuffled to two rows of one, and each frame to `lifts`. */
static void lift_rows(const float *added, float *out, long y, Weights w, const Work *work, Residual r)
{
    const long frames = r.lifts * r.out_t, of_frame = r.outputs * r.out_x;
    for (long t = 0; t < r.out_t; t++) project_row(0, work->lifted + t * of_frame, r.out_x, t, w, work, r);
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

static Work work_of(float *place, Residual r)
{
    Work work = {.half = r.in_x / r.stride};
    work.padded = filled(work.half, LANES);
    work.row = r.stride * (work.padded + LANES) + LANES;
    work.channel = filled(r.hidden, BLOCK) * work.row;
    work.expanded = place;
    work.seen = work.expanded + RING * r.in_t * work.channel;
    work.filtered = work.seen + r.inputs * work.row;
    work.finer = work.filtered + r.out_t * work.channel;
    work.lifted = work.finer + finer_work(finer_of(r));
    return work;
}

/* Floats that `residual` needs to work with. */
long residual_work(Residual r)
{
    const Work work = work_of(0, r);
    const long lifted = r.lifts ? r.out_t * r.outputs * r.out_x : 0;
    return (RING * r.in_t + r.out_t) * work.channel + r.inputs * work.row + finer_work(finer_of(r)) + lifted;
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
        for (long row = 0; row < r.out_y; row++) {
            for (; expanded < MIN(r.in_y, row * r.stride + 2); expanded++)
                for (long t = 0; t < r.in_t; t++) expand_row(in, t, expanded, w, &work, r);
            filter_row(row, w, &work, r);
            if (r.lifts) lift_rows(other, y + at, row, w, &work, r);
            else project_rows(other, y + at, row, w, &work, r);
        }
    }
}
