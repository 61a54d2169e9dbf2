/* The table's life: memory, options, counters. */

#include <stdlib.h>

#include "tcp.h"

#define CHUNKS_A_FLOW 2             /* of histogram bins, on average; enough for most, counted when not */
#define HOLES_A_FLOW 4              /* at a time; counted when not enough */

static int open_pool(vms_table_t *t, struct pool *pool, uint32_t object_size, uint64_t limit)
{
    return pool_open(pool, &t->ahead, object_size, limit);
}

static int open_pools(vms_table_t *t, uint64_t flows)
{
    uint64_t finished = t->options.keep_finished ? flows : 0;
    return open_pool(t, &t->flows, sizeof(struct flow), flows) || open_pool(t, &t->boards, board_size(), flows * 2) ||
           open_pool(t, &t->losses, board_losses_size(), flows * 2) ||
           open_pool(t, &t->flights, board_flight_size(), flows * 2) ||
           open_pool(t, &t->holes, board_hole_size(), flows * HOLES_A_FLOW) ||
           open_pool(t, &t->addresses, sizeof(struct addresses), flows + 1) ||     /* a new flow comes before one goes */
           open_pool(t, &t->troubles, 2 * sizeof(struct trouble), flows) ||
           open_pool(t, &t->transits, 2 * sizeof(vms_transit_t), flows) ||
           open_pool(t, &t->tunnels, sizeof(struct tunnel_ends), flows) ||
           open_pool(t, &t->totals, sizeof(struct totals), finished) ||
           open_pool(t, &t->bins, histogram_chunk_size(), flows * CHUNKS_A_FLOW);
}

static int open_memory(vms_table_t *t)
{
    uint64_t flows = t->options.max_flows;
    struct siphash_key secret;
    memcpy(&secret, t->options.secret, sizeof secret);
    t->hash_key = nh_key_of(secret);
    t->listed = malloc(flows * sizeof *t->listed);
    if (t->options.keep_finished)
        t->finished = malloc(FINISHED_CAPACITY * sizeof *t->finished);
    if (!t->listed || (t->options.keep_finished && !t->finished))
        return -1;
    return index_open(t) || open_pools(t, flows) || fragments_open(&t->decoder.fragments, secret) ||
           duplicates_open(&t->duplicates, t->options.secret, t->options.duplicate_horizon_ns);
}

vms_table_t *vms_open(const vms_options_t *options)
{
    vms_table_t *t = options->max_flows && options->max_flows <= VMS_FLOWS_MOST ? calloc(1, sizeof *t) : NULL;
    if (!t)
        return NULL;
    t->options = *options;
    memcpy(&t->presence.secret, options->secret, sizeof t->presence.secret);
    t->decoder.counters = &t->counters;
    t->expire_a_packet = options->is_unhurried ? UINT32_MAX : EXPIRE_A_PACKET;
    t->finished_capacity = FINISHED_CAPACITY;
    t->share.end = UINT64_MAX;
    t->share.number = t->presence.share = options->share;
    t->share.of = t->presence.shares = options->shares ? options->shares : 1;
    t->decoder.notices.are_elsewhere = options->share > 0;
    t->decoder.link_type = options->link_type;
    if (open_memory(t)) {
        vms_close(t);
        return NULL;
    }
    return t;
}

void vms_close(vms_table_t *t)
{
    if (!t)
        return;
    ahead_close(&t->ahead);
    pool_close(&t->flows);
    pool_close(&t->boards);
    pool_close(&t->holes);
    pool_close(&t->losses);
    pool_close(&t->flights);
    pool_close(&t->addresses);
    pool_close(&t->troubles);
    pool_close(&t->transits);
    pool_close(&t->tunnels);
    pool_close(&t->totals);
    pool_close(&t->bins);
    fragments_close(&t->decoder.fragments);
    notices_close(&t->decoder.notices);
    presence_close(&t->presence);
    duplicates_close(&t->duplicates);
    index_close(t);
    free(t->listed);
    free(t->finished);
    free(t);
}

void vms_set_link_type(vms_table_t *t, uint32_t link_type)
{
    t->decoder.link_type = link_type;
}

void count_adapter_timestamps(vms_table_t *t, uint32_t packets)
{
    t->counters.adapter_timestamps += packets;
}

uint64_t vms_passed(const vms_table_t *t)
{
    return t->share.passed;
}

void vms_end_at(vms_table_t *t, uint64_t end)
{
    t->share.end = end;
}

uint64_t vms_finish(vms_table_t *t)
{
    uint64_t left = 0;
    for (int kind = KIND_CLOSED; kind < KINDS; kind++) {
        uint32_t slot;
        while ((slot = flow_oldest(t, kind)) && flow_finished_room(t, 1))
            flow_end(t, slot, kind == KIND_CLOSED ? VMS_END_CLOSED : VMS_END_INPUT);
        left += t->queues[kind].length;
    }
    return left;
}

void vms_get_counters(const vms_table_t *t, vms_counters_t *counters)
{
    *counters = t->counters;
    counters->cards_lost = t->presence.lost;
}

void vms_get_memory(const vms_table_t *t, vms_memory_t *m)
{
    m->flow = sizeof(struct flow) + INDEX_BUCKETS_A_FLOW * sizeof *t->buckets + sizeof *t->listed;
    m->scoreboard = t->boards.object_size + t->losses.object_size + t->flights.object_size + sizeof(struct trouble);
    m->hole = t->holes.object_size;
    m->transits = t->transits.object_size;
    m->tunnel = t->tunnels.object_size + t->addresses.object_size;
    m->totals = t->options.keep_finished ? t->totals.object_size : 0;
    m->bins = t->bins.object_size;
    m->worst_flow = m->flow + 2 * (m->scoreboard + BOARD_HOLES * m->hole) + m->transits + m->tunnel +
                    m->totals;
    m->flows_in_use = t->flows.in_use;
    m->resident = pool_resident(&t->flows) + pool_resident(&t->boards) + pool_resident(&t->holes) +
                  pool_resident(&t->losses) + pool_resident(&t->flights) + pool_resident(&t->addresses) + pool_resident(&t->troubles) +
                  pool_resident(&t->transits) + pool_resident(&t->tunnels) +
                  pool_resident(&t->totals) + pool_resident(&t->bins) +
                  t->bucket_count * sizeof *t->buckets +
                  (t->finished ? t->finished_capacity * sizeof *t->finished : 0) +
                  (t->duplicates.sets ? DUPLICATE_SETS * sizeof *t->duplicates.sets : 0) +
                  FRAGMENT_SETS * sizeof *t->decoder.fragments.sets +
                  (t->presence.sets ? PRESENCE_SETS * sizeof *t->presence.sets : 0) +
                  (t->decoder.notices.kept ? NOTICE_CAPACITY * sizeof *t->decoder.notices.kept : 0);
}
