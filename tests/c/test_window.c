/* Windows: where they begin, what a roll hands out and clears, histograms, memory figures. */

#define _DEFAULT_SOURCE 1           /* mprotect */

#include <sys/mman.h>

#include "flow.h"
#include "memory.h"
#include "talk.h"

static void check_window(const struct tap *tap, int64_t start_ns, int64_t end_ns)
{
    int64_t start, end;
    vms_window(tap->table, &start, &end);
    CHECK_EQUAL(start, start_ns);
    CHECK_EQUAL(end, end_ns);
}

/* Windows begin at multiples of their length since the epoch, whenever the first packet comes. */
static void alignment(void)
{
    struct tap tap = tap_open();
    check_window(&tap, 0, 0);
    tap_udp(&tap, 1700000007 * SECOND + 5, 1, 1000, 2, 53);
    check_window(&tap, 1700000000 * SECOND, 1700000010 * SECOND);
    tap_udp(&tap, 1700000010 * SECOND - 1, 1, 1000, 2, 53);
    CHECK_EQUAL(tap.windows, 0);
    tap_udp(&tap, 1700000010 * SECOND, 1, 1000, 2, 53);
    CHECK_EQUAL(tap.windows, 1);
    CHECK_EQUAL(tap.rolled[0].c2s.packets, 2);
    check_window(&tap, 1700000010 * SECOND, 1700000020 * SECOND);
    tap_udp(&tap, 1700000095 * SECOND, 1, 1000, 2, 53);
    check_window(&tap, 1700000090 * SECOND, 1700000100 * SECOND);
    tap_close(&tap);
}

/* A packet of the next window stays uncounted until the roll, and the batch goes on behind it. */
static void ingest_stops_at_the_window(void)
{
    struct tap tap = tap_open();
    struct frame f = frame_payload(10);
    put_udp(&f, 1000, 53);
    put_ipv4(&f, 1, 2);
    put_ethernet(&f);
    uint32_t size = (uint32_t)frame_size(&f);
    const vms_meta_t meta[] = {{1, 0, 0, size}, {9, 999999999, 0, size}, {10, 0, 0, size}, {11, 0, 0, size}};
    CHECK_EQUAL(vms_ingest(tap.table, frame_bytes(&f), size, meta, 0, 4, 1), 2);
    CHECK_EQUAL(vms_ingest(tap.table, frame_bytes(&f), size, meta, 2, 4, 1), 2);
    CHECK_EQUAL(tap_counters(&tap).received, 2);
    tap_roll(&tap);
    CHECK_EQUAL(vms_ingest(tap.table, frame_bytes(&f), size, meta, 2, 4, 1), 4);
    tap.fed = 4;
    tap_close(&tap);
}

/* Ticks of the source: microseconds and nanoseconds give the same time. */
static void ticks(void)
{
    struct tap tap = tap_open();
    struct frame f = frame_payload(10);
    put_udp(&f, 1000, 53);
    put_ipv4(&f, 1, 2);
    put_ethernet(&f);
    const vms_meta_t meta = {5, 123456, 0, (uint32_t)frame_size(&f)};
    CHECK_EQUAL(vms_ingest(tap.table, frame_bytes(&f), frame_size(&f), &meta, 0, 1, 1000), 1);
    tap.fed = 1;
    CHECK_EQUAL(tap_only(&tap).start_ns, 5 * SECOND + 123456000);
    tap_close(&tap);
}

