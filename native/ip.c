/* IPv4 (RFC 791) and IPv6 (RFC 8200) down to the transport header, extension headers and fragments included. */

#include "decode.h"

enum ip_protocol {
    IP_HOP_BY_HOP = 0, IP_ROUTING = 43, IP_FRAGMENT = 44, IP_AH = 51, IP_NO_NEXT = 59, IP_DESTINATION = 60
};

#define JUMBO_OPTION 0xc2           /* RFC 2675 */
#define JUMBO_MOST (1u << 20)       /* twice what segmentation offloads make; RFC 2675 would allow a forged 4 GiB */

struct fragment_header {
    bool present;                   /* and not an atomic fragment (RFC 6946) */
    bool first;
    uint32_t id;
    uint32_t offset;                /* in units of eight octets */
};

/* Octets of an IP packet whose header says 0 because it was too long for the field, as a segmentation offload leaves
   it: as long as the frame. */
static uint32_t offloaded_size(const struct cursor *c, const struct packet *p, uint32_t before)
{
    uint32_t beyond = p->beyond_capture <= JUMBO_MOST ? p->beyond_capture : 0;      /* else no length at all */
    return before + (uint32_t)cursor_left(c) + beyond;
}

/* An AH header (RFC 4302) hides nothing: what it protects follows in clear. */
static bool take_ah(struct cursor *c, uint8_t *protocol, uint32_t *size)
{
    const uint8_t *ah = cursor_peek(c, 2);
    if (!ah)
        return false;
    uint32_t length = ((uint32_t)ah[1] + 2) * 4;
    if (!cursor_take(c, length))
        return false;
    *protocol = ah[0];
    *size = length;
    return true;
}

/* Later fragments have no transport header; the first one is remembered for their sake. */
static enum vms_fate decode_fragment(struct decoder *d, struct cursor c, struct packet *p, struct fragment_header f,
                                     uint32_t size)
{
    d->counters->fragments++;
    p->fragmented = true;
    p->ip_id = f.id;
    p->fragment_offset = f.offset;
    p->transport = c;
    if (f.first) {
        struct packet first = *p;
        enum vms_fate fate = decode_transport(d, c, p, size);
        if (fate != VMS_FATE_FLOW)
            return fate;
        if (p->depth != first.depth) {                  /* a tunnel: its later fragments belong to the outer flow */
            const uint8_t *ports = first.protocol == TRANSPORT_UDP ? cursor_peek(&c, 4) : NULL;
            if ((first.has_ports = ports != NULL)) {
                first.sport = be16(ports);
                first.dport = be16(ports + 2);
            }
        }
        fragment_learn(&d->fragments, p->depth != first.depth ? &first : p, f.id);
        return VMS_FATE_FLOW;
    }
    if (!fragment_resolve(&d->fragments, p, f.id))
        d->counters->orphan_fragments++;
    p->payload_bytes = p->protocol == TRANSPORT_TCP || p->protocol == TRANSPORT_UDP ? size : 0;
    return VMS_FATE_FLOW;
}

/*   0                   1                   2                   3
     |version|  IHL  |      TOS      |          total length         |
     |         identification        |flags|     fragment offset     |
     |      TTL      |    protocol   |        header checksum        |
     |                         source address                        |
     |                      destination address                      |  */
enum vms_fate decode_ipv4(struct decoder *d, struct cursor c, struct packet *p)
{
    struct cursor whole = c;
    const uint8_t *header = cursor_take(&c, 20);
    if (!header)
        return VMS_FATE_SHORT_IP;
    if (header[0] >> 4 != 4)
        return VMS_FATE_BAD_VERSION;
    uint32_t header_size = (header[0] & 15) * 4u, total = be16(header + 2);
    if (total == 0)
        total = offloaded_size(&whole, p, 0);
    if (header_size < 20 || total < header_size)
        return VMS_FATE_BAD_LENGTH;
    if (!cursor_take(&c, header_size - 20))
        return VMS_FATE_SHORT_IP;
    p->truncated = cursor_left(&c) < total - header_size;
    cursor_trim(&c, total - header_size);

