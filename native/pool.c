#include <stdlib.h>
#include <string.h>

#include "pool.h"

#define POOL_MOST_OBJECTS 0xfffffff0u

int pool_open(struct pool *pool, uint32_t object_size, uint64_t limit)
{
    memset(pool, 0, sizeof *pool);
    pool->object_size = object_size;
    pool->limit = limit > POOL_MOST_OBJECTS ? POOL_MOST_OBJECTS : (uint32_t)limit;
    pool->chunks = calloc((pool->limit >> POOL_CHUNK_BITS) + 1, sizeof *pool->chunks);
    return pool->chunks ? 0 : -1;
}

void pool_close(struct pool *pool)
{
    for (uint32_t i = 0; i < pool->chunk_count; i++)
        free(pool->chunks[i]);
    free(pool->chunks);
    memset(pool, 0, sizeof *pool);
}

static uint32_t take_fresh(struct pool *pool)
{
    if (pool->made == pool->limit)
        return 0;
    if (pool->made >> POOL_CHUNK_BITS == pool->chunk_count) {
        uint8_t *chunk = aligned_alloc(CACHE_LINE, (size_t)pool->object_size << POOL_CHUNK_BITS);
        if (!chunk)
            return 0;
        pool->chunks[pool->chunk_count++] = chunk;
    }
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
    return ((uint64_t)pool->chunk_count * pool->object_size) << POOL_CHUNK_BITS;
}
