/*
 * Mirror duplicates: the second sighting of a packet that the mirror copied at two places, perhaps before and after
 * routing. The same innermost packet within a short horizon: addresses, IP identification, length and the transport
 * header (ports, sequence numbers, flags, checksum) are equal; TTL, TOS, MAC, VLAN, VNI and everything outside may
 * differ, but see copy.c on copies in two domains. A resend is no duplicate: it has a new IP identification or
 * timestamp, or comes later.
 */
#ifndef VMS_DUPLICATE_H
#define VMS_DUPLICATE_H

#include "decode.h"

#define DUPLICATE_SETS 16384u       /* of four: 65,536 packets, at 10 ms a rate of 6.5 million packets/s */
#define DUPLICATE_WAYS 4
#define DUPLICATE_HORIZON_MOST_NS 500000000000LL

#define SIGHTING_TIME_BITS 40
#define SIGHTING_TIME ((1ULL << SIGHTING_TIME_BITS) - 1)

/* Four of them fill a cache line. */
struct sighting {
    uint64_t ts_ns : SIGHTING_TIME_BITS;            /* modulo 2^40: differences within nine minutes are right */
    uint64_t print : 24;            /* odd; 0: unused */
    uint32_t slot;                  /* of the flow that counted it; 0 for the overflow entry */
    uint32_t flow_id : 15;          /* its lower part, to know when the slot was given to another flow */
    uint32_t twins : 6;             /* packets that look like it and were counted while its copies were still to come */
    uint32_t copies : 3;            /* that have come of the oldest of these, as far as that counts */
    uint32_t ttl : 8;
};
_Static_assert(sizeof(struct sighting) == 16, "four a cache line");

/* The part of a flow's number that a sighting keeps. */
static inline uint32_t sighting_id(uint64_t flow_id)
{
    return (uint32_t)flow_id & 0x7fff;
}

struct duplicates {
    uint64_t secret[2];
    int64_t horizon_ns;
    struct sighting (*sets)[DUPLICATE_WAYS];        /* NULL: duplicates are counted like any packet */
};

int duplicates_open(struct duplicates *d, const uint8_t secret[16], int64_t horizon_ns);
void duplicates_close(struct duplicates *d);

/* A keyed hash of what the copies of a packet have in common. `is_plain`: decode_plain knew the frame. */
uint64_t duplicate_print(const struct duplicates *d, const struct packet *p, bool is_plain);

void duplicate_prefetch(const struct duplicates *d, uint64_t print);

#define SIGHTING_COPIES_MOST 7
#define SIGHTING_TWINS_MOST 63

/* The earlier sighting of a packet; or, if there is none, the place for this one, which it has to take: that of an earlier
   packet that looks like it, else an empty one, else that of the set's oldest. */
struct seen {
    struct sighting *place;
    bool before;
};

struct seen duplicate_look(const struct duplicates *d, uint64_t print, const struct packet *p);

/* The place for a packet that is another one than that of the earlier sighting, which it takes the place of. */
struct sighting *duplicate_renew(const struct duplicates *d, uint64_t print, struct sighting *place);

/* How long after the first sighting the packet comes; negative if its timestamp is the earlier one. */
int64_t duplicate_age_ns(const struct sighting *first, const struct packet *p);

/* Remembers a packet that was counted, in its place. */
void duplicate_remember(struct sighting *place, uint64_t print, const struct packet *p, uint32_t slot,
                        uint64_t flow_id);

#endif
