/*
 * live_read_statement.c
 *		What a statement reads of live state: one copy for all its read nodes, and whether
 *		it may be read at all.
 *
 * The nodes of an executor state register when they start, and one copy is made for all of
 * them when the whole plan has started: the statement sees its views at one cycle, and a
 * cursor what was there when it was opened.  (A node that starts later, as in a re-check of a
 * concurrently updated row, copies when it is executed.)
 *
 * A statement reads the table alone
 *	 - in REPEATABLE READ and SERIALIZABLE, which must repeat, and during recovery;
 *	 - when the view is not live, or its snapshot is older than what is kept for it.
 * In one session a view never goes backwards: what a session has seen live is remembered
 * until the table contains it.  Cycles of one consumer compare; across consumers, or when the
 * table was written by a builder, the stored position decides: it must contain every id
 * that existed when the rows were seen.
 *
 * The cache of views is private to the process; entries in use by a statement are pinned
 * until its memory goes.
 */
#include "live/group_scan.h"
#include "live/live_read_internal.h"

#include "access/nbtree.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "capture/event_time.h"
#include "catalog/definitions.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"
#include "query/analyze.h"
#include "worker/worker.h"
#include "testing/stop_points.h"

typedef struct ViewKey
{
	Oid			matid;
	Oid			userid;
} ViewKey;

typedef struct ViewEntry
{
	ViewKey		key;
	SxReadView *view;			/* def NULL: not a view's table */
} ViewEntry;

/* the newest live rows of a view that this session has seen */
typedef struct Seen
{
	Oid			viewid;			/* hash key */
	uint32		generation;		/* of the consumer */
	uint64		cycle;
	uint64		bound;			/* next transaction id after the rows were copied */
} Seen;

typedef struct StatementNode
{
	SxReadView *view;
	bool	   *filtered;
	uint32	   *hash;
} StatementNode;

struct SxReadStatement
{
	EState	   *estate;
	int			nnodes;
	int			maxnodes;
	StatementNode *nodes;
	SxLiveRequest *requests;	/* NULL: not copied yet */
	bool	   *timed;			/* [nnodes] its watermark is known */
	int64	   *watermarks;		/* [nnodes] */
	SxPaneBoundary *panes;		/* [nnodes] */
	bool		alone;			/* reads tables alone */
	uint32		generation;
	MemoryContextCallback callback;
	SxReadStatement *next;
};

static HTAB *views = NULL;
static List *unused = NIL;		/* views that are stale and were pinned */
static bool views_stale = false;
static HTAB *seen_views = NULL;
static SxReadStatement *statements = NULL;

static ExecutorStart_hook_type prev_executor_start_hook = NULL;

static void executor_start(QueryDesc *query, int eflags);
static void init_cache(void);
static void catalog_changed(void);
static void relation_changed(Datum arg, Oid relid);
static void drop_stale(void);
static void free_view(SxReadView *view);
static SxReadView *load_view(Oid matid);
static int	session_key_of(const SxViewDef *def, TupleDesc desc);
static bool equal_means_same(Oid type, Oid collation);
static SxReadStatement *new_statement(EState *estate);
static void end_statement(void *arg);
static void copy_rows(SxReadStatement *stmt);
static SxReadStatement *find_statement(SxReadView *view, MemoryContext caller, int *number);
static void wait_for_views(SxReadStatement *stmt);
static void check_built(SxReadView *view, Relation mat, Snapshot snapshot);
static bool has_restored_rows(SxReadView *view, Relation mat, Snapshot snapshot);
static void check_replaced(SxReadView *view, Snapshot snapshot);
static void check_seen(SxReadStatement *stmt, SxReadView *view, SxLiveRequest *r);

void
sx_read_statement_init(void)
{
	prev_executor_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
}

static void
executor_start(QueryDesc *query, int eflags)
{
	if (prev_executor_start_hook)
		prev_executor_start_hook(query, eflags);
	else
		standard_ExecutorStart(query, eflags);

	for (SxReadStatement *stmt = statements; stmt; stmt = stmt->next)
	{
		if (stmt->estate == query->estate && stmt->requests == NULL)
		{
			copy_rows(stmt);
			break;
		}
	}
}

