/* The cause of every segment that does not simply advance. The tap knows a path of 10 ms. */

#include "talk.h"

static uint32_t causes(const vms_half_t *half)
{
    return half->retransmissions + half->spurious + half->upstream_losses + half->reordered + half->unknown_causes;
}

/* Seen twice and ACKed only after the second time: lost behind the tap. */
static void lost_behind_the_tap(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    data(&tap, 21, 100);
    data(&tap, 40, 0);
    ack(&tap, 48, 200);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(causes(&r.c2s), 1);
    CHECK_EQUAL(r.c2s.data_packets, 3);
    tap_close(&tap);
}

/* A segment that was ACKed before it came again was resent needlessly. */
static void spurious_by_ack(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    ack(&tap, 28, 100);
    data(&tap, 220, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(r.c2s.spurious, 1);
    tap_close(&tap);
}

/* So was one that the receiver's DSACK names, below its ACK or inside a SACK block. */
static void spurious_by_dsack(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    data(&tap, 40, 0);
    sack(&tap, 48, 100, 0, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(r.c2s.spurious, 1);
    tap_close(&tap);
}

/* A SACK block above the ACK is about what is missing below it, and names nothing needless. */
static void sack_is_no_dsack(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    data(&tap, 21, 100);
    sack(&tap, 29, 0, 100, 200);
    data(&tap, 40, 0);
    sack(&tap, 41, 0, 100, 200);
    ack(&tap, 48, 200);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(r.c2s.spurious, 0);
    tap_close(&tap);
}

/* A needless resend is needless once: its ACK and its DSACK together do not excuse another, true loss. */
static void spurious_once(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    data(&tap, 220, 0);             /* truly lost: nothing was ACKed in between */
    ack(&tap, 228, 100);
    data(&tap, 240, 100);
    ack(&tap, 248, 200);
    data(&tap, 440, 100);           /* needless, as the ACK has said */
    sack(&tap, 448, 200, 100, 200);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 2);
    CHECK_EQUAL(r.c2s.spurious, 1);
    tap_close(&tap);
}

/* A verdict that comes after the active timeout has cut the record excuses nothing in the next one. */
static void verdict_after_a_cut(void)
{
    vms_options_t options = tap_options();
    options.active_timeout_ns = SECOND;
    options.window_ns = SECOND;
    struct tap tap = tap_with(options);
    shake_hands(&tap, AT, ISN);
    data(&tap, 20, 0);
    data(&tap, 900, 100);
    data(&tap, 1600, 100);
    tap_roll(&tap);
    tap_roll(&tap);
    sack(&tap, 2600, 200, 100, 200);
    tap_finish(&tap);
    CHECK_EQUAL(tap.finished_count, 2);
    CHECK_EQUAL(tap.finished[0].end_reason, VMS_END_ACTIVE);
    CHECK_EQUAL(tap.finished[0].c2s.retransmissions, 1);
    CHECK_EQUAL(tap.finished[1].c2s.spurious, 0);
    tap_close(&tap);
}

/* A hole that is filled sooner than a resend could come, 7/8 of the path's 10 ms, was reordering: no loss. */
static void hole_filled_early(void)
{
    struct tap tap = connected();
    data(&tap, 20, 100);
    data(&tap, 28, 0);
    ack(&tap, 29, 200);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.reordered, 1);
    CHECK_EQUAL(causes(&r.c2s), 1);
    CHECK_EQUAL(r.c2s.unseen_bytes, 0);
    tap_close(&tap);
}

/* A hole that is filled a round later was a loss before the tap, which saw only the resend. */
static void hole_filled_late(void)
{
    struct tap tap = connected();
    data(&tap, 20, 100);
    data(&tap, 29, 0);
    ack(&tap, 37, 200);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.upstream_losses, 1);
    CHECK_EQUAL(causes(&r.c2s), 1);
    CHECK_EQUAL(r.c2s.rtt_count, 0);
    tap_close(&tap);
}

/* A hole that is filled in the middle leaves two, each with the age of the whole. */
static void hole_filled_in_the_middle(void)
{
    struct tap tap = connected();
    data(&tap, 20, 300);
    data(&tap, 21, 100);
    data(&tap, 40, 0);
    data(&tap, 41, 200);
    data(&tap, 42, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.reordered, 1);
    CHECK_EQUAL(r.c2s.upstream_losses, 2);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    tap_close(&tap);
}

