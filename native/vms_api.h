/*
 * The boundary between C and Python. C includes this file through vms.h; cffi reads it verbatim, so it holds only
 * declarations, without includes or conditionals. Python allocates, C fills; no pointer into C memory escapes but the
 * opaque table. Every call may run without the GIL; one table belongs to one thread at a time.
 *
 * Python derives names from what stands here: record fields become numpy fields (c2s and s2c become prefixes) and
 * enum members become the lower-case words that users see, without their prefix.
 */

#define VMS_VLAN_MAX 4          /* 802.1Q tags kept for a flow; deeper ones are skipped, not kept */
#define VMS_BUCKETS 640         /* see vms_bucket_low_ns */
#define VMS_FLOWS_MOST 1000000000   /* flows are numbered with 32 bits, and each may need two scoreboards */
#define VMS_NOTICE_OCTETS 512
#define VMS_ABSENT -1         /* a duration that was not measured */

/* How a packet ended. Every packet ends in exactly one of these, so they add up to `received`. */
enum vms_fate {
    VMS_FATE_FLOW,              /* counted in a flow */
    VMS_FATE_OVERFLOW,          /* counted in the overflow entry: the table was full of busy flows */
    VMS_FATE_MIRROR_DUPLICATE,  /* a second sighting: counted as such in its flow, and nowhere else */
    VMS_FATE_ARP,               /* ARP and RARP: not IP, not an error */
    VMS_FATE_NOT_IP,            /* a well-formed frame that carries another network protocol */
    VMS_FATE_UNKNOWN_LINK,      /* a link type the sensor does not decode */
    VMS_FATE_SHORT_LINK,        /* ends inside the link-layer headers */
    VMS_FATE_SHORT_IP,          /* ends inside the IP header or its extension headers */
    VMS_FATE_SHORT_TRANSPORT,   /* ends before the ports */
    VMS_FATE_BAD_VERSION,       /* IP version field contradicts the layer below */
    VMS_FATE_BAD_LENGTH,        /* IP header length or total length impossible */
    VMS_FATES
};

enum vms_tunnel {
    VMS_TUNNEL_NONE, VMS_TUNNEL_VXLAN, VMS_TUNNEL_GENEVE, VMS_TUNNEL_GRE, VMS_TUNNEL_NVGRE, VMS_TUNNEL_ERSPAN,
    VMS_TUNNEL_IPIP, VMS_TUNNELS
};

/* How client and server were told apart. */
enum vms_role {
    VMS_ROLE_FIRST,             /* the sender of the first packet is taken for the client */
    VMS_ROLE_PORT,              /* the side with the service port is taken for the server */
    VMS_ROLE_SYN                /* TCP handshake seen */
};

/* What the tap has seen of a connection's life; the nearest state of RFC 9293 section 3.3.2. */
enum vms_state {
    VMS_STATE_NONE,             /* not TCP */
    VMS_STATE_SYN_SENT,         /* SYN, no answer */
    VMS_STATE_SYN_RECEIVED,     /* SYN-ACK, no ACK yet */
    VMS_STATE_ESTABLISHED,      /* handshake done, or joined in the middle */
    VMS_STATE_FIN_WAIT,         /* one side has sent FIN */
    VMS_STATE_CLOSED,           /* both sides have sent FIN */
    VMS_STATE_RESET             /* RST seen */
};

/* Why a flow ended (IPFIX flowEndReason, RFC 5102). */
enum vms_end {
    VMS_END_NONE,               /* still alive */
    VMS_END_IDLE,               /* idle timeout */
    VMS_END_ACTIVE,             /* active timeout: reported, and goes on as a new record */
    VMS_END_CLOSED,             /* FIN or RST */
    VMS_END_REUSED,             /* a new SYN on the same five-tuple */
    VMS_END_EVICTED,            /* the table was full */
    VMS_END_INPUT               /* the capture ended */
};

/* What a notice holds: the octets behind the ethertype (ARP to CDP), of the ICMPv6 message, or behind the UDP header. */
enum vms_notice_kind {
    VMS_NOTICE_ARP, VMS_NOTICE_RARP, VMS_NOTICE_LLDP, VMS_NOTICE_CDP, VMS_NOTICE_ND, VMS_NOTICE_DHCP, VMS_NOTICE_DHCP6
};

