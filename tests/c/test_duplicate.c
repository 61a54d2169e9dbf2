/* Mirror duplicates: the second sighting of a packet, and what only looks like one. */

#include "duplicate.h"
#include "talk.h"

static struct tap tap_with_horizon(int64_t horizon_ns)
{
    vms_options_t options = tap_options();
    options.duplicate_horizon_ns = horizon_ns;
    return tap_with(options);
}

/* How a packet came by: a TCP segment from 10.0.0.1 to 10.0.0.2. */
struct pass {
    uint16_t vlan;
    uint8_t ttl, mac;
    uint32_t vni;
    uint16_t ip_id, outer_id;
    bool ipv6;
};

static void feed_segment(struct tap *tap, int64_t at_ns, struct pass how, uint32_t seq)
{
    struct frame f = frame_payload(50);
    put_tcp(&f, (struct tcp_fields){.sport = 40000, .dport = 80, .seq = seq, .ack = 1, .flags = A, .window = 100});
    if (how.ipv6) {
        put_ipv6(&f, 1, 2)[7] = how.ttl;
    } else {
        uint8_t *ip = put_ipv4(&f, 1, 2);
        ip[8] = how.ttl;
        write16(ip + 4, how.ip_id);
        ip[1] = how.vlan & 0xfc;                    /* a type of service of its own in each VLAN */
    }
    if (how.vlan)
        put_vlan(&f, how.vlan);
    put_ethernet(&f)[11] = how.mac;
    if (how.vni) {
        put_vxlan(&f, how.vni);
        write16(put_ipv4(&f, 0x101, 0x102) + 4, how.outer_id);
        put_ethernet(&f);
    }
    tap_feed(tap, at_ns, &f);
}

static void feed_pass(struct tap *tap, int64_t at_ns, struct pass how)
{
    feed_segment(tap, at_ns, how, 1000);
}

/* A sender that gives all packets one identification: the identification tells no two of them apart. */
static void one_identification_for_all(void)
{
    struct tap tap = tap_with_horizon(10 * MS);
    const struct pass how = {.ttl = 64, .ip_id = 1};
    for (uint32_t i = 0; i < 4; i++)
        feed_segment(&tap, AT + i * MS, how, i * 50);
    feed_segment(&tap, AT + 8 * MS, how, 150);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_MIRROR_DUPLICATE), 0);
    feed_segment(&tap, AT + 8 * MS + 1000, how, 150);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_MIRROR_DUPLICATE), 1);
    tap_close(&tap);
}

/* Feeds two passes this far apart; true when the second was counted as a duplicate, and as nothing else. */
static bool is_duplicate(struct pass first, struct pass second, int64_t apart_ns)
{
    struct tap tap = tap_with_horizon(10 * MS);
    feed_pass(&tap, AT, first);
    feed_pass(&tap, AT + apart_ns, second);
    uint64_t duplicates = tap_fate(&tap, VMS_FATE_MIRROR_DUPLICATE);
    if (duplicates) {
        vms_record_t r = tap_only(&tap);
        CHECK_EQUAL(r.c2s.mirror_duplicates, 1);
        CHECK_EQUAL(r.c2s.packets, 1);
        CHECK_EQUAL(r.c2s.data_packets, 1);
        CHECK_EQUAL(r.c2s.bytes, first.ipv6 ? 110 : 90);
        CHECK_EQUAL(r.c2s.retransmissions + r.c2s.reordered + r.c2s.unknown_causes, 0);
        CHECK_EQUAL(r.vlan[0], first.vlan);
    }
    tap_close(&tap);
    return duplicates == 1;
}

/* The same packet again is a copy: untouched, routed into another VLAN, or out of a tunnel. */
static void copies(void)
{
    const struct pass plain = {.ttl = 64, .mac = 1, .ip_id = 7};
    CHECK(is_duplicate(plain, plain, MS));
    CHECK(is_duplicate(plain, plain, 0));
    CHECK(is_duplicate(plain, plain, -MS));
    CHECK(is_duplicate((struct pass){10, 64, 1, 0, 7, 0, false}, (struct pass){20, 63, 2, 0, 7, 0, false}, MS));
    CHECK(is_duplicate(plain, (struct pass){0, 63, 2, 5, 7, 99, false}, MS));
    CHECK(is_duplicate((struct pass){0, 64, 1, 5, 7, 98, false}, (struct pass){0, 63, 2, 6, 7, 99, false}, MS));
}

