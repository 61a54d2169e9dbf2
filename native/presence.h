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

/* A card, and the set that it is kept in: NULL if another table of several keeps it, or there is no memory. */
struct heard {
    uint64_t number;
    struct card *set;
};

/* The card of a MAC address, behind which two octets can be read. Fetches what presence_note will touch. */
struct heard presence_hear(struct presence *presence, const uint8_t *mac);

/* A packet from a card that is kept here. */
void presence_note(struct presence *presence, struct heard card, int64_t ts_ns);

/* A window closes, of which nobody asks for the cards. */
void presence_forget(struct presence *presence);

#endif
