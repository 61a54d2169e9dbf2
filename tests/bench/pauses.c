/*
 * How long the table makes a packet wait while it grows: new flows, one call for each packet, each call timed.
 *
 * usage: pauses FLOWS
 *
 * Each flow begins with a SYN; then, flow by flow, comes a segment that waits for its ACK. A call's wall-clock time
 * holds whatever else ran on the core: hence the processor's time beside it, and the page faults of the longest calls.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "bytes.h"
#include "vms.h"

#define OCTETS 64
#define STEPS 40                    /* of the histogram, each twice as long as the one before */
#define MS INT64_C(1000000)
#define SECOND (1000 * MS)

struct call {
    int64_t wall_ns, cpu_ns;
    long faults;
    uint64_t number;
};

struct pauses {
    uint64_t calls, wall_at_least[STEPS], cpu_at_least[STEPS];
    struct call by_wall, by_cpu, by_fault;          /* the longest ones; of the last, by the processor's time */
};

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static struct call begin(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (struct call){.faults = usage.ru_minflt, .cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID),
                         .wall_ns = clock_ns(CLOCK_MONOTONIC)};
}

static void end(struct pauses *p, struct call call)
{
    struct rusage usage;
    call.wall_ns = clock_ns(CLOCK_MONOTONIC) - call.wall_ns;
    call.cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - call.cpu_ns;
    getrusage(RUSAGE_SELF, &usage);
    call.faults = usage.ru_minflt - call.faults;
    call.number = p->calls++;
    if (call.wall_ns > p->by_wall.wall_ns)
        p->by_wall = call;
    if (call.cpu_ns > p->by_cpu.cpu_ns)
        p->by_cpu = call;
    if (call.faults && call.cpu_ns > p->by_fault.cpu_ns)
        p->by_fault = call;
    for (int step = 0; step < STEPS; step++) {
        p->wall_at_least[step] += call.wall_ns >> step > 0;
        p->cpu_at_least[step] += call.cpu_ns >> step > 0;
    }
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

/* A segment of flow i from its client, 10.x.x.x, to 192.168.0.1 port 80: with ten octets of payload if it is no SYN. */
static uint32_t segment(uint8_t *frame, uint32_t i, bool syn)
{
    uint32_t payload = syn ? 0 : 10;
    memset(frame, 0, OCTETS);
    frame[5] = 2;
    frame[11] = 1;
    put16(frame + 12, 0x0800);
    frame[14] = 0x45;
    put16(frame + 16, 40 + payload);
    put16(frame + 18, i ^ (syn ? 0 : 0x8000));
    frame[22] = 64;
    frame[23] = 6;
    put32(frame + 26, 10u << 24 | i >> 4);
    put32(frame + 30, 192u << 24 | 168u << 16 | 1);
    put16(frame + 34, 40000 + (i & 15));
    put16(frame + 36, 80);
    put32(frame + 38, 1000 + !syn);
    frame[46] = 0x50;
    frame[47] = syn ? 2 : 0x10;
    put16(frame + 48, 1000);
    return 54 + payload;
}

static void feed(vms_table_t *table, struct pauses *p, uint32_t i, bool syn)
{
    uint8_t frame[OCTETS];
    uint32_t size = segment(frame, i, syn);
    int64_t at_ns = SECOND + (int64_t)p->calls * 100;
    vms_meta_t meta = {(uint32_t)(at_ns / SECOND), (uint32_t)(at_ns % SECOND), 0, size};
    struct call call = begin();
    if (!vms_ingest(table, frame, size, &meta, 0, 1, 1))
        exit(1);
    end(p, call);
}

static void print_call(const char *what, const struct call *call)
{
    printf("  longest %-20s %9.3f ms wall-clock, %8.3f ms of the processor, %ld page faults, packet %" PRIu64 "\n",
           what, (double)call->wall_ns / MS, (double)call->cpu_ns / MS, call->faults, call->number);
}

static void print_pauses(const char *name, const struct pauses *p)
{
    printf("%s: %" PRIu64 " calls\n", name, p->calls);
    print_call("by wall clock", &p->by_wall);
    print_call("by processor's time", &p->by_cpu);
    print_call("with page faults", &p->by_fault);
    printf("  calls of so many ms or longer   wall clock  processor\n");
    for (int step = 16; step < STEPS && p->wall_at_least[step]; step++)
        printf("  %29.2f %12" PRIu64 " %10" PRIu64 "\n", (double)(1ull << step) / MS, p->wall_at_least[step],
               p->cpu_at_least[step]);
}

int main(int count, char **words)
{
    uint64_t flows = count == 2 ? strtoull(words[1], NULL, 10) : 0;
    if (!flows || flows > 1u << 24) {
        fprintf(stderr, "usage: pauses FLOWS, at most 16777216\n");
        return 2;
    }
    vms_options_t options = {
        .secret = "a fixed secret.", .max_flows = flows, .window_ns = 3600 * SECOND, .idle_timeout_ns = 600 * SECOND,
        .tcp_idle_timeout_ns = 600 * SECOND, .active_timeout_ns = 1800 * SECOND, .duplicate_horizon_ns = 10 * MS,
        .link_type = 1, .vlan_in_key = 1,
    };
    vms_table_t *table = vms_open(&options);
    if (!table)
        return 1;
    struct pauses syns = {0}, segments = {0};
    for (uint32_t i = 0; i < flows; i++)
        feed(table, &syns, i, true);
    segments.calls = 0;
    for (uint32_t i = 0; i < flows; i++)
        feed(table, &segments, i, false);
    print_pauses("A new flow", &syns);
    print_pauses("Its first scoreboard", &segments);
    vms_close(table);
    return 0;
}
