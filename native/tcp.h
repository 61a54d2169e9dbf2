/* What the parts of TCP tracking share: sequence arithmetic (RFC 9293 section 3.4), options, one direction's scoreboard. */
#ifndef VMS_TCP_H
#define VMS_TCP_H

#include "flow.h"

#define BOARD_HOLES 8
#define BOARD_FLIGHT 8

static inline bool is_set(const struct packet *p, uint8_t flags)
{
    return (p->tcp_flags & flags) == flags;
}

static inline bool seq_before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

static inline bool seq_at_most(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) <= 0;
}

enum tcp_option { TCP_OPTION_MSS = 2, TCP_OPTION_SACK = 5 };

/* The value of a TCP option and its size; NULL if it is not there. */
const uint8_t *tcp_option(const struct packet *p, enum tcp_option wanted, uint8_t *size);

/* handshake.c: state, roles, handshake times and the MSS, from a packet's flags. */
void handshake_track(struct vms_table *t, struct flow *f, int direction, const struct packet *p);

/* A SYN-ACK that answers no SYN of this connection: old or forged. */
bool handshake_is_stray(const struct flow *f, int direction, const struct packet *p);

/* Bytes [start, end) that the tap has not seen although later ones passed. */
struct hole {
    uint32_t start;
    uint32_t end;
    int64_t born_ns;                /* when the first later byte passed; for an ACKed hole, when it was ACKed */
    bool acked;                     /* the receiver has them: counted as unseen */
};

/* A segment that waits for the ACK of exactly its end. */
struct in_flight {
    uint32_t end;
    int64_t ts_ns;
};

/* Only for directions that have something outstanding. */
struct scoreboard {
    struct hole holes[BOARD_HOLES]; /* ascending, disjoint */
    struct in_flight flight[BOARD_FLIGHT];  /* ascending, oldest first */
    uint8_t hole_count;
    uint8_t flight_count;
};

/* The scoreboard of a direction, made if there is none; NULL when there are too many. */
struct scoreboard *board_want(struct vms_table *t, struct tcp_half *half);

/* The scoreboard, or NULL if there is none. */
struct scoreboard *board_of(const struct vms_table *t, const struct tcp_half *half);

/* Gives an empty scoreboard back. */
void board_tidy(struct vms_table *t, struct tcp_half *half);

/* Remembers [start, end) as not seen. False when there is no room: then causes below `end` can not be told. */
bool board_open_hole(struct scoreboard *b, uint32_t start, uint32_t end, int64_t now_ns);

/* What of [start, end) was a hole: nothing, or its kind and age. Seen parts are cut out of the holes. */
enum fill { FILL_NONE, FILL_OPEN, FILL_ACKED };
enum fill board_fill(struct scoreboard *b, uint32_t start, uint32_t end, int64_t *born_ns, uint32_t *bytes);

/* Marks what lies below `ack` in open holes as ACKed; returns how many bytes that were. */
uint32_t board_ack_holes(struct scoreboard *b, uint32_t ack, int64_t now_ns);

/* Drops holes and flights that end at or below `seq`. */
void board_forget(struct scoreboard *b, uint32_t seq);

/* True while bytes are missing that the receiver has not ACKed either. */
bool board_has_open_hole(const struct scoreboard *b);

void board_launch(struct scoreboard *b, uint32_t end, int64_t ts_ns);

/* Drops what `ack` covers; the send time of the segment that ends exactly there, or -1. */
int64_t board_land(struct scoreboard *b, uint32_t ack);

/* Karn's rule: an ACK beyond a resent segment tells nothing about when it was sent. */
void board_abort(struct scoreboard *b, uint32_t seq);

#endif
