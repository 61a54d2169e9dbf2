/* The flow table: what is one flow, and when it ends. */

#include "talk.h"

/* Both directions are one entry, whichever endpoint is lower and whichever spoke first. */
static void both_directions(void)
{
    struct tap tap = tap_open();
    tap_udp(&tap, SECOND, 9, 4000, 3, 53);
    tap_udp(&tap, SECOND + MS, 3, 53, 9, 4000);
    tap_udp(&tap, SECOND + 2 * MS, 9, 4000, 3, 53);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.client_ip[3], 9);
    CHECK_EQUAL(r.client_port, 4000);
    CHECK_EQUAL(r.c2s.packets, 2);
    CHECK_EQUAL(r.s2c.packets, 1);
    CHECK_EQUAL(r.c2s.bytes, 76);
    CHECK_EQUAL(r.start_ns, SECOND);
    CHECK_EQUAL(r.end_ns, SECOND + 2 * MS);
    CHECK(r.flags & VMS_RECORD_NEW);
    CHECK_EQUAL(r.response_sum_ns, MS);
    tap_close(&tap);
}

/* Also between two ports of one address. */
static void one_address(void)
{
    struct tap tap = tap_open();
    tap_udp(&tap, SECOND, 9, 4000, 9, 53);
    tap_udp(&tap, SECOND, 9, 53, 9, 4000);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.packets, 1);
    CHECK_EQUAL(r.s2c.packets, 1);
    tap_close(&tap);
}

static void feed_in_domain(struct tap *tap, uint16_t vlan, uint16_t second_vlan, uint32_t vni)
{
    struct frame f = frame_payload(10);
    put_udp(&f, 1000, 53);
    put_ipv4(&f, 1, 2);
    if (second_vlan)
        put_vlan(&f, second_vlan);
    if (vlan)
        put_vlan(&f, vlan);
    put_ethernet(&f);
    if (vni) {
        put_vxlan(&f, vni);
        put_ipv4(&f, 0x101, 0x102);
        put_vlan(&f, (uint16_t)(vni + 1));          /* of the underlay: no part of the key */
        put_ethernet(&f);
    }
    tap_feed(tap, SECOND, &f);
}

static uint32_t flows_of_seven_domains(uint8_t vlan_in_key)
{
    vms_options_t options = tap_options();
    options.vlan_in_key = vlan_in_key;
    struct tap tap = tap_with(options);
    static const uint16_t domains[][3] = {{0, 0, 0}, {1, 0, 0}, {2, 0, 0}, {1, 2, 0}, {0, 0, 5}, {0, 0, 6}, {1, 0, 6}};
    for (int i = 0; i < 14; i++)
        feed_in_domain(&tap, domains[i % 7][0], domains[i % 7][1], domains[i % 7][2]);
    tap_roll(&tap);
    uint32_t flows = tap.rolled_count;
    tap_close(&tap);
    return flows;
}

/* The same five-tuple in another VLAN, inner VLAN or VNI is another flow; without VLANs in the key, only the VNI is. */
static void domains(void)
{
    CHECK_EQUAL(flows_of_seven_domains(1), 7);
    CHECK_EQUAL(flows_of_seven_domains(0), 3);
}

/* The secret decides where a flow stands in the index and nothing else: the records are the same, byte by byte. */
static void secret_changes_nothing(void)
{
    struct tap taps[2];
    for (int i = 0; i < 2; i++) {
        vms_options_t options = tap_options();
        memset(options.secret, i ? 0x5a : 0, sizeof options.secret);
        taps[i] = tap_with(options);
        for (uint16_t n = 0; n < 3000; n++)
            tap_udp(&taps[i], SECOND + n * MS, n % 300, 4000, 1000, n % 7);
        tap_roll(&taps[i]);
    }
    if (CHECK_EQUAL(taps[0].rolled_count, taps[1].rolled_count))
        CHECK(memcmp(taps[0].rolled, taps[1].rolled, taps[0].rolled_count * sizeof *taps[0].rolled) == 0);
    tap_close(&taps[0]);
    tap_close(&taps[1]);
}

enum kind { UDP, ESTABLISHED, RESET };

/* How many flows come of a pause of this length. */
static uint64_t flows_with_pause(enum kind kind, int64_t pause_ns)
{
    struct tap tap = tap_open();
    int64_t last = AT + 20 * MS;
    if (kind == UDP) {
        tap_udp(&tap, AT, 1, 1000, 2, 53);
        tap_udp(&tap, last, 2, 53, 1, 1000);
        tap_udp(&tap, last + pause_ns, 1, 1000, 2, 53);
    } else {
        shake_hands(&tap, AT, ISN);
        c2s(&tap, last, ISN + 1, ISN + 1, kind == RESET ? R : A, 0);
        s2c(&tap, last + pause_ns, ISN + 1, ISN + 1, A, 0);
    }
    uint64_t flows = tap_counters(&tap).flows_started;
    tap_close(&tap);
    return flows;
}

/* Idle timeouts are exact: 60 s, 300 s for established TCP, 5 s for what is closed. */
static void idle_timeouts(void)
{
    static const int64_t timeouts[] = {[UDP] = 60 * SECOND, [ESTABLISHED] = 300 * SECOND, [RESET] = 5 * SECOND};
    for (enum kind kind = UDP; kind <= RESET; kind++) {
        CHECK_EQUAL(flows_with_pause(kind, timeouts[kind] - 1), 1);
        CHECK_EQUAL(flows_with_pause(kind, timeouts[kind]), 2);
    }
}

