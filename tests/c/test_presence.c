/* When network cards are heard, and how long they are silent. */

#include "tap.h"

static void feed(struct tap *tap, int64_t at_ns, uint8_t card)
{
    struct frame f = frame_payload(10);
    put_udp(&f, 1000, 2000);
    put_ipv4(&f, 1, 2);
    put_ethernet(&f)[11] = card;
    tap_feed(tap, at_ns, &f);
}

static vms_presence_t card_of(struct tap *tap, uint8_t number, uint32_t expected)
{
    vms_presence_t cards[8], found = {0};
    CHECK_EQUAL(vms_presence_count(tap->table), expected);
    uint32_t count = vms_take_presence(tap->table, cards, 8);
    CHECK_EQUAL(count, expected);
    for (uint32_t i = 0; i < count; i++)
        if (cards[i].mac[5] == number)
            found = cards[i];
    return found;
}

/* The longest silence between two packets of a card, whatever others send in the meantime. */
static void longest_silence(void)
{
    struct tap tap = tap_open();
    feed(&tap, 1 * SECOND, 7);
    feed(&tap, 1 * SECOND + 10 * MS, 7);
    for (int i = 0; i < 9; i++)
        feed(&tap, 2 * SECOND + i * 100 * MS, 8);
    feed(&tap, 3 * SECOND, 7);
    feed(&tap, 3 * SECOND + 500 * MS, 7);
    vms_presence_t card = card_of(&tap, 7, 2);
    CHECK_EQUAL(card.packets, 4);
    CHECK_EQUAL(card.first_ns, 1 * SECOND);
    CHECK_EQUAL(card.last_ns, 3 * SECOND + 500 * MS);
    CHECK_EQUAL(card.gap_ns, 2 * SECOND - 10 * MS);
    CHECK_EQUAL(card.gap_end_ns, 3 * SECOND);
    tap_close(&tap);
}

/* A silence that began in the window before counts where it ends; a card that was not heard is not there. */
static void silence_across_windows(void)
{
    struct tap tap = tap_open();
    feed(&tap, 9 * SECOND, 7);
    feed(&tap, 9 * SECOND, 8);
    card_of(&tap, 7, 2);
    feed(&tap, 12 * SECOND, 7);
    vms_presence_t card = card_of(&tap, 7, 1);
    CHECK_EQUAL(card.gap_ns, 3 * SECOND);
    CHECK_EQUAL(card.packets, 1);
    CHECK_EQUAL(card.first_ns, 12 * SECOND);
    tap_close(&tap);
}

/* A card's first packet ends no silence, and a packet from the past none either. */
static void no_silence(void)
{
    struct tap tap = tap_open();
    feed(&tap, 5 * SECOND, 7);
    feed(&tap, 4 * SECOND, 7);
    vms_presence_t card = card_of(&tap, 7, 1);
    CHECK_EQUAL(card.gap_ns, 0);
    CHECK_EQUAL(card.last_ns, 5 * SECOND);
    tap_close(&tap);
}

/* More cards than there is room for: memory stays what it is, and those lost are counted. */
static void a_flood_of_cards(void)
{
    struct tap tap = tap_open();
    const uint32_t flood = 200000;
    for (uint32_t i = 0; i < flood; i++) {
        struct frame f = frame_payload(10);
        put_udp(&f, 1000, 2000);
        put_ipv4(&f, 1, 2);
        write32(put_ethernet(&f) + 8, i);
        tap_feed(&tap, SECOND + i, &f);
    }
    uint32_t kept = vms_presence_count(tap.table);
    CHECK(kept <= 65536 && kept > 60000);
    CHECK_EQUAL(kept + tap_counters(&tap).cards_lost, flood);
    vms_presence_t *cards = malloc(kept * sizeof *cards);
    CHECK_EQUAL(vms_take_presence(tap.table, cards, kept), kept);
    CHECK_EQUAL(vms_presence_count(tap.table), 0);
    free(cards);
    tap_close(&tap);
}

int main(void)
{
    longest_silence();
    silence_across_windows();
    no_silence();
    a_flood_of_cards();
    return check_summary("test_presence");
}
