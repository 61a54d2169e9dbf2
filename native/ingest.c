/* The pipeline over a batch of packets: decode, find the flow, count, TCP; and the windows that packet time opens. */

#include "flow.h"

#define STEP_BACK_NS 60000000000LL  /* a clock that jumps back by more than this opens an earlier window */
#define EXPIRE_A_BATCH 4096

/* ---- one packet ---- */

static void count_sender(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    vms_half_t *delta = &f->delta[direction];
    delta->packets++;
    delta->bytes += p->ip_bytes;
    delta->payload_bytes += p->payload_bytes;
    if (p->payload_bytes && !p->has_tcp)
        delta->data_packets++;                          /* tcp.c counts its own, probes apart */
    if (p->src_mac)
        memcpy(f->mac[direction], p->src_mac, 6);
    f->flags |= direction ? FLOW_SEEN_1 : FLOW_SEEN_0;
    if (f->kind == KIND_NEW && ((f->flags & (FLOW_SEEN_0 | FLOW_SEEN_1)) == (FLOW_SEEN_0 | FLOW_SEEN_1) ||
                                delta->packets >= CONFIRMING_PACKETS))
        flow_set_kind(t, f, KIND_BOTH);
    if (p->ts_ns > f->last_ns)
        f->last_ns = p->ts_ns;
    else if (p->ts_ns < f->start_ns)
        f->start_ns = p->ts_ns;
}

static void note_tunnel(struct vms_table *t, struct flow *f, int direction, const struct packet *p)
{
    if (!f->tunnel) {
        if (!(f->tunnel = pool_take(&t->tunnels)))
            return;
        memset(pool_at(&t->tunnels, f->tunnel), 0, sizeof(struct tunnel_ends));
    }
    struct tunnel_ends *tunnel = pool_at(&t->tunnels, f->tunnel);
    size_t size = p->outer_ip_version == 4 ? 4 : 16;
    tunnel->kind = p->tunnel;
    tunnel->ip_version = p->outer_ip_version;
    memcpy(tunnel->outer[direction], p->outer_src, size);
    memcpy(tunnel->outer[!direction], p->outer_dst, size);
}

static void count_overflow(struct vms_table *t, const struct packet *p)
{
    t->overflow.packets++;
    t->overflow.bytes += p->ip_bytes;
    t->overflow.payload_bytes += p->payload_bytes;
}

static enum vms_fate count_packet(struct vms_table *t, const struct packet *p)
{
    int direction;
    struct flow *f = flow_of_packet(t, p, &direction);
    t->counters.ip_bytes += p->ip_bytes;
    if (!f) {
        count_overflow(t, p);
        return VMS_FATE_OVERFLOW;
    }
    count_sender(t, f, direction, p);
    if (p->tunnel)
        note_tunnel(t, f, direction, p);
    if (p->has_tcp)
        tcp_packet(t, f, direction, p);
    else if (p->protocol == 17 && p->payload_bytes)
        response_packet(t, f, direction, p->ts_ns);
    return VMS_FATE_FLOW;
}

static void ingest_frame(struct vms_table *t, struct cursor frame, int64_t ts_ns)
{
    struct packet p;
    memset(&p, 0, sizeof p);
    p.ts_ns = ts_ns;
    enum vms_fate fate = decode_frame(&t->decoder, frame, &p);
    if (fate == VMS_FATE_FLOW)
        fate = count_packet(t, &p);
    t->counters.received++;
    t->counters.fate[fate]++;
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
    t->now_ns = ts_ns;
}

static void keep_time(struct vms_table *t, int64_t ts_ns)
{
    if (ts_ns >= t->now_ns)
        t->now_ns = ts_ns;
    else
        t->counters.time_backwards++;
}

/* Bounded, so that no batch pauses for a million idle flows. */
static void expire_in_passing(struct vms_table *t)
{
    uint32_t room = FINISHED_CAPACITY - t->finished_count;
    flow_expire(t, room < EXPIRE_A_BATCH ? room : EXPIRE_A_BATCH);
}

void vms_tick(vms_table_t *t, int64_t now_ns)
{
    if (!t->window_end_ns)
        open_window(t, now_ns);
    else if (now_ns > t->now_ns)
        t->now_ns = now_ns;
    expire_in_passing(t);
}

void vms_window(const vms_table_t *t, int64_t *start_ns, int64_t *end_ns)
{
    *start_ns = t->window_start_ns;
    *end_ns = t->window_end_ns;
}

/* ---- a batch ---- */

static struct cursor frame_of(const uint8_t *data, uint64_t size, const vms_meta_t *meta)
{
    bool inside = meta->offset <= size && meta->caplen <= size - meta->offset;
    return cursor_over(inside ? data + meta->offset : data, inside ? meta->caplen : 0);
}

uint32_t vms_ingest(vms_table_t *t, const uint8_t *data, uint64_t size, const vms_meta_t *meta, uint32_t first,
                    uint32_t count, uint32_t tick_ns)
{
    uint32_t i = first;
    for (; i < count && flow_finished_room(t, FINISHED_A_PACKET); i++) {
        int64_t ts_ns = (int64_t)meta[i].sec * 1000000000 + (int64_t)meta[i].fraction * tick_ns;
        if (!t->window_end_ns)
            open_window(t, ts_ns);
        if (!belongs_to_window(t, ts_ns))
            break;
        keep_time(t, ts_ns);
        ingest_frame(t, frame_of(data, size, &meta[i]), ts_ns);
    }
    expire_in_passing(t);
    return i;
}
