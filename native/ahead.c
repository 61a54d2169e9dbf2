#define _DEFAULT_SOURCE 1           /* sigfillset */

#include <signal.h>

#include "ahead.h"
#include "memory.h"

/* Leaves what is there: somebody may use it by now. */
static void touch(uint8_t *at, uint64_t size)
{
    for (uint64_t offset = 0; offset < size; offset += MEMORY_PAGE)
        __atomic_fetch_or(at + offset, 0, __ATOMIC_RELAXED);
}

static void fulfil(const struct ahead_request *request)
{
    if (memory_grant(request->at, request->size))
        return;                     /* whoever needs it will ask himself, and be told */
    touch(request->at, request->size);
    atomic_store_explicit(request->ready, request->becomes, memory_order_release);
}

/* False when there will be no more. */
static bool next_request(struct ahead *ahead, struct ahead_request *request)
{
    pthread_mutex_lock(&ahead->lock);
    while (!ahead->count && !ahead->stop)
        pthread_cond_wait(&ahead->more, &ahead->lock);
    bool more = !ahead->stop;
    if (more) {
        *request = ahead->waiting[ahead->first];
        ahead->first = (ahead->first + 1) % AHEAD_MOST;
        ahead->count--;
    }
    pthread_mutex_unlock(&ahead->lock);
    return more;
}

static void *work(void *context)
{
    struct ahead_request request;
    while (next_request(context, &request))
        fulfil(&request);
    return NULL;
}

/* Signals are for the process's other threads. */
static bool start(struct ahead *ahead)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->more, NULL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ahead->running = pthread_create(&ahead->thread, NULL, work, ahead) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ahead->refused = !ahead->running;
    return ahead->running;
}

void ahead_ask(struct ahead *ahead, struct ahead_request request)
{
    if (ahead->refused || (!ahead->running && !start(ahead)))
        return;
    pthread_mutex_lock(&ahead->lock);
    if (ahead->count < AHEAD_MOST)
        ahead->waiting[(ahead->first + ahead->count++) % AHEAD_MOST] = request;
    pthread_cond_signal(&ahead->more);
    pthread_mutex_unlock(&ahead->lock);
}

void ahead_close(struct ahead *ahead)
{
    if (!ahead->running)
        return;
    pthread_mutex_lock(&ahead->lock);
    ahead->stop = true;
    pthread_cond_signal(&ahead->more);
    pthread_mutex_unlock(&ahead->lock);
    pthread_join(ahead->thread, NULL);
    pthread_cond_destroy(&ahead->more);
    pthread_mutex_destroy(&ahead->lock);
    ahead->running = false;
}
