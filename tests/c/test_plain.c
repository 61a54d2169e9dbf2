/* The short way of the plain frame: wherever it is taken, it leaves what the layers leave. */

#include "check.h"
#include "decode.h"
#include "frame.h"

enum { TRIES = 200000, HEADERS = 14 + 4 + 20 + 20, ROOM = 128 };

static uint32_t draw(uint32_t below)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

/* One to three octets of the headers are something else; the frame is cut, or padded. */
static size_t changed(const struct frame *plain, uint8_t *bytes)
{
    size_t size = frame_size(plain);
    memset(bytes, 0, ROOM);
    memcpy(bytes, plain->room + plain->start, size);
    for (uint32_t i = draw(4); i; i--)
        bytes[draw(HEADERS)] = (uint8_t)draw(256);
    return draw(4) ? size : draw(ROOM);
}

static struct packet begun(void)
{
    struct packet p;
    memset(&p, 0, sizeof p);
    packet_begin(&p, 0);
    return p;
}

static struct frame plain_frame(bool is_tagged)
{
    struct frame f = frame_payload(20);
    put_tcp(&f, (struct tcp_fields){.sport = 1000, .dport = 80, .seq = 1, .ack = 1, .flags = TCP_ACK, .window = 9});
    put_ipv4(&f, 1, 2);
    if (is_tagged)
        put_vlan(&f, 100);
    put_ethernet(&f);
    return f;
}

static void same_as_layers(bool is_tagged)
{
    vms_counters_t counters = {0};
    struct decoder decoder = {.counters = &counters, .notices.are_elsewhere = true};
    struct frame f = plain_frame(is_tagged);
    uint32_t taken = 0, tagged = 0;
    uint8_t bytes[ROOM];
    for (int i = 0; i < TRIES; i++) {
        struct cursor frame = cursor_over(bytes, changed(&f, bytes));
        struct packet plain = begun(), layered = begun();
        if (!decode_plain(frame, &plain))
            continue;
        taken++;
        tagged += plain.frame_vlan_count;
        CHECK_EQUAL(decode_ethernet(&decoder, frame, &layered), VMS_FATE_FLOW);
        CHECK(memcmp(&plain, &layered, sizeof plain) == 0);
    }
    CHECK(taken > TRIES / 4);
    CHECK_EQUAL(tagged, is_tagged ? taken : 0);
    CHECK_EQUAL(counters.short_tcp, 0);
}

int main(void)
{
    same_as_layers(false);
    same_as_layers(true);
    return check_summary("test_plain");
}