/* ---- the cache of views ---- */

static void
init_cache(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Seen);
	seen_views = hash_create("streamext views seen", 32, &ctl, HASH_ELEM | HASH_BLOBS);

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(ViewKey);
	ctl.entrysize = sizeof(ViewEntry);
	views = hash_create("streamext views read", 32, &ctl, HASH_ELEM | HASH_BLOBS);
	sx_catalog_on_change(catalog_changed);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

static void
catalog_changed(void)
{
	views_stale = true;
}

/* a change of any relation in our cache, mostly by VACUUM or ANALYZE */
static void
relation_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	ViewEntry  *e;

	if (views == NULL || views_stale)
		return;
	if (!OidIsValid(relid))
	{
		views_stale = true;
		return;
	}
	hash_seq_init(&seq, views);
	while ((e = hash_seq_search(&seq)) != NULL)
		if (e->key.matid == relid)
			views_stale = true;
}

static void
drop_stale(void)
{
	HASH_SEQ_STATUS seq;
	ViewEntry  *e;
	ListCell   *lc;

	views_stale = false;
	foreach(lc, unused)
	{
		SxReadView *view = lfirst(lc);

		if (view->refs == 0)
		{
			unused = foreach_delete_current(unused, lc);
			free_view(view);
		}
	}
	hash_seq_init(&seq, views);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		SxReadView *view = e->view;

		if (view && view->refs > 0)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			unused = lappend(unused, view);
			MemoryContextSwitchTo(old);
		}
		else if (view)
			free_view(view);
		hash_search(views, &e->key, HASH_REMOVE, NULL);
	}
}

static void
free_view(SxReadView *view)
{
	MemoryContextDelete(view->context); /* the info lives below */
}

SxReadView *
sx_read_view(Oid matid)
{
	ViewKey		key;
	ViewEntry  *e;
	SxReadView *view;

	if (views == NULL)
		init_cache();
	if (views_stale)
		drop_stale();

	key.matid = matid;
	key.userid = GetUserId();
	e = hash_search(views, &key, HASH_FIND, NULL);
	if (e)
		return e->view->def ? e->view : NULL;

	view = load_view(matid);
	e = hash_search(views, &key, HASH_ENTER, NULL);
	e->view = view;
	return view->def ? view : NULL;
}

static SxReadView *
load_view(Oid matid)
{
	SxViewDef  *def = sx_catalog_view_by_mat(matid);
	MemoryContext context;
	SxReadView *view;

	context = AllocSetContextCreate(CurrentMemoryContext, "streamext view read", ALLOCSET_SMALL_SIZES);
	view = MemoryContextAllocZero(context, sizeof(SxReadView));
	view->context = context;
	view->matid = matid;
	if (def)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Relation	rel = table_open(matid, NoLock);
		TupleDesc	desc = RelationGetDescr(rel);
		ListCell   *lc;

		view->def = palloc(sizeof(SxViewDef));
		*view->def = *def;
		view->def->settings = NIL;
		foreach(lc, def->settings)
			view->def->settings = lappend(view->def->settings, pstrdup(lfirst(lc)));
		view->exact = palloc0(sizeof(bool) * (def->nkeys + 1));
		for (int i = 0; i < def->nkeys && i < desc->natts; i++)
			view->exact[i] = equal_means_same(TupleDescAttr(desc, i)->atttypid,
											  TupleDescAttr(desc, i)->attcollation);
		view->session_key = session_key_of(def, desc);
		if (view->session_key >= 0)
			view->exact[view->session_key] = false;
		table_close(rel, NoLock);
		MemoryContextSwitchTo(old);
	}
	MemoryContextSetParent(context, TopMemoryContext);
	return view;
}

/* only a range can be one; the query says */
static int
session_key_of(const SxViewDef *def, TupleDesc desc)
{
	MemoryContext scratch;
	MemoryContext old;
	bool		session;

	if (def->strategy != SX_MERGE || def->nkeys < 1 || def->nkeys > desc->natts ||
		!type_is_range(TupleDescAttr(desc, def->nkeys - 1)->atttypid))
		return -1;
	scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext query", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(scratch);
	session = sx_analyze_stored(def->queryid, def->streamid)->session;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return session ? def->nkeys - 1 : -1;
}

