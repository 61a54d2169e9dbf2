#define _DEFAULT_SOURCE 1           /* MAP_ANONYMOUS, madvise */

#include <sys/mman.h>

#include "memory.h"

static uint64_t whole_pages(uint64_t size)
{
    return (size + MEMORY_PAGE - 1) / MEMORY_PAGE * MEMORY_PAGE;
}

/* More than is asked for, of which what lies before the first place for a huge page, and behind the end, is given back. */
void *memory_reserve(uint64_t size)
{
    size = whole_pages(size);
    uint8_t *start = mmap(NULL, size + MEMORY_HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    uint64_t before = -(uintptr_t)start % MEMORY_HUGE_PAGE;
    if (before)
        munmap(start, before);
    munmap(start + before + size, MEMORY_HUGE_PAGE - before);
    return start + before;
}

int memory_grant(void *at, uint64_t size)
{
    return mprotect(at, whole_pages(size), PROT_READ | PROT_WRITE);
}

void memory_want_huge(void *at, uint64_t size)
{
#ifdef MADV_HUGEPAGE
    madvise(at, whole_pages(size), MADV_HUGEPAGE);
#endif
}

void *memory_array(uint64_t size)
{
    void *array = memory_reserve(size);
    if (array && memory_grant(array, size)) {
        memory_free(array, size);
        return NULL;
    }
    if (array)
        memory_want_huge(array, size);
    return array;
}

void memory_free(void *at, uint64_t size)
{
    if (at)
        munmap(at, whole_pages(size));
}
