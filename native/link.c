/* Link layers and what stands between them and IP: VLAN tags, VN-Tag, MPLS labels, PPPoE. */

#include "decode.h"

enum link_type {                    /* DLT_ values; where systems differ, every one in use */
    LINK_NULL = 0, LINK_PPP = 9, LINK_RAW = 12, LINK_RAW_OPENBSD = 14, LINK_PPP_SERIAL = 50,
    LINK_PPP_ETHER = 51, LINK_RAW_FILE = 101, LINK_CISCO_HDLC = 104, LINK_LOOP = 108, LINK_LINUX_SLL = 113,
    LINK_MPLS = 219, LINK_IPV4 = 228, LINK_IPV6 = 229, LINK_LINUX_SLL2 = 276
};

enum ethertype {
    ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_ARP = 0x0806, ETHERTYPE_TRANSPARENT = 0x6558, ETHERTYPE_RARP = 0x8035,
    ETHERTYPE_VLAN = 0x8100, ETHERTYPE_IPV6 = 0x86dd, ETHERTYPE_MPLS = 0x8847, ETHERTYPE_MPLS_UPSTREAM = 0x8848,
    ETHERTYPE_PPPOE = 0x8864, ETHERTYPE_QINQ = 0x88a8, ETHERTYPE_VNTAG = 0x8926, ETHERTYPE_QINQ_OLD = 0x9100,
    ETHERTYPE_QINQ_OLDER = 0x9200, ETHERTYPE_LLDP = 0x88cc
};

#define ETHERTYPE_LOWEST 0x0600     /* below: a length, and LLC follows (IEEE 802.3 clause 3.2.6) */

void decode_notice(struct decoder *d, const struct packet *p, enum vms_notice_kind kind, struct cursor octets)
{
    if (d->notices.are_elsewhere)
        return;
    if (notice_keep(&d->notices, p, kind, octets))
        d->counters->notices++;
    else
        d->counters->notices_lost++;
}

void decode_add_vlan(struct packet *p, uint16_t id)
{
    if (p->vlan_count < VMS_VLAN_MAX)
        p->vlan[p->vlan_count++] = id;
    if (p->frame_vlan_count < 2)
        p->frame_vlan[p->frame_vlan_count++] = id;
}

/*  IEEE 802.1Q:  | PCP 3 | DEI 1 | VLAN id 12 | ethertype 16 |  */
static bool take_vlan_tag(struct cursor *c, struct packet *p, uint16_t *ethertype)
{
    const uint8_t *tag = cursor_take(c, 4);
    if (!tag)
        return false;
    decode_add_vlan(p, be16(tag) & 0x0fff);
    *ethertype = be16(tag + 2);
    return true;
}

/*  VN-Tag (Cisco; the proposal behind IEEE 802.1BR):  | d p ptr 14 | l r ver 2 svif 12 | ethertype 16 |  */
static bool take_vntag(struct cursor *c, uint16_t *ethertype)
{
    const uint8_t *tag = cursor_take(c, 6);
    if (!tag)
        return false;
    *ethertype = be16(tag + 4);
    return true;
}

/*  RFC 1042:  | AA AA 03 | OUI 24 | ethertype 16 |  */
static bool take_llc_snap(struct cursor *c, uint16_t *ethertype)
{
    const uint8_t *snap = cursor_peek(c, 8);
    if (!snap || snap[0] != 0xaa || snap[1] != 0xaa || snap[2] != 0x03 || be24(snap + 3) != 0)
        return false;
    *ethertype = be16(snap + 6);
    cursor_take(c, 8);
    return true;
}

/* Cisco Discovery Protocol: SNAP with Cisco's OUI and type 0x2000. */
static bool is_cdp(const struct cursor *c)
{
    static const uint8_t head[8] = {0xaa, 0xaa, 0x03, 0x00, 0x00, 0x0c, 0x20, 0x00};
    const uint8_t *snap = cursor_peek(c, sizeof head);
    return snap && memcmp(snap, head, sizeof head) == 0;
}

