#include <stdlib.h>

#include "duplicate.h"
#include "pool.h"

/* Octets compared behind the IP header. Not more than needed: copies with other tags are cut at other places by a short
   snap length. More than the header where the checksum alone does not tell packets apart: it may be left to the NIC,
   the same for every datagram of a size; and errors about packets of equal sums have equal sums. */
enum { COMPARED_TCP = 20, COMPARED_UDP = 32, COMPARED_ICMP = 64, COMPARED_OTHER = 28 };

int duplicates_open(struct duplicates *d, const uint8_t secret[16], int64_t horizon_ns)
{
    memcpy(d->secret, secret, sizeof d->secret);
    d->horizon_ns = horizon_ns < DUPLICATE_HORIZON_MOST_NS ? horizon_ns : DUPLICATE_HORIZON_MOST_NS;
    d->sets = horizon_ns ? aligned_alloc(CACHE_LINE, DUPLICATE_SETS * sizeof *d->sets) : NULL;
    if (d->sets)
        memset(d->sets, 0, DUPLICATE_SETS * sizeof *d->sets);
    return horizon_ns && !d->sets ? -1 : 0;
}

void duplicates_close(struct duplicates *d)
{
    free(d->sets);
    d->sets = NULL;
}

/* Two words into one by a 128-bit product, folded: fast, and not to be steered without the secret. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t mix(const struct duplicates *d, uint64_t hash, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    for (; size >= 8; at += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        hash = fold(hash ^ word, d->secret[1] | 1);
    }
    uint64_t tail = size;
    for (; size; size--)
        tail = tail << 8 | *at++;
    return fold(hash ^ tail, d->secret[1] | 1);
}

static size_t compared(const struct packet *p)
{
    size_t captured = cursor_left(&p->transport), wanted = COMPARED_OTHER;
    switch (p->protocol) {
    case TRANSPORT_TCP: wanted = COMPARED_TCP + p->tcp_options_size; break;
    case TRANSPORT_UDP: wanted = COMPARED_UDP; break;
    case TRANSPORT_ICMP: case TRANSPORT_ICMP6: wanted = COMPARED_ICMP; break;
    }
    return captured < wanted ? captured : wanted;
}

uint64_t duplicate_print(const struct duplicates *d, const struct packet *p)
{
    size_t address = p->ip_version == 4 ? 4 : 16;
    const uint32_t sizes[4] = {p->ip_id, p->ip_bytes, p->protocol, p->fragment_offset};
    uint64_t hash = mix(d, d->secret[0], sizes, sizeof sizes);
    hash = mix(d, hash, p->src, address);
    hash = mix(d, hash, p->dst, address);
    return mix(d, hash, p->transport.at, compared(p));
}

static struct sighting *set_of(const struct duplicates *d, uint64_t print)
{
    return d->sets[print % DUPLICATE_SETS];
}

void duplicate_prefetch(const struct duplicates *d, uint64_t print)
{
    __builtin_prefetch(set_of(d, print), 1);
}

/* The part that a sighting keeps; the set holds the rest. */
static uint32_t kept(uint64_t print)
{
    return (uint32_t)(print >> 40) | 1;             /* 24 bits */
}

int64_t duplicate_age_ns(const struct sighting *first, const struct packet *p)
{
    const int unused = 64 - SIGHTING_TIME_BITS;                         /* bits of a time that a sighting does not keep */
    return (int64_t)(((uint64_t)p->ts_ns - first->ts_ns) << unused) >> unused;
}

struct sighting *duplicate_find(const struct duplicates *d, uint64_t print, const struct packet *p)
{
    struct sighting *set = set_of(d, print);
    for (int i = 0; i < DUPLICATE_WAYS; i++) {
        if (set[i].print != kept(print))
            continue;
        int64_t age_ns = duplicate_age_ns(&set[i], p);
        if (age_ns <= d->horizon_ns && age_ns >= -d->horizon_ns)
            return &set[i];
    }
    return NULL;
}

static struct sighting *place_for(const struct duplicates *d, uint64_t print, const struct packet *p)
{
    struct sighting *set = set_of(d, print), *oldest = &set[0];
    for (int i = 0; i < DUPLICATE_WAYS; i++) {
        if (!set[i].print || set[i].print == kept(print))
            return &set[i];
        if (duplicate_age_ns(&set[i], p) > duplicate_age_ns(oldest, p))
            oldest = &set[i];
    }
    return oldest;
}

void duplicate_remember(struct duplicates *d, uint64_t print, const struct packet *p, uint32_t slot, uint64_t flow_id)
{
    *place_for(d, print, p) = (struct sighting){
        .ts_ns = (uint64_t)p->ts_ns & SIGHTING_TIME, .print = kept(print), .slot = slot,
        .flow_id = sighting_id(flow_id), .ttl = p->ttl,
    };
}
