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

/* ---- life and death ---- */

/* Keeps IPv6 addresses; false when there is no memory. */
static bool keep_addresses(struct vms_table *t, const struct place *place, struct flow_key *key)
{
    *key = place->key;
    if (key_ip_version(key) == 4)
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
    if (key_ip_version(key) == 6 && key->ip6)
        pool_give(&t->addresses, key->ip6);
}

bool flow_finished_room(const struct vms_table *t, uint32_t count)
{
    return !t->finished || t->finished_count + count <= FINISHED_CAPACITY;
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
    bool asked = f->state == VMS_STATE_SYN_SENT || (key_protocol(&f->key) == TRANSPORT_UDP && key_flags(&f->key) & KEY_HAS_PORTS);
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

/* No packet of the flow is of the future. */
static void keep_to_the_past(const struct vms_table *t, struct flow *f)
{
    if (f->last_ns > t->now_ns)
        f->last_ns = t->now_ns;
    if (f->start_ns > f->last_ns)
        f->start_ns = f->last_ns;
}

/* To the head of its queue again. */
static void requeue(struct vms_table *t, struct flow *f)
{
    uint32_t slot = queue_remove(t, f);
    keep_to_the_past(t, f);
    queue_push(t, f, slot);
}

/* A clock that stepped back has left times in the future, which would block the queues. All of them at once: what
   becomes of a flow does not depend on which others there are. */
void flow_clock_set(struct vms_table *t)
{
    for (int kind = KIND_CLOSED; kind < KINDS; kind++)
        for (uint32_t slot = t->queues[kind].head; slot; slot = flow_at(t, slot)->queue_next) {
            struct flow *f = flow_at(t, slot);
            if (f->queued_ns <= t->now_ns)
                break;                                  /* and so were all behind it */
            f->queued_ns = t->now_ns;
            keep_to_the_past(t, f);
        }
    t->due_ns = INT64_MIN;
}

static bool is_due(const struct vms_table *t, const struct flow *f, int64_t timeout)
{
    return f->queued_ns + timeout <= t->now_ns;
}

/* Fetches what comes after this one: the next one's bucket, as it has come itself by now, and the one after that. */
static void fetch_next_oldest(const struct vms_table *t, const struct flow *f)
{
    if (!f->queue_prev)
        return;
    const struct flow *next = flow_at(t, f->queue_prev);
    index_prefetch(t, next->hash);
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
        for (; limit && window_finished_room(t) && (slot = flow_oldest(t, kind)) && is_due(t, flow_at(t, slot), timeout);
             limit--) {
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
    index_add(t, f, slot);
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
