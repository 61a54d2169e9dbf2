/* What a side's acknowledgments say of the other side's data: RTT, needless resends, and what the mirror has missed. */

#include "tcp.h"

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

/* The receiver has got these bytes twice. If the tap had taken the resend for the first copy to pass, then what it had
   missed was not lost. */
static void resent_needlessly(struct scoreboard *b, vms_half_t *delta, const struct sack *sack, uint16_t mss)
{
    struct resend *resend = board_find_resend(b, sack->start, sack->end);
    if (!resend)
        return;
    uint32_t named = segments_of(sack->end - sack->start, mss);
    if (named > resend->segments)
        named = resend->segments;
    if (resend->filled_hole && delta->upstream_losses < named)
        return;                                         /* counted in a window that is gone */
    resend->segments = (uint16_t)(resend->segments - named);
    delta->spurious += named;
    if (!resend->filled_hole)
        return;
    delta->upstream_losses -= named;
    delta->retransmissions += named;
    delta->unseen_bytes += sack->end - sack->start;
}

/* What a SACK says of this side's data: a resend was needless; or bytes wait for a hole, and so will their ACK. */
static void selectively_acknowledged(struct scoreboard *b, vms_half_t *delta, uint16_t mss, const struct packet *p)
{
    struct sack sack;
    if (!first_sack(p, &sack))
        return;
    if (sack.duplicate)
        resent_needlessly(b, delta, &sack, mss);
    else
        board_abort(b, p->tcp_ack);
}

/* The ACK covers bytes that never passed the tap: the mirror lost them, or they are late. */
static void acknowledged_unseen(struct vms_table *t, struct tcp_half *sender, vms_half_t *delta, uint32_t ack)
{
    bool probe_byte = sender->flags & HALF_PROBED && ack == sender->next + 1;
    struct scoreboard *b = probe_byte ? NULL : board_want(t, sender);
    struct hole hole = {.start = sender->next, .end = ack, .born_ns = t->now_ns};
    if (!probe_byte && !(b && board_open_hole(t, b, hole))) {
        belief_forget_below(sender, ack);               /* else board_ack_holes counts the bytes */
        delta->unseen_bytes += ack - sender->next;
    }
    sender->next = ack;
}

/* RFC 5681 section 2: an ACK that brings nothing new while data is outstanding, nor another window. */
static void note_duplicate_ack(struct scoreboard *b, struct tcp_half *sender, const struct packet *p)
{
    bool repeats = sender->flags & HALF_ACKED_KNOWN && p->tcp_ack == sender->acked && p->tcp_ack != sender->next;
    if (!repeats) {
        sender->duplicate_acks = 0;
        return;
    }
    if (sequence_length(p))
        return;
    sender->duplicate_acks += sender->duplicate_acks < UINT8_MAX;
    if (b && b->open_holes)
        board_abort(b, p->tcp_ack);                     /* the receiver waits for what the tap has not seen, either */
}

void ack_received(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *sender = &f->tcp[!direction];
    vms_half_t *delta = &f->delta[!direction];
    uint32_t ack = p->tcp_ack;
    if (!belief_ack(t, sender, ack))
        return;
    struct scoreboard *b = board_of(t, sender);
    if (b)
        selectively_acknowledged(b, delta, f->tcp[direction].mss, p);
    if (sender->flags & HALF_PROVISIONAL && seq_before(sender->next, ack))
        sender->next = ack;
    else if (sender->flags & HALF_NEXT_KNOWN && seq_before(sender->next, ack))
        acknowledged_unseen(t, sender, delta, ack);
    note_duplicate_ack(b, sender, p);
    if (!(sender->flags & HALF_ACKED_KNOWN) || seq_before(sender->acked, ack))
        sender->acked = ack;
    sender->flags = (uint16_t)((sender->flags | HALF_ACKED_KNOWN) & ~HALF_PROBED);
    belief_window(f, direction, p);

    if (!(b = board_of(t, sender)))
        return;
    delta->unseen_bytes += board_ack_holes(t, b, ack, p->ts_ns);
    int64_t sent_ns = board_land(b, ack);
    if (sent_ns >= 0)
        rtt_sample(t, f, !direction, sent_ns, p->ts_ns);
    board_tidy(t, sender);
}
