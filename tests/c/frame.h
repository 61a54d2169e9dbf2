/*
 * Builds packets from the inside out: each call puts a header in front of what is there, with lengths and next-protocol
 * fields right. Whatever a test wants wrong it overwrites afterwards.
 *
 *     struct frame f = frame_payload(100);
 *     put_udp(&f, 1000, 53);
 *     put_ipv4(&f, 1, 2);              10.0.0.1 to 10.0.0.2
 *     put_vlan(&f, 7);
 *     put_ethernet(&f);
 */

#ifndef FRAME_H
#define FRAME_H

#include <stdint.h>
#include <string.h>

#include "bytes.h"

#define FRAME_ROOM 4096

struct frame {
    uint8_t room[FRAME_ROOM];
    size_t start;
    uint16_t ethertype;         /* of what stands first */
    uint8_t protocol;           /* the same as an IP protocol number */
};

static inline uint8_t *frame_bytes(struct frame *f)
{
    return f->room + f->start;
}

static inline size_t frame_size(const struct frame *f)
{
    return FRAME_ROOM - f->start;
}

static inline void write16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void write32(uint8_t *at, uint32_t value)
{
    write16(at, value >> 16);
    write16(at + 2, value);
}

/* Room for a header in front, zeroed. */
static inline uint8_t *put(struct frame *f, size_t size)
{
    f->start -= size;
    return memset(frame_bytes(f), 0, size);
}

static inline uint8_t *put_bytes(struct frame *f, const void *bytes, size_t size)
{
    return memcpy(put(f, size), bytes, size);
}

static inline struct frame frame_payload(size_t size)
{
    struct frame f;
    f.start = FRAME_ROOM;
    f.ethertype = 0;
    f.protocol = 253;           /* for experiments: RFC 3692 */
    put(&f, size);
    return f;
}

/* ---- transport ---- */

static inline void put_udp(struct frame *f, uint16_t sport, uint16_t dport)
{
    uint8_t *header = put(f, 8);
    write16(header, sport);
    write16(header + 2, dport);
    write16(header + 4, (uint32_t)frame_size(f));
    f->protocol = 17;
}

struct tcp_fields {
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t window;
    const uint8_t *options;
    uint8_t options_size;       /* a multiple of four */
};

static inline void put_tcp(struct frame *f, struct tcp_fields t)
{
    if (t.options_size)
        put_bytes(f, t.options, t.options_size);
    uint8_t *header = put(f, 20);
    write16(header, t.sport);
    write16(header + 2, t.dport);
    write32(header + 4, t.seq);
    write32(header + 8, t.ack);
    header[12] = (uint8_t)((20 + t.options_size) / 4 << 4);
    header[13] = t.flags;
    write16(header + 14, t.window);
    f->protocol = 6;
}

static inline void put_icmp(struct frame *f, uint8_t type, uint8_t code)
{
    uint8_t *header = put(f, 8);
    header[0] = type;
    header[1] = code;
    f->protocol = 1;
}

/* ---- IP: hosts are numbers, 10.0.x.y and fd00::x:y ---- */

static inline uint8_t *put_ipv4(struct frame *f, uint16_t src, uint16_t dst)
{
    uint8_t *header = put(f, 20);
    header[0] = 0x45;
    write16(header + 2, (uint32_t)frame_size(f));
    header[8] = 64;
    header[9] = f->protocol;
    write32(header + 12, 0x0a000000u | src);
    write32(header + 16, 0x0a000000u | dst);
    f->ethertype = 0x0800;
    f->protocol = 4;
    return header;
}

static inline uint8_t *put_ipv6(struct frame *f, uint16_t src, uint16_t dst)
{
    size_t payload = frame_size(f);
    uint8_t *header = put(f, 40);
    header[0] = 0x60;
    write16(header + 4, (uint32_t)payload);
    header[6] = f->protocol;
    header[7] = 64;
    header[8] = header[24] = 0xfd;
    write16(header + 22, src);
    write16(header + 38, dst);
    f->ethertype = 0x86dd;
    f->protocol = 41;
    return header;
}

