/* Several tables that are fed the same packets: each packet is one's, and what belongs together is the same one's. */

#include "tap.h"

#define SHARES 5

struct shares {
    vms_table_t *table[SHARES];
};

static struct shares shares_open(void)
{
    struct shares shares;
    vms_options_t options = tap_options();
    options.shares = SHARES;
    options.is_unhurried = 1;
    for (options.share = 0; options.share < SHARES; options.share++)
        shares.table[options.share] = vms_open(&options);
    return shares;
}

static void shares_close(struct shares *shares)
{
    for (int i = 0; i < SHARES; i++)
        vms_close(shares->table[i]);
}

static uint64_t received(const vms_table_t *table)
{
    vms_counters_t counters;
    vms_get_counters(table, &counters);
    return counters.received;
}

/* Feeds a packet to all; whose it is, of whom there has to be one. */
static int whose_is(struct shares *shares, const uint8_t *bytes, size_t size)
{
    static uint32_t second = 1;
    vms_meta_t meta = {second, 0, 0, (uint32_t)size};
    uint8_t *block = malloc(size + !size);
    memcpy(block, bytes, size);
    int found = -1, count = 0;
    for (int i = 0; i < SHARES; i++) {
        uint64_t before = received(shares->table[i]);
        CHECK_EQUAL(vms_ingest(shares->table[i], block, size, &meta, 0, 1, 1), 1);
        if (received(shares->table[i]) > before) {
            found = i;
            count++;
        }
    }
    free(block);
    CHECK_EQUAL(count, 1);
    return found;
}

static int whose_frame(struct shares *shares, struct frame *f)
{
    return whose_is(shares, frame_bytes(f), frame_size(f));
}

static struct frame datagram(uint16_t src, uint16_t dst, uint16_t sport, uint16_t dport)
{
    struct frame f = frame_payload(40);
    put_udp(&f, sport, dport);
    put_ipv4(&f, src, dst);
    return f;
}

/* Both directions, whatever the ports, in VLANs, in a tunnel of whatever outer addresses, behind labels. */
static void the_innermost_pair_decides(void)
{
    struct shares shares = shares_open();
    bool has_work[SHARES] = {false};
    for (uint16_t pair = 0; pair < 200; pair++) {
        struct frame there = datagram(pair, 1000, 7, 53), back = datagram(1000, pair, 53, 8);
        struct frame tagged = there, tunnelled = there, labelled = there;
        put_ethernet(&there);
        put_ethernet(&back);
        put_vlan(&tagged, 5);
        put_vlan(&tagged, 6);
        put_ethernet(&tagged);
        put_ethernet(&tunnelled);
        put_vxlan(&tunnelled, 77);
        put_ipv4(&tunnelled, 3000 + pair % 7, 4000);
        put_ethernet(&tunnelled);
        put_mpls(&labelled, 3, true);
        put_ethernet(&labelled);
        int owner = whose_frame(&shares, &there);
        CHECK_EQUAL(whose_frame(&shares, &back), owner);
        CHECK_EQUAL(whose_frame(&shares, &tagged), owner);
        CHECK_EQUAL(whose_frame(&shares, &tunnelled), owner);
        CHECK_EQUAL(whose_frame(&shares, &labelled), owner);
        has_work[owner] = true;
    }
    for (int i = 0; i < SHARES; i++)
        CHECK(has_work[i]);
    shares_close(&shares);
}

/* A later fragment, which has no ports, is where its first one is, and all know of that one. */
static void fragments_stay_together(void)
{
    struct shares shares = shares_open();
    for (uint16_t pair = 0; pair < 50; pair++) {
        struct frame first = frame_payload(40), later = frame_payload(40);
        put_udp(&first, 7, 53);
        make_fragment(put_ipv4(&first, pair, 1000), pair, 0, true);
        put_ethernet(&first);
        uint8_t *ip = put_ipv4(&later, pair, 1000);
        ip[9] = 17;
        make_fragment(ip, pair, 6, false);
        put_ethernet(&later);
        int owner = whose_frame(&shares, &first);
        CHECK_EQUAL(whose_frame(&shares, &later), owner);
    }
    vms_counters_t counters;
    vms_get_counters(shares.table[0], &counters);
    CHECK_EQUAL(counters.fragments, 100);               /* all are told by the first share */
    CHECK_EQUAL(counters.orphan_fragments, 0);
    vms_get_counters(shares.table[1], &counters);
    CHECK_EQUAL(counters.fragments, 0);
    shares_close(&shares);
}

/* Wherever the capture ends. */
static void every_truncation_is_somebodys(void)
{
    struct shares shares = shares_open();
    struct frame f = datagram(1, 2, 7, 53);
    put_ethernet(&f);
    put_vxlan(&f, 77);
    put_ipv4(&f, 3, 4);
    put_vlan(&f, 5);
    put_ethernet(&f);
    for (size_t size = 0; size <= frame_size(&f); size++)
        whose_is(&shares, frame_bytes(&f), size);
    shares_close(&shares);
}

/* Every table has counted as far, and none goes beyond an end. */
static void all_have_passed_all(void)
{
    struct shares shares = shares_open();
    struct frame f = datagram(1, 2, 7, 53);
    put_ethernet(&f);
    for (int i = 0; i < 10; i++)
        whose_frame(&shares, &f);
    for (int i = 0; i < SHARES; i++) {
        vms_meta_t meta = {1, 0, 0, (uint32_t)frame_size(&f)};
        CHECK_EQUAL(vms_passed(shares.table[i]), 10);
        vms_end_at(shares.table[i], 10);
        CHECK_EQUAL(vms_ingest(shares.table[i], frame_bytes(&f), frame_size(&f), &meta, 0, 1, 1), 0);
    }
    shares_close(&shares);
}

int main(void)
{
    the_innermost_pair_decides();
    fragments_stay_together();
    every_truncation_is_somebodys();
    all_have_passed_all();
    return check_summary("test_share");
}
