/*
 * Packets of a network interface, read where the kernel has put them: the ring of an AF_PACKET socket, TPACKET_V3
 * (Linux, Documentation/networking/packet_mmap.rst). The socket, and what of its memory is mapped, are the caller's.
 *
 *     block 0                                  block 1
 *    +--------+-----+------+-----+------+---  +--------+-----+
 *    | status | hdr | MACs | hdr | MACs | ...  | status | hdr | ...     a whole block is the kernel's or ours
 *    +--------+-----+------+-----+------+---  +--------+-----+
 *
 * The kernel takes the outermost VLAN tag off a frame and hands it over beside it; here it is put back, into the room
 * that PACKET_RESERVE has left in front of the frame.
 */

#define _DEFAULT_SOURCE 1           /* nanosleep */

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "bytes.h"
#include "cache.h"
#include "vms.h"

#define FRAMES_AT_A_TIME 1024
#define BATCHES_AT_A_TIME 16        /* then the caller may look whether it should end */
#define NAPS_AT_A_TIME 5            /* likewise; to come back after each would cost as much as to count a few hundred packets */
#define HEADERS 128                 /* octets, of most frames: another processor has just written them */
#define SMALL 640                   /* with its header: all that the usual snap length leaves */
#define AHEAD 1024
#define MACS 12
#define TAG 4

struct vms_ring {
    uint8_t *blocks;
    uint32_t block_size, block_count;
    uint32_t block;                 /* the one that is read */
    uint32_t left;                  /* packets of it that are not in a batch yet */
    uint32_t first, count;          /* of the batch, what is not counted yet */
    uint8_t *at;                    /* the next packet's header */
    uint64_t packets;               /* counted */
    bool is_open;                   /* the block is ours, and begun */
    vms_meta_t batch[FRAMES_AT_A_TIME];
    uint32_t wire[FRAMES_AT_A_TIME];
};

vms_ring_t *vms_ring_open(uint8_t *blocks, uint32_t block_size, uint32_t block_count)
{
    struct vms_ring *ring = calloc(1, sizeof *ring);
    if (ring)
        *ring = (struct vms_ring){.blocks = blocks, .block_size = block_size, .block_count = block_count};
    return ring;
}

void vms_ring_close(vms_ring_t *ring)
{
    free(ring);
}

static struct tpacket_hdr_v1 *block_header(const struct vms_ring *ring)
{
    return &((struct tpacket_block_desc *)(ring->blocks + (uint64_t)ring->block * ring->block_size))->hdr.bh1;
}

