/*
 * Where a packet belongs: its key and hash, the index of flows, which is buckets of chains, and fetching it all ahead.
 *
 * The index grows by linear hashing (Litwin, 1980): addresses for all buckets are reserved at once, and with a new slot
 * for a flow come two buckets more, each of which takes over a part of one older bucket's chain. So the index takes
 * memory as flows do, is never made anew, and no packet waits for more than two buckets.
 */

#include "flow.h"
#include "memory.h"

#define BUCKETS_LEAST 1024u
#define BUCKETS_A_PAGE (MEMORY_HUGE_PAGE / (uint32_t)sizeof(uint32_t))
#define SPLIT_AHEAD 8               /* buckets: the flows of those that are split next are fetched */

static uint64_t buckets_most(uint64_t max_flows)
{
    uint64_t most = max_flows * INDEX_BUCKETS_A_FLOW;
    return most > BUCKETS_LEAST ? most : BUCKETS_LEAST;
}

int index_open(struct vms_table *t)
{
    t->bucket_count = BUCKETS_LEAST;
    t->bucket_mask = BUCKETS_LEAST - 1;
    t->buckets = memory_array(buckets_most(t->options.max_flows) * sizeof *t->buckets);
    if (!t->buckets)
        return -1;
    t->buckets[0] = 0;              /* so that no packet waits for the first page */
    return 0;
}

void index_close(struct vms_table *t)
{
    memory_free(t->buckets, buckets_most(t->options.max_flows) * sizeof *t->buckets);
}

/* Where there is no bucket of that number yet, the one that it will be split from. */
static uint32_t bucket_number(const struct vms_table *t, uint32_t hash)
{
    uint32_t bucket = hash & t->bucket_mask, older = bucket & t->bucket_mask >> 1;
    return bucket < t->bucket_count ? bucket : older;
}

static uint32_t *bucket_of(const struct vms_table *t, uint32_t hash)
{
    return &t->buckets[bucket_number(t, hash)];
}

/* A quarter of a huge page's buckets are there: asks for the next page. */
static void ask_for_buckets(struct vms_table *t)
{
    uint64_t most = buckets_most(t->options.max_flows) * sizeof *t->buckets;
    uint64_t next = (t->bucket_count / BUCKETS_A_PAGE + 1) * MEMORY_HUGE_PAGE;
    if (next < most)
        ahead_ask(&t->ahead, (struct ahead_request){
            (uint8_t *)t->buckets + next, most - next < MEMORY_HUGE_PAGE ? most - next : MEMORY_HUGE_PAGE,
            &t->buckets_ready, next});
}

/* Makes one bucket more, with those flows of an older one whose hash has one bit more in common with its number. */
static void split_bucket(struct vms_table *t)
{
    uint32_t upper = t->bucket_count++;
    if (upper > t->bucket_mask)
        t->bucket_mask = t->bucket_mask << 1 | 1;
    if (upper % BUCKETS_A_PAGE == BUCKETS_A_PAGE / 4)
        ask_for_buckets(t);
    uint32_t lower = upper & t->bucket_mask >> 1;
    uint32_t *ends[2] = {&t->buckets[lower], &t->buckets[upper]};
    fetch_line(flow_at(t, t->buckets[(lower + SPLIT_AHEAD) & t->bucket_mask >> 1]));
    for (uint32_t slot = t->buckets[lower]; slot; slot = flow_at(t, slot)->chain) {
        struct flow *f = flow_at(t, slot);
        uint32_t **end = &ends[(f->hash & t->bucket_mask) == upper];
        **end = slot;
        *end = &f->chain;
    }
    *ends[0] = *ends[1] = 0;
}

void index_add(struct vms_table *t, struct flow *f, uint32_t slot)
{
    uint32_t *bucket = bucket_of(t, f->hash);
    f->chain = *bucket;
    *bucket = slot;
    while (t->bucket_count < t->flows.made * INDEX_BUCKETS_A_FLOW)
        split_bucket(t);
}

void index_remove(struct vms_table *t, const struct flow *f, uint32_t slot)
{
    uint32_t *link = bucket_of(t, f->hash);
    while (*link != slot)
        link = &flow_at(t, *link)->chain;
    *link = f->chain;
}

const uint8_t *flow_address(const struct vms_table *t, const struct flow *f, int endpoint)
{
    if (key_ip_version(&f->key) == 4)
        return (const uint8_t *)&f->key.ip4[endpoint];
    return ((const struct addresses *)pool_at(&t->addresses, f->key.ip6))->ip[endpoint];
}

static inline __attribute__((always_inline)) bool has_addresses(const struct vms_table *t, const struct flow *f,
                                                                const struct place *place)
{
    if (key_ip_version(&f->key) != key_ip_version(&place->key))
        return false;
    if (key_ip_version(&f->key) == 4)
        return memcmp(f->key.ip4, place->key.ip4, sizeof f->key.ip4) == 0;
    return memcmp(flow_address(t, f, 0), place->ip[0], 16) == 0 && memcmp(flow_address(t, f, 1), place->ip[1], 16) == 0;
}

/* All of the key but the addresses. */
static bool has_ports_and_domain(const struct flow *f, const struct place *place)
{
    return f->key.ends == place->key.ends && f->key.kind == place->key.kind;
}

