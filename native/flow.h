/*
 * The flow table: bounded, keyed on (domain, five-tuple), both directions in one entry.
 *
 * A flow lives in one queue by its kind; each kind has one idle timeout, and eviction takes from the kinds in order,
 * so a flood of one-packet flows evicts itself and not the busy connections. An ended flow leaves the index at once
 * but keeps its slot as a ghost until its part of the open window has been copied out.
 */
#ifndef VMS_FLOW_H
#define VMS_FLOW_H

#include "decode.h"
#include "duplicate.h"
#include "hash.h"
#include "pool.h"
#include "presence.h"
#include "share.h"

/* Three words, which are compared and hashed as such. */
struct flow_key {
    union {                         /* lower endpoint first, compared as bytes */
        uint32_t ip4[2];            /* in network order */
        uint32_t ip6;               /* handle of struct addresses */
    };
    uint64_t ends;                  /* | VNI 32 | port 16 | port 16, of the lower endpoint | */
    uint64_t kind;                  /* | KEY_ 16 | IP version 8 | protocol 8 | inner VLAN 16 | outer VLAN 16 | */
};
_Static_assert(sizeof(struct flow_key) == 24, "three words");

static inline uint16_t key_port(const struct flow_key *key, int endpoint)
{
    return (uint16_t)(key->ends >> 16 * endpoint);
}

static inline uint32_t key_vni(const struct flow_key *key)
{
    return (uint32_t)(key->ends >> 32);
}

/* Both tags; 0 in the lower half: none. */
static inline uint32_t key_vlans(const struct flow_key *key)
{
    return (uint32_t)key->kind;
}

static inline uint8_t key_protocol(const struct flow_key *key)
{
    return (uint8_t)(key->kind >> 32);
}

static inline uint8_t key_ip_version(const struct flow_key *key)
{
    return (uint8_t)(key->kind >> 40);
}

static inline uint16_t key_flags(const struct flow_key *key)
{
    return (uint16_t)(key->kind >> 48);
}

/* An IPv6 flow's: four times as long as IPv4's, and so kept apart. */
struct addresses {
    uint8_t ip[2][16];
};

enum {
    KEY_HAS_VNI = 1,
    KEY_HAS_PORTS = 2,
    KEY_TUNNELLED = 4               /* not from a bare frame: whoever can send a tunnel could forge another's packets */
};

#define LATENCY_MOST_NS 3600000000000LL     /* longer, and a clock was wrong: no sample */

/* In the order in which eviction takes from them. */
enum flow_kind {
    KIND_GHOST,                     /* ended; waits for the window to be rolled */
    KIND_CLOSED,                    /* FIN from both sides, or RST */
    KIND_NEW,                       /* one direction only so far */
    KIND_BOTH,                      /* both directions seen, not an established TCP connection */
    KIND_ESTABLISHED,
    KINDS
};

/* What a SYN said of window scaling (RFC 7323): SCALE_0 and above are the shift. */
enum { SCALE_UNKNOWN, SCALE_NONE, SCALE_0 };

/* What a packet carries that tells when it was sent: see order.c. */
struct sent_mark {
    uint32_t ts_val;
    uint16_t ip_id;
    bool known;
    bool timed;
};

/* What is known of one direction's sequence space, and of its IP identifications. */
struct tcp_half {
    uint32_t next;                  /* end of the highest sequence number seen */
    uint32_t acked;                 /* highest acknowledgment that the peer has sent */
    uint32_t edge;                  /* right edge of the window that the peer offers */
    uint32_t board;                 /* scoreboard handle, 0 if none */
    uint64_t sent_ns : 62;          /* when the stream last advanced; of UDP, the client's last datagram */
    uint64_t in_flight : 1;         /* by a segment that waits for the ACK of exactly `next`: the scoreboard has those
                                       before it, and in most directions there are none */
    uint64_t unanswered : 1;        /* with a request's last byte so far */
    uint32_t base_rtt_us;           /* lowest RTT ever, 0 if none */
    uint32_t blind_below;           /* holes below this were forgotten: no cause can be told there */
    uint16_t mss;                   /* that this side announced: the other's largest payload */
    uint16_t last_ip_id;            /* the highest, whatever its protocol */
    uint16_t flags;                 /* HALF_ */
    uint8_t segments;               /* that took up sequence numbers, as far as it counts */
    uint8_t scale : 5;              /* SCALE_ */
    uint8_t ids_in_order : 3;       /* how many steps of its IP identifications were small and forward */
};
_Static_assert(sizeof(struct tcp_half) == 40, "two in little more than a cache line");

