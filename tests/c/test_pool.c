/* Pools: objects by handle, memory in steps, and the next step taken ahead. */

#define _DEFAULT_SOURCE 1           /* nanosleep */

#include <time.h>

#include "check.h"
#include "memory.h"
#include "pool.h"

#define SIZE 352
#define A_STEP (MEMORY_HUGE_PAGE / SIZE)
#define PATIENCE 10000              /* ms */

static struct pool pool_of(struct ahead *ahead, uint64_t limit)
{
    struct pool pool;
    CHECK_EQUAL(pool_open(&pool, ahead, SIZE, limit), 0);
    return pool;
}

static void mark(const struct pool *pool, uint32_t handle)
{
    uint32_t *object = pool_at(pool, handle);
    for (uint32_t i = 0; i < SIZE / sizeof *object; i++)
        object[i] = handle * 100 + i;
}

static bool is_marked(const struct pool *pool, uint32_t handle)
{
    const uint32_t *object = pool_at(pool, handle);
    for (uint32_t i = 0; i < SIZE / sizeof *object; i++)
        if (object[i] != handle * 100 + i)
            return false;
    return true;
}

/* Handles ascend from 1, and those given back come again first; a full pool hands out 0. */
static void handles(void)
{
    struct ahead ahead = {0};
    struct pool pool = pool_of(&ahead, 3);
    for (uint32_t i = 1; i <= 3; i++)
        CHECK_EQUAL(pool_take(&pool), i);
    CHECK_EQUAL(pool_take(&pool), 0);
    pool_give(&pool, 2);
    CHECK_EQUAL(pool.in_use, 2);
    CHECK_EQUAL(pool_take(&pool), 2);
    CHECK_EQUAL(pool_take(&pool), 0);
    pool_close(&pool);
    ahead_close(&ahead);
}

/* A pool of few objects has nothing taken ahead, and there is no thread. */
static void few_objects(void)
{
    struct ahead ahead = {0};
    struct pool pool = pool_of(&ahead, 1000000);
    for (uint32_t i = 0; i < A_STEP / 5; i++)
        mark(&pool, pool_take(&pool));
    CHECK(!ahead.running);
    CHECK_EQUAL(pool_resident(&pool), MEMORY_HUGE_PAGE);
    pool_close(&pool);
    ahead_close(&ahead);
}

/* Waits until the thread has done what it was asked for. */
static bool is_ready(const struct pool *pool, uint64_t octets)
{
    for (int ms = 0; ms < PATIENCE && pool->ready < octets; ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return pool->ready >= octets;
}

/* The step behind the one in use is asked for once, taken ahead, and then used without asking the system again. */
static void the_next_step(void)
{
    struct ahead ahead = {0};
    struct pool pool = pool_of(&ahead, 1000000);
    for (uint32_t step = 1; step <= 4; step++) {
        while (pool.made < step * A_STEP - 10)
            mark(&pool, pool_take(&pool));
        CHECK_EQUAL(pool.granted, step * MEMORY_HUGE_PAGE);
        CHECK_EQUAL(pool.asked, (step + 1) * MEMORY_HUGE_PAGE);
        CHECK(is_ready(&pool, (step + 1) * MEMORY_HUGE_PAGE));
        CHECK_EQUAL(pool_resident(&pool), (step + 1) * MEMORY_HUGE_PAGE);
    }
    pool_close(&pool);
    ahead_close(&ahead);
}

/* Whether the thread keeps up or not: what was written into objects stays, and the end of a pool is no whole step. */
static void nothing_is_lost(void)
{
    enum { OBJECTS = 7 * A_STEP + 123 };
    struct ahead ahead = {0};
    struct pool pool = pool_of(&ahead, OBJECTS);
    for (uint32_t i = 1; i <= OBJECTS; i++) {
        CHECK_EQUAL(pool_take(&pool), i);
        mark(&pool, i);
    }
    CHECK_EQUAL(pool_take(&pool), 0);
    CHECK_EQUAL(pool.granted, pool.reserved);
    ahead_close(&ahead);
    for (uint32_t i = 1; i <= OBJECTS; i++)
        CHECK(is_marked(&pool, i));
    pool_close(&pool);
}

int main(void)
{
    handles();
    few_objects();
    the_next_step();
    nothing_is_lost();
    return check_summary("test_pool");
}
