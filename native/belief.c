/*
 * Which sequence and acknowledgment numbers can be true. A receiver says how far its sender may go (RFC 9293 section
 * 3.8.6), so what lies well beyond is forged, corrupt, or the first sight of a stream that the mirror has not shown for
 * a while. One packet alone is not believed; a second that goes on where it ended is the truth.
 */

#include "tcp.h"

#define WINDOW_LEAST (1u << 16)     /* windows are taken for at least so large: ACKs may have been missed */
#define PAST_LEAST (1u << 20)       /* so far below the acknowledged, a segment may still be an old resend */
#define SHIFT_MOST 14               /* RFC 7323 section 2.3; assumed where the SYN was not seen */

static void turn_blind(struct tcp_half *half, uint32_t below)
{
    if (!(half->flags & HALF_BLIND) || seq_before(half->blind_below, below))
        half->blind_below = below;
    half->flags |= HALF_BLIND;
}

void belief_forget_below(struct tcp_half *half, uint32_t end)
{
    turn_blind(half, end);
    half->flags |= HALF_UNSURE;
}

void belief_lose_track(struct vms_table *t, struct tcp_half *half)
{
    board_drop(t, half);
    half->flags = (uint16_t)((half->flags & ~(HALF_NEXT_KNOWN | HALF_STRAY | HALF_STRAY_ACK)) | HALF_UNSURE);
}

/* ---- the window ---- */

/* Both sides have to have offered scaling in their SYN, or neither scales (RFC 7323 section 2.2). */
static uint32_t window_shift(const struct flow *f, int direction)
{
    uint8_t own = f->tcp[direction].scale, peer = f->tcp[!direction].scale;
    if (own == SCALE_NONE || peer == SCALE_NONE)
        return 0;
    return own == SCALE_UNKNOWN ? SHIFT_MOST : own - SCALE_0;
}

void belief_window(struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *sender = &f->tcp[!direction];
    uint32_t shift = is_set(p, TCP_SYN) ? 0 : window_shift(f, direction);
    uint32_t window = (uint32_t)p->tcp_window << shift;
    uint32_t edge = p->tcp_ack + (window < SEQUENCE_FAR ? window : SEQUENCE_FAR);
    if (!(sender->flags & HALF_EDGE_KNOWN) || seq_before(sender->edge, edge))
        sender->edge = edge;
    sender->flags |= HALF_EDGE_KNOWN;
}

/* How much the sender may have in flight, and how much the tap may have missed of the window's way. */
static uint32_t window_size(const struct tcp_half *sender)
{
    uint32_t window = sender->edge - sender->acked;
    return window < WINDOW_LEAST || window > SEQUENCE_FAR ? WINDOW_LEAST : window;
}

/* One window more than was offered, since the ACKs that moved it may have been missed. */
static bool within_window(const struct tcp_half *sender, uint32_t end)
{
    return !(sender->flags & HALF_EDGE_KNOWN) || seq_at_most(end, sender->edge + window_size(sender));
}

static bool is_recent(const struct tcp_half *sender, uint32_t end)
{
    uint32_t past = window_size(sender) < PAST_LEAST ? PAST_LEAST : window_size(sender);
    return !(sender->flags & HALF_ACKED_KNOWN) || !seq_before(end, sender->acked - past);
}

static bool is_near(uint32_t a, uint32_t b)
{
    return a - b + SEQUENCE_FAR <= 2 * SEQUENCE_FAR;
}

/* ---- segments ---- */

/* Begins to follow a direction at this segment. */
static void learn_next(struct tcp_half *half, const struct packet *p)
{
    half->flags = (uint16_t)((half->flags & ~HALF_PROVISIONAL) | HALF_NEXT_KNOWN);
    half->next = p->tcp_seq;
    if (is_set(p, TCP_SYN))
        return;
    turn_blind(half, p->tcp_seq);
    if (sequence_length(p) == 0)
        half->flags |= HALF_PROVISIONAL;
}

static bool goes_on(const struct tcp_half *half, const struct trouble *trouble, const struct packet *p)
{
    return half->flags & HALF_STRAY && p->tcp_seq - trouble->stray <= WINDOW_LEAST;
}

