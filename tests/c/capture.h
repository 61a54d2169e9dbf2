/*
 * Reads classic pcap files, of both byte orders and with microseconds or nanoseconds, without libpcap.
 * The format: draft-ietf-opsawg-pcap.
 */

#ifndef CAPTURE_H
#define CAPTURE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vms_api.h"

#define CAPTURE_HEADER_SIZE 24
#define PACKET_HEADER_SIZE 16

struct capture {
    const char *name;
    uint8_t *bytes;
    size_t size;
    bool swapped;               /* written on a machine of the other byte order */
    uint32_t tick_ns;
    uint32_t link_type;
};

struct packet {
    const uint8_t *bytes;
    vms_meta_t meta;
};

static void fail(const char *where, const char *what)
{
    fprintf(stderr, "%s: %s\n", where, what);
    exit(1);
}

static void *allocate(size_t size)
{
    void *block = malloc(size);
    if (!block && size)
        fail("replay", "out of memory");
    return block;
}

static uint32_t word(const struct capture *capture, size_t offset)
{
    uint32_t value;
    memcpy(&value, capture->bytes + offset, sizeof value);
    return capture->swapped ? __builtin_bswap32(value) : value;
}

static bool slurp(struct capture *capture)
{
    FILE *file = fopen(capture->name, "rb");
    if (!file)
        return false;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    capture->size = size > 0 ? (size_t)size : 0;
    capture->bytes = allocate(capture->size);
    bool complete = size >= 0 && fread(capture->bytes, 1, capture->size, file) == capture->size;
    fclose(file);
    return complete;
}

/* False for what is no classic pcap file: pcapng, gzip, or too short for a header. */
static bool read_header(struct capture *capture)
{
    if (capture->size < CAPTURE_HEADER_SIZE)
        return false;
    for (int swapped = 0; swapped <= 1; swapped++) {
        capture->swapped = swapped;
        uint32_t magic = word(capture, 0);
        if (magic == 0xa1b2c3d4 || magic == 0xa1b23c4d) {
            capture->tick_ns = magic == 0xa1b2c3d4 ? 1000 : 1;
            capture->link_type = word(capture, 20) & 0x03ffffff;
            return true;
        }
    }
    return false;
}

/* The packet at `*offset`, which moves on; false at the end and where the file is cut. */
static bool next_packet(const struct capture *capture, size_t *offset, struct packet *packet)
{
    if (capture->size - *offset < PACKET_HEADER_SIZE)
        return false;
    packet->meta.sec = word(capture, *offset);
    packet->meta.fraction = word(capture, *offset + 4);
    packet->meta.offset = 0;
    packet->meta.caplen = word(capture, *offset + 8);
    *offset += PACKET_HEADER_SIZE;
    if (capture->size - *offset < packet->meta.caplen)
        return false;
    packet->bytes = capture->bytes + *offset;
    *offset += packet->meta.caplen;
    return true;
}

#endif
