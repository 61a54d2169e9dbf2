/*
 * A capture file in memory: classic pcap, of either byte order, in microseconds or nanoseconds. Everything else, and
 * every record that is not as it should be, is left to libpcap, which knows what to say of it.
 *
 *      0               4       6       8          16        20           24
 *     +---------------+-------+-------+-- - - ---+---------+-----------+
 *     | magic         | major | minor |          | snaplen | link type |      draft-ietf-opsawg-pcap, section 4
 *     +---------------+-------+-------+-- - - ---+---------+-----------+
 *     | seconds       | fraction      | captured | length  | octets ...       section 5: 16 octets, then `captured` more
 *     +---------------+---------------+----------+---------+---
 *
 * A file that somebody cuts while it is read would end the process (SIGBUS): its size is looked at again before each
 * stretch.
 */

#define _DEFAULT_SOURCE 1           /* madvise */

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "cache.h"
#include "vms.h"

#define HEADER_SIZE 24
#define RECORD_SIZE 16
#define MAGIC_MICROSECONDS 0xa1b2c3d4u
#define MAGIC_NANOSECONDS 0xa1b23c4du
#define MOST_OCTETS 262144          /* libpcap's bound on a packet (MAXIMUM_SNAPLEN) */
#define RECORDS_AT_A_TIME 1024
#define STRETCH (UINT64_C(1) << 20) /* mapped in ahead, and given back behind */
#define FETCH_AHEAD 2048            /* octets: what the processor fetches by itself ends with each page */
#define FETCH_SIZE 128              /* at a time; cut frames are little longer, of whole ones no more is needed */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22       /* Linux 5.14; older ones refuse it, and map in page by page */
#endif

struct vms_file {
    uint8_t *data;
    uint64_t mapped;                /* octets */
    uint64_t size;                  /* of the file as it is now, at most `mapped` */
    uint64_t at;                    /* the next record */
    uint64_t ahead;                 /* up to here the pages are there */
    uint64_t behind;                /* up to here they have been given back */
    uint64_t base;                  /* what `offset` of the batch counts from */
    uint64_t packets;               /* counted */
    uint32_t snaplen;
    uint32_t tick_ns;
    uint32_t first, count;          /* of the batch, what is not counted yet */
    int fd;
    bool is_swapped;
    vms_meta_t batch[RECORDS_AT_A_TIME];
    uint32_t wire[RECORDS_AT_A_TIME];
};

static uint32_t word(const struct vms_file *file, uint64_t at)
{
    uint32_t value;
    memcpy(&value, file->data + at, sizeof value);
    return file->is_swapped ? __builtin_bswap32(value) : value;
}

static uint16_t half_word(const struct vms_file *file, uint64_t at)
{
    uint16_t value;
    memcpy(&value, file->data + at, sizeof value);
    return file->is_swapped ? __builtin_bswap16(value) : value;
}

static bool take_magic(struct vms_file *file)
{
    uint32_t magic = word(file, 0);
    file->is_swapped = magic == __builtin_bswap32(MAGIC_MICROSECONDS) || magic == __builtin_bswap32(MAGIC_NANOSECONDS);
    magic = word(file, 0);
    file->tick_ns = magic == MAGIC_NANOSECONDS ? 1 : 1000;
    return magic == MAGIC_NANOSECONDS || magic == MAGIC_MICROSECONDS;
}

static bool take_header(struct vms_file *file)
{
    if (file->size < HEADER_SIZE || !take_magic(file))
        return false;
    uint32_t snaplen = word(file, 16);
    file->snaplen = snaplen && snaplen <= MOST_OCTETS ? snaplen : MOST_OCTETS;
    file->at = file->ahead = HEADER_SIZE;
    return half_word(file, 4) == 2 && half_word(file, 6) == 4;
}

