/*
 * Several tables share the packets of the same files out among them: each process reads all of them, and counts its own.
 *
 * What a table learns from one packet for another is of two packets between the same innermost addresses: flows, copies
 * that a mirror delivers again, in whatever VLAN or tunnel, resends. So these addresses decide whose a packet is. Most
 * packets show them at once. Those that may hide others inside, that are fragments, or that name VMs, are decoded by
 * all, so that all know the same fragments; what decoding counts and hands up on the way is the first share's alone, and
 * so is every packet that has no IP addresses. All times are seen by all: their windows are the same.
 *
 * One thing is of the mirror, not of a flow: whether it copies packets at all. Each share writes its certain copies down
 * where the others see them, with the number of the packet. Who has to know waits, for those alone who are behind: so
 * the hindmost never waits, and nothing locks.
 */
#ifndef VMS_SHARE_H
#define VMS_SHARE_H

#include "decode.h"

struct common;                      /* memory that all tables of several processes see */

struct share {
    uint32_t number;
    uint32_t of;
    struct common *common;          /* NULL: this table alone decides */
    uint64_t copies;                /* certain ones of the mirror, among the packets counted here */
    uint64_t passed;                /* packets so far, whosever they are */
    uint64_t end;                   /* none from this one on is counted */
    vms_counters_t elsewhere;       /* what the first share counts */
};

enum whose { WHOSE_OURS, WHOSE_ANOTHERS, WHOSE_UNKNOWN };

/* Whose a frame is, as far as that can be told before it is decoded; only of several shares. */
enum whose share_of_frame(const struct share *share, uint32_t link_type, struct cursor frame);

/* And after. */
bool share_has(const struct share *share, const struct packet *p, enum vms_fate fate);

/* The packet that is being counted is a copy, and can be nothing else. */
void share_note_copy(struct share *share);

/* Whether more than one of so many packets before this one, of all shares, was such a copy. Waits for others where their
   part could make a difference. */
bool share_has_copies(const struct share *share, uint64_t one_of);

/* Tells the others how far this table is. */
void share_tell(const struct share *share);

/* Waits while it is too far ahead of another. */
void share_keep_together(const struct share *share);

#endif
