#include "tcp.h"

#define ACKED_HOLE_LIFETIME_NS 1000000000LL    /* how late a copy of ACKed bytes may still pass the tap */
#define RESEND_LIFETIME_NS 4000000000LL        /* how late a DSACK may still name a resend */

uint32_t board_size(void)
{
    return sizeof(struct scoreboard);
}

uint32_t board_losses_size(void)
{
    return sizeof(struct losses);
}

uint32_t board_flight_size(void)
{
    return sizeof(struct long_flight);
}

uint32_t board_hole_size(void)
{
    return sizeof(struct hole);
}

struct scoreboard *board_of(const struct vms_table *t, const struct tcp_half *half)
{
    return half->board ? (struct scoreboard *)t->boards.objects + half->board : NULL;
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
    memset(b, 0, sizeof *b);
    return b;
}

/* Of a scoreboard that has any. */
static struct losses *losses_of(const struct vms_table *t, const struct scoreboard *b)
{
    return pool_at(&t->losses, b->losses);
}

/* NULL when there is no memory. */
static struct losses *losses_want(struct vms_table *t, struct scoreboard *b)
{
    if (b->losses)
        return losses_of(t, b);
    if (!(b->losses = pool_take(&t->losses)))
        return NULL;
    return memset(losses_of(t, b), 0, sizeof(struct losses));
}

/* ---- holes: a list ---- */

static struct hole *hole_at(const struct vms_table *t, uint32_t handle)
{
    return pool_at(&t->holes, handle);
}

bool board_is_open(const struct vms_table *t, const struct scoreboard *b)
{
    return b->losses && losses_of(t, b)->open_holes;
}

static uint32_t first_hole(const struct vms_table *t, const struct scoreboard *b)
{
    return b->losses ? losses_of(t, b)->first_hole : 0;
}

/* Handle of the hole behind `before` (0: of the first one). */
static uint32_t hole_behind(const struct vms_table *t, const struct scoreboard *b, uint32_t before)
{
    return before ? hole_at(t, before)->next : first_hole(t, b);
}

/* Removes the hole behind `before` (0: the first one); returns the handle of the one that followed it. */
static uint32_t remove_hole(struct vms_table *t, struct scoreboard *b, uint32_t before)
{
    struct losses *losses = losses_of(t, b);
    uint32_t handle = hole_behind(t, b, before);
    const struct hole *hole = hole_at(t, handle);
    uint32_t next = hole->next;
    if (before)
        hole_at(t, before)->next = next;
    else
        losses->first_hole = next;
    if (losses->last_hole == handle)
        losses->last_hole = before;
    losses->hole_count--;
    losses->open_holes -= !hole->acked;
    pool_give(&t->holes, handle);
    return next;
}

/* Puts a hole behind `before` (0: first). False when there is no room. */
static bool insert_hole(struct vms_table *t, struct scoreboard *b, uint32_t before, struct hole hole)
{
    struct losses *losses = losses_want(t, b);
    uint32_t handle = losses && losses->hole_count < BOARD_HOLES ? pool_take(&t->holes) : 0;
    if (!handle)
        return false;
    uint32_t *link = before ? &hole_at(t, before)->next : &losses->first_hole;
    hole.next = *link;
    *hole_at(t, handle) = hole;
    *link = handle;
    if (losses->last_hole == before)
        losses->last_hole = handle;
    losses->hole_count++;
    losses->open_holes += !hole.acked;
    return true;
}

/* Drops ACKed holes that were ACKed before `ns`. */
static void settle(struct vms_table *t, struct scoreboard *b, int64_t ns)
{
    for (uint32_t before = 0, at = first_hole(t, b); at;) {
        if (hole_at(t, at)->acked && hole_at(t, at)->born_ns < ns) {
            at = remove_hole(t, b, before);
        } else {
            before = at;
            at = hole_at(t, at)->next;
        }
    }
}

bool board_open_hole(struct vms_table *t, struct scoreboard *b, struct hole hole)
{
    const struct losses *losses = losses_want(t, b);
    if (losses && losses->hole_count == BOARD_HOLES)
        settle(t, b, INT64_MAX);
    return losses && insert_hole(t, b, losses->last_hole, hole);
}