/* The mirror has missed a stretch and then shown one segment, which was not believed at first. */
static void bridge_gap(struct vms_table *t, struct tcp_half *half, struct trouble *trouble, int64_t now_ns)
{
    uint32_t start = trouble->stray - trouble->stray_length;
    struct scoreboard *b = board_want(t, half);
    struct hole gap = {.start = half->next, .end = start, .after_pause = true, .born_ns = now_ns};
    if (start != half->next && !(b && board_open_hole(t, b, gap)))
        belief_forget_below(half, start);
    half->next = trouble->stray;
    half->flags &= (uint16_t)~HALF_EDGE_KNOWN;
    trouble->out_of_window -= trouble->stray_length && trouble->out_of_window;
}

static void begin_again(struct vms_table *t, struct tcp_half *half, const struct packet *p)
{
    board_drop(t, half);
    half->flags = (uint16_t)((half->flags & ~(HALF_ACKED_KNOWN | HALF_EDGE_KNOWN | HALF_BLIND)) | HALF_UNSURE);
    learn_next(half, p);
}

/* True when the segment shows that the stray one before it was the truth, and is followed from here on. */
static bool confirm_stray(struct vms_table *t, struct tcp_half *half, struct trouble *trouble, const struct packet *p)
{
    bool confirmed = goes_on(half, trouble, p);
    uint32_t length = sequence_length(p);
    if (confirmed) {
        half->flags &= (uint16_t)~HALF_STRAY;
        if (trouble->stray - half->next <= SEQUENCE_FAR)
            bridge_gap(t, half, trouble, p->ts_ns);
        else
            begin_again(t, half, p);
        return true;
    }
    trouble->stray = p->tcp_seq + length;
    trouble->stray_length = (uint16_t)(length < UINT16_MAX ? length : UINT16_MAX);
    half->flags |= HALF_STRAY;
    trouble->out_of_window += length != 0;
    return false;
}

static bool is_possible(const struct tcp_half *half, const struct packet *p)
{
    uint32_t end = p->tcp_seq + sequence_length(p);
    return is_near(p->tcp_seq, half->next) && within_window(half, end) && is_recent(half, end);
}

/* A SYN other than the one that began what is followed: of the next connection, or forged. Wherever its number lies, it
   brings nothing to this stream (RFC 5961 section 4). */
static bool is_foreign_syn(const struct flow *f, int direction, const struct packet *p)
{
    const struct tcp_half *half = &f->tcp[direction];
    if (!is_set(p, TCP_SYN) || !(half->flags & HALF_NEXT_KNOWN))
        return false;
    bool is_own_known = f->flags & FLOW_SYN && f->client == direction;
    return is_own_known ? p->tcp_seq != f->client_isn : !seq_before(p->tcp_seq, half->next);
}

bool belief_place(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *half = &f->tcp[direction];
    if (is_foreign_syn(f, direction, p))
        return confirm_stray(t, half, trouble_of(t, f, direction), p);
    bool possible = is_possible(half, p);
    if (!(half->flags & HALF_NEXT_KNOWN) || (half->flags & HALF_PROVISIONAL && possible)) {
        learn_next(half, p);
        possible = is_possible(half, p);
    }
    if (!possible)
        return confirm_stray(t, half, trouble_of(t, f, direction), p);
    half->flags &= (uint16_t)~HALF_STRAY;
    return true;
}

/* ---- acknowledgments ---- */

bool belief_ack(struct vms_table *t, struct flow *f, int direction, uint32_t ack)
{
    struct tcp_half *sender = &f->tcp[direction];
    if (!(sender->flags & HALF_NEXT_KNOWN))
        return true;
    if (seq_at_most(ack, sender->next))
        return is_near(ack, sender->next);
    if (within_window(sender, ack) && is_near(ack, sender->next)) {
        sender->flags &= (uint16_t)~HALF_STRAY_ACK;
        return true;
    }
    struct trouble *trouble = trouble_of(t, f, direction);
    bool confirmed = sender->flags & HALF_STRAY_ACK && ack - trouble->stray_ack - 1 < WINDOW_LEAST;
    trouble->stray_ack = ack;
    sender->flags |= HALF_STRAY_ACK;
    if (!confirmed)
        return false;
    sender->flags &= (uint16_t)~(HALF_STRAY_ACK | HALF_EDGE_KNOWN);
    if (!is_near(ack, sender->next))
        belief_lose_track(t, sender);
    return true;
}
