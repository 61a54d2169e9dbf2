/*
 * Tunnels: the flow is that of the innermost IP packet; the tunnel that carries it gives the flow's VNI and the outer
 * addresses. A tunnel whose inside is no IP packet, or that the capture cuts, leaves the outer packet as it was.
 */

#include "decode.h"

enum { PORT_GENEVE = 6081, PORT_VXLAN = 4789, PORT_VXLAN_LINUX = 8472 };
enum { GRE_CHECKSUM = 0x8000, GRE_ROUTING = 0x4000, GRE_KEY = 0x2000, GRE_SEQUENCE = 0x1000, GRE_VERSION = 0x0007 };
enum {
    TYPE_TRANSPARENT = 0x6558, TYPE_ERSPAN_I_II = 0x88be, TYPE_ERSPAN_III = 0x22eb, TYPE_IPV4 = 0x0800, TYPE_IPV6 = 0x86dd
};

#define NVGRE_LOWEST_VSID 0x1000    /* RFC 7637 section 3.2: lower ones are reserved */

struct tunnel {
    enum vms_tunnel kind;
    bool has_vni;
    uint32_t vni;
    uint16_t vlan;                  /* of the mirrored frame, told by ERSPAN; 0 if none */
    uint16_t ethertype;             /* of what is inside */
    bool bare_ip;                   /* inside is an IP packet whose version alone tells which */
};

static enum vms_fate decode_inside(struct decoder *d, struct cursor c, struct packet *inner, const struct tunnel *t)
{
    inner->src_mac = inner->dst_mac = NULL;             /* those of the underlay say nothing about the inside */
    if (t->bare_ip)
        return decode_ip(d, c, inner);
    uint8_t mirrored = inner->frames + 1;
    enum vms_fate fate = decode_ethertype(d, c, inner, t->ethertype);
    if (fate == VMS_FATE_FLOW && t->vlan && inner->frames == mirrored && inner->frame_vlan_count == 0)
        decode_add_vlan(inner, t->vlan);
    return fate;
}

/* Replaces `p` by the packet inside, if there is one. */
static bool enter(struct decoder *d, struct cursor c, struct packet *p, const struct tunnel *t)
{
    if (p->depth >= DECODE_DEPTH_MAX) {
        d->counters->nested_too_deep++;
        return false;
    }
    struct packet inner = *p;
    inner.tunnel = (uint8_t)t->kind;
    inner.outer_src = p->src;
    inner.outer_dst = p->dst;
    inner.outer_ip_version = p->ip_version;
    inner.sport = inner.dport = 0;
    inner.has_ports = inner.fragmented = false;
    inner.payload_bytes = inner.ip_id = inner.fragment_offset = 0;
    if (t->has_vni) {
        inner.has_vni = true;
        inner.vni = t->vni;
    }
    if (decode_inside(d, c, &inner, t) != VMS_FATE_FLOW)
        return false;
    *p = inner;
    return true;
}

/*  RFC 7348:  | R R R R I R R R | reserved 24 | VNI 24 | reserved 8 |  */
static bool vxlan(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *header = cursor_take(&c, 8);
    if (!header || !(header[0] & 0x08))
        return false;
    struct tunnel t = {.kind = VMS_TUNNEL_VXLAN, .has_vni = true, .vni = be24(header + 4),
                       .ethertype = TYPE_TRANSPARENT};
    return enter(d, c, p, &t);
}

/*  RFC 8926:  | ver 2 | option words 6 | O C rsvd 6 | protocol 16 | VNI 24 | reserved 8 | options |  */
static bool geneve(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *header = cursor_take(&c, 8);
    if (!header || header[0] >> 6 != 0 || !cursor_take(&c, (header[0] & 0x3f) * 4u))
        return false;
    struct tunnel t = {.kind = VMS_TUNNEL_GENEVE, .has_vni = true, .vni = be24(header + 4),
                       .ethertype = be16(header + 2)};
    return enter(d, c, p, &t);
}