    p->ip_version = 4;
    p->src = header + 12;
    p->dst = header + 16;
    p->ip_bytes = total;
    p->protocol = header[9];
    p->ttl = header[8];
    p->depth++;
    uint16_t offset = be16(header + 6);
    struct fragment_header f = {offset & 0x3fff, !(offset & 0x1fff), be16(header + 4), offset & 0x1fff};
    p->ip_id = f.id;
    p->fragment_protocol = header[9];
    uint32_t size = total - header_size, ah_size = 0;
    if (p->protocol == IP_AH && (f.first || !f.present) && !take_ah(&c, &p->protocol, &ah_size))
        return VMS_FATE_SHORT_IP;
    size -= ah_size;                                    /* the cursor was trimmed to size: there is as much */
    return f.present ? decode_fragment(d, c, p, f, size) : decode_transport(d, c, p, size);
}

/* The length that a jumbo payload option in this hop-by-hop header gives; 0 if there is none. */
static uint32_t jumbo_length(struct cursor options)
{
    for (int i = 0; i < DECODE_SHIM_MAX; i++) {
        const uint8_t *type = cursor_take(&options, 1);
        if (!type)
            return 0;
        if (*type == 0)                                 /* Pad1 */
            continue;
        const uint8_t *length = cursor_take(&options, 1);
        const uint8_t *value = length ? cursor_take(&options, *length) : NULL;
        if (!value)
            return 0;
        if (*type == JUMBO_OPTION && *length == 4)
            return be32(value);
    }
    return 0;
}

/* Walks the extension headers: false when the capture ends inside one. `jumbo` gets the jumbo length, if any. */
static bool take_extensions(struct cursor *c, struct packet *p, struct fragment_header *f, uint32_t *jumbo)
{
    for (int i = 0; i < DECODE_SHIM_MAX; i++) {
        const uint8_t *header = cursor_peek(c, 8);
        uint32_t ah_size;
        switch (p->protocol) {
        case IP_HOP_BY_HOP: case IP_DESTINATION: case IP_ROUTING: {
            uint32_t size = header ? (header[1] + 1u) * 8 : 0;
            if (!header || !cursor_take(c, size))
                return false;
            if (p->protocol == IP_HOP_BY_HOP)
                *jumbo = jumbo_length(cursor_over(header + 2, size - 2));
            p->protocol = header[0];
            break;
        }
        case IP_AH:
            if (!take_ah(c, &p->protocol, &ah_size))
                return false;
            break;
        case IP_FRAGMENT:
            if (!cursor_take(c, 8))
                return false;
            p->protocol = header[0];
            *f = (struct fragment_header){be16(header + 2) & 0xfff9, !(be16(header + 2) & 0xfff8), be32(header + 4),
                                          (uint32_t)be16(header + 2) >> 3};
            if (f->present && !f->first)
                return true;
            break;
        default:
            return true;
        }
    }
    return true;
}

/*   |version| traffic class |              flow label               |
     |         payload length        |  next header  |   hop limit   |
     |                   source address, 128 bits                    |
     |                destination address, 128 bits                  |  */
enum vms_fate decode_ipv6(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *header = cursor_take(&c, 40);
    if (!header)
        return VMS_FATE_SHORT_IP;
    if (header[0] >> 4 != 6)
        return VMS_FATE_BAD_VERSION;
    uint32_t payload = be16(header + 4);
    if (payload)
        cursor_trim(&c, payload);

    p->ip_version = 6;
    p->src = header + 8;
    p->dst = header + 24;
    p->protocol = header[6];
    p->ttl = header[7];
    p->fragment_protocol = 0;
    p->depth++;
    struct fragment_header f = {0};
    const uint8_t *start = c.at;
    uint32_t jumbo = 0;
    if (!take_extensions(&c, p, &f, &jumbo))
        return VMS_FATE_SHORT_IP;
    uint32_t extensions = (uint32_t)(c.at - start);
    if (payload == 0)
        payload = jumbo ? jumbo : p->protocol == IP_NO_NEXT ? 0 : offloaded_size(&c, p, extensions);
    if (payload < extensions || payload > JUMBO_MOST)
        return VMS_FATE_BAD_LENGTH;
    p->truncated = (size_t)(c.end - start) < payload;
    p->ip_bytes = 40 + payload;
    if (f.present)
        return decode_fragment(d, c, p, f, payload - extensions);
    return decode_transport(d, c, p, payload - extensions);
}

enum vms_fate decode_ip(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *first = cursor_peek(&c, 1);
    if (!first)
        return VMS_FATE_SHORT_IP;
    switch (*first >> 4) {
    case 4: return decode_ipv4(d, c, p);
    case 6: return decode_ipv6(d, c, p);
    default: return VMS_FATE_BAD_VERSION;
    }
}
