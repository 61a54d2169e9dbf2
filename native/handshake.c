/* A connection's states as the tap sees them (RFC 9293 section 3.3.2), and the handshake, split at the tap. */

#include "tcp.h"

#define REUSE_IDLE_NS 1000000000LL          /* a SYN on a connection as idle as this starts a new one */
#define PIGGYBACK_NS 10000000LL             /* data this soon may carry the handshake's ACK; later, its sender was waiting */
#define SMALLEST_MSS 536                    /* RFC 9293 section 3.7.1: what every host must take */
#define RESET_DISTANCE (1u << 20)           /* a RST further from the sequence is ignored, as the hosts do (RFC 5961) */

static int64_t measured(int64_t from_ns, int64_t to_ns, bool ambiguous)
{
    bool sound = from_ns && to_ns >= from_ns && to_ns - from_ns <= LATENCY_MOST_NS;
    return sound && !ambiguous ? to_ns - from_ns : VMS_ABSENT;
}

/* When the handshake's last packet passed; 0 if nothing waits for the next. */
static int64_t opening_ns(const struct flow *f)
{
    return f->flags & FLOW_OPENING ? f->handshake_client_ns : 0;
}

/* A time of 0 tells nothing. */
static void note_opening(struct flow *f, uint16_t flag, int64_t ts_ns)
{
    if (!ts_ns)
        return;
    f->flags |= flag | FLOW_OPENING;
    f->handshake_client_ns = ts_ns;
}

/* Once payload has passed, a SYN is a stray or a forgery and tells nothing about the roles. */
static bool roles_open(const struct flow *f)
{
    return !((f->tcp[0].flags | f->tcp[1].flags) & HALF_DATA);
}

static void handshake_syn(struct flow *f, int direction, const struct packet *p)
{
    const struct tcp_half *self = &f->tcp[direction];
    if (f->flags & FLOW_SYN && f->client != direction) {
        f->flags |= FLOW_SIMULTANEOUS;
        return;
    }
    if (self->flags & HALF_NEXT_KNOWN && f->flags & FLOW_SYN) {
        f->flags |= FLOW_SYN_RESENT;
        return;
    }
    if (!roles_open(f))
        return;
    f->client = (uint8_t)direction;
    f->role_source = VMS_ROLE_SYN;
    if (f->flags & FLOW_SYN_ACK)
        f->flags |= FLOW_SYN;
    else
        note_opening(f, FLOW_SYN, p->ts_ns);
    f->client_isn = p->tcp_seq;
    if (p->payload_bytes)
        f->flags |= FLOW_FAST_OPEN;
    if (f->state == VMS_STATE_NONE)
        f->state = VMS_STATE_SYN_SENT;
}

static void handshake_syn_ack(struct flow *f, int direction, const struct packet *p)
{
    if (f->flags & FLOW_SYN_ACK) {
        f->flags |= FLOW_SYN_ACK_RESENT;
        return;
    }
    if (!(f->flags & FLOW_SYN) && roles_open(f)) {
        f->client = (uint8_t)!direction;
        f->role_source = VMS_ROLE_SYN;
    }
    f->handshake_server_ns = measured(opening_ns(f), p->ts_ns, f->flags & (FLOW_SYN_RESENT | FLOW_SIMULTANEOUS));
    note_opening(f, FLOW_SYN_ACK, p->ts_ns);
    if (f->state <= VMS_STATE_SYN_SENT)
        f->state = VMS_STATE_SYN_RECEIVED;
    if (f->handshake_server_ns == VMS_ABSENT)
        return;
    f->flags |= FLOW_HANDSHAKE_SERVER;
    rtt_note_base(&f->tcp[f->client], (uint64_t)f->handshake_server_ns);
}

/* Only the handshake's own ACK is a measurement: any later segment may have waited for its sender. Data is that ACK only
   if nothing was sent between the SYN and it, as the IP identification says. */
static void handshake_ack(struct flow *f, const struct packet *p)
{
    const struct tcp_half *client = &f->tcp[f->client], *server = &f->tcp[!f->client];
    bool server_waited = !(server->flags & HALF_DATA) || f->flags & FLOW_FAST_OPEN;
    bool next_packet = p->ip_id && (uint16_t)(p->ip_id - client->last_ip_id) == 1;
    bool at_once = !p->payload_bytes || (next_packet && p->ts_ns - opening_ns(f) <= PIGGYBACK_NS);
    uint32_t begin = client->flags & HALF_NEXT_KNOWN ? client->next : client->acked;
    bool own = at_once && p->tcp_seq == begin && p->tcp_ack == server->next && server_waited &&
               !(f->flags & (FLOW_SYN_ACK_RESENT | FLOW_SIMULTANEOUS));
    f->state = VMS_STATE_ESTABLISHED;
    f->handshake_client_ns = measured(opening_ns(f), p->ts_ns, !own);
    f->flags &= (uint16_t)~FLOW_OPENING;
    if (f->handshake_client_ns == VMS_ABSENT)
        return;
    f->flags |= FLOW_HANDSHAKE_CLIENT;
    rtt_note_base(&f->tcp[!f->client], (uint64_t)f->handshake_client_ns);
}

