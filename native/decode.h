/* What decoding leaves of a packet: the innermost IP packet, and how the tap saw it. */
#ifndef VMS_DECODE_H
#define VMS_DECODE_H

#include "bytes.h"
#include "fragment.h"
#include "notice.h"
#include "vms.h"

#define DECODE_DEPTH_MAX 8          /* IP headers inside one another */
#define DECODE_SHIM_MAX 16          /* tags, labels and extension headers in a row */

enum transport {                    /* IANA protocol numbers */
    TRANSPORT_ICMP = 1, TRANSPORT_IPIP = 4, TRANSPORT_TCP = 6, TRANSPORT_UDP = 17, TRANSPORT_IPV6 = 41,
    TRANSPORT_GRE = 47, TRANSPORT_ICMP6 = 58, TRANSPORT_SCTP = 132
};

enum tcp_flag { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };

struct packet {
    int64_t ts_ns;

    /* addresses, in the captured bytes; valid once ip_version, or outer_ip_version, is not 0 */
    const uint8_t *src;             /* of the innermost IP packet */
    const uint8_t *dst;
    const uint8_t *outer_src;
    const uint8_t *outer_dst;

    uint32_t beyond_capture;        /* octets on the wire behind the captured ones, 0 when nobody can tell */

    /* innermost IP packet */
    uint32_t ip_bytes;
    uint32_t payload_bytes;         /* TCP and UDP only */
    uint16_t sport;                 /* ICMP: type and code as Community ID orders them */
    uint16_t dport;
    uint8_t ip_version;
    uint8_t protocol;
    uint8_t ttl;                    /* IPv6: hop limit */
    bool has_ports;                 /* the key has ports (or ICMP type and code) */
    bool fragmented;
    bool truncated;                 /* the capture ends before the packet does */
    uint32_t ip_id;                 /* IPv4, or of an IPv6 fragment; else 0 */
    uint32_t fragment_offset;
    uint8_t fragment_protocol;      /* IPv4's protocol field, by which identifications are unique (RFC 791); IPv6: 0 */
    struct cursor transport;        /* what was captured behind the IP headers */

    /* TCP */
    bool has_tcp;                   /* the whole TCP header was captured and is sound */
    uint8_t tcp_flags;
    uint16_t tcp_window;
    uint32_t tcp_seq;
    uint32_t tcp_ack;
    const uint8_t *tcp_options;
    uint8_t tcp_options_size;

    /* how it was carried */
    const uint8_t *src_mac;         /* of the innermost Ethernet frame, NULL if none; two octets of header follow */
    const uint8_t *dst_mac;
    uint16_t vlan[VMS_VLAN_MAX];    /* all tags, outermost first */
    uint16_t frame_vlan[2];         /* the first tags of the innermost Ethernet frame, 0 if none: part of the key */
    uint8_t vlan_count;
    uint8_t frame_vlan_count;
    uint8_t depth;                  /* IP headers so far */
    uint8_t frames;                 /* Ethernet headers so far */
    uint8_t tunnel;
    uint8_t outer_ip_version;       /* 0: not in a tunnel */
    bool has_vni;
    uint32_t vni;
};

#define PACKET_UNKNOWN offsetof(struct packet, beyond_capture)
_Static_assert(sizeof(struct packet) - PACKET_UNKNOWN <= 128, "two times 64");

/* Before decoding. Cleared in two parts, since gcc takes a slow loop for more than 64 octets. */
static inline void packet_begin(struct packet *p, int64_t ts_ns)
{
    p->ts_ns = ts_ns;
    uint8_t *unknown = (uint8_t *)p + PACKET_UNKNOWN;
    memset(unknown, 0, 64);
    memset(unknown + 64, 0, sizeof *p - PACKET_UNKNOWN - 64);
}

#define LINK_ETHERNET 1             /* the link type; see link.c for others */

/* What one capture needs in order to decode, and what it notes on the way. */
struct decoder {
    struct fragments fragments;
    struct notices notices;
    uint32_t link_type;
    vms_counters_t *counters;
};

/* Fills `p`, which has begun, from a frame that had `wire` octets before it was cut; 0 where nobody can tell. */
enum vms_fate decode_layers(struct decoder *decoder, struct cursor frame, uint32_t wire, struct packet *p);

/* Whether 34 octets of a frame are those of Ethernet and IPv4 without tags, options or fragments. */
static inline bool is_plain_ipv4(const uint8_t *frame)
{
    uint32_t type = be32(frame + 12) & 0xffffff00u;     /* the ethertype, version and header length; not the service */
    return type == 0x08004500u && !(be16(frame + 20) & 0x3fff);
}

/* False, with nothing done, when the frame is not of the kind that most are: see plain.c. */
bool decode_plain(struct cursor frame, struct packet *p);

/* Layers that hand packets to each other; see link.c, ip.c, transport.c, tunnel.c. */
enum vms_fate decode_ethernet(struct decoder *d, struct cursor c, struct packet *p);
enum vms_fate decode_ethertype(struct decoder *d, struct cursor c, struct packet *p, uint16_t ethertype);
enum vms_fate decode_mpls(struct decoder *d, struct cursor c, struct packet *p);
enum vms_fate decode_ip(struct decoder *d, struct cursor c, struct packet *p);
enum vms_fate decode_ipv4(struct decoder *d, struct cursor c, struct packet *p);
enum vms_fate decode_ipv6(struct decoder *d, struct cursor c, struct packet *p);
enum vms_fate decode_transport(struct decoder *d, struct cursor c, struct packet *p, uint32_t size);
void decode_add_vlan(struct packet *p, uint16_t id);

/* Hands a packet up that names a VM or a switch. */
void decode_notice(struct decoder *d, const struct packet *p, enum vms_notice_kind kind, struct cursor octets);

/* True when the bytes are a tunnel whose inside was decoded: `p` then describes the inside. */
bool tunnel_over_udp(struct decoder *d, struct cursor payload, struct packet *p);
bool tunnel_over_ip(struct decoder *d, struct cursor payload, struct packet *p);

#endif
