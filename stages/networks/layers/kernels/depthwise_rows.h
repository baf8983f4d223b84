/* One row of a depthwise convolution for a group of LANES channels: included once for each number of lanes.

   The sums of PLACES neighbours are kept in registers, so that a weight is read once for all of them and no addition
   waits for the one before. */

#define NAME(function) PASTED(function, LANES)
#define Lanes NAME(lanes)

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* out[x out_step] = sum over taps and k of  from[x in_step + offset k] * weight[k],  where that lies inside */
static inline void NAME(convolve_row)(const Taps *taps, const Line *line, float *out, long channels, long first)
{
    const long C = channels, inner = line->in_step * C;
    for (long x = 0; x < line->count;) {
        if (x >= line->inside.begin && x + PLACES <= line->inside.end) {
            Lanes sum[PLACES] = {0};
            for (int tap = 0; tap < taps->count; tap++)
                for (int k = 0; k < line->taps; k++) {
                    const float *in = taps->rows[tap] + x * inner + line->offset[k] * C + first;
                    const Lanes weight = *(const Lanes *)(taps->weights[tap] + line->weight[k] * C + first);
                    for (int p = 0; p < PLACES; p++) sum[p] += *(const Lanes *)(in + p * inner) * weight;
                }
            for (int p = 0; p < PLACES; p++) *(Lanes *)(out + (x + p) * line->out_step * C + first) = sum[p];
            x += PLACES;
        } else {
            Lanes sum = {0};
            for (int k = 0; k < line->taps; k++) {
                const long from = x * line->in_step + line->offset[k];
                if (from < 0 || from >= line->in_count) continue;
                for (int tap = 0; tap < taps->count; tap++)
                    sum += *(const Lanes *)(taps->rows[tap] + from * C + first) *
                           *(const Lanes *)(taps->weights[tap] + line->weight[k] * C + first);
            }
            *(Lanes *)(out + x * line->out_step * C + first) = sum;
            x++;
        }
    }
}

/* Adds to sums (k, channels) what one row of inputs and one of output gradients give; channels before `fresh` belong to
   the group before. */
static inline void NAME(correlate_row)(const float *in, const float *gradient, const Line *line, double *sums,
                                       long channels, long first, long fresh)
{
    const long C = channels, inner = line->in_step * C;
    for (int k = 0; k < line->taps; k++) {
        const long offset = line->offset[k];
        const long begin = MAX(0, divided_up(-offset, line->in_step));
        const long end = MIN(line->count, divided_down(line->in_count - 1 - offset, line->in_step) + 1);
        const float *from = in + offset * C + first, *g = gradient + first;
        Lanes sum[PLACES] = {0};
        long x = begin;
        for (; x + PLACES <= end; x += PLACES)
            for (int p = 0; p < PLACES; p++)
                sum[p] += *(const Lanes *)(from + (x + p) * inner) * *(const Lanes *)(g + (x + p) * C);
        for (; x < end; x++) sum[0] += *(const Lanes *)(from + x * inner) * *(const Lanes *)(g + x * C);
        for (int p = 1; p < PLACES; p++) sum[0] += sum[p];
        for (int c = fresh; c < LANES; c++) sums[k * C + first + c] += sum[0][c];
    }
}

#undef LANES
#undef NAME
#undef Lanes
