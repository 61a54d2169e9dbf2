/*
 * Latency histograms of the open window: for each flow the buckets that were hit, in chunks cut from one arena that is
 * emptied when the window is rolled. Log-linear buckets, as in HdrHistogram: 16 to the octave.
 */

#include "flow.h"

#define SUB_BITS 4
#define SUB_BUCKETS (1u << SUB_BITS)

#define CHUNK_BINS 14
#define BIN_FULL 0x8000             /* in the id of a bin that can not count on: no sample is looked for there */

/* A cache line of bins. An id is 1 + histogram * VMS_BUCKETS + bucket. */
struct chunk {
    uint16_t id[CHUNK_BINS + 1];    /* 0: unused, and so are those behind it; the last one always is */
    uint16_t used;                  /* BIN_FULL and how many are not: looked at with the ids, and none of them */
    uint16_t count[CHUNK_BINS];
    uint32_t next;
};
_Static_assert(sizeof(struct chunk) == 64 && offsetof(struct chunk, count) == 32, "a cache line, two vectors of ids");
_Static_assert(KEPT_HISTOGRAMS * VMS_BUCKETS < BIN_FULL, "an id fits");

uint32_t histogram_chunk_size(void)
{
    return sizeof(struct chunk);
}

static struct chunk *chunk_at(const struct vms_table *t, uint32_t handle)
{
    return (struct chunk *)t->bins.objects + handle;
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

typedef uint16_t lanes __attribute__((vector_size(16)));

/* The bin of that id, from 1 on; 0 if there is none. Without a branch: which it is, nobody could foretell. */
static uint32_t find_bin(const struct chunk *chunk, uint16_t id)
{
    static const lanes low = {1, 2, 3, 4, 5, 6, 7, 8}, high = {9, 10, 11, 12, 13, 14, 15, 16};
    lanes ids[2], wanted = {id, id, id, id, id, id, id, id};
    memcpy(ids, chunk, sizeof ids);
    lanes found = ((lanes)(ids[0] == wanted) & low) | ((lanes)(ids[1] == wanted) & high);
    uint64_t halves[2];
    memcpy(halves, &found, sizeof halves);
    uint64_t either = halves[0] | halves[1];            /* one lane at most is not 0 */
    either |= either >> 32;
    return (uint16_t)(either | either >> 16);
}

/* Counts the sample in a bin that is there; false if none is. */
static bool count_in(struct chunk *chunk, uint16_t id)
{
    uint32_t bin = find_bin(chunk, id);
    if (!bin)
        return false;
    if (++chunk->count[bin - 1] == UINT16_MAX)
        chunk->id[bin - 1] |= BIN_FULL;
    return true;
}

static bool has_room(const struct chunk *chunk)
{
    return chunk->used < (BIN_FULL | CHUNK_BINS);
}

/* An empty chunk at the front of the flow's list; NULL when the arena is exhausted. */
static struct chunk *new_chunk(struct vms_table *t, struct flow *f)
{
    uint32_t handle = pool_take(&t->bins);
    if (!handle)
        return NULL;
    struct chunk *chunk = chunk_at(t, handle);
    memset(chunk, 0, sizeof *chunk);
    chunk->used = BIN_FULL;
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

void histogram_prefetch(const struct vms_table *t, const struct flow *f)
{
    fetch_line(chunk_at(t, f->bins));
}

void histogram_add(struct vms_table *t, struct flow *f, enum kept_histogram which, uint64_t ns)
{
    uint16_t id = (uint16_t)(1 + which * VMS_BUCKETS + bucket_of_ns(ns));
    struct chunk *chunk, *before = NULL, *room = NULL;
    for (uint32_t handle = f->bins; handle; handle = chunk->next, before = chunk) {
        chunk = chunk_at(t, handle);
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
    uint32_t bin = room->used++ & ~BIN_FULL;
    room->id[bin] = id;
    room->count[bin] = 1;
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
        const struct chunk *chunk = chunk_at(t, handle);
        for (int i = 0; chunk->id[i] && written < capacity; i++) {
            uint16_t kept = (chunk->id[i] & ~BIN_FULL) - 1;
            bins[written++] = (vms_bin_t){record, chunk->count[i], kept % VMS_BUCKETS,
                                          (uint16_t)shown_as(f, kept / VMS_BUCKETS)};
        }
        handle = chunk->next;
    }
    return written;
}
