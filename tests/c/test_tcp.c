/* A TCP connection's life at the tap: handshakes, states, probes, and what is left of it when parts are missing. */

#include "talk.h"

/* The handshake splits at the tap into the server's and the client's half, exact to the nanosecond. */
static void handshake_split(void)
{
    struct tap tap = tap_open();
    c2s(&tap, AT, 5, 0, S, 0);
    s2c(&tap, AT + 7654321, 90, 6, SA, 0);
    c2s(&tap, AT + 9999999, 6, 91, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.handshake_server_ns, 7654321);
    CHECK_EQUAL(r.handshake_client_ns, 2345678);
    CHECK_EQUAL(r.role_source, VMS_ROLE_SYN);
    CHECK_EQUAL(r.tcp_state, VMS_STATE_ESTABLISHED);
    CHECK_EQUAL(r.c2s.retransmissions + r.s2c.retransmissions, 0);
    tap_close(&tap);
}

/* After a resent SYN nobody knows which one was answered: that half is absent, the other one stands. */
static void syn_resent(void)
{
    struct tap tap = tap_open();
    c2s(&tap, AT, 5, 0, S, 0);
    c2s(&tap, AT + SECOND, 5, 0, S, 0);
    s2c(&tap, AT + SECOND + 8 * MS, 90, 6, SA, 0);
    c2s(&tap, AT + SECOND + 9 * MS, 6, 91, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.handshake_server_ns, VMS_ABSENT);
    CHECK_EQUAL(r.handshake_client_ns, MS);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    tap_close(&tap);
}

/* After a resent SYN-ACK it is the client's half that is absent. */
static void syn_ack_resent(void)
{
    struct tap tap = tap_open();
    c2s(&tap, AT, 5, 0, S, 0);
    s2c(&tap, AT + 8 * MS, 90, 6, SA, 0);
    s2c(&tap, AT + SECOND, 90, 6, SA, 0);
    c2s(&tap, AT + SECOND + MS, 6, 91, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.handshake_server_ns, 8 * MS);
    CHECK_EQUAL(r.handshake_client_ns, VMS_ABSENT);
    tap_close(&tap);
}

/* When both open at once neither half has a meaning, and the connection is established all the same. */
static void simultaneous_open(void)
{
    struct tap tap = tap_open();
    c2s(&tap, AT, 5, 0, S, 0);
    s2c(&tap, AT + MS, 90, 0, S, 0);
    c2s(&tap, AT + 2 * MS, 5, 91, SA, 0);
    s2c(&tap, AT + 3 * MS, 90, 6, SA, 0);
    c2s(&tap, AT + 4 * MS, 6, 91, A, 10);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.handshake_server_ns, VMS_ABSENT);
    CHECK_EQUAL(r.handshake_client_ns, VMS_ABSENT);
    CHECK_EQUAL(r.tcp_state, VMS_STATE_ESTABLISHED);
    CHECK_EQUAL(r.c2s.data_packets, 1);
    tap_close(&tap);
}

/* An unanswered SYN stays a connection attempt, a refused one is reset. */
static void attempts(void)
{
    struct tap tap = tap_open();
    c2s(&tap, AT, 5, 0, S, 0);
    CHECK_EQUAL(tap_only(&tap).tcp_state, VMS_STATE_SYN_SENT);
    s2c(&tap, AT + MS, 0, 6, R | A, 0);
    CHECK_EQUAL(tap_only(&tap).tcp_state, VMS_STATE_RESET);
    tap_close(&tap);
}

/* A RST closes where it fits the sequence; one far from it, which the hosts ignore (RFC 5961), does not. */
static void reset(void)
{
    struct tap tap = connected();
    s2c(&tap, AT + 20 * MS, ISN + (1u << 24), 0, R, 0);
    CHECK_EQUAL(tap_only(&tap).tcp_state, VMS_STATE_ESTABLISHED);
    s2c(&tap, AT + 30 * MS, ISN + 1, 0, R, 0);
    CHECK_EQUAL(tap_only(&tap).tcp_state, VMS_STATE_RESET);
    tap_close(&tap);
}