enum {
    HALF_NEXT_KNOWN = 1,
    HALF_PROVISIONAL = 2,           /* next was learnt from a segment without data, which may have been a probe */
    HALF_ACKED_KNOWN = 4,
    HALF_EDGE_KNOWN = 8,
    HALF_BLIND = 16,                /* blind_below counts */
    HALF_UNSURE = 32,
    HALF_STRAY = 64,                /* its trouble's stray counts */
    HALF_STRAY_ACK = 128,
    HALF_DATA = 256,                /* has sent payload */
    HALF_LAST_ALONE = 512,          /* the last segment that advanced was a single byte */
    HALF_FIN = 1024,
    HALF_ZERO_WINDOW = 2048,
    HALF_PROBED = 4096,             /* a byte was sent into a closed window */
    HALF_IDS_REPEAT = 8192,         /* its IP identifications do not tell packets apart */
    HALF_REOPENED = 16384,          /* its window was closed; a probe of that may still be on its way */
    HALF_ACK_REPEATED = 32768       /* the peer has sent a duplicate ACK since its ACK last moved on */
};

/* What every flow counts of one direction, since the window opened. */
struct tally {
    uint64_t bytes;
    uint64_t payload_bytes;
    uint32_t packets;
    uint32_t data_packets;
    uint32_t mirror_duplicates;
    uint32_t rtt_count;
    uint64_t rtt_sum_ns;
    uint64_t rtt_min_ns;            /* valid while rtt_count > 0 */
    uint64_t rtt_max_ns;
};

/* And what few do. */
struct trouble {
    uint64_t unseen_bytes;
    uint32_t retransmissions;
    uint32_t spurious;
    uint32_t upstream_losses;
    uint32_t reordered;
    uint32_t zero_windows;
    uint32_t keepalives;
    uint32_t window_probes;
    uint32_t out_of_window;
    uint32_t unknown_causes;
    /* no counts; they outlive the window */
    uint32_t stray;                 /* end of a segment far out of the window: the next may show that it was true */
    uint32_t stray_ack;             /* the same of an acknowledgment by the peer */
    uint16_t stray_length;
};

/* Five and a half cache lines, in the order in which packets need them: docs/layout.md has a picture. */
struct flow {
    /* to find it, and of every packet */
    struct flow_key key;
    uint32_t hash;                  /* upper half of the keyed hash */
    uint32_t chain;                 /* next flow in the same bucket */
    int64_t last_ns;
    uint16_t flags;                 /* FLOW_ */
    uint8_t kind;
    uint8_t client : 1;             /* index of the client's direction */
    uint8_t state : 4;
    uint8_t role_source : 3;
    uint8_t mac[2][6];              /* of the sender in each direction */
    uint32_t trouble;               /* handle of struct trouble[2], 0 if there was none */
    uint32_t transits;              /* handle of vms_transit_t[2], 0 if no copy was timed in this window */

    struct tally tally[2];          /* index: 0 if sent by the lower endpoint */
    uint32_t bins;                  /* histogram bins of this window: a list of chunks */
    uint32_t tunnel;                /* handle of struct tunnel_ends, 0 if not tunnelled */

    struct tcp_half tcp[2];

