/* Header prediction: a segment that was expected leaves what it would leave on the long way. Four NOPs before its options
   keep it from the short one, and mean nothing. */

#include "talk.h"

enum { TALKS = 400, STEPS = 120, NOPS = 4, TIMESTAMPS = 12 };

static uint32_t draw(uint32_t below)
{
    static uint64_t state = 3;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

/* What one side has sent, and been told. */
struct side {
    uint32_t next;
    uint32_t acked;
};

struct event {
    int64_t at_ns;
    int direction;
    bool is_timed;
    struct segment segment;
};

/* Mostly what a connection that goes well does; else anything. */
static struct segment drawn(struct side *self, struct side *peer)
{
    struct segment s = {.seq = self->next, .ack = peer->acked, .flags = A, .payload = draw(2) ? 1 + draw(3000) : 0};
    if (draw(3))
        s.ack = peer->acked + draw(peer->next - peer->acked + 1);
    if (!draw(4))
        s.ack = peer->next;
    switch (draw(40)) {
    case 0: s.seq -= draw(4000); break;                 /* again */
    case 1: s.seq += draw(3000); break;                 /* the mirror has missed some */
    case 2: s.seq -= 1; s.payload = draw(2); break;     /* a keep-alive */
    case 3: s.ack += draw(2000); break;                 /* of what the mirror has missed */
    case 4: s.ack -= draw(2000); break;                 /* overtaken */
    case 5: s.closed_window = true; break;
    case 6: s.payload = 1; break;
    case 7: s.seq = draw(UINT32_MAX); break;            /* forged */
    case 8: s.flags |= draw(8) ? TCP_PSH : TCP_FIN; break;
    case 9: s.flags = draw(20) ? A : R; break;
    }
    uint32_t end = s.seq + s.payload;
    if (end - self->next < SEGMENT_CAPTURED * 1000u)
        self->next = end;
    if (s.ack - peer->acked <= peer->next - peer->acked)
        peer->acked = s.ack;
    return s;
}

/* Before the connection began, or in its middle. */
static struct tap opened(bool in_time)
{
    vms_options_t options = tap_options();
    options.window_ns = 3600 * SECOND;
    struct tap tap = tap_with(options);
    if (in_time)
        shake_hands(&tap, AT, ISN);
    return tap;
}

static void tell(struct tap *tap, struct event e, bool on_the_long_way)
{
    uint8_t options[NOPS + TIMESTAMPS] = {1, 1, 1, 1, 1, 1, 8, 10};
    write32(options + NOPS + 4, (uint32_t)(e.at_ns / MS));
    e.segment.options = options + (on_the_long_way ? 0 : NOPS);
    e.segment.options_size = (uint8_t)((on_the_long_way ? NOPS : 0) + (e.is_timed ? TIMESTAMPS : 0));
    send_segment(tap, e.at_ns, e.direction, e.segment);
}

static void without_nops(vms_half_t *half, uint64_t handshake)
{
    half->bytes -= NOPS * (half->packets - handshake);
}

static void same_records(struct tap *tap, struct tap *other, bool in_time)
{
    bool first = in_time;
    tap_roll(tap);
    tap_roll(other);
    CHECK_EQUAL(tap->rolled_count, other->rolled_count);
    CHECK_EQUAL(tap->bin_count, other->bin_count);
    for (uint32_t i = 0; i < tap->rolled_count; i++) {
        vms_record_t r = other->rolled[i];
        without_nops(&r.c2s, first ? 2 : 0);
        without_nops(&r.s2c, first ? 1 : 0);
        first = false;
        CHECK(memcmp(&tap->rolled[i], &r, sizeof r) == 0);
    }
    CHECK(tap->bin_count == other->bin_count &&
          memcmp(tap->bins, other->bins, tap->bin_count * sizeof *tap->bins) == 0);
}

static void a_talk(void)
{
    bool is_timed = draw(2), in_time = draw(3);
    struct tap tap = opened(in_time), other = opened(in_time);
    struct side sides[2] = {{X, X}, {X, X}};
    int64_t at_ns = AT + 20 * MS;
    for (int i = 0; i < STEPS; i++) {
        int direction = (int)draw(2);
        at_ns += draw(5) ? (int64_t)draw(3000) * 1000 : (int64_t)draw(400) * MS;
        struct event e = {at_ns, direction, is_timed, drawn(&sides[direction], &sides[!direction])};
        tell(&tap, e, false);
        tell(&other, e, true);
    }
    same_records(&tap, &other, in_time);
    tap_close(&tap);
    tap_close(&other);
}

int main(void)
{
    for (int i = 0; i < TALKS; i++)
        a_talk();
    return check_summary("test_predicted");
}
