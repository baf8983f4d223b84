/* Batch norm and activation: y = scale x + shift, clamped to [0, top] where top > 0.

   Places of few channels are taken several at once, so that vectors are full: `width` is a multiple of `channels`, and
   scale, shift, ... are repeated along it. */

#include "kernels.h"

enum {
    CHUNKS = 64,  /* parts of a clip, at most, whose sums are taken apart */
    BLOCK = 16384 /* values whose sums are kept in single precision */
};

typedef struct {
    long values;   /* in the clip */
    long channels;
    float epsilon; /* added to the variance */
    float top;     /* of the activation; 0: none */
    int threads;
} Norm;

typedef struct { float *mean, *variance, *scale, *shift; } Saved; /* (channels) each */

INLINE float clamped(float value, float top)
{
    value = value < 0 ? 0 : value; /* written so that NaN stays NaN */
    return value > top ? top : value;
}

static long width_of(long channels)
{
    long width = channels;
    while (width < 64 || (width % 16 && width < 256)) width += channels;
    return width;
}

static float *repeated(const float *values, long channels, long width)
{
    float *wide = malloc(sizeof(float) * width);
    for (long copy = 0; copy < width; copy += channels) memcpy(wide + copy, values, sizeof(float) * channels);
    return wide;
}

/* One chunk: sums of a and of a (x - centre), where a is what of the gradient passes, or x - centre without one. */
INLINE void chunk_sums(const float *restrict x, const float *restrict gradient, const float *restrict scale,
                       const float *restrict shift, const float *restrict centre, long begin, long end, long width,
                       float top, double *restrict first, double *restrict second)
{
    float *restrict s = malloc(2 * sizeof(float) * width), *restrict q = s + width;
    for (long block = begin; block < end;) {
        const long stop = MIN(end, block + MAX(1, BLOCK / width) * width);
        for (long c = 0; c < width; c++) s[c] = q[c] = 0;
        for (; block < stop; block += width) {
            const long n = MIN(width, stop - block);
            const float *restrict in = x + block, *restrict g = gradient + block;
            if (!gradient)
                for (long c = 0; c < n; c++) { float a = in[c] - centre[c]; s[c] += a; q[c] += a * a; }
            else if (top > 0)
                for (long c = 0; c < n; c++) {
                    float y = in[c] * scale[c] + shift[c];
                    float a = y > 0 && y < top ? g[c] : 0;
                    s[c] += a; q[c] += a * (in[c] - centre[c]);
                }
            else
                for (long c = 0; c < n; c++) { s[c] += g[c]; q[c] += g[c] * (in[c] - centre[c]); }
        }
        for (long c = 0; c < width; c++) { first[c] += s[c]; second[c] += q[c]; }
    }
    free(s);
}

/* Both sums over the whole clip, double (2, channels); to be freed. */
static double *sums_of(const float *x, const float *gradient, const float *scale, const float *shift,
                       const float *centre, Norm norm)
{
    const long C = norm.channels, width = width_of(C);
    const long chunks = MIN(CHUNKS, (norm.values + BLOCK - 1) / BLOCK);
    const long part = ((norm.values + width - 1) / width + chunks - 1) / chunks * width;
    double *parts = calloc(chunks * 2 * width, sizeof(double)), *sums = calloc(2 * C, sizeof(double));
    PARALLEL(omp parallel for num_threads(norm.threads) schedule(static))
    for (long chunk = 0; chunk < chunks; chunk++) {
        double *first = parts + 2 * width * chunk;
        chunk_sums(x, gradient, scale, shift, centre, MIN(norm.values, chunk * part),
                   MIN(norm.values, (chunk + 1) * part), width, norm.top, first, first + width);
    }
    for (long row = 0; row < 2 * chunks; row++)
        for (long copy = 0; copy < width; copy += C)
            for (long c = 0; c < C; c++) sums[row % 2 * C + c] += parts[row * width + copy + c];
    free(parts);
    return sums;
}

void norm_forward(const float *x, const float *weight, const float *bias, float *y, Saved saved, Norm norm)
{
    const long C = norm.channels, width = width_of(C);
    const double rows = norm.values / C;
    float *pivot = repeated(x, C, width); /* sums of differences lose less to rounding */
    double *sums = sums_of(x, 0, 0, 0, pivot, norm);
    for (long c = 0; c < C; c++) {
        const double off = sums[c] / rows, mean = off + x[c], variance = MAX(0, sums[C + c] / rows - off * off);
        const double scale = weight[c] / sqrt(variance + norm.epsilon);
        saved.mean[c] = mean;
        saved.variance[c] = variance;
        saved.scale[c] = scale;
        saved.shift[c] = bias[c] - mean * saved.scale[c];
    }
    float *scale = repeated(saved.scale, C, width), *shift = repeated(saved.shift, C, width);
    PARALLEL(omp parallel for num_threads(norm.threads) schedule(static))
    for (long row = 0; row < norm.values; row += width) {
        const long n = MIN(width, norm.values - row);
        const float *restrict in = x + row;
        float *restrict out = y + row;
        if (norm.top > 0)
            for (long c = 0; c < n; c++) out[c] = clamped(in[c] * scale[c] + shift[c], norm.top);
        else
            for (long c = 0; c < n; c++) out[c] = in[c] * scale[c] + shift[c];
    }
    free(pivot); free(sums); free(scale); free(shift);
}

/* of_input = scale a - (constant + slope x), where a is what passes the activation:
   the part of a that any shift and any scaling of x would take up is removed. */
void norm_backward(const float *x, const float *of_output, Saved saved, float *of_input, float *of_weight,
                   float *of_bias, Norm norm)
{
    const long C = norm.channels, width = width_of(C);
    const double rows = norm.values / C;
    float *scale = repeated(saved.scale, C, width), *shift = repeated(saved.shift, C, width);
    float *constant = repeated(saved.mean, C, width), *slope = malloc(sizeof(float) * width);
    double *sums = sums_of(x, of_output, scale, shift, constant, norm);
    for (long c = 0; c < C; c++) {
        const double variance = (double)saved.variance[c] + norm.epsilon;
        const double along = scale[c] * sums[C + c] / (variance * rows);
        slope[c] = along;
        constant[c] = scale[c] * sums[c] / rows - along * saved.mean[c];
        of_weight[c] = sums[C + c] / sqrt(variance);
        of_bias[c] = sums[c];
    }
    for (long c = C; c < width; c++) {
        slope[c] = slope[c - C];
        constant[c] = constant[c - C];
    }
    PARALLEL(omp parallel for num_threads(norm.threads) schedule(static))
    for (long row = 0; row < norm.values; row += width) {
        const long n = MIN(width, norm.values - row);
        const float *restrict in = x + row, *restrict g = of_output + row;
        float *restrict out = of_input + row;
        if (norm.top > 0)
            for (long c = 0; c < n; c++) {
                float y = in[c] * scale[c] + shift[c];
                float a = y > 0 && y < norm.top ? g[c] : 0;
                out[c] = scale[c] * a - (constant[c] + slope[c] * in[c]);
            }
        else
            for (long c = 0; c < n; c++) out[c] = scale[c] * g[c] - (constant[c] + slope[c] * in[c]);
    }
    free(scale); free(shift); free(constant); free(slope); free(sums);
}
