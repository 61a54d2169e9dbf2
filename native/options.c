/* TCP options (RFC 9293 section 3.1):  | kind 8 | length 8, both of these included | value |  */

#include "tcp.h"

enum { TCP_OPTION_END = 0, TCP_OPTION_NOP = 1 };

const uint8_t *tcp_option(const struct packet *p, enum tcp_option wanted, uint8_t *size)
{
    struct cursor c = cursor_over(p->tcp_options, p->tcp_options_size);
    const uint8_t *kind, *length, *value;
    while ((kind = cursor_take(&c, 1)) && *kind != TCP_OPTION_END) {
        if (*kind == TCP_OPTION_NOP)
            continue;
        if (!(length = cursor_take(&c, 1)) || *length < 2 || !(value = cursor_take(&c, *length - 2u)))
            return NULL;
        *size = *length - 2;
        if (*kind == wanted)
            return value;
    }
    return NULL;
}
