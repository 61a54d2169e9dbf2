#include "flow.h"

#define CLOSED_LINGER_NS 5000000000LL   /* stray packets after the close still belong to the connection */
#define BUSY_NS 10000000000LL           /* a flow that spoke within this time is not evicted for a new one */
#define EVICTION_TRIES 8

/* ---- queues ---- */

int64_t flow_idle_timeout(const struct vms_table *t, enum flow_kind kind)
{
    switch (kind) {
    case KIND_CLOSED: return CLOSED_LINGER_NS;
    case KIND_ESTABLISHED: return t->options.tcp_idle_timeout_ns;
    default: return t->options.idle_timeout_ns;
    }
}

static void queue_push(struct vms_table *t, struct flow *f, uint32_t slot)
{
    struct queue *q = &t->queues[f->kind];
    int64_t due_ns = t->now_ns + flow_idle_timeout(t, f->kind);
    if (due_ns < t->due_ns)
        t->due_ns = due_ns;
    f->queued_ns = t->now_ns;
    f->queue_prev = 0;
    f->queue_next = q->head;
    if (q->head)
        flow_at(t, q->head)->queue_prev = slot;
    else
        q->tail = slot;
    q->head = slot;
    q->length++;
}

static uint32_t queue_remove(struct vms_table *t, struct flow *f)
{
    struct queue *q = &t->queues[f->kind];
    uint32_t slot = f->queue_prev ? flow_at(t, f->queue_prev)->queue_next : q->head;
    if (f->queue_prev)
        flow_at(t, f->queue_prev)->queue_next = f->queue_next;
    else
        q->head = f->queue_next;
    if (f->queue_next)
        flow_at(t, f->queue_next)->queue_prev = f->queue_prev;
    else
        q->tail = f->queue_prev;
    q->length--;
    return slot;
}

void flow_set_kind(struct vms_table *t, struct flow *f, enum flow_kind kind)
{
    if (f->kind == kind)
        return;
    uint32_t slot = queue_remove(t, f);
    f->kind = (uint8_t)kind;
    queue_push(t, f, slot);
}

uint32_t flow_oldest(const struct vms_table *t, enum flow_kind kind)
{
    return t->queues[kind].tail;
}

/* ---- the index: buckets of chains ---- */

static uint32_t *bucket_of(const struct vms_table *t, uint32_t hash)
{
    return &t->buckets[hash & t->bucket_mask];
}

static void index_remove(struct vms_table *t, const struct flow *f, uint32_t slot)
{
    uint32_t *link = bucket_of(t, f->hash);
    while (*link != slot)
        link = &flow_at(t, *link)->chain;
    *link = f->chain;
}

const uint8_t *flow_address(const struct vms_table *t, const struct flow *f, int endpoint)
{
    if (f->key.ip_version == 4)
        return (const uint8_t *)&f->key.ip4[endpoint];
    return ((const struct addresses *)pool_at(&t->addresses, f->key.ip6))->ip[endpoint];
}

static bool has_addresses(const struct vms_table *t, const struct flow *f, const struct place *place)
{
    if (f->key.ip_version != place->key.ip_version)
        return false;
    if (f->key.ip_version == 4)
        return memcmp(f->key.ip4, place->key.ip4, sizeof f->key.ip4) == 0;
    return memcmp(flow_address(t, f, 0), place->ip[0], 16) == 0 && memcmp(flow_address(t, f, 1), place->ip[1], 16) == 0;
}

/* All of the key but the addresses. */
static bool has_ports_and_domain(const struct flow *f, const struct place *place)
{
    return memcmp(f->key.port, place->key.port, sizeof f->key - offsetof(struct flow_key, port)) == 0;
}

bool flow_has_endpoints(const struct vms_table *t, const struct flow *f, const struct place *place)
{
    return has_addresses(t, f, place) && memcmp(f->key.port, place->key.port, sizeof f->key.port) == 0 &&
           f->key.protocol == place->key.protocol;
}

static uint32_t index_find(const struct vms_table *t, const struct place *place)
{
    for (uint32_t slot = *bucket_of(t, place->hash); slot; slot = flow_at(t, slot)->chain) {
        const struct flow *f = flow_at(t, slot);
        if (f->hash == place->hash && has_ports_and_domain(f, place) && has_addresses(t, f, place))
            return slot;
    }
    return 0;
}

