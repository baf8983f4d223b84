/* A decoded frame as a network wants it, in one pass: bilinear, without antialiasing, corners not aligned, then less the
   mean and divided by the deviation of each colour. Frames are (y, x, 3); of bytes before, float32 behind. */

#include "kernels.h"
#include "grids.h"

enum { COLOURS = 3 };

typedef struct { long in_y, in_x, y, x; float mean[COLOURS], std[COLOURS]; } Scaling;

/* The two pixels between which the middle of a result lies. */
static Between around(long place, long results, long inputs)
{
    const float at = MAX(0, (place + 0.5f) * ((float)inputs / results) - 0.5f);
    const long low = MIN((long)at, inputs - 1);
    return (Between){low, MIN(low + 1, inputs - 1), at - low};
}

void scale(const unsigned char *in, float *out, Scaling s)
{
    const long values = COLOURS * s.in_x;
    Between *columns = malloc(sizeof(Between) * s.x);
    float *mixed = malloc(sizeof(float) * values);
    for (long x = 0; x < s.x; x++) columns[x] = around(x, s.x, s.in_x);
    for (long y = 0; y < s.y; y++) {
        const Between rows = around(y, s.y, s.in_y);
        const unsigned char *above = in + rows.low * values, *below = in + rows.high * values;
        for (long i = 0; i < values; i++) mixed[i] = above[i] * (1 - rows.weight) + below[i] * rows.weight;
        for (long x = 0; x < s.x; x++)
            for (long c = 0; c < COLOURS; c++) {
                const float left = mixed[COLOURS * columns[x].low + c], right = mixed[COLOURS * columns[x].high + c];
                const float value = left * (1 - columns[x].weight) + right * columns[x].weight;
                out[(y * s.x + x) * COLOURS + c] = (value - s.mean[c]) / s.std[c];
            }
    }
    free(columns);
    free(mixed);
}
