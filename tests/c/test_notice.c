/* Notices: packets that name VMs and switches, handed up with where they were seen; bounded, and counted. */

#include "tap.h"

static vms_notice_t only_notice(struct tap *tap)
{
    vms_notice_t notices[4] = {{0}};
    CHECK_EQUAL(vms_take_notices(tap->table, notices, 4), 1);
    CHECK_EQUAL(vms_take_notices(tap->table, notices + 1, 3), 0);
    return notices[0];
}

/* A frame of this ethertype around some octets. */
static struct frame frame_with(uint16_t ethertype, uint16_t size)
{
    struct frame f = frame_payload(size);
    f.ethertype = ethertype;
    put_ethernet(&f)[6] = 2;
    return f;
}

/* What stands behind the ethertype is handed up, as far as it was captured and there is room. */
static void kinds_and_sizes(void)
{
    static const struct { uint16_t ethertype, size; enum vms_notice_kind kind; enum vms_fate fate; } cases[] = {
        {0x0806, 28, VMS_NOTICE_ARP, VMS_FATE_ARP}, {0x8035, 46, VMS_NOTICE_RARP, VMS_FATE_ARP},
        {0x88cc, 600, VMS_NOTICE_LLDP, VMS_FATE_NOT_IP},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tap tap = tap_open();
        struct frame f = frame_with(cases[i].ethertype, cases[i].size);
        tap_feed(&tap, SECOND, &f);
        vms_notice_t notice = only_notice(&tap);
        CHECK_EQUAL(notice.kind, cases[i].kind);
        CHECK_EQUAL(notice.size, cases[i].size < VMS_NOTICE_OCTETS ? cases[i].size : VMS_NOTICE_OCTETS);
        CHECK_EQUAL(notice.ts_ns, SECOND);
        CHECK_EQUAL(notice.src_mac[0], 2);
        CHECK_EQUAL(notice.ip_version, 0);
        CHECK_EQUAL(tap_fate(&tap, cases[i].fate), 1);
        CHECK_EQUAL(tap_counters(&tap).notices, 1);
        tap_close(&tap);
    }
}

/* The VLAN that it was seen in. */
static void domain(void)
{
    struct tap tap = tap_open();
    struct frame f = frame_payload(28);
    f.ethertype = 0x0806;
    put_vlan(&f, 30);
    put_ethernet(&f);
    tap_feed(&tap, SECOND, &f);
    vms_notice_t notice = only_notice(&tap);
    CHECK_EQUAL(notice.vlan_count, 1);
    CHECK_EQUAL(notice.vlan[0], 30);
    CHECK(!notice.has_vni);
    tap_close(&tap);
}

/* In VXLAN: the VNI and the tunnel's ends; the packet around it counts in its flow all the same. */
static void in_a_tunnel(void)
{
    struct tap tap = tap_open();
    struct frame f = frame_with(0x0806, 28);
    put_vxlan(&f, 5003);
    put_ipv4(&f, 0x101, 0x102);
    put_ethernet(&f);
    tap_feed(&tap, SECOND, &f);
    vms_notice_t notice = only_notice(&tap);
    CHECK_EQUAL(notice.kind, VMS_NOTICE_ARP);
    CHECK(notice.has_vni);
    CHECK_EQUAL(notice.vni, 5003);
    CHECK_EQUAL(notice.outer_ip_version, 4);
    CHECK_EQUAL(notice.outer_src[3], 1);
    CHECK_EQUAL(notice.outer_dst[3], 2);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_FLOW), 1);
    tap_close(&tap);
}

/* DHCP and neighbour discovery are flows as well, and are handed up from behind their UDP header, or whole. */
static void over_ip(void)
{
    struct tap tap = tap_open();
    struct frame f = frame_payload(240);
    put_udp(&f, 68, 67);
    put_ipv4(&f, 5, 6);
    put_ethernet(&f);
    tap_feed(&tap, SECOND, &f);
    vms_notice_t notice = only_notice(&tap);
    CHECK_EQUAL(notice.kind, VMS_NOTICE_DHCP);
    CHECK_EQUAL(notice.size, 240);
    CHECK_EQUAL(notice.ip_version, 4);
    CHECK_EQUAL(notice.src_ip[3], 5);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_FLOW), 1);
    tap_close(&tap);
}

/* More than there is room for in a window are counted; the next window has room again. */
static void too_many(void)
{
    struct tap tap = tap_open();
    for (int i = 0; i < 5000; i++) {
        struct frame f = frame_with(0x0806, 28);
        tap_feed(&tap, SECOND + i, &f);
    }
    CHECK_EQUAL(tap_counters(&tap).notices, 4096);
    CHECK_EQUAL(tap_counters(&tap).notices_lost, 904);
    vms_notice_t *notices = malloc(5000 * sizeof *notices);
    CHECK_EQUAL(vms_take_notices(tap.table, notices, 5000), 4096);
    free(notices);
    struct frame f = frame_with(0x0806, 28);
    tap_feed(&tap, 2 * SECOND, &f);
    only_notice(&tap);
    tap_close(&tap);
}

int main(void)
{
    kinds_and_sizes();
    domain();
    in_a_tunnel();
    over_ip();
    too_many();
    return check_summary("test_notice");
}
