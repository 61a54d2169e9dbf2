/*
 * Counters that most flows leave at nothing: losses, resends, probes. Kept for the open window, and only for flows that
 * have them; together with stray numbers, as long as these may still be confirmed.
 */

#include "flow.h"

const struct trouble *trouble_so_far(const struct vms_table *t, const struct flow *f, int direction)
{
    return f->trouble ? (const struct trouble *)pool_at(&t->troubles, f->trouble) + direction : NULL;
}

struct trouble *trouble_of(struct vms_table *t, struct flow *f, int direction)
{
    if (!f->trouble) {
        if (!(f->trouble = pool_take(&t->troubles))) {
            t->counters.scoreboards_missing++;          /* what it would have counted is unknown */
            memset(t->untold, 0, sizeof t->untold);
            return &t->untold[direction];
        }
        memset(pool_at(&t->troubles, f->trouble), 0, t->troubles.object_size);
    }
    return (struct trouble *)pool_at(&t->troubles, f->trouble) + direction;
}

void trouble_clear(struct vms_table *t, struct flow *f)
{
    if (!f->trouble)
        return;
    if (!((f->tcp[0].flags | f->tcp[1].flags) & (HALF_STRAY | HALF_STRAY_ACK))) {
        trouble_release(t, f);
        return;
    }
    for (int direction = 0; direction < 2; direction++)
        memset(trouble_of(t, f, direction), 0, offsetof(struct trouble, stray));
}

void trouble_release(struct vms_table *t, struct flow *f)
{
    if (f->trouble)
        pool_give(&t->troubles, f->trouble);
    f->trouble = 0;
}