/* btree knows, for deduplication */
static bool
equal_means_same(Oid type, Oid collation)
{
	TypeCacheEntry *cache = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);
	Oid			proc;

	if (!OidIsValid(cache->btree_opf))
		return false;
	proc = get_opfamily_proc(cache->btree_opf, cache->btree_opintype, cache->btree_opintype,
							 BTEQUALIMAGE_PROC);
	return OidIsValid(proc) &&
		DatumGetBool(OidFunctionCall1Coll(proc, collation, ObjectIdGetDatum(cache->btree_opintype)));
}

SxViewInfo *
sx_read_view_info(SxReadView *view)
{
	if (view->info == NULL)
		view->info = sx_view_info_create(view->def, view->context);
	return view->info;
}

SxWindows *
sx_read_view_windows(SxReadView *view)
{
	if (view->windows == NULL)
		view->windows = sx_windows_create(sx_read_view_info(view), view->context);
	return view->windows;
}

/* ---- the statement ---- */

SxReadStatement *
sx_read_register(EState *estate, Oid matid, const bool *filtered, const uint32 *hash, int *number)
{
	SxReadStatement *stmt;
	StatementNode *node;
	SxReadView *view = sx_read_view(matid);
	MemoryContext old;

	if (view == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" does not belong to a continuous view any more", get_rel_name(matid))));

	old = MemoryContextSwitchTo(estate->es_query_cxt);
	for (stmt = statements; stmt; stmt = stmt->next)
		if (stmt->estate == estate && stmt->requests == NULL)
			break;
	if (stmt == NULL)
		stmt = new_statement(estate);
	if (stmt->nnodes == stmt->maxnodes)
	{
		stmt->maxnodes *= 2;
		stmt->nodes = repalloc(stmt->nodes, sizeof(StatementNode) * stmt->maxnodes);
	}
	node = &stmt->nodes[stmt->nnodes];
	node->view = view;
	node->filtered = NULL;
	node->hash = NULL;
	if (filtered)
	{
		int			n = view->def->nkeys;

		node->filtered = palloc(sizeof(bool) * n);
		node->hash = palloc(sizeof(uint32) * n);
		memcpy(node->filtered, filtered, sizeof(bool) * n);
		memcpy(node->hash, hash, sizeof(uint32) * n);
	}
	view->refs++;
	*number = stmt->nnodes++;
	MemoryContextSwitchTo(old);
	return stmt;
}

static SxReadStatement *
new_statement(EState *estate)
{
	SxReadStatement *stmt = palloc0(sizeof(SxReadStatement));

	stmt->estate = estate;
	stmt->maxnodes = 4;
	stmt->nodes = palloc(sizeof(StatementNode) * stmt->maxnodes);
	stmt->next = statements;
	stmt->callback.func = end_statement;
	stmt->callback.arg = stmt;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, &stmt->callback);
	statements = stmt;
	return stmt;
}

/* with the executor state's memory, also after an error */
static void
end_statement(void *arg)
{
	SxReadStatement *stmt = arg;

	for (int i = 0; i < stmt->nnodes; i++)
		stmt->nodes[i].view->refs--;
	for (SxReadStatement **link = &statements; *link; link = &(*link)->next)
		if (*link == stmt)
		{
			*link = stmt->next;
			break;
		}
}

SxReadView *
sx_read_registered_view(SxReadStatement *stmt, int number)
{
	return stmt->nodes[number].view;
}

SxLiveRequest *
sx_read_rows(SxReadStatement *stmt, int number, Relation mat)
{
	SxReadView *view = stmt->nodes[number].view;
	SxLiveRequest *r;

	if (stmt->requests == NULL)
		copy_rows(stmt);
	r = &stmt->requests[number];
	check_replaced(view, stmt->estate->es_snapshot);
	if (!r->found && !view->built)
		check_built(view, mat, stmt->estate->es_snapshot);
	if (!stmt->alone)
		check_seen(stmt, view, r);
	return r->found ? r : NULL;
}

