/*
 * TCP at the tap: RTT in both directions, and the cause of every segment that does not simply advance. The rules, with
 * their sources, are in docs/metrics.md.
 */

#include "tcp.h"

#define OUT_OF_WINDOW (1u << 30)            /* the largest window: RFC 7323 section 2.3 */
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
static int64_t earliest_resend_ns(const struct flow *f)
{
    int64_t around = path_rtt_ns(f);
    return around ? around - around / 8 : REORDERING_NS;
}

static void forget_below(struct tcp_half *self, uint32_t end)
{
    if (!(self->flags & HALF_BLIND) || seq_before(self->blind_below, end))
        self->blind_below = end;
    self->flags |= HALF_BLIND | HALF_UNSURE;
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
    if (!p->payload_bytes || (b && board_has_open_hole(b)))
        return;                                         /* behind a hole the ACK waits for the hole, not for this */
    if ((b = board_want(t, self)))
        board_launch(b, end, p->ts_ns);
}

static void resent(struct vms_table *t, struct tcp_half *self, vms_half_t *delta, const struct packet *p, uint32_t end,
                   uint32_t segments)
{
    struct scoreboard *b = board_of(t, self);
    delta->retransmissions += segments;
    if (self->flags & HALF_ACKED_KNOWN && seq_at_most(end, self->acked))
        delta->spurious += segments;
    else
        self->resends_pending += segments;
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

    if (fill == FILL_OPEN && age < earliest_resend_ns(f)) {
        delta->reordered += segments;
    } else if (fill == FILL_OPEN) {
        delta->upstream_losses += segments;
    } else if (fill == FILL_ACKED && age < TAP_REORDERING_NS) {
        delta->reordered += segments;
        unsee(delta, bytes);
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

/* Returns true when the segment brought payload that had not passed before. */
static bool sent(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *self = &f->tcp[direction];
    vms_half_t *delta = &f->delta[direction];
    uint32_t length = sequence_length(p), end = p->tcp_seq + length;

    if (!(self->flags & HALF_NEXT_KNOWN)) {
        self->flags |= HALF_NEXT_KNOWN;
        self->next = p->tcp_seq;
    } else if (take_probe(f, direction, p)) {
        return false;
    }
    uint32_t distance = p->tcp_seq - self->next;
    if (distance > OUT_OF_WINDOW && -distance > OUT_OF_WINDOW) {
        delta->unknown_causes += length != 0;
        return false;
    }
    delta->data_packets += p->payload_bytes ? wire_segments(p, f->tcp[!direction].mss) : 0;
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
    histogram_add(t, f, direction == f->client ? VMS_HISTOGRAM_RTT_C2S : VMS_HISTOGRAM_RTT_S2C, ns);
}

/* RFC 2883: a first block below the cumulative ACK, or inside the second block, reports bytes received twice. */
static bool reports_duplicate(const struct packet *p)
{
    uint8_t size = 0;
    const uint8_t *blocks = p->tcp_options_size >= 10 ? tcp_option(p, TCP_OPTION_SACK, &size) : NULL;
    if (!blocks || size < 8)
        return false;
    uint32_t start = be32(blocks), end = be32(blocks + 4);
    if (seq_before(start, p->tcp_ack))
        return true;
    return size >= 16 && seq_at_most(be32(blocks + 8), start) && seq_at_most(end, be32(blocks + 12));
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

/* An ACK from `direction`: what does it say of the other side's data? */
static void acknowledged(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *sender = &f->tcp[!direction];
    vms_half_t *delta = &f->delta[!direction];
    uint32_t ack = p->tcp_ack;

    if (sender->resends_pending && reports_duplicate(p)) {
        sender->resends_pending--;
        delta->spurious++;
    }
    if (sender->flags & HALF_NEXT_KNOWN && ack != sender->next && ack - sender->next < OUT_OF_WINDOW)
        acknowledged_unseen(t, sender, delta, ack);
    if (!(sender->flags & HALF_ACKED_KNOWN) || seq_before(sender->acked, ack))
        sender->acked = ack;
    sender->flags = (uint16_t)((sender->flags | HALF_ACKED_KNOWN) & ~HALF_PROBED);

    struct scoreboard *b = board_of(t, sender);
    if (!b)
        return;
    delta->unseen_bytes += board_ack_holes(b, ack, p->ts_ns);
    int64_t sent_ns = board_land(b, ack);
    if (sent_ns >= 0 && p->ts_ns >= sent_ns)
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
static void lose_track(struct tcp_half *self)
{
    self->flags = (uint16_t)((self->flags & ~HALF_NEXT_KNOWN) | HALF_UNSURE);
}

void tcp_packet(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *self = &f->tcp[direction];
    handshake_track(t, f, direction, p);
    if (is_set(p, TCP_RST))
        return;
    if (is_set(p, TCP_ACK))
        acknowledged(t, f, direction, p);
    if (p->fragmented)
        lose_track(self);
    else if (sent(t, f, direction, p))
        response_packet(t, f, direction, p->ts_ns);
    track_window(f, direction, p);
}

void tcp_release(struct vms_table *t, struct flow *f)
{
    for (int direction = 0; direction < 2; direction++) {
        if (f->tcp[direction].board)
            pool_give(&t->boards, f->tcp[direction].board);
        f->tcp[direction].board = 0;
    }
}
