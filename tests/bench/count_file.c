/* Counts a capture file through native/ alone, as `vmsensor read` does: for a profiler, and to count instructions. */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "count.h"

int main(int count, char **words)
{
    int fd = count == 2 ? open(words[1], O_RDONLY) : -1;
    vms_file_t *file = fd >= 0 ? vms_file_open(fd) : NULL;
    vms_table_t *table = open_table(1000000);
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
