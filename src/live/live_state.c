/*
 * live_state.c
 *		The consumer's side of a view's live state: prepare, publish, discard.
 *
 * Preparing may fail at any row: it combines (user code), allocates shared memory (may be
 * exhausted) and private memory.  It therefore changes nothing that a reader looks at.  New
 * entries are linked into their bucket at once, so that the next row of their group finds
 * them, but have no row, and readers skip those.  Each entry touched is on a private list;
 * publishing walks that list and stores pointers, which cannot fail.
 *
 * Locking: the consumer is the only writer of the open generation and reads it without a
 * lock.  Unlinking entries (discard) and replacing the bucket array (growth) take the
 * publish lock exclusively for a moment, because a reader may be walking there.
 *
 * A consumer that dies leaves a published state, possibly entries without a row and tuples
 * that nobody points to; the next consumer makes a new area.
 *
 * Rows of a session are found by what they overlap, and may unite several entries: see
 * live_sessions.c.
 */
#include "live/live_internal.h"

#include "executor/tuptable.h"
#include "utils/memutils.h"

/* with fewer groups all is in the caches; tests have few */
#ifdef SX_TESTING
#define FETCH_GROUPS		4
#else
#define FETCH_GROUPS		5000
#endif

/* a hint for the processor, not needed: it will be read soon */
#if defined(__GNUC__) || defined(__clang__)
#define fetch_memory(address)	__builtin_prefetch(address)
#else
#define fetch_memory(address)	((void) (address))
#endif

/* aggregates' scratch memory is given back after this many combined rows */
#define COMBINES_PER_RESET	1000

static SxGeneration *open_generation(SxLiveWriter *w);
static uint32 hash_keys(SxLiveWriter *w, TupleTableSlot *row);
static SxLiveEntry *find_entry(SxLiveWriter *w, SxGeneration *gen, uint32 hash, TupleTableSlot *row,
							   dsa_pointer *dp);
static void grow_buckets(SxLiveWriter *w, SxGeneration *gen);
static void mark_to_go(SxBuckets *buckets, SxTouched *t);
static bool is_to_go(SxBuckets *buckets, SxTouched *t);
static Size unlink_marked(SxLiveWriter *w, SxBuckets *buckets, uint32 hash, Size most);
static void publish_changes(SxLiveWriter *w, SxGeneration *gen, uint64 cycle);
static void forget(SxLiveWriter *w);
static void reset_aggregates(SxLiveWriter *w);

SxLiveWriter *
sx_live_writer_create(SxDb *db, SxView *v, SxViewInfo *info, MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "streamext live writer", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SxLiveWriter *w = palloc0(sizeof(SxLiveWriter));

	w->db = db;
	w->view = v;
	w->info = info;
	w->area = sx_db_area(db);
	if (w->area == NULL)
		elog(ERROR, "there is no live memory");
	w->context = context;
	w->scratch = AllocSetContextCreate(context, "streamext live row", ALLOCSET_DEFAULT_SIZES);
	w->entry_slot = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	w->next_slot = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	w->combined = MakeSingleTupleTableSlot(info->desc, &TTSOpsVirtual);
	w->keyhash = palloc0(sizeof(uint32) * (info->nkeys + 1));
	MemoryContextSwitchTo(old);
	return w;
}

void
sx_live_writer_destroy(SxLiveWriter *w)
{
	ExecDropSingleTupleTableSlot(w->entry_slot);
	ExecDropSingleTupleTableSlot(w->next_slot);
	ExecDropSingleTupleTableSlot(w->combined);
	MemoryContextDelete(w->context);
}

static SxGeneration *
open_generation(SxLiveWriter *w)
{
	SxGeneration *gen = sx_gen_at(w->view, w->view->open_gen);

	if (w->view->open_gen == 0 || gen->state != SX_GEN_OPEN)
		elog(ERROR, "continuous view with OID %u has no open generation", w->view->viewid);
	return gen;
}