/* Cuts [start, end), which overlaps it, out of the hole behind `before`; the remainder may be none, or two holes.
   Sets `bytes` to what was cut, and returns the last of what is left of it, or `before`. */
static uint32_t cut_hole(struct vms_table *t, struct scoreboard *b, uint32_t before, uint32_t start, uint32_t end,
                         uint32_t *bytes)
{
    uint32_t handle = hole_behind(t, b, before);
    struct hole *hole = hole_at(t, handle), right = *hole;
    uint32_t from = seq_before(start, hole->start) ? hole->start : start;
    uint32_t to = seq_before(hole->end, end) ? hole->end : end;
    bool left_remains = seq_before(hole->start, from), right_remains = seq_before(to, hole->end);
    *bytes = to - from;
    if (!left_remains && !right_remains) {
        remove_hole(t, b, before);
        return before;
    }
    if (!left_remains) {
        hole->start = to;
    } else if (!right_remains) {
        hole->end = from;
    } else {
        right.start = to;
        if (!insert_hole(t, b, handle, right))
            return handle;                              /* no room to split: the whole stays a hole */
        hole->end = from;
        return hole->next;
    }
    return handle;
}

enum fill board_fill(struct vms_table *t, struct scoreboard *b, uint32_t start, uint32_t end, struct hole *met,
                     uint32_t *bytes)
{
    enum fill fill = FILL_NONE;
    *bytes = 0;
    for (uint32_t before = 0, at = first_hole(t, b); at; at = hole_behind(t, b, before)) {
        const struct hole *hole = hole_at(t, at);
        if (seq_at_most(end, hole->start))
            break;
        if (seq_at_most(hole->end, start)) {
            before = at;
            continue;
        }
        if (fill == FILL_NONE) {
            fill = hole->acked ? FILL_ACKED : FILL_OPEN;
            *met = *hole;
        }
        uint32_t cut;
        before = cut_hole(t, b, before, start, end, &cut);
        *bytes += cut;
    }
    return fill;
}

const struct hole *board_hole_below(const struct vms_table *t, const struct scoreboard *b, uint32_t end)
{
    const struct hole *last = first_hole(t, b) ? hole_at(t, losses_of(t, b)->last_hole) : NULL;
    return last && last->end == end ? last : NULL;
}

uint32_t board_ack_holes(struct vms_table *t, struct scoreboard *b, uint32_t ack, int64_t now_ns)
{
    uint32_t bytes = 0;
    if (!board_is_open(t, b))
        return 0;
    for (uint32_t at = first_hole(t, b); at && seq_before(hole_at(t, at)->start, ack); at = hole_at(t, at)->next) {
        struct hole *hole = hole_at(t, at);
        if (hole->acked)
            continue;
        if (seq_before(ack, hole->end)) {               /* ACKed in part */
            struct hole rest = *hole;
            rest.start = ack;
            bytes += ack - hole->start;
            if (!insert_hole(t, b, at, rest)) {
                hole->start = ack;
                break;
            }
            hole->end = ack;
        } else {
            bytes += hole->end - hole->start;
        }
        hole->acked = true;
        hole->born_ns = now_ns;
        losses_of(t, b)->open_holes--;
    }
    return bytes;
}

void board_forget(struct vms_table *t, struct scoreboard *b, uint32_t seq)
{
    while (first_hole(t, b) && seq_at_most(hole_at(t, first_hole(t, b))->end, seq))
        remove_hole(t, b, 0);
    board_land(t, b, seq);
}

/* ---- segments in flight ---- */

static struct long_flight *flight_of(const struct vms_table *t, const struct scoreboard *b)
{
    return pool_at(&t->flights, b->long_flight);
}

static uint32_t flight_index(const struct long_flight *flight, uint32_t i)
{
    return (flight->first + i) & (BOARD_FLIGHT - 1);
}

static uint32_t newest_index(const struct long_flight *flight)
{
    return flight_index(flight, flight->count - 1);
}

