/*
 * Keyed hashes for the packet path: nobody without the key can make flows, or packets, collide.
 *
 * NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: "UMAC: Fast and Secure Message Authentication", CRYPTO 1999): two
 * messages that were chosen without knowing the key have the same sum with a probability of at most 2^-32. It takes one
 * multiplication for eight octets, where SipHash takes 14 steps that wait for one another.
 */
#ifndef VMS_HASH_H
#define VMS_HASH_H

#include "siphash.h"

#define NH_WORDS_MOST 6             /* of 64 bits */

struct nh_key {
    uint32_t word[2 * NH_WORDS_MOST];
    uint64_t last[2];
};

/* As many octets as there are, of a secret of sixteen. */
static inline struct nh_key nh_key_of(struct siphash_key secret)
{
    struct nh_key key;
    uint8_t *at = (uint8_t *)&key;
    for (uint64_t i = 0; i < sizeof key / 8; i++) {
        uint64_t word = siphash_words(secret, &i, 1);
        memcpy(at + 8 * i, &word, sizeof word);
    }
    return key;
}

/* Two words into one by a 128-bit product, folded. */
static inline uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Of `count` words, at most NH_WORDS_MOST; every bit of the result depends on all of them. */
static inline uint64_t nh_words(const struct nh_key *key, const uint64_t *words, size_t count)
{
    uint64_t sum = key->last[0];
    for (size_t i = 0; i < count; i++) {
        uint32_t low = (uint32_t)words[i] + key->word[2 * i], high = (uint32_t)(words[i] >> 32) + key->word[2 * i + 1];
        sum += (uint64_t)low * high;
    }
    return fold(sum, key->last[1]);
}

#endif
