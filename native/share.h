/*
 * Several tables share the packets of the same files out among them: each process reads all of them, and counts its own.
 *
 * What a table learns from one packet for another is of two packets between the same innermost addresses: flows, copies
 * that a mirror delivers again, in whatever VLAN or tunnel, resends. So these addresses decide whose a packet is. Most
 * packets show them at once. Those that may hide others inside, that are fragments, or that name VMs, are decoded by
 * all, so that all know the same fragments; what decoding counts and hands up on the way is the first share's alone, and
 * so is every packet that has no IP addresses. All times are seen by all: their windows are the same.
 */
#ifndef VMS_SHARE_H
#define VMS_SHARE_H

#include "decode.h"

struct share {
    uint32_t number;
    uint32_t of;
    uint64_t passed;                /* packets so far, whosever they are */
    uint64_t end;                   /* none from this one on is counted */
    vms_counters_t elsewhere;       /* what the first share counts */
};

enum whose { WHOSE_OURS, WHOSE_ANOTHERS, WHOSE_UNKNOWN };

/* Whose a frame is, as far as that can be told before it is decoded. Ours without shares. */
enum whose share_of_frame(const struct share *share, uint32_t link_type, struct cursor frame);

/* And after. */
bool share_has(const struct share *share, const struct packet *p, enum vms_fate fate);

#endif
