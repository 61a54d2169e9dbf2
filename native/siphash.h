/*
 * SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012) over a whole number of 64-bit words:
 * one round a word, three to finish. Keyed, so that nobody without the key can make flows collide.
 */
#ifndef VMS_SIPHASH_H
#define VMS_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct siphash_key {
    uint64_t k0, k1;
};

#define SIP_ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIP_ROUND(v0, v1, v2, v3)                                                                                      \
    do {                                                                                                               \
        v0 += v1; v1 = SIP_ROTATE(v1, 13); v1 ^= v0; v0 = SIP_ROTATE(v0, 32);                                          \
        v2 += v3; v3 = SIP_ROTATE(v3, 16); v3 ^= v2;                                                                   \
        v0 += v3; v3 = SIP_ROTATE(v3, 21); v3 ^= v0;                                                                   \
        v2 += v1; v1 = SIP_ROTATE(v1, 17); v1 ^= v2; v2 = SIP_ROTATE(v2, 32);                                          \
    } while (0)

static inline uint64_t siphash_words(struct siphash_key key, const void *words, size_t count)
{
    uint64_t v0 = key.k0 ^ 0x736f6d6570736575u, v1 = key.k1 ^ 0x646f72616e646f6du;
    uint64_t v2 = key.k0 ^ 0x6c7967656e657261u, v3 = key.k1 ^ 0x7465646279746573u;
    for (size_t i = 0; i < count; i++) {
        uint64_t word;
        memcpy(&word, (const uint8_t *)words + 8 * i, sizeof word);
        v3 ^= word;
        SIP_ROUND(v0, v1, v2, v3);
        v0 ^= word;
    }
    uint64_t tail = (uint64_t)(count * 8) << 56;
    v3 ^= tail;
    SIP_ROUND(v0, v1, v2, v3);
    v0 ^= tail;
    v2 ^= 0xff;
    SIP_ROUND(v0, v1, v2, v3);
    SIP_ROUND(v0, v1, v2, v3);
    SIP_ROUND(v0, v1, v2, v3);
    return v0 ^ v1 ^ v2 ^ v3;
}

#endif