static bool open_block(struct vms_ring *ring)
{
    struct tpacket_hdr_v1 *header = block_header(ring);
    if (!(__atomic_load_n(&header->block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
        return false;
    ring->left = header->num_pkts;
    ring->at = (uint8_t *)ring->blocks + (uint64_t)ring->block * ring->block_size + header->offset_to_first_pkt;
    return ring->is_open = true;
}

static void release_block(struct vms_ring *ring)
{
    __atomic_store_n(&block_header(ring)->block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    ring->block = ring->block + 1 == ring->block_count ? 0 : ring->block + 1;
    ring->is_open = false;
}

/* Where the frame begins, its tag in it again. */
static uint8_t *whole_frame(struct tpacket3_hdr *header)
{
    uint8_t *frame = (uint8_t *)header + header->tp_mac;
    if (!(header->tp_status & TP_STATUS_VLAN_VALID) || header->tp_snaplen < MACS)
        return frame;
    uint16_t type = header->tp_status & TP_STATUS_VLAN_TPID_VALID ? header->hv1.tp_vlan_tpid : ETH_P_8021Q;
    uint16_t tag = (uint16_t)header->hv1.tp_vlan_tci;
    memmove(frame - TAG, frame, MACS);
    frame -= TAG;
    frame[MACS] = (uint8_t)(type >> 8);
    frame[MACS + 1] = (uint8_t)type;
    frame[MACS + 2] = (uint8_t)(tag >> 8);
    frame[MACS + 3] = (uint8_t)tag;
    return frame;
}

/* Where a packet's header lies, only the one before it tells: so small packets are fetched as the stream of octets that
   they are, and of larger ones, of which most is not needed, each by itself. Returns up to where it has fetched. */
static const uint8_t *fetch_ahead(const uint8_t *fetched, const uint8_t *frame, uint32_t size)
{
    if (size > SMALL) {
        fetch_lines(frame, HEADERS);
        return frame + size;
    }
    for (; fetched < frame + AHEAD; fetched += CACHE_LINE)
        fetch_line(fetched);
    return fetched;
}

/* Lays out the next packets of the block; returns how many of them the network card has stamped. */
static uint32_t next_frames(struct vms_ring *ring, uint32_t most)
{
    const uint8_t *block = ring->blocks + (uint64_t)ring->block * ring->block_size;
    const uint8_t *fetched = ring->at;
    uint32_t stamped = 0;
    ring->first = ring->count = 0;
    for (; ring->left && ring->count < FRAMES_AT_A_TIME && ring->count < most; ring->left--) {
        struct tpacket3_hdr *header = (struct tpacket3_hdr *)ring->at;
        const uint8_t *frame = whole_frame(header), *begin = ring->at + header->tp_mac, *end = begin + header->tp_snaplen;
        fetched = fetch_ahead(fetched, frame, header->tp_next_offset);
        stamped += (header->tp_status & TP_STATUS_TS_RAW_HARDWARE) != 0;
        ring->wire[ring->count] = header->tp_len + (uint32_t)(begin - frame);
        ring->batch[ring->count++] = (vms_meta_t){
            .sec = header->tp_sec, .fraction = header->tp_nsec,
            .offset = (uint32_t)(frame - block), .caplen = (uint32_t)(end - frame),
        };
        ring->at += header->tp_next_offset;
    }
    return stamped;
}

/* Counts what is left of the batch; false when the table has no room for all of it now. */
static bool count_batch(struct vms_ring *ring, vms_table_t *table)
{
    const struct batch batch = {ring->blocks + (uint64_t)ring->block * ring->block_size, ring->block_size, ring->batch,
                                ring->wire, 1};
    uint32_t reached = ingest_batch(table, &batch, ring->first, ring->count);
    ring->packets += reached - ring->first;
    ring->first = reached;
    if (reached < ring->count)
        return false;
    if (!ring->left)
        release_block(ring);
    return true;
}

/* Counts what has come, up to so many packets in all. */
static enum vms_ring_state count_some(struct vms_ring *ring, vms_table_t *table, uint64_t end)
{
    uint64_t before = ring->packets;
    for (uint32_t batches = 0; batches < BATCHES_AT_A_TIME && ring->packets < end; batches++) {
        if (ring->first == ring->count) {
            if (!ring->is_open && !open_block(ring))
                return ring->packets == before ? VMS_RING_IDLE : VMS_RING_FLOWING;
            count_adapter_timestamps(table, next_frames(ring, (uint32_t)(end - ring->packets)));
        }
        if (!count_batch(ring, table))
            return VMS_RING_HELD;
    }
    return VMS_RING_MORE;
}

static void sleep_for(uint32_t ns)
{
    nanosleep(&(struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}, NULL);
}

static bool is_woken(int wake)
{
    return poll(&(struct pollfd){.fd = wake, .events = POLLIN}, 1, 0) != 0;
}

enum vms_ring_state vms_ring_poll(vms_ring_t *ring, vms_table_t *table, uint32_t most, uint32_t nap_ns, int wake)
{
    const uint64_t end = ring->packets + most;
    uint32_t naps = nap_ns ? NAPS_AT_A_TIME : 1;
    enum vms_ring_state state;
    do {
        if (nap_ns)
            sleep_for(nap_ns);
        state = count_some(ring, table, end);
    } while (state == VMS_RING_FLOWING && ring->packets < end && --naps && !is_woken(wake));
    return state;
}

uint64_t vms_ring_packets(const vms_ring_t *ring)
{
    return ring->packets;
}
