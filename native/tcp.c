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

/* ---- header prediction (Jacobson, "4BSD TCP header prediction", 1990) ---- */

#define HALF_FOLLOWED (HALF_NEXT_KNOWN | HALF_ACKED_KNOWN | HALF_EDGE_KNOWN)
#define HALF_ODD (HALF_PROVISIONAL | HALF_STRAY | HALF_ZERO_WINDOW | HALF_REOPENED)

/* None, or timestamps in the layout that RFC 7323 appendix A recommends: no SACK. */
static bool has_plain_options(const struct packet *p)
{
    return !p->tcp_options_size || (p->tcp_options_size == 12 && be32(p->tcp_options) == 0x0101080a);
}

static bool goes_well(const struct tcp_half *half)
{
    return (half->flags & (HALF_FOLLOWED | HALF_ODD)) == HALF_FOLLOWED;
}

/* Most segments of a connection that goes well are what comes next: the following bytes, within the window, or nothing,
   with an ACK of what has passed. Nothing has to be found out about these: whatever whole_segment would ask of them has
   its usual answer. */
static bool is_predicted(const struct flow *f, int direction, const struct packet *p)
{
    const struct tcp_half *self = &f->tcp[direction], *peer = &f->tcp[!direction];
    uint32_t end = p->tcp_seq + p->payload_bytes;
    return f->kind == KIND_ESTABLISHED && f->state == VMS_STATE_ESTABLISHED && !p->fragmented &&
           (p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_ACK && p->tcp_window &&
           has_plain_options(p) && goes_well(self) && goes_well(peer) &&
           p->tcp_seq == self->next && end - self->acked <= SEQUENCE_FAR && seq_at_most(end, self->edge) &&
           p->tcp_ack - peer->acked <= SEQUENCE_FAR && peer->next - p->tcp_ack <= SEQUENCE_FAR;
}

/* One piece of code, whatever it calls: that saves more than it takes. */
static __attribute__((flatten)) void predicted_segment(struct vms_table *t, struct flow *f, int direction,
                                                       const struct packet *p)
{
    ack_take(t, f, direction, p);
    if (!p->payload_bytes)
        return;
    segment_data(t, &f->tcp[direction], p);
    f->tally[direction].data_packets += segments_of(p->payload_bytes, f->tcp[!direction].mss);
    response_packet(t, f, direction, p->ts_ns);
}

void tcp_packet(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    if (is_predicted(f, direction, p)) {
        predicted_segment(t, f, direction, p);
        return;
    }
    board_gather(t, &f->tcp[0]);
    board_gather(t, &f->tcp[1]);
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
            board_forget_resends(t, board_of(t, &f->tcp[direction]));
}

void tcp_release(struct vms_table *t, struct flow *f)
{
    board_drop(t, &f->tcp[0]);
    board_drop(t, &f->tcp[1]);
}