/*
 * With many groups, finding one means waiting for memory three times: for its bucket, its entry, and its tuple.  Here
 * each is waited for by many rows at once.
 */
void
sx_live_expect(SxLiveWriter *w, MinimalTuple *rows, int n)
{
	SxViewInfo *info = w->info;
	SxGeneration *gen = open_generation(w);
	SxBuckets  *buckets;
	dsa_pointer *heads[SX_LIVE_AHEAD];
	SxLiveEntry *entries[SX_LIVE_AHEAD];
	uint32		hashes[SX_LIVE_AHEAD];
	MemoryContext old;

	Assert(n <= SX_LIVE_AHEAD);
	if (info->nkeys == 0 || info->session_key >= 0 || gen->nentries < FETCH_GROUPS)
		return;
	MemoryContextReset(w->scratch);
	old = MemoryContextSwitchTo(w->scratch);
	buckets = dsa_get_address(w->area, gen->buckets);
	for (int i = 0; i < n; i++)
	{
		ExecStoreMinimalTuple(rows[i], w->next_slot, false);
		hashes[i] = hash_keys(w, w->next_slot);
		heads[i] = &buckets->bucket[hashes[i] & (buckets->nbuckets - 1)];
		fetch_memory(heads[i]);
	}
	ExecClearTuple(w->next_slot);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < n; i++)
	{
		entries[i] = DsaPointerIsValid(*heads[i]) ? dsa_get_address(w->area, *heads[i]) : NULL;
		if (entries[i] != NULL)
			fetch_memory(entries[i]);
	}
	for (int i = 0; i < n; i++)
	{
		SxLiveEntry *entry = entries[i];
		dsa_pointer tuple;

		if (entry == NULL)
			continue;
		/* another group's: the one that comes next in the chain may be it */
		if (entry->hash != hashes[i])
			tuple = entry->next[buckets->chain];
		else
			tuple = DsaPointerIsValid(entry->prepared) ? entry->prepared : entry->row;
		if (DsaPointerIsValid(tuple))
			fetch_memory(dsa_get_address(w->area, tuple));
	}
}

static uint32
hash_keys(SxLiveWriter *w, TupleTableSlot *row)
{
	SxViewInfo *info = w->info;

	slot_getsomeattrs(row, info->nkeys);
	for (int i = 0; i < info->nkeys; i++)
		w->keyhash[i] = sx_key_hash(info, i, row->tts_values[i], row->tts_isnull[i]);
	return sx_row_hash(w->keyhash, info->nkeys);
}

bool
sx_live_prepare(SxLiveWriter *w, TupleTableSlot *row)
{
	SxViewInfo *info = w->info;
	SxGeneration *gen = open_generation(w);
	SxLiveEntry *entry = NULL;
	dsa_pointer dp = InvalidDsaPointer;
	MemoryContext old;
	uint32		hash = 0;
	bool		ok;

	sx_live_reserve(w, 1);
	MemoryContextReset(w->scratch);
	old = MemoryContextSwitchTo(w->scratch);

	if (info->nkeys > 0)
	{
		hash = hash_keys(w, row);
		if (info->session_key < 0)
			entry = find_entry(w, gen, hash, row, &dp);
	}
	if (info->session_key >= 0)
		ok = sx_session_prepare(w, gen, hash, row);
	else if (entry)
		ok = sx_live_combine_entry(w, entry, dp, row);
	else
		ok = sx_live_add_entry(w, gen, hash, row);

	MemoryContextSwitchTo(old);
	return ok;
}

void
sx_live_reserve(SxLiveWriter *w, Size n)
{
	Size		max = Max(w->maxtouched, 64);

	if (w->touched != NULL && w->ntouched + n <= w->maxtouched)
		return;
	while (max < w->ntouched + n)
		max *= 2;
	if (w->touched == NULL)
		w->touched = MemoryContextAllocHuge(w->context, max * sizeof(SxTouched));
	else
		w->touched = repalloc_huge(w->touched, max * sizeof(SxTouched));
	w->maxtouched = max;
}

