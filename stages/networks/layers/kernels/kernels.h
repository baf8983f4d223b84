/* Kernels for training on channels-last clips: batch norm with its activation, and the gradients of depthwise
   3D convolutions.

   A clip is (batch, frame, y, x, channel) in memory, float32. Every loop runs along the channels, so a compiler makes
   vector instructions of it without being allowed to reorder a sum. Sums over a whole clip are taken in parts whose
   number depends on nothing, and are added up in order and in double precision: the result has the same bits whatever
   the number of threads. What costs here is memory traffic, so each kernel passes over a clip as seldom as it can. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define INLINE static inline __attribute__((always_inline))
#define PARALLEL(...) _Pragma(#__VA_ARGS__)
