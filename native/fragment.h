/*
 * IP fragments (RFC 791 section 2.3, RFC 8200 section 4.5): only the first one carries ports. They are remembered
 * for a while, so that later fragments are counted in the same flow. Bounded: sets of four, the oldest gives way.
 */
#ifndef VMS_FRAGMENT_H
#define VMS_FRAGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "siphash.h"

#define FRAGMENT_SETS 1024
#define FRAGMENT_WAYS 4
#define FRAGMENT_LIFETIME_NS 30000000000LL  /* reassembly gives up after 15 s to 120 s: RFC 1122 section 3.3.2 */

struct packet;

struct fragment {
    uint64_t fingerprint;       /* keyed hash of addresses, identification and domain; 0 means unused */
    int64_t ts_ns;
    uint16_t sport;
    uint16_t dport;
    uint8_t protocol;
    bool has_ports;
};

struct fragments {
    struct siphash_key key;
    struct fragment (*sets)[FRAGMENT_WAYS];
};

int fragments_open(struct fragments *fragments, struct siphash_key key);
void fragments_close(struct fragments *fragments);

/* Remembers the first fragment of the packet with this identification. */
void fragment_learn(struct fragments *fragments, const struct packet *p, uint32_t id);

/* Gives a later fragment the ports of its first; false when that was not seen. */
bool fragment_resolve(const struct fragments *fragments, struct packet *p, uint32_t id);

#endif