/* Which histogram a bin belongs to. */
enum vms_histogram { VMS_HISTOGRAM_RTT_C2S, VMS_HISTOGRAM_RTT_S2C, VMS_HISTOGRAM_RESPONSE };

#define VMS_RECORD_NEW 1            /* the flow began in this window */
#define VMS_RECORD_OVERFLOW 2       /* not a flow: the sum of what had no place in the table */
#define VMS_RECORD_HAS_VNI 4
#define VMS_RECORD_HAS_PORTS 8
#define VMS_RECORD_UNSURE_C2S 16    /* sequence state was incomplete: causes in c2s are a lower bound */
#define VMS_RECORD_UNSURE_S2C 32
#define VMS_RECORD_SEEN_C2S 64      /* this direction has been seen since the flow began */
#define VMS_RECORD_SEEN_S2C 128
#define VMS_RECORD_ANSWERED 256     /* TCP: a SYN-ACK has come */
#define VMS_RECORD_REFUSED 512      /* TCP: the SYN was answered by a RST */

/* One direction of a flow. The meaning of every field: docs/metrics.md. */
typedef struct {
    uint64_t bytes;
    uint64_t payload_bytes;
    uint64_t unseen_bytes;
    uint64_t rtt_sum_ns;
    uint64_t rtt_min_ns;            /* valid while rtt_count > 0 */
    uint64_t rtt_max_ns;
    uint32_t packets;
    uint32_t data_packets;
    uint32_t mirror_duplicates;
    uint32_t retransmissions;
    uint32_t spurious;
    uint32_t upstream_losses;
    uint32_t reordered;
    uint32_t zero_windows;
    uint32_t keepalives;
    uint32_t window_probes;
    uint32_t out_of_window;
    uint32_t unknown_causes;
    uint32_t rtt_count;
    uint32_t padding;
} vms_half_t;

/* Of one direction's mirror duplicates: the time from the first sighting to the copy. */
typedef struct {
    uint64_t sum_ns;
    uint64_t min_ns;                /* valid while count > 0 */
    uint64_t max_ns;
    uint32_t count;
    uint32_t padding;
} vms_transit_t;

/* A flow within one window, or, from vms_take_finished, over its whole life. Addresses are in network order; IPv4
   fills the first four bytes. */
typedef struct {
    uint64_t flow_id;               /* unique within the table's life */
    int64_t start_ns;               /* first packet of the flow, epoch */
    int64_t end_ns;                 /* last packet so far */
    int64_t handshake_server_ns;    /* VMS_ABSENT outside the window in which either half was measured */
    int64_t handshake_client_ns;    /* VMS_ABSENT outside the window in which it was measured */
    uint64_t response_sum_ns;
    uint64_t response_max_ns;
    uint32_t response_count;
    uint32_t vni;
    uint8_t client_ip[16];
    uint8_t server_ip[16];
    uint8_t outer_src[16];          /* outer addresses of packets from the client */
    uint8_t outer_dst[16];
    uint8_t client_mac[6];
    uint8_t server_mac[6];
    uint16_t client_port;           /* ICMP: type and code as Community ID orders them */
    uint16_t server_port;
    uint16_t vlan[4];               /* outermost first */
    uint8_t vlan_count;
    uint8_t protocol;               /* IANA number */
    uint8_t ip_version;
    uint8_t outer_ip_version;       /* 0: no tunnel */
    uint8_t tunnel;                 /* enum vms_tunnel */
    uint8_t role_source;            /* enum vms_role */
    uint8_t tcp_state;              /* enum vms_state */
    uint8_t end_reason;             /* enum vms_end */
    uint32_t flags;
    uint32_t place;                 /* of a window's record: which packet of the window put it there, of any share's */
    vms_half_t c2s;
    vms_half_t s2c;
    vms_transit_t c2s_transit;
    vms_transit_t s2c_transit;
} vms_record_t;

/* `count` samples of records[record] fell into one bucket of one histogram. */
typedef struct {
    uint32_t record;
    uint32_t count;
    uint16_t bucket;
    uint16_t histogram;             /* enum vms_histogram */
} vms_bin_t;

/* A packet that names a VM or a switch, for the slow path to read. Addresses in network order; of ARP to CDP there are no
   IP addresses. */
