/* RTT samples: which segments give one, and how long it is. */

#include "flow.h"
#include "talk.h"

/* Each direction's RTT is from the tap to that direction's receiver and back, several segments in flight at a time. */
static void rtt_of_both_directions(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    data(&tap, 21, 100);
    data(&tap, 22, 200);
    ack(&tap, 27, 100);
    ack(&tap, 29, 200);
    ack(&tap, 31, 300);
    s2c(&tap, AT + 40 * MS, X, X + 300, A, 500);
    c2s(&tap, AT + 42 * MS, X + 300, X + 500, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.rtt_count, 3);
    CHECK_EQUAL(r.c2s.rtt_sum_ns, (7 + 8 + 9) * MS);
    CHECK_EQUAL(r.c2s.rtt_min_ns, 7 * MS);
    CHECK_EQUAL(r.c2s.rtt_max_ns, 9 * MS);
    CHECK_EQUAL(r.s2c.rtt_count, 1);
    CHECK_EQUAL(r.s2c.rtt_sum_ns, 2 * MS);
    CHECK_EQUAL(r.c2s.retransmissions + r.s2c.retransmissions, 0);
    tap_close(&tap);
}

/* A delayed ACK is matched with the segment that it ends at, one in the middle of a segment with none before it. */
static void rtt_needs_an_exact_match(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    data(&tap, 25, 100);
    ack(&tap, 33, 200);
    data(&tap, 40, 200);
    data(&tap, 41, 300);
    ack(&tap, 48, 350);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.rtt_count, 1);
    CHECK_EQUAL(r.c2s.rtt_sum_ns, 8 * MS);
    tap_close(&tap);
}

/* More segments in flight than are remembered still give samples at both ends of the flight, each of them true. */
static void rtt_of_a_long_flight(void)
{
    struct tap tap = connected();
    for (uint32_t i = 0; i < 100; i++)
        data(&tap, 20 + i, 100 * i);
    for (uint32_t i = 0; i < 100; i++)
        ack(&tap, 220 + i, 100 * (i + 1));
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.rtt_count, 32);
    CHECK_EQUAL(r.c2s.rtt_min_ns, 200 * MS);
    CHECK_EQUAL(r.c2s.rtt_max_ns, 200 * MS);
    tap_close(&tap);
}

/* A flight takes the room of a long one only while it is long; on the way there and back no sample is lost. */
static void a_flight_that_gets_short(void)
{
    struct tap tap = connected();
    const struct vms_table *t = tap.table;
    for (uint32_t turn = 0; turn < 3; turn++) {
        uint32_t start = turn * 600;
        int64_t ms = 20 + turn * 100;
        for (uint32_t i = 0; i < 6; i++) {
            data(&tap, ms + i, start + 100 * i);
            CHECK_EQUAL(t->flights.in_use, i >= 2);
        }
        for (uint32_t i = 0; i < 6; i++) {
            ack(&tap, ms + 10 + 2 * i, start + 100 * (i + 1));
            CHECK_EQUAL(t->flights.in_use, i < 3);
        }
    }
    CHECK_EQUAL(t->flights.made, 1);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.rtt_count, 3 * 6);
    CHECK_EQUAL(r.c2s.rtt_sum_ns, 3 * (10 + 11 + 12 + 13 + 14 + 15) * MS);
    tap_close(&tap);
}

/* Karn's rule: neither the resent segment nor those in flight behind it give a sample; those before it do. */
static void karn(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    data(&tap, 21, 100);
    data(&tap, 22, 200);
    data(&tap, 100, 100);
    ack(&tap, 101, 100);
    ack(&tap, 108, 300);
    data(&tap, 120, 300);
    ack(&tap, 128, 400);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.rtt_count, 2);
    CHECK_EQUAL(r.c2s.rtt_sum_ns, (81 + 8) * MS);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    tap_close(&tap);
}

/* Bytes that the receiver reports by SACK waited for a hole, and so did their ACK: no sample. */
static void sacked_bytes_give_no_sample(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    data(&tap, 21, 100);
    sack(&tap, 29, 0, 100, 200);
    ack(&tap, 90, 200);
    CHECK_EQUAL(tap_only(&tap).c2s.rtt_count, 0);
    tap_close(&tap);
}

/* An ACK older than its segment, as two queues may deliver them, gives no negative time. */
static void ack_before_its_data(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    ack(&tap, 19, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.rtt_count, 0);
    CHECK_EQUAL(tap_counters(&tap).time_backwards, 1);
    tap_close(&tap);
}

int main(void)
{
    rtt_of_both_directions();
    rtt_needs_an_exact_match();
    rtt_of_a_long_flight();
    a_flight_that_gets_short();
    karn();
    sacked_bytes_give_no_sample();
    ack_before_its_data();
    return check_summary("test_rtt");
}