static enum vms_fate decode_ppp(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *protocol;
    const uint8_t *hdlc = cursor_peek(&c, 2);
    if (hdlc && hdlc[0] == 0xff && hdlc[1] == 0x03)     /* RFC 1662 address and control */
        cursor_take(&c, 2);
    if (!(protocol = cursor_peek(&c, 1)))
        return VMS_FATE_SHORT_LINK;
    uint16_t number = protocol[0];
    if (number & 1)                                     /* compressed to one byte: RFC 1661 section 6.5 */
        cursor_take(&c, 1);
    else if ((protocol = cursor_take(&c, 2)))
        number = be16(protocol);
    else
        return VMS_FATE_SHORT_LINK;
    switch (number) {
    case 0x0021: return decode_ipv4(d, c, p);
    case 0x0057: return decode_ipv6(d, c, p);
    case 0x0281: return decode_mpls(d, c, p);
    default: return VMS_FATE_NOT_IP;
    }
}

/*  RFC 2516:  | ver 4 | type 4 | code 8 | session 16 | length 16 |  then PPP  */
static enum vms_fate decode_pppoe(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *header = cursor_take(&c, 6);
    if (!header)
        return VMS_FATE_SHORT_LINK;
    if (header[0] != 0x11 || header[1] != 0)
        return VMS_FATE_NOT_IP;
    cursor_trim(&c, be16(header + 4));
    return decode_ppp(d, c, p);
}

/* Four zero bits begin a control word, or a MAC address such as VMware's 00:50:56: what decodes is right. */
static enum vms_fate decode_pseudowire(struct decoder *d, struct cursor c, struct packet *p)
{
    struct packet plain = *p;
    struct cursor behind_word = c;
    cursor_take(&behind_word, 4);
    enum vms_fate fate = decode_ethernet(d, behind_word, p);
    if (fate == VMS_FATE_FLOW || fate == VMS_FATE_ARP)
        return fate;
    enum vms_fate second = decode_ethernet(d, c, &plain);
    if (second != VMS_FATE_FLOW && second != VMS_FATE_ARP)
        return fate;
    *p = plain;
    return second;
}

/*  RFC 3032:  | label 20 | class 3 | bottom 1 | TTL 8 |  ... What follows the last label is not said: its first nibble
    is 4 or 6 for IP; else a pseudowire, with (nibble 0, RFC 4385) or without a control word before the frame.  */
enum vms_fate decode_mpls(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *label;
    int labels = 0;
    do {
        if (!(label = cursor_take(&c, 4)))
            return VMS_FATE_SHORT_LINK;
        if (++labels > DECODE_SHIM_MAX)
            return VMS_FATE_NOT_IP;
    } while (!(label[2] & 1));
    const uint8_t *next = cursor_peek(&c, 1);
    if (!next)
        return VMS_FATE_SHORT_LINK;
    switch (next[0] >> 4) {
    case 4: return decode_ipv4(d, c, p);
    case 6: return decode_ipv6(d, c, p);
    case 0: return decode_pseudowire(d, c, p);
    default: return decode_ethernet(d, c, p);
    }
}

enum vms_fate decode_ethertype(struct decoder *d, struct cursor c, struct packet *p, uint16_t ethertype)
{
    for (int shims = 0; shims <= DECODE_SHIM_MAX; shims++) {
        bool whole = true;
        switch (ethertype) {
        case ETHERTYPE_IPV4: return decode_ipv4(d, c, p);
        case ETHERTYPE_IPV6: return decode_ipv6(d, c, p);
        case ETHERTYPE_ARP: case ETHERTYPE_RARP:
            decode_notice(d, p, ethertype == ETHERTYPE_ARP ? VMS_NOTICE_ARP : VMS_NOTICE_RARP, c);
            return VMS_FATE_ARP;
        case ETHERTYPE_LLDP:
            decode_notice(d, p, VMS_NOTICE_LLDP, c);
            return VMS_FATE_NOT_IP;
        case ETHERTYPE_MPLS: case ETHERTYPE_MPLS_UPSTREAM: return decode_mpls(d, c, p);
        case ETHERTYPE_PPPOE: return decode_pppoe(d, c, p);
        case ETHERTYPE_TRANSPARENT: return decode_ethernet(d, c, p);
        case ETHERTYPE_VLAN: case ETHERTYPE_QINQ: case ETHERTYPE_QINQ_OLD: case ETHERTYPE_QINQ_OLDER:
            whole = take_vlan_tag(&c, p, &ethertype);
            break;
        case ETHERTYPE_VNTAG:
            whole = take_vntag(&c, &ethertype);
            break;
        default:
            if (ethertype < ETHERTYPE_LOWEST && is_cdp(&c))
                decode_notice(d, p, VMS_NOTICE_CDP, cursor_over(c.at + 8, cursor_left(&c) - 8));
            if (ethertype >= ETHERTYPE_LOWEST || !take_llc_snap(&c, &ethertype))
                return VMS_FATE_NOT_IP;
        }
        if (!whole)
            return VMS_FATE_SHORT_LINK;
    }
    return VMS_FATE_NOT_IP;
}

