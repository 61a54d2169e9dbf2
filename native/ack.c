/* What a side's acknowledgments say of the other side's data: RTT, needless resends, and what the mirror has missed. */

#include "tcp.h"

#define SACK_BLOCKS 4

/* What the option says: blocks of bytes that the receiver holds (RFC 2018), and one that it has received twice. */
struct sack {
    struct { uint32_t start, end; } blocks[SACK_BLOCKS];
    int count;
    bool duplicate;                 /* the first block is a DSACK */
};

/* RFC 2883: below the cumulative ACK, or inside the second block, the first block is a DSACK. */
static bool read_sack(const struct packet *p, struct sack *sack)
{
    uint8_t size = 0;
    const uint8_t *option = p->tcp_options_size >= 10 ? tcp_option(p, TCP_OPTION_SACK, &size) : NULL;
    sack->count = option ? size / 8 : 0;
    if (sack->count > SACK_BLOCKS)
        sack->count = SACK_BLOCKS;
    for (int i = 0; i < sack->count; i++) {
        sack->blocks[i].start = be32(option + 8 * i);
        sack->blocks[i].end = be32(option + 8 * i + 4);
    }
    bool inside_second = sack->count > 1 && seq_at_most(sack->blocks[1].start, sack->blocks[0].start) &&
                         seq_at_most(sack->blocks[0].end, sack->blocks[1].end);
    sack->duplicate = sack->count && (seq_before(sack->blocks[0].start, p->tcp_ack) || inside_second);
    return sack->count != 0;
}

/* The receiver has got these bytes twice. If the tap had taken the resend for the first copy to pass, then what it had
   missed was not lost. */
static void resent_needlessly(struct vms_table *t, struct flow *f, int sender, uint32_t start, uint32_t end)
{
    struct resend *resend = board_find_resend(t, board_of(t, &f->tcp[sender]), start, end);
    if (!resend)
        return;
    struct trouble *trouble = trouble_of(t, f, sender);
    uint32_t named = segments_of(end - start, f->tcp[!sender].mss);
    if (named > resend->segments)
        named = resend->segments;
    if (resend->kind == RESEND_FILLS && trouble->upstream_losses < named)
        return;                                         /* counted in a window that is gone */
    resend->segments = (uint16_t)(resend->segments - named);
    trouble->spurious += resend->kind == RESEND_SETTLED ? 0 : named;
    if (resend->kind != RESEND_FILLS)
        return;
    trouble->upstream_losses -= named;
    trouble->retransmissions += named;
    trouble->unseen_bytes += end - start;
}

/* What a SACK says of this side's data: a resend was needless; and bytes wait for a hole, and so will their ACK. */
static void selectively_acknowledged(struct vms_table *t, struct flow *f, int sender, const struct packet *p)
{
    struct scoreboard *b = board_of(t, &f->tcp[sender]);
    struct sack sack;
    if (!b || !read_sack(p, &sack))
        return;
    if (sack.duplicate)
        resent_needlessly(t, f, sender, sack.blocks[0].start, sack.blocks[0].end);
    for (int i = sack.duplicate; i < sack.count; i++)
        board_abort_held(t, b, sack.blocks[i].start, sack.blocks[i].end);
}

/* The ACK covers bytes that never passed the tap: the mirror lost them, or they are late. */
static void acknowledged_unseen(struct vms_table *t, struct flow *f, int direction, uint32_t ack)
{
    struct tcp_half *sender = &f->tcp[direction];
    bool probe_byte = sender->flags & HALF_PROBED && ack == sender->next + 1;
    struct scoreboard *b = probe_byte ? NULL : board_want(t, sender);
    struct hole hole = {.start = sender->next, .end = ack, .born_ns = t->now_ns};
    if (!probe_byte && !(b && board_open_hole(t, b, hole))) {
        belief_forget_below(sender, ack);               /* else board_ack_holes counts the bytes */
        trouble_of(t, f, direction)->unseen_bytes += ack - sender->next;
    }
    sender->next = ack;
}

/* RFC 5681 section 2: an ACK that brings nothing new while data is outstanding, nor another window. */
static void note_duplicate_ack(const struct vms_table *t, struct tcp_half *sender, const struct packet *p)
{
    bool repeats = sender->flags & HALF_ACKED_KNOWN && p->tcp_ack == sender->acked && p->tcp_ack != sender->next;
    if (!repeats) {
        sender->flags &= (uint16_t)~HALF_ACK_REPEATED;
        return;
    }
    if (sequence_length(p))
        return;
    sender->flags |= HALF_ACK_REPEATED;
    const struct scoreboard *b = board_of(t, sender);
    if (b && board_is_open(t, b))
        board_abort(t, sender, p->tcp_ack);                /* the receiver waits for what the tap has not seen, either */
}

/* What the ACK covers of a side's scoreboard, which it has; the send time of the segment that ends there, or -1. */
static int64_t land(struct vms_table *t, struct flow *f, int sender, const struct packet *p)
{
    struct scoreboard *b = board_of(t, &f->tcp[sender]);
    uint32_t unseen_bytes = board_ack_holes(t, b, p->tcp_ack, p->ts_ns);
    if (unseen_bytes)
        trouble_of(t, f, sender)->unseen_bytes += unseen_bytes;
    int64_t sent_ns = board_land(t, b, p->tcp_ack);
    board_tidy(t, &f->tcp[sender]);
    return sent_ns;
}

void ack_take(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *sender = &f->tcp[!direction];
    uint32_t ack = p->tcp_ack;
    note_duplicate_ack(t, sender, p);
    if (!(sender->flags & HALF_ACKED_KNOWN) || seq_before(sender->acked, ack))
        sender->acked = ack;
    sender->flags = (uint16_t)((sender->flags | HALF_ACKED_KNOWN) & ~HALF_PROBED);
    belief_window(f, direction, p);

    int64_t sent_ns = sender->board ? land(t, f, !direction, p) : -1;
    if (sender->in_flight && ack == sender->next) {
        sent_ns = (int64_t)sender->sent_ns;
        sender->in_flight = false;
    }
    if (sent_ns >= 0)
        rtt_sample(t, f, !direction, sent_ns, p->ts_ns);
}

void ack_received(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *sender = &f->tcp[!direction];
    uint32_t ack = p->tcp_ack;
    if (!belief_ack(t, f, !direction, ack))
        return;
    selectively_acknowledged(t, f, !direction, p);
    if (sender->flags & HALF_PROVISIONAL && seq_before(sender->next, ack))
        sender->next = ack;
    else if (sender->flags & HALF_NEXT_KNOWN && seq_before(sender->next, ack))
        acknowledged_unseen(t, f, !direction, ack);
    ack_take(t, f, direction, p);
}
