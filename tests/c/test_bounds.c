/* A table that is too small, and a long life: memory stays what it is, and no packet is lost from the sums. */

#include "talk.h"

static struct tap tap_of_size(uint64_t max_flows)
{
    vms_options_t options = tap_options();
    options.max_flows = max_flows;
    return tap_with(options);
}

/* The record of the flow with this id in the last window, NULL if there is none. */
static const vms_record_t *rolled_flow(const struct tap *tap, uint64_t id)
{
    for (uint32_t i = 0; i < tap->rolled_count; i++)
        if (tap->rolled[i].flow_id == id && !(tap->rolled[i].flags & VMS_RECORD_OVERFLOW))
            return &tap->rolled[i];
    return NULL;
}

/* A flood of one-packet flows ten times the size of the table evicts itself; a busy connection keeps id and metrics. */
static void flood(void)
{
    struct tap tap = tap_of_size(100);
    shake_hands(&tap, AT, ISN);
    uint32_t next = ISN + 1;
    for (int window = 0; window < 5; window++) {
        int64_t at = AT + window * 10 * SECOND + SECOND;
        for (uint16_t i = 0; i < 1000; i++) {
            tap_udp(&tap, at + i * MS, (uint16_t)(100 + i), (uint16_t)(1000 + window), 7, 53);
            if (i % 100)
                continue;
            c2s(&tap, at + i * MS, next, ISN + 1, A, 100);
            s2c(&tap, at + (i + 8) * MS, ISN + 1, next += 100, A, 0);
        }
        tap_roll(&tap);
        const vms_record_t *busy = rolled_flow(&tap, 1);
        if (!CHECK(busy != NULL))
            continue;
        CHECK_EQUAL(busy->c2s.data_packets, 10);
        CHECK_EQUAL(busy->c2s.rtt_count, 10);
        CHECK_EQUAL(busy->c2s.retransmissions + busy->c2s.unseen_bytes, 0);
    }
    CHECK_EQUAL(tap_counters(&tap).flows_started, 5001);
    CHECK(tap_counters(&tap).flows_evicted >= 4900);
    CHECK(tap_counters(&tap).records_folded > 0);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_OVERFLOW), 0);
    tap_close(&tap);
}

/* In every single window of a flood the records hold exactly the packets that were fed in it. */
static void sums_of_each_window(void)
{
    struct tap tap = tap_of_size(10);
    uint32_t before = 0;
    for (int window = 0; window < 20; window++) {
        for (uint16_t i = 0; i < 100; i++)
            tap_udp(&tap, AT + window * 10 * SECOND, i % 37, 1000, 500, (uint16_t)(window % 3));
        tap_roll(&tap);
        CHECK_EQUAL(tap.sum.c2s.packets - before, 100);
        before = tap.sum.c2s.packets;
    }
    tap_close(&tap);
}

/* When every flow is busy, new ones share the overflow entry; ten seconds of silence make a flow spare again. */
static void overflow_entry(void)
{
    struct tap tap = tap_of_size(4);
    for (uint16_t i = 1; i <= 4; i++) {
        tap_udp(&tap, AT, i, 1000, 100, 53);
        tap_udp(&tap, AT, 100, 53, i, 1000);
    }
    for (uint16_t i = 0; i < 5; i++)
        tap_udp(&tap, AT + SECOND, (uint16_t)(50 + i), 1000, 100, 53);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_OVERFLOW), 5);
    CHECK_EQUAL(tap_counters(&tap).flows_evicted, 0);
    tap_roll(&tap);
    CHECK_EQUAL(tap.rolled_count, 5);
    const vms_record_t *last = &tap.rolled[tap.rolled_count - 1];
    CHECK_EQUAL(last->flags, VMS_RECORD_OVERFLOW);
    CHECK_EQUAL(last->c2s.packets, 5);
    CHECK_EQUAL(last->c2s.bytes, 5 * 38);
    CHECK_EQUAL(last->handshake_server_ns, VMS_ABSENT);
    tap_udp(&tap, AT + 10 * SECOND - 1, 60, 1000, 100, 53);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_OVERFLOW), 6);
    tap_udp(&tap, AT + 10 * SECOND, 60, 1000, 100, 53);
    CHECK_EQUAL(tap_fate(&tap, VMS_FATE_OVERFLOW), 6);
    CHECK_EQUAL(tap_counters(&tap).flows_evicted, 1);
    tap_close(&tap);
}

