/* Rows of columns as InfluxDB line protocol:

       measurement,tag=value,... field=value,... timestamp

   All that needs escaping has been escaped in the columns' cells, where each name stands once; here it is copied. */

#include "number.h"
#include "vms.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Most texts are short: copying a fixed number of octets is faster than finding out how many. What is behind the text
   is overwritten by what comes next. */
static char *append(char *out, const char *text, uint64_t size)
{
    if (size <= VMS_TEXT_SLACK)
        memcpy(out, text, VMS_TEXT_SLACK);
    else
        memcpy(out, text, size);
    return out + size;
}

static uint64_t cell_begin(const vms_column_t *column, uint32_t cell)
{
    return cell ? column->ends[cell - 1] : 0;
}

/* The most that a cell of the column takes. */
static uint64_t widest(const vms_column_t *column)
{
    if (column->kind != VMS_COLUMN_CELLS)
        return column->head_size + VMS_NUMBER_MOST;
    uint64_t most = 0;
    for (uint32_t cell = 0; cell < column->cells; cell++) {
        uint64_t size = column->ends[cell] - cell_begin(column, cell);
        most = size > most ? size : most;
    }
    return most;
}

static bool is_null(const vms_column_t *column, uint64_t row)
{
    if (column->valid && !column->valid[row])
        return true;
    return column->kind == VMS_COLUMN_DOUBLES && !isfinite(((const double *)column->values)[row]);
}

static char *write_cell(char *out, const vms_column_t *column, uint64_t row)
{
    if (is_null(column, row))
        return out;
    if (column->kind == VMS_COLUMN_CELLS) {
        uint32_t cell = column->codes[row];
        uint64_t begin = cell_begin(column, cell);
        return append(out, column->text + begin, column->ends[cell] - begin);
    }
    out = append(out, column->text, column->head_size);
    switch (column->kind) {
    case VMS_COLUMN_SIGNED:
        out = vms_write_signed(out, ((const int64_t *)column->values)[row]);
        *out++ = 'i';
        return out;
    case VMS_COLUMN_UNSIGNED:
        out = vms_write_unsigned(out, ((const uint64_t *)column->values)[row]);
        *out++ = 'i';
        return out;
    case VMS_COLUMN_DOUBLES:
        return vms_write_double(out, ((const double *)column->values)[row]);
    default:
        memcpy(out, ((const uint8_t *)column->values)[row] ? "true " : "false", 5);
        return out + (((const uint8_t *)column->values)[row] ? 4 : 5);
    }
}

/* One row; where it has no field, nothing. */
static char *write_line(char *line, const vms_lines_t *lines, uint64_t row)
{
    char *out = append(line, lines->measurement, lines->measurement_size);
    for (uint32_t i = 0; i < lines->tags; i++)
        out = write_cell(out, &lines->columns[i], row);
    char *fields = out;
    for (uint32_t i = lines->tags; i < lines->count; i++)
        out = write_cell(out, &lines->columns[i], row);
    if (out == fields)
        return line;
    *fields = ' '; /* in place of the first field's comma */
    *out++ = ' ';
    out = vms_write_signed(out, lines->times[row]);
    *out++ = '\n';
    return out;
}

uint64_t vms_encode_lines(const vms_lines_t *lines, uint64_t first, char *out, uint64_t size,
                          vms_written_t *written)
{
    uint64_t most = lines->measurement_size + VMS_NUMBER_MOST + VMS_TEXT_SLACK + 3;
    for (uint32_t i = 0; i < lines->count; i++)
        most += widest(&lines->columns[i]);
    char *at = out, *end = out + size;
    uint64_t row = first, count = 0;
    for (; row < lines->rows && (uint64_t)(end - at) >= most; row++) {
        char *line = at;
        at = write_line(line, lines, row);
        count += at > line;
    }
    *written = (vms_written_t){(uint64_t)(at - out), count};
    return row;
}