    /* of an answer, a queue, a record */
    uint64_t response_sum_ns;       /* since the window opened */
    uint64_t response_max_ns;
    int64_t start_ns;
    int64_t queued_ns;              /* when it was last put at its queue's head */
    uint64_t id;
    int64_t handshake_client_ns;    /* while FLOW_OPENING: when the SYN-ACK passed, or, before that, the SYN */
    int64_t handshake_server_ns : 48;
    uint64_t end_reason : 8;
    uint64_t vlan_count : 8;
    uint32_t response_count;
    uint32_t queue_prev;
    uint32_t queue_next;
    uint32_t totals;                /* handle of struct totals, 0 if none yet */
    uint32_t client_isn;            /* to know the same SYN again */
    uint32_t copied_least : 15;     /* how soon certain copies have come: copy.c tells in which unit; 0 if none has */
    uint32_t copied_most : 15;      /* and how late */
    uint32_t copies_each : 2;       /* how many have come of one packet, at most */
    uint16_t vlan[VMS_VLAN_MAX];
};
_Static_assert(sizeof(struct flow) == 352, "five and a half cache lines");
_Static_assert(offsetof(struct flow, tally) == 64 && offsetof(struct flow, tcp) == 184, "one, and nearly two");
_Static_assert(offsetof(struct flow, response_sum_ns) == 264, "behind this, few packets touch anything");
_Static_assert(LATENCY_MOST_NS < 1LL << 47, "fits the server's half of the handshake");

enum {
    FLOW_LISTED = 1,                /* its slot stands in the window's list */
    FLOW_NEW = 2,                   /* began in this window */
    FLOW_HANDSHAKE_SERVER = 4,      /* measured in this window */
    FLOW_HANDSHAKE_CLIENT = 8,
    FLOW_SYN_RESENT = 16,
    FLOW_SYN_ACK_RESENT = 32,
    FLOW_SIMULTANEOUS = 64,
    FLOW_SEEN_0 = 128,              /* a packet of direction 0, 1 since the flow began */
    FLOW_SEEN_1 = 256,
    FLOW_COPIES_ROUTED = 1024,      /* a copy of a segment has come with another TTL */
    FLOW_COPIES_UNROUTED = 2048,    /* or with the same */
    FLOW_REFUSED = 4096,            /* the SYN was answered by a RST */
    FLOW_SYN = 8192,
    FLOW_SYN_ACK = 16384,
    FLOW_OPENING = 32768,           /* a time that the handshake's next packet needs stands in handshake_client_ns */
    FLOW_FAST_OPEN = 512            /* the SYN carried data (RFC 7413): the server answers before the handshake is over */
};
_Static_assert(FLOW_SEEN_1 == FLOW_SEEN_0 << 1, "one is made of the other");

static inline uint16_t flow_seen(int direction)
{
    return (uint16_t)(FLOW_SEEN_0 << direction);
}

/* The outer addresses of one direction's packets: the client's, as soon as it has sent one. */
struct tunnel_ends {
    uint8_t src[16];
    uint8_t dst[16];
    uint8_t ip_version;
    uint8_t kind;
    uint8_t direction;
};

/* A flow's life before the open window; kept only for vms_take_finished. */
struct totals {
    vms_half_t half[2];
    vms_transit_t transit[2];
    uint64_t response_sum_ns;
    uint64_t response_max_ns;
    uint32_t response_count;
};

struct listed {
    uint32_t slot;
    uint32_t packet;                /* of the window, of any share: at which there was something to report */
};

struct queue {
    uint32_t head;
    uint32_t tail;
    uint32_t length;
};

struct vms_table {
    vms_options_t options;
    vms_counters_t counters;
    struct decoder decoder;
    struct nh_key hash_key;
    struct duplicates duplicates;
    struct presence presence;
    struct share share;

    struct ahead ahead;
    uint32_t *buckets;
    uint32_t bucket_count;          /* that there are by now */
    uint32_t bucket_mask;           /* the lowest 2^n - 1 that covers their numbers */
    _Atomic uint64_t buckets_ready; /* octets of them that were taken ahead */
    struct pool flows;
    struct pool boards;
    struct pool holes;
    struct pool losses;
    struct pool flights;            /* long ones */
    struct pool addresses;
    struct pool troubles;
    struct pool transits;
    struct pool tunnels;
    struct pool totals;
    struct pool bins;
    struct queue queues[KINDS];

