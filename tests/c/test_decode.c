/* Decoding without tunnels: link layers, shims, IP headers, extension headers, fragments; and each fate. */

#include "tap.h"

enum { NULL_LINK = 0, ETHERNET = 1, PPP = 9, RAW = 12, LOOP = 108, SLL = 113, SLL2 = 276, HDLC = 104, MPLS = 219 };

static struct tap tap_of_link(uint32_t link_type)
{
    struct tap tap = tap_open();
    vms_set_link_type(tap.table, link_type);
    return tap;
}

/* 10.0.0.1 port 1000 to 10.0.0.2 port 53, 10 octets of payload: an IP packet of 38 octets. */
static struct frame datagram(void)
{
    struct frame f = frame_payload(10);
    put_udp(&f, 1000, 53);
    put_ipv4(&f, 1, 2);
    return f;
}

static struct frame datagram6(void)
{
    struct frame f = frame_payload(10);
    put_udp(&f, 1000, 53);
    put_ipv6(&f, 1, 2);
    return f;
}

/* What the frame is counted as, in a table of its own. */
static vms_record_t record_of(uint32_t link_type, struct frame *f)
{
    struct tap tap = tap_of_link(link_type);
    tap_feed(&tap, SECOND, f);
    vms_record_t r = tap_only(&tap);
    tap_close(&tap);
    return r;
}

static void check_datagram(uint32_t link_type, struct frame *f)
{
    vms_record_t r = record_of(link_type, f);
    CHECK_EQUAL(r.protocol, 17);
    CHECK_EQUAL(r.client_port, 1000);
    CHECK_EQUAL(r.server_port, 53);
    CHECK_EQUAL(r.c2s.bytes, r.ip_version == 4 ? 38 : 58);
    CHECK_EQUAL(r.c2s.payload_bytes, 10);
    CHECK_EQUAL(r.tunnel, VMS_TUNNEL_NONE);
}

static void check_fate(uint32_t link_type, const uint8_t *bytes, size_t size, enum vms_fate fate)
{
    struct tap tap = tap_of_link(link_type);
    tap_feed_bytes(&tap, SECOND, bytes, size);
    CHECK_EQUAL(tap_fate(&tap, fate), 1);
    tap_close(&tap);
}

/* Every VLAN tag type is followed; four tags are kept, outermost first, and more do no harm. */
static void vlan_tags(void)
{
    static const uint16_t types[] = {0x8100, 0x88a8, 0x9100, 0x9200};
    struct frame f = datagram();
    for (int i = 0; i < 6; i++) {
        put_vlan(&f, (uint16_t)(0xe000 | (10 + i)));            /* priority bits are no part of the id */
        f.ethertype = types[i % 4];
    }
    put_ethernet(&f);
    vms_record_t r = record_of(ETHERNET, &f);
    CHECK_EQUAL(r.vlan_count, 4);
    CHECK(r.vlan[0] == 15 && r.vlan[1] == 14 && r.vlan[2] == 13 && r.vlan[3] == 12);
    check_datagram(ETHERNET, &f);
}

/* Shims have a bound: beyond it a frame is not IP, however many tags a sender stacks. */
static void shims_are_bounded(void)
{
    struct frame f = datagram();
    for (int i = 0; i < 500; i++)
        put_vlan(&f, 1);
    put_ethernet(&f);
    check_fate(ETHERNET, frame_bytes(&f), frame_size(&f), VMS_FATE_NOT_IP);
    f = datagram();
    for (int i = 0; i < 500; i++)
        put_mpls(&f, 16, i == 0);
    put_ethernet(&f);
    check_fate(ETHERNET, frame_bytes(&f), frame_size(&f), VMS_FATE_NOT_IP);
    f = datagram();
    for (int i = 0; i < 250; i++)
        put_ethernet(&f);
    check_fate(ETHERNET, frame_bytes(&f), frame_size(&f), VMS_FATE_NOT_IP);
}

