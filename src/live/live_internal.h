/*
 * live_internal.h
 *		What the files of the live state share: the layout of a generation's hash table.
 */
#ifndef SX_LIVE_INTERNAL_H
#define SX_LIVE_INTERNAL_H

#include "live/live_state.h"

#include "access/htup.h"
#include "access/htup_details.h"

/* SxGeneration.buckets points to one of these */
typedef struct SxBuckets
{
	uint32		nbuckets;		/* a power of two */
	uint32		chain;			/* which of the entries' next pointers links these chains */
	dsa_pointer bucket[FLEXIBLE_ARRAY_MEMBER];
} SxBuckets;

static inline SxGeneration *
sx_gen_at(SxView *v, uint64 no)
{
	return &v->gens[no % SX_MAX_GENERATIONS];
}

/* generations first_gen .. sx_gen_last are in use; none if that is lower */
static inline uint64
sx_gen_last(SxView *v)
{
	if (v->open_gen != 0)
		return v->open_gen;
	return v->first_gen == 0 ? 0 : v->first_gen - 1;
}

static inline Size
sx_entry_size(int nkeys)
{
	return offsetof(SxLiveEntry, keyhash) + nkeys * sizeof(uint32);
}

/* Invalid when memory is exhausted; the array is empty */
extern dsa_pointer sx_buckets_allocate(dsa_area *area, uint32 nbuckets);
extern Size sx_buckets_size(uint32 nbuckets);

#endif							/* SX_LIVE_INTERNAL_H */
