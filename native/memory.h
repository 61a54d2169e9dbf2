/* Memory from the system in large pieces: aligned for huge pages, zero, and taken only where it is touched. */
#ifndef VMS_MEMORY_H
#define VMS_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define MEMORY_PAGE 4096u
#define MEMORY_HUGE_PAGE (2u << 20)

/* Addresses without memory behind them; NULL when there are no more. */
void *memory_reserve(uint64_t size);

/* Memory behind addresses that were reserved; 0, or -1 when there is none. */
int memory_grant(void *at, uint64_t size);

/* Asks for huge pages: what is read all over would else cost more for finding its address than for reading it. */
void memory_want_huge(void *at, uint64_t size);

/* Both at once: an array that is read all over. NULL when there is no memory. */
void *memory_array(uint64_t size);

void memory_free(void *at, uint64_t size);

#endif