/* IPv6 has no identification of its own, and none is taken from an IPv4 tunnel around it. */
static void copies_of_ipv6_in_tunnels(void)
{
    CHECK(is_duplicate((struct pass){0, 64, 1, 0, 0, 0, true}, (struct pass){0, 63, 2, 5, 0, 77, true}, MS));
    CHECK(is_duplicate((struct pass){0, 64, 1, 5, 0, 1, true}, (struct pass){0, 63, 2, 5, 0, 2, true}, MS));
}

/* The horizon is the limit, exactly, in both directions of time. */
static void horizon(void)
{
    const struct pass plain = {.ttl = 64, .mac = 1, .ip_id = 7};
    CHECK(is_duplicate(plain, plain, 10 * MS));
    CHECK(is_duplicate(plain, plain, -10 * MS));
    CHECK(!is_duplicate(plain, plain, 10 * MS + MS / 1000));
    CHECK(!is_duplicate(plain, plain, -10 * MS - MS / 1000));
}

/* Without an identification a resend may look like a copy: then only what was routed has the whole horizon. */
static void horizon_without_identification(void)
{
    const struct pass plain = {.ttl = 64, .mac = 1, .ipv6 = true}, routed = {.ttl = 63, .mac = 2, .ipv6 = true};
    CHECK(is_duplicate(plain, plain, MS));
    CHECK(!is_duplicate(plain, plain, 5 * MS));
    CHECK(is_duplicate(plain, routed, 10 * MS));
}

static bool is_seen(const struct duplicates *d, uint64_t print, int64_t at_ns)
{
    const struct packet p = {.ts_ns = at_ns};
    struct seen seen = duplicate_look(d, print, &p);
    if (!seen.before)
        duplicate_remember(seen.place, print, &p, 1, 1);
    return seen.before;
}

/* A full set gives up its oldest sighting, and one that was renewed is its newest. */
static void the_oldest_goes(void)
{
    enum { A1, B1, C1, D1, E1, F1, G1, H1, PRINTS };
    uint64_t prints[PRINTS];
    struct duplicates d;
    CHECK_EQUAL(duplicates_open(&d, (const uint8_t *)"a fixed secret.", 10 * MS), 0);
    for (uint64_t i = 0; i < PRINTS; i++)
        prints[i] = (2 * i + 1) << 40 | 5;          /* of one set */
    for (int i = A1; i <= E1; i++)
        CHECK(!is_seen(&d, prints[i], AT + i));
    for (int i = B1; i <= E1; i++)
        CHECK(is_seen(&d, prints[i], AT + MS));
    CHECK(!is_seen(&d, prints[B1], AT + 20 * MS));  /* beyond the horizon */
    for (int i = F1; i <= G1; i++)
        CHECK(!is_seen(&d, prints[i], AT + 20 * MS + i));
    CHECK(is_seen(&d, prints[B1], AT + 21 * MS));
    const struct packet another = {.ts_ns = AT + 21 * MS};
    struct seen seen = duplicate_look(&d, prints[B1], &another);
    duplicate_remember(duplicate_renew(&d, prints[B1], seen.place), prints[B1], &another, 1, 1);
    CHECK(!is_seen(&d, prints[H1], AT + 21 * MS));
    for (int i = C1; i <= D1; i++)
        CHECK(!is_seen(&d, prints[i], AT + 22 * MS));
    CHECK(is_seen(&d, prints[B1], AT + 22 * MS));
    duplicates_close(&d);
}

/* With a horizon of 0 nothing is removed. */
static void no_horizon(void)
{
    const struct pass plain = {.ttl = 64, .mac = 1, .ip_id = 7};
    struct tap tap = tap_with_horizon(0);
    feed_pass(&tap, AT, plain);
    feed_pass(&tap, AT, plain);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.packets, 2);
    CHECK_EQUAL(r.c2s.mirror_duplicates, 0);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    tap_close(&tap);
}

/* A resend has a new IP identification: it is counted, as a retransmission, also within the horizon. */
static void resend(void)
{
    const struct pass first = {.ttl = 64, .mac = 1, .ip_id = 7}, again = {.ttl = 64, .mac = 1, .ip_id = 8};
    CHECK(!is_duplicate(first, again, MS));
    struct tap tap = tap_with_horizon(10 * MS);
    feed_pass(&tap, AT, first);
    feed_pass(&tap, AT + 5 * MS, again);
    feed_pass(&tap, AT + 6 * MS, (struct pass){.ttl = 63, .mac = 2, .ip_id = 8});
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(r.c2s.mirror_duplicates, 1);
    tap_close(&tap);
}

