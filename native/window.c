/* The roll: copies a window's active flows out as records and clears what they counted. */

#include <stdlib.h>

#include "flow.h"

void half_add(vms_half_t *sum, const vms_half_t *part)
{
    if (part->rtt_count) {
        if (!sum->rtt_count || part->rtt_min_ns < sum->rtt_min_ns)
            sum->rtt_min_ns = part->rtt_min_ns;
        if (part->rtt_max_ns > sum->rtt_max_ns)
            sum->rtt_max_ns = part->rtt_max_ns;
    }
    sum->bytes += part->bytes;
    sum->payload_bytes += part->payload_bytes;
    sum->unseen_bytes += part->unseen_bytes;
    sum->rtt_sum_ns += part->rtt_sum_ns;
    sum->packets += part->packets;
    sum->data_packets += part->data_packets;
    sum->mirror_duplicates += part->mirror_duplicates;
    sum->retransmissions += part->retransmissions;
    sum->spurious += part->spurious;
    sum->upstream_losses += part->upstream_losses;
    sum->reordered += part->reordered;
    sum->zero_windows += part->zero_windows;
    sum->keepalives += part->keepalives;
    sum->window_probes += part->window_probes;
    sum->out_of_window += part->out_of_window;
    sum->unknown_causes += part->unknown_causes;
    sum->rtt_count += part->rtt_count;
}

void window_list(struct vms_table *t, struct flow *f, uint32_t slot)
{
    if (f->flags & FLOW_LISTED)
        return;
    f->flags |= FLOW_LISTED;
    t->listed[t->listed_count++] = (struct listed){slot, (uint32_t)(t->share.passed - t->window_passed)};
}

static void put_tunnel(const struct vms_table *t, const struct flow *f, vms_record_t *r)
{
    if (!f->tunnel)
        return;
    const struct tunnel_ends *tunnel = pool_at(&t->tunnels, f->tunnel);
    r->tunnel = tunnel->kind;
    r->outer_ip_version = tunnel->ip_version;
    /* Between two tunnel ends the way back is the reverse; a mirror session has one way for both directions. */
    bool reverse = tunnel->direction != f->client && tunnel->kind != VMS_TUNNEL_ERSPAN;
    memcpy(r->outer_src, reverse ? tunnel->dst : tunnel->src, 16);
    memcpy(r->outer_dst, reverse ? tunnel->src : tunnel->dst, 16);
}

static void put_half(const struct vms_table *t, const struct flow *f, int direction, vms_half_t *half)
{
    const struct tally *tally = &f->tally[direction];
    const struct trouble *trouble = trouble_so_far(t, f, direction);
    *half = (vms_half_t){
        .bytes = tally->bytes, .payload_bytes = tally->payload_bytes, .packets = tally->packets,
        .data_packets = tally->data_packets, .mirror_duplicates = tally->mirror_duplicates,
        .rtt_count = tally->rtt_count, .rtt_sum_ns = tally->rtt_sum_ns, .rtt_min_ns = tally->rtt_min_ns,
        .rtt_max_ns = tally->rtt_max_ns,
    };
    if (!trouble)
        return;
    half->unseen_bytes = trouble->unseen_bytes;
    half->retransmissions = trouble->retransmissions;
    half->spurious = trouble->spurious;
    half->upstream_losses = trouble->upstream_losses;
    half->reordered = trouble->reordered;
    half->zero_windows = trouble->zero_windows;
    half->keepalives = trouble->keepalives;
    half->window_probes = trouble->window_probes;
    half->out_of_window = trouble->out_of_window;
    half->unknown_causes = trouble->unknown_causes;
}

static void add_half(const struct vms_table *t, const struct flow *f, int direction, vms_half_t *sum)
{
    vms_half_t half;
    put_half(t, f, direction, &half);
    half_add(sum, &half);
}

