/* Counts a capture file through native/ alone, as `vmsensor read` does: for a profiler, and to count instructions. */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vms.h"

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

int main(int count, char **words)
{
    vms_options_t options = {
        .secret = "a fixed secret.", .max_flows = 1000000, .window_ns = INT64_C(10000000000),
        .idle_timeout_ns = INT64_C(60000000000), .tcp_idle_timeout_ns = INT64_C(300000000000),
        .active_timeout_ns = INT64_C(1800000000000), .duplicate_horizon_ns = 10000000, .link_type = 1, .vlan_in_key = 1,
    };
    int fd = count == 2 ? open(words[1], O_RDONLY) : -1;
    vms_file_t *file = fd >= 0 ? vms_file_open(fd) : NULL;
    vms_table_t *table = vms_open(&options);
    if (!file || !table) {
        fprintf(stderr, "usage: count_file FILE, a classic pcap\n");
        return 2;
    }
    enum vms_file_state state;
    while ((state = vms_file_poll(file, table)) == VMS_FILE_MORE || state == VMS_FILE_HELD)
        if (state == VMS_FILE_HELD)
            roll_window(table);
    while (vms_finish(table))
        ;
    roll_window(table);
    printf("%" PRIu64 " packets\n", vms_file_packets(file));
    vms_close(table);
    vms_file_close(file);
    close(fd);
    return state == VMS_FILE_END ? 0 : 1;
}