/* Equal packets of two tenants, unrouted and in two VNIs, or in two VLANs from two MACs, are two packets. */
static void tenants(void)
{
    CHECK(!is_duplicate((struct pass){0, 64, 1, 5, 7, 1, false}, (struct pass){0, 64, 1, 6, 7, 2, false}, MS));
    CHECK(!is_duplicate((struct pass){10, 64, 1, 0, 7, 0, false}, (struct pass){20, 64, 2, 0, 7, 0, false}, MS));
    CHECK(is_duplicate((struct pass){10, 64, 1, 0, 7, 0, false}, (struct pass){20, 64, 1, 0, 7, 0, false}, MS));
}

/* The answer on the way back, or another port with the same sums, is no copy. */
static void other_packets(void)
{
    struct tap tap = tap_with_horizon(10 * MS);
    for (uint16_t i = 0; i < 1000; i++) {
        tap.ip_id = 6;
        tap_udp(&tap, AT, 1, i, 2, 53);
        tap.ip_id = 6;
        tap_udp(&tap, AT, 2, 53, 1, i);
    }
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_MIRROR_DUPLICATE), 0);
    tap_close(&tap);
}

/* Each of a connection's packets mirrored twice: all metrics are those of the packets, not one more. */
static void a_connection_seen_twice(void)
{
    vms_record_t records[2];
    for (int copies = 1; copies <= 2; copies++) {
        struct tap tap = tap_with_horizon(10 * MS);
        for (int i = 0; i < 40; i++) {
            struct frame f = segment_frame(&tap, i % 2, (struct segment){ISN + (uint32_t)(i / 2) * 100,
                                           ISN + (uint32_t)((i + 1) / 2) * 100, 100, A, false, NULL, 0});
            for (int copy = 0; copy < copies; copy++) {
                frame_bytes(&f)[14 + 8] = (uint8_t)(64 - copy);
                tap_feed(&tap, AT + i * 8 * MS + copy * MS, &f);
            }
        }
        records[copies - 1] = tap_only(&tap);
        CHECK_EQUAL(tap_fate(&tap, VMS_FATE_MIRROR_DUPLICATE), (copies - 1) * 40);
        tap_close(&tap);
    }
    CHECK_EQUAL(records[1].c2s.mirror_duplicates, 20);
    records[1].c2s.mirror_duplicates = records[1].s2c.mirror_duplicates = 0;
    records[1].c2s_transit = records[1].s2c_transit = (vms_transit_t){0};
    CHECK_EQUAL(memcmp(&records[0], &records[1], sizeof records[0]), 0);
    CHECK_EQUAL(records[0].c2s.rtt_count, 20);
}

static void feed_ipv6(struct tap *tap, int64_t at_ns, uint32_t seq, uint16_t payload)
{
    struct frame f = frame_payload(payload);
    put_tcp(&f, (struct tcp_fields){.sport = 40000, .dport = 80, .seq = seq, .ack = 1, .flags = A, .window = 100});
    put_ipv6(&f, 1, 2)[7] = 64;
    put_ethernet(&f)[11] = 1;
    tap_feed(tap, at_ns, &f);
}

/* ACKs that are equal in everything come again before the copy of the first: as many packets, and as many copies. */
static void equal_acks_before_their_copies(void)
{
    const int64_t delay_ns = MS / 2;
    for (int acks = 2; acks <= 60; acks += 29) {
        struct tap tap = tap_with_horizon(10 * MS);
        for (uint32_t i = 0; i < 5; i++) {
            feed_ipv6(&tap, AT + i * MS, 1000 + i * 50, 50);
            feed_ipv6(&tap, AT + i * MS + delay_ns, 1000 + i * 50, 50);
        }
        for (int i = 0; i < acks; i++)
            feed_ipv6(&tap, AT + 10 * MS + i * 1000, 1250, 0);
        for (int i = 0; i < acks; i++)
            feed_ipv6(&tap, AT + 10 * MS + delay_ns + i * 1000, 1250, 0);
        vms_record_t r = tap_only(&tap);
        CHECK_EQUAL(r.c2s.mirror_duplicates, 5 + (uint32_t)acks);
        CHECK_EQUAL(r.c2s.packets, 5 + (uint32_t)acks);
        tap_close(&tap);
    }
}

/* A segment that comes again after its copy has come, later than copies of this flow do, was sent again. */
static void a_resend_behind_its_copy(void)
{
    struct tap tap = tap_with_horizon(10 * MS);
    for (uint32_t i = 0; i < 5; i++) {
        feed_ipv6(&tap, AT + i * MS, 1000 + i * 50, 50);
        feed_ipv6(&tap, AT + i * MS + 1000, 1000 + i * 50, 50);
    }
    feed_ipv6(&tap, AT + 5 * MS, 1200, 50);
    feed_ipv6(&tap, AT + 5 * MS + 1000, 1200, 50);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(r.c2s.mirror_duplicates, 6);
    tap_close(&tap);
}