/* Bytes that the receiver ACKs and the tap never saw are the mirror's loss, in the middle or at the end. */
static void mirror_loss(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    data(&tap, 21, 250);
    ack(&tap, 29, 350);
    ack(&tap, 30, 420);
    ack(&tap, 31, 420);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.unseen_bytes, 150 + 70);
    CHECK_EQUAL(causes(&r.c2s), 0);
    tap_close(&tap);
}

/* An ACK into the middle of a hole settles its lower part only; the rest is still open. */
static void hole_acked_in_part(void)
{
    struct tap tap = connected();
    data(&tap, 20, 300);
    ack(&tap, 28, 100);
    CHECK_EQUAL(tap_only(&tap).c2s.unseen_bytes, 100);
    c2s(&tap, AT + 40 * MS, X + 100, X, A, 200);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.upstream_losses, 1);
    CHECK_EQUAL(r.c2s.unseen_bytes, 0);
    tap_close(&tap);
}

/* A copy that passes the tap right behind its ACK takes its bytes back from the mirror's loss. */
static void late_copy(void)
{
    struct tap tap = connected();
    ack(&tap, 20, 100);
    c2s(&tap, AT + 20 * MS + MS / 2, X, X, A, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.unseen_bytes, 0);
    CHECK_EQUAL(r.c2s.reordered, 1);
    CHECK_EQUAL(causes(&r.c2s), 1);
    tap_close(&tap);
}

/* With more holes than are kept, causes are unknown where they were forgotten, and still right elsewhere. */
static void holes_overflow(void)
{
    struct tap tap = connected();
    for (uint32_t i = 0; i < 12; i++)
        data(&tap, 20, 100 + 200 * i);
    for (uint32_t i = 0; i < 12; i++)
        data(&tap, 60, 200 * i);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.upstream_losses, 8);
    CHECK_EQUAL(r.c2s.unknown_causes, 4);
    CHECK_EQUAL(r.c2s.retransmissions + r.c2s.reordered, 0);
    CHECK(r.flags & VMS_RECORD_UNSURE_C2S);
    data(&tap, 70, 2400);
    data(&tap, 90, 2400);
    CHECK_EQUAL(tap_only(&tap).c2s.retransmissions, 1);
    tap_close(&tap);
}

/* A segment with old and new bytes is one resend, and what is new in it advances. */
static void partly_new(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    c2s(&tap, AT + 40 * MS, X, X, A, 300);
    data(&tap, 41, 300);
    ack(&tap, 49, 400);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(causes(&r.c2s), 1);
    CHECK_EQUAL(r.c2s.unseen_bytes, 0);
    tap_close(&tap);
}

/* Where holes were once forgotten does not follow the connection for its life: 2^31 bytes later causes are told. */
static void blindness_passes(void)
{
    struct tap tap = connected();
    uint32_t next = 0;
    for (; next < 24 * 100; next += 200)
        data(&tap, 20, next + 100);
    ack(&tap, 30, next);
    tap_roll(&tap);
    for (uint32_t i = 0; i < 36000; i++, next += 60000) {
        c2s(&tap, AT + 50 * MS, X + next, X, A, 60000);
        s2c(&tap, AT + 50 * MS, X, X + next + 60000, A, 0);
    }
    tap_roll(&tap);
    c2s(&tap, AT + 60 * MS, X + next, X, A, 100);
    c2s(&tap, AT + 90 * MS, X + next, X, A, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(r.c2s.unknown_causes, 0);
    tap_close(&tap);
}

int main(void)
{
    lost_behind_the_tap();
    spurious_by_ack();
    spurious_by_dsack();
    sack_is_no_dsack();
    spurious_once();
    verdict_after_a_cut();
    hole_filled_early();
    hole_filled_late();
    hole_filled_in_the_middle();
    mirror_loss();
    hole_acked_in_part();
    late_copy();
    holes_overflow();
    partly_new();
    blindness_passes();
    return check_summary("test_causes");
}
