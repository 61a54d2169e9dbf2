/* Tunnels: the flow is that of the innermost IP packet. And no truncation of any stack of headers reads too far. */

#include "tap.h"

/* UDP from 10.0.0.1 to 10.0.0.2, 10 octets: as an Ethernet frame, or as a bare IP packet. */
static struct frame inner_packet(void)
{
    struct frame f = frame_payload(10);
    put_udp(&f, 1000, 53);
    put_ipv4(&f, 1, 2);
    return f;
}

static struct frame inner_frame(void)
{
    struct frame f = inner_packet();
    put_ethernet(&f);
    return f;
}

/* The underlay: from 10.0.1.1 to 10.0.1.2, in a VLAN of its own. */
static void wrap(struct frame *f)
{
    put_ipv4(f, 0x101, 0x102);
    put_vlan(f, 99);
    put_ethernet(f);
}

static vms_record_t record_of(struct frame f)
{
    struct tap tap = tap_open();
    tap_feed(&tap, SECOND, &f);
    vms_record_t r = tap_only(&tap);
    tap_close(&tap);
    return r;
}

static vms_record_t check_inside(struct frame f, enum vms_tunnel tunnel)
{
    wrap(&f);
    vms_record_t r = record_of(f);
    CHECK_EQUAL(r.tunnel, tunnel);
    CHECK_EQUAL(r.server_port, 53);
    CHECK_EQUAL(r.c2s.bytes, 38);
    CHECK_EQUAL(r.outer_src[2] << 8 | r.outer_src[3], 0x101);
    CHECK_EQUAL(r.outer_dst[2] << 8 | r.outer_dst[3], 0x102);
    CHECK_EQUAL(r.outer_ip_version, 4);
    return r;
}

static void check_outside(struct frame f, uint8_t protocol)
{
    wrap(&f);
    vms_record_t r = record_of(f);
    CHECK_EQUAL(r.tunnel, VMS_TUNNEL_NONE);
    CHECK_EQUAL(r.protocol, protocol);
    CHECK_EQUAL(r.client_ip[2], 1);
    CHECK_EQUAL(r.flags & VMS_RECORD_HAS_VNI, 0);
}

/* VXLAN gives the VNI; without its I flag, or with an inside that is no IP, the outer flow counts. */
static void vxlan(void)
{
    struct frame f = inner_frame();
    put_vxlan(&f, 0x123456);
    vms_record_t r = check_inside(f, VMS_TUNNEL_VXLAN);
    CHECK_EQUAL(r.vni, 0x123456);
    CHECK(r.flags & VMS_RECORD_HAS_VNI);
    CHECK_EQUAL(r.vlan_count, 1);
    CHECK_EQUAL(r.vlan[0], 99);
    f = inner_frame();
    put_vxlan(&f, 5)[0] = 0;
    check_outside(f, 17);
    f = frame_payload(30);
    f.ethertype = 0x88cc;
    put_ethernet(&f);
    put_vxlan(&f, 5);
    check_outside(f, 17);
}

/* Geneve's options are passed over up to the 252 octets that there can be; other versions are not decoded. */
static void geneve(void)
{
    for (uint8_t words = 0; words < 64; words += 21) {
        struct frame f = inner_frame();
        put_geneve(&f, 77, words);
        CHECK_EQUAL(check_inside(f, VMS_TUNNEL_GENEVE).vni, 77);
    }
    struct frame bare = inner_packet();
    put_geneve(&bare, 78, 2);
    CHECK_EQUAL(check_inside(bare, VMS_TUNNEL_GENEVE).vni, 78);
    struct frame f = inner_frame();
    put_geneve(&f, 77, 0)[0] = 0x40;
    check_outside(f, 17);
}

/* Plain GRE, with each combination of its optional fields. */
static void gre(void)
{
    static const uint8_t fields[] = {0, GRE_WITH_CHECKSUM, GRE_WITH_KEY, GRE_WITH_SEQUENCE,
                                     GRE_WITH_CHECKSUM | GRE_WITH_KEY | GRE_WITH_SEQUENCE};
    for (int i = 0; i < 5; i++) {
        struct frame f = inner_packet();
        put_gre(&f, 0x0800, fields[i], 4711);
        vms_record_t r = check_inside(f, VMS_TUNNEL_GRE);
        CHECK_EQUAL(r.flags & VMS_RECORD_HAS_VNI, fields[i] & GRE_WITH_KEY ? VMS_RECORD_HAS_VNI : 0);
        CHECK_EQUAL(r.vni, fields[i] & GRE_WITH_KEY ? 4711 : 0);
    }
    struct frame f = inner_packet();
    put_gre(&f, 0x0800, 0, 0)[1] = 1;               /* PPTP's version */
    check_outside(f, 47);
    f = inner_packet();
    put_gre(&f, 0x0800, 0, 0)[0] = 0x40;            /* source routes */
    check_outside(f, 47);
}

