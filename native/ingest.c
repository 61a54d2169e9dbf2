/* The pipeline over a batch of packets: decode, find the flow, count, TCP; and the windows that packet time opens. */

#include "flow.h"

#define STEP_BACK_NS 60000000000LL  /* a clock that jumps back by more than this opens an earlier window */
#define EXPIRE_A_TICK 4096          /* bounded, so that nothing pauses for a million idle flows */

/* ---- one packet ---- */

static void count_sender(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    struct tally *tally = &f->tally[direction];
    tally->packets++;
    tally->bytes += p->ip_bytes;
    tally->payload_bytes += p->payload_bytes;
    if (!p->has_tcp && p->payload_bytes)
        tally->data_packets++;                          /* tcp.c counts its own, probes apart */
    if (p->src_mac)
        memcpy(f->mac[direction], p->src_mac, 6);
    f->flags |= flow_seen(direction);
    if (f->kind == KIND_NEW && ((f->flags & (FLOW_SEEN_0 | FLOW_SEEN_1)) == (FLOW_SEEN_0 | FLOW_SEEN_1) ||
                                tally->packets >= CONFIRMING_PACKETS))
        flow_set_kind(t, f, KIND_BOTH);
    if (p->ts_ns > f->last_ns)
        f->last_ns = p->ts_ns;
    else if (p->ts_ns < f->start_ns)
        f->start_ns = p->ts_ns;
}

static void note_tunnel(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    if (f->tunnel && direction != f->client)
        return;
    if (!f->tunnel && !(f->tunnel = pool_take(&t->tunnels)))
        return;
    struct tunnel_ends *tunnel = pool_at(&t->tunnels, f->tunnel);
    size_t size = p->outer_ip_version == 4 ? 4 : 16;
    *tunnel = (struct tunnel_ends){.ip_version = p->outer_ip_version, .kind = p->tunnel,
                                   .direction = (uint8_t)direction};
    memcpy(tunnel->src, p->outer_src, size);
    memcpy(tunnel->dst, p->outer_dst, size);
}

static void count_overflow(struct vms_table *t, const struct packet *p)
{
    t->overflow.packets++;
    t->overflow.bytes += p->ip_bytes;
    t->overflow.payload_bytes += p->payload_bytes;
}

/* `sighting`: where to remember it; NULL: nowhere. */
static enum vms_fate count_packet(struct vms_table *t, const struct packet *p, const struct place *place,
                                  struct sighting *sighting)
{
    int direction = place->direction;
    uint32_t slot = flow_of_packet(t, p, place);
    struct flow *f = flow_at(t, slot);
    t->counters.ip_bytes += p->ip_bytes;
    if (sighting)
        duplicate_remember(sighting, place->print, p, slot, slot ? f->id : 0);
    if (!slot) {
        count_overflow(t, p);
        return VMS_FATE_OVERFLOW;
    }
    bool first = !(f->flags & flow_seen(direction));
    count_sender(t, f, direction, p);
    if (p->tunnel)
        note_tunnel(t, f, direction, p);
    if (p->has_tcp)
        tcp_packet(t, f, direction, p);
    else if (p->protocol == TRANSPORT_UDP && p->payload_bytes)
        response_packet(t, f, direction, p->ts_ns);
    order_learn_id(&f->tcp[direction], p, first);
    return VMS_FATE_FLOW;
}

static enum vms_fate count_once(struct vms_table *t, const struct packet *p, const struct place *place)
{
    struct sighting *sighting = NULL;
    if (t->duplicates.sets) {
        struct seen seen = duplicate_look(&t->duplicates, place->print, p);
        enum likeness likeness = seen.before ? copy_judge(t, p, place, seen.place) : LIKE_NONE;
        if (likeness == LIKE_COPY)
            return VMS_FATE_MIRROR_DUPLICATE;
        if (likeness == LIKE_NONE)
            sighting = seen.before ? duplicate_renew(&t->duplicates, place->print, seen.place) : seen.place;
    }
    return count_packet(t, p, place, sighting);
}

/* ---- time ---- */

static bool belongs_to_window(const struct vms_table *t, int64_t ts_ns)
{
    return ts_ns < t->window_end_ns && ts_ns >= t->window_start_ns - STEP_BACK_NS;
}

static void open_window(struct vms_table *t, int64_t ts_ns)
{
    int64_t length = t->options.window_ns;
    t->window_start_ns = ts_ns - ts_ns % length;
    t->window_end_ns = t->window_start_ns + length;
    t->window_passed = t->share.passed;
    bool is_set_back = ts_ns < t->now_ns;
    t->now_ns = ts_ns;
    if (is_set_back)
        flow_clock_set(t);
}

