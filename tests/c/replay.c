/*
 * Replays classic pcap files through vms_api.h, for AddressSanitizer and UBSan to watch: whole, cut at every length,
 * read as other link types, and mutated. Every packet lies in a block of exactly its size, so that a read past its end
 * is seen. Whatever the bytes are, each packet has to end in exactly one counter and all records have to add up.
 *
 *     replay FILE...        exits 1 when counters do not add up or there was no packet, 2 when a file cannot be read
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"

#define BATCH 64                /* packets of one vms_ingest call */
#define HARD_PACKETS 64         /* of each file, those that are cut, relabelled and mutated */
#define CUT_LENGTHS 400         /* deeper headers than this do not occur */
#define MUTATIONS 400           /* of each of these packets */
#define TAKE 64                 /* finished flows taken at a time */

/* A table, and what it has been given and has handed out so far. */
struct replay {
    vms_table_t *table;
    uint64_t fed;
    uint64_t in_records;        /* packets, in the windows' records */
    uint64_t record_bytes;
    uint64_t in_finished;       /* packets, in finished flows */
};

struct profile {
    const char *name;
    uint64_t max_flows;
    uint8_t vlan_in_key;
    uint8_t keep_finished;
};

static const struct profile profiles[] = {
    {"roomy table", 4096, 1, 1},
    {"tiny table", 4, 0, 0},
};

/* The link types that the sensor decodes, and one that it does not: https://www.tcpdump.org/linktypes.html */
static const uint32_t link_types[] = {0, 1, 12, 101, 108, 113, 228, 229, 276, 147};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* xorshift64: the same mutations in every run. */
static uint64_t random_state;

static uint32_t random_below(uint32_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32) % bound;
}

/* --- the table --- */

static void open_replay(struct replay *replay, const struct profile *profile, uint32_t link_type)
{
    vms_options_t options = {
        .secret = "a fixed secret.",
        .max_flows = profile->max_flows,
        .window_ns = INT64_C(10000000000),
        .idle_timeout_ns = INT64_C(60000000000),
        .tcp_idle_timeout_ns = INT64_C(300000000000),
        .active_timeout_ns = INT64_C(1800000000000),
        .link_type = link_type,
        .vlan_in_key = profile->vlan_in_key,
        .keep_finished = profile->keep_finished,
    };
    *replay = (struct replay){.table = vms_open(&options)};
    if (!replay->table)
        fail(profile->name, "vms_open: out of memory");
}

static uint64_t packets_of(const vms_record_t *record)
{
    return (uint64_t)record->c2s.packets + record->s2c.packets + record->c2s.mirror_duplicates +
           record->s2c.mirror_duplicates;
}

static uint64_t packets_of_all(const vms_record_t *records, uint32_t count)
{
    uint64_t packets = 0;
    for (uint32_t i = 0; i < count; i++)
        packets += packets_of(&records[i]);
    return packets;
}

static uint32_t take_finished(struct replay *replay)
{
    vms_record_t *records = allocate(TAKE * sizeof *records);
    uint32_t count = vms_take_finished(replay->table, records, TAKE);
    replay->in_finished += packets_of_all(records, count);
    free(records);
    return count;
}

static void roll(struct replay *replay)
{
    uint32_t pending_records, pending_bins, bin_count;
    vms_pending(replay->table, &pending_records, &pending_bins);
    vms_record_t *records = allocate(pending_records * sizeof *records);
    vms_bin_t *bins = allocate(pending_bins * sizeof *bins);
    uint32_t count = vms_roll(replay->table, records, pending_records, bins, pending_bins, &bin_count);
    if (count > pending_records || bin_count > pending_bins)
        fail("vms_roll", "wrote more than vms_pending had said");
    for (uint32_t i = 0; i < bin_count; i++)
        if (bins[i].record >= count || bins[i].bucket >= VMS_BUCKETS)
            fail("vms_roll", "a bin belongs to no record or bucket");
    replay->in_records += packets_of_all(records, count);
    for (uint32_t i = 0; i < count; i++)
        replay->record_bytes += records[i].c2s.bytes + records[i].s2c.bytes;
    free(records);
    free(bins);
}