/* A SYN with data (TCP Fast Open, RFC 7413): its data counts, and the answer ACKs it without anything unseen. */
static void fast_open(void)
{
    struct tap tap = tap_open();
    c2s(&tap, AT, 5, 0, S, 100);
    s2c(&tap, AT + 8 * MS, 90, 106, SA, 0);
    s2c(&tap, AT + 9 * MS, 91, 106, A, 300);
    c2s(&tap, AT + 10 * MS, 106, 391, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.payload_bytes, 100);
    CHECK_EQUAL(r.c2s.data_packets, 1);
    CHECK_EQUAL(r.c2s.unseen_bytes + r.s2c.unseen_bytes, 0);
    CHECK_EQUAL(r.handshake_server_ns, 8 * MS);
    CHECK_EQUAL(r.response_count, 1);
    CHECK_EQUAL(r.response_sum_ns, 9 * MS);
    tap_close(&tap);
}

/* FIN from both sides closes, in whatever order their ACKs come, and takes up a sequence number each. */
static void fin_closes(void)
{
    struct tap tap = connected();
    c2s(&tap, AT + 20 * MS, ISN + 1, ISN + 1, F, 0);
    s2c(&tap, AT + 21 * MS, ISN + 1, ISN + 2, A, 50);
    s2c(&tap, AT + 22 * MS, ISN + 51, ISN + 2, F, 0);
    c2s(&tap, AT + 23 * MS, ISN + 2, ISN + 52, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.tcp_state, VMS_STATE_CLOSED);
    CHECK_EQUAL(r.c2s.unseen_bytes + r.s2c.unseen_bytes, 0);
    CHECK_EQUAL(r.c2s.retransmissions + r.s2c.retransmissions, 0);
    tap_finish(&tap);
    CHECK_EQUAL(tap.finished[0].end_reason, VMS_END_CLOSED);
    tap_close(&tap);
}

/* One direction alone: what needs the other is not there, and nothing is made up about it. */
static void one_sided(void)
{
    struct tap tap = tap_open();
    for (uint32_t i = 0; i < 20; i++)
        s2c(&tap, AT + i * MS, 5000 + i * 100, 77, A, 100);
    s2c(&tap, AT + 100 * MS, 5000, 77, A, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.flags & (VMS_RECORD_SEEN_C2S | VMS_RECORD_SEEN_S2C), VMS_RECORD_SEEN_S2C);
    CHECK_EQUAL(r.role_source, VMS_ROLE_PORT);
    CHECK_EQUAL(r.server_port, 80);
    CHECK_EQUAL(r.s2c.data_packets, 21);
    CHECK_EQUAL(r.s2c.retransmissions, 1);
    CHECK_EQUAL(r.s2c.spurious + r.s2c.rtt_count + r.s2c.unseen_bytes, 0);
    CHECK_EQUAL(r.c2s.unseen_bytes + r.c2s.rtt_count, 0);
    tap_close(&tap);
}

/* Joined in the middle, the first ACKs of older data say nothing about mirror loss, and RTT works from then on. */
static void midstream(void)
{
    struct tap tap = tap_open();
    s2c(&tap, AT, 9000, 300, A, 0);
    c2s(&tap, AT + MS, 300, 9000, A, 50);
    s2c(&tap, AT + 4 * MS, 9000, 350, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.tcp_state, VMS_STATE_ESTABLISHED);
    CHECK_EQUAL(r.role_source, VMS_ROLE_PORT);
    CHECK_EQUAL(r.client_port, 40000);
    CHECK_EQUAL(r.c2s.rtt_sum_ns, 3 * MS);
    CHECK_EQUAL(r.c2s.unseen_bytes + r.s2c.unseen_bytes, 0);
    CHECK_EQUAL(r.handshake_server_ns, VMS_ABSENT);
    tap_close(&tap);
}

/* What was sent before the first packet that the tap saw can not be a resend of something seen. */
static void before_the_first_seen(void)
{
    struct tap tap = tap_open();
    c2s(&tap, AT, 2000, 1, A, 100);
    c2s(&tap, AT + MS, 1900, 1, A, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 0);
    tap_close(&tap);
}