/*  | destination 48 | source 48 | ethertype or length 16 |  The tags of an inner frame are its own.  */
enum vms_fate decode_ethernet(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *header = cursor_take(&c, 14);
    if (!header)
        return VMS_FATE_SHORT_LINK;
    if (++p->frames > DECODE_DEPTH_MAX)
        return VMS_FATE_NOT_IP;
    p->dst_mac = header;
    p->src_mac = header + 6;
    p->frame_vlan_count = 0;
    p->frame_vlan[0] = p->frame_vlan[1] = 0;
    uint16_t ethertype = be16(header + 12);
    if (ethertype < ETHERTYPE_LOWEST)
        cursor_trim(&c, ethertype);
    return decode_ethertype(d, c, p, ethertype);
}

/* Linux cooked capture, https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html (v1, 16 bytes) and _SLL2 (20). */
static enum vms_fate decode_cooked(struct decoder *d, struct cursor c, struct packet *p, bool v2)
{
    const uint8_t *header = cursor_take(&c, v2 ? 20 : 16);
    if (!header)
        return VMS_FATE_SHORT_LINK;
    uint16_t address_size = v2 ? header[11] : be16(header + 4);
    if (address_size == 6)
        p->src_mac = header + (v2 ? 12 : 6);
    return decode_ethertype(d, c, p, be16(header + (v2 ? 0 : 14)));
}

/* The BSD address family, in the byte order of the machine that captured (NULL) or of the network (LOOP). */
static enum vms_fate decode_loopback(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *header = cursor_take(&c, 4);
    if (!header)
        return VMS_FATE_SHORT_LINK;
    uint32_t family = be32(header);
    if (family > 0xffff)
        family = __builtin_bswap32(family);
    switch (family) {
    case 2: return decode_ipv4(d, c, p);
    case 10: case 24: case 28: case 30: return decode_ipv6(d, c, p);    /* Linux, NetBSD, FreeBSD, macOS */
    default: return VMS_FATE_NOT_IP;
    }
}

/*  | address 8 | control 8 | ethertype 16 |  */
static enum vms_fate decode_cisco_hdlc(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *header = cursor_take(&c, 4);
    return header ? decode_ethertype(d, c, p, be16(header + 2)) : VMS_FATE_SHORT_LINK;
}

enum vms_fate decode_layers(struct decoder *d, struct cursor frame, uint32_t wire, struct packet *p)
{
    if (wire > cursor_left(&frame))
        p->beyond_capture = wire - (uint32_t)cursor_left(&frame);
    switch (d->link_type) {
    case LINK_ETHERNET: return decode_ethernet(d, frame, p);
    case LINK_LINUX_SLL: return decode_cooked(d, frame, p, false);
    case LINK_LINUX_SLL2: return decode_cooked(d, frame, p, true);
    case LINK_RAW: case LINK_RAW_OPENBSD: case LINK_RAW_FILE: case LINK_IPV4: case LINK_IPV6:
        return decode_ip(d, frame, p);
    case LINK_NULL: case LINK_LOOP: return decode_loopback(d, frame, p);
    case LINK_PPP: case LINK_PPP_SERIAL: return decode_ppp(d, frame, p);
    case LINK_PPP_ETHER: return decode_pppoe(d, frame, p);
    case LINK_CISCO_HDLC: return decode_cisco_hdlc(d, frame, p);
    case LINK_MPLS: return decode_mpls(d, frame, p);
    default: return VMS_FATE_UNKNOWN_LINK;
    }
}