/* A roll hands out what happened since the last one and clears it; a silent flow is in no window. */
static void roll_clears(void)
{
    struct tap tap = connected();
    c2s(&tap, AT + 20 * MS, ISN + 1, ISN + 1, A, 100);
    s2c(&tap, AT + 28 * MS, ISN + 1, ISN + 101, A, 200);
    vms_record_t first = tap_only(&tap);
    CHECK_EQUAL(first.handshake_server_ns, 8 * MS);
    CHECK_EQUAL(first.response_count, 1);
    CHECK_EQUAL(first.c2s.rtt_count, 1);
    tap_roll(&tap);
    CHECK_EQUAL(tap.rolled_count, 0);
    CHECK_EQUAL(tap.bin_count, 0);
    c2s(&tap, AT + 30 * SECOND, ISN + 101, ISN + 201, A, 0);
    vms_record_t second = tap_only(&tap);
    CHECK_EQUAL(second.flow_id, first.flow_id);
    CHECK_EQUAL(second.flags & VMS_RECORD_NEW, 0);
    CHECK_EQUAL(second.handshake_server_ns, VMS_ABSENT);
    CHECK_EQUAL(second.c2s.packets, 1);
    CHECK_EQUAL(second.s2c.packets + second.response_count + second.c2s.rtt_count, 0);
    CHECK_EQUAL(second.c2s.retransmissions, 0);
    CHECK(second.flags & VMS_RECORD_SEEN_S2C);
    tap_close(&tap);
}

/* A flow that was silent in the window costs the roll nothing: meanwhile, no such flow can be read or written. */
static void silent_flows_cost_nothing(void)
{
    enum { FLOWS = 5000, ACTIVE = 10, LOCKED = 4900 };
    vms_options_t options = tap_options();
    options.max_flows = FLOWS;
    options.keep_finished = 0;
    struct tap tap = tap_with(options);
    struct pool *flows = &tap.table->flows;
    for (uint16_t i = 0; i < FLOWS; i++)
        tap_udp(&tap, SECOND + i * MS, 1, 1000 + i, 2, 53);
    tap_roll(&tap);
    CHECK_EQUAL(tap.rolled_count, FLOWS);
    for (uint16_t i = FLOWS - ACTIVE; i < FLOWS; i++)
        tap_udp(&tap, 11 * SECOND, 1, 1000 + i, 2, 53);
    size_t locked = LOCKED * sizeof(struct flow) / MEMORY_PAGE * MEMORY_PAGE;
    CHECK_EQUAL(mprotect(flows->objects, locked, PROT_NONE), 0);
    tap_roll(&tap);
    CHECK_EQUAL(mprotect(flows->objects, locked, PROT_READ | PROT_WRITE), 0);
    CHECK_EQUAL(tap.rolled_count, ACTIVE);
    tap_close(&tap);
}

/* A flow's windows add up to its life: every count, every sum; and its life keeps the handshake. */
static void windows_add_up_to_the_life(void)
{
    struct tap tap = connected();
    uint32_t next = ISN + 1;
    for (uint32_t i = 0; i < 50; i++) {
        int64_t at = AT + SECOND + i * SECOND;
        c2s(&tap, at, next, ISN + 1 + i * 10, A, 100);
        if (i % 5 == 0)
            c2s(&tap, at + 100 * MS, next, ISN + 1 + i * 10, A, 100);
        next += i % 7 ? 100 : 150;
        s2c(&tap, at + 108 * MS, ISN + 1 + i * 10, next, A, 10);
    }
    tap_finish(&tap);
    CHECK_EQUAL(tap.windows, 6);
    CHECK_EQUAL(tap.finished_count, 1);
    CHECK_EQUAL(memcmp(&tap.sum, &tap.life, sizeof tap.sum), 0);
    CHECK_EQUAL(tap.life.c2s.retransmissions, 10);
    CHECK_EQUAL(tap.life.c2s.unseen_bytes, 8 * 50);
    CHECK_EQUAL(tap.life.response_count, 50);
    CHECK_EQUAL(tap.finished[0].handshake_server_ns, 8 * MS);
    CHECK(tap.finished[0].c2s.rtt_min_ns <= tap.finished[0].c2s.rtt_max_ns);
    tap_close(&tap);
}