static SxLiveEntry *
find_entry(SxLiveWriter *w, SxGeneration *gen, uint32 hash, TupleTableSlot *row, dsa_pointer *dp)
{
	SxViewInfo *info = w->info;
	SxBuckets  *buckets = dsa_get_address(w->area, gen->buckets);
	SxLiveEntry *entry = NULL;
	dsa_pointer p;

	for (p = buckets->bucket[hash & (buckets->nbuckets - 1)]; DsaPointerIsValid(p);
		 p = entry->next[buckets->chain])
	{
		dsa_pointer tuple;

		entry = dsa_get_address(w->area, p);
		if (entry->hash != hash ||
			memcmp(entry->keyhash, w->keyhash, sizeof(uint32) * info->nkeys) != 0)
			continue;
		tuple = DsaPointerIsValid(entry->prepared) ? entry->prepared : entry->row;
		ExecStoreMinimalTuple(dsa_get_address(w->area, tuple), w->entry_slot, false);
		if (sx_keys_equal(info, w->entry_slot, row))
		{
			*dp = p;
			return entry;
		}
	}
	return NULL;
}

bool
sx_live_add_entry(SxLiveWriter *w, SxGeneration *gen, uint32 hash, TupleTableSlot *row)
{
	int			nkeys = w->info->nkeys;
	MinimalTuple tuple = sx_flatten_row(w->info, row);
	SxLiveEntry *entry;
	SxBuckets  *buckets;
	dsa_pointer entry_dp;
	dsa_pointer row_dp;
	dsa_pointer *head;
	SxTouched  *t;

	if (nkeys > 0)
		grow_buckets(w, gen);

	entry_dp = dsa_allocate_extended(w->area, sx_entry_size(nkeys), DSA_ALLOC_NO_OOM);
	if (!DsaPointerIsValid(entry_dp))
		return false;
	row_dp = dsa_allocate_extended(w->area, tuple->t_len, DSA_ALLOC_NO_OOM);
	if (!DsaPointerIsValid(row_dp))
	{
		dsa_free(w->area, entry_dp);
		return false;
	}
	memcpy(dsa_get_address(w->area, row_dp), tuple, tuple->t_len);

	buckets = dsa_get_address(w->area, gen->buckets);
	head = &buckets->bucket[hash & (buckets->nbuckets - 1)];
	entry = dsa_get_address(w->area, entry_dp);
	entry->next[buckets->chain] = *head;
	entry->next[1 - buckets->chain] = InvalidDsaPointer;
	entry->row = InvalidDsaPointer;
	entry->prepared = row_dp;
	entry->hash = hash;
	memcpy(entry->keyhash, w->keyhash, sizeof(uint32) * nkeys);

	/* a reader that finds the entry finds it whole */
	pg_write_barrier();
	*head = entry_dp;
	gen->nentries++;

	t = &w->touched[w->ntouched++];
	t->entry = entry;
	t->entry_dp = entry_dp;
	t->replaced = InvalidDsaPointer;
	t->is_new = true;
	w->bytes += sx_entry_size(nkeys) + tuple->t_len;
	return true;
}