static uint8_t key_flags(const struct packet *p)
{
    bool tunnelled = p->tunnel != VMS_TUNNEL_NONE && p->tunnel != VMS_TUNNEL_ERSPAN;
    return (p->has_vni ? KEY_HAS_VNI : 0) | (p->has_ports ? KEY_HAS_PORTS : 0) | (tunnelled ? KEY_TUNNELLED : 0);
}

/* Hashes what stands in the key, from the values that go there: to read them back at once, wider than they were written,
   would make the processor wait. */
static uint32_t hash_of(const struct vms_table *t, const struct packet *p, const struct place *place)
{
    const struct flow_key *key = &place->key;
    uint64_t words[6] = {
        (uint64_t)key->vni << 32 | (uint32_t)key->port[1] << 16 | key->port[0],
        (uint64_t)key->flags << 48 | (uint64_t)key->ip_version << 40 | (uint64_t)key->protocol << 32 |
            (uint32_t)key->vlan[1] << 16 | key->vlan[0],
    };
    if (p->ip_version == 4) {
        words[2] = (uint64_t)key->ip4[1] << 32 | key->ip4[0];
        return (uint32_t)(siphash_words(t->key, words, 3) >> 32);
    }
    memcpy(&words[2], place->ip[0], 16);
    memcpy(&words[4], place->ip[1], 16);
    return (uint32_t)(siphash_words(t->key, words, 6) >> 32);
}

static uint32_t ip4_at(const uint8_t *ip)
{
    uint32_t address;
    memcpy(&address, ip, sizeof address);
    return address;
}

/* Which endpoint of the key sent the packet. */
static int direction_of(const struct packet *p)
{
    int order = p->ip_version == 4 ? (be32(p->src) > be32(p->dst)) - (be32(p->src) < be32(p->dst))
                                   : memcmp(p->src, p->dst, 16);
    return order ? order > 0 : p->sport > p->dport;
}

void flow_place(const struct vms_table *t, const struct packet *p, struct place *place)
{
    int direction = place->direction = direction_of(p);
    place->ip[direction] = p->src;
    place->ip[!direction] = p->dst;
    uint32_t ports = (uint32_t)p->dport << 16 | p->sport;
    ports = direction ? ports << 16 | ports >> 16 : ports;
    bool v4 = p->ip_version == 4, tagged = t->options.vlan_in_key;
    place->key = (struct flow_key){
        .ip4 = {v4 ? ip4_at(place->ip[0]) : 0, v4 ? ip4_at(place->ip[1]) : 0},
        .port = {(uint16_t)ports, (uint16_t)(ports >> 16)},
        .vni = p->vni,
        .vlan = {tagged ? p->frame_vlan[0] : 0, tagged ? p->frame_vlan[1] : 0},
        .protocol = p->protocol, .ip_version = p->ip_version, .flags = key_flags(p),
    };
    place->hash = hash_of(t, p, place);
}

void flow_prefetch_bucket(const struct vms_table *t, const struct place *place)
{
    fetch_line(bucket_of(t, place->hash));
}

/* What a handle of 0 would name is fetched as well: it costs less than to ask. */
void flow_prefetch(const struct vms_table *t, const struct place *place)
{
    fetch_lines(flow_at(t, *bucket_of(t, place->hash)), sizeof(struct flow));
}

/* A flow that changes its kind leaves its place between two others. */
void flow_prefetch_neighbours(const struct vms_table *t, const struct flow *f)
{
    fetch_line(&flow_at(t, f->queue_prev)->queue_next);
    fetch_line(&flow_at(t, f->queue_next)->queue_prev);
}

void flow_prefetch_parts(const struct vms_table *t, const struct packet *p, const struct place *place)
{
    uint32_t slot = *bucket_of(t, place->hash);
    if (!slot)
        return;
    const struct flow *f = flow_at(t, slot);
    if (f->hash != place->hash) {
        fetch_lines(flow_at(t, f->chain), sizeof(struct flow));
        return;
    }
    board_prefetch(t, &f->tcp[0]);
    board_prefetch(t, &f->tcp[1]);
    fetch_line(pool_at(&t->bins, f->bins));
    if (p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))
        flow_prefetch_neighbours(t, f);
}

