/*
 * live_sessions.c
 *		Sessions in live state: a row goes into one entry with all entries that it overlaps.
 *
 * Entries of one group (equal keys, the session aside) never overlap.  A delta row that overlaps
 * none becomes one; a row that overlaps some is combined with all of them into the first, and the
 * others are buried: they stay in their chains, touched and with nothing prepared, so that the
 * publication takes their rows away in the same instant in which the united row appears.
 * Discarding restores them, as it does all that was prepared.
 *
 * Entries are found by a tree in private memory, ordered by group and time, in which whatever
 * overlaps counts as equal: spans that do not overlap are ordered.  It says what is prepared, and
 * belongs to one generation.  After a discard, an error or a new generation it is built again from
 * the published entries.
 *
 * Buried entries whose row is gone are unlinked when they are the larger part of a generation, in the
 * way in which buckets grow: chained aside, and put in place by one store under the lock.
 */
#include "live/live_internal.h"

#include "lib/rbtree.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

/* fewer are not worth a pass */
#define MIN_DEAD	64

typedef struct SessionNode
{
	RBTNode		node;
	uint32		hash;
	SxSpan		span;
	SxLiveEntry *entry;			/* NULL: what is looked for, the row in hand */
	dsa_pointer entry_dp;
} SessionNode;

struct SxSessionIndex
{
	SxLiveWriter *w;
	MemoryContext context;		/* the nodes */
	RBTree	   *tree;			/* NULL: to be built */
	uint64		gen_no;
	bool		whole;			/* false: a change of it was not finished */
	TupleTableSlot *row;		/* what is looked for */
	TupleTableSlot *a;
	TupleTableSlot *b;
	TupleTableSlot *fold;
};

static SxSessionIndex *get_index(SxLiveWriter *w, SxGeneration *gen);
static SxSessionIndex *get_sealed_index(SxLiveWriter *w, SxGeneration *gen);
static SxSessionIndex *create_index(SxLiveWriter *w);
static int64 end_in(SxSessionIndex *x, uint32 hash, TupleTableSlot *row, int64 point);
static void build_tree(SxSessionIndex *x, SxGeneration *gen);
static SessionNode *add_node(SxSessionIndex *x, uint32 hash, SxSpan span, SxLiveEntry *entry, dsa_pointer dp);
static MinimalTuple entry_tuple(SxLiveWriter *w, SxLiveEntry *entry);
static TupleTableSlot *node_row(SxSessionIndex *x, const SessionNode *node, TupleTableSlot *slot);
static int	compare_nodes(const RBTNode *a, const RBTNode *b, void *arg);
static void combine_nodes(RBTNode *existing, const RBTNode *newdata, void *arg);
static RBTNode *allocate_node(void *arg);
static void free_node(RBTNode *node, void *arg);
static void bury(SxLiveWriter *w, const SessionNode *node);