bool
sx_live_combine_entry(SxLiveWriter *w, SxLiveEntry *entry, dsa_pointer entry_dp, TupleTableSlot *row)
{
	MinimalTuple tuple;
	MinimalTuple before;
	dsa_pointer dp;

	sx_combine_rows(w->info, w->entry_slot, row, w->combined);
	tuple = sx_flatten_row(w->info, w->combined);
	ExecClearTuple(w->combined);
	ExecClearTuple(w->entry_slot);
	sx_live_note_combine(w);

	if (DsaPointerIsValid(entry->prepared))
	{
		/* nobody else looks at what is prepared */
		before = dsa_get_address(w->area, entry->prepared);
		w->bytes += (int64) tuple->t_len - (int64) before->t_len;
		if (before->t_len == tuple->t_len)
		{
			memcpy(before, tuple, tuple->t_len);
			return true;
		}
		w->bytes -= (int64) tuple->t_len - (int64) before->t_len;
	}

	dp = dsa_allocate_extended(w->area, tuple->t_len, DSA_ALLOC_NO_OOM);
	if (!DsaPointerIsValid(dp))
		return false;
	memcpy(dsa_get_address(w->area, dp), tuple, tuple->t_len);
	w->bytes += tuple->t_len;

	if (DsaPointerIsValid(entry->prepared))
	{
		before = dsa_get_address(w->area, entry->prepared);
		w->bytes -= before->t_len;
		dsa_free(w->area, entry->prepared);
	}
	else
	{
		SxTouched  *t = &w->touched[w->ntouched++];

		before = dsa_get_address(w->area, entry->row);
		w->replaced_bytes += before->t_len;
		t->entry = entry;
		t->entry_dp = entry_dp;
		t->replaced = InvalidDsaPointer;
		t->is_new = false;
	}
	entry->prepared = dp;
	return true;
}

/*
 * Four times the buckets when chains get long.  The new array is chained aside through the
 * entries' other pointers, which no reader follows; replacing it is one store.
 */
static void
grow_buckets(SxLiveWriter *w, SxGeneration *gen)
{
	SxBuckets  *before = dsa_get_address(w->area, gen->buckets);
	dsa_pointer before_dp = gen->buckets;
	SxBuckets  *after;
	dsa_pointer dp;
	uint32		chain = 1 - before->chain;

	if (gen->nentries < 2 * before->nbuckets || gen->nentries < w->no_growth_below ||
		before->nbuckets > (1U << 28))
		return;
	dp = sx_buckets_allocate(w->area, before->nbuckets * 4);
	if (!DsaPointerIsValid(dp))
	{
		/* long chains are slow, not wrong */
		w->no_growth_below = gen->nentries * 2;
		return;
	}
	after = dsa_get_address(w->area, dp);
	after->chain = chain;

	for (uint32 i = 0; i < before->nbuckets; i++)
	{
		SxLiveEntry *entry;
		dsa_pointer p;

		for (p = before->bucket[i]; DsaPointerIsValid(p); p = entry->next[before->chain])
		{
			dsa_pointer *head;

			entry = dsa_get_address(w->area, p);
			head = &after->bucket[entry->hash & (after->nbuckets - 1)];
			entry->next[chain] = *head;
			*head = p;
		}
	}

	sx_lock_publish_exclusive(w->db);
	gen->buckets = dp;
	gen->nbuckets = after->nbuckets;
	gen->bytes += sx_buckets_size(after->nbuckets) - sx_buckets_size(before->nbuckets);
	sx_unlock_publish(w->db);
	dsa_free(w->area, before_dp);
}

bool
sx_live_prepare_dead_letter(SxLiveWriter *w, Oid stream, const char *sqlstate, const char *reason,
							const char *row_json, const char *message)
{
	uint32		rowlen = row_json ? strlen(row_json) : 0;
	uint32		messagelen = message ? strlen(message) : 0;
	Size		size = offsetof(SxSharedDeadLetter, data) + (Size) rowlen + messagelen;
	SxSharedDeadLetter *d;
	dsa_pointer dp;

	dp = dsa_allocate_extended(w->area, size, DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);
	if (!DsaPointerIsValid(dp))
		return false;
	d = dsa_get_address(w->area, dp);
	d->next = w->first_letter;
	d->stream = stream;
	strlcpy(d->sqlstate, sqlstate ? sqlstate : "", sizeof(d->sqlstate));
	strlcpy(d->reason, reason, sizeof(d->reason));
	d->at = GetCurrentTimestamp();
	d->rowlen = row_json ? rowlen : PG_UINT32_MAX;
	d->messagelen = messagelen;
	if (rowlen > 0)
		memcpy(d->data, row_json, rowlen);
	if (messagelen > 0)
		memcpy(d->data + rowlen, message, messagelen);

	w->first_letter = dp;
	if (w->nletters++ == 0)
		w->last_letter = dp;
	w->bytes += size;
	return true;
}