bool flow_has_endpoints(const struct vms_table *t, const struct flow *f, const struct place *place)
{
    return has_addresses(t, f, place) && (uint32_t)f->key.ends == (uint32_t)place->key.ends &&     /* the ports */
           key_protocol(&f->key) == key_protocol(&place->key);
}

uint32_t index_find(const struct vms_table *t, const struct place *place)
{
    for (uint32_t slot = *bucket_of(t, place->hash); slot; slot = flow_at(t, slot)->chain) {
        const struct flow *f = flow_at(t, slot);
        if (f->hash == place->hash && has_ports_and_domain(f, place) && has_addresses(t, f, place))
            return slot;
    }
    return 0;
}

static uint32_t ip4_at(const uint8_t *ip)
{
    uint32_t address;
    memcpy(&address, ip, sizeof address);
    return address;
}

static uint64_t ends_of(const struct packet *p, int direction)
{
    uint32_t ports = (uint32_t)p->dport << 16 | p->sport;
    return (uint64_t)p->vni << 32 | (direction ? ports << 16 | ports >> 16 : ports);
}

static uint64_t kind_of(const struct packet *p, bool tagged)
{
    bool tunnelled = p->tunnel != VMS_TUNNEL_NONE && p->tunnel != VMS_TUNNEL_ERSPAN;
    uint32_t flags = p->has_vni * KEY_HAS_VNI + p->has_ports * KEY_HAS_PORTS + tunnelled * KEY_TUNNELLED;
    uint32_t vlans = tagged ? (uint32_t)p->frame_vlan[1] << 16 | p->frame_vlan[0] : 0;
    return (uint64_t)(flags << 16 | (uint32_t)p->ip_version << 8 | p->protocol) << 32 | vlans;
}

/* But for its tag. */
#define KIND_OF_PLAIN ((uint64_t)((uint32_t)KEY_HAS_PORTS << 16 | 4u << 8 | TRANSPORT_TCP) << 32)

/* Hashes what stands in the key, from the values that go there: to read them back at once, wider than they were written,
   would make the processor wait. */
static inline __attribute__((always_inline)) void place_ip4(const struct vms_table *t, const struct packet *p,
                                                            uint64_t kind, struct place *place)
{
    uint32_t src = ip4_at(p->src), dst = ip4_at(p->dst);
    bool is_upper = src == dst ? p->sport > p->dport : __builtin_bswap32(src) > __builtin_bswap32(dst);
    uint64_t ip = is_upper ? (uint64_t)src << 32 | dst : (uint64_t)dst << 32 | src;
    uint64_t words[3] = {ends_of(p, is_upper), kind, ip};
    place->direction = is_upper;
    place->key.ends = words[0];
    place->key.kind = words[1];
    place->key.ip4[0] = (uint32_t)ip;
    place->key.ip4[1] = (uint32_t)(ip >> 32);
    place->hash = (uint32_t)nh_words(&t->hash_key, words, 3);
}

static void place_ip6(const struct vms_table *t, const struct packet *p, uint64_t kind, struct place *place)
{
    int order = memcmp(p->src, p->dst, 16), direction = order ? order > 0 : p->sport > p->dport;
    uint64_t words[6] = {ends_of(p, direction), kind};
    place->direction = direction;
    place->ip[direction] = p->src;
    place->ip[!direction] = p->dst;
    place->key.ends = words[0];
    place->key.kind = words[1];
    place->key.ip4[0] = place->key.ip4[1] = 0;
    memcpy(&words[2], place->ip[0], 16);
    memcpy(&words[4], place->ip[1], 16);
    place->hash = (uint32_t)nh_words(&t->hash_key, words, 6);
}

void flow_place(const struct vms_table *t, const struct packet *p, bool is_plain, struct place *place)
{
    uint64_t kind = is_plain ? KIND_OF_PLAIN | (t->options.vlan_in_key ? p->frame_vlan[0] : 0)
                             : kind_of(p, t->options.vlan_in_key);
    if (is_plain || p->ip_version == 4)
        place_ip4(t, p, kind, place);
    else
        place_ip6(t, p, kind, place);
    place->bucket = bucket_number(t, place->hash);
    fetch_line(&t->buckets[place->bucket]);
}

void index_prefetch(const struct vms_table *t, uint32_t hash)
{
    fetch_line(bucket_of(t, hash));
}

/* What a handle of 0 would name is fetched as well: it costs less than to ask. */
void flow_prefetch(const struct vms_table *t, const struct place *place)
{
    fetch_lines(flow_at(t, t->buckets[place->bucket]), sizeof(struct flow));
}

/* A flow that changes its kind leaves its place between two others. */
void flow_prefetch_neighbours(const struct vms_table *t, const struct flow *f)
{
    fetch_line(&flow_at(t, f->queue_prev)->queue_next);
    fetch_line(&flow_at(t, f->queue_next)->queue_prev);
}

void flow_prefetch_parts(const struct vms_table *t, const struct packet *p, const struct place *place)
{
    uint32_t slot = t->buckets[place->bucket];
    if (!slot)
        return;
    const struct flow *f = flow_at(t, slot);
    if (f->hash != place->hash) {
        fetch_lines(flow_at(t, f->chain), sizeof(struct flow));
        return;
    }
    board_prefetch(t, &f->tcp[0]);
    board_prefetch(t, &f->tcp[1]);
    histogram_prefetch(t, f);
    if (p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))
        flow_prefetch_neighbours(t, f);
}
