/*
 * The only way to touch packet bytes: a cursor over [at, end) that never hands out more than is there.
 * Multi-byte fields are big-endian (network order) unless the name says otherwise.
 */
#ifndef VMS_BYTES_H
#define VMS_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

static inline struct cursor cursor_over(const uint8_t *data, size_t size)
{
    return (struct cursor){data, data + size};
}

static inline size_t cursor_left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}

/* The next `size` bytes, consumed; NULL, with nothing consumed, when there are fewer. */
static inline const uint8_t *cursor_take(struct cursor *c, size_t size)
{
    if (cursor_left(c) < size)
        return NULL;
    const uint8_t *bytes = c->at;
    c->at += size;
    return bytes;
}

/* The next `size` bytes, not consumed; NULL when there are fewer. */
static inline const uint8_t *cursor_peek(const struct cursor *c, size_t size)
{
    return cursor_left(c) < size ? NULL : c->at;
}

/* Forgets what lies beyond `size` bytes from here: padding, trailers. */
static inline void cursor_trim(struct cursor *c, size_t size)
{
    if (cursor_left(c) > size)
        c->end = c->at + size;
}

/* Fields inside bytes that a cursor has handed out. */
static inline uint16_t be16(const uint8_t *b)
{
    return (uint16_t)((b[0] << 8) | b[1]);
}

static inline uint32_t be24(const uint8_t *b)
{
    return ((uint32_t)b[0] << 16) | ((uint32_t)b[1] << 8) | b[2];
}

static inline uint32_t be32(const uint8_t *b)
{
    return ((uint32_t)be16(b) << 16) | be16(b + 2);
}

#endif
