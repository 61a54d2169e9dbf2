/* TCP at the tap: what each segment says of its sender's stream, and of the other side's. The rules, with their sources,
   are in docs/metrics.md. */

#include "tcp.h"

static void track_closed_window(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tcp_half *self = &f->tcp[direction];
    const struct tcp_half *peer = &f->tcp[!direction];
    if (is_set(p, TCP_SYN))
        return;
    if (p->tcp_window == 0)
        trouble_of(t, f, direction)->zero_windows++;
    if (peer->flags & HALF_ACKED_KNOWN && seq_before(p->tcp_ack, peer->acked))
        return;                                         /* overtaken: no news (RFC 9293 section 3.10.7.4, SND.WL2) */
    if (p->tcp_window == 0) {
        self->flags |= HALF_ZERO_WINDOW;
    } else {
        if (self->flags & HALF_ZERO_WINDOW)
            self->flags |= HALF_REOPENED;
        self->flags &= (uint16_t)~HALF_ZERO_WINDOW;
    }
}

/* Only part of a fragmented segment can be placed. */
static void fragment_sent(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    f->tally[direction].data_packets += p->payload_bytes != 0;
    if (is_set(p, TCP_ACK))
        ack_received(t, f, direction, p);
    belief_lose_track(t, &f->tcp[direction]);
}

static void whole_segment(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    bool probe = segment_probe(t, f, direction, p);
    if (!probe && p->payload_bytes)
        f->tally[direction].data_packets += segments_of(p->payload_bytes, f->tcp[!direction].mss);
    if (!probe && !belief_place(t, f, direction, p))
        return;
    if (!probe)
        f->tcp[!direction].flags &= (uint16_t)~HALF_REOPENED;
    if (is_set(p, TCP_ACK))
        ack_received(t, f, direction, p);
    if (!probe && segment_sent(t, f, direction, p))
        response_packet(t, f, direction, p->ts_ns);
    if (is_set(p, TCP_FIN))
        handshake_fin(t, f, direction);
    track_closed_window(t, f, direction, p);
}

void tcp_packet(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    if (handshake_is_stray(f, direction, p))
        return;
    handshake_track(t, f, direction, p);
    if (is_set(p, TCP_RST))
        return;
    if (p->fragmented)
        fragment_sent(t, f, direction, p);
    else
        whole_segment(t, f, direction, p);
}

void tcp_forget_resends(struct vms_table *t, struct flow *f)
{
    for (int direction = 0; direction < 2; direction++)
        if (f->tcp[direction].board)
            board_of(t, &f->tcp[direction])->resend_count = 0;
}

void tcp_release(struct vms_table *t, struct flow *f)
{
    board_drop(t, &f->tcp[0]);
    board_drop(t, &f->tcp[1]);
}