typedef struct {
    int64_t ts_ns;
    uint32_t vni;
    uint16_t size;                  /* of octets */
    uint8_t kind;                   /* enum vms_notice_kind */
    uint8_t has_vni;
    uint16_t vlan[4];               /* outermost first */
    uint8_t vlan_count;
    uint8_t ip_version;             /* 0: none */
    uint8_t outer_ip_version;       /* 0: no tunnel */
    uint8_t tunnel;                 /* enum vms_tunnel */
    uint8_t src_mac[6];
    uint8_t dst_mac[6];
    uint8_t src_ip[16];
    uint8_t dst_ip[16];
    uint8_t outer_src[16];
    uint8_t outer_dst[16];
    uint8_t octets[512];
} vms_notice_t;

/* A network card that was heard in the window: any packet with this source MAC address. */
typedef struct {
    int64_t first_ns;
    int64_t last_ns;
    int64_t gap_ns;                 /* longest silence that ended in this window, also if it began before; 0 if none */
    int64_t gap_end_ns;
    uint32_t packets;
    uint8_t mac[6];
    uint8_t padding[6];
} vms_presence_t;

/* Since the table was opened. received = sum of fate. */
typedef struct {
    uint64_t received;
    uint64_t ip_bytes;              /* octets of the innermost IP packets, in flows or in the overflow entry */
    uint64_t fate[11];              /* by enum vms_fate */
    uint64_t fragments;             /* IP fragments, first ones included */
    uint64_t orphan_fragments;      /* later fragments whose first was not seen: in a flow without ports */
    uint64_t nested_too_deep;       /* counted at the deepest layer reached */
    uint64_t short_tcp;             /* in their flow, but with no whole TCP header to analyse */
    uint64_t truncated;             /* in their flow, but cut before the end of the IP packet, by others than snaplen */
    uint64_t time_backwards;        /* packets older than one before them: counted in the open window */
    uint64_t flows_started;
    uint64_t flows_evicted;         /* of those, removed while alive because the table was full */
    uint64_t records_folded;        /* ended flows whose part of a window went into the overflow entry */
    uint64_t samples_unbinned;      /* latency samples in sums and counts but not in a histogram: bins exhausted */
    uint64_t notices;               /* ARP, RARP, ND, DHCP, LLDP and CDP packets handed up */
    uint64_t notices_lost;          /* the same, too many in a window */
    uint64_t cards_lost;            /* network cards heard in a window but forgotten before its end: too many at a time */
    uint64_t adapter_timestamps;    /* packets that the network card has stamped, of those that came through a ring */
    uint64_t scoreboards_missing;   /* TCP segments and ACKs that found no scoreboard: what they would show is `unknown` */
} vms_counters_t;

typedef struct {
    uint8_t secret[16];             /* keys the flow hash; random in production */
    uint64_t max_flows;
    int64_t window_ns;
    int64_t idle_timeout_ns;        /* all but established TCP */
    int64_t tcp_idle_timeout_ns;    /* established TCP */
    int64_t active_timeout_ns;
    int64_t duplicate_horizon_ns;   /* a copy within this time is a mirror duplicate; 0: none is */
    uint32_t link_type;             /* DLT_ value, https://www.tcpdump.org/linktypes.html */
    uint32_t snaplen;               /* octets looked at of each packet; 0: all that were captured */
    uint8_t vlan_in_key;
    uint8_t keep_finished;          /* 1: finished flows are kept for vms_take_finished */
    uint8_t is_unhurried;           /* 1: a packet ends all flows that are idle by then, however long that takes */
    uint8_t padding;
    uint16_t share;                 /* which part of the packets is counted, from 0 on: see share.c */
    uint16_t shares;                /* of how many; 0 or 1: all of them */
} vms_options_t;

/* One packet of a batch: what pcapy-ng's next_batch packs. */
typedef struct {
    uint32_t sec;
    uint32_t fraction;              /* in ticks of the batch */
    uint32_t offset;                /* into the batch's data */
    uint32_t caplen;
} vms_meta_t;

/* Bytes of memory: what one takes, and what the table holds now. */
typedef struct {
    uint64_t flow;                  /* one flow, its index entries included */
    uint64_t scoreboard;            /* one TCP direction with many segments in flight, with resends and with losses */
    uint64_t hole;                  /* bytes of one direction that were not seen; at most 64 of a direction */
    uint64_t transits;              /* a flow with mirror duplicates in the open window */
    uint64_t tunnel;                /* what one flow's addresses take apart: those of a tunnel, and IPv6 ones */
    uint64_t totals;                /* life-long sums of one flow, only with keep_finished */
    uint64_t bins;                  /* seven histogram bins of the open window */
    uint64_t worst_flow;            /* the most that one flow can take, without bins */
    uint64_t flows_in_use;
    uint64_t resident;              /* allocated by the table now */
} vms_memory_t;

