#define _DEFAULT_SOURCE 1           /* usleep */

#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "flow.h"

#define LEAD 262144u                /* packets that one may be ahead of another, but for a batch */
#define COPIES_KEPT (4 * LEAD)      /* those that anybody behind can still ask for, and more */
#define PATIENCE 64                 /* turns before sleeping */
#define SLEEP_US 200

enum {
    PLAIN_IPV4 = 0x0800, PLAIN_IPV6 = 0x86dd, PLAIN_VLAN = 0x8100, PLAIN_QINQ = 0x88a8,
    PLAIN_TAGS = 2
};

/* The same for both directions, and in every run. */
static inline uint32_t share_of_pair(const struct share *share, const uint8_t *src, const uint8_t *dst, size_t size)
{
    uint64_t hash = 0;
    for (size_t at = 0; at < size; at += 4) {
        uint32_t a = be32(src + at), b = be32(dst + at);
        hash = (hash ^ ((uint64_t)(a ^ b) << 32 | (uint32_t)(a + b))) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return (uint32_t)(((hash * 0xd6e8feb86659fd93u) >> 32) * share->of >> 32);
}

static inline enum whose whose_pair(const struct share *share, const uint8_t *src, const uint8_t *dst, size_t size)
{
    return share_of_pair(share, src, dst, size) == share->number ? WHOSE_OURS : WHOSE_ANOTHERS;
}

/* Ports at which something is decoded: tunnels (tunnel.c), DHCP (transport.c). */
static bool is_read_further(const uint8_t *ports)
{
    switch (be16(ports + 2)) {
    case 67: case 68: case 546: case 547: case 4789: case 6081: case 8472: return true;
    default: return false;
    }
}

/* Neither a tunnel nor a notice. */
static bool is_plain(const uint8_t *ports, uint8_t protocol)
{
    return ports && (protocol == TRANSPORT_TCP || (protocol == TRANSPORT_UDP && !is_read_further(ports)));
}

static enum whose whose_ipv4(const struct share *share, struct cursor c)
{
    const uint8_t *header = cursor_peek(&c, 20);
    if (!header || header[0] >> 4 != 4 || be16(header + 6) & 0x3fff || !cursor_take(&c, (header[0] & 15) * 4u) ||
        !is_plain(cursor_peek(&c, 4), header[9]))
        return WHOSE_UNKNOWN;
    return whose_pair(share, header + 12, header + 16, 4);
}

static enum whose whose_ipv6(const struct share *share, struct cursor c)
{
    const uint8_t *header = cursor_take(&c, 40);
    if (!header || header[0] >> 4 != 6 || !is_plain(cursor_peek(&c, 4), header[6]))
        return WHOSE_UNKNOWN;
    return whose_pair(share, header + 8, header + 24, 16);
}

/* Ethernet, IPv4 without options or fragments, TCP or UDP: what the steps below would find of most frames, in one look. */
static const uint8_t *plain_addresses(struct cursor c)
{
    const uint8_t *at = cursor_peek(&c, 14 + 20 + 4);
    return at && is_plain_ipv4(at) && is_plain(at + 34, at[23]) ? at + 26 : NULL;
}

enum whose share_of_frame(const struct share *share, uint32_t link_type, struct cursor c)
{
    if (link_type != LINK_ETHERNET)
        return WHOSE_UNKNOWN;
    const uint8_t *addresses = plain_addresses(c);
    if (addresses)
        return whose_pair(share, addresses, addresses + 4, 4);
    const uint8_t *header = cursor_take(&c, 14);
    if (!header)
        return WHOSE_UNKNOWN;
    uint16_t ethertype = be16(header + 12);
    for (int tags = 0; tags < PLAIN_TAGS && (ethertype == PLAIN_VLAN || ethertype == PLAIN_QINQ); tags++) {
        const uint8_t *tag = cursor_take(&c, 4);
        if (!tag)
            return WHOSE_UNKNOWN;
        ethertype = be16(tag + 2);
    }
    switch (ethertype) {
    case PLAIN_IPV4: return whose_ipv4(share, c);
    case PLAIN_IPV6: return whose_ipv6(share, c);
    default: return WHOSE_UNKNOWN;
    }
}

bool share_has(const struct share *share, const struct packet *p, enum vms_fate fate)
{
    if (fate != VMS_FATE_FLOW)
        return share->number == 0;
    return whose_pair(share, p->src, p->dst, p->ip_version == 4 ? 4 : 16) == WHOSE_OURS;
}

/* ---- what all see */

struct seat {
    _Alignas(64) _Atomic uint64_t passed;       /* all packets before this one are counted */
    _Atomic uint64_t copies;
    uint64_t at[COPIES_KEPT];                   /* the packets' numbers, a ring */
};

struct common {
    struct seat seats[1];                       /* as many as there are shares */
};

uint64_t vms_common_size(uint32_t shares)
{
    return shares * sizeof(struct seat);
}

void vms_share_with(vms_table_t *t, void *common)
{
    t->share.common = common;
}

void vms_leave(vms_table_t *t)
{
    if (t->share.common)
        atomic_store_explicit(&t->share.common->seats[t->share.number].passed, UINT64_MAX, memory_order_release);
}

void share_tell(const struct share *share)
{
    if (share->common)
        atomic_store_explicit(&share->common->seats[share->number].passed, share->passed, memory_order_release);
}

void share_note_copy(struct share *share)
{
    share->copies++;
    if (!share->common)
        return;
    struct seat *seat = &share->common->seats[share->number];
    seat->at[(share->copies - 1) % COPIES_KEPT] = share->passed;
    atomic_store_explicit(&seat->copies, share->copies, memory_order_release);
}

static void let_others_run(uint32_t turns)
{
    if (turns < PATIENCE)
        sched_yield();
    else
        usleep(SLEEP_US);
}

void share_keep_together(const struct share *share)
{
    if (!share->common)
        return;
    share_tell(share);
    for (uint32_t other = 0; other < share->of; other++)
        for (uint32_t turns = 0; share->passed > LEAD; turns++) {
            uint64_t passed = atomic_load_explicit(&share->common->seats[other].passed, memory_order_acquire);
            if (passed >= share->passed - LEAD)
                break;
            let_others_run(turns);
        }
}

/* How many copies somebody has written down of packets before number `end`: those after it are among the last ones. */
static uint64_t copies_before(const struct seat *seat, uint64_t end)
{
    uint64_t high = atomic_load_explicit(&seat->copies, memory_order_acquire);
    uint64_t low = high > COPIES_KEPT / 2 ? high - COPIES_KEPT / 2 : 0;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (seat->at[middle % COPIES_KEPT] < end)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool share_has_copies(const struct share *share, uint64_t one_of)
{
    uint64_t enough = share->passed / one_of;
    if (!share->common)
        return share->copies > enough;
    share_tell(share);
    for (uint32_t turns = 0;; turns++) {
        uint64_t known = share->copies, unknown = 0;
        for (uint32_t other = 0; other < share->of; other++) {
            const struct seat *seat = &share->common->seats[other];
            uint64_t passed = atomic_load_explicit(&seat->passed, memory_order_acquire);
            if (other == share->number)
                continue;
            known += copies_before(seat, share->passed);
            unknown += passed < share->passed ? share->passed - passed : 0;
        }
        if (known > enough || known + unknown <= enough)
            return known > enough;
        let_others_run(turns);
    }
}
