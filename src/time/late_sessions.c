/*
 * late_sessions.c
 *		Is a row late for the session that it belongs to?
 *
 * A row is late if it touches a session that is closed, or none that is open, its own, as it would be alone,
 * being closed.  Such rows are left out (drop, dead_letter), so closed sessions stay as they are, and none
 * comes to be that is closed from the start.
 *
 * A session may lie in parts in the view's table, in the live generations and among the rows of this batch
 * that have been accepted.  All parts are at least a gap long, as is what the row would be alone; so parts that
 * it touches contain its first moment or its last one, and a part that makes a session longer contains the
 * last moment of what is known of it.  It is enough to ask each place for the part that contains a moment.
 *
 * Only rows before the time up to which sessions are closed are asked for (time/lateness.c).  All others have
 * an open session of their own, and touch no closed one.  Nor do they matter to those that are asked for: what
 * touches a row from that time on is open anyway.  So of a batch only accepted rows are to be known.  They are
 * asked for the latest first: then whether one counts does not depend on the order in which they came,
 * since an open session is extended to the past by nothing but what touches it.
 *
 * What was accepted is kept here until the next batch.  If a slice of the batch fails after that and runs again in
 * parts, some of its rows are known before they are asked for; they count then as they did.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "lib/rbtree.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

#include "live/key_scan.h"
#include "time/late_sessions.h"

#define NONE PG_INT64_MIN

/* stored sessions are at least as long as the row alone would be, and apart */
#define MAX_TOUCHED 2

/* what was accepted; whatever overlaps counts as equal */
typedef struct AcceptedNode
{
	RBTNode		node;
	uint32		hash;
	SxSpan		span;
	MinimalTuple keys;			/* NULL: the row in hand */
} AcceptedNode;

struct SxLateSessions
{
	SxViewInfo *info;
	MemoryContext batch;		/* of what was accepted */
	RBTree	   *accepted;		/* NULL: nothing was */
	TupleTableSlot *row;		/* in hand */
	TupleTableSlot *a;
	TupleTableSlot *b;
	MemoryContext scratch;
	/* while it is open */
	SxLiveEnd	live;
	void	   *arg;
	Relation	mat;
	TupleTableSlot *table;
	SxKeyScan  *scan;
	MemoryContext scan_context; /* what the scan remembers */
	/* of the row in hand */
	SxSpan		own;
	bool		looked;			/* what it touches in the table is known: */
	SxSpan		touched[MAX_TOUCHED];
	int			ntouched;
	SxSpan	   *found;			/* of the look at work */
	int			nfound;
};

static int64 session_end(SxLateSessions *s, int64 point, int64 until);
static int64 part_end(SxLateSessions *s, int64 point, int64 until);
static int64 stored_end(SxLateSessions *s, int64 point);
static int	look_up(SxLateSessions *s, int64 from, int64 to, SxSpan *found);
static void note_stored(void *arg, TupleTableSlot *row, const SxSpan *span);
static AcceptedNode *find_accepted(SxLateSessions *s, const SxSpan *span);
static uint32 hash_of(SxViewInfo *info, TupleTableSlot *row);
static TupleTableSlot *node_row(SxLateSessions *s, const AcceptedNode *node, TupleTableSlot *slot);
static int	compare_nodes(const RBTNode *a, const RBTNode *b, void *arg);
static void combine_nodes(RBTNode *existing, const RBTNode *newdata, void *arg);
static RBTNode *allocate_node(void *arg);
static void free_node(RBTNode *node, void *arg);