/* Columns of a table that becomes line protocol. Nothing in it is owned. Behind every text, the measurement's too, so
   many octets more can be read. */
enum { VMS_TEXT_SLACK = 24 };

enum vms_column_kind {
    VMS_COLUMN_CELLS,               /* whole cells, ",key=value": row i is cell codes[i], which may be empty */
    VMS_COLUMN_SIGNED,              /* int64_t */
    VMS_COLUMN_UNSIGNED,            /* uint64_t */
    VMS_COLUMN_DOUBLES,             /* double; what is not finite is null */
    VMS_COLUMN_BOOLEANS             /* uint8_t */
};

typedef struct {
    uint32_t kind;                  /* enum vms_column_kind */
    uint32_t cells;                 /* CELLS: how many */
    const char *text;               /* CELLS: all of them, one after the other; else ",key=" */
    const uint64_t *ends;           /* CELLS: where each ends in the text */
    const uint32_t *codes;          /* CELLS */
    const void *values;             /* else */
    uint64_t head_size;             /* else: of ",key=" */
    const uint8_t *valid;           /* 0: null in this row; NULL: never null */
} vms_column_t;

typedef struct {
    const char *measurement;
    uint64_t measurement_size;
    const vms_column_t *columns;    /* first `tags` tags, then fields */
    uint32_t tags;
    uint32_t count;
    const int64_t *times;           /* one a row, ns since the epoch */
    uint64_t rows;
} vms_lines_t;

typedef struct {
    uint64_t octets;
    uint64_t lines;                 /* fewer than rows, where some have no field */
} vms_written_t;

/* A field of records, and where its values are to lie one behind the other. */
typedef struct {
    uint8_t *column;
    uint32_t offset;                /* in a record */
    uint32_t size;                  /* octets */
} vms_field_t;

typedef struct vms_table vms_table_t;

/* NULL when there is not enough memory for the index, or max_flows is 0 or above VMS_FLOWS_MOST. */
vms_table_t *vms_open(const vms_options_t *options);
void vms_close(vms_table_t *table);

/* Later batches hold frames of this link type (several files, one table). */
void vms_set_link_type(vms_table_t *table, uint32_t link_type);

/* Counts packets [first, count) of a batch and returns the index of the first one not counted: `count`, or less when
   that packet belongs to another window (roll, then go on) or when finished flows have to be taken first.
   A meta entry that points outside the data ends in the fate short_link. */
uint32_t vms_ingest(vms_table_t *table, const uint8_t *data, uint64_t size, const vms_meta_t *meta, uint32_t first,
                    uint32_t count, uint32_t tick_ns);

/* Memory, all zero, that the tables of several processes have in common: how much, and a table that uses it, from its
   first packet on until it leaves. Each waits for those that are far behind: all have to be fed the same packets. */
uint64_t vms_common_size(uint32_t shares);
void vms_share_with(vms_table_t *table, void *common);
void vms_leave(vms_table_t *table);

/* Packets so far, those of other shares too; and none from packet number `end` on will be counted. */
uint64_t vms_passed(const vms_table_t *table);
void vms_end_at(vms_table_t *table, uint64_t end);

/* A classic pcap file, mapped into memory; see pcapfile.c. */
typedef struct vms_file vms_file_t;

enum vms_file_state {
    VMS_FILE_MORE,                  /* packets were counted */
    VMS_FILE_HELD,                  /* as when vms_ingest counts fewer than all: roll, or take finished flows */
    VMS_FILE_END,                   /* there are no more */
    VMS_FILE_ODD                    /* the next record is cut, or longer than the file's snap length: read on another way */
};

/* `fd` stays the caller's. NULL for any other kind of file, and where it cannot be mapped. */
vms_file_t *vms_file_open(int fd);
void vms_file_close(vms_file_t *file);

/* Counts some packets. */
enum vms_file_state vms_file_poll(vms_file_t *file, vms_table_t *table);

/* How many packets were counted, and at which octet of the file it is. */
uint64_t vms_file_packets(const vms_file_t *file);
uint64_t vms_file_place(const vms_file_t *file);

