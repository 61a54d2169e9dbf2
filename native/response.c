/* Response time: for TCP, and for UDP request and answer such as DNS. */

#include "flow.h"

void response_packet(struct vms_table *t, struct flow *f, int direction, int64_t ts_ns)
{
    if (direction == f->client) {
        f->request_ns = ts_ns;
        return;
    }
    int64_t request = f->request_ns;
    f->request_ns = 0;
    if (!request || ts_ns < request || ts_ns - request > LATENCY_MOST_NS)
        return;
    uint64_t ns = (uint64_t)(ts_ns - request);
    f->response_count++;
    f->response_sum_ns += ns;
    if (ns > f->response_max_ns)
        f->response_max_ns = ns;
    histogram_add(t, f, KEPT_RESPONSE, ns);
}
