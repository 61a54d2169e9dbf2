#include "share.h"

enum {
    PLAIN_ETHERNET = 1,             /* the link type */
    PLAIN_IPV4 = 0x0800, PLAIN_IPV6 = 0x86dd, PLAIN_VLAN = 0x8100, PLAIN_QINQ = 0x88a8,
    PLAIN_TAGS = 2
};

/* The same for both directions, and in every run. */
static uint32_t share_of_pair(const struct share *share, const uint8_t *src, const uint8_t *dst, size_t size)
{
    uint64_t hash = 0;
    for (size_t at = 0; at < size; at += 4) {
        uint32_t a = be32(src + at), b = be32(dst + at);
        hash = (hash ^ ((uint64_t)(a ^ b) << 32 | (uint32_t)(a + b))) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return (uint32_t)(((hash * 0xd6e8feb86659fd93u) >> 32) * share->of >> 32);
}

static enum whose whose_pair(const struct share *share, const uint8_t *src, const uint8_t *dst, size_t size)
{
    return share_of_pair(share, src, dst, size) == share->number ? WHOSE_OURS : WHOSE_ANOTHERS;
}

/* Ports at which something is decoded: tunnels (tunnel.c), DHCP (transport.c). */
static bool is_read_further(const uint8_t *ports)
{
    switch (be16(ports + 2)) {
    case 67: case 68: case 546: case 547: case 4789: case 6081: case 8472: return true;
    default: return false;
    }
}

/* Neither a tunnel nor a notice. */
static bool is_plain(struct cursor *transport, uint8_t protocol)
{
    const uint8_t *ports = cursor_peek(transport, 4);
    return ports && (protocol == TRANSPORT_TCP || (protocol == TRANSPORT_UDP && !is_read_further(ports)));
}

static enum whose whose_ipv4(const struct share *share, struct cursor c)
{
    const uint8_t *header = cursor_peek(&c, 20);
    if (!header || header[0] >> 4 != 4 || be16(header + 6) & 0x3fff || !cursor_take(&c, (header[0] & 15) * 4u) ||
        !is_plain(&c, header[9]))
        return WHOSE_UNKNOWN;
    return whose_pair(share, header + 12, header + 16, 4);
}

static enum whose whose_ipv6(const struct share *share, struct cursor c)
{
    const uint8_t *header = cursor_take(&c, 40);
    if (!header || header[0] >> 4 != 6 || !is_plain(&c, header[6]))
        return WHOSE_UNKNOWN;
    return whose_pair(share, header + 8, header + 24, 16);
}

enum whose share_of_frame(const struct share *share, uint32_t link_type, struct cursor c)
{
    if (share->of <= 1)
        return WHOSE_OURS;
    const uint8_t *header = cursor_take(&c, 14);
    if (link_type != PLAIN_ETHERNET || !header)
        return WHOSE_UNKNOWN;
    uint16_t ethertype = be16(header + 12);
    for (int tags = 0; tags < PLAIN_TAGS && (ethertype == PLAIN_VLAN || ethertype == PLAIN_QINQ); tags++) {
        const uint8_t *tag = cursor_take(&c, 4);
        if (!tag)
            return WHOSE_UNKNOWN;
        ethertype = be16(tag + 2);
    }
    switch (ethertype) {
    case PLAIN_IPV4: return whose_ipv4(share, c);
    case PLAIN_IPV6: return whose_ipv6(share, c);
    default: return WHOSE_UNKNOWN;
    }
}

bool share_has(const struct share *share, const struct packet *p, enum vms_fate fate)
{
    if (fate != VMS_FATE_FLOW)
        return share->number == 0;
    return whose_pair(share, p->src, p->dst, p->ip_version == 4 ? 4 : 16) == WHOSE_OURS;
}
