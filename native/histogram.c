/*
 * Latency histograms of the open window: for each flow a short list of the buckets that were hit, cut from one arena
 * that is emptied when the window is rolled. Log-linear buckets, as in HdrHistogram: 16 to the octave.
 */

#include "flow.h"

#define SUB_BITS 4
#define SUB_BUCKETS (1u << SUB_BITS)

struct bin {
    uint32_t next;
    uint32_t count;
    uint16_t bucket;
    uint16_t histogram;
};

uint32_t histogram_bin_size(void)
{
    return sizeof(struct bin);
}

static uint32_t bucket_of(uint64_t ns)
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

/* Moves the wanted bin to the front of the flow's list; NULL if it is not there. */
static struct bin *find_bin(const struct vms_table *t, struct flow *f, uint32_t bucket, enum vms_histogram which)
{
    uint32_t *link = &f->bins;
    while (*link) {
        uint32_t handle = *link;
        struct bin *bin = pool_at(&t->bins, handle);
        if (bin->bucket == bucket && bin->histogram == which) {
            *link = bin->next;
            bin->next = f->bins;
            f->bins = handle;
            return bin;
        }
        link = &bin->next;
    }
    return NULL;
}

void histogram_add(struct vms_table *t, struct flow *f, enum vms_histogram which, uint64_t ns)
{
    uint32_t bucket = bucket_of(ns);
    struct bin *bin = find_bin(t, f, bucket, which);
    if (bin) {
        bin->count++;
        return;
    }
    uint32_t handle = pool_take(&t->bins);
    if (!handle) {
        t->counters.samples_unbinned++;
        return;
    }
    bin = pool_at(&t->bins, handle);
    *bin = (struct bin){f->bins, 1, (uint16_t)bucket, (uint16_t)which};
    f->bins = handle;
}

uint32_t histogram_export(const struct vms_table *t, const struct flow *f, uint32_t record, vms_bin_t *bins,
                          uint32_t capacity)
{
    uint32_t written = 0;
    for (uint32_t handle = f->bins; handle && written < capacity; written++) {
        const struct bin *bin = pool_at(&t->bins, handle);
        bins[written] = (vms_bin_t){record, bin->count, bin->bucket, bin->histogram};
        handle = bin->next;
    }
    return written;
}
