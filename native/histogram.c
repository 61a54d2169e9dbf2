/*
 * Latency histograms of the open window: for each flow the buckets that were hit, in chunks cut from one arena that is
 * emptied when the window is rolled. Log-linear buckets, as in HdrHistogram: 16 to the octave.
 */

#include "flow.h"

#define SUB_BITS 4
#define SUB_BUCKETS (1u << SUB_BITS)

#define CHUNK_BINS 7

/* Half a cache line of bins. An id is histogram * VMS_BUCKETS + bucket. */
struct chunk {
    uint32_t next;
    struct {
        uint16_t id;
        uint16_t count;             /* 0: unused, and so are those behind it */
    } bins[CHUNK_BINS];
};
_Static_assert(sizeof(struct chunk) == 32, "two chunks a cache line");
_Static_assert(KEPT_HISTOGRAMS * VMS_BUCKETS <= UINT16_MAX, "an id fits");

uint32_t histogram_chunk_size(void)
{
    return sizeof(struct chunk);
}

static uint32_t bucket_of_ns(uint64_t ns)
{
    if (ns < SUB_BUCKETS)
        return (uint32_t)ns;
    uint32_t exponent = 63u - (uint32_t)__builtin_clzll(ns);
    uint32_t bucket = ((exponent - SUB_BITS + 1) << SUB_BITS) + ((ns >> (exponent - SUB_BITS)) & (SUB_BUCKETS - 1));
    return bucket < VMS_BUCKETS ? bucket : VMS_BUCKETS - 1;
}

uint64_t vms_bucket_low_ns(uint32_t bucket)
{
    if (bucket < SUB_BUCKETS)
        return bucket;
    return (uint64_t)(SUB_BUCKETS + (bucket & (SUB_BUCKETS - 1))) << ((bucket >> SUB_BITS) - 1);
}

/* Counts the sample in a bin that is there; false if none is, or if it is full. Looks at unused bins as well, which costs
   less than to ask where they begin. */
static bool count_in(struct chunk *chunk, uint16_t id)
{
    for (int i = 0; i < CHUNK_BINS; i++) {
        uint16_t count = chunk->bins[i].count;
        if (chunk->bins[i].id == id && count && count < UINT16_MAX) {
            chunk->bins[i].count++;
            return true;
        }
    }
    return false;
}

static bool has_room(const struct chunk *chunk)
{
    return !chunk->bins[CHUNK_BINS - 1].count;
}

/* An empty chunk at the front of the flow's list; NULL when the arena is exhausted. */
static struct chunk *new_chunk(struct vms_table *t, struct flow *f)
{
    uint32_t handle = pool_take(&t->bins);
    if (!handle)
        return NULL;
    struct chunk *chunk = pool_at(&t->bins, handle);
    memset(chunk, 0, sizeof *chunk);
    chunk->next = f->bins;
    f->bins = handle;
    return chunk;
}

/* Most samples of a flow are alike: the chunk that was hit goes to the front, where the next sample finds it. */
static void to_front(struct flow *f, struct chunk *chunk, uint32_t handle, struct chunk *before)
{
    if (!before)
        return;
    before->next = chunk->next;
    chunk->next = f->bins;
    f->bins = handle;
}

void histogram_add(struct vms_table *t, struct flow *f, enum kept_histogram which, uint64_t ns)
{
    uint16_t id = (uint16_t)(which * VMS_BUCKETS + bucket_of_ns(ns));
    struct chunk *chunk, *before = NULL, *room = NULL;
    for (uint32_t handle = f->bins; handle; handle = chunk->next, before = chunk) {
        chunk = pool_at(&t->bins, handle);
        if (count_in(chunk, id)) {
            to_front(f, chunk, handle, before);
            return;
        }
        room = has_room(chunk) ? chunk : room;
    }
    if (!room && !(room = new_chunk(t, f))) {
        t->counters.samples_unbinned++;
        return;
    }
    int i = 0;
    while (room->bins[i].count)
        i++;
    room->bins[i].id = id;
    room->bins[i].count = 1;
    t->bin_count++;
}

static enum vms_histogram shown_as(const struct flow *f, uint16_t kept)
{
    if (kept == KEPT_RESPONSE)
        return VMS_HISTOGRAM_RESPONSE;
    return kept == f->client ? VMS_HISTOGRAM_RTT_C2S : VMS_HISTOGRAM_RTT_S2C;
}

uint32_t histogram_export(const struct vms_table *t, const struct flow *f, uint32_t record, vms_bin_t *bins,
                          uint32_t capacity)
{
    uint32_t written = 0;
    for (uint32_t handle = f->bins; handle;) {
        const struct chunk *chunk = pool_at(&t->bins, handle);
        for (int i = 0; i < CHUNK_BINS && chunk->bins[i].count && written < capacity; i++) {
            uint16_t id = chunk->bins[i].id;
            bins[written++] = (vms_bin_t){record, chunk->bins[i].count, id % VMS_BUCKETS,
                                          (uint16_t)shown_as(f, id / VMS_BUCKETS)};
        }
        handle = chunk->next;
    }
    return written;
}