/* The ring of a packet socket (TPACKET_V3); see ring.c. */
typedef struct vms_ring vms_ring_t;

enum vms_ring_state {
    VMS_RING_MORE,                  /* there may be more */
    VMS_RING_HELD,                  /* as when vms_ingest counts fewer than all: roll, or take finished flows */
    VMS_RING_FLOWING,               /* all that had come is counted, and something had */
    VMS_RING_IDLE                   /* nothing had come */
};

/* `blocks` is the socket's mapped memory, which outlives the ring. NULL when there is no memory. */
vms_ring_t *vms_ring_open(uint8_t *blocks, uint32_t block_size, uint32_t block_count);
void vms_ring_close(vms_ring_t *ring);

/* Counts some packets, at most `most` of those that no call has looked at before. With a nap, sleeps for so long before
   it looks, and does both again, a few times, while packets flow and nothing can be read from `wake`. */
enum vms_ring_state vms_ring_poll(vms_ring_t *ring, vms_table_t *table, uint32_t most, uint32_t nap_ns, int wake);

/* How many packets were counted. */
uint64_t vms_ring_packets(const vms_ring_t *ring);

/* The open window's bounds; start = end = 0 when none is open. */
void vms_window(const vms_table_t *table, int64_t *start_ns, int64_t *end_ns);

/* Opens the window that holds `now_ns` if none is open, and ends flows that are idle by then: the wire may be silent. */
void vms_tick(vms_table_t *table, int64_t now_ns);

/* How many records and bins vms_roll would write now. */
void vms_pending(const vms_table_t *table, uint32_t *records, uint32_t *bins);

/* Copies the window's active records out, as many as there is room for, with their bins, for which there has to be all
   the room that vms_pending said, and clears them. Returns the number of records. The call that leaves none pending
   closes the window; between it and the first one no packet may come. */
uint32_t vms_roll(vms_table_t *table, vms_record_t *records, uint32_t record_capacity, vms_bin_t *bins,
                  uint32_t bin_capacity, uint32_t *bin_count);

/* Closes a window of which nobody looks at the records, the notices and the cards: all that vms_roll does is done. */
void vms_drop_window(vms_table_t *table);

/* Ends flows (end reason `input`), a bounded number a call; returns how many are left. */
uint64_t vms_finish(vms_table_t *table);

/* Finished flows, life-long sums, in the order in which they ended. Returns how many were copied. */
uint32_t vms_take_finished(vms_table_t *table, vms_record_t *records, uint32_t capacity);

/* The notices of the open window, and forgets them. Returns how many were copied; at most 4096 are kept. */
uint32_t vms_take_notices(vms_table_t *table, vms_notice_t *notices, uint32_t capacity);

/* The network cards heard in the open window: how many, and copied out. The next window begins anew. */
uint32_t vms_presence_count(const vms_table_t *table);
uint32_t vms_take_presence(vms_table_t *table, vms_presence_t *cards, uint32_t capacity);

void vms_get_counters(const vms_table_t *table, vms_counters_t *counters);
void vms_get_memory(const vms_table_t *table, vms_memory_t *memory);

/* Bucket b holds durations in [low(b), low(b + 1)): 16 buckets to the octave, so the middle of a bucket is at most
   1/32 (3.2 %) from any value in it. */
uint64_t vms_bucket_low_ns(uint32_t bucket);

/* Writes rows as lines, from `first` on, as many as surely fit; a row without any field gives none. Returns the first
   row not written, which is `first` when there is no room even for that. */
uint64_t vms_encode_lines(const vms_lines_t *lines, uint64_t first, char *out, uint64_t size,
                          vms_written_t *written);

/* The rows in the order of their keys, those of equal keys as they come. The scratch is four words a row. */
void vms_order_rows(const uint64_t *keys, uint64_t rows, uint64_t *scratch, int64_t *order);

/* Numbers the different keys in their order: writes the number of each row's key, and the first row of each number.
   Returns how many there are. */
uint64_t vms_group_rows(const uint64_t *keys, uint64_t rows, uint64_t *scratch, int64_t *of_row, int64_t *first);

/* Copies fields out of records. */
void vms_copy_fields(const uint8_t *records, uint64_t record_size, uint64_t rows, const vms_field_t *fields,
                     uint32_t count);
