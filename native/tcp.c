/*
 * TCP at the tap: RTT in both directions, and the cause of every segment that does not simply advance. The rules, with
 * their sources, are in docs/metrics.md.
 */

#include "tcp.h"

#define OUT_OF_WINDOW (1u << 28)            /* further than this from what was seen, one segment alone is not believed */
#define REORDERING_NS 3000000LL             /* a hole filled within this time, with no RTT known, was reordering */
#define TAP_REORDERING_NS 1000000LL         /* an ACK may pass the tap this much before the data that it ACKs */

/* Sequence numbers that the segment takes up (RFC 9293 section 3.4). */
static uint32_t sequence_length(const struct packet *p)
{
    return p->payload_bytes + is_set(p, TCP_SYN) + is_set(p, TCP_FIN);
}

/* ---- what this side has sent ---- */

/* Segments on the wire that a capture-side offload has merged into this packet. */
static uint32_t wire_segments(const struct packet *p, uint16_t mss)
{
    return mss && p->payload_bytes > mss ? (p->payload_bytes + mss - 1) / mss : 1;
}

/* Lowest time around both ends known, 0 if none is. */
static int64_t path_rtt_ns(const struct flow *f)
{
    int64_t data = ((int64_t)f->tcp[0].base_rtt_us + f->tcp[1].base_rtt_us) * 1000;
    if (f->handshake_server_ns == VMS_ABSENT || f->handshake_client_ns == VMS_ABSENT)
        return data;
    int64_t handshake = f->handshake_server_ns + f->handshake_client_ns;
    bool both = f->tcp[0].base_rtt_us && f->tcp[1].base_rtt_us;
    return both && data < handshake ? data : handshake;
}

/* Shortest time in which the sender can have learnt of a loss and its resend come by: once around both ends. */
int64_t tcp_earliest_resend_ns(const struct flow *f)
{
    int64_t around = path_rtt_ns(f);
    return around ? around - around / 8 : REORDERING_NS;
}

/* What lies below was not followed: no cause can be told there. */
static void turn_blind(struct tcp_half *self, uint32_t below)
{
    if (!(self->flags & HALF_BLIND) || seq_before(self->blind_below, below))
        self->blind_below = below;
    self->flags |= HALF_BLIND;
}

static void forget_below(struct tcp_half *self, uint32_t end)
{
    turn_blind(self, end);
    self->flags |= HALF_UNSURE;
}

static void drop_board(struct vms_table *t, struct tcp_half *self)
{
    if (self->board)
        pool_give(&t->boards, self->board);
    self->board = 0;
}

/* Begins to follow a direction at this segment. */
static void learn_next(struct tcp_half *self, const struct packet *p)
{
    self->flags = (uint16_t)((self->flags & ~HALF_PROVISIONAL) | HALF_NEXT_KNOWN);
    self->next = p->tcp_seq;
    if (is_set(p, TCP_SYN))
        return;
    turn_blind(self, p->tcp_seq);
    if (sequence_length(p) == 0)
        self->flags |= HALF_PROVISIONAL;
}

/* A segment far out of the window. One alone may be forged or corrupt; a second that goes on where it ended is the
   truth, and what the tap knew before is stale. True when the direction follows the new place from here on. */
static bool resynchronise(struct vms_table *t, struct tcp_half *self, const struct packet *p)
{
    bool goes_on = self->flags & HALF_STRAY && p->tcp_seq == self->stray;
    self->stray = p->tcp_seq + sequence_length(p);
    self->flags |= HALF_STRAY;
    if (!goes_on)
        return false;
    drop_board(t, self);
    self->flags = (uint16_t)((self->flags & ~(HALF_STRAY | HALF_ACKED_KNOWN | HALF_BLIND)) | HALF_UNSURE);
    self->resends_pending = 0;
    learn_next(self, p);
    return true;
}

/* After 2^28 bytes the same numbers are about to come again. */
static void forget_the_old(struct vms_table *t, struct tcp_half *self)
{
    struct scoreboard *b = board_of(t, self);
    if (self->flags & HALF_BLIND && self->next - self->blind_below > OUT_OF_WINDOW)
        self->flags &= (uint16_t)~HALF_BLIND;
    if (b)
        board_forget(b, self->next - OUT_OF_WINDOW);
}

