/* What the programs that count a capture through native/ alone have in common: a table as `vmsensor read` has it. */
#ifndef BENCH_COUNT_H
#define BENCH_COUNT_H

#include <stdlib.h>

#include "vms.h"

static vms_table_t *open_table(uint64_t max_flows)
{
    vms_options_t options = {
        .secret = "a fixed secret.", .max_flows = max_flows, .window_ns = INT64_C(10000000000),
        .idle_timeout_ns = INT64_C(60000000000), .tcp_idle_timeout_ns = INT64_C(300000000000),
        .active_timeout_ns = INT64_C(1800000000000), .duplicate_horizon_ns = 10000000, .link_type = 1, .vlan_in_key = 1,
    };
    return vms_open(&options);
}

/* Copies the window out and drops it. */
static void roll_window(vms_table_t *table)
{
    uint32_t records, bins, written;
    vms_pending(table, &records, &bins);
    vms_record_t *record = malloc((records + 1) * sizeof *record);
    vms_bin_t *bin = malloc((bins + 1) * sizeof *bin);
    if (!record || !bin)
        exit(1);
    vms_roll(table, record, records, bin, bins, &written);
    free(record);
    free(bin);
}

#endif
