/*
 * Rows by their keys: a radix sort, least significant octet first (Knuth, The Art of Computer Programming 5.2.5). It
 * takes a key's octets apart instead of comparing keys, keeps equal keys in the order of their rows, and passes over
 * octets in which no two keys differ, as are most of small keys.
 */

#include <stdbool.h>
#include <string.h>

#include "vms.h"

#define KEY_OCTETS 8
#define OCTET_VALUES 256

struct item {
    uint64_t key;
    uint64_t row;
};
_Static_assert(sizeof(struct item) == 2 * sizeof(uint64_t), "two of them are four words of scratch a row");

/* How often each octet has each value. */
struct tally_of_octets {
    uint64_t count[KEY_OCTETS][OCTET_VALUES];
};

static uint32_t octet_of(uint64_t key, int octet)
{
    return key >> 8 * octet & (OCTET_VALUES - 1);
}

static void take_rows(const uint64_t *keys, uint64_t rows, struct item *items, struct tally_of_octets *tally)
{
    memset(tally, 0, sizeof *tally);
    for (uint64_t row = 0; row < rows; row++) {
        items[row] = (struct item){keys[row], row};
        for (int octet = 0; octet < KEY_OCTETS; octet++)
            tally->count[octet][octet_of(keys[row], octet)]++;
    }
}

/* One value is in every key. */
static bool is_the_same(const uint64_t count[OCTET_VALUES], uint64_t rows, uint64_t key, int octet)
{
    return count[octet_of(key, octet)] == rows;
}

/* From counts to the place of each value's first row. */
static void places_of(uint64_t count[OCTET_VALUES])
{
    uint64_t place = 0;
    for (int value = 0; value < OCTET_VALUES; value++) {
        uint64_t here = count[value];
        count[value] = place;
        place += here;
    }
}

/* Where in the scratch the sorted items are. */
static const struct item *sorted(const uint64_t *keys, uint64_t rows, uint64_t *scratch)
{
    struct item *from = (struct item *)scratch, *to = from + rows;
    struct tally_of_octets tally;
    take_rows(keys, rows, from, &tally);
    for (int octet = 0; octet < KEY_OCTETS && rows; octet++) {
        uint64_t *place = tally.count[octet];
        if (is_the_same(place, rows, keys[0], octet))
            continue;
        places_of(place);
        for (uint64_t i = 0; i < rows; i++)
            to[place[octet_of(from[i].key, octet)]++] = from[i];
        struct item *sorted_so_far = to;
        to = from;
        from = sorted_so_far;
    }
    return from;
}

void vms_order_rows(const uint64_t *keys, uint64_t rows, uint64_t *scratch, int64_t *order)
{
    const struct item *items = sorted(keys, rows, scratch);
    for (uint64_t i = 0; i < rows; i++)
        order[i] = (int64_t)items[i].row;
}

uint64_t vms_group_rows(const uint64_t *keys, uint64_t rows, uint64_t *scratch, int64_t *of_row, int64_t *first)
{
    const struct item *items = sorted(keys, rows, scratch);
    uint64_t groups = 0;
    for (uint64_t i = 0; i < rows; i++) {
        if (!i || items[i].key != items[i - 1].key)
            first[groups++] = (int64_t)items[i].row;
        of_row[items[i].row] = (int64_t)groups - 1;
    }
    return groups;
}