/* ---- life and death ---- */

/* Keeps IPv6 addresses; false when there is no memory. */
static bool keep_addresses(struct vms_table *t, const struct place *place, struct flow_key *key)
{
    *key = place->key;
    if (key->ip_version == 4)
        return true;
    if (!(key->ip6 = pool_take(&t->addresses)))
        return false;
    struct addresses *addresses = pool_at(&t->addresses, key->ip6);
    memcpy(addresses->ip[0], place->ip[0], 16);
    memcpy(addresses->ip[1], place->ip[1], 16);
    return true;
}

static void forget_addresses(struct vms_table *t, const struct flow_key *key)
{
    if (key->ip_version == 6 && key->ip6)
        pool_give(&t->addresses, key->ip6);
}

bool flow_finished_room(const struct vms_table *t, uint32_t count)
{
    return !t->finished || FINISHED_CAPACITY - t->finished_count >= count;
}

void flow_bury(struct vms_table *t, uint32_t slot)
{
    struct flow *f = flow_at(t, slot);
    queue_remove(t, f);
    if (f->tunnel)
        pool_give(&t->tunnels, f->tunnel);
    if (f->totals)
        pool_give(&t->totals, f->totals);
    trouble_release(t, f);
    transit_release(t, f);
    forget_addresses(t, &f->key);
    f->id = 0;                      /* no sighting may take it for alive */
    pool_give(&t->flows, slot);
}

/* Nobody has answered. That is news of the window in which it is given up, although no packet came. */
static bool is_given_up(const struct vms_table *t, const struct flow *f, enum vms_end reason)
{
    bool asked = f->state == VMS_STATE_SYN_SENT || (f->key.protocol == TRANSPORT_UDP && f->key.flags & KEY_HAS_PORTS);
    return asked && f->kind == KIND_NEW && (reason == VMS_END_IDLE || reason == VMS_END_REUSED) && t->window_end_ns;
}

void flow_end(struct vms_table *t, uint32_t slot, enum vms_end reason)
{
    struct flow *f = flow_at(t, slot);
    if (is_given_up(t, f, reason))
        window_list(t, f, slot);
    if (t->finished)
        window_finished(t, f, reason);
    f->end_reason = (uint8_t)reason;
    index_remove(t, f, slot);
    tcp_release(t, f);
    if (f->flags & FLOW_LISTED)
        flow_set_kind(t, f, KIND_GHOST);
    else
        flow_bury(t, slot);
}

/* To the head of its queue again. A clock that stepped back has left times in the future, which would block the queue. */
static void requeue(struct vms_table *t, struct flow *f)
{
    uint32_t slot = queue_remove(t, f);
    if (f->last_ns > t->now_ns)
        f->last_ns = t->now_ns;
    if (f->start_ns > f->last_ns)
        f->start_ns = f->last_ns;
    queue_push(t, f, slot);
}

static bool is_due(const struct vms_table *t, const struct flow *f, int64_t timeout)
{
    return f->queued_ns + timeout <= t->now_ns || f->queued_ns > t->now_ns;
}

/* Fetches what comes after this one: the next one's bucket, as it has come itself by now, and the one after that. */
static void fetch_next_oldest(const struct vms_table *t, const struct flow *f)
{
    if (!f->queue_prev)
        return;
    const struct flow *next = flow_at(t, f->queue_prev);
    fetch_line(bucket_of(t, next->hash));
    if (next->queue_prev)
        fetch_lines(flow_at(t, next->queue_prev), sizeof(struct flow));
}

/* When the oldest flow of any kind has to be looked at. */
static int64_t next_due(const struct vms_table *t)
{
    int64_t due_ns = INT64_MAX;
    for (int kind = KIND_CLOSED; kind < KINDS; kind++) {
        uint32_t slot = flow_oldest(t, kind);
        int64_t at = slot ? flow_at(t, slot)->queued_ns + flow_idle_timeout(t, kind) : INT64_MAX;
        if (at < due_ns)
            due_ns = at;
    }
    return due_ns;
}

