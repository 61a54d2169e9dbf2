/*
 * A table, fed packet by packet at explicit nanoseconds, which adds up all that comes out: whatever a test does, at its
 * end tap_close checks that every packet is in exactly one counter and in exactly one record.
 */

#ifndef TAP_H
#define TAP_H

#include <stdlib.h>

#include "check.h"
#include "decode.h"
#include "frame.h"
#include "vms.h"

#define MS INT64_C(1000000)
#define SECOND INT64_C(1000000000)
#define TAP_FINISHED 64

struct tap {
    vms_table_t *table;
    uint64_t fed;
    vms_record_t *rolled;       /* of the last window */
    uint32_t rolled_count;
    vms_bin_t *bins;
    uint32_t bin_count;
    uint32_t windows;
    vms_record_t sum;           /* c2s: of all records of all windows, both directions and overflow together */
    vms_record_t life;          /* c2s: of all finished flows */
    vms_record_t finished[TAP_FINISHED];    /* the first ones */
    uint64_t finished_count;
    uint16_t ip_id;
    bool keeps_finished;
};

static inline vms_options_t tap_options(void)
{
    return (vms_options_t){
        .secret = "a fixed secret.", .max_flows = 1000, .window_ns = 10 * SECOND, .idle_timeout_ns = 60 * SECOND,
        .tcp_idle_timeout_ns = 300 * SECOND, .active_timeout_ns = 1800 * SECOND, .link_type = 1, .vlan_in_key = 1,
        .keep_finished = 1,
    };
}

static inline struct tap tap_with(vms_options_t options)
{
    struct tap tap = {.table = vms_open(&options), .keeps_finished = options.keep_finished};
    if (!tap.table)
        abort();
    return tap;
}

static inline struct tap tap_open(void)
{
    return tap_with(tap_options());
}

/* ---- what comes out ---- */

static inline void tap_add_half(vms_half_t *sum, const vms_half_t *part)
{
    sum->bytes += part->bytes;
    sum->payload_bytes += part->payload_bytes;
    sum->unseen_bytes += part->unseen_bytes;
    sum->rtt_sum_ns += part->rtt_sum_ns;
    sum->packets += part->packets;
    sum->data_packets += part->data_packets;
    sum->mirror_duplicates += part->mirror_duplicates;
    sum->retransmissions += part->retransmissions;
    sum->spurious += part->spurious;
    sum->upstream_losses += part->upstream_losses;
    sum->reordered += part->reordered;
    sum->unknown_causes += part->unknown_causes;
    sum->rtt_count += part->rtt_count;
}

static inline void tap_add(vms_record_t *sum, const vms_record_t *part)
{
    tap_add_half(&sum->c2s, &part->c2s);
    tap_add_half(&sum->c2s, &part->s2c);
    sum->response_count += part->response_count;
    sum->response_sum_ns += part->response_sum_ns;
}

static inline void tap_take_finished(struct tap *tap)
{
    vms_record_t record;
    while (vms_take_finished(tap->table, &record, 1)) {
        tap_add(&tap->life, &record);
        if (tap->finished_count < TAP_FINISHED)
            tap->finished[tap->finished_count] = record;
        tap->finished_count++;
    }
}

static inline void tap_roll(struct tap *tap)
{
    uint32_t records, bins;
    vms_pending(tap->table, &records, &bins);
    free(tap->rolled);
    free(tap->bins);
    tap->rolled = malloc(records * sizeof *tap->rolled);
    tap->bins = malloc(bins * sizeof *tap->bins);
    tap->rolled_count = vms_roll(tap->table, tap->rolled, records, tap->bins, bins, &tap->bin_count);
    CHECK_EQUAL(tap->rolled_count, records);
    CHECK(tap->bin_count <= bins);
    for (uint32_t i = 0; i < tap->rolled_count; i++)
        tap_add(&tap->sum, &tap->rolled[i]);
    tap->windows++;
}

static inline vms_counters_t tap_counters(const struct tap *tap)
{
    vms_counters_t counters;
    vms_get_counters(tap->table, &counters);
    return counters;
}

static inline uint64_t tap_fate(const struct tap *tap, enum vms_fate fate)
{
    return tap_counters(tap).fate[fate];
}

/* ---- what goes in ---- */

/* The bytes lie in a block of exactly their size, so that AddressSanitizer sees a read past their end. */
static inline void tap_feed_bytes(struct tap *tap, int64_t at_ns, const uint8_t *bytes, size_t size)
{
    uint8_t *block = malloc(size);
    if (size)
        memcpy(block, bytes, size);
    vms_meta_t meta = {(uint32_t)(at_ns / SECOND), (uint32_t)(at_ns % SECOND), 0, (uint32_t)size};
    for (int tries = 0; tries < 4 && !vms_ingest(tap->table, block, size, &meta, 0, 1, 1); tries++) {
        tap_take_finished(tap);
        if (tries)
            tap_roll(tap);
    }
    free(block);
    tap->fed++;
}

static inline void tap_feed(struct tap *tap, int64_t at_ns, struct frame *frame)
{
    tap_feed_bytes(tap, at_ns, frame_bytes(frame), frame_size(frame));
}

/* A UDP datagram with 10 octets, all in all 38 octets of IP. */
static inline void tap_udp(struct tap *tap, int64_t at_ns, uint16_t src, uint16_t sport, uint16_t dst, uint16_t dport)
{
    struct frame f = frame_payload(10);
    put_udp(&f, sport, dport);
    write16(put_ipv4(&f, src, dst) + 4, ++tap->ip_id);
    put_ethernet(&f);
    tap_feed(tap, at_ns, &f);
}

/* ---- the end ---- */

/* Closes the window, which has to hold exactly one record, and hands that out. */
static inline vms_record_t tap_only(struct tap *tap)
{
    tap_roll(tap);
    if (!CHECK_EQUAL(tap->rolled_count, 1))
        return (vms_record_t){0};
    return tap->rolled[0];
}

static inline void tap_finish(struct tap *tap)
{
    while (vms_finish(tap->table))
        tap_take_finished(tap);
    tap_take_finished(tap);
    tap_roll(tap);
}

static inline void tap_check_totals(struct tap *tap)
{
    vms_counters_t c = tap_counters(tap);
    uint64_t fates = 0;
    for (int i = 0; i < VMS_FATES; i++)
        fates += c.fate[i];
    CHECK_EQUAL(c.received, tap->fed);
    CHECK_EQUAL(fates, tap->fed);
    CHECK_EQUAL(tap->sum.c2s.packets, c.fate[VMS_FATE_FLOW] + c.fate[VMS_FATE_OVERFLOW]);
    CHECK_EQUAL(tap->sum.c2s.mirror_duplicates, c.fate[VMS_FATE_MIRROR_DUPLICATE]);
    CHECK_EQUAL(tap->sum.c2s.bytes, c.ip_bytes);
    if (tap->keeps_finished)
        CHECK_EQUAL(tap->life.c2s.packets, c.fate[VMS_FATE_FLOW]);
}

static inline void tap_close(struct tap *tap)
{
    tap_finish(tap);
    tap_check_totals(tap);
    vms_memory_t memory;
    vms_get_memory(tap->table, &memory);
    CHECK_EQUAL(memory.flows_in_use, 0);
    vms_close(tap->table);
    free(tap->rolled);
    free(tap->bins);
    *tap = (struct tap){0};
}

#endif