    int64_t now_ns;                 /* the newest timestamp */
    int64_t due_ns;                 /* no flow can be idle too long before this */
    uint32_t expire_a_packet;       /* EXPIRE_A_PACKET, or all that are due */
    int64_t window_start_ns;
    int64_t window_end_ns;
    uint64_t window_passed;         /* packets before it, those of other shares too */
    struct listed *listed;          /* flows with something to report in this window */
    uint32_t listed_count;
    uint32_t rolled_count;          /* of these, that are copied out already */
    uint32_t bin_count;
    vms_half_t overflow;
    struct trouble untold[2];       /* of a flow for which there was no memory; never read */

    vms_record_t *finished;         /* a ring, oldest first */
    uint32_t finished_head;
    uint32_t finished_count;
    uint32_t finished_capacity;
};

#define FINISHED_CAPACITY 8192u     /* for so many finished flows; more only where nobody waits */
#define FINISHED_SURE 512u          /* of these for what packets end that are decoded already */
#define EXPIRE_A_PACKET 2u          /* by packet, not by batch, so that the result does not depend on how packets arrive;
                                       more only where nobody waits: then it does not depend on other flows either */
#define FINISHED_A_PACKET (EXPIRE_A_PACKET + 2u)    /* what one packet can end: also its own five-tuple's, one evicted */
#define CONFIRMING_PACKETS 8        /* a one-sided flow of as many packets is no scan and no flood */

static inline struct flow *flow_at(const struct vms_table *t, uint32_t slot)
{
    return (struct flow *)t->flows.objects + slot;      /* as pool_at, with a size that the compiler knows */
}

/* ---- index.c ---- */

/* Where a packet belongs: computed ahead, so that the memory it needs can be fetched ahead as well. */
struct place {
    struct flow_key key;            /* of IPv6 without addresses, for which there may be no handle yet */
    const uint8_t *ip[2];           /* IPv6 addresses, lower endpoint first */
    uint32_t hash;
    uint32_t bucket;                /* to fetch from; it may have been split by the time that the packet is counted */
    int direction;                  /* 0 if the lower endpoint sent it */
    uint64_t print;                 /* of the packet, where mirror duplicates are looked for */
};

/* And fetches the bucket: the first of what counting the packet will touch. `is_plain`: decode_plain knew the frame. */
void flow_place(const struct vms_table *t, const struct packet *p, bool is_plain, struct place *place);

/* Once that has come, the flow, then its parts. */
void flow_prefetch(const struct vms_table *t, const struct place *place);
void flow_prefetch_neighbours(const struct vms_table *t, const struct flow *f);
void flow_prefetch_parts(const struct vms_table *t, const struct packet *p, const struct place *place);

/* The bucket of a flow that will leave it. */
void index_prefetch(const struct vms_table *t, uint32_t hash);

#define INDEX_BUCKETS_A_FLOW 2u

/* 0, or -1 when there is no memory. */
int index_open(struct vms_table *t);
void index_close(struct vms_table *t);

void index_add(struct vms_table *t, struct flow *f, uint32_t slot);
void index_remove(struct vms_table *t, const struct flow *f, uint32_t slot);

/* The slot of the flow that is there; 0 if none. */
uint32_t index_find(const struct vms_table *t, const struct place *place);

/* True when the endpoints and the protocol of the place are those of the flow, whatever the domain. */
bool flow_has_endpoints(const struct vms_table *t, const struct flow *f, const struct place *place);

/* The address of an endpoint: 4 or 16 octets. */
const uint8_t *flow_address(const struct vms_table *t, const struct flow *f, int endpoint);

/* ---- flow.c ---- */

/* The slot of a packet's flow, made if there is none; 0 when the table is full of busy flows. */
uint32_t flow_of_packet(struct vms_table *t, const struct packet *p, const struct place *place);

/* Moves a flow to the queue of another kind. */
void flow_set_kind(struct vms_table *t, struct flow *f, enum flow_kind kind);

/* Takes the flow out of the index; its record follows when the window is rolled. */
void flow_end(struct vms_table *t, uint32_t slot, enum vms_end reason);

/* Ends flows that have been idle too long, at most `limit` of them. */
void flow_expire(struct vms_table *t, uint32_t limit);