bool
sx_live_has_prepared(SxLiveWriter *w)
{
	return w->ntouched > 0 || w->nletters > 0;
}

void
sx_live_discard(SxLiveWriter *w)
{
	SxGeneration *gen = sx_gen_at(w->view, w->view->open_gen);
	SxBuckets  *buckets = dsa_get_address(w->area, gen->buckets);
	Size		nnew = 0;

	for (Size i = 0; i < w->ntouched; i++)
		if (w->touched[i].is_new)
		{
			mark_to_go(buckets, &w->touched[i]);
			nnew++;
		}

	/* before they are freed no reader may stand on them */
	if (nnew > 0)
	{
		Size		left = nnew;

		sx_lock_publish_exclusive(w->db);
		for (Size i = w->ntouched; i > 0 && left > 0; i--)
			if (w->touched[i - 1].is_new && is_to_go(buckets, &w->touched[i - 1]))
				left -= unlink_marked(w, buckets, w->touched[i - 1].entry->hash, left);
		gen->nentries -= nnew;
		sx_unlock_publish(w->db);
	}
	for (Size i = 0; i < w->ntouched; i++)
	{
		SxTouched  *t = &w->touched[i];

		if (DsaPointerIsValid(t->entry->prepared))
			dsa_free(w->area, t->entry->prepared);
		if (t->is_new)
			dsa_free(w->area, t->entry_dp);
		else
			t->entry->prepared = InvalidDsaPointer;
	}
	sx_session_discard(w);
	while (DsaPointerIsValid(w->first_letter))
	{
		SxSharedDeadLetter *d = dsa_get_address(w->area, w->first_letter);
		dsa_pointer next = d->next;

		dsa_free(w->area, w->first_letter);
		w->first_letter = next;
	}
	if (DsaPointerIsValid(w->changes))
		dsa_free(w->area, w->changes);
	w->changes = InvalidDsaPointer;
	forget(w);
}

/* the pointer that chains nothing now: no other entry points to itself */
static void
mark_to_go(SxBuckets *buckets, SxTouched *t)
{
	t->entry->next[1 - buckets->chain] = t->entry_dp;
}

static bool
is_to_go(SxBuckets *buckets, SxTouched *t)
{
	return t->entry->next[1 - buckets->chain] == t->entry_dp;
}

/* unlinks the marked entries of one bucket, whose chain is walked only this once; returns how many */
static Size
unlink_marked(SxLiveWriter *w, SxBuckets *buckets, uint32 hash, Size most)
{
	dsa_pointer *link = &buckets->bucket[hash & (buckets->nbuckets - 1)];
	Size		n = 0;

	while (DsaPointerIsValid(*link) && n < most)
	{
		SxLiveEntry *entry = dsa_get_address(w->area, *link);

		if (entry->next[1 - buckets->chain] == *link)
		{
			entry->next[1 - buckets->chain] = InvalidDsaPointer;
			*link = entry->next[buckets->chain];
			n++;
		}
		else
			link = &entry->next[buckets->chain];
	}
	return n;
}

void
sx_live_list_changes(SxLiveWriter *w)
{
	Size		size = offsetof(SxChanges, entry) + w->ntouched * sizeof(dsa_pointer);
	SxChanges  *changes;

	if (!w->view->alerted || w->ntouched == 0)
		return;
	w->changes = dsa_allocate_extended(w->area, size, DSA_ALLOC_NO_OOM | DSA_ALLOC_HUGE);
	if (!DsaPointerIsValid(w->changes))
		return;
	changes = dsa_get_address(w->area, w->changes);
	changes->next = InvalidDsaPointer;
	changes->n = w->ntouched;
	for (Size i = 0; i < w->ntouched; i++)
		changes->entry[i] = w->touched[i].entry_dp;
	w->bytes += size;
}

