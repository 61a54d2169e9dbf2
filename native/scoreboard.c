#include "tcp.h"

#define ACKED_HOLE_LIFETIME_NS 1000000000LL    /* how late a copy of ACKed bytes may still pass the tap */

static void remove_hole(struct scoreboard *b, int i)
{
    b->hole_count--;
    memmove(&b->holes[i], &b->holes[i + 1], (size_t)(b->hole_count - i) * sizeof b->holes[0]);
}

uint32_t board_size(void)
{
    return sizeof(struct scoreboard);
}

struct scoreboard *board_of(const struct vms_table *t, const struct tcp_half *half)
{
    return half->board ? pool_at(&t->boards, half->board) : NULL;
}

struct scoreboard *board_want(struct vms_table *t, struct tcp_half *half)
{
    struct scoreboard *b = board_of(t, half);
    if (b)
        return b;
    if (!(half->board = pool_take(&t->boards))) {
        t->counters.scoreboards_missing++;
        return NULL;
    }
    b = board_of(t, half);
    b->hole_count = b->flight_count = 0;
    return b;
}

void board_tidy(struct vms_table *t, struct tcp_half *half)
{
    struct scoreboard *b = board_of(t, half);
    if (!b || b->flight_count)
        return;
    for (int i = b->hole_count - 1; i >= 0; i--)
        if (b->holes[i].acked && b->holes[i].born_ns + ACKED_HOLE_LIFETIME_NS < t->now_ns)
            remove_hole(b, i);
    if (b->hole_count)
        return;
    pool_give(&t->boards, half->board);
    half->board = 0;
}

/* ---- holes ---- */

static bool insert_hole(struct scoreboard *b, int i, struct hole hole)
{
    if (b->hole_count == BOARD_HOLES)
        return false;
    memmove(&b->holes[i + 1], &b->holes[i], (size_t)(b->hole_count - i) * sizeof b->holes[0]);
    b->holes[i] = hole;
    b->hole_count++;
    return true;
}

bool board_open_hole(struct scoreboard *b, uint32_t start, uint32_t end, int64_t now_ns)
{
    for (int i = 0; b->hole_count == BOARD_HOLES && i < BOARD_HOLES; i++)
        if (b->holes[i].acked)                          /* settled long ago: the first to be forgotten */
            remove_hole(b, i);
    return insert_hole(b, b->hole_count, (struct hole){start, end, now_ns, false});
}

/* Cuts [start, end) out of hole i; returns the bytes cut. The remainder may be two holes. */
static uint32_t cut_hole(struct scoreboard *b, int i, uint32_t start, uint32_t end)
{
    struct hole *hole = &b->holes[i], right = *hole;
    uint32_t from = seq_before(start, hole->start) ? hole->start : start;
    uint32_t to = seq_before(hole->end, end) ? hole->end : end;
    bool left_remains = seq_before(hole->start, from), right_remains = seq_before(to, hole->end);
    if (left_remains && right_remains) {
        right.start = to;
        hole->end = from;
        if (!insert_hole(b, i + 1, right))
            hole->end = right.end;                      /* no room to split: the whole stays a hole */
    } else if (left_remains) {
        hole->end = from;
    } else if (right_remains) {
        hole->start = to;
    } else {
        remove_hole(b, i);
    }
    return to - from;
}

enum fill board_fill(struct scoreboard *b, uint32_t start, uint32_t end, int64_t *born_ns, uint32_t *bytes)
{
    enum fill fill = FILL_NONE;
    *bytes = 0;
    for (int i = 0; i < b->hole_count; i++) {
        const struct hole *hole = &b->holes[i];
        if (seq_at_most(hole->end, start) || seq_at_most(end, hole->start))
            continue;
        if (fill == FILL_NONE) {
            fill = hole->acked ? FILL_ACKED : FILL_OPEN;
            *born_ns = hole->born_ns;
        }
        int before = b->hole_count;
        *bytes += cut_hole(b, i, start, end);
        i -= b->hole_count < before;                    /* the next one has moved here */
    }
    return fill;
}

uint32_t board_ack_holes(struct scoreboard *b, uint32_t ack, int64_t now_ns)
{
    uint32_t bytes = 0;
    for (int i = 0; i < b->hole_count; i++) {
        struct hole *hole = &b->holes[i];
        if (hole->acked || !seq_before(hole->start, ack))
            continue;
        if (seq_before(ack, hole->end)) {               /* ACKed in part */
            struct hole rest = *hole;
            rest.start = ack;
            bytes += ack - hole->start;
            if (insert_hole(b, i + 1, rest))
                b->holes[i].end = ack;
            else
                b->holes[i].start = ack;
            if (b->holes[i].end != ack)
                continue;
        } else {
            bytes += hole->end - hole->start;
        }
        b->holes[i].acked = true;
        b->holes[i].born_ns = now_ns;
    }
    return bytes;
}

void board_forget(struct scoreboard *b, uint32_t seq)
{
    while (b->hole_count && seq_at_most(b->holes[0].end, seq))
        remove_hole(b, 0);
    while (b->flight_count && seq_at_most(b->flight[0].end, seq))
        memmove(b->flight, b->flight + 1, --b->flight_count * sizeof b->flight[0]);
}

bool board_has_open_hole(const struct scoreboard *b)
{
    for (int i = 0; i < b->hole_count; i++)
        if (!b->holes[i].acked)
            return true;
    return false;
}

/* ---- segments in flight ---- */

void board_launch(struct scoreboard *b, uint32_t end, int64_t ts_ns)
{
    if (b->flight_count < BOARD_FLIGHT) {
        b->flight[b->flight_count++] = (struct in_flight){end, ts_ns};
        return;
    }
    /* Full: the newest one gives way, so that a long flight is sampled at both its ends. */
    b->flight[BOARD_FLIGHT - 1] = (struct in_flight){end, ts_ns};
}

int64_t board_land(struct scoreboard *b, uint32_t ack)
{
    int landed = 0;
    int64_t sent_ns = -1;
    while (landed < b->flight_count && seq_at_most(b->flight[landed].end, ack)) {
        if (b->flight[landed].end == ack)
            sent_ns = b->flight[landed].ts_ns;
        landed++;
    }
    b->flight_count = (uint8_t)(b->flight_count - landed);
    memmove(b->flight, b->flight + landed, b->flight_count * sizeof b->flight[0]);
    return sent_ns;
}

void board_abort(struct scoreboard *b, uint32_t seq)
{
    while (b->flight_count && seq_before(seq, b->flight[b->flight_count - 1].end))
        b->flight_count--;
}
