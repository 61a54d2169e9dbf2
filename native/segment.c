/* What a side sends: whether a segment advances its stream, and if not, why it came. Rules: docs/metrics.md. */

#include "tcp.h"

#define TAP_REORDERING_NS 1000000LL         /* an ACK may pass the tap this much before the data that it ACKs */
#define OVERTAKEN_MOST_NS 100000000LL       /* nothing is overtaken for longer: its marks are not what they seem */

/* Where the SYN that announced the MSS was not seen: what a jumbo frame of 9,000 octets can carry is one segment, and more
   is many, as Ethernet's 1,500 and the timestamps that nearly all send leave room for. */
#define LARGEST_SEGMENT (9000 - 40)
#define USUAL_SEGMENT (1500 - 52)

uint32_t segments_of(uint32_t payload_bytes, uint16_t mss)
{
    if (payload_bytes <= (mss ? mss : LARGEST_SEGMENT))
        return 1;
    uint32_t each = mss ? mss : USUAL_SEGMENT;
    return (payload_bytes + each - 1) / each;
}

/* ---- probes ---- */

/* At the byte before the next one: a keep-alive (RFC 9293 section 3.8.4), or the probe of a closed window. Behind a FIN
   it is an ACK that the FIN has overtaken. */
static bool is_one_below(const struct tcp_half *self, const struct packet *p)
{
    return p->tcp_seq + 1 == self->next && p->payload_bytes <= 1 && !is_set(p, TCP_SYN) && !is_set(p, TCP_FIN) &&
           is_set(p, TCP_ACK) && !(self->flags & HALF_FIN);
}

/* The last byte again, alone: a resend if it had been sent alone, and, once it is ACKed, is pushed again. */
static bool is_resent_byte(const struct tcp_half *self, const struct packet *p)
{
    bool acked = self->flags & HALF_ACKED_KNOWN && seq_at_most(self->next, self->acked);
    return p->payload_bytes && self->flags & HALF_LAST_ALONE && (!acked || is_set(p, TCP_PSH));
}

/* Late itself, or an ACK that the segment sent right behind it has overtaken: no probe of what has passed long ago. */
static bool is_overtaken(const struct vms_table *t, const struct flow *f, const struct tcp_half *self,
                         const struct packet *p)
{
    const struct scoreboard *b = board_of(t, self);
    const struct hole *hole = b ? board_hole_below(t, b, self->next) : NULL;
    int64_t sent_ns = b ? board_newest_ns(t, b, self->next) : -1;
    if (hole)
        return !hole->acked || p->ts_ns - hole->born_ns < tcp_earliest_resend_ns(f);
    return !p->payload_bytes && sent_ns >= 0 && p->ts_ns - sent_ns < tcp_earliest_resend_ns(f);
}

/* The receiver may name a keep-alive's byte in a DSACK. */
static void expect_naming(struct vms_table *t, struct tcp_half *self, const struct packet *p)
{
    struct scoreboard *b = p->payload_bytes ? board_want(t, self) : NULL;
    if (b)
        board_note_resend(t, b, (struct resend){p->tcp_seq, p->tcp_seq + 1, 1, RESEND_SETTLED}, p->ts_ns);
}

bool segment_probe(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *self = &f->tcp[direction];
    const struct tcp_half *peer = &f->tcp[!direction];
    bool closed_window = peer->flags & (HALF_ZERO_WINDOW | HALF_REOPENED);
    if (!(self->flags & HALF_NEXT_KNOWN))
        return false;
    if (closed_window && p->payload_bytes == 1 && p->tcp_seq == self->next) {
        self->flags |= HALF_PROBED;
        trouble_of(t, f, direction)->window_probes++;
        return true;
    }
    if (!is_one_below(self, p) || is_resent_byte(self, p) || is_overtaken(t, f, self, p))
        return false;
    expect_naming(t, self, p);
    if (closed_window)
        trouble_of(t, f, direction)->window_probes++;
    else
        trouble_of(t, f, direction)->keepalives++;
    return true;
}

/* ---- advance ---- */

/* After 2^28 bytes the same numbers are about to come again. */
static void forget_the_old(struct vms_table *t, struct tcp_half *self)
{
    struct scoreboard *b = board_of(t, self);
    if (self->flags & HALF_BLIND && self->next - self->blind_below > SEQUENCE_FAR)
        self->flags &= (uint16_t)~HALF_BLIND;
    if (b)
        board_forget(t, b, self->next - SEQUENCE_FAR);
}

