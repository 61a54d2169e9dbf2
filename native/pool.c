#include <stdbool.h>
#include <string.h>

#include "memory.h"
#include "pool.h"

#define POOL_MOST_OBJECTS 0xfffffff0u
#define POOL_STEP MEMORY_HUGE_PAGE
#define POOL_FEW (POOL_STEP / 4)        /* octets up to which nothing is taken ahead, for tables of few flows */

int pool_open(struct pool *pool, struct ahead *ahead, uint32_t object_size, uint64_t limit)
{
    memset(pool, 0, sizeof *pool);
    pool->ahead = ahead;
    pool->object_size = object_size;
    pool->limit = limit > POOL_MOST_OBJECTS ? POOL_MOST_OBJECTS : (uint32_t)limit;
    pool->reserved = (pool->limit + 1ULL) * object_size;
    pool->objects = memory_reserve(pool->reserved);
    if (!pool->objects)
        return -1;
    if (pool->reserved > POOL_STEP)                     /* the first step stays small, for tables of few flows */
        memory_want_huge(pool->objects + POOL_STEP, pool->reserved - POOL_STEP);
    return 0;
}

void pool_close(struct pool *pool)
{
    memory_free(pool->objects, pool->reserved);
    memset(pool, 0, sizeof *pool);
}

static uint64_t step_from(const struct pool *pool, uint64_t at)
{
    return pool->reserved - at < POOL_STEP ? pool->reserved - at : POOL_STEP;
}

/* Makes room for one object more, and for many after it. */
static bool grant(struct pool *pool)
{
    uint64_t ready = atomic_load_explicit(&pool->ready, memory_order_acquire), step = step_from(pool, pool->granted);
    if (ready <= pool->granted && memory_grant(pool->objects + pool->granted, step))
        return false;
    pool->granted += step;
    return true;
}

/* Has the next step taken ahead. */
static void ask_ahead(struct pool *pool)
{
    uint64_t step = step_from(pool, pool->granted), end = pool->granted + step;
    pool->asked = pool->granted + POOL_STEP;
    if (step)
        ahead_ask(pool->ahead, (struct ahead_request){pool->objects + pool->granted, step, &pool->ready, end});
}

static uint32_t take_fresh(struct pool *pool)
{
    if (pool->made == pool->limit)
        return 0;
    uint64_t end = (pool->made + 2ULL) * pool->object_size;
    while (end > pool->granted)
        if (!grant(pool))
            return 0;
    if (pool->asked <= pool->granted && end > POOL_FEW)
        ask_ahead(pool);
    return ++pool->made;
}

uint32_t pool_take(struct pool *pool)
{
    uint32_t handle = pool->free_head;
    if (handle)
        memcpy(&pool->free_head, pool_at(pool, handle), sizeof pool->free_head);
    else if (!(handle = take_fresh(pool)))
        return 0;
    pool->in_use++;
    return handle;
}

void pool_give(struct pool *pool, uint32_t handle)
{
    memcpy(pool_at(pool, handle), &pool->free_head, sizeof pool->free_head);
    pool->free_head = handle;
    pool->in_use--;
}

void pool_reset(struct pool *pool)
{
    pool->free_head = 0;
    pool->made = 0;
    pool->in_use = 0;
}

uint64_t pool_resident(const struct pool *pool)
{
    uint64_t ready = atomic_load_explicit(&pool->ready, memory_order_relaxed);
    return ready > pool->granted ? ready : pool->granted;
}