bool tunnel_over_udp(struct decoder *d, struct cursor payload, struct packet *p)
{
    switch (p->dport) {
    case PORT_VXLAN: case PORT_VXLAN_LINUX: return vxlan(d, payload, p);
    case PORT_GENEVE: return geneve(d, payload, p);
    default: return false;
    }
}

/*  ERSPAN type II (no type I header exists: the frame follows GRE at once), type III; draft-foschiano-erspan
     II:   | ver=1 4 | VLAN 12 | COS 3 | En 2 | T 1 | session 10 | reserved 12 | index 20 |
     III:  | ver=2 4 | VLAN 12 | COS 3 | BSO 2 | T 1 | session 10 | timestamp 32 | SGT 16 | P FT 5 Hw 6 D 1 Gra 2 O 1 |
           and, if O, a platform-specific subheader of 8 bytes  */
static bool erspan(struct decoder *d, struct cursor c, struct packet *p, bool type3, bool has_sequence)
{
    struct tunnel t = {.kind = VMS_TUNNEL_ERSPAN, .ethertype = TYPE_TRANSPARENT};
    if (type3 || has_sequence) {
        const uint8_t *header = cursor_take(&c, type3 ? 12 : 8);
        if (!header)
            return false;
        if (type3 && (header[11] & 1) && !cursor_take(&c, 8))
            return false;
        t.vlan = be16(header) & 0x0fff;
        if (type3 && (be16(header + 10) >> 10 & 0x1f) == 2)     /* frame type 2: an IP packet without a frame */
            t.bare_ip = true;
    }
    return enter(d, c, p, &t);
}

/* A key of a transparent-bridging GRE is NVGRE's VSID and flow id if it can be, else a plain tunnel key. */
static void name_gre(struct tunnel *t, uint32_t key)
{
    bool nvgre = t->ethertype == TYPE_TRANSPARENT && (key >> 8 >= NVGRE_LOWEST_VSID || (key > 0xff && !(key & 0xff)));
    t->kind = nvgre ? VMS_TUNNEL_NVGRE : VMS_TUNNEL_GRE;
    t->has_vni = true;
    t->vni = nvgre ? key >> 8 : key;
}

/*  RFC 2784, RFC 2890:  | C R K S rsvd version 3 | protocol 16 | (checksum 16 reserved 16) (key 32) (sequence 32) |  */
static bool gre(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *header = cursor_take(&c, 4), *key = NULL;
    if (!header)
        return false;
    uint16_t flags = be16(header);
    struct tunnel t = {.kind = VMS_TUNNEL_GRE, .ethertype = be16(header + 2)};
    if (flags & (GRE_VERSION | GRE_ROUTING))
        return false;
    if (flags & GRE_CHECKSUM && !cursor_take(&c, 4))
        return false;
    if (flags & GRE_KEY && !(key = cursor_take(&c, 4)))
        return false;
    if (flags & GRE_SEQUENCE && !cursor_take(&c, 4))
        return false;
    if (t.ethertype == TYPE_ERSPAN_I_II || t.ethertype == TYPE_ERSPAN_III)
        return erspan(d, c, p, t.ethertype == TYPE_ERSPAN_III, flags & GRE_SEQUENCE);
    if (key)
        name_gre(&t, be32(key));
    return enter(d, c, p, &t);
}

bool tunnel_over_ip(struct decoder *d, struct cursor payload, struct packet *p)
{
    static const struct tunnel ip4 = {.kind = VMS_TUNNEL_IPIP, .ethertype = TYPE_IPV4};
    static const struct tunnel ip6 = {.kind = VMS_TUNNEL_IPIP, .ethertype = TYPE_IPV6};
    switch (p->protocol) {
    case TRANSPORT_IPIP: return enter(d, payload, p, &ip4);
    case TRANSPORT_IPV6: return enter(d, payload, p, &ip6);
    default: return gre(d, payload, p);
    }
}
