/* Clips on finer grids, for inference. A clip is (batch, channel, frame, y, x) in memory, float32. */

#include "kernels.h"
#include "grids.h"

typedef struct { long planes, t, y, x, time, space; } Grid; /* planes: batch times channels of the input */

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

/* (planes, t, y, x) to (planes, time t, space y, space x) */
void interpolate(const float *in, float *out, Grid g)
{
    const Finer f = {g.t, g.y, g.x, g.time, g.space};
    const long frames = g.time * g.t, rows = g.space * g.y, columns = g.space * g.x;
    float *work = malloc(sizeof(float) * finer_work(f));
    find_finer_weights(work, f);
    for (long c = 0; c < g.planes; c++)
        for (long t = 0; t < frames; t++)
            for (long y = 0; y < rows; y++)
                finer_row(in + c * g.t * g.y * g.x, out + ((c * frames + t) * rows + y) * columns, work, t, y, f);
    free(work);
}
