/* Fields of many long records, each laid out by itself: all of them while a few records are in the cache. */

#include <string.h>

#include "vms.h"

#define RECORDS_AT_A_TIME_IN_CACHE 64   /* 28 kB of flow records */

/* `size` is a constant where this is called, so that a copy is one load and one store. */
static inline __attribute__((always_inline)) void copy_field(const uint8_t *from, uint64_t record_size, uint64_t rows,
                                                              uint8_t *to, uint64_t size)
{
    for (uint64_t row = 0; row < rows; row++)
        memcpy(to + row * size, from + row * record_size, size);
}

static void copy_part(const uint8_t *records, uint64_t record_size, uint64_t first, uint64_t rows,
                      const vms_field_t *field)
{
    const uint8_t *from = records + first * record_size + field->offset;
    uint8_t *to = field->column + first * field->size;
    switch (field->size) {
    case 1: copy_field(from, record_size, rows, to, 1); break;
    case 2: copy_field(from, record_size, rows, to, 2); break;
    case 4: copy_field(from, record_size, rows, to, 4); break;
    case 8: copy_field(from, record_size, rows, to, 8); break;
    default: copy_field(from, record_size, rows, to, field->size);
    }
}

void vms_copy_fields(const uint8_t *records, uint64_t record_size, uint64_t rows, const vms_field_t *fields,
                     uint32_t count)
{
    for (uint64_t first = 0; first < rows; first += RECORDS_AT_A_TIME_IN_CACHE) {
        uint64_t left = rows - first;
        for (uint32_t i = 0; i < count; i++)
            copy_part(records, record_size, first,
                      left < RECORDS_AT_A_TIME_IN_CACHE ? left : RECORDS_AT_A_TIME_IN_CACHE, &fields[i]);
    }
}