/* A VN-Tag is passed over, whatever its own bits are, and a VLAN tag may follow it. */
static void vntag(void)
{
    struct frame f = datagram();
    put_vlan(&f, 7);
    put_vntag(&f);
    put_ethernet(&f);
    check_datagram(ETHERNET, &f);
    CHECK_EQUAL(record_of(ETHERNET, &f).vlan[0], 7);
}

/* Below MPLS labels is IP, or a pseudowire's frame with or without a control word: the first nibble tells. Without
   one, a MAC address that begins with that nibble misleads every observer (RFC 8469). */
static void mpls(void)
{
    struct frame f = datagram();
    put_mpls(&f, 17, true);
    put_mpls(&f, 16, false);
    struct frame framed = f;
    put_ethernet(&framed);
    check_datagram(ETHERNET, &framed);
    check_datagram(MPLS, &f);
    for (int control_word = 0; control_word <= 1; control_word++) {
        f = datagram();
        put_ethernet(&f)[0] = control_word ? 0x02 : 0xa2;
        if (control_word)
            put(&f, 4);
        put_mpls(&f, 17, true);
        put_ethernet(&f);
        check_datagram(ETHERNET, &f);
    }
}

/* PPPoE says how long its packet is: Ethernet's padding does not count; its other codes are not IP. */
static void pppoe(void)
{
    struct frame f = datagram();
    uint8_t *header = put_pppoe(&f);
    put_ethernet(&f);
    uint8_t padded[FRAME_ROOM] = {0};
    memcpy(padded, frame_bytes(&f), frame_size(&f));
    struct tap tap = tap_open();
    write16(padded + 14 + 6 + 2 + 2, 0);            /* total length 0, as an offload leaves it: only PPPoE's is left */
    tap_feed_bytes(&tap, SECOND, padded, frame_size(&f) + 20);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.bytes, 38);
    tap_close(&tap);
    check_datagram(ETHERNET, &f);
    header[1] = 0xa7;                               /* PADT */
    check_fate(ETHERNET, frame_bytes(&f), frame_size(&f), VMS_FATE_NOT_IP);
}

/* PPP's protocol number may be compressed, its address and control field may be there or not. */
static void ppp(void)
{
    static const uint8_t heads[][4] = {{0x00, 0x21}, {0x21}, {0xff, 0x03, 0x00, 0x21}, {0xff, 0x03, 0x21}};
    static const size_t sizes[] = {2, 1, 4, 3};
    for (int i = 0; i < 4; i++) {
        struct frame f = datagram();
        put_bytes(&f, heads[i], sizes[i]);
        check_datagram(PPP, &f);
    }
}

/* Linux cooked capture, both versions, with the sender's MAC address. */
static void cooked(void)
{
    static const uint8_t v1[16] = {0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 9, 0, 0, 0x08, 0x00};
    static const uint8_t v2[20] = {0x86, 0xdd, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 2, 0, 0, 0, 0, 9};
    struct frame f = datagram();
    put_bytes(&f, v1, sizeof v1);
    check_datagram(SLL, &f);
    CHECK_EQUAL(record_of(SLL, &f).client_mac[5], 9);
    f = datagram6();
    put_bytes(&f, v2, sizeof v2);
    check_datagram(SLL2, &f);
    CHECK_EQUAL(record_of(SLL2, &f).client_mac[5], 9);
}

/* The loopback header is in the byte order of whatever machine wrote it, and IPv6 has a number on each system. */
static void loopback(void)
{
    static const uint8_t families6[] = {10, 24, 28, 30};
    for (int swapped = 0; swapped <= 1; swapped++) {
        struct frame f = datagram();
        put(&f, 4)[swapped ? 0 : 3] = 2;
        check_datagram(NULL_LINK, &f);
        check_datagram(LOOP, &f);
        for (int i = 0; i < 4; i++) {
            f = datagram6();
            put(&f, 4)[swapped ? 0 : 3] = families6[i];
            check_datagram(NULL_LINK, &f);
        }
    }
}