/* A keep-alive repeats the byte before the next one, or its number alone: never a retransmission, nor data. */
static void keepalives(void)
{
    struct tap tap = connected();
    c2s(&tap, AT + 20 * MS, ISN + 1, ISN + 1, A, 100);
    s2c(&tap, AT + 30 * MS, ISN + 1, ISN + 101, A, 0);
    c2s(&tap, AT + SECOND, ISN + 100, ISN + 1, A, 0);
    c2s(&tap, AT + 2 * SECOND, ISN + 100, ISN + 1, A, 1);
    s2c(&tap, AT + 2 * SECOND + MS, ISN + 1, ISN + 101, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.keepalives, 2);
    CHECK_EQUAL(r.c2s.retransmissions + r.c2s.window_probes, 0);
    CHECK_EQUAL(r.c2s.data_packets, 1);
    CHECK_EQUAL(r.c2s.rtt_count, 1);
    tap_close(&tap);
}

/* A lone byte that was never ACKed and comes again is a resend, not a keep-alive. */
static void lone_byte_resent(void)
{
    struct tap tap = connected();
    c2s(&tap, AT + 20 * MS, ISN + 1, ISN + 1, A, 1);
    c2s(&tap, AT + 300 * MS, ISN + 1, ISN + 1, A, 1);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.keepalives, 0);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    tap_close(&tap);
}

/* A closed window is counted for its owner; probes of it, taken or refused, are neither data nor loss. */
static void zero_window(void)
{
    struct tap tap = connected();
    struct segment closed = {ISN + 1, ISN + 101, 0, A, true, NULL, 0};
    c2s(&tap, AT + 20 * MS, ISN + 1, ISN + 1, A, 100);
    send_segment(&tap, AT + 30 * MS, S2C, closed);
    c2s(&tap, AT + 200 * MS, ISN + 101, ISN + 1, A, 1);
    send_segment(&tap, AT + 210 * MS, S2C, closed);
    c2s(&tap, AT + 400 * MS, ISN + 100, ISN + 1, A, 0);
    send_segment(&tap, AT + 410 * MS, S2C, closed);
    c2s(&tap, AT + 800 * MS, ISN + 101, ISN + 1, A, 1);
    s2c(&tap, AT + 810 * MS, ISN + 1, ISN + 102, A, 0);
    c2s(&tap, AT + 820 * MS, ISN + 102, ISN + 1, A, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.s2c.zero_windows, 3);
    CHECK_EQUAL(r.c2s.zero_windows, 0);
    CHECK_EQUAL(r.c2s.window_probes, 3);
    CHECK_EQUAL(r.c2s.data_packets, 2);
    CHECK_EQUAL(r.c2s.retransmissions + r.c2s.keepalives + r.c2s.unseen_bytes + r.c2s.upstream_losses, 0);
    tap_close(&tap);
}

/* The sequence space wraps through 2^32 without a segment, a hole or an RTT sample going wrong. */
static void sequence_wraps(void)
{
    struct tap tap = tap_open();
    uint32_t isn = UINT32_MAX - 150;
    shake_hands(&tap, AT, isn);
    for (uint32_t i = 0; i < 6; i++) {
        c2s(&tap, AT + (20 + 20 * i) * MS, isn + 1 + 100 * i, isn + 1, A, 100);
        s2c(&tap, AT + (28 + 20 * i) * MS, isn + 1, isn + 101 + 100 * i, A, 0);
    }
    c2s(&tap, AT + 200 * MS, isn + 1 + 200, isn + 1, A, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.data_packets, 7);
    CHECK_EQUAL(r.c2s.rtt_count, 6);
    CHECK_EQUAL(r.c2s.rtt_sum_ns, 48 * MS);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(r.c2s.spurious, 1);
    CHECK_EQUAL(r.c2s.unseen_bytes + r.c2s.unknown_causes + r.c2s.reordered + r.c2s.upstream_losses, 0);
    tap_close(&tap);
}

/* Where the SYN was not seen the MSS is not known: what fits a jumbo frame is one segment, and more is many. */
static void super_packet_of_an_unknown_mss(void)
{
    static const struct { uint32_t payload, segments; } cases[] = {{1448, 1}, {8960, 1}, {8961, 7}, {28960, 20}, {65000, 45}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tap tap = tap_open();
        c2s(&tap, AT, ISN + 1, ISN + 1, A, cases[i].payload);
        vms_record_t r = tap_only(&tap);
        CHECK_EQUAL(r.c2s.packets + r.s2c.packets, 1);
        CHECK_EQUAL(r.c2s.data_packets + r.s2c.data_packets, cases[i].segments);
        tap_close(&tap);
    }
}

