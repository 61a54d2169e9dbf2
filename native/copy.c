/* Whether a packet that looks like one before it is a copy that the mirror delivered again, and whose flow counts it. */

#include "tcp.h"

#define COPY_SLACK_NS 1000000LL
#define PACKETS_A_COPY 256          /* a mirror that copies less than one of so many packets does not copy */
#define SEGMENTS_ENOUGH 8           /* to tell so from a flow that has no copy itself, */
#define PACKETS_ENOUGH 4096         /* or from all */
#define HORIZON_WITHOUT_ID 8        /* the part of the horizon in which packets that no identification tells apart are one */

/* Seen with the same TTL in two domains: from one VNI to another a packet has to be routed, from one VLAN to another it
   may be bridged (or the mirror's own tag differs), but then keeps its MAC. Otherwise they are two tenants' packets. */
static bool can_be_unrouted_copy(const struct flow *f, const struct packet *p, const struct place *place)
{
    const struct flow_key *a = &f->key, *b = &place->key;
    if (a->flags & b->flags & KEY_HAS_VNI && a->vni != b->vni)
        return false;
    if (!a->vlan[0] || !b->vlan[0] || memcmp(a->vlan, b->vlan, sizeof a->vlan) == 0)
        return true;
    return !p->src_mac || memcmp(f->mac[place->direction], p->src_mac, 6) == 0;
}

/* What is known of how the mirror copies this flow. */
enum copying { COPYING_UNKNOWN, COPYING_NEVER, COPYING };

static enum copying copying_of(const struct vms_table *t, const struct flow *f)
{
    bool mirror_copies = t->certain_copies > t->counters.received / PACKETS_A_COPY;
    bool enough = f->tcp[0].segments + f->tcp[1].segments >= SEGMENTS_ENOUGH || t->counters.received >= PACKETS_ENOUGH;
    if (f->copied_us)
        return COPYING;
    return enough && !mirror_copies ? COPYING_NEVER : COPYING_UNKNOWN;
}

/* All copies of this flow have come with another TTL: what has the same is none. */
static bool is_copied_by_routers_only(const struct flow *f)
{
    return (f->flags & (FLOW_COPIES_ROUTED | FLOW_COPIES_UNROUTED)) == FLOW_COPIES_ROUTED;
}

int64_t copy_latest_ns(const struct flow *f)
{
    return f->copied_us ? 2000 * (int64_t)f->copied_us + COPY_SLACK_NS : 0;
}

static bool is_prompt(const struct vms_table *t, int64_t age_ns)
{
    return age_ns <= t->options.duplicate_horizon_ns / HORIZON_WITHOUT_ID;
}

/* A segment that takes up sequence numbers is sent again when duplicate ACKs ask for it, or a round later; but then
   hardly with the same TCP timestamp. */
static bool can_be_a_resend(const struct vms_table *t, const struct flow *f, const struct packet *p,
                            const struct tcp_half *half, const struct sighting *first, int64_t age_ns)
{
    bool asked = half->duplicate_acks && p->tcp_seq == half->acked;
    bool later = age_ns >= tcp_earliest_resend_ns(f);
    enum copying copying = copying_of(t, f);
    if (is_set(p, TCP_SYN) && copying != COPYING_NEVER)
        return age_ns >= TIMEOUT_LEAST_NS;
    switch (copying) {
    case COPYING_NEVER:
        return true;
    case COPYING:
        return later && (first->copies >= f->copies_each ||
                         age_ns > (asked ? 1000 * (int64_t)f->copied_us : copy_latest_ns(f)));
    default:
        return later && (asked || !(is_prompt(t, age_ns) || order_mark(p).timed));
    }
}

/* An ACK is repeated when data comes out of order (RFC 5681 section 4.2), as soon as that. It has as many copies as the
   flow's segments. */
static bool can_be_another_ack(const struct vms_table *t, const struct flow *f, const struct sighting *first,
                               int64_t age_ns)
{
    switch (copying_of(t, f)) {
    case COPYING_NEVER: return true;
    case COPYING: return first->copies >= f->copies_each || age_ns > copy_latest_ns(f);
    default: return !is_prompt(t, age_ns);
    }
}

/* Without an IP identification that changes, packets that follow each other may look the same. */
static bool can_be_another(const struct vms_table *t, const struct flow *f, const struct packet *p,
                           const struct place *place, const struct sighting *first, int64_t age_ns)
{
    const struct tcp_half *half = &f->tcp[place->direction];
    if (p->ip_id && !(half->flags & HALF_IDS_REPEAT))
        return false;
    if (!p->has_tcp)
        return !is_prompt(t, age_ns);
    if (is_copied_by_routers_only(f))
        return true;
    if (sequence_length(p))
        return can_be_a_resend(t, f, p, half, first, age_ns);
    return can_be_another_ack(t, f, first, age_ns);
}

#define COPIED_MOST_US ((1u << 30) - 1)

/* Remembers that the mirror copies, how late and how often; an ACK may only look like a copy. */
static void learn_copy(struct vms_table *t, struct flow *f, const struct packet *p, struct sighting *first,
                       int64_t age_ns)
{
    uint64_t us = age_ns < 1000 ? 1 : (uint64_t)age_ns / 1000;
    bool segment = p->has_tcp && sequence_length(p);
    first->copies += first->copies < SIGHTING_COPIES_MOST;
    t->certain_copies += segment || p->ip_id || first->ttl != p->ttl;
    if (!segment)
        return;
    f->flags |= first->ttl == p->ttl ? FLOW_COPIES_UNROUTED : FLOW_COPIES_ROUTED;
    if (us > f->copied_us)
        f->copied_us = us < COPIED_MOST_US ? (uint32_t)us : COPIED_MOST_US;
    if (first->copies > f->copies_each)
        f->copies_each = first->copies;
}

bool copy_counted(struct vms_table *t, const struct packet *p, const struct place *place)
{
    struct sighting *first = duplicate_find(&t->duplicates, place->print, p);
    if (!first)
        return false;
    struct flow *f = first->slot ? flow_at(t, first->slot) : NULL;
    if (!f || !f->id || sighting_id(f->id) != first->flow_id) {      /* no flow counted it, or one that is gone */
        t->overflow.mirror_duplicates++;
        return true;
    }
    if (!flow_has_endpoints(f, place))
        return false;
    int64_t age_ns = duplicate_age_ns(first, p);
    if (first->ttl == p->ttl && (!can_be_unrouted_copy(f, p, place) || can_be_another(t, f, p, place, first, age_ns)))
        return false;
    learn_copy(t, f, p, first, age_ns);
    window_list(t, f, first->slot);
    f->delta[place->direction].mirror_duplicates++;
    transit_note(t, f, place->direction, age_ns);
    return true;
}