/* Bytes at or beyond everything seen so far. */
static void advance(struct vms_table *t, struct tcp_half *self, const struct packet *p, uint32_t end)
{
    struct scoreboard *b = board_of(t, self);
    if (p->tcp_seq != self->next) {
        b = board_want(t, self);
        if (!b || !board_open_hole(b, self->next, p->tcp_seq, p->ts_ns))
            forget_below(self, p->tcp_seq);
    }
    self->next = end;
    forget_the_old(t, self);
    if (!p->payload_bytes)
        return;
    self->flags |= HALF_DATA;
    if (b && board_has_open_hole(b))
        return;                                         /* behind a hole the ACK waits for the hole, not for this */
    if ((b = board_want(t, self)))
        board_launch(b, end, p->ts_ns);
}

/* Keeps the range of the last resends: a DSACK can name only these. */
static void expect_verdict(struct tcp_half *self, uint32_t start, uint32_t end, uint32_t segments)
{
    if (!self->resends_pending || self->resend_end != start) {
        self->resend_start = start;
        self->resends_pending = 0;
    }
    self->resend_end = end;
    self->resends_pending = (uint16_t)(self->resends_pending + segments);
}

static void resent(struct vms_table *t, struct tcp_half *self, vms_half_t *delta, const struct packet *p, uint32_t end,
                   uint32_t segments)
{
    struct scoreboard *b = board_of(t, self);
    delta->retransmissions += segments;
    if (self->flags & HALF_ACKED_KNOWN && seq_at_most(end, self->acked))
        delta->spurious += segments;
    else
        expect_verdict(self, p->tcp_seq, end, segments);
    if (b)
        board_abort(b, p->tcp_seq);
}

/* A copy of bytes that were counted as unseen: the mirror had only been late. */
static void unsee(vms_half_t *delta, uint32_t bytes)
{
    delta->unseen_bytes -= delta->unseen_bytes < bytes ? delta->unseen_bytes : bytes;
}

/* Bytes below the highest seen: which of the causes? */
static void old_segment(struct vms_table *t, struct flow *f, int direction, const struct packet *p, uint32_t end)
{
    struct tcp_half *self = &f->tcp[direction];
    vms_half_t *delta = &f->delta[direction];
    struct scoreboard *b = board_of(t, self);
    uint32_t segments = wire_segments(p, f->tcp[!direction].mss), bytes = 0;
    int64_t born_ns = 0;
    enum fill fill = b ? board_fill(b, p->tcp_seq, end, &born_ns, &bytes) : FILL_NONE;
    int64_t age = p->ts_ns - born_ns;

    bool early = age < tcp_earliest_resend_ns(f);
    if (fill == FILL_OPEN && early) {
        delta->reordered += segments;
    } else if (fill == FILL_OPEN) {
        delta->upstream_losses += segments;
    } else if (fill == FILL_ACKED && (early || age < TAP_REORDERING_NS)) {
        delta->reordered += segments;
        unsee(delta, bytes);
    } else if (fill == FILL_ACKED) {
        delta->unknown_causes += segments;              /* a copy that the mirror held up, or a needless resend */
    } else if (self->flags & HALF_BLIND && seq_before(p->tcp_seq, self->blind_below)) {
        delta->unknown_causes += segments;
    } else {
        resent(t, self, delta, p, end, segments);
    }
    if (seq_before(self->next, end))
        self->next = end;
}

static bool is_keepalive_shaped(const struct tcp_half *self, const struct packet *p)
{
    return p->payload_bytes <= 1 && !is_set(p, TCP_SYN) && !is_set(p, TCP_FIN) && p->tcp_seq + 1 == self->next;
}

/* A probe repeats the byte before the next one: of a closed window (RFC 9293 section 3.8.6.1), or of a connection
   that is idle (section 3.8.4). A single byte that is not ACKed yet is a resend. */
static bool take_probe(struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *self = &f->tcp[direction];
    vms_half_t *delta = &f->delta[direction];
    bool closed_window = f->tcp[!direction].flags & HALF_ZERO_WINDOW;
    if (closed_window && p->payload_bytes == 1 && p->tcp_seq == self->next) {
        self->flags |= HALF_PROBED;
        delta->window_probes++;
        return true;
    }
    if (!is_keepalive_shaped(self, p) || !is_set(p, TCP_ACK))
        return false;
    if (p->payload_bytes && !(self->flags & HALF_ACKED_KNOWN && seq_at_most(self->next, self->acked)))
        return false;
    if (closed_window)
        delta->window_probes++;
    else
        delta->keepalives++;
    return true;
}