/* There is room; a flight that is full has had its newest one dropped. */
static void push_long(struct long_flight *flight, uint32_t end, int64_t ts_ns)
{
    uint32_t at = flight_index(flight, flight->count++);
    flight->end[at] = end;
    flight->ns[at] = ts_ns;
}

/* Moves the one to where there is room for more. False when there is no memory. */
static bool lengthen(struct vms_table *t, struct scoreboard *b)
{
    uint32_t handle = pool_take(&t->flights);
    if (!handle)
        return false;
    struct long_flight *flight = pool_at(&t->flights, handle);
    flight->first = flight->count = 0;
    push_long(flight, b->flight_end, (int64_t)b->flight_ns);
    b->flight = FLIGHT_LONG;
    b->long_flight = handle;
    return true;
}

/* Moves the one that is left back, if one is. */
static void shorten(struct vms_table *t, struct scoreboard *b)
{
    uint32_t handle = b->long_flight;
    const struct long_flight *flight = flight_of(t, b);
    b->flight = flight->count ? FLIGHT_ONE : FLIGHT_NONE;
    b->flight_end = flight->end[flight->first];
    b->flight_ns = (uint64_t)flight->ns[flight->first];
    pool_give(&t->flights, handle);
}

/* Where there is no memory for one more, the newest one gives way. */
static void push_flight(struct vms_table *t, struct scoreboard *b, uint32_t end, int64_t ts_ns)
{
    if (b->flight == FLIGHT_LONG || (b->flight == FLIGHT_ONE && lengthen(t, b))) {
        push_long(flight_of(t, b), end, ts_ns);
        return;
    }
    b->flight = FLIGHT_ONE;
    b->flight_end = end;
    b->flight_ns = (uint64_t)ts_ns;
}

void board_gather(struct vms_table *t, struct tcp_half *half)
{
    if (!half->in_flight)
        return;
    struct scoreboard *b = board_want(t, half);
    half->in_flight = false;
    if (b)
        push_flight(t, b, half->next, (int64_t)half->sent_ns);
}

/* Full: the newest one gives way, so that a long flight is sampled at both its ends. */
void board_launch(const struct vms_table *t, struct tcp_half *half)
{
    const struct scoreboard *b = board_of(t, half);
    if (b && b->flight == FLIGHT_LONG && flight_of(t, b)->count == BOARD_FLIGHT)
        flight_of(t, b)->count--;
    half->in_flight = true;
}

int64_t board_newest_ns(const struct vms_table *t, const struct scoreboard *b, uint32_t end)
{
    if (b->flight != FLIGHT_LONG)
        return b->flight == FLIGHT_ONE && b->flight_end == end ? (int64_t)b->flight_ns : -1;
    const struct long_flight *flight = flight_of(t, b);
    return flight->count && flight->end[newest_index(flight)] == end ? flight->ns[newest_index(flight)] : -1;
}

static int64_t land_one(struct scoreboard *b, uint32_t ack)
{
    if (b->flight == FLIGHT_NONE || seq_before(ack, b->flight_end))
        return -1;
    b->flight = FLIGHT_NONE;
    return b->flight_end == ack ? (int64_t)b->flight_ns : -1;
}

static int64_t land_long(struct vms_table *t, struct scoreboard *b, uint32_t ack)
{
    struct long_flight *flight = flight_of(t, b);
    int64_t sent_ns = -1;
    while (flight->count && seq_at_most(flight->end[flight->first], ack)) {
        if (flight->end[flight->first] == ack)
            sent_ns = flight->ns[flight->first];
        flight->first = flight_index(flight, 1);
        flight->count--;
    }
    if (flight->count <= 1)
        shorten(t, b);
    return sent_ns;
}

int64_t board_land(struct vms_table *t, struct scoreboard *b, uint32_t ack)
{
    return b->flight == FLIGHT_LONG ? land_long(t, b, ack) : land_one(b, ack);
}

void board_abort(const struct vms_table *t, struct tcp_half *half, uint32_t seq)
{
    struct scoreboard *b = board_of(t, half);
    if (seq_before(seq, half->next))
        half->in_flight = false;
    if (!b)
        return;
    if (b->flight != FLIGHT_LONG) {
        if (seq_before(seq, b->flight_end))
            b->flight = FLIGHT_NONE;
        return;
    }
    struct long_flight *flight = flight_of(t, b);
    while (flight->count && seq_before(seq, flight->end[newest_index(flight)]))
        flight->count--;
}

