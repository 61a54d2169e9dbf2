/* The smallest of test harnesses: a failed check is printed and the run goes on, to show all that is wrong at once. */

#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

static unsigned checks_passed, checks_failed;

static inline bool check(bool holds, const char *file, int line, const char *text)
{
    checks_passed += holds;
    checks_failed += !holds;
    if (!holds)
        fprintf(stderr, "%s:%d: not true: %s\n", file, line, text);
    return holds;
}

static inline bool check_equal(int64_t is, int64_t wanted, const char *file, int line, const char *text)
{
    if (!check(is == wanted, file, line, text))
        fprintf(stderr, "    it is %" PRId64 ", not %" PRId64 "\n", is, wanted);
    return is == wanted;
}

#define CHECK(expression) check(expression, __FILE__, __LINE__, #expression)
#define CHECK_EQUAL(is, wanted) check_equal((int64_t)(is), (int64_t)(wanted), __FILE__, __LINE__, #is " == " #wanted)

/* The exit status of a test program: 0 if all checks held. */
static inline int check_summary(const char *name)
{
    if (checks_failed)
        fprintf(stderr, "%s: %u checks FAILED, %u passed\n", name, checks_failed, checks_passed);
    else
        printf("%s: %u checks passed\n", name, checks_passed);
    return checks_failed != 0;
}

#endif