vms_file_t *vms_file_open(int fd)
{
    struct stat found;
    struct vms_file *file = calloc(1, sizeof *file);
    if (!file)
        return NULL;
    file->data = MAP_FAILED;
    file->fd = dup(fd);
    if (file->fd >= 0 && fstat(file->fd, &found) == 0 && S_ISREG(found.st_mode) && found.st_size > 0) {
        file->mapped = file->size = (uint64_t)found.st_size;
        file->data = mmap(NULL, file->mapped, PROT_READ, MAP_PRIVATE, file->fd, 0);
    }
    if (file->data != MAP_FAILED && take_header(file))
        return file;
    vms_file_close(file);
    return NULL;
}

void vms_file_close(vms_file_t *file)
{
    if (!file)
        return;
    if (file->data != MAP_FAILED)
        munmap(file->data, file->mapped);
    if (file->fd >= 0)
        close(file->fd);
    free(file);
}

/* The pages of the next stretch; those behind are the kernel's again, so that memory does not grow with the file. */
static void move_on(struct vms_file *file)
{
    struct stat found;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), start = file->at & ~(page - 1);
    if (fstat(file->fd, &found) == 0 && (uint64_t)found.st_size < file->size)
        file->size = (uint64_t)found.st_size;
    file->ahead = file->size - start < STRETCH ? file->size : start + STRETCH;
    if (start > file->behind)
        madvise(file->data + file->behind, start - file->behind, MADV_DONTNEED);
    file->behind = start;
    if (file->ahead > start)
        madvise(file->data + start, file->ahead - start, MADV_POPULATE_READ);
}

/* Fills the batch, up to a record that is not there, or not whole. What the loop needs stands in variables of its own: a
   field could be what writing the batch has changed. */
static inline __attribute__((always_inline)) void fill(struct vms_file *file, bool is_swapped)
{
    const uint8_t *data = file->data;
    const uint64_t ahead = file->ahead, last = file->size - RECORD_SIZE, base = file->at;
    const uint32_t snaplen = file->snaplen;
    uint64_t at = file->at;
    uint32_t count = 0;
    for (; count < RECORDS_AT_A_TIME && at < ahead && at <= last; count++) {
        uint32_t header[RECORD_SIZE / 4];
        memcpy(header, data + at, sizeof header);
        for (int i = 0; i < 4; i++)
            header[i] = is_swapped ? __builtin_bswap32(header[i]) : header[i];
        uint32_t captured = header[2];
        if (captured > snaplen || captured > last - at)
            break;
        fetch_lines(data + at + FETCH_AHEAD, FETCH_SIZE);
        at += RECORD_SIZE;
        file->batch[count] = (vms_meta_t){
            .sec = header[0], .fraction = header[1], .offset = (uint32_t)(at - base), .caplen = captured,
        };
        file->wire[count] = header[3];
        at += captured;
    }
    file->first = 0;
    file->count = count;
    file->base = base;
    file->at = at;
}

static void next_records(struct vms_file *file)
{
    if (file->at > file->size || file->size - file->at < RECORD_SIZE)
        file->first = file->count = 0;
    else if (file->is_swapped)
        fill(file, true);
    else
        fill(file, false);
}

enum vms_file_state vms_file_poll(vms_file_t *file, vms_table_t *table)
{
    if (file->first == file->count) {
        if (file->at >= file->ahead)
            move_on(file);
        next_records(file);
        if (!file->count)
            return file->at == file->size ? VMS_FILE_END : VMS_FILE_ODD;
    }
    const struct batch batch = {file->data + file->base, file->at - file->base, file->batch, file->wire, file->tick_ns};
    uint32_t reached = ingest_batch(table, &batch, file->first, file->count);
    file->packets += reached - file->first;
    file->first = reached;
    return reached == file->count ? VMS_FILE_MORE : VMS_FILE_HELD;
}

uint64_t vms_file_packets(const vms_file_t *file)
{
    return file->packets;
}

uint64_t vms_file_place(const vms_file_t *file)
{
    return file->at;
}
