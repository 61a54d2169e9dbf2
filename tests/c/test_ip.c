/* IP: lengths, extension headers, AH, jumbograms, fragments; ICMP and the soundness of a TCP header. */

#include "tap.h"

static struct frame udp(size_t payload)
{
    struct frame f = frame_payload(payload);
    put_udp(&f, 1000, 53);
    return f;
}

static vms_record_t record_of(struct frame *f)
{
    struct tap tap = tap_open();
    put_ethernet(f);
    tap_feed(&tap, SECOND, f);
    vms_record_t r = tap_only(&tap);
    tap_close(&tap);
    return r;
}

/* Octets are those of the IP header's total length: neither the frame's padding nor a short capture changes them. */
static void lengths_come_from_the_header(void)
{
    struct tap tap = tap_open();
    struct frame f = frame_payload(10);
    put_udp(&f, 1000, 53);
    write16(put_ipv4(&f, 1, 2) + 2, 1500);
    put_ethernet(&f);
    tap_feed(&tap, SECOND, &f);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.bytes, 1500);
    write16(frame_bytes(&f) + 16, 30);              /* less than the frame holds: the rest is padding */
    tap_feed(&tap, SECOND, &f);
    r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.bytes, 30);
    CHECK_EQUAL(r.c2s.payload_bytes, 2);
    write16(frame_bytes(&f) + 16, 23);              /* padding does not make ports */
    tap_feed(&tap, SECOND, &f);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_SHORT_TRANSPORT), 1);
    tap_close(&tap);
}

/* The snap length cuts what is looked at, as if the capture had been that short; sizes stay those of the header. */
static void snap_length(void)
{
    vms_options_t options = tap_options();
    struct frame f = udp(100);
    put_ipv4(&f, 1, 2);
    put_ethernet(&f);
    for (options.snaplen = 33; options.snaplen <= 38; options.snaplen++) {
        struct tap tap = tap_with(options);
        tap_feed(&tap, SECOND, &f);
        CHECK_EQUAL(tap_fate(&tap, options.snaplen == 33 ? VMS_FATE_SHORT_IP : options.snaplen == 38 ? VMS_FATE_FLOW :
                             VMS_FATE_SHORT_TRANSPORT), 1);
        CHECK_EQUAL(tap_counters(&tap).ip_bytes, options.snaplen == 38 ? 128 : 0);
        tap_close(&tap);
    }
}

/* A length of 0, as a segmentation offload leaves it, means what was captured; in IPv6 too. */
static void offloaded_length(void)
{
    struct frame f = udp(100);
    write16(put_ipv4(&f, 1, 2) + 2, 0);
    CHECK_EQUAL(record_of(&f).c2s.bytes, 128);
    f = udp(100);
    write16(put_ipv6(&f, 1, 2) + 4, 0);
    CHECK_EQUAL(record_of(&f).c2s.bytes, 148);
}

/* IPv4 options and all of IPv6's extension headers are walked to the ports. */
static void options_and_extensions(void)
{
    struct frame f = udp(10);
    put(&f, 8);
    f.protocol = 17;
    uint8_t *ip = put_ipv4(&f, 1, 2);
    ip[0] = 0x47;
    CHECK_EQUAL(record_of(&f).server_port, 53);
    f = udp(10);
    put_extension(&f, 60, 8);
    put_ah(&f);
    put_extension(&f, 43, 24);
    put_extension(&f, 0, 16);
    put_ipv6(&f, 1, 2);
    vms_record_t r = record_of(&f);
    CHECK_EQUAL(r.protocol, 17);
    CHECK_EQUAL(r.server_port, 53);
    CHECK_EQUAL(r.c2s.bytes, 40 + 16 + 24 + 24 + 8 + 18);
    CHECK_EQUAL(r.c2s.payload_bytes, 10);
}