/* False for a packet that is older than one before it. */
static bool keep_time(struct vms_table *t, int64_t ts_ns)
{
    bool goes_on = ts_ns >= t->now_ns;
    if (goes_on)
        t->now_ns = ts_ns;
    return goes_on;
}

void vms_tick(vms_table_t *t, int64_t now_ns)
{
    if (!t->window_end_ns)
        open_window(t, now_ns);
    else if (now_ns > t->now_ns)
        t->now_ns = now_ns;
    flow_expire(t, EXPIRE_A_TICK);
}

void vms_window(const vms_table_t *t, int64_t *start_ns, int64_t *end_ns)
{
    *start_ns = t->window_start_ns;
    *end_ns = t->window_end_ns;
}

/* ---- a batch ---- */

#define GROUP 32                    /* packets decoded ahead, while the memory of their flows is on its way */
#define OTHERS 128                  /* packets between them that another share counts */
#define FETCH_TIME 8                /* decoding so many packets takes as long as memory does */

struct decoded {
    struct packet packet;
    struct place place;
    enum vms_fate fate;
    uint32_t others;                /* of the group, that came before it */
    struct heard card;              /* that sent it, if that is known */
};

/* A packet that another share counts: only its time is of interest, and the card that sent it. */
struct other {
    int64_t ts_ns;
    struct heard card;
};

struct group {
    struct decoded decoded[GROUP];
    struct other others[OTHERS];
    uint32_t count;
    uint32_t other_count;
};
_Static_assert(GROUP * FINISHED_A_PACKET + OTHERS * EXPIRE_A_PACKET <= FINISHED_SURE, "room for all that a group ends");

static struct cursor frame_of(const struct batch *batch, const vms_meta_t *meta, uint32_t snaplen)
{
    bool inside = meta->offset <= batch->size && meta->caplen <= batch->size - meta->offset;
    uint32_t size = meta->caplen < snaplen ? meta->caplen : snaplen;
    return cursor_over(batch->data + (inside ? meta->offset : 0), inside ? size : 0);
}

static int64_t timestamp(const struct batch *batch, const vms_meta_t *meta)
{
    return (int64_t)meta->sec * 1000000000 + (int64_t)meta->fraction * batch->tick_ns;
}

static inline __attribute__((always_inline)) struct heard card_of(struct vms_table *t, const uint8_t *mac)
{
    return mac ? presence_hear(&t->presence, mac) : (struct heard){0, NULL};
}

static __attribute__((noinline)) void pass_over(struct vms_table *t, struct group *group, int64_t ts_ns,
                                                const uint8_t *mac)
{
    group->others[group->other_count++] = (struct other){ts_ns, card_of(t, mac)};
}

/* Not by our own snap length. */
static bool is_cut_by_others(const struct vms_table *t, struct cursor frame)
{
    return !t->options.snaplen || cursor_left(&frame) < t->options.snaplen;
}

/* Fetches ahead what counting it will touch. */
static void find_place(const struct vms_table *t, bool is_plain, struct decoded *d)
{
    flow_place(t, &d->packet, is_plain, &d->place);
    if (!t->duplicates.sets)
        return;
    d->place.print = duplicate_print(&t->duplicates, &d->packet, is_plain);
    duplicate_prefetch(&t->duplicates, d->place.print);
}

/* Decodes a packet to this place in the group; false when it is another share's. */
static inline __attribute__((always_inline)) bool decode_one(struct vms_table *t, struct cursor frame, uint32_t wire,
                                                             int64_t ts_ns, struct group *group, struct decoded *d)
{
    enum whose whose = WHOSE_OURS;
    if (t->share.of > 1) {
        whose = share_of_frame(&t->share, t->decoder.link_type, frame);
        if (whose == WHOSE_ANOTHERS) {
            pass_over(t, group, ts_ns, frame.at + 6);
            return false;
        }
        t->decoder.counters = whose == WHOSE_OURS || !t->share.number ? &t->counters : &t->share.elsewhere;
    }
    packet_begin(&d->packet, ts_ns);
    bool is_plain = t->decoder.link_type == LINK_ETHERNET && decode_plain(frame, &d->packet);   /* nearly all are */
    d->fate = is_plain ? VMS_FATE_FLOW : decode_layers(&t->decoder, frame, wire, &d->packet);
    if (whose == WHOSE_UNKNOWN && !share_has(&t->share, &d->packet, d->fate)) {
        pass_over(t, group, ts_ns, d->packet.src_mac);
        return false;
    }
    d->others = group->other_count;
    d->card = card_of(t, d->packet.src_mac);
    if (d->fate != VMS_FATE_FLOW)
        return true;
    if (d->packet.truncated)
        t->counters.truncated += is_cut_by_others(t, frame);    /* whoever counts the packet */
    find_place(t, is_plain, d);
    return true;
}

