/* A TCP connection from 10.0.0.1 port 40000 to 10.0.0.2 port 80, told segment by segment. */

#ifndef TALK_H
#define TALK_H

#include "tap.h"

#define SEGMENT_CAPTURED 16     /* octets of payload: the rest is left to the snap length */

#define ISN 1000                /* of both sides, in most tests */
#define AT SECOND               /* when their handshake begins; it ends 10 ms later */

enum { C2S = 0, S2C = 1, S = TCP_SYN, SA = TCP_SYN | TCP_ACK, A = TCP_ACK, F = TCP_FIN | TCP_ACK, R = TCP_RST };

struct segment {
    uint32_t seq, ack, payload;
    uint8_t flags;
    bool closed_window;
    const uint8_t *options;
    uint8_t options_size;
};

static inline struct frame segment_frame(struct tap *tap, int direction, struct segment s)
{
    uint32_t captured = s.payload < SEGMENT_CAPTURED ? s.payload : SEGMENT_CAPTURED;
    struct frame f = frame_payload(captured);
    put_tcp(&f, (struct tcp_fields){.sport = direction ? 80 : 40000, .dport = direction ? 40000 : 80, .seq = s.seq,
                                    .ack = s.ack, .flags = s.flags, .window = s.closed_window ? 0 : 1000,
                                    .options = s.options, .options_size = s.options_size});
    uint8_t *ip = put_ipv4(&f, direction ? 2 : 1, direction ? 1 : 2);
    write16(ip + 2, 40u + s.options_size + s.payload);
    write16(ip + 4, ++tap->ip_id);
    put_ethernet(&f);
    return f;
}

static inline void send_segment(struct tap *tap, int64_t at_ns, int direction, struct segment s)
{
    struct frame f = segment_frame(tap, direction, s);
    tap_feed(tap, at_ns, &f);
}

static inline void c2s(struct tap *tap, int64_t at_ns, uint32_t seq, uint32_t ack, uint8_t flags, uint32_t payload)
{
    send_segment(tap, at_ns, C2S, (struct segment){seq, ack, payload, flags, false, NULL, 0});
}

static inline void s2c(struct tap *tap, int64_t at_ns, uint32_t seq, uint32_t ack, uint8_t flags, uint32_t payload)
{
    send_segment(tap, at_ns, S2C, (struct segment){seq, ack, payload, flags, false, NULL, 0});
}

/* A handshake: the server 8 ms, the client 2 ms away. Then both sides' next sequence number is one beyond `isn`. */
static inline void shake_hands(struct tap *tap, int64_t at_ns, uint32_t isn)
{
    c2s(tap, at_ns, isn, 0, S, 0);
    s2c(tap, at_ns + 8 * MS, isn, isn + 1, SA, 0);
    c2s(tap, at_ns + 10 * MS, isn + 1, isn + 1, A, 0);
}

static inline struct tap connected(void)
{
    struct tap tap = tap_open();
    shake_hands(&tap, AT, ISN);
    return tap;
}

#define X (ISN + 1u)            /* the first byte of data of either side */

/* Data of the client, 100 bytes at this offset, so many milliseconds after the beginning. */
static inline void data(struct tap *tap, int64_t ms, uint32_t offset)
{
    c2s(tap, AT + ms * MS, X + offset, X, A, 100);
}

/* The server ACKs everything below this offset. */
static inline void ack(struct tap *tap, int64_t ms, uint32_t offset)
{
    s2c(tap, AT + ms * MS, X, X + offset, A, 0);
}

/* The same, with a SACK block; below the ACK it is a DSACK. */
static inline void sack(struct tap *tap, int64_t ms, uint32_t below, uint32_t start, uint32_t end)
{
    uint8_t option[12] = {1, 1, 5, 10};
    write32(option + 4, X + start);
    write32(option + 8, X + end);
    send_segment(tap, AT + ms * MS, S2C, (struct segment){X, X + below, 0, A, false, option, sizeof option});
}

#endif
