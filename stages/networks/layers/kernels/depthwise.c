/* Gradients of a depthwise 3D convolution: output o of a channel reads the inputs  stride o - padding + k  along each
   axis. The convolution itself is oneDNN's.

   Weights lie (t, y, x, channel) here. The channels go in groups of as many as a vector holds, the last of which
   overlaps the one before where they do not divide. Whole rows are made at a time, so the rows that they read are still
   at hand when the next one needs them. */

#include "kernels.h"

enum {
    PLACES = 4,  /* outputs along x that are made at once */
    PARTS = 16,  /* of a clip, at most, each with sums of its own for every weight */
    ROWS = 64,   /* (t, y) of a kernel, at most */
    COLUMNS = 16 /* x of a kernel, at most */
};

typedef struct { long t, y, x; } Steps;

typedef struct {
    long batch, channels;
    Steps in, out, kernel, stride, padding;
    int threads;
} Shape;

/* The rows that one row of results reads, each with its slice (t, y) of the kernel. */
typedef struct {
    int count;
    const float *rows[ROWS];
    const float *weights[ROWS];
} Taps;

/* Along x: result x reads the places  x in_step + offset[k],  each with its own weight. */
typedef struct {
    long count, out_step, in_count, in_step;
    int taps;
    long offset[COLUMNS], weight[COLUMNS];
    struct { long begin, end; } inside; /* the results all of whose places exist */
} Line;

/* For b > 0 and any a, where C would round towards 0. */
static long divided_down(long a, long b) { return (a >= 0 ? a : a - b + 1) / b; }
static long divided_up(long a, long b) { return divided_down(a + b - 1, b); }

#define PASTED(function, lanes) PASTE(function, lanes)
#define PASTE(function, lanes) function##_##lanes
#define LANES 16
#include "depthwise_rows.h"
#define LANES 8
#include "depthwise_rows.h"
#define LANES 4
#include "depthwise_rows.h"
#define LANES 1
#include "depthwise_rows.h"

#define FOR_GROUPS_OF(lanes, channels, function, ...) \
    for (long group = 0; group < (channels); group += (lanes)) { \
        const long first = MIN(group, (channels) - (lanes)), fresh = group - first; \
        (void)fresh; \
        PASTED(function, lanes)(__VA_ARGS__); \
    }
#define FOR_GROUPS(channels, function, ...) \
    do { \
        if ((channels) >= 16) FOR_GROUPS_OF(16, channels, function, __VA_ARGS__) \
        else if ((channels) >= 8) FOR_GROUPS_OF(8, channels, function, __VA_ARGS__) \
        else if ((channels) >= 4) FOR_GROUPS_OF(4, channels, function, __VA_ARGS__) \
        else FOR_GROUPS_OF(1, channels, function, __VA_ARGS__) \
    } while (0)

static Line bounded(Line line)
{
    line.inside.begin = 0;
    line.inside.end = line.count;
    for (int k = 0; k < line.taps; k++) {
        const long last = divided_down(line.in_count - 1 - line.offset[k], line.in_step);
        line.inside.begin = MAX(line.inside.begin, divided_up(-line.offset[k], line.in_step));
        line.inside.end = MIN(line.inside.end, last + 1);
    }
    return line;
}

static Line line_of_outputs(Shape s)
{
    Line line = {.count = s.out.x, .out_step = 1, .in_count = s.in.x, .in_step = s.stride.x, .taps = s.kernel.x};
    for (long k = 0; k < s.kernel.x; k++) {
        line.offset[k] = k - s.padding.x;
        line.weight[k] = k;
    }
    return bounded(line);
}

/* Every stride-th input, from `phase` on, is read by the same taps. */
static Line line_of_inputs(Shape s, long phase)
{
    const long count = divided_up(s.in.x - phase, s.stride.x);
    Line line = {.count = count, .out_step = s.stride.x, .in_count = s.out.x, .in_step = 1, .taps = 0};
    for (long k = 0; k < s.kernel.x; k++) {
        if ((phase + s.padding.x - k) % s.stride.x) continue;
        line.offset[line.taps] = (phase + s.padding.x - k) / s.stride.x;
        line.weight[line.taps++] = k;
    }
    return bounded(line);
}