static void put_identity(const struct vms_table *t, const struct flow *f, vms_record_t *r)
{
    int client = f->client, server = !f->client;
    r->flow_id = f->id;
    r->start_ns = f->start_ns;
    r->end_ns = f->last_ns;
    r->vni = key_vni(&f->key);
    size_t address = key_ip_version(&f->key) == 4 ? 4 : 16;
    memcpy(r->client_ip, flow_address(t, f, client), address);
    memcpy(r->server_ip, flow_address(t, f, server), address);
    memcpy(r->client_mac, f->mac[client], 6);
    memcpy(r->server_mac, f->mac[server], 6);
    r->client_port = key_port(&f->key, client);
    r->server_port = key_port(&f->key, server);
    memcpy(r->vlan, f->vlan, sizeof r->vlan);
    r->vlan_count = f->vlan_count;
    r->protocol = key_protocol(&f->key);
    r->ip_version = key_ip_version(&f->key);
    r->role_source = f->role_source;
    r->tcp_state = f->state;
    r->end_reason = f->end_reason;
    put_tunnel(t, f, r);
}

static uint32_t record_flags(const struct flow *f)
{
    const uint16_t seen[2] = {FLOW_SEEN_0, FLOW_SEEN_1};
    int client = f->client, server = !f->client;
    return (f->flags & FLOW_NEW ? VMS_RECORD_NEW : 0) | (key_flags(&f->key) & KEY_HAS_VNI ? VMS_RECORD_HAS_VNI : 0) |
           (key_flags(&f->key) & KEY_HAS_PORTS ? VMS_RECORD_HAS_PORTS : 0) |
           (f->tcp[client].flags & HALF_UNSURE ? VMS_RECORD_UNSURE_C2S : 0) |
           (f->tcp[server].flags & HALF_UNSURE ? VMS_RECORD_UNSURE_S2C : 0) |
           (f->flags & FLOW_SYN_ACK ? VMS_RECORD_ANSWERED : 0) | (f->flags & FLOW_REFUSED ? VMS_RECORD_REFUSED : 0) |
           (f->flags & seen[client] ? VMS_RECORD_SEEN_C2S : 0) | (f->flags & seen[server] ? VMS_RECORD_SEEN_S2C : 0);
}

static void put_window(const struct vms_table *t, const struct flow *f, vms_record_t *r)
{
    r->flags = record_flags(f);
    r->handshake_server_ns =
        f->flags & (FLOW_HANDSHAKE_SERVER | FLOW_HANDSHAKE_CLIENT) ? f->handshake_server_ns : VMS_ABSENT;
    r->handshake_client_ns = f->flags & FLOW_HANDSHAKE_CLIENT ? f->handshake_client_ns : VMS_ABSENT;
    r->response_sum_ns = f->response_sum_ns;
    r->response_max_ns = f->response_max_ns;
    r->response_count = f->response_count;
    put_half(t, f, f->client, &r->c2s);
    put_half(t, f, !f->client, &r->s2c);
    if (f->transits) {
        r->c2s_transit = *transit_of(t, f, f->client);
        r->s2c_transit = *transit_of(t, f, !f->client);
    }
}

/* ---- finished flows ---- */

static struct totals *want_totals(struct vms_table *t, struct flow *f)
{
    if (!f->totals) {
        if (!(f->totals = pool_take(&t->totals)))
            return NULL;
        memset(pool_at(&t->totals, f->totals), 0, sizeof(struct totals));
    }
    return pool_at(&t->totals, f->totals);
}

/* Adds the window's part to the flow's life, when somebody will ask for it. */
static void keep_totals(struct vms_table *t, struct flow *f)
{
    struct totals *totals = t->finished ? want_totals(t, f) : NULL;
    if (!totals)
        return;
    add_half(t, f, 0, &totals->half[0]);
    add_half(t, f, 1, &totals->half[1]);
    for (int direction = 0; f->transits && direction < 2; direction++)
        transit_add(&totals->transit[direction], transit_of(t, f, direction));
    totals->response_sum_ns += f->response_sum_ns;
    totals->response_count += f->response_count;
    if (f->response_max_ns > totals->response_max_ns)
        totals->response_max_ns = f->response_max_ns;
}