/* A late packet counts in the open window; beyond a minute, an earlier window is opened for it. */
static void time_steps_back(void)
{
    struct tap tap = tap_open();
    int64_t start = 1000 * SECOND;
    tap_udp(&tap, start + 5 * SECOND, 1, 1000, 2, 53);
    tap_udp(&tap, start + 4 * SECOND, 1, 1000, 2, 53);
    tap_udp(&tap, start - 60 * SECOND, 1, 1001, 2, 53);
    CHECK_EQUAL(tap.windows, 0);
    CHECK_EQUAL(tap_counters(&tap).time_backwards, 2);
    tap_udp(&tap, start - 60 * SECOND - 1, 1, 1002, 2, 53);
    CHECK_EQUAL(tap.windows, 1);
    check_window(&tap, start - 70 * SECOND, start - 60 * SECOND);
    CHECK_EQUAL(tap_counters(&tap).time_backwards, 2);
    vms_record_t r = tap.rolled[0];
    CHECK_EQUAL(r.start_ns, start + 4 * SECOND);
    CHECK_EQUAL(r.end_ns, start + 5 * SECOND);
    tap_close(&tap);
}

/* After the clock stepped back by hours, flows still end: idle ones of the new time, and those of the future. */
static void flows_of_the_future_end(void)
{
    struct tap tap = tap_open();
    tap_udp(&tap, 90000 * SECOND, 1, 1000, 2, 53);
    tap_udp(&tap, 1000 * SECOND, 1, 1001, 2, 53);
    for (int i = 1; i < 40; i++)
        tap_udp(&tap, (1000 + 10 * i) * SECOND, 3, 1000, 4, 53);
    tap_take_finished(&tap);
    CHECK_EQUAL(tap.finished_count, 2);
    tap_close(&tap);
}

static uint32_t samples_in_bins(const struct tap *tap, enum vms_histogram histogram)
{
    uint32_t samples = 0;
    for (uint32_t i = 0; i < tap->bin_count; i++)
        samples += tap->bins[i].histogram == histogram ? tap->bins[i].count : 0;
    return samples;
}

/* Every sample is in one bin of the right histogram, in the bucket that holds its value. */
static void bins_hold_the_samples(void)
{
    struct tap tap = connected();
    uint32_t next = ISN + 1;
    for (uint32_t i = 0; i < 60; i++) {
        c2s(&tap, AT + (20 + 100 * i) * MS, next, ISN + 1 + i, A, 100);
        s2c(&tap, AT + (21 + 101 * i) * MS, ISN + 1 + i, next += 100, A, 1);
    }
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(samples_in_bins(&tap, VMS_HISTOGRAM_RTT_C2S), r.c2s.rtt_count);
    CHECK_EQUAL(samples_in_bins(&tap, VMS_HISTOGRAM_RTT_S2C), r.s2c.rtt_count);
    CHECK_EQUAL(samples_in_bins(&tap, VMS_HISTOGRAM_RESPONSE), r.response_count);
    CHECK_EQUAL(r.c2s.rtt_count, 60);
    for (uint32_t i = 0; i < tap.bin_count; i++) {
        if (tap.bins[i].histogram != VMS_HISTOGRAM_RTT_C2S)
            continue;
        CHECK_EQUAL(tap.bins[i].record, 0);
        CHECK(vms_bucket_low_ns(tap.bins[i].bucket) <= r.c2s.rtt_max_ns);
        CHECK(vms_bucket_low_ns(tap.bins[i].bucket + 1u) > r.c2s.rtt_min_ns);
    }
    tap_close(&tap);
}

/* More equal samples than one bin counts make a second bin, and none is lost. */
static void a_full_bin(void)
{
    vms_options_t options = tap_options();
    options.window_ns = 3600 * SECOND;
    struct tap tap = tap_with(options);
    shake_hands(&tap, AT, ISN);
    for (uint32_t i = 0; i < 70000; i++) {
        c2s(&tap, AT + (20 + 10 * i) * MS, ISN + 1 + i, ISN + 1, A, 1);
        s2c(&tap, AT + (28 + 10 * i) * MS, ISN + 1, ISN + 2 + i, A, 0);
    }
    CHECK_EQUAL(tap_only(&tap).c2s.rtt_count, 70000);
    CHECK_EQUAL(samples_in_bins(&tap, VMS_HISTOGRAM_RTT_C2S), 70000);
    CHECK_EQUAL(tap.bin_count, 2);
    tap_close(&tap);
}