/* under the exclusive publish lock: stores only */
static void
publish_changes(SxLiveWriter *w, SxGeneration *gen, uint64 cycle)
{
	dsa_pointer *end = &w->seen_changes;
	SxChanges  *changes;

	/* what the alerter has seen goes */
	while (DsaPointerIsValid(gen->changes))
	{
		changes = dsa_get_address(w->area, gen->changes);
		if (changes->cycle > w->view->alerted_cycle)
			break;
		w->replaced_bytes += offsetof(SxChanges, entry) + changes->n * sizeof(dsa_pointer);
		*end = gen->changes;
		end = &changes->next;
		gen->changes = changes->next;
		changes->next = InvalidDsaPointer;
	}
	if (!DsaPointerIsValid(gen->changes))
		gen->last_changes = InvalidDsaPointer;

	if (!DsaPointerIsValid(w->changes))
	{
		if (w->view->alerted && w->ntouched > 0)
			w->view->lost_changes = cycle;
		return;
	}
	changes = dsa_get_address(w->area, w->changes);
	changes->cycle = cycle;
	if (DsaPointerIsValid(gen->last_changes))
		((SxChanges *) dsa_get_address(w->area, gen->last_changes))->next = w->changes;
	else
		gen->changes = w->changes;
	gen->last_changes = w->changes;
	w->changes = InvalidDsaPointer;
}

/* under the exclusive publish lock: stores only */
void
sx_live_publish(SxLiveWriter *w, uint64 cycle, const SxRowCounts *counts)
{
	SxGeneration *gen = sx_gen_at(w->view, w->view->open_gen);

	if (w->dead_gen != gen->no)
	{
		w->dead_gen = gen->no;
		w->ndead = 0;
	}
	for (Size i = 0; i < w->ntouched; i++)
	{
		SxTouched  *t = &w->touched[i];

		t->replaced = t->entry->row;
		t->entry->row = t->entry->prepared;
		t->entry->prepared = InvalidDsaPointer;
		if (!DsaPointerIsValid(t->entry->row))
		{
			gen->nentries--;
			w->ndead++;
		}
	}
	if (w->nletters > 0)
	{
		SxSharedDeadLetter *last = dsa_get_address(w->area, w->last_letter);

		last->next = gen->dead_letters;
		gen->dead_letters = w->first_letter;
		gen->ndead += w->nletters;
	}
	publish_changes(w, gen, cycle);
	gen->bytes += w->bytes - w->replaced_bytes;
	sx_counts_add(&gen->counts, counts);
	gen->cycle = cycle;
}

void
sx_live_published(SxLiveWriter *w)
{
	for (Size i = 0; i < w->ntouched; i++)
		if (DsaPointerIsValid(w->touched[i].replaced))
			dsa_free(w->area, w->touched[i].replaced);
	w->first_letter = InvalidDsaPointer;
	while (DsaPointerIsValid(w->seen_changes))
	{
		dsa_pointer next = ((SxChanges *) dsa_get_address(w->area, w->seen_changes))->next;

		dsa_free(w->area, w->seen_changes);
		w->seen_changes = next;
	}
	forget(w);
	sx_session_published(w);
}

static void
forget(SxLiveWriter *w)
{
	/* one large batch must not keep its list for ever */
	if (w->maxtouched > 65536)
	{
		pfree(w->touched);
		w->touched = NULL;
		w->maxtouched = 0;
	}
	w->ntouched = 0;
	w->nletters = 0;
	w->last_letter = InvalidDsaPointer;
	w->bytes = 0;
	w->replaced_bytes = 0;
	w->no_growth_below = 0;
	ExecClearTuple(w->entry_slot);
	ExecClearTuple(w->combined);
	MemoryContextReset(w->scratch);
	reset_aggregates(w);
}

void
sx_live_note_combine(SxLiveWriter *w)
{
	if (++w->combines >= COMBINES_PER_RESET)
		reset_aggregates(w);
}

static void
reset_aggregates(SxLiveWriter *w)
{
	if (w->combines == 0)
		return;
	for (int i = 0; i < w->info->naggs; i++)
		sx_agg_reset(w->info->aggs[i]);
	w->combines = 0;
}
