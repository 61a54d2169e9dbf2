/*
 * What the flows of a capture file take, counted by what is in use at the moment at which that is most.
 *
 * usage: footprint FILE, a classic pcap
 */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "count.h"
#include "flow.h"

/* Of the flows that are held, of the open window, and of the table whatever is in it. */
enum {
    FLOW, INDEX, LISTED, BOARDS, FLIGHTS, LOSSES, HOLES, TROUBLE, TRANSITS, ADDRESSES, OF_FLOWS,
    BINS = OF_FLOWS, COPIES, PARTS
};

static const char *const names[PARTS] = {
    [FLOW] = "both directions and their RTTs", [INDEX] = "index", [LISTED] = "the window's list",
    [BOARDS] = "scoreboards", [FLIGHTS] = "long flights", [LOSSES] = "resends, lists of holes", [HOLES] = "holes",
    [TROUBLE] = "trouble", [TRANSITS] = "transits", [ADDRESSES] = "IPv6 addresses, tunnels",
    [BINS] = "the window's histograms", [COPIES] = "memory of mirror duplicates",
};

struct stock {
    uint32_t flows;
    uint64_t octets[PARTS];
};

static uint64_t in_use(const struct pool *pool)
{
    return (uint64_t)pool->in_use * pool->object_size;
}

static struct stock take_stock(const struct vms_table *t)
{
    return (struct stock){t->flows.in_use, {
        [FLOW] = in_use(&t->flows), [INDEX] = (uint64_t)t->bucket_count * sizeof *t->buckets,
        [LISTED] = (uint64_t)t->listed_count * sizeof *t->listed, [BOARDS] = in_use(&t->boards),
        [FLIGHTS] = in_use(&t->flights), [LOSSES] = in_use(&t->losses), [HOLES] = in_use(&t->holes),
        [TROUBLE] = in_use(&t->troubles), [TRANSITS] = in_use(&t->transits),
        [ADDRESSES] = in_use(&t->addresses) + in_use(&t->tunnels), [BINS] = in_use(&t->bins),
        [COPIES] = DUPLICATE_SETS * sizeof *t->duplicates.sets,
    }};
}

static uint64_t sum(const struct stock *stock, int parts)
{
    uint64_t octets = 0;
    for (int i = 0; i < parts; i++)
        octets += stock->octets[i];
    return octets;
}

static void print_stock(const struct stock *stock)
{
    printf("%u flows at a time, octets a flow:\n", stock->flows);
    for (int i = 0; i < PARTS; i++) {
        if (i == OF_FLOWS)
            printf("  %-32s %7.1f\n", "all that a flow has", (double)sum(stock, OF_FLOWS) / stock->flows);
        printf("  %-32s %7.1f\n", names[i], (double)stock->octets[i] / stock->flows);
    }
    printf("  %-32s %7.1f\n", "all", (double)sum(stock, PARTS) / stock->flows);
}

int main(int count, char **words)
{
    int fd = count == 2 ? open(words[1], O_RDONLY) : -1;
    vms_file_t *file = fd >= 0 ? vms_file_open(fd) : NULL;
    vms_table_t *table = open_table(4000000);
    if (!file || !table) {
        fprintf(stderr, "usage: footprint FILE, a classic pcap\n");
        return 2;
    }
    struct stock most = {.flows = 1};
    enum vms_file_state state;
    while ((state = vms_file_poll(file, table)) == VMS_FILE_MORE || state == VMS_FILE_HELD) {
        struct stock now = take_stock(table);
        if (sum(&now, PARTS) > sum(&most, PARTS))
            most = now;
        if (state == VMS_FILE_HELD)
            roll_window(table);
    }
    print_stock(&most);
    vms_close(table);
    vms_file_close(file);
    close(fd);
    return state == VMS_FILE_END ? 0 : 1;
}