/* Latency samples that the table has no bins left for are told, never lost in silence. */
static void bins_run_out(void)
{
    vms_options_t options = tap_options();
    options.max_flows = 1;
    struct tap tap = tap_with(options);
    shake_hands(&tap, AT, ISN);
    for (uint32_t i = 0; i < 40; i++) {
        c2s(&tap, AT + (20 + 200 * i) * MS, ISN + 1 + i, ISN + 1, A, 1);
        s2c(&tap, AT + (20 + 200 * i) * MS + ((INT64_C(2) + i / 20) << i % 20), ISN + 1, ISN + 2 + i, A, 0);
    }
    vms_record_t r = tap_only(&tap);
    CHECK(tap_counters(&tap).samples_unbinned > 0);
    CHECK_EQUAL(samples_in_bins(&tap, VMS_HISTOGRAM_RTT_C2S) + tap_counters(&tap).samples_unbinned, r.c2s.rtt_count);
    tap_close(&tap);
}

/* Samples of a flow whose slot was needed by another in the same window are told as well. */
static void samples_of_folded_flows(void)
{
    vms_options_t options = tap_options();
    options.max_flows = 1;
    struct tap tap = tap_with(options);
    shake_hands(&tap, AT, ISN);
    c2s(&tap, AT + 20 * MS, ISN + 1, ISN + 1, A, 1);
    s2c(&tap, AT + 28 * MS, ISN + 1, ISN + 2, A, 0);
    c2s(&tap, AT + 30 * MS, ISN + 2, ISN + 1, R, 0);
    tap_udp(&tap, AT + 40 * MS, 8, 1000, 9, 53);
    tap_roll(&tap);
    CHECK_EQUAL(tap_counters(&tap).records_folded, 1);
    uint32_t samples = 0, binned = 0;
    for (uint32_t i = 0; i < tap.rolled_count; i++)
        samples += tap.rolled[i].c2s.rtt_count;
    for (uint32_t i = 0; i < tap.bin_count; i++)
        binned += tap.bins[i].count;
    CHECK_EQUAL(samples, 1);
    CHECK_EQUAL(binned + tap_counters(&tap).samples_unbinned, samples);
    tap_close(&tap);
}

static void many_flows(struct tap *tap)
{
    for (uint16_t i = 0; i < 20; i++) {
        tap_udp(tap, AT + i * MS, 8, 1000 + i, 9, 53);
        tap_udp(tap, AT + (30 + i) * MS, 9, 53, 8, 1000 + i);
    }
    shake_hands(tap, AT + 100 * MS, ISN);
}

/* A window that is copied out a few records at a time is the window that it would have been in one, and closed only with
   the last of them. */
static void rolled_in_pieces(void)
{
    vms_record_t records[4];
    vms_bin_t bins[64];
    struct tap whole = tap_open(), pieces = tap_open();
    many_flows(&whole);
    many_flows(&pieces);
    tap_roll(&whole);
    uint32_t left = 1, unused, seen = 0, written, bin_count, binned = 0;
    while (left) {
        written = vms_roll(pieces.table, records, 4, bins, 64, &bin_count);
        CHECK(memcmp(records, whole.rolled + seen, written * sizeof *records) == 0);
        for (uint32_t i = 0; i < written; i++)
            tap_add(&pieces.sum, &records[i]);
        for (uint32_t i = 0; i < bin_count; i++)
            CHECK_EQUAL(bins[i].record + seen, whole.bins[binned + i].record);
        seen += written;
        binned += bin_count;
        vms_pending(pieces.table, &left, &unused);
        CHECK_EQUAL(left, whole.rolled_count - seen);
    }
    CHECK_EQUAL(binned, whole.bin_count);
    tap_udp(&pieces, AT + 10 * SECOND, 8, 1000, 9, 53);     /* the next window is open, and whole */
    tap_roll(&pieces);
    CHECK_EQUAL(pieces.rolled_count, 1);
    tap_close(&whole);
    tap_close(&pieces);
}

