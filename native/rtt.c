/* Round-trip times: the samples of both directions, and the path's own time that follows from them. */

#include "tcp.h"

#define REORDERING_NS 3000000LL             /* a hole filled within this time, with no RTT known, was reordering */

int64_t rtt_path_ns(const struct flow *f)
{
    return ((int64_t)f->tcp[0].base_rtt_us + f->tcp[1].base_rtt_us) * 1000;
}

int64_t tcp_earliest_resend_ns(const struct flow *f)
{
    int64_t around = rtt_path_ns(f);
    return around ? around - around / 8 : REORDERING_NS;
}

void rtt_note_base(struct tcp_half *half, uint64_t ns)
{
    uint64_t us = ns / 1000 ? ns / 1000 : 1;
    if (us < UINT32_MAX && (!half->base_rtt_us || us < half->base_rtt_us))
        half->base_rtt_us = (uint32_t)us;
}

void rtt_sample(struct vms_table *t, struct flow *f, int direction, int64_t sent_ns, int64_t acked_ns)
{
    struct tally *tally = &f->tally[direction];
    uint64_t ns = (uint64_t)(acked_ns - sent_ns);
    if (acked_ns < sent_ns || ns > LATENCY_MOST_NS)
        return;
    if (!tally->rtt_count++ || ns < tally->rtt_min_ns)
        tally->rtt_min_ns = ns;
    if (ns > tally->rtt_max_ns)
        tally->rtt_max_ns = ns;
    tally->rtt_sum_ns += ns;
    rtt_note_base(&f->tcp[direction], ns);
    histogram_add(t, f, direction ? KEPT_RTT_1 : KEPT_RTT_0, ns);
}
