#include <stdlib.h>

#include "decode.h"

int fragments_open(struct fragments *fragments, struct siphash_key key)
{
    fragments->key = key;
    fragments->sets = calloc(FRAGMENT_SETS, sizeof *fragments->sets);
    return fragments->sets ? 0 : -1;
}

void fragments_close(struct fragments *fragments)
{
    free(fragments->sets);
    fragments->sets = NULL;
}

static uint64_t fingerprint(const struct fragments *fragments, const struct packet *p, uint32_t id)
{
    struct {
        uint8_t src[16], dst[16];
        uint32_t id, vni;
        uint16_t vlan[2];
        uint8_t version, has_vni, protocol, zero;
    } what;
    _Static_assert(sizeof what == 48, "hashed without padding");
    size_t size = p->ip_version == 4 ? 4 : 16;
    memset(&what, 0, sizeof what);
    memcpy(what.src, p->src, size);
    memcpy(what.dst, p->dst, size);
    what.id = id;
    what.vni = p->vni;
    what.vlan[0] = p->frame_vlan[0];
    what.vlan[1] = p->frame_vlan[1];
    what.version = p->ip_version;
    what.protocol = p->fragment_protocol;
    what.has_vni = p->has_vni;
    return siphash_words(fragments->key, &what, sizeof what / 8) | 1;
}

void fragment_learn(struct fragments *fragments, const struct packet *p, uint32_t id)
{
    uint64_t print = fingerprint(fragments, p, id);
    struct fragment *set = fragments->sets[(print >> 32) % FRAGMENT_SETS];
    struct fragment *place = &set[0];
    for (int i = 0; i < FRAGMENT_WAYS; i++) {
        if (set[i].fingerprint == print) {
            place = &set[i];
            break;
        }
        if (set[i].ts_ns < place->ts_ns)
            place = &set[i];
    }
    *place = (struct fragment){print, p->ts_ns, p->sport, p->dport, p->protocol, p->has_ports};
}

bool fragment_resolve(const struct fragments *fragments, struct packet *p, uint32_t id)
{
    uint64_t print = fingerprint(fragments, p, id);
    const struct fragment *set = fragments->sets[(print >> 32) % FRAGMENT_SETS];
    for (int i = 0; i < FRAGMENT_WAYS; i++) {
        int64_t age = p->ts_ns - set[i].ts_ns;
        if (set[i].fingerprint != print || age > FRAGMENT_LIFETIME_NS || age < -FRAGMENT_LIFETIME_NS)
            continue;
        p->sport = set[i].sport;
        p->dport = set[i].dport;
        p->protocol = set[i].protocol;
        p->has_ports = set[i].has_ports;
        return true;
    }
    return false;
}
