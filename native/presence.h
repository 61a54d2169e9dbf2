/*
 * When each network card was heard, by its MAC address: that tells how long a VM was silent, around a migration above
 * all. Bounded: of the four cards that share a set, the one that was heard least lately gives way, and is counted if it
 * had been heard in the open window.
 */
#ifndef VMS_PRESENCE_H
#define VMS_PRESENCE_H

#include "bytes.h"
#include "vms.h"

#define PRESENCE_SETS 16384u        /* of four: 65,536 cards, 4 MB, taken when the first one is heard */
#define PRESENCE_WAYS 4

struct card {
    uint64_t mac;                   /* a number above 48 bits; 0: unused */
    int64_t last_ns;
    int64_t first_ns;               /* in the open window */
    int64_t gap_ns;                 /* longest silence that ended in the open window */
    int64_t gap_end_ns;
    uint32_t packets;               /* in the open window */
    uint32_t padding;
};

struct presence {
    struct card (*sets)[PRESENCE_WAYS];
    uint64_t secret;
    uint32_t heard;                 /* cards with packets in the open window */
    uint32_t lost;
    uint32_t share;                 /* of several tables that hear all cards; each has some of the sets */
    uint32_t shares;
};

void presence_close(struct presence *presence);

/* A card by its MAC address, behind which two octets can be read; 0 if another table of several keeps it. */
uint64_t presence_card(const struct presence *presence, const uint8_t *mac);

/* Fetches what presence_note will touch. */
void presence_prefetch(const struct presence *presence, uint64_t card);

/* A packet from this card. */
void presence_note(struct presence *presence, uint64_t card, int64_t ts_ns);

/* A window closes, of which nobody asks for the cards. */
void presence_forget(struct presence *presence);

#endif