/* The clock has been set back: no flow was queued later than now. */
void flow_clock_set(struct vms_table *t);

/* Frees a ghost's slot. */
void flow_bury(struct vms_table *t, uint32_t slot);

/* Oldest flow of a kind, 0 if none. */
uint32_t flow_oldest(const struct vms_table *t, enum flow_kind kind);

int64_t flow_idle_timeout(const struct vms_table *t, enum flow_kind kind);

/* Room for the finished flows of one more packet. */
bool flow_finished_room(const struct vms_table *t, uint32_t count);

/* role.c: tells client from server by the ports when no handshake was seen. */
void role_guess(struct flow *f, const struct packet *p, int direction);

/* copy.c: what a packet is to the first sighting of one that looked like it. A copy is noted in the flow that has counted its first sighting;
   a twin is to be counted, but the first sighting stays the one to know copies by. */
enum likeness { LIKE_NONE, LIKE_COPY, LIKE_TWIN };
enum likeness copy_judge(struct vms_table *t, const struct packet *p, const struct place *place,
                         struct sighting *first);

/* trouble.c: the counters of one direction that few flows need, made if there are none. */
struct trouble *trouble_of(struct vms_table *t, struct flow *f, int direction);

/* NULL if there are none. */
const struct trouble *trouble_so_far(const struct vms_table *t, const struct flow *f, int direction);

/* The next window counts from nothing. */
void trouble_clear(struct vms_table *t, struct flow *f);
void trouble_release(struct vms_table *t, struct flow *f);

/* transit.c: how long a packet took from where the mirror first saw it to where it saw it again. */
void transit_note(struct vms_table *t, struct flow *f, int direction, int64_t ns);
void transit_add(vms_transit_t *sum, const vms_transit_t *part);
const vms_transit_t *transit_of(const struct vms_table *t, const struct flow *f, int direction);
void transit_release(struct vms_table *t, struct flow *f);

/* How late a copy may come, in view of those that have come; 0 if none has. */
int64_t copy_latest_ns(const struct flow *f);

/* order.c: whether the sender counts its packets with the IP identification, and whether it gives all the same. */
void order_learn_id(struct tcp_half *half, const struct packet *p, bool first);

/* scoreboard.c */
uint32_t board_size(void);
uint32_t board_hole_size(void);
uint32_t board_losses_size(void);
uint32_t board_flight_size(void);
void board_prefetch(const struct vms_table *t, const struct tcp_half *half);

/* tcp.c */
void tcp_packet(struct vms_table *t, struct flow *f, int direction, const struct packet *p);
bool tcp_starts_anew(const struct vms_table *t, const struct flow *f, const struct packet *p, int direction);
int64_t tcp_earliest_resend_ns(const struct flow *f);
void tcp_forget_resends(struct vms_table *t, struct flow *f);
void tcp_release(struct vms_table *t, struct flow *f);

/* response.c: from the last byte of a request to the first byte of its answer. */
void response_packet(struct vms_table *t, struct flow *f, int direction, int64_t ts_ns);

/* histogram.c. Kept by direction, since which of them is the client's may turn out later. */
enum kept_histogram { KEPT_RTT_0, KEPT_RTT_1, KEPT_RESPONSE, KEPT_HISTOGRAMS };
uint32_t histogram_chunk_size(void);
void histogram_prefetch(const struct vms_table *t, const struct flow *f);
void histogram_add(struct vms_table *t, struct flow *f, enum kept_histogram which, uint64_t ns);
uint32_t histogram_export(const struct vms_table *t, const struct flow *f, uint32_t record, vms_bin_t *bins,
                          uint32_t capacity);

/* window.c */
void half_add(vms_half_t *sum, const vms_half_t *part);
void window_list(struct vms_table *t, struct flow *f, uint32_t slot);
void window_fold(struct vms_table *t, uint32_t slot);
void window_finished(struct vms_table *t, struct flow *f, enum vms_end reason);

/* Room for one more finished flow that can wait, besides what packets are sure to end; made where nobody waits. */
bool window_finished_room(struct vms_table *t);

#endif
