/* What the parts of TCP tracking share: sequence arithmetic (RFC 9293 section 3.4), options, one direction's scoreboard. */
#ifndef VMS_TCP_H
#define VMS_TCP_H

#include "flow.h"

#define BOARD_HOLES 64
#define BOARD_FLIGHT 32             /* at most; a power of two */
#define BOARD_RESENDS 8
#define TIMEOUT_LEAST_NS 100000000LL        /* no sender's retransmission timer is shorter; RFC 6298: 1 s */
#define SEQUENCE_FAR (1u << 28)     /* further than this, the same numbers may mean other bytes */

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

/* Sequence numbers that the segment takes up. */
static inline uint32_t sequence_length(const struct packet *p)
{
    return p->payload_bytes + is_set(p, TCP_SYN) + is_set(p, TCP_FIN);
}

enum tcp_option {
    TCP_OPTION_MSS = 2, TCP_OPTION_WINDOW_SCALE = 3, TCP_OPTION_SACK = 5, TCP_OPTION_TIMESTAMPS = 8
};

/* The value of a TCP option and its size; NULL if it is not there. */
const uint8_t *tcp_option(const struct packet *p, enum tcp_option wanted, uint8_t *size);

/* ---- handshake.c: state, roles, handshake times, and what the SYN announces ---- */

void handshake_track(struct vms_table *t, struct flow *f, int direction, const struct packet *p);

/* A FIN that is believed. */
void handshake_fin(struct vms_table *t, struct flow *f, int direction);

/* A SYN-ACK that answers no SYN of this connection: old or forged. */
bool handshake_is_stray(const struct flow *f, int direction, const struct packet *p);

/* ---- belief.c: which sequence and acknowledgment numbers can be true ---- */

/* Finds the segment's place, or begins to follow the direction there. False when it lies outside of the window. */
bool belief_place(struct vms_table *t, struct flow *f, int direction, const struct packet *p);

/* False when the acknowledgment covers what can not have been sent in this direction. */
bool belief_ack(struct vms_table *t, struct flow *f, int direction, uint32_t ack);

/* Takes in the window that `direction` offers. */
void belief_window(struct flow *f, int direction, const struct packet *p);

/* What lies below `end` was not followed: no cause can be told there. */
void belief_forget_below(struct tcp_half *half, uint32_t end);

/* The next whole segment begins the sequence space again. */
void belief_lose_track(struct vms_table *t, struct tcp_half *half);

/* ---- order.c: what a packet's marks say about when it was sent ---- */

enum sent_order { ORDER_UNKNOWN, ORDER_BEFORE, ORDER_AFTER };

/* Whether `p` left its sender before or after the packet of the same direction that bore the mark. */
enum sent_order order_of(const struct tcp_half *half, const struct packet *p, const struct sent_mark *mark);

struct sent_mark order_mark(const struct packet *p);

/* ---- rtt.c ---- */

/* Lowest time around both ends, or around the one that is known; 0 if neither is. */
int64_t rtt_path_ns(const struct flow *f);

/* A time from the tap to the receiver of this direction and back. */
void rtt_note_base(struct tcp_half *half, uint64_t ns);
void rtt_sample(struct vms_table *t, struct flow *f, int direction, int64_t sent_ns, int64_t acked_ns);

/* ---- segment.c and ack.c: what a side sends, and what the other says of it ---- */

/* Takes up the place of a segment in the stream, or its cause. True when it brought payload that had not passed. */
bool segment_sent(struct vms_table *t, struct flow *f, int direction, const struct packet *p);

/* The same of payload, without SYN or FIN, that begins where the stream has come to. */
void segment_data(struct vms_table *t, struct tcp_half *self, const struct packet *p);

/* Counts a probe; false when the segment is none. */
bool segment_probe(struct vms_table *t, struct flow *f, int direction, const struct packet *p);

/* Segments on the wire that an offload has merged into so many octets; `mss` is 0 where it is not known. */
uint32_t segments_of(uint32_t payload_bytes, uint16_t mss);

void ack_received(struct vms_table *t, struct flow *f, int direction, const struct packet *p);

/* The same of an ACK that is true, of bytes that have passed, without a SACK. */
void ack_take(struct vms_table *t, struct flow *f, int direction, const struct packet *p);

/* ---- scoreboard.c ---- */

/* Bytes [start, end) that the tap has not seen although later ones passed, or were ACKed. */
struct hole {
    uint32_t next;                  /* handle */
    uint32_t start;
    uint32_t end;
    bool acked;                     /* the receiver has them: counted as unseen */
    bool opened_empty;              /* by a segment without data: an ACK, which is rarely overtaken alone */
    bool after_pause;               /* the sender had been quiet for so long that its timers may have run out */
    struct sent_mark opener;        /* of the segment behind it */
    int64_t born_ns;                /* when that passed; for an ACKed hole, when it was ACKed */
};

