/* Response time: for TCP, and for UDP request and answer such as DNS. */

#include "flow.h"

void response_packet(struct vms_table *t, struct flow *f, int direction, int64_t ts_ns)
{
    struct tcp_half *client = &f->tcp[f->client];
    if (direction == f->client) {
        client->sent_ns = (uint64_t)ts_ns;
        client->unanswered = true;
        return;
    }
    bool answers = client->unanswered;
    uint64_t ns = (uint64_t)(ts_ns - client->sent_ns);
    client->unanswered = false;
    if (!answers || ts_ns < (int64_t)client->sent_ns || ns > LATENCY_MOST_NS)
        return;
    f->response_count++;
    f->response_sum_ns += ns;
    if (ns > f->response_max_ns)
        f->response_max_ns = ns;
    histogram_add(t, f, KEPT_RESPONSE, ns);
}