static bool window_is_open(const struct replay *replay)
{
    int64_t start_ns, end_ns;
    vms_window(replay->table, &start_ns, &end_ns);
    return start_ns || end_ns;
}

static void ingest(struct replay *replay, const uint8_t *data, uint64_t size, const vms_meta_t *meta, uint32_t count,
                   uint32_t tick_ns)
{
    uint32_t next = 0;
    for (uint32_t stalls = 0; next < count; stalls++) {
        uint32_t done = vms_ingest(replay->table, data, size, meta, next, count, tick_ns);
        if (done < next || done > count || (done == next && stalls > 1000 + count))
            fail("vms_ingest", "does not get on");
        next = done;
        if (next < count) {
            while (take_finished(replay))
                ;
            if (window_is_open(replay))
                roll(replay);
        }
    }
    replay->fed += count;
}

static void ingest_one(struct replay *replay, const struct capture *capture, const struct packet *packet,
                       uint32_t caplen)
{
    uint8_t *data = allocate(caplen);
    if (caplen)
        memcpy(data, packet->bytes, caplen);
    vms_meta_t meta = packet->meta;
    meta.caplen = caplen;
    ingest(replay, data, caplen, &meta, 1, capture->tick_ns);
    free(data);
}

/* Ends all flows, closes the table and checks that nothing was lost or counted twice. */
static vms_counters_t close_replay(struct replay *replay, const struct profile *profile, const char *where)
{
    while (vms_finish(replay->table) > 0)
        while (take_finished(replay))
            ;
    while (take_finished(replay))
        ;
    if (window_is_open(replay))
        roll(replay);

    vms_counters_t counters;
    vms_get_counters(replay->table, &counters);
    vms_close(replay->table);

    uint64_t fates = 0;
    for (uint32_t i = 0; i < VMS_FATES; i++)
        fates += counters.fate[i];
    if (counters.received != replay->fed || fates != replay->fed)
        fail(where, "received differs from the sum of fates");
    if (replay->in_records != counters.fate[VMS_FATE_FLOW] + counters.fate[VMS_FATE_OVERFLOW])
        fail(where, "the packets in the windows' records differ from those in flows and overflow");
    if (replay->record_bytes != counters.ip_bytes)
        fail(where, "the bytes in the windows' records differ from those of all IP packets");
    if (profile->keep_finished && replay->in_finished != counters.fate[VMS_FATE_FLOW])
        fail(where, "the packets in finished flows differ from those in flows");
    return counters;
}

/* --- the passes --- */

/* One batch of packets, in one block that ends with the last of them. */
static uint32_t ingest_batch(struct replay *replay, const struct capture *capture, size_t *offset)
{
    struct packet packets[BATCH];
    vms_meta_t meta[BATCH];
    uint32_t count = 0;
    uint64_t size = 0;
    while (count < BATCH && next_packet(capture, offset, &packets[count])) {
        meta[count] = packets[count].meta;
        meta[count].offset = (uint32_t)size;
        size += meta[count].caplen;
        count++;
    }
    uint8_t *data = allocate(size);
    for (uint32_t i = 0; i < count; i++)
        if (meta[i].caplen)
            memcpy(data + meta[i].offset, packets[i].bytes, meta[i].caplen);
    ingest(replay, data, size, meta, count, capture->tick_ns);
    free(data);
    return count;
}

static void in_batches(struct replay *replay, const struct capture *capture)
{
    size_t offset = CAPTURE_HEADER_SIZE;
    while (ingest_batch(replay, capture, &offset) == BATCH)
        ;
}

static void one_by_one(struct replay *replay, const struct capture *capture)
{
    struct packet packet;
    for (size_t offset = CAPTURE_HEADER_SIZE; next_packet(capture, &offset, &packet);)
        ingest_one(replay, capture, &packet, packet.meta.caplen);
}