/* A batch that ends more flows than the ring of finished ones holds stops in time, goes on, and loses none. */
static void finished_ring(void)
{
    enum { COUNT = 30000 };
    struct tap tap = tap_of_size(50);
    struct frame f = frame_payload(10);
    put_udp(&f, 1000, 53);
    put_ipv4(&f, 1, 2);
    put_ethernet(&f);
    size_t size = frame_size(&f);
    uint8_t *data = malloc(COUNT * size);
    vms_meta_t *meta = malloc(COUNT * sizeof *meta);
    for (uint32_t i = 0; i < COUNT; i++) {
        memcpy(data + i * size, frame_bytes(&f), size);
        write16(data + i * size + 14 + 20, i);                  /* the source port */
        meta[i] = (vms_meta_t){1, 0, (uint32_t)(i * size), (uint32_t)size};
    }
    uint32_t done = 0, stops = 0;
    for (; done < COUNT && stops < COUNT; stops++) {
        done = vms_ingest(tap.table, data, COUNT * size, meta, done, COUNT, 1);
        tap_take_finished(&tap);
    }
    CHECK_EQUAL(done, COUNT);
    CHECK(stops > 1);
    tap.fed = COUNT;
    tap_finish(&tap);
    CHECK_EQUAL(tap.finished_count, tap_counters(&tap).flows_started);
    tap_close(&tap);
    free(data);
    free(meta);
}

/* vms_finish too stops at a full ring, says how many flows are left, and goes on when they have been taken. */
static void finish_beyond_the_ring(void)
{
    struct tap tap = tap_of_size(20000);
    for (uint32_t i = 0; i < 20000; i++)
        tap_udp(&tap, AT, (uint16_t)i, 1000, 65535, 53);
    uint64_t left = vms_finish(tap.table);
    CHECK(left > 0 && left < 20000);
    CHECK_EQUAL(vms_finish(tap.table), left);
    tap_finish(&tap);
    CHECK_EQUAL(tap.finished_count, 20000);
    tap_close(&tap);
}

/* xorshift32 */
static uint32_t random_word(void)
{
    static uint32_t state = 2463534242u;
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

/* A million packets of flows that come, lose segments, close, are reused and evicted: the memory does not grow. */
static void a_long_life(void)
{
    vms_options_t options = tap_options();
    options.max_flows = 64;
    options.duplicate_horizon_ns = 10 * MS;
    struct tap tap = tap_with(options);
    vms_memory_t early = {0}, late;
    for (uint32_t i = 0; i < 1000000; i++) {
        static const uint8_t flags[] = {S, SA, A, A, A, A, F, R};
        uint32_t r = random_word();
        struct frame f = frame_payload(r & 1 ? 10 : 0);
        put_tcp(&f, (struct tcp_fields){.sport = (uint16_t)(1000 + (r >> 1 & 127)), .dport = 80, .window = r >> 23 & 3,
                                        .seq = (r >> 8 & 63) * 10, .ack = (r >> 14 & 63) * 10,
                                        .flags = flags[r >> 20 & 7]});
        write16(put_ipv4(&f, r & 1 << 25 ? 1 : 2, r & 1 << 25 ? 2 : 1) + 4, r >> 26);
        put_ethernet(&f);
        if (r >> 24 & 1) {
            put_vxlan(&f, r >> 30);
            put_ipv4(&f, 0x101, 0x102);
            put_ethernet(&f);
        }
        for (int copies = i % 100 == 0; copies >= 0; copies--)
            tap_feed(&tap, AT + i * (MS / 10), &f);
        if (i == 200000)
            vms_get_memory(tap.table, &early);
    }
    vms_get_memory(tap.table, &late);
    CHECK_EQUAL(late.resident, early.resident);
    CHECK(late.flows_in_use <= 64);
    CHECK_EQUAL(tap_counters(&tap).scoreboards_missing, 0);
    CHECK(tap_counters(&tap).flows_started > 10000);
    CHECK(tap_fate(&tap, VMS_FATE_MIRROR_DUPLICATE) >= 10000);
    tap_close(&tap);
}

/* Tunnelled flows beyond the size of the table, one after the other: each has its outer addresses. */
static void tunnels_are_given_back(void)
{
    struct tap tap = tap_of_size(4);
    for (uint16_t i = 0; i < 100; i++) {
        struct frame f = frame_payload(10);
        put_udp(&f, i, 53);
        put_ipv4(&f, 1, 2);
        put_ethernet(&f);
        put_vxlan(&f, 5);
        put_ipv4(&f, 0x101, 0x102);
        put_ethernet(&f);
        tap_feed(&tap, AT, &f);
    }
    tap_roll(&tap);
    uint32_t tunnelled = 0;
    for (uint32_t i = 0; i < tap.rolled_count; i++)
        tunnelled += tap.rolled[i].tunnel == VMS_TUNNEL_VXLAN;
    CHECK_EQUAL(tunnelled, 4);
    tap_close(&tap);
}

/* A table of no flows, or of more than can be numbered, is refused. */
static void impossible_sizes(void)
{
    static const uint64_t sizes[] = {0, VMS_FLOWS_MOST + 1ull, UINT64_MAX};
    for (int i = 0; i < 3; i++) {
        vms_options_t options = tap_options();
        options.max_flows = sizes[i];
        CHECK(vms_open(&options) == NULL);
    }
    vms_close(NULL);
}

int main(void)
{
    flood();
    sums_of_each_window();
    overflow_entry();
    finished_ring();
    finish_beyond_the_ring();
    a_long_life();
    tunnels_are_given_back();
    impossible_sizes();
    return check_summary("test_bounds");
}
