/* Memory that one window gives back stays with the process for the next one. A window takes a few hundred blocks of some
   megabytes; by itself the C library hands each of them back to the system and gets it again page by page, filled with
   zeros first, which takes a tenth of the time of a small student. Blocks above 32 MB, its limit, go the old way. */

#include <stdlib.h> /* which says whether this is glibc */

#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { LARGEST = 32 << 20, KEPT = 1 << 30 }; /* bytes of a block, and of what stays free in each arena */

void keep_memory(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, LARGEST);
    mallopt(M_TRIM_THRESHOLD, KEPT);
#endif
}