/* A super-packet of a capture-side offload counts as the segments that the receiver's MSS makes of it. */
static void super_packet(void)
{
    static const uint8_t mss[4] = {2, 4, 1000 >> 8, 1000 & 255};
    struct tap tap = tap_open();
    c2s(&tap, AT, ISN, 0, S, 0);
    send_segment(&tap, AT + MS, S2C, (struct segment){ISN, ISN + 1, 0, SA, false, mss, sizeof mss});
    c2s(&tap, AT + 2 * MS, ISN + 1, ISN + 1, A, 0);
    c2s(&tap, AT + 3 * MS, ISN + 1, ISN + 1, A, 2500);
    c2s(&tap, AT + 400 * MS, ISN + 1, ISN + 1, A, 2500);
    c2s(&tap, AT + 401 * MS, ISN + 2501, ISN + 1, A, 1000);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.packets, 5);
    CHECK_EQUAL(r.c2s.data_packets, 7);
    CHECK_EQUAL(r.c2s.retransmissions, 3);
    CHECK_EQUAL(r.c2s.payload_bytes, 6000);
    tap_close(&tap);
}

/* A direction that the mirror left out for more than the largest window is found again, and not given up for life. */
static void long_pause_of_the_mirror(void)
{
    struct tap tap = connected();
    uint32_t far = ISN + (1u << 30) + 5000;
    c2s(&tap, AT + 20 * MS, ISN + 1, ISN + 1, A, 100);
    for (uint32_t i = 0; i < 50; i++) {
        c2s(&tap, AT + (100 + 10 * i) * MS, far + i * 100, ISN + 1, A, 100);
        s2c(&tap, AT + (108 + 10 * i) * MS, ISN + 1, far + i * 100 + 100, A, 0);
    }
    vms_record_t r = tap_only(&tap);
    CHECK(r.c2s.data_packets > 40);
    CHECK(r.c2s.rtt_count > 40);
    tap_close(&tap);
}

/* Fragments of a segment are counted but not placed, and the next whole segment is no loss, nor a resend. */
static void fragmented_segment(void)
{
    struct tap tap = connected();
    struct frame first = segment_frame(&tap, C2S, (struct segment){ISN + 1, ISN + 1, 1000, A, false, NULL, 0});
    struct frame later = frame_payload(16);
    later.protocol = 6;
    uint8_t *ip = put_ipv4(&later, 1, 2);
    make_fragment(ip, 77, 127, false);
    put_ethernet(&later);
    make_fragment(frame_bytes(&first) + 14, 77, 0, true);
    tap_feed(&tap, AT + 20 * MS, &first);
    tap_feed(&tap, AT + 20 * MS, &later);
    c2s(&tap, AT + 21 * MS, ISN + 1 + 1016, ISN + 1, A, 100);
    s2c(&tap, AT + 29 * MS, ISN + 1, ISN + 1 + 1116, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.payload_bytes, 1116);
    CHECK_EQUAL(r.c2s.data_packets, 3);
    CHECK_EQUAL(r.c2s.rtt_sum_ns, 8 * MS);
    CHECK_EQUAL(r.c2s.retransmissions + r.c2s.upstream_losses + r.c2s.reordered + r.c2s.unseen_bytes, 0);
    CHECK(r.flags & VMS_RECORD_UNSURE_C2S);
    tap_close(&tap);
}

int main(void)
{
    handshake_split();
    syn_resent();
    syn_ack_resent();
    simultaneous_open();
    attempts();
    reset();
    fast_open();
    fin_closes();
    one_sided();
    midstream();
    before_the_first_seen();
    keepalives();
    lone_byte_resent();
    zero_window();
    sequence_wraps();
    super_packet();
    super_packet_of_an_unknown_mss();
    long_pause_of_the_mirror();
    fragmented_segment();
    return check_summary("test_tcp");
}