/* AH hides nothing: ports and payload are those behind it. ESP does: it has no ports. */
static void security_headers(void)
{
    struct frame f = frame_payload(10);
    put_tcp(&f, (struct tcp_fields){.sport = 40000, .dport = 80, .flags = TCP_ACK});
    put_ah(&f);
    put_ipv4(&f, 1, 2);
    vms_record_t r = record_of(&f);
    CHECK_EQUAL(r.protocol, 6);
    CHECK_EQUAL(r.server_port, 80);
    CHECK_EQUAL(r.c2s.payload_bytes, 10);
    f = frame_payload(40);
    f.protocol = 50;
    put_ipv4(&f, 1, 2);
    r = record_of(&f);
    CHECK_EQUAL(r.protocol, 50);
    CHECK(!(r.flags & VMS_RECORD_HAS_PORTS));
}

/* A jumbogram's length stands in its hop-by-hop option (RFC 2675). */
static void jumbogram(void)
{
    struct frame f = udp(10);
    uint8_t *hop = put_extension(&f, 0, 8);
    hop[2] = 0xc2;
    hop[3] = 4;
    write32(hop + 4, 100000);
    write16(put_ipv6(&f, 1, 2) + 4, 0);
    vms_record_t r = record_of(&f);
    CHECK_EQUAL(r.c2s.bytes, 100040);
    CHECK_EQUAL(r.c2s.packets, 1);
}

/* One of three fragments of a datagram: 16 octets each behind the IP header. */
static void feed_fragment(struct tap *tap, int64_t at_ns, uint16_t id, int which, int version)
{
    struct frame f = which == 0 ? udp(8) : frame_payload(16);
    f.protocol = 17;
    if (version == 6) {
        put_ipv6_fragment(&f, id, (uint16_t)(which * 2), which < 2);
        put_ipv6(&f, 1, 2);
    } else {
        make_fragment(put_ipv4(&f, 1, 2), id, (uint16_t)(which * 2), which < 2);
    }
    put_ethernet(&f);
    tap_feed(tap, at_ns, &f);
}

/* Later fragments are counted in the flow of their first, for 30 seconds, in IPv4 and IPv6. */
static void fragments_follow_their_first(void)
{
    for (int version = 4; version <= 6; version += 2) {
        struct tap tap = tap_open();
        feed_fragment(&tap, SECOND, 7, 0, version);
        feed_fragment(&tap, SECOND, 7, 1, version);
        feed_fragment(&tap, SECOND, 7, 2, version);
        vms_record_t r = tap_only(&tap);
        CHECK_EQUAL(r.server_port, 53);
        CHECK_EQUAL(r.c2s.packets, 3);
        CHECK_EQUAL(r.c2s.payload_bytes, 8 + 16 + 16);
        CHECK_EQUAL(tap_counters(&tap).fragments, 3);
        CHECK_EQUAL(tap_counters(&tap).orphan_fragments, 0);
        feed_fragment(&tap, 31 * SECOND, 7, 1, version);
        CHECK_EQUAL(tap_counters(&tap).orphan_fragments, 0);
        feed_fragment(&tap, 31 * SECOND + 1, 7, 1, version);
        CHECK_EQUAL(tap_counters(&tap).orphan_fragments, 1);
        tap_close(&tap);
    }
}

/* An orphan, whose first fragment had another id or was not seen, is counted between its addresses without ports. */
static void orphans(void)
{
    struct tap tap = tap_open();
    feed_fragment(&tap, SECOND, 7, 0, 4);
    feed_fragment(&tap, SECOND, 8, 1, 4);
    tap_roll(&tap);
    CHECK_EQUAL(tap.rolled_count, 2);
    CHECK_EQUAL(tap.rolled[1].flags & VMS_RECORD_HAS_PORTS, 0);
    CHECK_EQUAL(tap.rolled[1].c2s.payload_bytes, 16);
    CHECK_EQUAL(tap_counters(&tap).orphan_fragments, 1);
    tap_close(&tap);
}

/* The identification is unique for a protocol only (RFC 791): ICMP's fragment is not one of UDP's with the same id. */
static void fragments_of_another_protocol(void)
{
    struct tap tap = tap_open();
    feed_fragment(&tap, SECOND, 7, 0, 4);
    struct frame f = frame_payload(16);
    f.protocol = 1;
    make_fragment(put_ipv4(&f, 1, 2), 7, 2, false);
    put_ethernet(&f);
    tap_feed(&tap, SECOND, &f);
    CHECK_EQUAL(tap_counters(&tap).orphan_fragments, 1);
    tap_close(&tap);
}