/* The MSS, and the window's scale (RFC 7323 section 2.3: more than 14 counts as 14). */
static void learn_options(struct tcp_half *self, const struct packet *p)
{
    uint8_t size = 0;
    const uint8_t *mss = tcp_option(p, TCP_OPTION_MSS, &size);
    if (mss && size == 2)
        self->mss = be16(mss) < SMALLEST_MSS ? SMALLEST_MSS : be16(mss);
    const uint8_t *scale = tcp_option(p, TCP_OPTION_WINDOW_SCALE, &size);
    self->scale = (uint8_t)(!scale || size != 1 ? SCALE_NONE : SCALE_0 + (*scale < 14 ? *scale : 14));
}

static bool is_believable_reset(const struct tcp_half *self, const struct packet *p)
{
    uint32_t distance = p->tcp_seq - self->next;
    return !(self->flags & HALF_NEXT_KNOWN) || distance < RESET_DISTANCE || -distance < RESET_DISTANCE;
}

static void handshake_reset(struct flow *f, int direction)
{
    if (f->state == VMS_STATE_SYN_SENT && direction != f->client)
        f->flags |= FLOW_REFUSED;
    f->state = VMS_STATE_RESET;
}

void handshake_track(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    if (is_set(p, TCP_SYN) && !(f->tcp[direction].flags & HALF_NEXT_KNOWN))
        learn_options(&f->tcp[direction], p);
    if (is_set(p, TCP_RST)) {
        if (is_believable_reset(&f->tcp[direction], p))
            handshake_reset(f, direction);
    } else if (is_set(p, TCP_SYN | TCP_ACK)) {
        handshake_syn_ack(f, direction, p);
    } else if (is_set(p, TCP_SYN)) {
        handshake_syn(f, direction, p);
    } else if (f->state == VMS_STATE_SYN_RECEIVED && direction == f->client && is_set(p, TCP_ACK)) {
        handshake_ack(f, p);
    } else if (f->state == VMS_STATE_NONE || (f->state == VMS_STATE_SYN_SENT && direction == f->client)) {
        f->state = VMS_STATE_ESTABLISHED;               /* joined in the middle, or the answer is not mirrored */
    }
    if (f->state >= VMS_STATE_CLOSED)
        flow_set_kind(t, f, KIND_CLOSED);
    else if (f->state >= VMS_STATE_ESTABLISHED && f->kind == KIND_BOTH)
        flow_set_kind(t, f, KIND_ESTABLISHED);
}

void handshake_fin(struct vms_table *t, struct flow *f, int direction)
{
    if (f->state == VMS_STATE_RESET)
        return;
    f->tcp[direction].flags |= HALF_FIN;
    f->state = f->tcp[!direction].flags & HALF_FIN ? VMS_STATE_CLOSED : VMS_STATE_FIN_WAIT;
    if (f->state == VMS_STATE_CLOSED)
        flow_set_kind(t, f, KIND_CLOSED);
}

bool handshake_is_stray(const struct flow *f, int direction, const struct packet *p)
{
    const struct tcp_half *client = &f->tcp[!direction];
    if (!is_set(p, TCP_SYN | TCP_ACK) || !(f->flags & FLOW_SYN) || direction == f->client)
        return false;
    uint32_t answered = p->tcp_ack - f->client_isn;     /* 1, and what a fast open has sent */
    return answered == 0 || answered > client->next - f->client_isn;
}

bool tcp_starts_anew(const struct vms_table *t, const struct flow *f, const struct packet *p, int direction)
{
    const struct tcp_half *self = &f->tcp[direction], *peer = &f->tcp[!direction];
    if (is_set(p, TCP_SYN | TCP_ACK) && peer->flags & HALF_STRAY && p->tcp_ack == trouble_so_far(t, f, !direction)->stray)
        return true;                                    /* it answers a SYN that had looked out of place */
    if (!is_set(p, TCP_SYN) || is_set(p, TCP_ACK) || is_set(p, TCP_RST))
        return false;
    if (!(self->flags & HALF_NEXT_KNOWN))
        return f->kind == KIND_CLOSED;
    if (f->flags & FLOW_SYN && f->client == direction && p->tcp_seq == f->client_isn)
        return false;                                   /* the same SYN again */
    switch (f->state) {
    case VMS_STATE_SYN_SENT: case VMS_STATE_FIN_WAIT: case VMS_STATE_CLOSED: case VMS_STATE_RESET: return true;
    default: return direction == f->client && p->ts_ns - f->last_ns > REUSE_IDLE_NS;
    }
}
