/* Numbers as text.

   A double becomes the shortest decimal that reads back as the same double (Steele and White 1990), laid out as Python's
   repr does it. Most of what a sensor measures is a count of nanoseconds divided by 1000: those take a short cut. */

#include "number.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 wide;

#define TOO_LARGE (UINT64_C(1) << 53) /* from here on, not every integer is a double */
#define MOST_DIGITS 17                /* always enough to tell doubles apart */

static const char PAIRS[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464"
                            "74849505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394"
                            "9596979899";

static const uint64_t POWERS[] = {
    UINT64_C(1), UINT64_C(10), UINT64_C(100), UINT64_C(1000), UINT64_C(10000), UINT64_C(100000), UINT64_C(1000000),
    UINT64_C(10000000), UINT64_C(100000000), UINT64_C(1000000000), UINT64_C(10000000000), UINT64_C(100000000000),
    UINT64_C(1000000000000), UINT64_C(10000000000000), UINT64_C(100000000000000), UINT64_C(1000000000000000),
    UINT64_C(10000000000000000), UINT64_C(100000000000000000), UINT64_C(1000000000000000000),
    UINT64_C(10000000000000000000),
};
#define POWERS_MOST 19

#define EIGHT_DIGITS 100000000u
#define ZEROS UINT64_C(0x3030303030303030)

/* The eight decimal digits of a number below 10^8, an octet each, the first one lowest: halves of four digits, of two, of
   one, divided side by side. 10486 / 2^20 and 103 / 2^10 are 1/100 and 1/10, exact for what they are used of. */
static uint64_t eight_digits(uint32_t value)
{
    uint64_t fours = value / 10000 | (uint64_t)(value % 10000) << 32;
    uint64_t upper = (fours * 10486 >> 20) & UINT64_C(0x0000007f0000007f);
    uint64_t twos = upper | (fours - 100 * upper) << 16;
    upper = (twos * 103 >> 10) & UINT64_C(0x000f000f000f000f);
    return upper | (twos - 10 * upper) << 8;
}

static void put_eight(char *out, uint64_t text)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    text = __builtin_bswap64(text);
#endif
    memcpy(out, &text, sizeof text);
}

/* Without a branch on how many digits there are, which nobody could foretell. */
static char *write_below_eight_digits(char *out, uint32_t value)
{
    uint64_t digits = eight_digits(value);
    int zeros = __builtin_ctzll(digits | UINT64_C(1) << 56) / 8;        /* of 0, one digit is left */
    put_eight(out, (digits | ZEROS) >> 8 * zeros);
    return out + 8 - zeros;
}

char *vms_write_unsigned(char *out, uint64_t value)
{
    if (value < 10) {
        *out = (char)('0' + value);
        return out + 1;
    }
    if (value < EIGHT_DIGITS)
        return write_below_eight_digits(out, (uint32_t)value);
    out = vms_write_unsigned(out, value / EIGHT_DIGITS);
    put_eight(out, eight_digits((uint32_t)(value % EIGHT_DIGITS)) | ZEROS);
    return out + 8;
}

char *vms_write_signed(char *out, int64_t value)
{
    if (value < 0) {
        *out++ = '-';
        return vms_write_unsigned(out, 0 - (uint64_t)value);
    }
    return vms_write_unsigned(out, (uint64_t)value);
}

/* 0.d1 d2 ... dn x 10^point, without zeros at the end. Python changes to an exponent below 1e-4 and from 1e16 on. */
static char *lay_out(char *out, const char *digits, int count, int point)
{
    if (point > -4 && point <= 0) {
        memcpy(out, "0.000", 5);
        out += 2 - point;
        memcpy(out, digits, (size_t)count);
        return out + count;
    }
    if (point > 0 && point <= 16) {
        int whole = count < point ? count : point;
        memcpy(out, digits, (size_t)whole);
        memset(out + whole, '0', (size_t)(point - whole));
        out += point;
        if (count > whole) {
            *out++ = '.';
            memcpy(out, digits + whole, (size_t)(count - whole));
            out += count - whole;
        }
        return out;
    }
    *out++ = digits[0];
    if (count > 1) {
        *out++ = '.';
        memcpy(out, digits + 1, (size_t)(count - 1));
        out += count - 1;
    }
    return out + sprintf(out, "e%+03d", point - 1);
}

/* floor(cb x 2^q x 10^n) with its lowest bit set when something was cut off ("round to odd"), for -q in 1..127. */
static uint64_t scaled(uint64_t cb, int q, int n)
{
    wide power = n <= POWERS_MOST ? POWERS[n] : (wide)POWERS[POWERS_MOST] * POWERS[n - POWERS_MOST];
    wide low = (wide)cb * (uint64_t)power;
    wide high = (wide)cb * (uint64_t)(power >> 64) + (uint64_t)(low >> 64);
    uint64_t rest = (uint64_t)low;
    int shift = -q;
    if (shift >= 64) {
        wide cut = high & (((wide)1 << (shift - 64)) - 1);
        return (uint64_t)(high >> (shift - 64)) | (cut || rest);
    }
    return (uint64_t)(high << (64 - shift)) | rest >> shift | ((rest & ((UINT64_C(1) << shift) - 1)) != 0);
}

