/* Rows by their keys, and fields out of records: what loops without any art find. */

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "vms.h"

enum { MOST = 300, TRIES = 60 };

static uint64_t draw(void)
{
    static uint64_t state = 7;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state ^ state >> 29;
}

struct answer {
    uint64_t groups;
    int64_t of_row[MOST];
    int64_t first[MOST];
    int64_t order[MOST];
};

/* In memory of exactly its size, so that the sanitizers see whatever lies beyond. */
static struct answer answer_of(const uint64_t *keys, uint64_t rows)
{
    struct answer answer = {0};
    uint64_t *here = malloc(rows * sizeof *here + 1), *scratch = malloc(4 * rows * sizeof *scratch + 1);
    memcpy(here, keys, rows * sizeof *here);
    answer.groups = vms_group_rows(here, rows, scratch, answer.of_row, answer.first);
    vms_order_rows(here, rows, scratch, answer.order);
    free(here);
    free(scratch);
    return answer;
}

static void keys_of_some_width(uint64_t mask)
{
    uint64_t keys[MOST], rows = draw() % (MOST + 1);
    for (uint64_t i = 0; i < rows; i++)
        keys[i] = draw() & mask;
    struct answer a = answer_of(keys, rows);
    CHECK_EQUAL(a.groups != 0, rows != 0);
    for (uint64_t i = 1; i < rows; i++) {
        uint64_t before = keys[a.order[i - 1]], here = keys[a.order[i]];
        CHECK(before < here || (before == here && a.order[i - 1] < a.order[i]));
    }
    for (uint64_t i = 1; i < a.groups; i++)
        CHECK(keys[a.first[i - 1]] < keys[a.first[i]]);
    for (uint64_t i = 0; i < rows; i++) {
        uint64_t first = (uint64_t)a.first[a.of_row[i]];
        CHECK(first <= i && keys[first] == keys[i]);
    }
}

static void groups(void)
{
    static const uint64_t masks[] = {0, 1, 0xff, 0xff00, 0xffff, 0xff000000000000ff, UINT64_MAX};
    for (int i = 0; i < TRIES; i++)
        keys_of_some_width(masks[i % (sizeof masks / sizeof *masks)]);
}

/* Fields of every width, at places where nothing is aligned. */
static void fields(void)
{
    enum { SIZE = 29, ROWS = 131, FIELDS = 5 };
    static const uint32_t sizes[FIELDS] = {1, 2, 4, 8, 6}, offsets[FIELDS] = {0, 1, 3, 13, 23};
    uint8_t *records = malloc(SIZE * ROWS);
    vms_field_t field[FIELDS];
    for (int i = 0; i < SIZE * ROWS; i++)
        records[i] = (uint8_t)draw();
    for (int i = 0; i < FIELDS; i++)
        field[i] = (vms_field_t){malloc(sizes[i] * ROWS), offsets[i], sizes[i]};
    vms_copy_fields(records, SIZE, ROWS, field, FIELDS);
    for (int i = 0; i < FIELDS; i++) {
        for (int row = 0; row < ROWS; row++)
            CHECK(memcmp(field[i].column + row * sizes[i], records + row * SIZE + offsets[i], sizes[i]) == 0);
        free(field[i].column);
    }
    free(records);
}

int main(void)
{
    groups();
    fields();
    return check_summary("test_group");
}
