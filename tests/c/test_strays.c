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

/* Ports used again at once, the close not mirrored: the SYN-ACK that answers the new SYN begins a flow. */
static void reuse_without_a_close(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    c2s(&tap, AT + 500 * MS, ISN + FAR, 0, S, 0);
    s2c(&tap, AT + 508 * MS, ISN + 90, ISN + FAR + 1, SA, 0);
    c2s(&tap, AT + 510 * MS, ISN + FAR + 1, ISN + 91, A, 0);
    tap_roll(&tap);
    if (CHECK_EQUAL(tap.rolled_count, 2)) {
        CHECK_EQUAL(tap.rolled[0].end_reason, VMS_END_REUSED);
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
    CHECK_EQUAL(r.c2s.unknown_causes, 1);
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

int main(void)
{
    stray_syn_ack();
    reuse_without_a_close();
    forged_reset();
    one_far_away_and_two();
    ack_before_its_data();
    return check_summary("test_strays");
}