/* Since the stream last advanced. */
static int64_t quiet_for_ns(const struct tcp_half *self, int64_t now_ns)
{
    return now_ns - (int64_t)self->sent_ns;
}

/* The sender has been quiet for so long that a timer of what it had sent before may run out now. */
static bool is_after_pause(const struct flow *f, const struct tcp_half *self, int64_t now_ns)
{
    int64_t pause_ns = quiet_for_ns(self, now_ns);
    return pause_ns >= TIMEOUT_LEAST_NS && pause_ns >= 2 * rtt_path_ns(f);
}

/* The segment leaves out what lies between the highest byte seen and its own first one. */
static void skip(struct vms_table *t, struct flow *f, struct tcp_half *self, const struct packet *p)
{
    struct scoreboard *b = board_want(t, self);
    struct hole hole = {.start = self->next, .end = p->tcp_seq, .opener = order_mark(p), .born_ns = p->ts_ns,
                        .opened_empty = sequence_length(p) == 0,
                        .after_pause = is_after_pause(f, self, p->ts_ns)};
    if (!b || !board_open_hole(t, b, hole))
        belief_forget_below(self, p->tcp_seq);
}

static void count_segment(struct tcp_half *self)
{
    self->segments += self->segments < UINT8_MAX;
}

/* Bytes beyond everything seen so far, with nothing between. */
static void advance(struct vms_table *t, struct tcp_half *self, uint32_t end)
{
    board_gather(t, self);
    self->next = end;
    forget_the_old(t, self);
}

static void launch(const struct vms_table *t, struct tcp_half *self, const struct packet *p)
{
    self->sent_ns = (uint64_t)p->ts_ns;
    self->flags = (uint16_t)((self->flags & ~HALF_LAST_ALONE) | HALF_DATA |
                             (p->payload_bytes == 1 ? HALF_LAST_ALONE : 0));
    board_launch(t, self);
}

void segment_data(struct vms_table *t, struct tcp_half *self, const struct packet *p)
{
    count_segment(self);
    advance(t, self, p->tcp_seq + p->payload_bytes);
    launch(t, self, p);
}

/* ---- the causes of what does not advance ---- */

struct old_segment {
    const struct packet *packet;
    uint32_t end;
    uint32_t segments;
};

/* Its bytes were ACKed before it came: the receiver had them. */
static void resent_acked(struct trouble *trouble, const struct old_segment *s)
{
    trouble->retransmissions += s->segments;
    trouble->spurious += s->segments;
}

/* The tap had seen the bytes, or knows that they had been sent before: a DSACK may still call that needless. */
static void expect_verdict(struct vms_table *t, struct tcp_half *self, const struct old_segment *s, enum resend_kind kind)
{
    struct scoreboard *b = board_want(t, self);
    struct resend resend = {s->packet->tcp_seq, s->end, (uint16_t)s->segments, kind};
    if (!b)
        return;
    board_abort(t, self, s->packet->tcp_seq);
    board_note_resend(t, b, resend, s->packet->ts_ns);
}

/* Whether a segment that fills an open hole had only been overtaken. Sooner than the sender can have learnt of a loss
   it must be so, unless a timer that had long been running made it send again, or duplicate ACKs had asked for it: then
   the mirror may have missed what had opened the hole earlier. */
static bool was_overtaken(const struct flow *f, const struct tcp_half *self, const struct old_segment *s,
                          const struct hole *hole)
{
    int64_t age_ns = s->packet->ts_ns - hole->born_ns;
    bool early = age_ns < tcp_earliest_resend_ns(f);
    if (early && rtt_path_ns(f) && !hole->after_pause && !(self->flags & HALF_ACK_REPEATED))
        return true;
    switch (order_of(self, s->packet, &hole->opener)) {
    case ORDER_BEFORE: return early || age_ns < OVERTAKEN_MOST_NS;
    case ORDER_AFTER: return false;
    default: return early && !(hole->after_pause && hole->opened_empty);
    }
}

static void fill_open_hole(struct vms_table *t, struct flow *f, int direction, const struct old_segment *s,
                           const struct hole *hole)
{
    struct tcp_half *self = &f->tcp[direction];
    if (was_overtaken(f, self, s, hole)) {
        trouble_of(t, f, direction)->reordered += s->segments;
        board_abort(t, self, s->packet->tcp_seq);          /* what lies behind waited for this one */
        return;
    }
    trouble_of(t, f, direction)->upstream_losses += s->segments;
    expect_verdict(t, self, s, RESEND_FILLS);
}

