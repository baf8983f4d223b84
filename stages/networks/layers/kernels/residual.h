/* What an inverted residual is, and where it is worked on (residual.c). */

#ifdef __AVX512F__
enum { BLOCK = 6, ACROSS = 4 };
#else
enum { BLOCK = 4, ACROSS = 2 };
#endif
enum { RING = 4, ALONG = 2 * ACROSS, FRAMES = 16, TAPS = 5 * 4 };

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

static long filled(long count, long parts) { return (count + parts - 1) / parts * parts; }
