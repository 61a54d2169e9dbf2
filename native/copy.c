/* Whether a packet that looks like one before it is a copy that the mirror delivered again, and whose flow counts it. */

#include "tcp.h"

#define COPY_SLACK_NS 1000000LL
#define COPY_NOISE_NS 10000LL       /* of clocks and queues, in how late a copy comes */
#define PACKETS_A_COPY 256          /* a mirror that copies less than one of so many packets does not copy */
#define PACKETS_ENOUGH 4096         /* to tell so from all packets; or from the segments of a flow, where it is about */
#define SEGMENTS_ENOUGH_FOR_ACKS 5
#define SEGMENTS_ENOUGH_FOR_SEGMENTS 8
#define SEGMENTS_TELL_DELAY 4       /* enough copies to know how much their delay varies */
#define COPIES_EACH_MOST 3
#define HORIZON_WITHOUT_ID 8        /* the part of the horizon in which packets that no identification tells apart are one */

/* Seen with the same TTL in two domains: from one VNI to another a packet has to be routed, from one VLAN to another it
   may be bridged (or the mirror's own tag differs), but then keeps its MAC. Otherwise they are two tenants' packets. */
static bool can_be_unrouted_copy(const struct flow *f, const struct packet *p, const struct place *place)
{
    const struct flow_key *a = &f->key, *b = &place->key;
    if (key_flags(a) & key_flags(b) & KEY_HAS_VNI && key_vni(a) != key_vni(b))
        return false;
    uint32_t tags = key_vlans(a), others = key_vlans(b);
    if (!(uint16_t)tags || !(uint16_t)others || tags == others)
        return true;
    return !p->src_mac || memcmp(f->mac[place->direction], p->src_mac, 6) == 0;
}

/* What is known of how the mirror copies this flow. */
enum copying { COPYING_UNKNOWN, COPYING_NEVER, COPYING };

static enum copying copying_of(const struct vms_table *t, const struct flow *f, int segments_enough)
{
    bool enough = f->tcp[0].segments + f->tcp[1].segments >= segments_enough || t->share.passed >= PACKETS_ENOUGH;
    if (f->copied_most)
        return COPYING;
    return enough && !share_has_copies(&t->share, PACKETS_A_COPY) ? COPYING_NEVER : COPYING_UNKNOWN;
}

/* All copies of this flow have come with another TTL: what has the same is none. */
static bool is_copied_by_routers_only(const struct flow *f)
{
    return (f->flags & (FLOW_COPIES_ROUTED | FLOW_COPIES_UNROUTED)) == FLOW_COPIES_ROUTED;
}

/* A time in 15 bits: as microseconds, 10 bits behind a leading one and where that is. Less than 0.1 % is lost. */
static uint32_t brief(int64_t ns)
{
    uint64_t us = ns < 1000 ? 1 : (uint64_t)ns / 1000;
    uint32_t exponent = 0;
    for (; us >= 2048 && exponent < 30; exponent++)
        us >>= 1;
    return us >= 1024 ? (exponent + 1) << 10 | ((uint32_t)us & 1023) : (uint32_t)us;
}

static int64_t unbrief_ns(uint32_t brief)
{
    uint32_t exponent = brief >> 10;
    return 1000 * (exponent ? (int64_t)(1024 | (brief & 1023)) << (exponent - 1) : (int64_t)brief);
}

int64_t copy_latest_ns(const struct flow *f)
{
    return f->copied_most ? 2 * unbrief_ns(f->copied_most) + COPY_SLACK_NS : 0;
}

/* Copies that have come with little difference in time do not come much sooner. */
static bool is_too_soon(const struct flow *f, int64_t age_ns)
{
    int64_t least_ns = unbrief_ns(f->copied_least), most_ns = unbrief_ns(f->copied_most);
    return f->tcp[0].segments + f->tcp[1].segments >= SEGMENTS_TELL_DELAY &&
           age_ns < least_ns - (most_ns - least_ns) - least_ns / 4 - COPY_NOISE_NS;
}

/* And not much later. */
static bool is_too_late(const struct flow *f, int64_t age_ns)
{
    int64_t most_ns = unbrief_ns(f->copied_most);
    return age_ns > most_ns + most_ns / 4 + COPY_NOISE_NS;
}

