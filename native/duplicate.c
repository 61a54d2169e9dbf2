#include "cache.h"
#include "duplicate.h"
#include "hash.h"
#include "memory.h"

/* Octets compared behind the IP header. Not more than needed: copies with other tags are cut at other places by a short
   snap length. More than the header where the checksum alone does not tell packets apart: it may be left to the NIC,
   the same for every datagram of a size; and errors about packets of equal sums have equal sums. */
enum { COMPARED_TCP = 20, COMPARED_UDP = 32, COMPARED_ICMP = 64, COMPARED_OTHER = 28 };

int duplicates_open(struct duplicates *d, const uint8_t secret[16], int64_t horizon_ns)
{
    memcpy(d->secret, secret, sizeof d->secret);
    d->horizon_ns = horizon_ns < DUPLICATE_HORIZON_MOST_NS ? horizon_ns : DUPLICATE_HORIZON_MOST_NS;
    d->sets = horizon_ns ? memory_array(DUPLICATE_SETS * sizeof *d->sets) : NULL;
    return horizon_ns && !d->sets ? -1 : 0;
}

void duplicates_close(struct duplicates *d)
{
    memory_free(d->sets, DUPLICATE_SETS * sizeof *d->sets);
    d->sets = NULL;
}

static inline uint64_t mix(const struct duplicates *d, uint64_t hash, uint64_t a, uint64_t b)
{
    return fold(hash ^ a, d->secret[1] ^ b);
}

static inline uint64_t word_at(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint64_t mix_sixteen(const struct duplicates *d, uint64_t hash, const uint8_t *at)
{
    return mix(d, hash, word_at(at), word_at(at + 8));
}

/* How many there are has to be mixed in elsewhere: the last sixteen may overlap those before them. */
static inline uint64_t mix_octets(const struct duplicates *d, uint64_t hash, const uint8_t *at, size_t size)
{
    uint8_t padded[16] = {0};
    if (size < 16) {
        if (size)
            memcpy(padded, at, size);
        return mix_sixteen(d, hash, padded);
    }
    for (; size > 16; at += 16, size -= 16) {
        hash = mix_sixteen(d, hash, at);
        if (size < 32)
            return mix_sixteen(d, hash, at + size - 16);
    }
    return mix_sixteen(d, hash, at);
}

/* Equal for two packets exactly if their addresses are, as far as a word can tell. */
static inline uint64_t mix_addresses(const struct duplicates *d, uint64_t hash, const struct packet *p, bool is_ip4)
{
    if (!is_ip4)
        return mix_sixteen(d, mix_sixteen(d, hash, p->src), p->dst);
    uint32_t src, dst;
    memcpy(&src, p->src, sizeof src);
    memcpy(&dst, p->dst, sizeof dst);
    return mix(d, hash, src, dst);
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

uint64_t duplicate_print(const struct duplicates *d, const struct packet *p, bool is_plain)
{
    size_t size = is_plain ? COMPARED_TCP + (size_t)p->tcp_options_size : compared(p);
    uint8_t protocol = is_plain ? TRANSPORT_TCP : p->protocol;
    uint64_t hash = mix(d, d->secret[0], (uint64_t)p->ip_id << 32 | p->ip_bytes,
                        (uint64_t)p->fragment_offset << 32 | (uint32_t)size << 8 | protocol);
    return mix_octets(d, mix_addresses(d, hash, p, is_plain || p->ip_version == 4), p->transport.at, size);
}

static struct sighting *set_of(const struct duplicates *d, uint64_t print)
{
    return d->sets[print % DUPLICATE_SETS];
}

void duplicate_prefetch(const struct duplicates *d, uint64_t print)
{
    fetch_line(set_of(d, print));
}

/* The part that a sighting keeps; the set holds the rest. */
static uint32_t kept(uint64_t print)
{
    return (uint32_t)(print >> 40) | 1;             /* 24 bits */
}

#define TIME_UNUSED (64 - SIGHTING_TIME_BITS)   /* bits of a time that a sighting does not keep */

int64_t duplicate_age_ns(const struct sighting *first, const struct packet *p)
{
    return (int64_t)(((uint64_t)p->ts_ns - first->ts_ns) << TIME_UNUSED) >> TIME_UNUSED;
}

/* A set is a queue, the latest first, so that the one that has to go need not be looked for. */
static struct sighting *put_first(struct sighting *set, struct sighting *end)
{
    for (struct sighting *at = end; at > set; at--)
        *at = at[-1];
    return set;
}

struct sighting *duplicate_renew(const struct duplicates *d, uint64_t print, struct sighting *place)
{
    return put_first(set_of(d, print), place);
}

/* Prints that are equal stand in one place; that of an empty one is equal to none. */
struct seen duplicate_look(const struct duplicates *d, uint64_t print, const struct packet *p)
{
    struct sighting *set = set_of(d, print);
    uint32_t wanted = kept(print);
    for (struct sighting *at = set; at < set + DUPLICATE_WAYS; at++) {
        if (at->print != wanted)
            continue;
        int64_t age_ns = duplicate_age_ns(at, p);
        bool before = age_ns <= d->horizon_ns && age_ns >= -d->horizon_ns;
        return (struct seen){before ? at : put_first(set, at), before};
    }
    return (struct seen){put_first(set, set + DUPLICATE_WAYS - 1), false};
}

void duplicate_remember(struct sighting *place, uint64_t print, const struct packet *p, uint32_t slot, uint64_t flow_id)
{
    *place = (struct sighting){
        .ts_ns = (uint64_t)p->ts_ns & SIGHTING_TIME, .print = kept(print), .slot = slot,
        .flow_id = sighting_id(flow_id), .ttl = p->ttl,
    };
}
