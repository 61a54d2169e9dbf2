/* The boundary's types for C, which reads vms_api.h only through this file. */
#ifndef VMS_H
#define VMS_H

#include <stdint.h>

#include "vms_api.h"

_Static_assert(sizeof(vms_half_t) == 104, "no hidden padding in vms_half_t");
_Static_assert(sizeof(vms_record_t) == 440, "no hidden padding in vms_record_t");
_Static_assert(sizeof(vms_bin_t) == 12, "no hidden padding in vms_bin_t");
_Static_assert(sizeof(vms_presence_t) == 48, "no hidden padding in vms_presence_t");
_Static_assert(sizeof(vms_notice_t) == 616, "no hidden padding in vms_notice_t");
_Static_assert(sizeof((vms_notice_t){0}.octets) == VMS_NOTICE_OCTETS, "room for as many");
_Static_assert(sizeof(vms_meta_t) == 16, "vms_meta_t is what pcapy-ng packs");
_Static_assert(sizeof((vms_counters_t){0}.fate) / sizeof(uint64_t) == VMS_FATES, "one counter a fate");
_Static_assert(sizeof((vms_record_t){0}.vlan) / sizeof(uint16_t) == VMS_VLAN_MAX, "room for every kept tag");

/* Packets of a source, in memory. */
struct batch {
    const uint8_t *data;
    uint64_t size;
    const vms_meta_t *meta;
    const uint32_t *wire;           /* octets of each before it was cut; NULL where the source can not tell */
    uint32_t tick_ns;
};

/* As vms_ingest. */
uint32_t ingest_batch(vms_table_t *table, const struct batch *batch, uint32_t first, uint32_t count);

/* So many packets of a source were stamped by the network card, and not by the system. */
void count_adapter_timestamps(vms_table_t *table, uint32_t packets);

#endif
