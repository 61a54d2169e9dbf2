#include "flow.h"
#include "memory.h"

#define CARD_IN_USE (1ULL << 48)

void presence_close(struct presence *presence)
{
    memory_free(presence->sets, PRESENCE_SETS * sizeof *presence->sets);
    presence->sets = NULL;
}

static uint32_t card_hash(const struct presence *presence, uint64_t number)
{
    unsigned __int128 product = (unsigned __int128)(number ^ presence->secret) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(product >> 64) % PRESENCE_SETS;
}

static uint32_t share_of_set(const struct presence *presence, uint32_t set)
{
    return (uint32_t)((uint64_t)set * presence->shares / PRESENCE_SETS);
}

static bool has_sets(struct presence *presence)
{
    return presence->sets || (presence->sets = memory_array(PRESENCE_SETS * sizeof *presence->sets));
}

struct heard presence_hear(struct presence *presence, const uint8_t *mac)
{
    uint64_t octets;
    memcpy(&octets, mac, sizeof octets);                /* two more than are wanted */
    uint64_t number = CARD_IN_USE | __builtin_bswap64(octets) >> 16;
    uint32_t set = card_hash(presence, number);
    bool is_ours = presence->shares <= 1 || share_of_set(presence, set) == presence->share;
    if (!is_ours || !has_sets(presence))
        return (struct heard){number, NULL};
    fetch_line(presence->sets[set]);                    /* few sets have more than one card */
    return (struct heard){number, presence->sets[set]};
}

/* The card's place: its own, a free one, or that of the card that was heard least lately. */
static struct card *place_of(struct presence *presence, struct heard heard)
{
    struct card *set = heard.set, *oldest = set;
    for (int i = 0; i < PRESENCE_WAYS; i++) {
        if (set[i].mac == heard.number || !set[i].mac)
            return &set[i];
        if (set[i].last_ns < oldest->last_ns)
            oldest = &set[i];
    }
    if (oldest->packets) {
        presence->lost++;
        presence->heard--;
    }
    *oldest = (struct card){0};
    return oldest;
}

void presence_note(struct presence *presence, struct heard heard, int64_t ts_ns)
{
    struct card *card = place_of(presence, heard);
    if (!card->packets++) {
        presence->heard++;
        card->first_ns = ts_ns;
    }
    if (card->mac && ts_ns - card->last_ns > card->gap_ns) {
        card->gap_ns = ts_ns - card->last_ns;
        card->gap_end_ns = ts_ns;
    }
    card->mac = heard.number;
    if (ts_ns > card->last_ns)
        card->last_ns = ts_ns;
}

/* The card is there, but was not heard yet in the window that opens. */
static void begin_window(struct card *card)
{
    card->packets = 0;
    card->gap_ns = card->gap_end_ns = 0;
}

static void export(struct card *card, vms_presence_t *out)
{
    *out = (vms_presence_t){.first_ns = card->first_ns, .last_ns = card->last_ns, .gap_ns = card->gap_ns,
                            .gap_end_ns = card->gap_end_ns, .packets = card->packets};
    for (int i = 0; i < 6; i++)
        out->mac[i] = (uint8_t)(card->mac >> (40 - 8 * i));
    begin_window(card);
}

uint32_t vms_presence_count(const vms_table_t *t)
{
    return t->presence.heard;
}

uint32_t vms_take_presence(vms_table_t *t, vms_presence_t *cards, uint32_t capacity)
{
    uint32_t taken = 0;
    for (uint32_t i = 0; t->presence.sets && i < PRESENCE_SETS && taken < t->presence.heard; i++)
        for (int way = 0; way < PRESENCE_WAYS && taken < capacity; way++)
            if (t->presence.sets[i][way].packets)
                export(&t->presence.sets[i][way], &cards[taken++]);
    t->presence.heard = 0;
    return taken;
}

void presence_forget(struct presence *presence)
{
    for (uint32_t i = 0; presence->sets && i < PRESENCE_SETS && presence->heard; i++)
        for (int way = 0; way < PRESENCE_WAYS; way++)
            if (presence->sets[i][way].packets)
                begin_window(&presence->sets[i][way]);
    presence->heard = 0;
}