bool
sx_session_prepare(SxLiveWriter *w, SxGeneration *gen, uint32 hash, TupleTableSlot *row)
{
	SxSessionIndex *x = get_index(w, gen);
	SessionNode key = {.hash = hash};
	SessionNode *found;
	SessionNode kept;
	List	   *others = NIL;
	ListCell   *lc;

	key.span = sx_row_span(w->info, row);
	x->row = row;
	found = (SessionNode *) rbt_find(x->tree, &key.node);
	if (found == NULL)
	{
		SxTouched  *t;

		if (!sx_live_add_entry(w, gen, hash, row))
			return false;
		t = &w->touched[w->ntouched - 1];
		x->whole = false;
		(void) add_node(x, hash, key.span, t->entry, t->entry_dp);
		x->whole = true;
		return true;
	}

	/* out of the tree with all that the row overlaps, so that the next of them is found */
	x->whole = false;
	kept = *found;
	rbt_delete(x->tree, &found->node);
	kept.span = sx_span_union(&kept.span, &key.span);
	while ((found = (SessionNode *) rbt_find(x->tree, &key.node)) != NULL)
	{
		SessionNode *other = palloc(sizeof(SessionNode));

		*other = *found;
		others = lappend(others, other);
		rbt_delete(x->tree, &found->node);
		kept.span = sx_span_union(&kept.span, &other->span);
	}

	/* all that can fail, then what cannot */
	sx_live_reserve(w, list_length(others) + 1);
	foreach(lc, others)
	{
		SessionNode *other = lfirst(lc);

		ExecStoreMinimalTuple(entry_tuple(w, other->entry), w->entry_slot, false);
		sx_combine_rows(w->info, w->entry_slot, row, w->combined);
		ExecStoreMinimalTuple(sx_flatten_row(w->info, w->combined), x->fold, false);
		ExecClearTuple(w->combined);
		ExecClearTuple(w->entry_slot);
		sx_live_note_combine(w);
		row = x->fold;
	}
	ExecStoreMinimalTuple(entry_tuple(w, kept.entry), w->entry_slot, false);
	if (!sx_live_combine_entry(w, kept.entry, kept.entry_dp, row))
		return false;
	ExecClearTuple(x->fold);
	foreach(lc, others)
		bury(w, lfirst(lc));
	(void) add_node(x, hash, kept.span, kept.entry, kept.entry_dp);
	x->whole = true;
	return true;
}

/* its row goes with the publication, what was prepared for it now */
static void
bury(SxLiveWriter *w, const SessionNode *node)
{
	SxLiveEntry *entry = node->entry;
	SxTouched  *t;

	if (DsaPointerIsValid(entry->prepared))
	{
		w->bytes -= ((MinimalTuple) dsa_get_address(w->area, entry->prepared))->t_len;
		dsa_free(w->area, entry->prepared);
		entry->prepared = InvalidDsaPointer;
		return;
	}
	w->replaced_bytes += ((MinimalTuple) dsa_get_address(w->area, entry->row))->t_len;
	t = &w->touched[w->ntouched++];
	t->entry = entry;
	t->entry_dp = node->entry_dp;
	t->replaced = InvalidDsaPointer;
	t->is_new = false;
}

/* ---- the tree ---- */

static SxSessionIndex *
get_index(SxLiveWriter *w, SxGeneration *gen)
{
	SxSessionIndex *x = w->sessions;

	/* of the generation that was sealed since, it may still be wanted */
	if (x != NULL && w->asked && x->tree != NULL && x->whole && x->gen_no + 1 == gen->no)
	{
		w->sessions = w->sealed_sessions;
		w->sealed_sessions = x;
		x = w->sessions;
	}
	if (x == NULL)
		x = w->sessions = create_index(w);
	if (x->tree == NULL || x->gen_no != gen->no || !x->whole)
	{
		if (w->ntouched > 0)
			elog(ERROR, "sessions of continuous view with OID %u were lost while a batch was prepared",
				 w->view->viewid);
		build_tree(x, gen);
	}
	return x;
}

static SxSessionIndex *
get_sealed_index(SxLiveWriter *w, SxGeneration *gen)
{
	SxSessionIndex *x = w->sealed_sessions;

	if (x == NULL)
		x = w->sealed_sessions = create_index(w);
	if (x->tree == NULL || x->gen_no != gen->no || !x->whole)
		build_tree(x, gen);
	return x;
}

static SxSessionIndex *
create_index(SxLiveWriter *w)
{
	MemoryContext old = MemoryContextSwitchTo(w->context);
	SxSessionIndex *x = palloc0(sizeof(SxSessionIndex));

	x->w = w;
	x->context = AllocSetContextCreate(w->context, "streamext live sessions", ALLOCSET_DEFAULT_SIZES);
	x->a = MakeSingleTupleTableSlot(w->info->desc, &TTSOpsMinimalTuple);
	x->b = MakeSingleTupleTableSlot(w->info->desc, &TTSOpsMinimalTuple);
	x->fold = MakeSingleTupleTableSlot(w->info->desc, &TTSOpsMinimalTuple);
	MemoryContextSwitchTo(old);
	return x;
}

