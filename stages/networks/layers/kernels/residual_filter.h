/* The depthwise convolution of an inverted residual (residual.c). */

/* What a tile of results reads of the expanded clip: one or two frames of one or two rows, so that a vector that is read
   once serves up to four of them. By which frames (the first, both, the second) and then by which rows, in this order. */
typedef struct {
    int count[9];
    const float *row[TAPS], *weights[TAPS][2][2];
    long offset[TAPS], slice[TAPS][2][2]; /* of a row of channel 0, and of its weights for each of the four */
} Taps;

INLINE void filter_block(const Taps *taps, const long at[3], const float *bias, float *const out[2][2], long x,
                         int frames, int rows, int vectors)
{
    Lanes sum[2][2][ALONG];
#define EACH(what) \
    _Pragma("GCC unroll 2") for (int f = 0; f < frames; f++) \
        _Pragma("GCC unroll 2") for (int r = 0; r < rows; r++) \
            _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++) what;
#define ADD(kind, from_f, to_f, from_r, to_r) \
    for (int end = tap + taps->count[kind]; tap < end; tap++) \
        _Pragma("GCC unroll 3") for (int k = 0; k < 3; k++) { \
            const float *place = taps->row[tap] + x + at[k]; \
            KEPT_PLACE(place); \
            _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++) { \
                Lanes in = *(const Lanes *)(place + v * LANES); \
                KEPT(in); \
                _Pragma("GCC unroll 2") for (int f = from_f; f < to_f; f++) \
                    _Pragma("GCC unroll 2") for (int r = from_r; r < to_r; r++) \
                        sum[f][r][v] += everywhere(taps->weights[tap][f][r][k]) * in; \
            } \
        }
#define ADD_ROWS(kind, from_f, to_f) \
    ADD(kind, from_f, to_f, 0, 1) \
    if (rows == 2) { \
        ADD(kind + 1, from_f, to_f, 0, 2) \
        ADD(kind + 2, from_f, to_f, 1, 2) \
    }
    EACH(sum[f][r][v] = everywhere(*bias))
    int tap = 0;
    ADD_ROWS(0, 0, 1)
    if (frames == 2) {
        ADD_ROWS(3, 0, 2)
        ADD_ROWS(6, 1, 2)
    }
    EACH(*(Lanes *)(out[f][r] + x + v * LANES) = within(sum[f][r][v], 6))
#undef ADD_ROWS
#undef ADD
#undef EACH
}

/* Whether place `from` is read by two neighbouring results, and which part of the kernel reads it: 0 by the first alone,
   1 by both, 2 by the second alone, -1 by none. */
static int kind_of(long from, long first, long stride, long kernel, int results, long part[2])
{
    part[0] = from - first * stride + (kernel - 1) / 2, part[1] = part[0] - stride;
    const int by_first = part[0] >= 0 && part[0] < kernel;
    const int by_second = results == 2 && part[1] >= 0 && part[1] < kernel;
    return by_first && by_second ? 1 : by_first ? 0 : by_second ? 2 : -1;
}

/* The taps of the tile that begins with row y of frame t of the results. */
static void find_taps(Taps *taps, long t, long y, int frames, int rows, const Work *work, Residual r)
{
    long part_t[2], part_y[2];
    int tap = 0;
    for (int kind = 0; kind < 9; kind++) {
        const int before = tap;
        for (long from_t = 0; from_t < r.in_t; from_t++) {
            if (kind_of(from_t, t, r.stride_t, r.frames, frames, part_t) != kind / 3) continue;
            for (long from_y = MAX(0, y * r.stride - 1); from_y < MIN(r.in_y, y * r.stride + 4); from_y++) {
                if (kind_of(from_y, y, r.stride, 3, rows, part_y) != kind % 3) continue;
                taps->offset[tap] = (from_y % RING * r.in_t + from_t) * work->channel + LANES;
                for (int f = 0; f < frames; f++)
                    for (int row = 0; row < rows; row++) taps->slice[tap][f][row] = 3 * (3 * part_t[f] + part_y[row]);
                tap++;
            }
        }
        taps->count[kind] = tap - before;
    }
}

/* One channel of a tile of rows of what the projection reads. */
INLINE void filter_tile(Taps *taps, long h, float *filtered, Weights w, const Work *work, Residual r, int frames,
                        int rows)
{
    const float *weight = w.depthwise + 9 * r.frames * h;
    int all = 0;
    for (int kind = 0; kind < 9; kind++) all += taps->count[kind];
    for (int tap = 0; tap < all; tap++) {
        taps->row[tap] = work->expanded + taps->offset[tap] + h * work->row;
        for (int f = 0; f < frames; f++)
            for (int row = 0; row < rows; row++) taps->weights[tap][f][row] = weight + taps->slice[tap][f][row];
    }
    const long even = work->padded + LANES; /* from the odd places to the even ones */
    const long at[3] = {-1, r.stride == 1 ? 0 : even, r.stride == 1 ? 1 : 0};
    const long vectors = filled(r.out_x, LANES) / LANES, many = ALONG / frames, to_row = r.out_t * work->channel;
    float *const first = filtered + h * work->row;
    float *const out[2][2] = {{first, first + to_row}, {first + work->channel, first + work->channel + to_row}};
    long v = 0;
    for (; v + many <= vectors; v += many)
        filter_block(taps, at, w.depthwise_bias + h, out, v * LANES, frames, rows, ALONG / frames);
    for (; v < vectors; v++) filter_block(taps, at, w.depthwise_bias + h, out, v * LANES, frames, rows, 1);
}

/* Rows y and, of two, y + 1 of all frames of what the projection reads: channel by channel, so that frames share what
   lies in the cache. */
static void filter_rows(long y, int rows, Weights w, const Work *work, Residual r)
{
    Taps taps[(FRAMES + 1) / 2];
    for (long t = 0; t < r.out_t; t += 2) find_taps(taps + t / 2, t, y, MIN(2, r.out_t - t), rows, work, r);
    for (long h = 0; h < r.hidden; h++)
        for (long t = 0; t < r.out_t; t += 2) {
            Taps *these = taps + t / 2;
            float *filtered = work->filtered + t * work->channel;
            const int are_two = t + 2 <= r.out_t;
            if (are_two && rows == 2) filter_tile(these, h, filtered, w, work, r, 2, 2);
            else if (are_two) filter_tile(these, h, filtered, w, work, r, 2, 1);
            else if (rows == 2) filter_tile(these, h, filtered, w, work, r, 1, 2);
            else filter_tile(these, h, filtered, w, work, r, 1, 1);
        }
}