/* An 802.3 length with LLC and SNAP carries IP; with another SAP, or as Cisco's or the bridges' own, it does not. */
static void llc(void)
{
    static const uint8_t snap[8] = {0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0x00}, stp[3] = {0x42, 0x42, 3};
    struct frame f = datagram();
    put_bytes(&f, snap, sizeof snap);
    f.ethertype = (uint16_t)frame_size(&f);
    struct frame other = f;
    put_ethernet(&f);
    check_datagram(ETHERNET, &f);
    frame_bytes(&other)[5] = 0x0c;                  /* Cisco's OUI */
    put_ethernet(&other);
    check_fate(ETHERNET, frame_bytes(&other), frame_size(&other), VMS_FATE_NOT_IP);
    f = frame_payload(40);
    put_bytes(&f, stp, sizeof stp);
    f.ethertype = (uint16_t)frame_size(&f);
    put_ethernet(&f);
    check_fate(ETHERNET, frame_bytes(&f), frame_size(&f), VMS_FATE_NOT_IP);
}

/* Raw IP and Cisco HDLC. */
static void bare_links(void)
{
    static const uint8_t hdlc[4] = {0x0f, 0, 0x08, 0x00};
    struct frame f = datagram();
    check_datagram(RAW, &f);
    put_bytes(&f, hdlc, sizeof hdlc);
    check_datagram(HDLC, &f);
    f = datagram6();
    check_datagram(RAW, &f);
}

/* Each fate can be reached, and is the one that says what is wrong. */
static void fates(void)
{
    struct frame f = datagram();
    uint8_t *ip = frame_bytes(&f);
    check_fate(147, ip, 38, VMS_FATE_UNKNOWN_LINK);
    check_fate(ETHERNET, ip, 13, VMS_FATE_SHORT_LINK);
    check_fate(RAW, ip, 19, VMS_FATE_SHORT_IP);
    check_fate(RAW, ip, 0, VMS_FATE_SHORT_IP);
    check_fate(RAW, ip, 23, VMS_FATE_SHORT_TRANSPORT);
    check_fate(RAW, ip, 24, VMS_FATE_FLOW);
    ip[0] = 0x55;
    check_fate(RAW, ip, 38, VMS_FATE_BAD_VERSION);
    ip[0] = 0x44;
    check_fate(RAW, ip, 38, VMS_FATE_BAD_LENGTH);
    ip[0] = 0x45;
    write16(ip + 2, 19);
    check_fate(RAW, ip, 38, VMS_FATE_BAD_LENGTH);
    static const uint16_t types[][2] = {{0x0806, VMS_FATE_ARP}, {0x8035, VMS_FATE_ARP}, {0x88cc, VMS_FATE_NOT_IP},
                                        {0x0800, VMS_FATE_BAD_VERSION}};
    for (int i = 0; i < 4; i++) {
        f = datagram6();
        f.ethertype = types[i][0];
        put_ethernet(&f);
        check_fate(ETHERNET, frame_bytes(&f), frame_size(&f), types[i][1]);
    }
}

/* A meta entry that points outside of its batch ends as a short frame, and nothing is read. */
static void meta_outside(void)
{
    static const vms_meta_t wild[] = {{1, 0, 5, 1}, {1, 0, 0, 5}, {1, 0, 2, UINT32_MAX},
                                      {1, 0, UINT32_MAX, UINT32_MAX}};
    struct tap tap = tap_open();
    uint8_t *four = calloc(1, 4);
    CHECK_EQUAL(vms_ingest(tap.table, four, 4, wild, 0, 4, 1), 4);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_SHORT_LINK), 4);
    tap.fed = 4;
    free(four);
    tap_close(&tap);
}

int main(void)
{
    vlan_tags();
    shims_are_bounded();
    vntag();
    mpls();
    pppoe();
    ppp();
    cooked();
    loopback();
    llc();
    bare_links();
    fates();
    meta_outside();
    return check_summary("test_decode");
}