static inline void fetch_flow(const struct vms_table *t, const struct decoded *d)
{
    if (d->fate == VMS_FATE_FLOW)
        flow_prefetch(t, &d->place);
}

static inline void fetch_parts(const struct vms_table *t, const struct decoded *d)
{
    if (d->fate == VMS_FATE_FLOW)
        flow_prefetch_parts(t, &d->packet, &d->place);
}

/* The last packets of a group, beside whose decoding nothing is left to decode. */
static void fetch_last(const struct vms_table *t, const struct group *group)
{
    const struct decoded *begin = group->decoded, *end = begin + group->count;
    const struct decoded *near = group->count < FETCH_TIME ? begin : end - FETCH_TIME;
    const struct decoded *far = group->count < 2 * FETCH_TIME ? begin : end - 2 * FETCH_TIME;
    for (; near < end; near++)
        fetch_flow(t, near);
    for (; far < end; far++)
        fetch_parts(t, far);
}

/* Decodes what belongs to the open window, as far as the group has room; returns how many packets. Beside the decoding,
   asks for flows whose bucket has come, and for the parts of flows that have come. */
static uint32_t decode_group(struct vms_table *t, const struct batch *batch, uint32_t first, uint32_t count,
                             struct group *group)
{
    const uint32_t snaplen = t->options.snaplen ? t->options.snaplen : UINT32_MAX;
    struct decoded *d = group->decoded;
    uint32_t i = first, n = 0;
    group->other_count = 0;
    for (; i < count && n < GROUP && group->other_count < OTHERS; i++) {
        const vms_meta_t *meta = &batch->meta[i];
        int64_t ts_ns = timestamp(batch, meta);
        if (!belongs_to_window(t, ts_ns))
            break;
        struct cursor frame = frame_of(batch, meta, snaplen);
        if (!decode_one(t, frame, batch->wire ? batch->wire[i] : 0, ts_ns, group, d))
            continue;
        if (n >= FETCH_TIME)
            fetch_flow(t, d - FETCH_TIME);
        if (n >= 2 * FETCH_TIME)
            fetch_parts(t, d - 2 * FETCH_TIME);
        n++, d++;
    }
    group->count = n;
    fetch_last(t, group);
    return i - first;
}

/* The time of a packet, whosever it is; false when it is older than one before it. */
static inline __attribute__((always_inline)) bool pass_time(struct vms_table *t, int64_t ts_ns, struct heard card)
{
    bool is_in_order = keep_time(t, ts_ns);
    if (card.set)
        presence_note(&t->presence, card, ts_ns);
    flow_expire(t, t->expire_a_packet);
    return is_in_order;
}

static __attribute__((noinline)) void pass_others(struct vms_table *t, const struct group *group, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++, t->share.passed++)
        pass_time(t, group->others[i].ts_ns, group->others[i].card);
}

static void count_group(struct vms_table *t, struct group *group)
{
    uint32_t others = 0;
    for (uint32_t i = 0; i < group->count; i++, t->share.passed++) {
        struct decoded *d = &group->decoded[i];
        if (others < d->others)
            pass_others(t, group, others, d->others);
        others = d->others;
        if (!pass_time(t, d->packet.ts_ns, d->card))
            t->counters.time_backwards++;
        if (d->fate == VMS_FATE_FLOW)
            d->fate = count_once(t, &d->packet, &d->place);
        t->counters.fate[d->fate]++;
    }
    t->counters.received += group->count;
    pass_others(t, group, others, group->other_count);
}

uint32_t vms_ingest(vms_table_t *t, const uint8_t *data, uint64_t size, const vms_meta_t *meta, uint32_t first,
                    uint32_t count, uint32_t tick_ns)
{
    return ingest_batch(t, &(struct batch){data, size, meta, NULL, tick_ns}, first, count);
}

uint32_t ingest_batch(struct vms_table *t, const struct batch *batch, uint32_t first, uint32_t count)
{
    struct group group;
    uint32_t i = first, n;
    share_keep_together(&t->share);
    uint64_t room = t->share.end > t->share.passed ? t->share.end - t->share.passed : 0;
    if (count - first > room)
        count = first + (uint32_t)room;
    if (i < count && !t->window_end_ns)
        open_window(t, timestamp(batch, &batch->meta[i]));
    while (i < count && flow_finished_room(t, FINISHED_SURE) &&
           (n = decode_group(t, batch, i, count, &group))) {
        count_group(t, &group);
        share_tell(&t->share);
        i += n;
    }
    return i;
}