static void inputs_of(const float *gradient, const float *weight, float *of_input, Shape s)
{
    PARALLEL(omp parallel for num_threads(s.threads) schedule(static))
    for (long row = 0; row < s.batch * s.in.t * s.in.y; row++) {
        const long b = row / (s.in.t * s.in.y), t = row / s.in.y % s.in.t, y = row % s.in.y;
        Taps taps = {0};
        for (long kt = 0; kt < s.kernel.t; kt++)
            for (long ky = 0; ky < s.kernel.y; ky++) {
                const long ot = t + s.padding.t - kt, oy = y + s.padding.y - ky;
                if (ot < 0 || oy < 0 || ot % s.stride.t || oy % s.stride.y) continue;
                if (ot / s.stride.t >= s.out.t || oy / s.stride.y >= s.out.y) continue;
                taps.rows[taps.count] =
                    gradient + ((b * s.out.t + ot / s.stride.t) * s.out.y + oy / s.stride.y) * s.out.x * s.channels;
                taps.weights[taps.count++] = weight + (kt * s.kernel.y + ky) * s.kernel.x * s.channels;
            }
        for (long phase = 0; phase < s.stride.x; phase++) {
            const Line line = line_of_inputs(s, phase);
            float *into = of_input + (row * s.in.x + phase) * s.channels;
            FOR_GROUPS(s.channels, convolve_row, &taps, &line, into, s.channels, first);
        }
    }
}

/* sums: double (t, y, x, channel) of some rows of outputs */
static void add_weights_of_rows(const float *x, const float *gradient, double *sums, long begin, long end, Shape s)
{
    const Line line = line_of_outputs(s);
    for (long row = begin; row < end; row++) {
        const long b = row / (s.out.t * s.out.y), t = row / s.out.y % s.out.t, y = row % s.out.y;
        for (long slice = 0; slice < s.kernel.t * s.kernel.y; slice++) {
            const long it = t * s.stride.t - s.padding.t + slice / s.kernel.y;
            const long iy = y * s.stride.y - s.padding.y + slice % s.kernel.y;
            if (it < 0 || it >= s.in.t || iy < 0 || iy >= s.in.y) continue;
            const float *in = x + ((b * s.in.t + it) * s.in.y + iy) * s.in.x * s.channels;
            const float *g = gradient + row * s.out.x * s.channels;
            double *into = sums + slice * s.kernel.x * s.channels;
            FOR_GROUPS(s.channels, correlate_row, in, g, &line, into, s.channels, first, fresh);
        }
    }
}

void depthwise_of_weight(const float *x, const float *gradient, float *of_weight, Shape s)
{
    const long rows = s.batch * s.out.t * s.out.y, parts = MIN(PARTS, (rows + 7) / 8);
    const long taps = s.kernel.t * s.kernel.y * s.kernel.x, C = s.channels;
    double *sums = calloc(parts * taps * C, sizeof(double));
    PARALLEL(omp parallel for num_threads(s.threads) schedule(static))
    for (long p = 0; p < parts; p++)
        add_weights_of_rows(x, gradient, sums + p * taps * C, p * rows / parts, (p + 1) * rows / parts, s);
    for (long p = 1; p < parts; p++)
        for (long i = 0; i < taps * C; i++) sums[i] += sums[p * taps * C + i];
    for (long tap = 0; tap < taps; tap++)
        for (long c = 0; c < C; c++) of_weight[c * taps + tap] = sums[tap * C + c];
    free(sums);
}

/* (channel, tap) to (tap, channel); to be freed */
static float *channels_last(const float *weight, Shape s)
{
    const long taps = s.kernel.t * s.kernel.y * s.kernel.x, C = s.channels;
    float *last = malloc(sizeof(float) * taps * C);
    for (long tap = 0; tap < taps; tap++)
        for (long c = 0; c < C; c++) last[tap * C + c] = weight[c * taps + tap];
    return last;
}

void depthwise_of_input(const float *gradient, const float *weight, float *of_input, Shape s)
{
    float *last = channels_last(weight, s);
    inputs_of(gradient, last, of_input, s);
    free(last);
}
