/* A sender as fast as the machine lets it be: packets of TCP conversations, SYNs of forged sources, or both.

   usage: blast INTERFACE [--seconds S | --packets N] [--rate N] [--flows N] [--syns N] [--seed N] [--cpu N]

   What is sent depends on the arguments alone, packet by packet, so that whoever starts it can say what a sensor has to
   have counted. A turn is one packet of the conversations, if there are any (--flows), and then --syns SYNs, no two of
   them from the same address. The conversations take turns too: each has sent n packets before one sends n + 1.

        conversation    SYN, SYN-ACK, ACK, then again and again: request, its answer, ACK of the answer
        SYN             from 45.x.x.x, to port 80 of 10.2.0.1

   PACKET_QDISC_BYPASS: no queue of this host holds or drops what is sent. What the kernel does not take (the receiver's
   backlog is full) is not sent again. It prints what was taken and what was refused; the sum is what was offered. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { ETHERNET = 14, IP = 20, TCP = 20, HEADERS = ETHERNET + IP + TCP };
enum { REQUEST = 100, ANSWER = 400, LONGEST = HEADERS + ANSWER };
enum { SYN = 0x02, PUSH = 0x08, ACK = 0x10 };
enum { BATCH = 64, HANDSHAKE = 3, ROUND = 3 };
enum { CLIENTS = 0x0a010000, SERVERS = 0x0a020001, FORGED = 0x2d000000 };

struct options {
    const char *interface;
    uint64_t packets, rate, flows, syns, seed;
    double seconds;
    int cpu;
};

struct segment {
    uint32_t source, target, seq, ack;
    uint16_t source_port, target_port, id;
    uint8_t flags;
    unsigned payload;
};

static void fail(const char *what)
{
    fprintf(stderr, "blast: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- what is sent ---- */

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

static unsigned checksum(const uint8_t *at, unsigned octets, unsigned sum)
{
    for (unsigned i = 0; i < octets; i += 2)
        sum += (unsigned)at[i] << 8 | at[i + 1];
    sum = (sum >> 16) + (sum & 0xffff);
    return ~(sum + (sum >> 16)) & 0xffff;
}

/* Payload is zeros, which no checksum sees. Returns the length of the frame. */
static unsigned write_frame(uint8_t *frame, const struct segment *s)
{
    static const uint8_t link[ETHERNET] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0};
    uint8_t *ip = frame + ETHERNET, *tcp = ip + IP;
    memcpy(frame, link, ETHERNET);
    memset(ip, 0, IP + TCP);
    ip[0] = 0x45;
    put16(ip + 2, IP + TCP + s->payload);
    put16(ip + 4, s->id);
    put16(ip + 6, 0x4000); /* do not fragment */
    ip[8] = 64;
    ip[9] = IPPROTO_TCP;
    put32(ip + 12, s->source);
    put32(ip + 16, s->target);
    put16(ip + 10, checksum(ip, IP, 0));
    put16(tcp, s->source_port);
    put16(tcp + 2, s->target_port);
    put32(tcp + 4, s->seq);
    put32(tcp + 8, s->ack);
    tcp[12] = TCP / 4 << 4;
    tcp[13] = s->flags;
    put16(tcp + 14, 0xffff);
    put16(tcp + 16, checksum(ip + 12, 8 + TCP, IPPROTO_TCP + TCP + s->payload)); /* with both addresses before it */
    return HEADERS + s->payload;
}

static struct segment from_client(uint64_t flow, uint32_t seq, uint32_t ack, uint8_t flags, unsigned payload)
{
    struct segment s = {
        .source = CLIENTS + (uint32_t)(flow % 65000) + 1,
        .target = SERVERS + (uint32_t)(flow % 50),
        .source_port = (uint16_t)(32768 + flow / 65000),
        .target_port = 443,
        .seq = (uint32_t)flow * 7919 + seq,
        .ack = flags & ACK ? (uint32_t)flow * 104729 + ack : 0,
        .flags = flags,
        .payload = payload,
    };
    return s;
}

static struct segment from_server(uint64_t flow, uint32_t seq, uint32_t ack, uint8_t flags, unsigned payload)
{
    struct segment s = from_client(flow, 0, 0, flags, payload), back = s;
    back.source = s.target;
    back.target = s.source;
    back.source_port = s.target_port;
    back.target_port = s.source_port;
    back.seq = (uint32_t)flow * 104729 + seq;
    back.ack = (uint32_t)flow * 7919 + ack;
    return back;
}

static struct segment handshake(uint64_t flow, uint64_t step)
{
    if (step == 0)
        return from_client(flow, 0, 0, SYN, 0);
    return step == 1 ? from_server(flow, 0, 1, SYN | ACK, 0) : from_client(flow, 1, 1, ACK, 0);
}

static struct segment conversation(uint64_t flow, uint64_t step)
{
    if (step < HANDSHAKE)
        return handshake(flow, step);
    uint64_t round = (step - HANDSHAKE) / ROUND, part = (step - HANDSHAKE) % ROUND;
    uint32_t asked = (uint32_t)(1 + round * REQUEST), answered = (uint32_t)(1 + round * ANSWER);
    if (part == 0)
        return from_client(flow, asked, answered, PUSH | ACK, REQUEST);
    if (part == 1)
        return from_server(flow, answered, asked + REQUEST, PUSH | ACK, ANSWER);
    return from_client(flow, asked + REQUEST, answered + ANSWER, ACK, 0);
}

