/* Segments that are out of place: old, forged, late, or of a connection whose beginning was missed. */

#include "talk.h"

#define FAR (1u << 30)

/* A SYN-ACK that does not answer the SYN is no part of the handshake, nor of the sequence. */
static void stray_syn_ack(void)
{
    struct tap tap = tap_open();
    c2s(&tap, AT, ISN, 0, S, 0);
    s2c(&tap, AT + 2 * MS, 777, ISN + 500, SA, 0);
    s2c(&tap, AT + 30 * MS, ISN, ISN + 1, SA, 0);
    c2s(&tap, AT + 32 * MS, ISN + 1, ISN + 1, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.handshake_server_ns, 30 * MS);
    CHECK_EQUAL(r.handshake_client_ns, 2 * MS);
    CHECK_EQUAL(r.tcp_state, VMS_STATE_ESTABLISHED);
    CHECK_EQUAL(r.c2s.unseen_bytes + r.s2c.unseen_bytes, 0);
    CHECK_EQUAL(r.s2c.retransmissions, 0);
    tap_close(&tap);
}

/* Ports used again at once, the close not mirrored: the SYN-ACK that answers the new SYN begins a flow, wherever its
   number lies: far away, within the window, or among the bytes that have passed. */
static void reuse_without_a_close(uint32_t isn)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    c2s(&tap, AT + 500 * MS, isn, 0, S, 0);
    s2c(&tap, AT + 508 * MS, ISN + 90, isn + 1, SA, 0);
    c2s(&tap, AT + 510 * MS, isn + 1, ISN + 91, A, 0);
    tap_roll(&tap);
    if (CHECK_EQUAL(tap.rolled_count, 2)) {
        CHECK_EQUAL(tap.rolled[0].end_reason, VMS_END_REUSED);
        CHECK_EQUAL(tap.rolled[0].c2s.unseen_bytes + tap.rolled[0].c2s.retransmissions, 0);
        CHECK_EQUAL(tap.rolled[1].role_source, VMS_ROLE_SYN);
        CHECK_EQUAL(tap.rolled[1].client_port, 40000);
        CHECK_EQUAL(tap.rolled[1].c2s.unseen_bytes + tap.rolled[1].s2c.unseen_bytes, 0);
    }
    tap_close(&tap);
}

/* A RST far from the sequence is ignored by the hosts, and so here. */
static void forged_reset(void)
{
    struct tap tap = connected();
    c2s(&tap, AT + 20 * MS, ISN + FAR, 0, R, 0);
    CHECK_EQUAL(tap_only(&tap).tcp_state, VMS_STATE_ESTABLISHED);
    tap_close(&tap);
}

/* One segment far away changes nothing; a second that goes on where it ended is where the connection now is. */
static void one_far_away_and_two(void)
{
    struct tap tap = connected();
    data(&tap, 20, FAR);
    data(&tap, 30, 0);
    ack(&tap, 38, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.out_of_window, 1);
    CHECK_EQUAL(r.c2s.rtt_count, 1);
    CHECK_EQUAL(r.flags & VMS_RECORD_UNSURE_C2S, 0);
    tap_close(&tap);

    tap = connected();
    data(&tap, 20, FAR);
    data(&tap, 30, FAR + 100);
    ack(&tap, 38, FAR + 200);
    r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.rtt_count, 1);
    CHECK_EQUAL(r.c2s.unseen_bytes, 0);
    CHECK(r.flags & VMS_RECORD_UNSURE_C2S);
    tap_close(&tap);
}

/* Two mirror queues: an ACK passes the tap 2 ms before what it ACKs. Nothing was lost, nothing sent again. */
static void ack_before_its_data(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    ack(&tap, 28, 200);
    data(&tap, 30, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.reordered, 1);
    CHECK_EQUAL(r.c2s.unseen_bytes, 0);
    CHECK_EQUAL(r.c2s.retransmissions + r.c2s.spurious, 0);
    tap_close(&tap);
}

/* A forged segment that the receiver's window does not allow, and an ACK of what was never sent, leave no trace in
   the causes, the RTT and the mirror's loss; nor does the ACK of the forged segment. */
static void forged_beyond_the_window(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    c2s(&tap, AT + 21 * MS, X + 200000, X + 500000, A, 100);
    ack(&tap, 28, 100);
    ack(&tap, 29, 300000);
    data(&tap, 30, 100);
    ack(&tap, 38, 200);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.out_of_window, 1);
    CHECK_EQUAL(r.c2s.unseen_bytes + r.s2c.unseen_bytes, 0);
    CHECK_EQUAL(r.c2s.reordered + r.c2s.upstream_losses + r.c2s.retransmissions + r.c2s.unknown_causes, 0);
    CHECK_EQUAL(r.c2s.rtt_count, 2);
    tap_close(&tap);
}

/* The mirror shows nothing for a while: the first segment behind the gap is believed with the second, and what the
   receiver ACKs of the gap is unseen. */
static void gap_of_the_mirror(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    ack(&tap, 28, 100);
    data(&tap, 1000, 300000);
    data(&tap, 1001, 300100);
    ack(&tap, 1009, 300200);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.out_of_window, 0);
    CHECK_EQUAL(r.c2s.unseen_bytes, 300000 - 100);
    CHECK_EQUAL(r.c2s.unknown_causes + r.c2s.upstream_losses + r.c2s.retransmissions, 0);
    CHECK_EQUAL(r.c2s.rtt_count, 2);
    CHECK_EQUAL(r.flags & VMS_RECORD_UNSURE_C2S, 0);
    tap_close(&tap);
}

/* The same where only the ACKs come back: two that go on are believed. */
static void gap_of_which_only_acks_tell(void)
{
    struct tap tap = connected();
    ack(&tap, 20, 0);
    ack(&tap, 1000, 300000);
    ack(&tap, 1001, 301000);
    CHECK_EQUAL(tap_only(&tap).c2s.unseen_bytes, 301000);
    tap_close(&tap);
}

/* A scaled window allows what the same number without its scale would not. */
static void scaled_window(void)
{
    const uint8_t scale[] = {1, 3, 3, 14};
    for (int scaled = 0; scaled < 2; scaled++) {
        struct tap tap = tap_open();
        struct segment syn = {ISN, 0, 0, S, false, scale, scaled ? 4 : 0}, syn_ack = {ISN, X, 0, SA, false, scale, 4};
        send_segment(&tap, AT, C2S, syn);
        send_segment(&tap, AT + 8 * MS, S2C, syn_ack);
        c2s(&tap, AT + 10 * MS, X, X, A, 0);
        ack(&tap, 12, 0);
        data(&tap, 20, 2000000);
        CHECK_EQUAL(tap_only(&tap).c2s.out_of_window, !scaled);
        tap_close(&tap);
    }
}

int main(void)
{
    stray_syn_ack();
    reuse_without_a_close(ISN + FAR);
    reuse_without_a_close(ISN + 2000);
    reuse_without_a_close(ISN + 50);
    forged_reset();
    one_far_away_and_two();
    ack_before_its_data();
    forged_beyond_the_window();
    gap_of_the_mirror();
    gap_of_which_only_acks_tell();
    scaled_window();
    return check_summary("test_strays");
}
