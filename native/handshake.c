/* A connection's states as the tap sees them (RFC 9293 section 3.3.2), and the handshake, split at the tap. */

#include "tcp.h"

#define REUSE_IDLE_NS 1000000000LL          /* a SYN on a connection as idle as this starts a new one */

static int64_t measured(int64_t from_ns, int64_t to_ns, bool ambiguous)
{
    return from_ns && to_ns >= from_ns && !ambiguous ? to_ns - from_ns : VMS_ABSENT;
}

static void handshake_syn(struct flow *f, int direction, const struct packet *p)
{
    const struct tcp_half *self = &f->tcp[direction];
    if (f->syn_ns && f->client != direction) {
        f->flags |= FLOW_SIMULTANEOUS;
        return;
    }
    if (self->flags & HALF_NEXT_KNOWN && f->syn_ns) {
        f->flags |= FLOW_SYN_RESENT;
        return;
    }
    f->client = (uint8_t)direction;
    f->role_source = VMS_ROLE_SYN;
    f->syn_ns = p->ts_ns;
    f->client_isn = p->tcp_seq;
    if (f->state == VMS_STATE_NONE)
        f->state = VMS_STATE_SYN_SENT;
}

static void handshake_syn_ack(struct flow *f, int direction, const struct packet *p)
{
    if (f->syn_ack_ns) {
        f->flags |= FLOW_SYN_ACK_RESENT;
        return;
    }
    if (!f->syn_ns) {
        f->client = (uint8_t)!direction;
        f->role_source = VMS_ROLE_SYN;
    }
    f->syn_ack_ns = p->ts_ns;
    if (f->state <= VMS_STATE_SYN_SENT)
        f->state = VMS_STATE_SYN_RECEIVED;
    f->handshake_server_ns = measured(f->syn_ns, p->ts_ns, f->flags & (FLOW_SYN_RESENT | FLOW_SIMULTANEOUS));
    if (f->handshake_server_ns != VMS_ABSENT)
        f->flags |= FLOW_HANDSHAKE_SERVER;
}

static void handshake_ack(struct flow *f, const struct packet *p)
{
    const struct tcp_half *server = &f->tcp[!f->client];
    if (!(server->flags & HALF_NEXT_KNOWN) || seq_before(p->tcp_ack, server->next))
        return;
    f->state = VMS_STATE_ESTABLISHED;
    f->handshake_client_ns = measured(f->syn_ack_ns, p->ts_ns, f->flags & (FLOW_SYN_ACK_RESENT | FLOW_SIMULTANEOUS));
    if (f->handshake_client_ns != VMS_ABSENT)
        f->flags |= FLOW_HANDSHAKE_CLIENT;
}

static void learn_mss(struct tcp_half *self, const struct packet *p)
{
    uint8_t size = 0;
    const uint8_t *mss = tcp_option(p, TCP_OPTION_MSS, &size);
    if (mss && size == 2)
        self->mss = be16(mss);
}

void handshake_track(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    if (is_set(p, TCP_SYN) && !(f->tcp[direction].flags & HALF_NEXT_KNOWN))
        learn_mss(&f->tcp[direction], p);
    if (is_set(p, TCP_RST)) {
        f->state = VMS_STATE_RESET;
    } else if (is_set(p, TCP_SYN | TCP_ACK)) {
        handshake_syn_ack(f, direction, p);
    } else if (is_set(p, TCP_SYN)) {
        handshake_syn(f, direction, p);
    } else if (f->state == VMS_STATE_SYN_RECEIVED && direction == f->client && is_set(p, TCP_ACK)) {
        handshake_ack(f, p);
    } else if (f->state == VMS_STATE_NONE || (f->state == VMS_STATE_SYN_SENT && direction == f->client)) {
        f->state = VMS_STATE_ESTABLISHED;               /* joined in the middle, or the answer is not mirrored */
    }
    if (is_set(p, TCP_FIN) && f->state != VMS_STATE_RESET) {
        f->tcp[direction].flags |= HALF_FIN;
        f->state = f->tcp[!direction].flags & HALF_FIN ? VMS_STATE_CLOSED : VMS_STATE_FIN_WAIT;
    }
    if (f->state >= VMS_STATE_CLOSED)
        flow_set_kind(t, f, KIND_CLOSED);
    else if (f->state >= VMS_STATE_ESTABLISHED && f->kind == KIND_BOTH)
        flow_set_kind(t, f, KIND_ESTABLISHED);
}

bool tcp_starts_anew(const struct flow *f, const struct packet *p, int direction)
{
    const struct tcp_half *self = &f->tcp[direction];
    if (!is_set(p, TCP_SYN) || is_set(p, TCP_ACK) || is_set(p, TCP_RST))
        return false;
    if (!(self->flags & HALF_NEXT_KNOWN))
        return f->kind == KIND_CLOSED;
    if (f->syn_ns && f->client == direction && p->tcp_seq == f->client_isn)
        return false;                                   /* the same SYN again */
    switch (f->state) {
    case VMS_STATE_SYN_SENT: case VMS_STATE_FIN_WAIT: case VMS_STATE_CLOSED: case VMS_STATE_RESET: return true;
    default: return p->ts_ns - f->last_ns > REUSE_IDLE_NS;
    }
}
