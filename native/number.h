/* Numbers as text, the way Python writes them; see number.c. */
#ifndef VMS_NUMBER_H
#define VMS_NUMBER_H

#include <stdint.h>

/* Room that any number takes. */
#define VMS_NUMBER_MOST 32

/* Each writes at `out`, where there has to be room for any number, and returns the end of what it wrote. */
char *vms_write_unsigned(char *out, uint64_t value);
char *vms_write_signed(char *out, int64_t value);

/* The shortest decimal that reads back as `value`, as Python's repr gives it, without a trailing ".0". Finite only. */
char *vms_write_double(char *out, double value);

#endif