static void
copy_rows(SxReadStatement *stmt)
{
	SxDb	   *db = sx_my_db();
	MemoryContext old;
	SxLiveRequest *requests;

	stmt->alone = sx_live_read_disabled || IsolationUsesXactSnapshot() || RecoveryInProgress() ||
		!IsMVCCSnapshot(stmt->estate->es_snapshot);
	if (!stmt->alone && sx_read_consistency == SX_READ_WAIT && !sx_is_worker)
		wait_for_views(stmt);
	if (db == NULL)
		stmt->alone = true;

	old = MemoryContextSwitchTo(stmt->estate->es_query_cxt);
	requests = palloc0(sizeof(SxLiveRequest) * stmt->nnodes);
	for (int i = 0; i < stmt->nnodes; i++)
	{
		requests[i].matid = stmt->nodes[i].view->matid;
		requests[i].nkeys = stmt->nodes[i].view->def->nkeys;
		requests[i].filtered = stmt->nodes[i].filtered;
		requests[i].hash = stmt->nodes[i].hash;
	}
	if (!stmt->alone)
	{
		stmt->generation = db->generation;
		SX_STOP_POINT(read_begin);
		sx_live_copy(db, stmt->estate->es_snapshot, requests, stmt->nnodes);
		SX_STOP_POINT(read_copied);
	}
	stmt->requests = requests;
	stmt->timed = palloc0(sizeof(bool) * stmt->nnodes);
	stmt->watermarks = palloc0(sizeof(int64) * stmt->nnodes);
	stmt->panes = palloc0(sizeof(SxPaneBoundary) * stmt->nnodes);
	MemoryContextSwitchTo(old);
}

/*
 * Several statements may read the view, like two open cursors.  The one that calls has made the call's expression
 * in its own memory.  Another function in between hides it; then its snapshot tells.
 */
static SxReadStatement *
find_statement(SxReadView *view, MemoryContext caller, int *number)
{
	for (int pass = 0; pass < 2; pass++)
	{
		for (SxReadStatement *stmt = statements; stmt; stmt = stmt->next)
		{
			if (stmt->requests == NULL ||
				(pass == 0 ? stmt->estate->es_query_cxt != caller : stmt->estate->es_snapshot != GetActiveSnapshot()))
				continue;
			for (int i = 0; i < stmt->nnodes; i++)
			{
				if (stmt->requests[i].matid == view->matid)
				{
					*number = i;
					return stmt;
				}
			}
		}
	}
	return NULL;
}

int64
sx_read_watermark(SxReadView *view, MemoryContext caller)
{
	SxReadStatement *stmt;
	int			i;

	if (sx_group_rows != NULL && sx_group_rows->matid == view->matid)
		return sx_group_rows->watermark;
	stmt = find_statement(view, caller, &i);
	if (stmt == NULL)
		return sx_stored_watermark(view, GetActiveSnapshot());
	if (!stmt->timed[i])
		stmt->watermarks[i] = sx_stored_watermark(view, stmt->estate->es_snapshot);
	stmt->timed[i] = true;
	return stmt->watermarks[i];
}

SxPaneBoundary *
sx_read_pane_boundary(SxReadView *view, MemoryContext caller, Snapshot *snapshot, List **requests)
{
	int			first;
	SxReadStatement *stmt = find_statement(view, caller, &first);

	*requests = NIL;
	*snapshot = stmt != NULL ? stmt->estate->es_snapshot : GetActiveSnapshot();
	if (stmt == NULL)
		return NULL;
	for (int i = first; i < stmt->nnodes && !stmt->panes[first].known; i++)
	{
		SxLiveRequest *r = &stmt->requests[i];

		if (r->matid == view->matid && r->found)
			*requests = lappend(*requests, r);
	}
	return &stmt->panes[first];
}

int64
sx_stored_watermark(SxReadView *view, Snapshot snapshot)
{
	SxStoredPosition *position = sx_catalog_position_at(view->def->viewid, snapshot);

	return position != NULL && position->ours ? position->watermark : SX_TIME_NONE;
}