/* of the entries as they are published: nothing is prepared */
static void
build_tree(SxSessionIndex *x, SxGeneration *gen)
{
	SxLiveWriter *w = x->w;
	SxBuckets  *buckets = dsa_get_address(w->area, gen->buckets);

	x->tree = NULL;
	MemoryContextReset(x->context);
	MemoryContextSwitchTo(x->context);
	x->tree = rbt_create(sizeof(SessionNode), compare_nodes, combine_nodes, allocate_node, free_node, x);
	MemoryContextSwitchTo(w->scratch);
	x->gen_no = gen->no;
	x->whole = false;
	for (uint32 i = 0; gen->nentries > 0 && i < buckets->nbuckets; i++)
	{
		SxLiveEntry *entry;

		for (dsa_pointer p = buckets->bucket[i]; DsaPointerIsValid(p); p = entry->next[buckets->chain])
		{
			entry = dsa_get_address(w->area, p);
			if (!DsaPointerIsValid(entry->row))
				continue;
			ExecStoreMinimalTuple(entry_tuple(w, entry), w->entry_slot, false);
			(void) add_node(x, entry->hash, sx_row_span(w->info, w->entry_slot), entry, p);
		}
	}
	ExecClearTuple(w->entry_slot);
	x->whole = true;
}

static SessionNode *
add_node(SxSessionIndex *x, uint32 hash, SxSpan span, SxLiveEntry *entry, dsa_pointer dp)
{
	SessionNode node = {.hash = hash, .span = span, .entry = entry, .entry_dp = dp};
	SessionNode *added;
	bool		is_new;

	added = (SessionNode *) rbt_insert(x->tree, &node.node, &is_new);
	if (!is_new)
		elog(ERROR, "sessions of continuous view with OID %u overlap", x->w->view->viewid);
	return added;
}

static MinimalTuple
entry_tuple(SxLiveWriter *w, SxLiveEntry *entry)
{
	return dsa_get_address(w->area, DsaPointerIsValid(entry->prepared) ? entry->prepared : entry->row);
}

static TupleTableSlot *
node_row(SxSessionIndex *x, const SessionNode *node, TupleTableSlot *slot)
{
	if (node->entry == NULL)
		return x->row;
	return ExecStoreMinimalTuple(entry_tuple(x->w, node->entry), slot, false);
}

/* by group, then by time; 0: they are one session */
static int
compare_nodes(const RBTNode *a, const RBTNode *b, void *arg)
{
	SxSessionIndex *x = arg;
	const SessionNode *na = (const SessionNode *) a;
	const SessionNode *nb = (const SessionNode *) b;

	if (na->hash != nb->hash)
		return na->hash < nb->hash ? -1 : 1;
	if (x->w->info->nkeys > 1)
	{
		TupleTableSlot *ra = node_row(x, na, x->a);
		TupleTableSlot *rb = node_row(x, nb, x->b);

		if (!sx_keys_equal(x->w->info, ra, rb))
			return sx_keys_compare(x->w->info, ra, rb);
	}
	if (sx_spans_meet(&na->span, &nb->span))
		return 0;
	if (na->span.isnull != nb->span.isnull)
		return na->span.isnull ? 1 : -1;
	return na->span.lower < nb->span.lower ? -1 : 1;
}

/* whatever is equal was taken out before */
static void
combine_nodes(RBTNode *existing, const RBTNode *newdata, void *arg)
{
}

static RBTNode *
allocate_node(void *arg)
{
	return MemoryContextAlloc(((SxSessionIndex *) arg)->context, sizeof(SessionNode));
}

static void
free_node(RBTNode *node, void *arg)
{
	pfree(node);
}

/* ---- looking ---- */

