/*
 * Fixed-size objects by 32-bit handle. Addresses for all of them are reserved at once, so that they never move and a
 * handle is a place; memory is taken when first needed. A handle of 0 means none. The number of objects is bounded; a
 * pool that is full, or for which the system has no memory, says so by handing out 0.
 */
#ifndef VMS_POOL_H
#define VMS_POOL_H

#include <stdint.h>

#include "ahead.h"
#include "cache.h"

struct pool {
    uint8_t *objects;           /* place 0 is never used */
    uint32_t object_size;
    uint32_t limit;             /* most objects that may exist */
    uint32_t made;              /* handles 1..made have been handed out at least once */
    uint32_t in_use;
    uint32_t free_head;         /* given back, linked through their first four bytes */
    uint64_t reserved;          /* octets of addresses */
    uint64_t granted;           /* octets that may be used by now */
    uint64_t asked;             /* octets up to which memory has been asked for ahead */
    _Atomic uint64_t ready;     /* octets up to which it has been taken ahead */
    struct ahead *ahead;
};

int pool_open(struct pool *pool, struct ahead *ahead, uint32_t object_size, uint64_t limit);
void pool_close(struct pool *pool);

/* An object with whatever was in it before, or 0. */
uint32_t pool_take(struct pool *pool);
void pool_give(struct pool *pool, uint32_t handle);

/* Gives every object back at once. */
void pool_reset(struct pool *pool);

uint64_t pool_resident(const struct pool *pool);

static inline void *pool_at(const struct pool *pool, uint32_t handle)
{
    return pool->objects + (size_t)handle * pool->object_size;
}

#endif
