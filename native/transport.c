/* Transport headers: ports, payload size and the TCP fields; tunnels are entered from here. */

#include "decode.h"

enum { ND_FIRST = 133, ND_LAST = 137 };     /* RFC 4861: router and neighbour messages, redirects */

static bool take_ports(struct cursor *c, struct packet *p)
{
    const uint8_t *ports = cursor_peek(c, 4);
    if (!ports)
        return false;
    p->sport = be16(ports);
    p->dport = be16(ports + 2);
    p->has_ports = true;
    return true;
}

/*  RFC 9293 section 3.1
     |          source port          |       destination port        |
     |                        sequence number                        |
     |                    acknowledgment number                      |
     | offset| rsrvd |     flags     |            window             |
     |           checksum            |         urgent pointer        |  */
static enum vms_fate decode_tcp(struct decoder *d, struct cursor c, struct packet *p, uint32_t size)
{
    if (!take_ports(&c, p))
        return VMS_FATE_SHORT_TRANSPORT;
    const uint8_t *header = cursor_take(&c, 20);
    uint32_t header_size = header ? (header[12] >> 4) * 4u : 0;
    if (header_size < 20 || header_size > size) {
        d->counters->short_tcp++;
        return VMS_FATE_FLOW;
    }
    p->has_tcp = true;
    p->tcp_seq = be32(header + 4);
    p->tcp_ack = be32(header + 8);
    p->tcp_flags = header[13];
    p->tcp_window = be16(header + 14);
    p->payload_bytes = size - header_size;
    p->tcp_options = cursor_take(&c, header_size - 20);
    p->tcp_options_size = p->tcp_options ? (uint8_t)(header_size - 20) : 0;
    return VMS_FATE_FLOW;
}

/* RFC 2131: 67 and 68, RFC 8415: 546 and 547; relays talk to servers from server port to server port. */
static bool is_dhcp(const struct packet *p, uint16_t low, uint16_t high)
{
    return p->sport >= low && p->sport <= high && p->dport >= low && p->dport <= high;
}

/*  RFC 768:  | source port 16 | destination port 16 | length 16 | checksum 16 |  */
static enum vms_fate decode_udp(struct decoder *d, struct cursor c, struct packet *p, uint32_t size)
{
    if (!take_ports(&c, p))
        return VMS_FATE_SHORT_TRANSPORT;
    const uint8_t *header = cursor_take(&c, 8);
    p->payload_bytes = size > 8 ? size - 8 : 0;
    if (!header)
        return VMS_FATE_FLOW;
    uint32_t length = be16(header + 4);
    if (length >= 8 && length - 8 < p->payload_bytes)
        p->payload_bytes = length - 8;
    if (is_dhcp(p, 67, 68))
        decode_notice(d, p, VMS_NOTICE_DHCP, c);
    else if (is_dhcp(p, 546, 547))
        decode_notice(d, p, VMS_NOTICE_DHCP6, c);
    else
        tunnel_over_udp(d, c, p);
    return VMS_FATE_FLOW;
}

/* Requests and their answers are one flow, as Community ID v1 pairs their types; any other type stands alone with its
   code (https://github.com/corelight/community-id-spec). */
static uint8_t icmp_counterpart(uint8_t protocol, uint8_t type, uint8_t code)
{
    static const uint8_t pairs4[][2] = {{0, 8}, {9, 10}, {13, 14}, {15, 16}, {17, 18}};
    static const uint8_t pairs6[][2] = {{128, 129}, {130, 131}, {133, 134}, {135, 136}, {139, 140}, {144, 145}};
    bool v4 = protocol == TRANSPORT_ICMP;
    const uint8_t (*pairs)[2] = v4 ? pairs4 : pairs6;
    size_t count = v4 ? sizeof pairs4 / 2 : sizeof pairs6 / 2;
    for (size_t i = 0; i < count; i++) {
        if (pairs[i][0] == type)
            return pairs[i][1];
        if (pairs[i][1] == type)
            return pairs[i][0];
    }
    return code;
}

/*  RFC 792, RFC 4443:  | type 8 | code 8 | checksum 16 |  */
static enum vms_fate decode_icmp(struct decoder *d, struct cursor c, struct packet *p)
{
    const uint8_t *header = cursor_take(&c, 2);
    if (!header)
        return VMS_FATE_SHORT_TRANSPORT;
    if (p->protocol == TRANSPORT_ICMP6 && header[0] >= ND_FIRST && header[0] <= ND_LAST)
        decode_notice(d, p, VMS_NOTICE_ND, p->transport);
    p->sport = header[0];
    p->dport = icmp_counterpart(p->protocol, header[0], header[1]);
    p->has_ports = true;
    return VMS_FATE_FLOW;
}

enum vms_fate decode_transport(struct decoder *d, struct cursor c, struct packet *p, uint32_t size)
{
    p->transport.at = c.at;                             /* one by one: a copy of both would wait for them in memory */
    p->transport.end = c.end;
    switch (p->protocol) {
    case TRANSPORT_TCP: return decode_tcp(d, c, p, size);
    case TRANSPORT_UDP: return decode_udp(d, c, p, size);
    case TRANSPORT_ICMP: case TRANSPORT_ICMP6: return decode_icmp(d, c, p);
    case TRANSPORT_SCTP: return take_ports(&c, p) ? VMS_FATE_FLOW : VMS_FATE_SHORT_TRANSPORT;
    case TRANSPORT_IPIP: case TRANSPORT_IPV6: case TRANSPORT_GRE:
        tunnel_over_ip(d, c, p);
        return VMS_FATE_FLOW;
    default: return VMS_FATE_FLOW;
    }
}
