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
    for (uint32_t i = 0; i < 70; i++)
        data(&tap, 20, 100 + 200 * i);
    for (uint32_t i = 0; i < 70; i++)
        data(&tap, 60, 200 * i);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.upstream_losses, 64);
    CHECK_EQUAL(r.c2s.unknown_causes, 6);
    CHECK_EQUAL(r.c2s.retransmissions + r.c2s.reordered, 0);
    CHECK(r.flags & VMS_RECORD_UNSURE_C2S);
    data(&tap, 70, 14000);
    data(&tap, 90, 14000);
    CHECK_EQUAL(tap_only(&tap).c2s.retransmissions, 1);
    tap_close(&tap);
}

/* The client's segment with marks of its own: a TCP timestamp (0: none) and an IP identification. */
static void marked(struct tap *tap, int64_t ms, uint32_t offset, uint32_t ts_val, uint16_t ip_id)
{
    uint8_t timestamps[12] = {1, 1, 8, 10};
    write32(timestamps + 4, ts_val);
    tap->ip_id = (uint16_t)(ip_id - 1);
    send_segment(tap, AT + ms * MS, C2S, (struct segment){X + offset, X, 100, A, false, timestamps, ts_val ? 12 : 0});
}

/* What the sender wrote into its packets outweighs the clock, where a timer may have run out while it was quiet: a
   resend just behind new data is a loss; a segment that was overtaken for longer than a round is none. */
static void marks_tell_when_it_was_sent(void)
{
    for (int timestamps = 0; timestamps < 2; timestamps++) {
        struct tap tap = connected();
        for (uint16_t i = 0; i < 4; i++)
            marked(&tap, 20 + i, 100 * i, timestamps * (50u + i), 100 + i);
        marked(&tap, 300, 500, timestamps * 400u, 105);
        marked(&tap, 301, 400, timestamps * 401u, 106);     /* sent after what opened the hole */
        marked(&tap, 302, 700, timestamps * 402u, 108);
        marked(&tap, 320, 600, timestamps * 401u, 107);     /* sent before it */
        vms_record_t r = tap_only(&tap);
        CHECK_EQUAL(r.c2s.upstream_losses, 1);
        CHECK_EQUAL(r.c2s.reordered, 1);
        CHECK_EQUAL(causes(&r.c2s), 2);
        tap_close(&tap);
    }
}

/* Marks that contradict each other tell nothing: the time decides. */
static void marks_that_disagree(void)
{
    struct tap tap = connected();
    for (uint16_t i = 0; i < 4; i++)
        marked(&tap, 20 + i, 100 * i, 50u + i, 100 + i);
    marked(&tap, 30, 500, 60, 105);
    marked(&tap, 45, 400, 59, 106);
    CHECK_EQUAL(tap_only(&tap).c2s.upstream_losses, 1);
    tap_close(&tap);
}

/* Random identifications tell nothing, however they compare. */
static void random_identifications(void)
{
    struct tap tap = connected();
    const uint16_t ids[] = {5000, 61000, 23, 40000, 12000};
    for (uint16_t i = 0; i < 5; i++)
        marked(&tap, 20 + i, 100 * i, 0, ids[i]);
    marked(&tap, 30, 600, 0, 12002);
    marked(&tap, 45, 500, 0, 12001);
    CHECK_EQUAL(tap_only(&tap).c2s.upstream_losses, 1);
    tap_close(&tap);
}

/* DSACKs name several resends that lie apart, each once. */
static void spurious_in_several_places(void)
{
    struct tap tap = connected();
    for (uint32_t i = 0; i < 6; i++)
        data(&tap, 20, 100 * i);
    for (uint32_t i = 0; i < 6; i += 2)
        data(&tap, 40, 100 * i);
    sack(&tap, 48, 600, 0, 100);
    sack(&tap, 49, 600, 400, 500);
    sack(&tap, 50, 600, 400, 500);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 3);
    CHECK_EQUAL(r.c2s.spurious, 2);
    tap_close(&tap);
}

/* The mirror missed the original, the resend fills the hole late, and then a DSACK says that the receiver had both:
   the mirror's loss and a needless resend, no loss of the network. */
static void dsack_of_what_the_mirror_missed(void)
{
    struct tap tap = connected();
    data(&tap, 20, 100);
    data(&tap, 40, 0);
    sack(&tap, 48, 200, 0, 100);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.upstream_losses, 0);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(r.c2s.spurious, 1);
    CHECK_EQUAL(r.c2s.unseen_bytes, 100);
    tap_close(&tap);
}

/* Bytes that the mirror missed, ACKed, and sent again long after: needless, and still unseen the first time. */
static void resent_after_the_ack_of_what_was_missed(void)
{
    vms_options_t options = tap_options();
    options.duplicate_horizon_ns = 10 * MS;
    struct tap tap = tap_with(options);
    shake_hands(&tap, AT, ISN);
    ack(&tap, 20, 100);
    data(&tap, 220, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.retransmissions, 1);
    CHECK_EQUAL(r.c2s.spurious, 1);
    CHECK_EQUAL(r.c2s.unseen_bytes, 100);
    CHECK_EQUAL(causes(&r.c2s), 2);
    tap_close(&tap);
}

/* A pure ACK that a single byte has overtaken is no keep-alive; nor is that byte, sent again, before it is ACKed or
   pushed. The same shape after the ACK is one. */
static void one_below(void)
{
    struct tap tap = connected();
    c2s(&tap, AT + 20 * MS, X, X, A, 1);
    c2s(&tap, AT + 21 * MS, X, X, A, 0);
    c2s(&tap, AT + 40 * MS, X, X, A, 1);
    ack(&tap, 48, 1);
    c2s(&tap, AT + 100 * MS, X, X, A | TCP_PSH, 1);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.keepalives, 0);
    CHECK_EQUAL(r.c2s.retransmissions, 2);
    CHECK_EQUAL(r.c2s.spurious, 1);
    c2s(&tap, AT + 5000 * MS, X, X, A, 1);
    c2s(&tap, AT + 6000 * MS, X, X, A, 0);
    CHECK_EQUAL(tap_only(&tap).c2s.keepalives, 2);
    tap_close(&tap);
}

/* A keep-alive with a byte, whose connection's last ACK the mirror missed, is not the resend of the segment before. */
static void keepalive_behind_a_missed_ack(void)
{
    struct tap tap = connected();
    data(&tap, 20, 0);
    c2s(&tap, AT + 5000 * MS, X + 99, X, A, 1);
    c2s(&tap, AT + 6000 * MS, X + 99, X, A, 0);
    vms_record_t r = tap_only(&tap);
    CHECK_EQUAL(r.c2s.keepalives, 2);
    CHECK_EQUAL(causes(&r.c2s), 0);
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
    for (; next < 200 * 70; next += 200)
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
    marks_tell_when_it_was_sent();
    marks_that_disagree();
    random_identifications();
    spurious_in_several_places();
    dsack_of_what_the_mirror_missed();
    resent_after_the_ack_of_what_was_missed();
    one_below();
    keepalive_behind_a_missed_ack();
    partly_new();
    blindness_passes();
    return check_summary("test_causes");
}