/* A key of a bridging GRE is NVGRE's where it can be (RFC 7637), else a plain tunnel key. */
static void nvgre_or_gre(void)
{
    static const struct { uint32_t key, vni; enum vms_tunnel kind; } cases[] = {
        {0x00123456, 0x1234, VMS_TUNNEL_NVGRE}, {0x00100000, 0x1000, VMS_TUNNEL_NVGRE},
        {0xabcdef01, 0xabcdef, VMS_TUNNEL_NVGRE}, {0x00000500, 5, VMS_TUNNEL_NVGRE},
        {7, 7, VMS_TUNNEL_GRE}, {0x000fff01, 0x000fff01, VMS_TUNNEL_GRE},
    };
    for (int i = 0; i < 6; i++) {
        struct frame f = inner_frame();
        put_gre(&f, 0x6558, GRE_WITH_KEY, cases[i].key);
        CHECK_EQUAL(check_inside(f, cases[i].kind).vni, cases[i].vni);
    }
    struct frame f = inner_frame();
    put_gre(&f, 0x6558, 0, 0);
    check_inside(f, VMS_TUNNEL_GRE);
}

/* The header of ERSPAN type II or III around a frame, with the VLAN that it was mirrored from. */
static void put_erspan(struct frame *f, int type, uint16_t vlan)
{
    if (type > 1) {
        uint8_t *header = put(f, type == 3 ? 12 : 8);
        write16(header, (uint32_t)((type - 1) << 12 | vlan));
    }
    put_gre(f, type == 3 ? 0x22eb : 0x88be, type == 1 ? 0 : GRE_WITH_SEQUENCE, 0);
}

/* ERSPAN's three types; its VLAN becomes the tag of a frame that has none, and only of such a frame. */
static void erspan(void)
{
    for (int type = 1; type <= 3; type++) {
        struct frame f = inner_frame();
        put_erspan(&f, type, 42);
        vms_record_t r = check_inside(f, VMS_TUNNEL_ERSPAN);
        CHECK_EQUAL(r.vlan_count, type == 1 ? 1 : 2);
        CHECK_EQUAL(r.vlan[1], type == 1 ? 0 : 42);
        f = inner_packet();
        put_vlan(&f, 7);
        put_ethernet(&f);
        put_erspan(&f, type, 42);
        r = check_inside(f, VMS_TUNNEL_ERSPAN);
        CHECK_EQUAL(r.vlan_count, 2);
        CHECK_EQUAL(r.vlan[1], 7);
    }
}

/* Type III may have a subheader of 8 octets, and may carry a bare IP packet. */
static void erspan3_variants(void)
{
    struct frame f = inner_frame();
    put(&f, 8);
    uint8_t *header = put(&f, 12);
    write16(header, 2 << 12 | 42);
    header[11] = 1;
    put_gre(&f, 0x22eb, GRE_WITH_SEQUENCE, 0);
    check_inside(f, VMS_TUNNEL_ERSPAN);
    f = inner_packet();
    header = put(&f, 12);
    write16(header, 2 << 12 | 42);
    write16(header + 10, 2 << 10);
    put_gre(&f, 0x22eb, GRE_WITH_SEQUENCE, 0);
    check_inside(f, VMS_TUNNEL_ERSPAN);
}

/* ERSPAN's VLAN belongs to the mirrored frame: a tenant's frame in a VXLAN inside of that keeps a key without it. */
static void erspan_around_vxlan(void)
{
    struct tap tap = tap_open();
    for (uint16_t vlan = 10; vlan <= 20; vlan += 10) {
        struct frame f = frame_payload(10);
        put_udp(&f, vlan == 10 ? 1000 : 53, vlan == 10 ? 53 : 1000);
        put_ipv4(&f, vlan == 10 ? 1 : 2, vlan == 10 ? 2 : 1);
        put_ethernet(&f);
        put_vxlan(&f, 5);
        put_ipv4(&f, 0x201, 0x202);
        put_ethernet(&f);
        put_erspan(&f, 2, vlan);
        wrap(&f);
        tap_feed(&tap, SECOND, &f);
    }
    tap_roll(&tap);
    CHECK_EQUAL(tap.rolled_count, 1);
    tap_close(&tap);
}

/* Outer addresses are those of the client's packets: if only the server's passed they are turned round, but not those
   of a mirror session, which runs one way for both. */