/* Of the decimals c x 10^-n around m x 2^q, the one to write: one digit less if that reads back as well, else the
   nearer one. This is the choice of Schubfach (R. Giulietti, The Schubfach way to render doubles, 2020), exact here
   because 10^n is: n is at most 36. */
static uint64_t shortest(uint64_t m, int q, int n)
{
    uint64_t value = scaled(4 * m, q, n), low = scaled(4 * m - 2, q, n), high = scaled(4 * m + 2, q, n);
    uint64_t odd = m & 1; /* a tie reads back as the even neighbour */
    uint64_t below = value >> 2, ten = below / 10 * 10;
    bool ten_fits = low + odd <= ten << 2, next_ten_fits = ((ten + 10) << 2) + odd <= high;
    if (ten_fits != next_ten_fits)
        return ten_fits ? ten : ten + 10;
    bool below_fits = low + odd <= below << 2, above_fits = ((below + 1) << 2) + odd <= high;
    if (below_fits != above_fits)
        return below_fits ? below : below + 1;
    uint64_t middle = (below << 2) + 2;
    return value < middle || (value == middle && (below & 1) == 0) ? below : below + 1;
}

static char *write_shortest(char *out, uint64_t m, int q)
{
    int n = -(int)((int64_t)q * 1292913986 >> 32); /* -floor(q x log10(2)) */
    uint64_t decimal = shortest(m, q, n);
    int zeros = 0;
    while (decimal % 10 == 0) {
        decimal /= 10;
        zeros++;
    }
    char digits[VMS_NUMBER_MOST];
    int count = (int)(vms_write_unsigned(digits, decimal) - digits);
    return lay_out(out, digits, count, count + zeros - n);
}

/* The next decimal of as many digits, in place; false where that needs another digit. */
static bool next_decimal(char *text)
{
    char *at = strchr(text, 'e');
    while (at-- > text) {
        if (*at < '0' || *at > '9')
            continue; /* the decimal point, whatever the locale writes for it */
        if (*at != '9') {
            ++*at;
            return true;
        }
        *at = '0';
    }
    return false;
}

/* Any double: the fewest digits that read back, by trial. Above a power of two there is twice the room than below, so
   that there the nearest decimal may not read back while the next one does. */
static char *write_by_trial(char *out, double value)
{
    char text[MOST_DIGITS + 16], digits[MOST_DIGITS];
    for (int precision = 1; precision <= MOST_DIGITS; precision++) {
        snprintf(text, sizeof text, "%.*e", precision - 1, value);
        if (strtod(text, NULL) == value)
            break;
        if (next_decimal(text) && strtod(text, NULL) == value)
            break;
    }
    int count = 0;
    const char *at = text;
    for (; *at != 'e'; at++)
        if (*at >= '0' && *at <= '9')
            digits[count++] = *at;
    while (count > 1 && digits[count - 1] == '0')
        count--;
    return lay_out(out, digits, count, (int)strtol(at + 1, NULL, 10) + 1);
}

/* `thousandths` / 1000. It has at most 15 digits, and of those no two read as one double: none is shorter. */
static char *write_thousandths(char *out, uint64_t thousandths)
{
    out = vms_write_unsigned(out, thousandths / 1000);
    unsigned rest = (unsigned)(thousandths % 1000);
    if (rest == 0)
        return out;
    *out++ = '.';
    *out++ = (char)('0' + rest / 100);
    if (rest % 100) {
        memcpy(out, PAIRS + rest % 100 * 2, 2);
        out += rest % 10 ? 2 : 1;
    }
    return out;
}

char *vms_write_double(char *out, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (bits >> 63) {
        *out++ = '-';
        value = -value;
    }
    if (value < 1e12) {
        uint64_t thousandths = (uint64_t)(value * 1000 + 0.5);
        if ((double)thousandths / 1000 == value)
            return write_thousandths(out, thousandths);
    }
    if (value < (double)TOO_LARGE && (double)(uint64_t)value == value)
        return vms_write_unsigned(out, (uint64_t)value);
    int q = (int)(bits >> 52 & 0x7FF) - 1075;
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    /* At a power of two the doubles below are closer than those above, which `shortest` does not provide for. */
    if (q < 0 && q >= -119 && fraction != 0)
        return write_shortest(out, fraction | UINT64_C(1) << 52, q);
    return write_by_trial(out, value);
}
