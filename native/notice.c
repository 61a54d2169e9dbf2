#include <stdlib.h>

#include "flow.h"

void notices_close(struct notices *n)
{
    free(n->kept);
    n->kept = NULL;
}

static void copy_address(uint8_t to[16], const uint8_t *from, uint8_t ip_version)
{
    if (from && ip_version)
        memcpy(to, from, ip_version == 4 ? 4 : 16);
}

static bool is_over_ip(enum vms_notice_kind kind)
{
    return kind >= VMS_NOTICE_ND;
}

bool notice_keep(struct notices *n, const struct packet *p, enum vms_notice_kind kind, struct cursor octets)
{
    if (!n->kept && !(n->kept = malloc(NOTICE_CAPACITY * sizeof *n->kept)))
        return false;
    if (n->count == NOTICE_CAPACITY)
        return false;
    vms_notice_t *notice = &n->kept[n->count++];
    cursor_trim(&octets, VMS_NOTICE_OCTETS);
    *notice = (vms_notice_t){
        .ts_ns = p->ts_ns, .kind = (uint8_t)kind, .size = (uint16_t)cursor_left(&octets), .vni = p->vni,
        .has_vni = p->has_vni, .vlan_count = p->vlan_count, .tunnel = p->tunnel,
        .ip_version = is_over_ip(kind) ? p->ip_version : 0, .outer_ip_version = p->tunnel ? p->outer_ip_version : 0,
    };
    memcpy(notice->vlan, p->vlan, sizeof notice->vlan);
    if (p->src_mac)
        memcpy(notice->src_mac, p->src_mac, 6);
    if (p->dst_mac)
        memcpy(notice->dst_mac, p->dst_mac, 6);
    copy_address(notice->src_ip, p->src, notice->ip_version);
    copy_address(notice->dst_ip, p->dst, notice->ip_version);
    copy_address(notice->outer_src, p->outer_src, notice->outer_ip_version);
    copy_address(notice->outer_dst, p->outer_dst, notice->outer_ip_version);
    memcpy(notice->octets, octets.at, notice->size);
    return true;
}

uint32_t vms_take_notices(vms_table_t *t, vms_notice_t *notices, uint32_t capacity)
{
    struct notices *n = &t->decoder.notices;
    uint32_t taken = n->count < capacity ? n->count : capacity;
    if (taken)
        memcpy(notices, n->kept, taken * sizeof *notices);
    n->count = 0;
    return taken;
}