/* True when the segment stands where this direction can be followed. */
static bool find_place(struct vms_table *t, struct tcp_half *self, vms_half_t *delta, const struct packet *p)
{
    if (!(self->flags & HALF_NEXT_KNOWN) || self->flags & HALF_PROVISIONAL)
        learn_next(self, p);
    uint32_t distance = p->tcp_seq - self->next;
    if (distance <= OUT_OF_WINDOW || -distance <= OUT_OF_WINDOW) {
        self->flags &= (uint16_t)~HALF_STRAY;
        return true;
    }
    if (resynchronise(t, self, p))
        return true;
    delta->unknown_causes += sequence_length(p) != 0;
    return false;
}

/* Returns true when the segment brought payload that had not passed before. */
static bool sent(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *self = &f->tcp[direction];
    vms_half_t *delta = &f->delta[direction];
    uint32_t length = sequence_length(p), end = p->tcp_seq + length;

    if (self->flags & HALF_NEXT_KNOWN && take_probe(f, direction, p))
        return false;
    delta->data_packets += p->payload_bytes ? wire_segments(p, f->tcp[!direction].mss) : 0;
    if (!find_place(t, self, delta, p))
        return false;
    if (seq_at_most(self->next, p->tcp_seq)) {
        advance(t, self, p, end);
        return p->payload_bytes != 0;
    }
    if (length == 0)
        return false;
    bool brings_new = seq_before(self->next, end);
    old_segment(t, f, direction, p, end);
    return brings_new && p->payload_bytes;
}

/* ---- what this side has received ---- */

static void rtt_sample(struct vms_table *t, struct flow *f, int direction, uint64_t ns)
{
    vms_half_t *delta = &f->delta[direction];
    uint64_t us = ns / 1000 ? ns / 1000 : 1;
    if (!delta->rtt_count++ || ns < delta->rtt_min_ns)
        delta->rtt_min_ns = ns;
    if (ns > delta->rtt_max_ns)
        delta->rtt_max_ns = ns;
    delta->rtt_sum_ns += ns;
    if (us < UINT32_MAX && (!f->tcp[direction].base_rtt_us || us < f->tcp[direction].base_rtt_us))
        f->tcp[direction].base_rtt_us = (uint32_t)us;
    histogram_add(t, f, direction ? KEPT_RTT_1 : KEPT_RTT_0, ns);
}

struct sack {
    uint32_t start;
    uint32_t end;
    bool duplicate;                 /* reports bytes received twice */
};

/* The first SACK block (RFC 2018). RFC 2883: below the cumulative ACK, or inside the second block, it is a DSACK. */
static bool first_sack(const struct packet *p, struct sack *sack)
{
    uint8_t size = 0;
    const uint8_t *blocks = p->tcp_options_size >= 10 ? tcp_option(p, TCP_OPTION_SACK, &size) : NULL;
    if (!blocks || size < 8)
        return false;
    *sack = (struct sack){.start = be32(blocks), .end = be32(blocks + 4)};
    bool inside_second = size >= 16 && seq_at_most(be32(blocks + 8), sack->start) &&
                         seq_at_most(sack->end, be32(blocks + 12));
    sack->duplicate = seq_before(sack->start, p->tcp_ack) || inside_second;
    return true;
}

/* What a SACK says of this side's data: a resend was needless; or bytes wait for a hole, and so will their ACK. */
static void selectively_acknowledged(struct vms_table *t, struct tcp_half *sender, vms_half_t *delta,
                                     const struct packet *p)
{
    struct sack sack;
    struct scoreboard *b = board_of(t, sender);
    if ((!sender->resends_pending && !b) || !first_sack(p, &sack))
        return;
    if (!sack.duplicate) {
        if (b)
            board_abort(b, p->tcp_ack);
    } else if (sender->resends_pending && seq_at_most(sender->resend_start, sack.start) &&
               seq_at_most(sack.end, sender->resend_end)) {
        sender->resends_pending--;
        delta->spurious++;
    }
}

