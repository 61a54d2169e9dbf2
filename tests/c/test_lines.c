/* Line protocol: numbers as text, what is null, and that nothing is written where there is no room. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "number.h"
#include "vms.h"

#define LINE_MOST 4096

static bool double_is(double value, const char *wanted)
{
    char text[VMS_NUMBER_MOST] = {0};
    *vms_write_double(text, value) = 0;
    if (strcmp(text, wanted) != 0)
        fprintf(stderr, "    %a is written %s, not %s\n", value, text, wanted);
    return strcmp(text, wanted) == 0;
}

/* The fewest digits that read back, in Python's layout. */
static void doubles(void)
{
    CHECK(double_is(0, "0"));
    CHECK(double_is(-0.0, "-0"));
    CHECK(double_is(0.1, "0.1"));
    CHECK(double_is(-1234.567, "-1234.567"));
    CHECK(double_is(1e12 - 0.125, "999999999999.875"));
    CHECK(double_is(1.0 / 3, "0.3333333333333333"));
    CHECK(double_is(2.0 / 3e5, "6.666666666666667e-06"));
    CHECK(double_is(0.0001, "0.0001"));
    CHECK(double_is(0.00001, "1e-05"));
    CHECK(double_is(9007199254740991.0, "9007199254740991"));
    CHECK(double_is(1e15, "1000000000000000"));
    CHECK(double_is(1e16, "1e+16"));
    CHECK(double_is(5e-324, "5e-324"));
    CHECK(double_is(1.7976931348623157e308, "1.7976931348623157e+308"));
    CHECK(double_is(0x1p-1017, "7.120236347223045e-307")); /* the nearest decimal of 16 digits does not read back */
}

static void integers(void)
{
    char text[VMS_NUMBER_MOST] = {0};
    *vms_write_unsigned(text, UINT64_MAX) = 0;
    CHECK(strcmp(text, "18446744073709551615") == 0);
    *vms_write_signed(text, INT64_MIN) = 0;
    CHECK(strcmp(text, "-9223372036854775808") == 0);
    for (uint64_t power = 1, digits = 1; digits <= 19; power *= 10, digits++) {
        CHECK_EQUAL(vms_write_unsigned(text, power) - text, digits);
        CHECK_EQUAL(vms_write_unsigned(text, power - 1) - text, digits == 1 ? 1 : digits - 1);
    }
    uint64_t value = 1, wrong = 0;
    for (int i = 0; i < 300000; i++) {                  /* of any length, and all of the short ones */
        char wanted[VMS_NUMBER_MOST];
        value = value * 6364136223846793005u + 1442695040888963407u;
        uint64_t one = i < 110000 ? (uint64_t)i : value >> (i % 64);
        snprintf(wanted, sizeof wanted, "%llu", (unsigned long long)one);
        *vms_write_unsigned(text, one) = 0;
        wrong += strcmp(text, wanted) != 0;
    }
    CHECK_EQUAL(wrong, 0);
}

/* A copy on the heap with no more than the promised room behind it, for the sanitizer to watch. */
static char *text_of(const char *text)
{
    size_t size = strlen(text);
    char *copy = calloc(1, size + VMS_TEXT_SLACK);
    memcpy(copy, text, size);
    return copy;
}

/* Rows that are null, text that is empty, and lines without a field. */
static void nulls(void)
{
    char *measurement = text_of("m"), *tag = text_of(",t=a"), *head = text_of(",f="), *flag = text_of(",g=");
    const uint64_t ends[] = {4, 4};
    const uint32_t codes[] = {0, 1, 0, 1};
    const double values[] = {0.5, NAN, INFINITY, 2};
    const uint8_t flags[] = {1, 0, 1, 0}, valid[] = {1, 1, 0, 0};
    const vms_column_t columns[] = {
        {.kind = VMS_COLUMN_CELLS, .cells = 2, .text = tag, .ends = ends, .codes = codes},
        {.kind = VMS_COLUMN_DOUBLES, .text = head, .head_size = 3, .values = values},
        {.kind = VMS_COLUMN_BOOLEANS, .text = flag, .head_size = 3, .values = flags, .valid = valid},
    };
    const int64_t times[] = {1, 2, 3, -4};
    const vms_lines_t lines = {measurement, 1, columns, 1, 3, times, 4};
    const char *wanted = "m,t=a f=0.5,g=true 1\nm g=false 2\nm f=2 -4\n";

    vms_written_t written = {99, 99};
    char *out = malloc(LINE_MOST);
    CHECK_EQUAL(vms_encode_lines(&lines, 0, out, LINE_MOST, &written), 4);
    CHECK_EQUAL(written.octets, strlen(wanted));
    CHECK_EQUAL(written.lines, 3);
    CHECK(memcmp(out, wanted, strlen(wanted)) == 0);
    free(out);

    /* Whatever the room, nothing is written behind it, and no row is passed over or written in part. */
    for (uint64_t size = 0; size < 300; size++) {
        out = malloc(size ? size : 1);
        uint64_t row = vms_encode_lines(&lines, 0, out, size, &written);
        CHECK(written.octets <= size);
        CHECK(row > 0 || written.octets + written.lines == 0);
        CHECK(row < 4 || written.octets == strlen(wanted));
        free(out);
    }
    free(measurement), free(tag), free(head), free(flag);
}

int main(void)
{
    doubles();
    integers();
    nulls();
    return check_summary("test_lines");
}