void flow_expire(struct vms_table *t, uint32_t limit)
{
    if (t->now_ns < t->due_ns)
        return;
    for (int kind = KIND_CLOSED; kind < KINDS; kind++) {
        int64_t timeout = flow_idle_timeout(t, kind);
        uint32_t slot;
        for (; limit && (slot = flow_oldest(t, kind)) && is_due(t, flow_at(t, slot), timeout); limit--) {
            struct flow *f = flow_at(t, slot);
            fetch_next_oldest(t, f);
            if (f->last_ns + timeout <= t->now_ns)
                flow_end(t, slot, kind == KIND_CLOSED ? VMS_END_CLOSED : VMS_END_IDLE);
            else
                requeue(t, f);
        }
    }
    if (limit)
        t->due_ns = next_due(t);
}

/* Makes a ghost of the flow that can best be spared; false when every flow is busy. */
static bool evict(struct vms_table *t)
{
    for (int kind = KIND_CLOSED; kind < KINDS; kind++) {
        for (int tries = 0; tries < EVICTION_TRIES; tries++) {
            uint32_t slot = flow_oldest(t, kind);
            if (!slot)
                break;
            struct flow *f = flow_at(t, slot);
            if (kind <= KIND_NEW || f->last_ns + BUSY_NS <= t->now_ns) {
                t->counters.flows_evicted += kind > KIND_CLOSED;
                flow_end(t, slot, kind == KIND_CLOSED ? VMS_END_CLOSED : VMS_END_EVICTED);
                return true;
            }
            requeue(t, f);
        }
    }
    return false;
}

/* A slot, or 0. `listed` says that it was a ghost's and stands in the window's list already. */
static uint32_t take_slot(struct vms_table *t, bool *listed)
{
    uint32_t slot = pool_take(&t->flows);
    *listed = false;
    if (slot)
        return slot;
    if (!flow_oldest(t, KIND_GHOST) && !evict(t))
        return 0;
    if ((slot = flow_oldest(t, KIND_GHOST))) {
        window_fold(t, slot);
        flow_bury(t, slot);
        *listed = true;
    }
    return pool_take(&t->flows);
}

static uint32_t make_flow(struct vms_table *t, const struct packet *p, const struct place *place)
{
    int direction = place->direction;
    bool listed;
    struct flow_key key;
    uint32_t slot = keep_addresses(t, place, &key) ? take_slot(t, &listed) : 0;
    if (!slot) {
        forget_addresses(t, &key);
        return 0;
    }
    struct flow *f = flow_at(t, slot);
    memset(f, 0, sizeof *f);
    f->key = key;
    f->hash = place->hash;
    f->chain = *bucket_of(t, f->hash);
    *bucket_of(t, f->hash) = slot;
    f->id = ++t->counters.flows_started;
    f->start_ns = f->last_ns = p->ts_ns;
    f->handshake_server_ns = f->handshake_client_ns = VMS_ABSENT;
    f->flags = FLOW_NEW | (listed ? FLOW_LISTED : 0);
    memcpy(f->vlan, p->vlan, sizeof f->vlan);
    f->vlan_count = p->vlan_count;
    if (p->dst_mac)
        memcpy(f->mac[!direction], p->dst_mac, 6);
    role_guess(f, p, direction);
    f->kind = KIND_NEW;
    queue_push(t, f, slot);
    window_list(t, f, slot);
    return slot;
}

/* Why this packet can not belong to the flow any more; VMS_END_NONE if it can. */
static enum vms_end ended(const struct vms_table *t, const struct flow *f, const struct packet *p, int direction)
{
    bool anew = p->has_tcp && tcp_starts_anew(t, f, p, direction);
    bool idle = p->ts_ns - f->last_ns >= flow_idle_timeout(t, f->kind);
    if (!anew && !idle)
        return VMS_END_NONE;
    if (f->kind == KIND_CLOSED)
        return VMS_END_CLOSED;
    return idle ? VMS_END_IDLE : VMS_END_REUSED;
}

uint32_t flow_of_packet(struct vms_table *t, const struct packet *p, const struct place *place)
{
    uint32_t slot = index_find(t, place);
    if (!slot)
        return make_flow(t, p, place);
    struct flow *f = flow_at(t, slot);
    enum vms_end reason = ended(t, f, p, place->direction);
    if (reason != VMS_END_NONE) {
        flow_end(t, slot, reason);
        return make_flow(t, p, place);
    }
    window_list(t, f, slot);
    return slot;
}