/* The ACK covers bytes that never passed the tap: the mirror lost them, or they are late. */
static void acknowledged_unseen(struct vms_table *t, struct tcp_half *sender, vms_half_t *delta, uint32_t ack)
{
    bool probe_byte = sender->flags & HALF_PROBED && ack == sender->next + 1;
    struct scoreboard *b = probe_byte ? NULL : board_want(t, sender);
    if (!probe_byte && !(b && board_open_hole(b, sender->next, ack, t->now_ns))) {
        forget_below(sender, ack);                      /* else board_ack_holes counts the bytes */
        delta->unseen_bytes += ack - sender->next;
    }
    sender->next = ack;
}

/* RFC 5681 section 2: an ACK that brings nothing new while data is outstanding; the sender may soon resend. */
static void note_duplicate_ack(struct tcp_half *sender, const struct packet *p)
{
    bool repeats = sender->flags & HALF_ACKED_KNOWN && p->tcp_ack == sender->acked && p->tcp_ack != sender->next;
    if (!repeats)
        sender->duplicate_acks = 0;
    else if (!sequence_length(p) && sender->duplicate_acks < UINT16_MAX)
        sender->duplicate_acks++;
}

/* An ACK from `direction`: what does it say of the other side's data? */
static void acknowledged(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *sender = &f->tcp[!direction];
    vms_half_t *delta = &f->delta[!direction];
    uint32_t ack = p->tcp_ack, beyond = ack - sender->next;

    if (sender->flags & HALF_NEXT_KNOWN && beyond > OUT_OF_WINDOW && -beyond > OUT_OF_WINDOW)
        return;
    selectively_acknowledged(t, sender, delta, p);
    if (sender->flags & HALF_PROVISIONAL && seq_before(sender->next, ack))
        sender->next = ack;
    else if (sender->flags & HALF_NEXT_KNOWN && seq_before(sender->next, ack))
        acknowledged_unseen(t, sender, delta, ack);
    note_duplicate_ack(sender, p);
    if (!(sender->flags & HALF_ACKED_KNOWN) || seq_before(sender->acked, ack))
        sender->acked = ack;
    sender->flags = (uint16_t)((sender->flags | HALF_ACKED_KNOWN) & ~HALF_PROBED);

    struct scoreboard *b = board_of(t, sender);
    if (!b)
        return;
    delta->unseen_bytes += board_ack_holes(b, ack, p->ts_ns);
    int64_t sent_ns = board_land(b, ack);
    if (sent_ns >= 0 && p->ts_ns >= sent_ns && p->ts_ns - sent_ns <= LATENCY_MOST_NS)
        rtt_sample(t, f, !direction, (uint64_t)(p->ts_ns - sent_ns));
    board_tidy(t, sender);
}

static void track_window(struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *self = &f->tcp[direction];
    if (is_set(p, TCP_SYN) || is_set(p, TCP_RST))
        return;
    if (p->tcp_window == 0) {
        f->delta[direction].zero_windows++;
        self->flags |= HALF_ZERO_WINDOW;
    } else {
        self->flags &= (uint16_t)~HALF_ZERO_WINDOW;
    }
}

/* Only part of a fragmented segment can be placed: the next whole one starts the sequence space again. */
static void lose_track(struct vms_table *t, struct tcp_half *self, vms_half_t *delta, const struct packet *p)
{
    delta->data_packets += p->payload_bytes != 0;
    drop_board(t, self);
    self->flags = (uint16_t)((self->flags & ~HALF_NEXT_KNOWN) | HALF_UNSURE);
}

void tcp_packet(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *self = &f->tcp[direction];
    if (handshake_is_stray(f, direction, p))
        return;
    handshake_track(t, f, direction, p);
    if (is_set(p, TCP_RST))
        return;
    if (is_set(p, TCP_ACK))
        acknowledged(t, f, direction, p);
    if (p->fragmented)
        lose_track(t, self, &f->delta[direction], p);
    else if (sent(t, f, direction, p))
        response_packet(t, f, direction, p->ts_ns);
    track_window(f, direction, p);
}

void tcp_release(struct vms_table *t, struct flow *f)
{
    drop_board(t, &f->tcp[0]);
    drop_board(t, &f->tcp[1]);
}