/* As many copies have come as the flow's packets have. */
static bool is_spent(const struct flow *f, const struct sighting *first)
{
    return !first->twins && first->copies >= f->copies_each;
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
    bool asked = half->flags & HALF_ACK_REPEATED && p->tcp_seq == half->acked;
    bool later = age_ns >= tcp_earliest_resend_ns(f);
    enum copying copying = copying_of(t, f, SEGMENTS_ENOUGH_FOR_SEGMENTS);
    if (is_set(p, TCP_SYN))
        return age_ns >= TIMEOUT_LEAST_NS;
    switch (copying) {
    case COPYING_NEVER:
        return true;
    case COPYING:
        return is_too_soon(f, age_ns) || (is_spent(f, first) && (later || is_too_late(f, age_ns))) ||
               (later && age_ns > (asked ? unbrief_ns(f->copied_most) : copy_latest_ns(f)));
    default:
        return later && (asked || !(is_prompt(t, age_ns) || order_mark(p).timed));
    }
}

/* An ACK is repeated when data comes out of order (RFC 5681 section 4.2), as soon as that. It has as many copies as the
   flow's segments. */
static bool can_be_another_ack(const struct vms_table *t, const struct flow *f, const struct sighting *first,
                               int64_t age_ns)
{
    switch (copying_of(t, f, SEGMENTS_ENOUGH_FOR_ACKS)) {
    case COPYING_NEVER: return true;
    case COPYING: return is_spent(f, first) || is_too_soon(f, age_ns) || age_ns > copy_latest_ns(f);
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

/* Remembers that the mirror copies, how late and how often; an ACK may only look like a copy. */
static void learn_copy(struct vms_table *t, struct flow *f, const struct packet *p, struct sighting *first,
                       int64_t age_ns)
{
    uint32_t delay = brief(age_ns);
    bool segment = p->has_tcp && sequence_length(p);
    if (segment || p->ip_id || first->ttl != p->ttl)
        share_note_copy(&t->share);
    if (!segment || first->twins)
        return;
    f->flags |= first->ttl == p->ttl ? FLOW_COPIES_UNROUTED : FLOW_COPIES_ROUTED;
    if (delay > f->copied_most)
        f->copied_most = delay & 0x7fff;
    if (!f->copied_least || delay < f->copied_least)
        f->copied_least = delay & 0x7fff;
    if (first->copies > f->copies_each && first->copies <= COPIES_EACH_MOST)
        f->copies_each = first->copies & COPIES_EACH_MOST;
}

/* One copy less to come. When the oldest of several twins has all of its own, the next was seen no longer ago than a
   copy takes. */
static void strike_copy(const struct flow *f, const struct packet *p, struct sighting *first, int64_t age_ns)
{
    int64_t most_ns = unbrief_ns(f->copied_most);
    first->copies += first->copies < SIGHTING_COPIES_MOST;
    if (!first->twins || first->copies < f->copies_each)
        return;
    first->twins--;
    first->copies = 0;
    if (age_ns > most_ns)
        first->ts_ns = (uint64_t)(p->ts_ns - most_ns) & SIGHTING_TIME;
}

/* Another packet. Copies of the one before it may still come, as many as of both. */
static enum likeness another(const struct flow *f, struct sighting *first, int64_t age_ns)
{
    if (!is_too_soon(f, age_ns) || is_spent(f, first) || first->twins == SIGHTING_TWINS_MOST)
        return LIKE_NONE;
    first->twins++;
    return LIKE_TWIN;
}

static enum likeness copy(struct vms_table *t, struct flow *f, const struct packet *p, const struct place *place,
                          struct sighting *first, int64_t age_ns)
{
    strike_copy(f, p, first, age_ns);
    learn_copy(t, f, p, first, age_ns);
    window_list(t, f, first->slot);
    f->tally[place->direction].mirror_duplicates++;
    transit_note(t, f, place->direction, age_ns);
    return LIKE_COPY;
}

enum likeness copy_judge(struct vms_table *t, const struct packet *p, const struct place *place, struct sighting *first)
{
    struct flow *f = first->slot ? flow_at(t, first->slot) : NULL;
    if (!f || !f->id || sighting_id(f->id) != first->flow_id) {      /* no flow counted it, or one that is gone */
        t->overflow.mirror_duplicates++;
        return LIKE_COPY;
    }
    if (!flow_has_endpoints(t, f, place))
        return LIKE_NONE;
    int64_t age_ns = duplicate_age_ns(first, p);
    if (first->ttl == p->ttl && !can_be_unrouted_copy(f, p, place))
        return LIKE_NONE;
    if (first->ttl == p->ttl && can_be_another(t, f, p, place, first, age_ns))
        return another(f, first, age_ns);
    return copy(t, f, p, place, first, age_ns);
}