static void outer_addresses_of_the_client(void)
{
    for (int mirror = 0; mirror <= 1; mirror++) {
        struct frame f = frame_payload(10);
        put_udp(&f, 53, 50000);
        put_ipv4(&f, 2, 1);
        put_ethernet(&f);
        mirror ? put_erspan(&f, 2, 5) : (void)put_vxlan(&f, 5);
        wrap(&f);
        vms_record_t r = record_of(f);
        CHECK_EQUAL(r.client_port, 50000);
        CHECK_EQUAL(r.outer_src[3], mirror ? 1 : 2);
        CHECK_EQUAL(r.outer_dst[3], mirror ? 2 : 1);
    }
}

/* IP in IP, all four ways, needs no more than the protocol number. */
static void ip_in_ip(void)
{
    for (int way = 0; way < 4; way++) {
        struct frame f = frame_payload(10);
        put_udp(&f, 1000, 53);
        way & 1 ? put_ipv6(&f, 1, 2) : put_ipv4(&f, 1, 2);
        way & 2 ? put_ipv6(&f, 3, 4) : put_ipv4(&f, 3, 4);
        put_ethernet(&f);
        vms_record_t r = record_of(f);
        CHECK_EQUAL(r.tunnel, VMS_TUNNEL_IPIP);
        CHECK_EQUAL(r.server_port, 53);
        CHECK_EQUAL(r.ip_version, way & 1 ? 6 : 4);
        CHECK_EQUAL(r.outer_ip_version, way & 2 ? 6 : 4);
        CHECK_EQUAL(r.outer_src[way & 2 ? 15 : 3], 3);
    }
}

/* Nesting has a bound: what is deeper counts where the bound was reached, and is told. */
static void nesting_is_bounded(void)
{
    struct tap tap = tap_open();
    struct frame f = inner_packet();
    for (int i = 0; i < 20; i++)
        put_ipv4(&f, 0x101, 0x102);
    put_ethernet(&f);
    tap_feed(&tap, SECOND, &f);
    CHECK_EQUAL(tap_only(&tap).protocol, 4);
    CHECK_EQUAL(tap_counters(&tap).nested_too_deep, 1);
    tap_close(&tap);
}

static void put_tunnel(struct frame *f, int which)
{
    switch (which) {
    case 0: put_vxlan(f, 5); break;
    case 1: put_geneve(f, 5, 3); break;
    default: put_erspan(f, which - 1, 5);
    }
    put_ipv4(f, 0x101, 0x102);
}

/* Stacks of every kind of header, each as deep as it comes. */
static struct frame stack(int which)
{
    struct frame f = which % 2 ? frame_payload(40) : inner_packet();
    if (which % 2) {
        static const uint8_t options[12] = {2, 4, 5, 0xb4, 1, 1, 5, 2, 0, 0, 0, 0};
        put_tcp(&f, (struct tcp_fields){.sport = 1, .dport = 2, .flags = TCP_SYN, .options = options,
                                        .options_size = sizeof options});
        put_ah(&f);
        put_ipv6_fragment(&f, 9, 0, true);
        put_extension(&f, 0, 16);
        put_ipv6(&f, 1, 2);
    }
    if (which / 2 == 0) {
        put_pppoe(&f);
        put_vntag(&f);
        put_vlan(&f, 3);
    } else if (which / 2 == 1) {
        put_mpls(&f, 20, true);
        put_mpls(&f, 21, false);
    } else {
        put_ethernet(&f);
        put_tunnel(&f, which / 2 - 2);
    }
    put_ethernet(&f);
    return f;
}

/* Every stack cut at every length, under every link type, ends in one fate and one record, and reads no byte behind. */
static void every_truncation(void)
{
    static const uint32_t links[] = {1, 0, 9, 12, 51, 104, 108, 113, 219, 228, 229, 276};
    struct tap tap = tap_open();
    for (int which = 0; which < 14; which++) {
        struct frame f = stack(which);
        for (size_t link = 0; link < sizeof links / sizeof *links; link++) {
            vms_set_link_type(tap.table, links[link]);
            for (size_t size = 0; size <= frame_size(&f); size++)
                tap_feed_bytes(&tap, SECOND, frame_bytes(&f), size);
        }
    }
    CHECK(tap_fate(&tap, VMS_FATE_SHORT_LINK) > 100);
    CHECK(tap_fate(&tap, VMS_FATE_SHORT_IP) > 100);
    CHECK(tap_fate(&tap, VMS_FATE_FLOW) > 1000);
    tap_close(&tap);
}

int main(void)
{
    vxlan();
    geneve();
    gre();
    nvgre_or_gre();
    erspan();
    erspan3_variants();
    erspan_around_vxlan();
    outer_addresses_of_the_client();
    ip_in_ip();
    nesting_is_bounded();
    every_truncation();
    return check_summary("test_tunnel");
}
