/*
 * Memory that will be needed next is taken from the system by a thread beside the one that counts packets. The system
 * clears what it gives, two megabytes at a time where pages are huge: that takes some 0.2 ms, and ten where a virtual
 * machine has to get them from its host first. Nobody waits for the thread: what it has not done in time is done when
 * the memory is touched, as it would be without it.
 */
#ifndef VMS_AHEAD_H
#define VMS_AHEAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define AHEAD_MOST 16u              /* requests that wait; more are dropped */

struct ahead_request {
    uint8_t *at;
    uint64_t size;
    _Atomic uint64_t *ready;        /* set to `becomes` once the memory is there */
    uint64_t becomes;
};

struct ahead {
    bool running;
    bool refused;                   /* there is no thread to be had: nothing is done ahead */
    bool stop;                      /* this and what follows: under the lock */
    uint32_t first, count;
    struct ahead_request waiting[AHEAD_MOST];
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t thread;
};

/* The thread begins with the first request: a table of few flows has none. */
void ahead_ask(struct ahead *ahead, struct ahead_request request);
void ahead_close(struct ahead *ahead);

#endif
