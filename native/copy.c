/* Whether a packet that looks like one before it is a copy that the mirror delivered again, and whose flow counts it. */

#include "flow.h"

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

/* Without an IP identification that changes, packets that follow each other may look the same. Both sightings of one that
   was not routed in between are close to each other; but a fast retransmit may be as close: what tells is that
   duplicate ACKs have asked for it, and that there was time for them to come. */
static bool can_be_another(const struct vms_table *t, const struct flow *f, const struct packet *p,
                           const struct place *place, const struct sighting *first)
{
    const struct tcp_half *half = &f->tcp[place->direction];
    int64_t age_ns = duplicate_age_ns(first, p);
    if (p->ip_id && !(half->flags & HALF_IDS_REPEAT))
        return false;
    return age_ns > t->options.duplicate_horizon_ns / HORIZON_WITHOUT_ID ||
           (p->has_tcp && half->duplicate_acks && age_ns >= tcp_earliest_resend_ns(f));
}

bool copy_counted(struct vms_table *t, const struct packet *p, const struct place *place)
{
    const struct sighting *first = duplicate_find(&t->duplicates, place->print, p);
    if (!first)
        return false;
    struct flow *f = first->slot ? flow_at(t, first->slot) : NULL;
    if (!f || !f->id || sighting_id(f->id) != first->flow_id) {      /* no flow counted it, or one that is gone */
        t->overflow.mirror_duplicates++;
        return true;
    }
    if (!flow_has_endpoints(f, place))
        return false;
    if (first->ttl == p->ttl && (!can_be_unrouted_copy(f, p, place) || can_be_another(t, f, p, place, first)))
        return false;
    window_list(t, f, first->slot);
    f->delta[place->direction].mirror_duplicates++;
    transit_note(t, f, place->direction, duplicate_age_ns(first, p));
    return true;
}
