/* Memory is fetched ahead by whole cache lines. */
#ifndef VMS_CACHE_H
#define VMS_CACHE_H

#include <stddef.h>

#define CACHE_LINE 64

/* Says that the line will be read and written soon. gcc drops calls of a function that does nothing but this, as if it
   did nothing: hence the empty statement, which it must not drop. */
static inline void fetch_line(const void *at)
{
    __builtin_prefetch(at, 1);
    __asm__ volatile("");
}

static inline void fetch_lines(const void *at, size_t size)
{
    for (size_t offset = 0; offset < size; offset += CACHE_LINE)
        fetch_line((const char *)at + offset);
}

#endif