/* An extension header of `size` octets (8, 16, ...) with this protocol number. */
static inline uint8_t *put_extension(struct frame *f, uint8_t protocol, size_t size)
{
    uint8_t *header = put(f, size);
    header[0] = f->protocol;
    header[1] = (uint8_t)(size / 8 - 1);
    f->protocol = protocol;
    return header;
}

static inline void put_ipv6_fragment(struct frame *f, uint32_t id, uint16_t offset, bool more)
{
    uint8_t *header = put_extension(f, 44, 8);
    header[1] = 0;
    write16(header + 2, (uint32_t)(offset << 3 | more));
    write32(header + 4, id);
}

/* `offset` in units of eight octets. */
static inline void make_fragment(uint8_t *ipv4, uint16_t id, uint16_t offset, bool more)
{
    write16(ipv4 + 4, id);
    write16(ipv4 + 6, (uint32_t)(offset | more << 13));
}

static inline void put_ah(struct frame *f)
{
    uint8_t *header = put(f, 24);
    header[0] = f->protocol;
    header[1] = 24 / 4 - 2;
    f->protocol = 51;
}

/* ---- link ---- */

static inline void put_shim(struct frame *f, size_t size, uint16_t ethertype)
{
    write16(put(f, size) + size - 2, f->ethertype);
    f->ethertype = ethertype;
}

static inline void put_vlan(struct frame *f, uint16_t id)
{
    put_shim(f, 4, 0x8100);
    write16(frame_bytes(f), id);
}

static inline void put_vntag(struct frame *f)
{
    put_shim(f, 6, 0x8926);
}

static inline void put_mpls(struct frame *f, uint32_t label, bool bottom)
{
    write32(put(f, 4), label << 12 | (uint32_t)bottom << 8 | 64);
    f->ethertype = 0x8847;
}

static inline uint8_t *put_pppoe(struct frame *f)
{
    uint16_t protocol = f->ethertype == 0x0800 ? 0x0021 : 0x0057;
    write16(put(f, 2), protocol);
    size_t size = frame_size(f);
    uint8_t *header = put(f, 6);
    header[0] = 0x11;
    write16(header + 4, (uint32_t)size);
    f->ethertype = 0x8864;
    return header;
}

static inline uint8_t *put_ethernet(struct frame *f)
{
    static const uint8_t macs[12] = {2, 0, 0, 0, 0, 0xdd, 2, 0, 0, 0, 0, 0x55};
    write16(put(f, 2), f->ethertype);
    f->ethertype = 0x6558;
    return put_bytes(f, macs, sizeof macs);
}

/* ---- tunnels, up to their own outer UDP or GRE header ---- */

static inline uint8_t *put_vxlan(struct frame *f, uint32_t vni)
{
    uint8_t *header = put(f, 8);
    header[0] = 0x08;
    write32(header + 4, vni << 8);
    put_udp(f, 50000, 4789);
    return header;
}

static inline uint8_t *put_geneve(struct frame *f, uint32_t vni, uint8_t option_words)
{
    put(f, option_words * 4u);
    uint8_t *header = put(f, 8);
    header[0] = option_words;
    write16(header + 2, f->ethertype);
    write32(header + 4, vni << 8);
    put_udp(f, 50000, 6081);
    return header;
}

enum { GRE_WITH_CHECKSUM = 8, GRE_WITH_KEY = 2, GRE_WITH_SEQUENCE = 1 };

static inline uint8_t *put_gre(struct frame *f, uint16_t protocol, uint8_t fields, uint32_t key)
{
    if (fields & GRE_WITH_SEQUENCE)
        put(f, 4);
    if (fields & GRE_WITH_KEY)
        write32(put(f, 4), key);
    if (fields & GRE_WITH_CHECKSUM)
        put(f, 4);
    uint8_t *header = put(f, 4);
    header[0] = (uint8_t)(fields << 4);
    write16(header + 2, protocol);
    f->protocol = 47;
    return header;
}

#endif