static void put_life(const struct vms_table *t, const struct flow *f, vms_record_t *r)
{
    r->handshake_server_ns = f->handshake_server_ns;
    r->handshake_client_ns = f->flags & FLOW_OPENING ? VMS_ABSENT : f->handshake_client_ns;
    if (!f->totals)
        return;
    const struct totals *before = pool_at(&t->totals, f->totals);
    half_add(&r->c2s, &before->half[f->client]);
    half_add(&r->s2c, &before->half[!f->client]);
    transit_add(&r->c2s_transit, &before->transit[f->client]);
    transit_add(&r->s2c_transit, &before->transit[!f->client]);
    r->response_sum_ns += before->response_sum_ns;
    r->response_count += before->response_count;
    if (before->response_max_ns > r->response_max_ns)
        r->response_max_ns = before->response_max_ns;
}

void window_finished(struct vms_table *t, struct flow *f, enum vms_end reason)
{
    vms_record_t *r = &t->finished[(t->finished_head + t->finished_count) % t->finished_capacity];
    memset(r, 0, sizeof *r);
    put_identity(t, f, r);
    put_window(t, f, r);
    put_life(t, f, r);
    r->end_reason = (uint8_t)reason;
    bool empty = !(r->c2s.packets || r->s2c.packets || r->c2s.mirror_duplicates || r->s2c.mirror_duplicates);
    t->finished_count += !empty;                        /* nothing came since its last record */
}

static bool make_room(struct vms_table *t)
{
    uint32_t capacity = 2 * t->finished_capacity;
    vms_record_t *wider = capacity > t->finished_capacity ? malloc(capacity * sizeof *wider) : NULL;
    if (!wider)
        return false;
    t->finished_count = vms_take_finished(t, wider, t->finished_count);
    free(t->finished);
    t->finished = wider;
    t->finished_capacity = capacity;
    t->finished_head = 0;
    return true;
}

bool window_finished_room(struct vms_table *t)
{
    if (!t->finished || !t->options.is_unhurried)
        return flow_finished_room(t, 1);
    return t->finished_count + FINISHED_SURE < t->finished_capacity || make_room(t);
}

/* Reports a flow that has lasted longer than the active timeout, and begins its next record. */
static void cut_long_flow(struct vms_table *t, struct flow *f)
{
    if (!t->finished || !f->totals || f->last_ns - f->start_ns < t->options.active_timeout_ns)
        return;
    if (!window_finished_room(t))
        return;                                         /* at the next roll, then */
    window_finished(t, f, VMS_END_ACTIVE);
    pool_give(&t->totals, f->totals);
    f->totals = 0;
    f->start_ns = f->last_ns;
    f->handshake_server_ns = VMS_ABSENT;
    if (!(f->flags & FLOW_OPENING))
        f->handshake_client_ns = VMS_ABSENT;
    tcp_forget_resends(t, f);                           /* a verdict now would excuse a loss of the next part */
}

uint32_t vms_take_finished(vms_table_t *t, vms_record_t *records, uint32_t capacity)
{
    uint32_t taken = t->finished_count < capacity ? t->finished_count : capacity;
    for (uint32_t i = 0; i < taken; i++)
        records[i] = t->finished[(t->finished_head + i) % t->finished_capacity];
    t->finished_head = (t->finished_head + taken) % t->finished_capacity;
    t->finished_count -= taken;
    return taken;
}

/* ---- roll ---- */

#define ROLL_AHEAD 16               /* flows */
#define DROPPED_RECORDS 64          /* at a time: they and their bins stay in the nearest cache */
#define DROPPED_BINS 512

void window_fold(struct vms_table *t, uint32_t slot)
{
    const struct flow *f = flow_at(t, slot);
    add_half(t, f, 0, &t->overflow);
    add_half(t, f, 1, &t->overflow);
    t->counters.samples_unbinned += f->tally[0].rtt_count + f->tally[1].rtt_count + f->response_count;
    t->counters.records_folded++;
}

static void clear_window(struct vms_table *t, struct flow *f)
{
    transit_release(t, f);
    trouble_clear(t, f);
    memset(f->tally, 0, sizeof f->tally);
    f->response_sum_ns = f->response_max_ns = 0;
    f->response_count = 0;
    f->bins = 0;
    f->flags &= (uint16_t)~(FLOW_LISTED | FLOW_NEW | FLOW_HANDSHAKE_SERVER | FLOW_HANDSHAKE_CLIENT);
}

