/*
 * Transit: a mirror that sees a packet before and after a virtual router or switch measures, with its copy, the time
 * through it. Kept for the open window, and only for flows that have copies.
 */

#include "flow.h"

const vms_transit_t *transit_of(const struct vms_table *t, const struct flow *f, int direction)
{
    return (const vms_transit_t *)pool_at(&t->transits, f->transits) + direction;
}

void transit_add(vms_transit_t *sum, const vms_transit_t *part)
{
    if (!part->count)
        return;
    if (!sum->count || part->min_ns < sum->min_ns)
        sum->min_ns = part->min_ns;
    if (part->max_ns > sum->max_ns)
        sum->max_ns = part->max_ns;
    sum->sum_ns += part->sum_ns;
    sum->count += part->count;
}

void transit_note(struct vms_table *t, struct flow *f, int direction, int64_t ns)
{
    if (ns < 0)
        return;                                         /* two clocks, or two queues: no time at all */
    if (!f->transits) {
        if (!(f->transits = pool_take(&t->transits)))
            return;
        memset(pool_at(&t->transits, f->transits), 0, t->transits.object_size);
    }
    vms_transit_t *transits = pool_at(&t->transits, f->transits);
    const vms_transit_t sample = {.sum_ns = (uint64_t)ns, .min_ns = (uint64_t)ns, .max_ns = (uint64_t)ns, .count = 1};
    transit_add(&transits[direction], &sample);
}

void transit_release(struct vms_table *t, struct flow *f)
{
    if (f->transits)
        pool_give(&t->transits, f->transits);
    f->transits = 0;
}