static uint32_t cards_heard(struct tap *tap, vms_presence_t cards[4])
{
    memset(cards, 0, 4 * sizeof *cards);
    return vms_take_presence(tap->table, cards, 4);
}

/* A window that is dropped leaves what one leaves that is looked at: of the next one, all is the same. */
static void dropped_like_rolled(void)
{
    struct tap rolled = tap_open(), dropped = tap_open();
    vms_presence_t cards[2][4];
    many_flows(&rolled);
    many_flows(&dropped);
    CHECK(cards_heard(&rolled, cards[0]) > 0);
    tap_roll(&rolled);
    vms_drop_window(dropped.table);
    dropped.sum = rolled.sum;                           /* nobody saw it, but it was the same */
    check_window(&dropped, 0, 0);
    CHECK_EQUAL(vms_presence_count(dropped.table), 0);
    struct tap *both[] = {&rolled, &dropped};
    for (int i = 0; i < 2; i++) {
        tap_udp(both[i], AT + 10 * SECOND, 8, 1000, 9, 53);
        c2s(both[i], AT + 10 * SECOND, ISN + 1, ISN + 1, A, 100);
        s2c(both[i], AT + 11 * SECOND, ISN + 1, ISN + 101, A, 200);
        CHECK(cards_heard(both[i], cards[i]) > 0);
        tap_roll(both[i]);
    }
    CHECK_EQUAL(dropped.rolled_count, 2);
    CHECK(memcmp(cards[0], cards[1], sizeof cards[0]) == 0);
    CHECK_EQUAL(dropped.bin_count, rolled.bin_count);
    CHECK(memcmp(dropped.bins, rolled.bins, rolled.bin_count * sizeof *rolled.bins) == 0);
    CHECK_EQUAL(dropped.rolled_count, rolled.rolled_count);
    CHECK(memcmp(dropped.rolled, rolled.rolled, rolled.rolled_count * sizeof *rolled.rolled) == 0);
    tap_close(&rolled);
    tap_close(&dropped);
}

/* Buckets ascend without a gap, and the middle of each is at most 1/32 from any value in it. */
static void buckets(void)
{
    for (uint32_t b = 0; b + 1 < VMS_BUCKETS; b++) {
        uint64_t low = vms_bucket_low_ns(b), next = vms_bucket_low_ns(b + 1);
        CHECK(low < next);
        CHECK((next - low - 1) * 16 <= low);
    }
    CHECK(vms_bucket_low_ns(VMS_BUCKETS - 1) > 3600ull * 1000000000);
}

/* A flow takes 368 octets; with all that is kept apart, at its worst, with 64 holes both ways, about 6,100. */
static void memory_of_a_flow(void)
{
    vms_options_t options = tap_options();
    options.max_flows = 1000000;
    vms_table_t *table = vms_open(&options);
    vms_memory_t m;
    vms_get_memory(table, &m);
    printf("bytes: flow %" PRIu64 ", scoreboard %" PRIu64 ", hole %" PRIu64 ", transits %" PRIu64 ", tunnel %" PRIu64
           ", totals %" PRIu64 ", at worst %" PRIu64 " a flow, 14 bins %" PRIu64 "\n", m.flow, m.scoreboard, m.hole,
           m.transits, m.tunnel, m.totals, m.worst_flow, m.bins);
    CHECK(m.flow <= 368);
    CHECK(m.worst_flow <= 6144);
    CHECK_EQUAL(m.worst_flow, m.flow + 2 * (m.scoreboard + 64 * m.hole) + m.transits + m.tunnel + m.totals);
    CHECK_EQUAL(m.flows_in_use, 0);
    vms_close(table);
}

int main(void)
{
    alignment();
    ingest_stops_at_the_window();
    ticks();
    roll_clears();
    silent_flows_cost_nothing();
    windows_add_up_to_the_life();
    time_steps_back();
    flows_of_the_future_end();
    bins_hold_the_samples();
    a_full_bin();
    bins_run_out();
    samples_of_folded_flows();
    rolled_in_pieces();
    dropped_like_rolled();
    buckets();
    memory_of_a_flow();
    return check_summary("test_window");
}