/* What the copies' delays say: shortest, longest and sum by direction, over two windows and over the flow's life. */
static void transit(void)
{
    const int64_t delays_ns[] = {250, 3000, 900 * 1000, 7 * MS};
    struct tap tap = tap_with_horizon(10 * MS);
    for (int i = 0; i < 4; i++) {
        struct frame f = segment_frame(&tap, C2S, (struct segment){ISN + (uint32_t)i, 1, 1, A, false, NULL, 0});
        int64_t at_ns = AT + 9 * SECOND - 20 * MS + i * 10 * MS;
        tap_feed(&tap, at_ns, &f);
        frame_bytes(&f)[14 + 8]--;
        tap_feed(&tap, at_ns + delays_ns[i], &f);
    }
    vms_record_t second = tap_only(&tap);
    CHECK_EQUAL(second.c2s_transit.count, 2);
    CHECK_EQUAL(second.c2s_transit.min_ns, delays_ns[2]);
    CHECK_EQUAL(second.s2c_transit.count, 0);
    tap_finish(&tap);
    const vms_transit_t *life = &tap.finished[0].c2s_transit;
    CHECK_EQUAL(life->count, 4);
    CHECK_EQUAL(life->min_ns, 250);
    CHECK_EQUAL(life->max_ns, 7 * MS);
    CHECK_EQUAL(life->sum_ns, 250 + 3000 + 900 * 1000 + 7 * MS);
    tap_close(&tap);
}

/* A copy with an earlier timestamp than the first sighting, from another queue, gives no time. */
static void no_transit_backwards(void)
{
    struct tap tap = tap_with_horizon(10 * MS);
    struct frame f = segment_frame(&tap, C2S, (struct segment){ISN, 1, 1, A, false, NULL, 0});
    tap_feed(&tap, AT, &f);
    frame_bytes(&f)[14 + 8]--;
    tap_feed(&tap, AT - MS, &f);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.mirror_duplicates, 1);
    CHECK_EQUAL(r.c2s_transit.count, 0);
    tap_close(&tap);
}

/* A copy whose first sighting went into the overflow entry is counted there, also when a new window has begun. */
static void copies_in_overflow(void)
{
    vms_options_t options = tap_options();
    options.duplicate_horizon_ns = 10 * MS;
    options.max_flows = 1;
    struct tap tap = tap_with(options);
    int64_t last = 10 * SECOND - MS;
    tap_udp(&tap, last, 1, 1000, 2, 53);
    tap_udp(&tap, last, 2, 53, 1, 1000);
    feed_pass(&tap, last, (struct pass){.ttl = 64, .mac = 1, .ip_id = 7});
    feed_pass(&tap, last + 2 * MS, (struct pass){.ttl = 64, .mac = 1, .ip_id = 7});
    CHECK_EQUAL(tap.windows, 1);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.flags, VMS_RECORD_OVERFLOW);
    CHECK_EQUAL(r.c2s.packets, 0);
    CHECK_EQUAL(r.c2s.mirror_duplicates, 1);
    tap_close(&tap);
}

/* A copy of a flow that is gone touches no slot: those of 0.0.0.0 look like a freed slot's link. */
static void copy_of_a_dead_flow(void)
{
    vms_options_t options = tap_options();
    options.duplicate_horizon_ns = 10 * MS;
    struct tap tap = tap_with(options);
    struct frame f = frame_payload(10);
    put_udp(&f, 68, 67);
    uint8_t *ip = put_ipv4(&f, 0, 0xffff);
    write16(ip + 4, 7);
    write32(ip + 12, 0);
    put_ethernet(&f);
    tap_feed(&tap, 10 * SECOND - MS, &f);
    tap_roll(&tap);
    vms_tick(tap.table, 71 * SECOND);
    tap_roll(&tap);
    tap_feed(&tap, 10 * SECOND + MS, &f);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_MIRROR_DUPLICATE), 1);
    CHECK_EQUAL(tap_only(&tap).flags, VMS_RECORD_OVERFLOW);
    tap_close(&tap);
}

int main(void)
{
    copies();
    copies_of_ipv6_in_tunnels();
    horizon();
    the_oldest_goes();
    horizon_without_identification();
    one_identification_for_all();
    no_horizon();
    resend();
    tenants();
    other_packets();
    a_connection_seen_twice();
    equal_acks_before_their_copies();
    a_resend_behind_its_copy();
    transit();
    no_transit_backwards();
    copies_in_overflow();
    copy_of_a_dead_flow();
    return check_summary("test_duplicate");
}