/* once per statement and view */
static void
wait_for_views(SxReadStatement *stmt)
{
	for (int i = 0; i < stmt->nnodes; i++)
	{
		Oid			viewid = stmt->nodes[i].view->def->viewid;
		char	   *blocker = NULL;
		bool		again = false;

		for (int j = 0; j < i; j++)
			again |= stmt->nodes[j].view->def->viewid == viewid;
		if (!again && !sx_wait(viewid, sx_wait_timeout, false, &blocker))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("continuous view \"%s\" did not catch up within streamext.wait_timeout (%d ms)",
							get_rel_name(viewid), sx_wait_timeout),
					 blocker ? errdetail_internal("%s", blocker) : 0,
					 errhint("SET streamext.read_consistency = 'latest' reads what is there; SET streamext.wait_timeout waits longer.")));
	}
}

/*
 * A table with rows whose view has no position of this database was restored from a dump or
 * copied with its database: the rows are some other database's.  (Without rows the view is
 * new, and reads as empty.)
 */
static void
check_built(SxReadView *view, Relation mat, Snapshot snapshot)
{
	SxStoredPosition *position = sx_catalog_position_at(view->def->viewid, snapshot);

	if (position && position->ours)
	{
		view->built = true;
		return;
	}
	if (has_restored_rows(view, mat, snapshot))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" is being rebuilt", get_rel_name(view->def->viewid)),
				 errdetail("Its rows come from a restored or copied database and are replaced by those of this one."),
				 errhint("Try again when streamext.status shows the view as live.")));
}

static bool
has_restored_rows(SxReadView *view, Relation mat, Snapshot snapshot)
{
	TupleDesc	desc = RelationGetDescr(mat);
	int			expected = 0;
	int			n = 0;
	TableScanDesc scan;
	TupleTableSlot *slot;

	/* without GROUP BY there is one row from the beginning */
	if (view->def->nkeys == 1 && TupleDescAttr(desc, 0)->atttypid == BOOLOID &&
		strcmp(NameStr(TupleDescAttr(desc, 0)->attname), "singleton") == 0)
		expected = 1;

	slot = table_slot_create(mat, NULL);
	scan = table_beginscan(mat, snapshot, 0, NULL);
	while (n <= expected && table_scan_getnextslot(scan, ForwardScanDirection, slot))
		n++;
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return n > expected;
}

/*
 * What a snapshot sees that was taken before the view was replaced is in a table that is gone, and of the new
 * one it sees nothing, or a part.
 */
static void
check_replaced(SxReadView *view, Snapshot snapshot)
{
	SxViewDef  *def;

	if (!TransactionIdIsNormal(view->def->defined_by) || !IsMVCCSnapshot(snapshot) ||
		TransactionIdPrecedes(view->def->defined_by, snapshot->xmin))
		return;
	def = sx_catalog_view_at(view->def->viewid, snapshot);
	if (def != NULL && def->matid != view->matid)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("continuous view \"%s\" has been replaced since this transaction's snapshot was taken",
						get_rel_name(view->def->viewid)),
				 errhint("Try the transaction again.")));
}

static void
check_seen(SxReadStatement *stmt, SxReadView *view, SxLiveRequest *r)
{
	Oid			viewid = view->def->viewid;
	Seen	   *seen;
	SxStoredPosition *position;

	if (r->found)
	{
		view->built = true;
		if (r->in_table)
			hash_search(seen_views, &viewid, HASH_REMOVE, NULL);
		else
		{
			seen = hash_search(seen_views, &viewid, HASH_ENTER, NULL);
			seen->generation = stmt->generation;
			seen->cycle = r->cycle;
			seen->bound = U64FromFullTransactionId(ReadNextFullTransactionId());
		}
		return;
	}

	seen = hash_search(seen_views, &viewid, HASH_FIND, NULL);
	if (seen == NULL)
		return;
	if (seen->generation != stmt->generation || r->cycle < seen->cycle)
	{
		position = sx_catalog_position_at(viewid, stmt->estate->es_snapshot);
		if (position == NULL || !position->ours || position->position->xmin < seen->bound)
			ereport(ERROR,
					(errcode(ERRCODE_SNAPSHOT_TOO_OLD),
					 errmsg("could not read continuous view \"%s\" at the position this session has already seen",
							get_rel_name(viewid)),
					 errdetail("Rows that this session has read are not in the table yet, and are not in memory any more."),
					 errhint("Try the statement again.")));
	}
	hash_search(seen_views, &viewid, HASH_REMOVE, NULL);
}