/* An atomic fragment (RFC 6946) is a whole packet. */
static void atomic_fragment(void)
{
    struct frame f = udp(10);
    put_ipv6_fragment(&f, 7, 0, false);
    put_ipv6(&f, 1, 2);
    struct tap tap = tap_open();
    put_ethernet(&f);
    tap_feed(&tap, SECOND, &f);
    CHECK_EQUAL(tap_only(&tap).c2s.payload_bytes, 10);
    CHECK_EQUAL(tap_counters(&tap).fragments, 0);
    tap_close(&tap);
}

/* ICMP's questions and answers are one flow, its errors one for each type and code. */
static void icmp_pairs(void)
{
    static const uint8_t types[][2] = {{8, 0}, {0, 0}, {3, 1}, {3, 3}, {11, 0}};
    struct tap tap = tap_open();
    for (int i = 0; i < 5; i++) {
        struct frame f = frame_payload(8);
        put_icmp(&f, types[i][0], types[i][1]);
        put_ipv4(&f, types[i][0] == 0 ? 2 : 1, types[i][0] == 0 ? 1 : 2);
        put_ethernet(&f);
        tap_feed(&tap, SECOND, &f);
    }
    tap_roll(&tap);
    CHECK_EQUAL(tap.rolled_count, 4);
    CHECK_EQUAL(tap.rolled[0].c2s.packets, 1);
    CHECK_EQUAL(tap.rolled[0].s2c.packets, 1);
    tap_close(&tap);
}

/* A TCP header that is cut, or said to be longer than its packet, counts in its flow but says nothing. */
static void short_tcp(void)
{
    struct tap tap = tap_open();
    struct frame f = frame_payload(0);
    put_tcp(&f, (struct tcp_fields){.sport = 1000, .dport = 80, .flags = TCP_SYN});
    put_ipv4(&f, 1, 2);
    put_ethernet(&f);
    tap_feed_bytes(&tap, SECOND, frame_bytes(&f), 14 + 20 + 19);
    frame_bytes(&f)[14 + 20 + 12] = 0xf0;
    tap_feed(&tap, SECOND, &f);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.packets, 2);
    CHECK_EQUAL(r.tcp_state, VMS_STATE_NONE);
    CHECK_EQUAL(tap_counters(&tap).short_tcp, 2);
    tap_close(&tap);
}

/* A packet that is cut behind its headers is whole in all but this count; what our own snap length cuts is not in it. */
static void truncated(void)
{
    static const struct {
        uint32_t snaplen, captured;
        uint64_t truncated;
    } cases[] = {{0, 14 + 40 + 100, 0}, {0, 14 + 40 + 99, 1}, {0, 14 + 40, 1}, {96, 96, 0}, {96, 95, 1}, {512, 96, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vms_options_t options = tap_options();
        options.snaplen = cases[i].snaplen;
        struct tap tap = tap_with(options);
        struct frame f = frame_payload(100);
        put_tcp(&f, (struct tcp_fields){.sport = 1000, .dport = 80, .flags = TCP_ACK});
        put_ipv4(&f, 1, 2);
        put_ethernet(&f);
        tap_feed_bytes(&tap, SECOND, frame_bytes(&f), cases[i].captured);
        CHECK_EQUAL(tap_only(&tap).c2s.payload_bytes, 100);
        CHECK_EQUAL(tap_counters(&tap).truncated, cases[i].truncated);
        tap_close(&tap);
    }
}

int main(void)
{
    lengths_come_from_the_header();
    snap_length();
    offloaded_length();
    options_and_extensions();
    security_headers();
    jumbogram();
    fragments_follow_their_first();
    orphans();
    fragments_of_another_protocol();
    atomic_fragment();
    icmp_pairs();
    short_tcp();
    truncated();
    return check_summary("test_ip");
}
