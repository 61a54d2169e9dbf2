/*
 * The frame that most are, in one look: Ethernet with one tag or none, IPv4 without options or fragments, TCP with all of
 * its header. What the layers in link.c, ip.c and transport.c would make of it step by step, and nothing else: all other
 * frames are theirs.
 */

#include "decode.h"

#define PLAIN_HEADERS (14 + 20 + 20)
#define TAGGED 0x8100               /* IEEE 802.1Q */
#define TAG 4                       /* octets; what is looked at behind it, before it is known whether it is there, is less */

bool decode_plain(struct cursor frame, struct packet *p)
{
    const uint8_t *ethernet = cursor_peek(&frame, PLAIN_HEADERS);
    if (!ethernet)
        return false;
    uint32_t tag = be16(ethernet + 12) == TAGGED ? TAG : 0;
    const uint8_t *ip = ethernet + 14 + tag, *tcp = ip + 20;
    uint32_t total = be16(ip + 2), tcp_size = (tcp[12] >> 4) * 4u;
    bool is_plain = is_plain_ipv4(ethernet + tag) && ip[9] == TRANSPORT_TCP && tcp_size >= 20 &&
                    total >= 20 + tcp_size && cursor_left(&frame) >= 14 + tag + 20 + tcp_size;
    if (!is_plain)
        return false;
    if (tag)
        decode_add_vlan(p, be16(ethernet + 14) & 0x0fff);
    p->dst_mac = ethernet;
    p->src_mac = ethernet + 6;
    p->frames = p->depth = 1;
    p->ip_version = 4;
    p->src = ip + 12;
    p->dst = ip + 16;
    p->ip_bytes = total;
    p->ip_id = be16(ip + 4);
    p->ttl = ip[8];
    p->protocol = p->fragment_protocol = TRANSPORT_TCP;
    p->transport.at = tcp;
    p->truncated = cursor_left(&frame) < 14 + tag + total;
    p->transport.end = p->truncated ? frame.end : ip + total;
    p->has_ports = p->has_tcp = true;
    p->sport = be16(tcp);
    p->dport = be16(tcp + 2);
    p->tcp_seq = be32(tcp + 4);
    p->tcp_ack = be32(tcp + 8);
    p->tcp_flags = tcp[13];
    p->tcp_window = be16(tcp + 14);
    p->payload_bytes = total - 20 - tcp_size;
    p->tcp_options = tcp + 20;
    p->tcp_options_size = (uint8_t)(tcp_size - 20);
    return true;
}