/* An odd factor makes a permutation of 24 bits: every address once in 16.7 million, in no order. */
static struct segment forged_syn(uint64_t number, uint64_t seed)
{
    struct segment s = {
        .source = FORGED | (uint32_t)((number * 0x9e3779b1u + seed) & 0xffffff),
        .target = SERVERS,
        .source_port = (uint16_t)(1024 + number % 60000),
        .target_port = 80,
        .seq = (uint32_t)(number * 2654435761u + seed),
        .id = (uint16_t)number,
        .flags = SYN,
    };
    return s;
}

static struct segment packet(const struct options *o, uint64_t number)
{
    uint64_t turn = number / (1 + o->syns), place = number % (1 + o->syns);
    if (o->flows == 0)
        return forged_syn(number, o->seed);
    if (place > 0)
        return forged_syn(turn * o->syns + place - 1, o->seed);
    struct segment s = conversation(turn % o->flows, turn / o->flows);
    s.id = (uint16_t)(turn / o->flows);
    return s;
}

/* ---- when, and where to ---- */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Asleep, not spinning: the receiver may need this processor. */
static void wait_until(double when)
{
    double rest = when - now();
    if (rest <= 0)
        return;
    struct timespec time = {.tv_sec = (time_t)rest, .tv_nsec = (long)(1e9 * (rest - (double)(time_t)rest))};
    nanosleep(&time, NULL);
}

static int open_wire(const char *interface)
{
    int wire = socket(AF_PACKET, SOCK_RAW, 0), on = 1, room = 64 << 20;
    struct sockaddr_ll place = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface)};
    if (wire < 0 || place.sll_ifindex == 0 || bind(wire, (struct sockaddr *)&place, sizeof place) < 0)
        fail(interface);
    if (setsockopt(wire, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) < 0)
        fail("PACKET_QDISC_BYPASS");
    /* Never wait for the receiver: a wire does not. */
    if (setsockopt(wire, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) < 0)
        fail("SO_SNDBUFFORCE");
    return wire;
}

static void stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        fail("--cpu");
}

/* How many of the batch were refused. A call that returns fewer than it was given was refused the one behind them. */
static unsigned send_batch(int wire, struct mmsghdr *messages, unsigned count)
{
    unsigned refused = 0;
    for (unsigned done = 0; done < count;) {
        int taken = sendmmsg(wire, messages + done, count - done, 0);
        if (taken < 0 && errno == EINTR)
            continue;
        if (taken < 0 && errno != ENOBUFS)
            fail("sendmmsg");
        done += taken < 0 ? 0 : (unsigned)taken;
        if (done < count) {
            refused++;
            done++;
        }
    }
    return refused;
}

static void blast(const struct options *o)
{
    static uint8_t frames[BATCH][LONGEST];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    for (unsigned i = 0; i < BATCH; i++) {
        parts[i].iov_base = frames[i];
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    int wire = open_wire(o->interface);
    uint64_t offered = 0, refused = 0;
    double begin = now(), end = begin + o->seconds;
    while (offered < o->packets && now() < end) {
        unsigned count = o->packets - offered < BATCH ? (unsigned)(o->packets - offered) : BATCH;
        for (unsigned i = 0; i < count; i++) {
            struct segment s = packet(o, offered + i);
            parts[i].iov_len = write_frame(frames[i], &s);
        }
        if (o->rate)
            wait_until(begin + (double)offered / (double)o->rate);
        refused += send_batch(wire, messages, count);
        offered += count;
    }
    printf("offered %llu taken %llu refused %llu in %.6f s\n", (unsigned long long)offered,
           (unsigned long long)(offered - refused), (unsigned long long)refused, now() - begin);
}

static uint64_t number(const char *text)
{
    char *rest;
    errno = 0;
    uint64_t value = strtoull(text, &rest, 10);
    if (*text == '\0' || *rest != '\0')
        errno = EINVAL;
    if (errno)
        fail(text);
    return value;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"seconds", required_argument, NULL, 's'}, {"packets", required_argument, NULL, 'p'},
        {"rate", required_argument, NULL, 'r'},    {"flows", required_argument, NULL, 'f'},
        {"syns", required_argument, NULL, 'y'},    {"seed", required_argument, NULL, 'e'},
        {"cpu", required_argument, NULL, 'c'},     {NULL, 0, NULL, 0},
    };
    struct options o = {.packets = UINT64_MAX, .seconds = 1e9, .cpu = -1};
    for (int got; (got = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (got) {
        case 's': o.seconds = (double)number(optarg); break;
        case 'p': o.packets = number(optarg); break;
        case 'r': o.rate = number(optarg); break;
        case 'f': o.flows = number(optarg); break;
        case 'y': o.syns = number(optarg); break;
        case 'e': o.seed = number(optarg); break;
        case 'c': o.cpu = (int)number(optarg); break;
        default: return 2;
        }
    }
    if (optind != argc - 1 || (o.flows == 0 && o.syns == 0)) {
        fprintf(stderr, "usage: blast INTERFACE [--seconds S | --packets N] [--rate N] [--flows N] [--syns N] ...\n");
        return 2;
    }
    o.interface = argv[optind];
    if (o.cpu >= 0)
        stay_on(o.cpu);
    blast(&o);
    return 0;
}