/* A flow's own last packet counts for its timeout, not the time at which the table happened to look at it. */
static void idle_is_from_the_last_packet(void)
{
    struct tap tap = tap_open();
    tap_udp(&tap, AT, 1, 1000, 2, 53);
    tap_udp(&tap, AT + 30 * SECOND, 1, 1000, 2, 53);
    tap_udp(&tap, AT + 61 * SECOND, 8, 1, 9, 1);
    tap_udp(&tap, AT + 90 * SECOND, 1, 1000, 2, 53);
    CHECK_EQUAL(tap_counters(&tap).flows_started, 3);
    tap_close(&tap);
}

/* When the wire is silent, a tick ends what is idle; the reasons of all ends are told. */
static void tick_and_reasons(void)
{
    struct tap tap = tap_open();
    tap_udp(&tap, AT, 1, 1000, 2, 53);
    shake_hands(&tap, AT, ISN);
    c2s(&tap, AT + 20 * MS, ISN + 1, ISN + 1, R, 0);
    tap_udp(&tap, AT + 50 * SECOND, 1, 1001, 2, 53);
    vms_tick(tap.table, AT + 61 * SECOND);
    tap_take_finished(&tap);
    CHECK_EQUAL(tap.finished_count, 2);
    CHECK_EQUAL(tap.finished[0].end_reason, VMS_END_CLOSED);
    CHECK_EQUAL(tap.finished[0].protocol, 6);
    CHECK_EQUAL(tap.finished[1].end_reason, VMS_END_IDLE);
    CHECK_EQUAL(tap.finished[1].end_ns, AT);
    tap_finish(&tap);
    CHECK_EQUAL(tap.finished[2].end_reason, VMS_END_INPUT);
    CHECK_EQUAL(tap.finished_count, 3);
    tap_close(&tap);
}

/* A flow that lasts longer than the active timeout is reported, goes on, and leaves no empty record behind. */
static void active_timeout(void)
{
    struct tap tap = tap_open();
    for (int i = 0; i <= 36; i++)
        tap_udp(&tap, AT + i * 50 * SECOND, 1, 1000, 2, 53);
    tap_roll(&tap);
    tap_take_finished(&tap);
    CHECK_EQUAL(tap.finished_count, 1);
    CHECK_EQUAL(tap.finished[0].end_reason, VMS_END_ACTIVE);
    CHECK_EQUAL(tap.finished[0].c2s.packets, 37);
    CHECK_EQUAL(tap.finished[0].end_ns - tap.finished[0].start_ns, 1800 * SECOND);
    CHECK_EQUAL(tap_counters(&tap).flows_started, 1);
    tap_finish(&tap);
    CHECK_EQUAL(tap.finished_count, 1);
    tap_close(&tap);
}

/* A SYN with a new number after the close is a new flow with a handshake of its own, even within the linger. */
static void port_reuse(void)
{
    struct tap tap = connected();
    c2s(&tap, AT + 20 * MS, ISN + 1, ISN + 1, F, 0);
    s2c(&tap, AT + 21 * MS, ISN + 1, ISN + 2, F, 0);
    c2s(&tap, AT + 22 * MS, ISN + 2, ISN + 2, A, 0);
    shake_hands(&tap, AT + 30 * MS, 777777);
    c2s(&tap, AT + 50 * MS, 777778, 777778, A, 100);
    tap_roll(&tap);
    if (CHECK_EQUAL(tap.rolled_count, 2)) {
        CHECK_EQUAL(tap.rolled[0].tcp_state, VMS_STATE_CLOSED);
        CHECK_EQUAL(tap.rolled[0].c2s.packets, 4);
        CHECK_EQUAL(tap.rolled[1].tcp_state, VMS_STATE_ESTABLISHED);
        CHECK_EQUAL(tap.rolled[1].handshake_server_ns, 8 * MS);
        CHECK_EQUAL(tap.rolled[1].c2s.retransmissions + tap.rolled[1].c2s.unknown_causes, 0);
        CHECK(tap.rolled[0].flow_id != tap.rolled[1].flow_id);
    }
    tap_close(&tap);
}

/* A flow that ends within a window keeps its part of it: one record each, however often the five-tuple starts anew. */
static void ended_flows_keep_their_window(void)
{
    struct tap tap = tap_open();
    for (uint32_t i = 0; i < 20; i++) {
        c2s(&tap, AT + 2 * i * MS, 1000 * i, 0, S, 0);
        s2c(&tap, AT + (2 * i + 1) * MS, 0, 1000 * i + 1, R | A, 0);
    }
    tap_roll(&tap);
    CHECK_EQUAL(tap.rolled_count, 20);
    for (uint32_t i = 0; i < tap.rolled_count; i++)
        CHECK(tap.rolled[i].c2s.packets == 1 && tap.rolled[i].s2c.packets == 1);
    tap_close(&tap);
}

/* vms_finish ends every flow, gives every slot back, and the table goes on to work. */
static void finish_and_go_on(void)
{
    struct tap tap = tap_open();
    for (int round = 1; round <= 3; round++) {
        for (uint16_t i = 0; i < 500; i++)
            tap_udp(&tap, AT + round * SECOND, i, 1000, 1000, 53);
        tap_finish(&tap);
        CHECK_EQUAL(tap.finished_count, round * 500);
        tap_check_totals(&tap);
    }
    tap_close(&tap);
}

int main(void)
{
    both_directions();
    one_address();
    domains();
    secret_changes_nothing();
    idle_timeouts();
    idle_is_from_the_last_packet();
    tick_and_reasons();
    active_timeout();
    port_reuse();
    ended_flows_keep_their_window();
    finish_and_go_on();
    return check_summary("test_flow");
}