static bool has_overflow(const struct vms_table *t)
{
    return t->overflow.packets || t->overflow.mirror_duplicates;
}

void vms_pending(const vms_table_t *t, uint32_t *records, uint32_t *bins)
{
    *records = t->listed_count - t->rolled_count + has_overflow(t);
    *bins = t->bin_count;
}

static void put_overflow(struct vms_table *t, vms_record_t *r)
{
    memset(r, 0, sizeof *r);
    r->flags = VMS_RECORD_OVERFLOW;
    r->start_ns = t->window_start_ns;
    r->end_ns = t->now_ns;
    r->handshake_server_ns = r->handshake_client_ns = VMS_ABSENT;
    r->c2s = t->overflow;
    memset(&t->overflow, 0, sizeof t->overflow);
}

/* Copies one listed flow out, then makes it ready for the next window or frees it. */
static void roll_flow(struct vms_table *t, uint32_t slot, vms_record_t *r)
{
    struct flow *f = flow_at(t, slot);
    memset(r, 0, sizeof *r);
    put_identity(t, f, r);
    put_window(t, f, r);
    if (f->kind == KIND_GHOST) {
        flow_bury(t, slot);
        return;
    }
    keep_totals(t, f);
    clear_window(t, f);
    cut_long_flow(t, f);
}

/* Flows that are listed behind this one are on their way from memory, first they and then their parts. */
static void fetch_listed(const struct vms_table *t, uint32_t index)
{
    if (index + ROLL_AHEAD < t->listed_count)
        fetch_lines(flow_at(t, t->listed[index + ROLL_AHEAD].slot), sizeof(struct flow));
    if (index + ROLL_AHEAD / 2 >= t->listed_count)
        return;
    const struct flow *f = flow_at(t, t->listed[index + ROLL_AHEAD / 2].slot);
    histogram_prefetch(t, f);
    fetch_line(pool_at(&t->tunnels, f->tunnel));
    if (f->transits)
        fetch_lines(pool_at(&t->transits, f->transits), t->transits.object_size);
    if (f->trouble)
        fetch_lines(pool_at(&t->troubles, f->trouble), t->troubles.object_size);
    if (f->totals)
        fetch_lines(pool_at(&t->totals, f->totals), t->totals.object_size);
    if (f->kind == KIND_GHOST)
        flow_prefetch_neighbours(t, f);
}

static void close_window(struct vms_table *t)
{
    t->listed_count = t->rolled_count = 0;
    pool_reset(&t->bins);
    t->bin_count = 0;
    t->window_start_ns = t->window_end_ns = 0;
}

uint32_t vms_roll(vms_table_t *t, vms_record_t *records, uint32_t record_capacity, vms_bin_t *bins,
                  uint32_t bin_capacity, uint32_t *bin_count)
{
    uint32_t written = 0;
    *bin_count = 0;
    for (; t->rolled_count < t->listed_count && written < record_capacity; written++, t->rolled_count++) {
        uint32_t slot = t->listed[t->rolled_count].slot;
        fetch_listed(t, t->rolled_count);
        *bin_count += histogram_export(t, flow_at(t, slot), written, bins + *bin_count, bin_capacity - *bin_count);
        roll_flow(t, slot, &records[written]);
        records[written].place = t->listed[t->rolled_count].packet;
    }
    t->bin_count -= *bin_count;
    if (t->rolled_count < t->listed_count)
        return written;
    if (has_overflow(t) && written < record_capacity)
        put_overflow(t, &records[written++]);
    if (!has_overflow(t))
        close_window(t);
    return written;
}

void vms_drop_window(vms_table_t *t)
{
    vms_record_t records[DROPPED_RECORDS];
    vms_bin_t bins[DROPPED_BINS];                       /* more than that need not be copied to be dropped */
    uint32_t bin_count;
    do {
        vms_roll(t, records, DROPPED_RECORDS, bins, DROPPED_BINS, &bin_count);
    } while (t->listed_count || has_overflow(t));
    t->decoder.notices.count = 0;
    presence_forget(&t->presence);
}