/*
 * Generations that the table may not contain yet are the open one and, while it is being flushed, the one
 * before: only the consumer seals, and none while one is sealed.  One that is flushed by now is found
 * in the table as well, or here, if the snapshot is older.
 */
int64
sx_live_session_end(SxLiveWriter *w, TupleTableSlot *row, int64 point)
{
	SxViewInfo *info = w->info;
	SxView	   *v = w->view;
	SxGeneration *gen = sx_gen_at(v, v->open_gen);
	MemoryContext old;
	uint32		hash;
	int64		end = SX_SESSION_NONE;

	w->asked = true;
	MemoryContextReset(w->scratch);
	old = MemoryContextSwitchTo(w->scratch);
	slot_getsomeattrs(row, info->nkeys);
	for (int i = 0; i < info->nkeys; i++)
		w->keyhash[i] = sx_key_hash(info, i, row->tts_values[i], row->tts_isnull[i]);
	hash = sx_row_hash(w->keyhash, info->nkeys);
	if (gen->nentries > 0)
		end = end_in(get_index(w, gen), hash, row, point);
	if (v->open_gen > v->first_gen)
	{
		gen = sx_gen_at(v, v->open_gen - 1);
		if (gen->no == v->open_gen - 1 && gen->nentries > 0 &&
			(gen->state == SX_GEN_SEALED || gen->state == SX_GEN_FLUSHED))
			end = Max(end, end_in(get_sealed_index(w, gen), hash, row, point));
	}
	MemoryContextSwitchTo(old);
	return end;
}

static int64
end_in(SxSessionIndex *x, uint32 hash, TupleTableSlot *row, int64 point)
{
	SessionNode key = {.hash = hash, .span = {.lower = point, .upper = point + 1}};
	SessionNode *found;

	x->row = row;
	found = (SessionNode *) rbt_find(x->tree, &key.node);
	return found ? found->span.upper : SX_SESSION_NONE;
}

/* ---- after a batch ---- */

void
sx_session_discard(SxLiveWriter *w)
{
	if (w->sessions)
		w->sessions->tree = NULL;
}

void
sx_session_published(SxLiveWriter *w)
{
	SxGeneration *gen = sx_gen_at(w->view, w->view->open_gen);
	SxBuckets  *before;
	SxBuckets  *after;
	dsa_pointer before_dp;
	dsa_pointer after_dp;
	uint32		chain;

	if (w->ndead < MIN_DEAD || w->dead_gen != gen->no || gen->state != SX_GEN_OPEN || w->ndead < gen->nentries)
		return;
	before_dp = gen->buckets;
	before = dsa_get_address(w->area, before_dp);
	after_dp = sx_buckets_allocate(w->area, before->nbuckets);
	if (!DsaPointerIsValid(after_dp))
		return;
	after = dsa_get_address(w->area, after_dp);
	after->chain = chain = 1 - before->chain;

	for (uint32 i = 0; i < before->nbuckets; i++)
	{
		SxLiveEntry *entry;

		for (dsa_pointer p = before->bucket[i]; DsaPointerIsValid(p); p = entry->next[before->chain])
		{
			entry = dsa_get_address(w->area, p);
			if (!DsaPointerIsValid(entry->row))
				continue;
			entry->next[chain] = after->bucket[i];
			after->bucket[i] = p;
		}
	}

	sx_lock_publish_exclusive(w->db);
	gen->buckets = after_dp;
	gen->bytes -= (uint64) w->ndead * sx_entry_size(w->info->nkeys);
	sx_unlock_publish(w->db);

	for (uint32 i = 0; i < before->nbuckets; i++)
	{
		dsa_pointer p = before->bucket[i];

		while (DsaPointerIsValid(p))
		{
			SxLiveEntry *entry = dsa_get_address(w->area, p);
			dsa_pointer next = entry->next[before->chain];

			if (!DsaPointerIsValid(entry->row))
				dsa_free(w->area, p);
			p = next;
		}
	}
	dsa_free(w->area, before_dp);
	w->ndead = 0;
}