SxLateSessions *
sx_late_sessions_create(SxViewInfo *info)
{
	MemoryContext old = MemoryContextSwitchTo(info->context);
	SxLateSessions *s = palloc0(sizeof(SxLateSessions));

	s->info = info;
	s->a = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	s->b = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	s->scratch = AllocSetContextCreate(info->context, "streamext late session", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(old);
	return s;
}

void
sx_late_sessions_begin(SxLateSessions *s, MemoryContext mcxt)
{
	s->batch = mcxt;
	s->accepted = NULL;
}

bool
sx_late_sessions_lock(SxLateSessions *s)
{
	Relation	mat;
	ListCell   *lc;
	bool		locked = true;

	if (!ConditionalLockRelationOid(s->info->def->matid, AccessShareLock))
		return false;
	mat = RelationIdGetRelation(s->info->def->matid);
	if (!RelationIsValid(mat))
		return false;
	foreach(lc, RelationGetIndexList(mat))
		locked = locked && ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock);
	RelationClose(mat);
	return locked;
}

void
sx_late_sessions_open(SxLateSessions *s, SxLiveEnd live, void *arg)
{
	MemoryContext old;

	s->live = live;
	s->arg = arg;
	s->scan_context = AllocSetContextCreate(CurrentMemoryContext, "streamext late lookups", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(s->scan_context);
	s->mat = table_open(s->info->def->matid, NoLock);
	s->table = table_slot_create(s->mat, NULL);
	s->scan = sx_key_scan_begin(s->info, s->mat, GetActiveSnapshot(), s->table);
	MemoryContextSwitchTo(old);
}

void
sx_late_sessions_close(SxLateSessions *s)
{
	ExecClearTuple(s->table);
	sx_key_scan_end(s->scan);
	ExecDropSingleTupleTableSlot(s->table);
	table_close(s->mat, NoLock);
	MemoryContextDelete(s->scan_context);
	s->scan = NULL;
}

bool
sx_late_sessions_is_late(SxLateSessions *s, SxWindows *windows, TupleTableSlot *row)
{
	SxSpan		own = sx_row_span(s->info, row);
	int64		until;
	int64		first;
	int64		last;

	if (own.isnull || !sx_windows_session_boundary(windows, &until))
		return false;
	s->row = row;
	s->own = own;
	s->looked = false;
	first = session_end(s, own.lower, until);
	if (own.upper > until)
		/* what contains its last moment is open */
		return first != NONE && first <= until;
	if (first != NONE && first <= until)
		return true;
	last = session_end(s, own.upper - 1, until);
	return last == NONE ? first == NONE : last <= until;
}

/* of the session that contains the point, or as much of it as shows that it is open; or NONE */
static int64
session_end(SxLateSessions *s, int64 point, int64 until)
{
	int64		end = part_end(s, point, until);

	while (end != NONE && end <= until)
	{
		int64		further = part_end(s, end - 1, until);

		if (further <= end)
			break;
		end = further;
	}
	return end;
}

/* the latest end of a part that contains the point */
static int64
part_end(SxLateSessions *s, int64 point, int64 until)
{
	SxSpan		span = {.lower = point, .upper = point + 1};
	AcceptedNode *accepted;
	MemoryContext old;
	int64		end = NONE;

	CHECK_FOR_INTERRUPTS();
	if (s->live != NULL)
		end = s->live(s->arg, s->row, point);
	if (end <= until)
	{
		old = MemoryContextSwitchTo(s->scratch);
		accepted = find_accepted(s, &span);
		MemoryContextSwitchTo(old);
		MemoryContextReset(s->scratch);
		if (accepted != NULL)
			end = Max(end, accepted->span.upper);
	}
	if (end <= until)
		end = Max(end, stored_end(s, point));
	return end;
}

/* in the table; mostly a look at what the row touches tells all */
static int64
stored_end(SxLateSessions *s, int64 point)
{
	bool		in_own = point >= s->own.lower && point < s->own.upper;
	SxSpan		further[MAX_TOUCHED];

	if (in_own && !s->looked)
	{
		s->ntouched = look_up(s, s->own.lower, s->own.upper, s->touched);
		s->looked = true;
	}
	for (int i = 0; i < s->ntouched && s->looked; i++)
		if (point >= s->touched[i].lower && point < s->touched[i].upper)
			return s->touched[i].upper;
	if (in_own || look_up(s, point, point + 1, further) == 0)
		return NONE;
	return further[0].upper;
}

static int
look_up(SxLateSessions *s, int64 from, int64 to, SxSpan *found)
{
	MemoryContext old = MemoryContextSwitchTo(s->scan_context);

	s->found = found;
	s->nfound = 0;
	sx_key_scan_sessions(s->scan, s->row, from, to, note_stored, s);
	ExecClearTuple(s->table);
	MemoryContextSwitchTo(old);
	return s->nfound;
}

static void
note_stored(void *arg, TupleTableSlot *row, const SxSpan *span)
{
	SxLateSessions *s = arg;

	if (s->nfound == MAX_TOUCHED)
		elog(ERROR, "sessions of continuous view with OID %u overlap", s->info->def->viewid);
	s->found[s->nfound++] = *span;
}

/* ---- what was accepted ---- */

void
sx_late_sessions_accept(SxLateSessions *s, TupleTableSlot *row)
{
	AcceptedNode node = {.hash = hash_of(s->info, row)};
	AcceptedNode *other;
	bool		is_new;
	MemoryContext old;

	node.span = sx_row_span(s->info, row);
	if (node.span.isnull)
		return;
	old = MemoryContextSwitchTo(s->batch);
	if (s->accepted == NULL)
		s->accepted = rbt_create(sizeof(AcceptedNode), compare_nodes, combine_nodes, allocate_node, free_node, s);
	MemoryContextSwitchTo(s->scratch);
	s->row = row;
	while ((other = find_accepted(s, &node.span)) != NULL)
	{
		node.span = sx_span_union(&node.span, &other->span);
		node.keys = other->keys;
		rbt_delete(s->accepted, &other->node);
	}
	if (node.keys == NULL)
	{
		MemoryContextSwitchTo(s->batch);
		node.keys = sx_flatten_row(s->info, row);
		MemoryContextSwitchTo(s->scratch);
	}
	(void) rbt_insert(s->accepted, &node.node, &is_new);
	MemoryContextSwitchTo(old);
	MemoryContextReset(s->scratch);
}

/* of the group of the row in hand */
static AcceptedNode *
find_accepted(SxLateSessions *s, const SxSpan *span)
{
	AcceptedNode key = {.span = *span};

	if (s->accepted == NULL)
		return NULL;
	key.hash = hash_of(s->info, s->row);
	return (AcceptedNode *) rbt_find(s->accepted, &key.node);
}

static uint32
hash_of(SxViewInfo *info, TupleTableSlot *row)
{
	uint32	   *keyhash = palloc(sizeof(uint32) * info->nkeys);
	uint32		hash;

	slot_getsomeattrs(row, info->nkeys);
	for (int i = 0; i < info->nkeys; i++)
		keyhash[i] = sx_key_hash(info, i, row->tts_values[i], row->tts_isnull[i]);
	hash = sx_row_hash(keyhash, info->nkeys);
	pfree(keyhash);
	return hash;
}

static TupleTableSlot *
node_row(SxLateSessions *s, const AcceptedNode *node, TupleTableSlot *slot)
{
	return node->keys == NULL ? s->row : ExecStoreMinimalTuple(node->keys, slot, false);
}

/* by group, then by time; 0: they are one session */
static int
compare_nodes(const RBTNode *a, const RBTNode *b, void *arg)
{
	SxLateSessions *s = arg;
	const AcceptedNode *na = (const AcceptedNode *) a;
	const AcceptedNode *nb = (const AcceptedNode *) b;

	if (na->hash != nb->hash)
		return na->hash < nb->hash ? -1 : 1;
	if (s->info->nkeys > 1)
	{
		TupleTableSlot *ra = node_row(s, na, s->a);
		TupleTableSlot *rb = node_row(s, nb, s->b);

		if (!sx_keys_equal(s->info, ra, rb))
			return sx_keys_compare(s->info, ra, rb);
	}
	if (sx_spans_meet(&na->span, &nb->span))
		return 0;
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
	return MemoryContextAlloc(((SxLateSessions *) arg)->batch, sizeof(AcceptedNode));
}

static void
free_node(RBTNode *node, void *arg)
{
	pfree(node);
}