/* Bytes that were sent again; a DSACK may still name them. */
enum resend_kind {
    RESEND_SEEN,                    /* counted as a retransmission */
    RESEND_FILLS,                   /* counted as an upstream loss */
    RESEND_SETTLED                  /* a keep-alive's byte, or known to be needless already: nothing to add */
};

struct resend {
    uint32_t start;
    uint32_t end;
    uint16_t segments;              /* of which none has been named yet */
    uint8_t kind;                   /* RESEND_ */
};

/* More segments in flight than a scoreboard has room for: a ring, oldest first. */
struct long_flight {
    int64_t ns[BOARD_FLIGHT];
    uint32_t end[BOARD_FLIGHT];
    uint32_t first;
    uint32_t count;
};

/* What few scoreboards have: bytes that were not seen, or that were sent again. */
struct losses {
    uint32_t first_hole;            /* handles; ascending and disjoint */
    uint32_t last_hole;
    int64_t resent_ns;
    struct resend resends[BOARD_RESENDS];
    uint8_t resend_next;            /* a ring: the place of the next one */
    uint8_t resend_count;
    uint8_t hole_count;
    uint8_t open_holes;             /* not ACKed */
};

/* Only for directions that have more outstanding than the one segment that stands in struct tcp_half, or bytes that were
   not seen or sent again. What is in flight waits for the ACK of exactly its end. */
struct scoreboard {
    uint64_t flight_ns : 62;        /* when the one passed */
    uint64_t flight : 2;            /* FLIGHT_ */
    union {
        uint32_t flight_end;        /* of the one */
        uint32_t long_flight;       /* handle */
    };
    uint32_t losses;                /* handle of struct losses, 0 if there was none */
};
_Static_assert(sizeof(struct scoreboard) == 16, "four in a cache line");

enum { FLIGHT_NONE, FLIGHT_ONE, FLIGHT_LONG };

/* The scoreboard of a direction, made if there is none; NULL when there are too many. */
struct scoreboard *board_want(struct vms_table *t, struct tcp_half *half);

/* The scoreboard, or NULL if there is none. */
struct scoreboard *board_of(const struct vms_table *t, const struct tcp_half *half);

/* Forgets all that is outstanding. */
void board_drop(struct vms_table *t, struct tcp_half *half);

/* Gives a scoreboard back that says nothing any more. */
void board_tidy(struct vms_table *t, struct tcp_half *half);

/* Remembers bytes as not seen. False when there is no room: then causes below `end` can not be told. */
bool board_open_hole(struct vms_table *t, struct scoreboard *b, struct hole hole);

/* What of [start, end) was a hole: nothing, or the first one met. Seen parts are cut out of the holes. */
enum fill { FILL_NONE, FILL_OPEN, FILL_ACKED };
enum fill board_fill(struct vms_table *t, struct scoreboard *b, uint32_t start, uint32_t end, struct hole *met,
                     uint32_t *bytes);

/* The hole that ends at `end`, the highest of all; NULL if the byte before has passed. */
const struct hole *board_hole_below(const struct vms_table *t, const struct scoreboard *b, uint32_t end);

/* Marks what lies below `ack` in open holes as ACKed; returns how many bytes that were. */
uint32_t board_ack_holes(struct vms_table *t, struct scoreboard *b, uint32_t ack, int64_t now_ns);

/* Whether it has holes that are not ACKed. */
bool board_is_open(const struct vms_table *t, const struct scoreboard *b);

/* Drops holes and flights that end at or below `seq`. */
void board_forget(struct vms_table *t, struct scoreboard *b, uint32_t seq);

/* The segment that has just advanced the stream is in flight, and no other is that stands in `half`. */
void board_launch(const struct vms_table *t, struct tcp_half *half);

/* Puts the segment that is in flight in `half` to those of the scoreboard, for whoever has to look at all of them, or
   because `next` is about to become something else. */
void board_gather(struct vms_table *t, struct tcp_half *half);

/* When the newest segment in flight passed, if it ends there; else -1. */
int64_t board_newest_ns(const struct vms_table *t, const struct scoreboard *b, uint32_t end);

/* Drops what `ack` covers of the scoreboard; the send time of the segment that ends exactly there, or -1. */
int64_t board_land(struct vms_table *t, struct scoreboard *b, uint32_t ack);

/* Karn's rule: an ACK beyond a resent segment tells nothing about when it was sent. */
void board_abort(const struct vms_table *t, struct tcp_half *half, uint32_t seq);

/* Drops what is in flight of [start, end): the receiver holds it behind a hole. */
void board_abort_held(const struct vms_table *t, struct scoreboard *b, uint32_t start, uint32_t end);

void board_note_resend(struct vms_table *t, struct scoreboard *b, struct resend resend, int64_t now_ns);

/* No resend is known any more. */
void board_forget_resends(const struct vms_table *t, const struct scoreboard *b);

/* The resend that holds all of [start, end) and has segments left, or NULL. */
struct resend *board_find_resend(const struct vms_table *t, struct scoreboard *b, uint32_t start, uint32_t end);

#endif
