/* The index of flows: it grows with them, two buckets at a time, and loses none. */

#include "flow.h"
#include "tap.h"

#define FLOWS 3000
#define BUCKETS_AT_FIRST 1024

/* Where the index finds the flow of a slot. */
static uint32_t found(const struct vms_table *t, uint32_t slot)
{
    const struct flow *f = flow_at(t, slot);
    struct place place = {.key = f->key, .hash = f->hash, .ip = {flow_address(t, f, 0), flow_address(t, f, 1)}};
    return index_find(t, &place);
}

/* How many of the flows that were ever made are alive, each being found at its place. */
static uint32_t found_alive(const struct vms_table *t)
{
    uint32_t alive = 0;
    for (uint32_t slot = 1; slot <= t->flows.made; slot++) {
        const struct flow *f = flow_at(t, slot);
        if (!f->id || f->kind == KIND_GHOST)
            continue;
        alive++;
        CHECK_EQUAL(found(t, slot), slot);
    }
    return alive;
}

/* How many flows all chains hold, each in the bucket that its hash says. */
static uint32_t chained(const struct vms_table *t)
{
    uint32_t count = 0;
    for (uint32_t bucket = 0; bucket < t->bucket_count; bucket++)
        for (uint32_t slot = t->buckets[bucket]; slot; slot = flow_at(t, slot)->chain, count++)
            CHECK(((flow_at(t, slot)->hash ^ bucket) & t->bucket_mask >> 1) == 0);
    return count;
}

static struct tap tap_of(uint64_t most)
{
    vms_options_t options = tap_options();
    options.max_flows = most;
    options.keep_finished = 0;
    return tap_with(options);
}

static void one_more(struct tap *tap, uint32_t i)
{
    tap_udp(tap, SECOND + i * MS / 10, (uint16_t)(i % 251), (uint16_t)(1024 + i), (uint16_t)(1000 + i % 7), 53);
}

/* A new flow brings at most two buckets; there are two for each slot in use; every flow is found at every step. */
static void grows_with_the_flows(void)
{
    struct tap tap = tap_of(1000000);
    const struct vms_table *t = tap.table;
    CHECK_EQUAL(t->bucket_count, BUCKETS_AT_FIRST);
    for (uint32_t i = 0; i < FLOWS; i++) {
        uint32_t before = t->bucket_count;
        one_more(&tap, i);
        CHECK(t->bucket_count - before <= INDEX_BUCKETS_A_FLOW);
        CHECK(t->bucket_count >= t->flows.made * INDEX_BUCKETS_A_FLOW);
        CHECK(t->bucket_count - 1 <= t->bucket_mask);
        CHECK_EQUAL(found_alive(t), i + 1);
    }
    CHECK_EQUAL(t->bucket_count, FLOWS * INDEX_BUCKETS_A_FLOW);
    CHECK_EQUAL(chained(t), FLOWS);
    tap_close(&tap);
}

/* Flows end while it grows, wherever in a chain they stand; their slots are used again, and then no bucket comes. */
static void flows_end_meanwhile(void)
{
    struct tap tap = tap_of(1000000);
    const struct vms_table *t = tap.table;
    for (uint32_t round = 1; round <= 3; round++) {
        for (uint32_t i = 0; i < 700 * round; i++)
            one_more(&tap, round * 10000 + i);
        for (uint32_t slot = round; slot <= t->flows.made; slot += 3)
            if (flow_at(t, slot)->id && flow_at(t, slot)->kind != KIND_GHOST)
                flow_end(tap.table, slot, VMS_END_IDLE);
        CHECK_EQUAL(chained(t), found_alive(t));
    }
    tap_finish(&tap);
    CHECK_EQUAL(chained(t), 0);
    uint32_t before = t->bucket_count, slots = t->flows.made;
    for (uint32_t i = 0; i < slots; i++)
        one_more(&tap, 50000 + i % 15000);
    CHECK_EQUAL(t->bucket_count, before);
    CHECK_EQUAL(chained(t), slots);
    tap_close(&tap);
}

/* The most flows need not make a power of two; beyond them, flows are evicted and buckets stay as many. */
static void stops_with_the_table(void)
{
    struct tap tap = tap_of(777);
    const struct vms_table *t = tap.table;
    for (uint32_t i = 0; i < FLOWS; i++)
        one_more(&tap, i);
    CHECK_EQUAL(t->bucket_count, 777 * INDEX_BUCKETS_A_FLOW);
    CHECK_EQUAL(chained(t), found_alive(t));
    CHECK_EQUAL(t->counters.flows_evicted, FLOWS - 777);
    tap_close(&tap);
}

int main(void)
{
    grows_with_the_flows();
    flows_end_meanwhile();
    stops_with_the_table();
    return check_summary("test_index");
}