static void cut(struct replay *replay, const struct capture *capture)
{
    struct packet packet;
    size_t offset = CAPTURE_HEADER_SIZE;
    for (int i = 0; i < HARD_PACKETS && next_packet(capture, &offset, &packet); i++)
        for (uint32_t length = 0; length < packet.meta.caplen && length < CUT_LENGTHS; length++)
            ingest_one(replay, capture, &packet, length);
}

static void relabelled(struct replay *replay, const struct capture *capture)
{
    struct packet packet;
    size_t offset = CAPTURE_HEADER_SIZE;
    for (int i = 0; i < HARD_PACKETS && next_packet(capture, &offset, &packet); i++)
        for (size_t type = 0; type < COUNT_OF(link_types); type++) {
            vms_set_link_type(replay->table, link_types[type]);
            ingest_one(replay, capture, &packet, packet.meta.caplen);
        }
}

/* Overwrites a few bytes, mostly in the headers, shortens the packet and shifts its time. */
static void ingest_mutant(struct replay *replay, const struct capture *capture, const struct packet *original)
{
    struct packet mutant = *original;
    uint32_t length = 1 + random_below(mutant.meta.caplen);
    uint8_t *bytes = allocate(length);
    memcpy(bytes, original->bytes, length);
    for (uint32_t changes = 1 + random_below(6); changes > 0; changes--)
        bytes[random_below(length < 128 ? length : 128)] = (uint8_t)random_below(256);
    mutant.bytes = bytes;
    mutant.meta.sec += random_below(30);
    mutant.meta.fraction ^= random_below(1000000);
    ingest_one(replay, capture, &mutant, length);
    free(bytes);
}

static void mutated(struct replay *replay, const struct capture *capture)
{
    struct packet packet;
    size_t offset = CAPTURE_HEADER_SIZE;
    random_state = UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < HARD_PACKETS && next_packet(capture, &offset, &packet); i++)
        for (int round = 0; round < MUTATIONS && packet.meta.caplen > 0; round++)
            ingest_mutant(replay, capture, &packet);
}

static const struct pass {
    const char *name;
    void (*run)(struct replay *, const struct capture *);
} passes[] = {
    {"in batches", in_batches}, {"one by one", one_by_one}, {"cut", cut}, {"relabelled", relabelled},
    {"mutated", mutated},
};

/* Runs every pass over one file; the line it prints is about the first. Returns the packets of all passes. */
static uint64_t replay_file(const struct capture *capture)
{
    uint64_t total = 0;
    for (size_t i = 0; i < COUNT_OF(profiles); i++)
        for (size_t j = 0; j < COUNT_OF(passes); j++) {
            char where[512];
            snprintf(where, sizeof where, "%s, %s, %s", capture->name, profiles[i].name, passes[j].name);
            struct replay replay;
            open_replay(&replay, &profiles[i], capture->link_type);
            passes[j].run(&replay, capture);
            vms_counters_t counters = close_replay(&replay, &profiles[i], where);
            total += counters.received;
            if (i == 0 && j == 0)
                printf("%s: received %" PRIu64 " = sum of fates\n", capture->name, counters.received);
        }
    return total;
}

int main(int count, char **names)
{
    uint64_t total = 0;
    for (int i = 1; i < count; i++) {
        struct capture capture = {.name = names[i]};
        if (!slurp(&capture)) {
            fprintf(stderr, "%s: cannot be read\n", names[i]);
            return 2;
        }
        if (read_header(&capture))
            total += replay_file(&capture);
        else
            printf("%s: skipped, not a classic pcap file\n", names[i]);
        free(capture.bytes);
    }
    if (total == 0)
        fail("replay", "no capture held a packet; usage: replay FILE...");
    printf("%" PRIu64 " packets in all passes, every one in exactly one counter\n", total);
    return 0;
}
