/*
 * Notices: the few packets that name VMs and switches (ARP, RARP, neighbour discovery, DHCP, LLDP, CDP), handed up as
 * they are for the slow path to read. Bounded by window; what has no room is counted.
 */
#ifndef VMS_NOTICE_H
#define VMS_NOTICE_H

#include "bytes.h"
#include "vms.h"

#define NOTICE_CAPACITY 4096u       /* of a window: 2.5 MB, taken when the first one comes */

struct packet;

struct notices {
    vms_notice_t *kept;
    uint32_t count;
    bool are_elsewhere;             /* another table of several hands them up */
};

void notices_close(struct notices *n);

/* Keeps what stands behind the header that tells the kind. False when there is no room. */
bool notice_keep(struct notices *n, const struct packet *p, enum vms_notice_kind kind, struct cursor octets);

#endif
