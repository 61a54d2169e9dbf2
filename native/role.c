/* Client and server by their ports, for flows whose handshake the tap has not seen. */

#include <stdlib.h>

#include "flow.h"

#define EPHEMERAL_LOWEST 32768      /* Linux ip_local_port_range; IANA's dynamic ports begin at 49152 */

/* Registered ports (1024 and above) at which services commonly listen, ascending. */
static const uint16_t service_ports[] = {
    1080,  1194,  1433,  1434,  1521,  1701,  1723,  1812,  1813,  1883,  2049,  2181,  2375,  2376,  2379,  2380,
    3000,  3128,  3260,  3306,  3389,  3478,  4222,  4369,  4789,  5000,  5044,  5060,  5061,  5201,  5222,  5353,
    5432,  5601,  5671,  5672,  5900,  5984,  5985,  5986,  6081,  6379,  6443,  6633,  6653,  6667,  7000,  7077,
    7474,  7687,  8000,  8008,  8080,  8081,  8086,  8088,  8123,  8125,  8200,  8300,  8301,  8428,  8443,  8472,
    8500,  8529,  8600,  8888,  9000,  9042,  9090,  9092,  9093,  9100,  9160,  9200,  9300,  9418,  9999,  10000,
    10050, 10051, 10250, 11211, 15672, 16443, 25565, 26257, 27017, 27018, 28015, 50051, 61616,
};

static int compare_ports(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

/* How likely a service listens there. */
static int service_rank(uint16_t port)
{
    if (port < 1024)
        return 3;
    if (bsearch(&port, service_ports, sizeof service_ports / sizeof port, sizeof port, compare_ports))
        return 2;
    return port < EPHEMERAL_LOWEST;
}

void role_guess(struct flow *f, const struct packet *p, int direction)
{
    f->client = (uint8_t)direction;
    f->role_source = VMS_ROLE_FIRST;
    if (!p->has_ports || p->protocol == TRANSPORT_ICMP || p->protocol == TRANSPORT_ICMP6)
        return;
    int source = service_rank(p->sport), destination = service_rank(p->dport);
    if (source == destination)
        return;
    f->client = (uint8_t)(source > destination ? !direction : direction);
    f->role_source = VMS_ROLE_PORT;
}
