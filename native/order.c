/*
 * When a packet left its sender, compared with another of the same direction: by the TCP timestamp that the sender put
 * in (RFC 7323), which never goes back, and by the IP identification where the sender counts with it. A segment that was
 * overtaken on its way is older than those behind it; one that was sent again is younger.
 */

#include "tcp.h"

#define ID_STEP_MOST 256            /* a sender may talk to others in between, with the same counter */
#define IDS_TRUSTED 2               /* so many steps in a row that fit */

struct sent_mark order_mark(const struct packet *p)
{
    uint8_t size = 0;
    const uint8_t *timestamps = p->tcp_options_size >= 10 ? tcp_option(p, TCP_OPTION_TIMESTAMPS, &size) : NULL;
    bool timed = timestamps && size == 8;
    return (struct sent_mark){.known = true, .timed = timed, .ts_val = timed ? be32(timestamps) : 0,
                              .ip_id = (uint16_t)p->ip_id};
}

void order_learn_id(struct tcp_half *half, const struct packet *p, bool first)
{
    int16_t step = (int16_t)(p->ip_id - half->last_ip_id);
    bool is_next = (uint16_t)(step - 1) < ID_STEP_MOST;     /* small and forward */
    if (p->fragmented)
        return;
    if (is_next && !first) {
        half->last_ip_id = (uint16_t)p->ip_id;
        if (half->ids_in_order < IDS_TRUSTED)
            half->ids_in_order++;
        return;
    }
    if (!first && step == 0)
        half->flags |= HALF_IDS_REPEAT;
    if (step > ID_STEP_MOST || step < -ID_STEP_MOST)
        half->ids_in_order = 0;
    if (first || step > 0 || step < -ID_STEP_MOST)
        half->last_ip_id = (uint16_t)p->ip_id;
}

static enum sent_order sign(int32_t difference)
{
    return difference < 0 ? ORDER_BEFORE : difference > 0 ? ORDER_AFTER : ORDER_UNKNOWN;
}

enum sent_order order_of(const struct tcp_half *half, const struct packet *p, const struct sent_mark *mark)
{
    struct sent_mark own = order_mark(p);
    bool counts = half->ids_in_order == IDS_TRUSTED && !(half->flags & HALF_IDS_REPEAT);
    enum sent_order by_time = own.timed && mark->timed ? sign((int32_t)(own.ts_val - mark->ts_val)) : ORDER_UNKNOWN;
    enum sent_order by_id = counts && mark->known ? sign((int16_t)(own.ip_id - mark->ip_id)) : ORDER_UNKNOWN;
    if (by_time == ORDER_UNKNOWN || by_id == ORDER_UNKNOWN)
        return by_time | by_id;
    return by_time == by_id ? by_time : ORDER_UNKNOWN;
}
