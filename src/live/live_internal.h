/*
 * live_internal.h
 *		What the files of the live state share: the layout of a generation's hash table, and the
 *		consumer's side of a view.
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

/* ---- the consumer's side: live_state.c, live_sessions.c ---- */

/* an entry that has something prepared; prepared Invalid: its row goes, another has taken it up */
typedef struct SxTouched
{
	SxLiveEntry *entry;
	dsa_pointer entry_dp;
	dsa_pointer replaced;		/* its row before the publication */
	bool		is_new;
} SxTouched;

typedef struct SxSessionIndex SxSessionIndex;

struct SxLiveWriter
{
	SxDb	   *db;
	SxView	   *view;
	SxViewInfo *info;
	dsa_area   *area;
	MemoryContext context;
	MemoryContext scratch;		/* reset with every row */
	TupleTableSlot *entry_slot; /* an entry's tuple */
	TupleTableSlot *next_slot;	/* a row that will come */
	TupleTableSlot *combined;
	uint32	   *keyhash;		/* [nkeys], of the row at hand */
	SxTouched  *touched;
	Size		ntouched;
	Size		maxtouched;
	int64		bytes;			/* what publishing adds to the generation */
	int64		replaced_bytes; /* and takes from it */
	uint32		combines;
	uint32		no_growth_below;	/* entries; set when there was no memory for more buckets */
	/* dead letters, newest first */
	dsa_pointer first_letter;
	dsa_pointer last_letter;
	uint32		nletters;
	/* for the alerter */
	dsa_pointer changes;		/* SxChanges, to be published; Invalid: none */
	dsa_pointer seen_changes;	/* what it has seen, to be freed; linked */
	/* sessions */
	SxSessionIndex *sessions;	/* of the open generation; made when first needed */
	SxSessionIndex *sealed_sessions;	/* of the one before */
	bool		asked;			/* somebody has looked for one: that of the sealed one is kept */
	uint64		dead_gen;		/* the generation with ... */
	uint32		ndead;			/* ... so many entries whose row went */
};

/* room for n more touched entries, before anything shared is changed */
extern void sx_live_reserve(SxLiveWriter *w, Size n);
/* a new entry, the last one touched; false: memory is exhausted */
extern bool sx_live_add_entry(SxLiveWriter *w, SxGeneration *gen, uint32 hash, TupleTableSlot *row);
/* the entry's tuple is in w->entry_slot; false: memory is exhausted */
extern bool sx_live_combine_entry(SxLiveWriter *w, SxLiveEntry *entry, dsa_pointer entry_dp, TupleTableSlot *row);
extern void sx_live_note_combine(SxLiveWriter *w);

/* sessions: the row goes into one entry with all that it overlaps; w->keyhash is set */
extern bool sx_session_prepare(SxLiveWriter *w, SxGeneration *gen, uint32 hash, TupleTableSlot *row);
/* what is prepared is forgotten: find out again what there is */
extern void sx_session_discard(SxLiveWriter *w);
/* after a publication: gives entries back whose row went, when there are many */
extern void sx_session_published(SxLiveWriter *w);

#endif							/* SX_LIVE_INTERNAL_H */