/* The receiver had ACKed the bytes before the tap saw them: the mirror was late, or they were sent once more. */
static void fill_acked_hole(struct vms_table *t, struct flow *f, int direction, const struct old_segment *s,
                            const struct hole *hole, uint32_t bytes)
{
    struct trouble *trouble = trouble_of(t, f, direction);
    int64_t age_ns = s->packet->ts_ns - hole->born_ns;
    int64_t late_ns = t->options.duplicate_horizon_ns;
    enum sent_order order = order_of(&f->tcp[direction], s->packet, &hole->opener);
    bool no_timer_yet = quiet_for_ns(&f->tcp[direction], s->packet->ts_ns) < TIMEOUT_LEAST_NS;
    bool early = age_ns < TAP_REORDERING_NS || age_ns < copy_latest_ns(f) ||
                 (age_ns < tcp_earliest_resend_ns(f) && no_timer_yet);
    if (order == ORDER_AFTER || (order == ORDER_UNKNOWN && !early && (age_ns > late_ns || !f->copied_most))) {
        resent_acked(trouble, s);
        expect_verdict(t, &f->tcp[direction], s, RESEND_SETTLED);
    } else if (early || order == ORDER_BEFORE) {
        trouble->reordered += s->segments;
        trouble->unseen_bytes -= trouble->unseen_bytes < bytes ? trouble->unseen_bytes : bytes;
    } else {
        trouble->unknown_causes += s->segments;
    }
}

static void send_again(struct vms_table *t, struct flow *f, int direction, const struct old_segment *s)
{
    struct tcp_half *self = &f->tcp[direction];
    if (self->flags & HALF_ACKED_KNOWN && seq_at_most(s->end, self->acked)) {
        resent_acked(trouble_of(t, f, direction), s);
        expect_verdict(t, self, s, RESEND_SETTLED);
        return;
    }
    trouble_of(t, f, direction)->retransmissions += s->segments;
    expect_verdict(t, self, s, RESEND_SEEN);
}

/* Bytes below the highest seen: which of the causes? */
static void old_segment(struct vms_table *t, struct flow *f, int direction, const struct packet *p, uint32_t end)
{
    struct tcp_half *self = &f->tcp[direction];
    struct scoreboard *b = board_of(t, self);
    struct old_segment s = {p, end, segments_of(p->payload_bytes, f->tcp[!direction].mss)};
    struct hole hole;
    uint32_t bytes = 0;
    enum fill fill = b ? board_fill(t, b, p->tcp_seq, end, &hole, &bytes) : FILL_NONE;
    if (fill == FILL_OPEN)
        fill_open_hole(t, f, direction, &s, &hole);
    else if (fill == FILL_ACKED)
        fill_acked_hole(t, f, direction, &s, &hole, bytes);
    else if (self->flags & HALF_BLIND && seq_before(p->tcp_seq, self->blind_below))
        trouble_of(t, f, direction)->unknown_causes += s.segments;
    else
        send_again(t, f, direction, &s);
    if (seq_before(self->next, end))
        self->next = end;
}

/* It begins where the stream has come to, or beyond. */
static bool next_segment(struct vms_table *t, struct tcp_half *self, const struct packet *p, uint32_t end)
{
    if (end != self->next)
        advance(t, self, end);
    if (end == p->tcp_seq)
        return false;
    count_segment(self);
    if (p->payload_bytes)
        launch(t, self, p);
    else if (!is_set(p, TCP_FIN))
        self->sent_ns = (uint64_t)p->ts_ns;             /* a FIN asks no request, and no timer waits for more */
    return p->payload_bytes != 0;
}

bool segment_sent(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *self = &f->tcp[direction];
    uint32_t length = sequence_length(p), end = p->tcp_seq + length;
    if (seq_before(self->next, p->tcp_seq))
        skip(t, f, self, p);
    if (seq_at_most(self->next, p->tcp_seq))
        return next_segment(t, self, p, end);
    if (length == 0)
        return false;
    count_segment(self);
    bool brings_new = seq_before(self->next, end);
    old_segment(t, f, direction, p, end);
    return brings_new && p->payload_bytes;
}