static bool is_held(uint32_t segment_end, uint32_t start, uint32_t end)
{
    return seq_before(start, segment_end) && seq_at_most(segment_end, end);
}

void board_abort_held(const struct vms_table *t, struct scoreboard *b, uint32_t start, uint32_t end)
{
    if (b->flight != FLIGHT_LONG) {
        if (is_held(b->flight_end, start, end))
            b->flight = FLIGHT_NONE;
        return;
    }
    struct long_flight *flight = flight_of(t, b);
    uint32_t count = flight->count;
    flight->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = flight_index(flight, i);
        if (!is_held(flight->end[at], start, end))
            push_long(flight, flight->end[at], flight->ns[at]);
    }
}

/* ---- resends ---- */

static struct resend *resend_at(const struct vms_table *t, const struct scoreboard *b, uint32_t age)
{
    struct losses *losses = losses_of(t, b);
    return &losses->resends[(losses->resend_next + BOARD_RESENDS - age) % BOARD_RESENDS];
}

static uint32_t resends_of(const struct vms_table *t, const struct scoreboard *b)
{
    return b->losses ? losses_of(t, b)->resend_count : 0;
}

void board_note_resend(struct vms_table *t, struct scoreboard *b, struct resend resend, int64_t now_ns)
{
    struct losses *losses = losses_want(t, b);
    if (!losses) {
        t->counters.scoreboards_missing++;
        return;
    }
    losses->resent_ns = now_ns;
    struct resend *last = resend_at(t, b, 1);
    if (losses->resend_count && last->end == resend.start && last->kind == resend.kind) {
        last->end = resend.end;
        last->segments = (uint16_t)(last->segments + resend.segments);
        return;
    }
    *resend_at(t, b, 0) = resend;
    losses->resend_next = (losses->resend_next + 1) % BOARD_RESENDS;
    losses->resend_count += losses->resend_count < BOARD_RESENDS;
}

void board_forget_resends(const struct vms_table *t, const struct scoreboard *b)
{
    if (b->losses)
        losses_of(t, b)->resend_count = 0;
}

struct resend *board_find_resend(const struct vms_table *t, struct scoreboard *b, uint32_t start, uint32_t end)
{
    for (uint32_t age = 1; age <= resends_of(t, b); age++) {
        struct resend *r = resend_at(t, b, age);
        if (r->segments && seq_at_most(r->start, start) && seq_at_most(end, r->end))
            return r;
    }
    return NULL;
}

/* ---- the whole ---- */

void board_prefetch(const struct vms_table *t, const struct tcp_half *half)
{
    fetch_line((struct scoreboard *)t->boards.objects + half->board);
}

static void give_back(struct vms_table *t, struct tcp_half *half)
{
    struct scoreboard *b = board_of(t, half);
    if (!b)
        return;
    while (first_hole(t, b))
        remove_hole(t, b, 0);
    if (b->losses)
        pool_give(&t->losses, b->losses);
    if (b->flight == FLIGHT_LONG)
        pool_give(&t->flights, b->long_flight);
    pool_give(&t->boards, half->board);
    half->board = 0;
}

void board_drop(struct vms_table *t, struct tcp_half *half)
{
    half->in_flight = false;
    give_back(t, half);
}

static bool is_under_way(const struct vms_table *t, const struct scoreboard *b)
{
    return b->flight == FLIGHT_ONE || (b->flight == FLIGHT_LONG && flight_of(t, b)->count);
}

void board_tidy(struct vms_table *t, struct tcp_half *half)
{
    struct scoreboard *b = board_of(t, half);
    if (!b || is_under_way(t, b) || (resends_of(t, b) && losses_of(t, b)->resent_ns + RESEND_LIFETIME_NS > t->now_ns))
        return;
    if (first_hole(t, b))
        settle(t, b, t->now_ns - ACKED_HOLE_LIFETIME_NS);
    if (!first_hole(t, b))
        give_back(t, half);
}
