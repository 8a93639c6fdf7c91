/*
 * live_read_exec.c
 *		The read node: rows of the materialized table combined with live groups.
 *
 * The child returns whole rows of the table that pass the quals, in the path's order.  Rows
 * without a live group pass.  Of the groups that are live:
 *
 *	 stream		 The child's order means nothing and the quals depend on keys alone, so the
 *				 child returns the row of every group that qualifies: it is combined as it
 *				 comes by, and groups that never came are new ones.
 *	 merge		 otherwise, rows with a live group are taken out of the child's stream, the
 *				 group's row of the table is fetched by its keys, combined, all quals are
 *				 tried, and the result is merged in by the sort order.  If that order depends on
 *				 keys alone, fetching waits until the group's turn comes, so that LIMIT is
 *				 cheap.
 *
 * Of sessions (live_read_sessions.c), a live group may take up several rows of the table, and other
 * live groups, when it is completed; so it is always merge.
 *
 * Candidates of a scan are found by the hashes of `key = value` quals and by those quals that
 * depend on keys alone; all quals are tried in any case, on the combined row.
 *
 * Memory: groups live as long as the node; candidates and their sort keys until the next
 * rescan; what quals and sort expressions leave behind, until the next row.
 */
#include "live/live_read_internal.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/sortsupport.h"

#include SX_EXPLAIN_STATE_HEADER
#include SX_EXPLAIN_HEADER

/* a group, or new row, that may be part of this scan's result */
typedef struct Candidate
{
	int			group;
	Datum	   *values;			/* [nsort] */
	bool	   *isnull;
} Candidate;

typedef struct ReadState
{
	CustomScanState css;
	PlanState  *child;
	/* from the plan */
	bool		stream;
	bool		keys_sort;
	int			nkeys;
	int			session_key;	/* -1: none */
	ExprState  *quals;
	ExprState  *prefilter;
	int			nfilters;
	SxKeyFilter *filters;
	bool		runtime_filters;
	int			nsort;
	ExprState **sort;
	SortSupport sortsupport;
	int16	   *sortlen;
	bool	   *sortbyval;
	int			ncolumns;		/* rows go up with these columns alone; 0: by expressions, or whole */
	int		   *columns;
	int			lastcolumn;		/* the highest of them, plus one */
	/* this execution */
	bool		prepared;		/* expressions and memory for live rows are there */
	SxReadStatement *statement;
	int			number;
	bool		started;
	SxReadGroups *groups;		/* NULL: nothing is live */
	ExprContext *live_econtext;
	ExprContext *child_econtext;
	TupleTableSlot *out;		/* a live row on its way up */
	/* this scan */
	MemoryContext scan_context;
	bool		scanning;
	uint32		scan_no;
	int			ncandidates;
	int			maxcandidates;
	int			next;
	Candidate  *candidates;
	bool		child_done;
	TupleTableSlot *child_row;	/* in hand, waits for its turn */
	bool		child_sorted;	/* its sort values are computed */
	Datum	   *child_values;
	bool	   *child_isnull;
} ReadState;

static Node *create_state(CustomScan *scan);
static void begin_scan(CustomScanState *node, EState *estate, int eflags);
static void find_columns(ReadState *st, List *targetlist);
static void prepare(ReadState *st);
static void init_quals(ReadState *st, List *quals, List *private);
static void init_filters(ReadState *st, List *quals, List *private);
static void init_sort(ReadState *st, List *sort, List *private);
static void register_node(ReadState *st, EState *estate, Oid matid);
static TupleTableSlot *exec_scan(CustomScanState *node);
static TupleTableSlot *next_row(ScanState *node);
static inline TupleTableSlot *next(ReadState *st);
static inline TupleTableSlot *copy_columns(ReadState *st, TupleTableSlot *row, TupleTableSlot *into);
static bool recheck(ScanState *node, TupleTableSlot *slot);
static void start(ReadState *st);
static Bitmapset *used_columns(ReadState *st);
static void start_scan(ReadState *st);
static bool runtime_hashes(ReadState *st, bool *filtered, uint32 *hash);
static void add_candidate(ReadState *st, int number);
static bool pass(ReadState *st, ExprState *quals, MinimalTuple tuple);
static void sort_values(ReadState *st, ExprContext *econtext, Datum *values, bool *isnull);
static int	compare_values(ReadState *st, Datum *a, bool *anull, Datum *b, bool *bnull);
static int	compare_candidates(const void *a, const void *b, void *arg);
static TupleTableSlot *next_streamed(ReadState *st);
static TupleTableSlot *next_merged(ReadState *st);
static bool fetch_child(ReadState *st);
static bool child_goes_first(ReadState *st);
static TupleTableSlot *next_live(ReadState *st);
static void end_scan(CustomScanState *node);
static void rescan(CustomScanState *node);
static void explain(CustomScanState *node, List *ancestors, ExplainState *es);

const CustomScanMethods sx_read_scan_methods = {
	.CustomName = "StreamextRead",
	.CreateCustomScanState = create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = "StreamextRead",
	.BeginCustomScan = begin_scan,
	.ExecCustomScan = exec_scan,
	.EndCustomScan = end_scan,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain
};

static Node *
create_state(CustomScan *scan)
{
	ReadState  *st = (ReadState *) newNode(sizeof(ReadState), T_CustomScanState);

	st->css.methods = &exec_methods;
	return (Node *) st;
}

/* ---- start ---- */

static void
begin_scan(CustomScanState *node, EState *estate, int eflags)
{
	ReadState  *st = (ReadState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	List	   *private = scan->custom_private;
	List	   *flags = list_nth(private, SX_PRIVATE_FLAGS);

	st->stream = list_nth_int(flags, SX_FLAG_STREAM) != 0;
	st->keys_sort = list_nth_int(flags, SX_FLAG_KEYS_SORT) != 0;
	st->nkeys = list_nth_int(flags, SX_FLAG_NKEYS);
	st->session_key = list_nth_int(flags, SX_FLAG_SESSION_KEY);

	st->child = ExecInitNode(linitial(scan->custom_plans), estate,
							 eflags & ~(EXEC_FLAG_BACKWARD | EXEC_FLAG_MARK));
	node->custom_ps = list_make1(st->child);

	/* rows go up in whatever slot they are in */
	node->ss.ps.scanopsset = true;
	node->ss.ps.scanopsfixed = false;
	node->ss.ps.scanops = NULL;
	ExecAssignScanProjectionInfo(&node->ss);
	if (node->ss.ps.ps_ProjInfo != NULL)
		find_columns(st, scan->scan.plan.targetlist);

	/* plans of sub-selects have to be known from the start */
	if (list_nth_int(flags, SX_FLAG_SUBPLANS))
		prepare(st);
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	init_filters(st, linitial(scan->custom_exprs), private);
	register_node(st, estate, linitial_oid(list_nth(private, SX_PRIVATE_MAT)));
}

/* a statement asks for some of the columns in most cases; to copy these takes half as long as ExecProject() */
static void
find_columns(ReadState *st, List *targetlist)
{
	int			n = 0;
	ListCell   *lc;

	st->columns = palloc(sizeof(int) * list_length(targetlist));
	foreach(lc, targetlist)
	{
		Var		   *var = (Var *) lfirst_node(TargetEntry, lc)->expr;

		if (!IsA(var, Var) || var->varattno <= 0)
			return;
		st->columns[n++] = var->varattno - 1;
		st->lastcolumn = Max(st->lastcolumn, var->varattno);
	}
	st->ncolumns = n;
}

/* what only live rows need: most reads of a few groups do without */
static void
prepare(ReadState *st)
{
	CustomScan *scan = (CustomScan *) st->css.ss.ps.plan;
	EState	   *estate = st->css.ss.ps.state;
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);

	st->prepared = true;
	st->live_econtext = CreateExprContext(estate);
	st->child_econtext = CreateExprContext(estate);
	st->out = ExecAllocTableSlot(&estate->es_tupleTable, RelationGetDescr(st->css.ss.ss_currentRelation),
								 &TTSOpsMinimalTuple);
	st->scan_context = AllocSetContextCreate(estate->es_query_cxt, "streamext read scan",
											 ALLOCSET_DEFAULT_SIZES);
	init_quals(st, linitial(scan->custom_exprs), scan->custom_private);
	init_sort(st, lsecond(scan->custom_exprs), scan->custom_private);
	MemoryContextSwitchTo(old);
}

static void
init_quals(ReadState *st, List *quals, List *private)
{
	List	   *prefilter = NIL;
	ListCell   *lq;
	ListCell   *lp;

	forboth(lq, quals, lp, (List *) list_nth(private, SX_PRIVATE_PREFILTER))
		if (lfirst_int(lp))
			prefilter = lappend(prefilter, lfirst(lq));
	st->quals = ExecInitQual(quals, &st->css.ss.ps);
	st->prefilter = ExecInitQual(prefilter, &st->css.ss.ps);
}

static void
init_filters(ReadState *st, List *quals, List *private)
{
	List	   *filters = list_nth(private, SX_PRIVATE_FILTERS);
	List	   *functions = list_nth(private, SX_PRIVATE_FILTER_FUNCTIONS);

	st->nfilters = list_length(functions);
	st->filters = palloc0(sizeof(SxKeyFilter) * (st->nfilters + 1));
	for (int i = 0; i < st->nfilters; i++)
	{
		SxKeyFilter *f = &st->filters[i];
		int			at = i * SX_FILTER_FIELDS;
		OpExpr	   *op = castNode(OpExpr, list_nth(quals, list_nth_int(filters, at)));

		f->value = ExecInitExpr(list_nth(op->args, list_nth_int(filters, at + 1)), &st->css.ss.ps);
		f->key = list_nth_int(filters, at + 2);
		f->runtime = list_nth_int(filters, at + 3) != 0;
		f->collation = op->inputcollid;
		fmgr_info(list_nth_oid(functions, i), &f->hashfn);
		st->runtime_filters |= f->runtime;
	}
}

static void
init_sort(ReadState *st, List *sort, List *private)
{
	List	   *operators = list_nth(private, SX_PRIVATE_SORT_OPERATORS);
	List	   *collations = list_nth(private, SX_PRIVATE_SORT_COLLATIONS);
	List	   *nulls_first = list_nth(private, SX_PRIVATE_SORT_NULLS_FIRST);

	st->nsort = list_length(sort);
	if (st->nsort == 0)
		return;
	st->sort = palloc(sizeof(ExprState *) * st->nsort);
	st->sortsupport = palloc0(sizeof(SortSupportData) * st->nsort);
	st->sortlen = palloc(sizeof(int16) * st->nsort);
	st->sortbyval = palloc(sizeof(bool) * st->nsort);
	st->child_values = palloc(sizeof(Datum) * st->nsort);
	st->child_isnull = palloc(sizeof(bool) * st->nsort);
	for (int i = 0; i < st->nsort; i++)
	{
		Expr	   *expr = list_nth(sort, i);
		SortSupport ssup = &st->sortsupport[i];

		st->sort[i] = ExecInitExpr(expr, &st->css.ss.ps);
		ssup->ssup_cxt = CurrentMemoryContext;
		ssup->ssup_collation = list_nth_oid(collations, i);
		ssup->ssup_nulls_first = list_nth_int(nulls_first, i) != 0;
		ssup->ssup_attno = i + 1;
		ssup->abbreviate = false;
		PrepareSortSupportFromOrderingOp(list_nth_oid(operators, i), ssup);
		get_typlenbyval(exprType((Node *) expr), &st->sortlen[i], &st->sortbyval[i]);
	}
}

/* filters whose value is known now limit what the statement copies */
static void
register_node(ReadState *st, EState *estate, Oid matid)
{
	bool	   *filtered = palloc0(sizeof(bool) * (st->nkeys + 1));
	uint32	   *hash = palloc0(sizeof(uint32) * (st->nkeys + 1));
	bool		any = false;
	ExprContext *econtext = st->css.ss.ps.ps_ExprContext;
	MemoryContext old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);

	for (int i = 0; i < st->nfilters; i++)
	{
		SxKeyFilter *f = &st->filters[i];
		bool		isnull;
		Datum		value;

		if (f->runtime || filtered[f->key])
			continue;
		value = ExecEvalExpr(f->value, econtext, &isnull);
		/* as sx_key_hash: a comparison with NULL is never true, any hash will do */
		hash[f->key] = isnull ? 0 : DatumGetUInt32(FunctionCall1Coll(&f->hashfn, f->collation, value));
		filtered[f->key] = true;
		any = true;
	}
	/* found by what they overlap, not by hash: see sx_key_hash() */
	if (st->session_key >= 0)
		filtered[st->session_key] = true;
	MemoryContextSwitchTo(old);
	ResetExprContext(econtext);

	st->statement = sx_read_register(estate, matid, any ? filtered : NULL, any ? hash : NULL, &st->number);
	pfree(filtered);
	pfree(hash);
}

/* the first row is asked for */
static void
start(ReadState *st)
{
	Relation	mat = st->css.ss.ss_currentRelation;
	EState	   *estate = st->css.ss.ps.state;
	SxLiveRequest *r = sx_read_rows(st->statement, st->number, mat);

	st->started = true;
	if (r && r->nrows > 0)
	{
		if (!st->prepared)
			prepare(st);
		st->groups = sx_read_groups_create(estate, sx_read_registered_view(st->statement, st->number),
										   r, mat, estate->es_query_cxt);
		sx_read_groups_limit(st->groups, used_columns(st));
	}
}

/* the target list is not final when the node is planned, so this is found out here, where something is live */
static Bitmapset *
used_columns(ReadState *st)
{
	CustomScan *scan = (CustomScan *) st->css.ss.ps.plan;
	Bitmapset  *columns = NULL;

	pull_varattnos((Node *) scan->scan.plan.targetlist, scan->scan.scanrelid, &columns);
	pull_varattnos((Node *) scan->custom_exprs, scan->scan.scanrelid, &columns);
	return columns;
}

/* ---- execution ---- */

static TupleTableSlot *
exec_scan(CustomScanState *node)
{
	ReadState  *st = (ReadState *) node;
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	TupleTableSlot *row;

	if (node->ss.ps.state->es_epq_active != NULL)
		return ExecScan(&node->ss, next_row, recheck);

	/* quals were tried below, or on live rows */
	row = next(st);
	if (node->ss.ps.ps_ProjInfo == NULL)
		return row;
	if (TupIsNull(row))
		return ExecClearTuple(node->ss.ps.ps_ProjInfo->pi_state.resultslot);
	if (st->ncolumns > 0)
		return copy_columns(st, row, node->ss.ps.ps_ProjInfo->pi_state.resultslot);
	ResetExprContext(econtext);
	econtext->ecxt_scantuple = row;
	return ExecProject(node->ss.ps.ps_ProjInfo);
}

/* as ExecProject(): valid as long as the row */
static inline TupleTableSlot *
copy_columns(ReadState *st, TupleTableSlot *row, TupleTableSlot *into)
{
	/* somebody above may have made the last row its own */
	if (TTS_SHOULDFREE(into))
		ExecClearTuple(into);
	slot_getsomeattrs(row, st->lastcolumn);
	for (int i = 0; i < st->ncolumns; i++)
	{
		into->tts_values[i] = row->tts_values[st->columns[i]];
		into->tts_isnull[i] = row->tts_isnull[st->columns[i]];
	}
	into->tts_flags &= ~TTS_FLAG_EMPTY;
	into->tts_nvalid = st->ncolumns;
	return into;
}

/* a re-check gets whole rows that had passed the quals */
static bool
recheck(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
next_row(ScanState *node)
{
	return next((ReadState *) node);
}

static inline TupleTableSlot *
next(ReadState *st)
{
	if (!st->started)
		start(st);
	if (st->groups == NULL)
		return ExecProcNode(st->child);
	if (!st->scanning)
		start_scan(st);
	return st->stream && st->nkeys > 0 ? next_streamed(st) : next_merged(st);
}

/* finds the groups that may be part of this scan's result, in its order */
static void
start_scan(ReadState *st)
{
	SxReadGroups *g = st->groups;
	bool	   *filtered;
	uint32	   *hash;
	bool		all;
	MemoryContext old;

	MemoryContextReset(st->scan_context);
	old = MemoryContextSwitchTo(st->scan_context);
	st->scanning = true;
	st->scan_no++;
	st->ncandidates = 0;
	st->maxcandidates = 0;
	st->candidates = NULL;
	st->next = 0;
	st->child_done = false;
	st->child_row = NULL;
	st->child_sorted = false;

	filtered = palloc0(sizeof(bool) * (st->nkeys + 1));
	hash = palloc0(sizeof(uint32) * (st->nkeys + 1));
	all = runtime_hashes(st, filtered, hash);
	if (all)
	{
		uint32		h = sx_row_hash(hash, st->nkeys);

		for (int i = g->buckets[h & g->mask]; i >= 0; i = g->groups[i].next)
			for (int j = 0; g->groups[i].hash == h && j < g->groups[i].run; j++)
				add_candidate(st, i + j);
	}
	else
	{
		for (int i = 0; i < g->ngroups; i++)
		{
			bool		match = true;

			for (int k = 0; match && k < st->nkeys && st->runtime_filters; k++)
				match = !filtered[k] || hash[k] == g->groups[i].keyhash[k];
			if (match)
				add_candidate(st, i);
		}
	}
	if (st->nsort > 0 && st->ncandidates > 1)
		qsort_arg(st->candidates, st->ncandidates, sizeof(Candidate), compare_candidates, st);
	MemoryContextSwitchTo(old);
}

/* hashes of the keys that quals fix; true if that is all keys */
static bool
runtime_hashes(ReadState *st, bool *filtered, uint32 *hash)
{
	ExprContext *econtext = st->live_econtext;
	bool		all = st->nkeys > 0;
	MemoryContext old;

	if (!st->runtime_filters)
		return false;
	ResetExprContext(econtext);
	old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
	for (int i = 0; i < st->nfilters; i++)
	{
		SxKeyFilter *f = &st->filters[i];
		bool		isnull;
		Datum		value;

		if (filtered[f->key])
			continue;
		value = ExecEvalExpr(f->value, econtext, &isnull);
		hash[f->key] = isnull ? 0 : DatumGetUInt32(FunctionCall1Coll(&f->hashfn, f->collation, value));
		filtered[f->key] = true;
	}
	MemoryContextSwitchTo(old);
	if (st->session_key >= 0)
		filtered[st->session_key] = true;
	for (int k = 0; k < st->nkeys; k++)
		all &= filtered[k];
	return all;
}

static void
add_candidate(ReadState *st, int number)
{
	SxReadGroup *group = &st->groups->groups[number];
	MinimalTuple tuple = group->live;
	ExprContext *econtext = st->live_econtext;
	Candidate  *c;

	ResetExprContext(econtext);
	if (group->absorbed)
		return;
	if (st->prefilter && !pass(st, st->prefilter, tuple))
		return;
	if (st->nsort > 0 && !st->keys_sort)
	{
		/* its place depends on its states */
		MemoryContext old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);

		tuple = sx_read_groups_complete(st->groups, group);
		MemoryContextSwitchTo(old);
		if (!pass(st, st->quals, tuple))
			return;
	}

	if (st->ncandidates == st->maxcandidates)
	{
		st->maxcandidates = Max(16, 2 * st->maxcandidates);
		st->candidates = st->candidates ?
			repalloc_huge(st->candidates, sizeof(Candidate) * st->maxcandidates) :
			palloc(sizeof(Candidate) * st->maxcandidates);
	}
	c = &st->candidates[st->ncandidates++];
	c->group = number;
	if (st->nsort == 0)
		return;
	c->values = palloc(sizeof(Datum) * st->nsort);
	c->isnull = palloc(sizeof(bool) * st->nsort);
	ExecStoreMinimalTuple(tuple, st->out, false);
	econtext->ecxt_scantuple = st->out;
	sort_values(st, econtext, c->values, c->isnull);
	for (int i = 0; i < st->nsort; i++)
		if (!c->isnull[i])
			c->values[i] = datumCopy(c->values[i], st->sortbyval[i], st->sortlen[i]);
}

static bool
pass(ReadState *st, ExprState *quals, MinimalTuple tuple)
{
	if (quals == NULL)
		return true;
	ExecStoreMinimalTuple(tuple, st->out, false);
	st->live_econtext->ecxt_scantuple = st->out;
	return ExecQual(quals, st->live_econtext);
}

static void
sort_values(ReadState *st, ExprContext *econtext, Datum *values, bool *isnull)
{
	for (int i = 0; i < st->nsort; i++)
		values[i] = ExecEvalExprSwitchContext(st->sort[i], econtext, &isnull[i]);
}

static int
compare_values(ReadState *st, Datum *a, bool *anull, Datum *b, bool *bnull)
{
	for (int i = 0; i < st->nsort; i++)
	{
		int			result = ApplySortComparator(a[i], anull[i], b[i], bnull[i], &st->sortsupport[i]);

		if (result != 0)
			return result;
	}
	return 0;
}

static int
compare_candidates(const void *a, const void *b, void *arg)
{
	const Candidate *ca = a;
	const Candidate *cb = b;
	int			result;

	CHECK_FOR_INTERRUPTS();
	result = compare_values(arg, ca->values, ca->isnull, cb->values, cb->isnull);
	return result != 0 ? result : (ca->group > cb->group) - (ca->group < cb->group);
}

static TupleTableSlot *
next_streamed(ReadState *st)
{
	ExprContext *econtext = st->child_econtext;

	if (!st->child_done)
	{
		TupleTableSlot *row = ExecProcNode(st->child);

		if (!TupIsNull(row))
		{
			MemoryContext old;
			SxReadGroup *group;

			if (!sx_read_groups_possible(st->groups, row))
				return row;
			ResetExprContext(econtext);
			old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
			group = sx_read_groups_find(st->groups, row);
			if (group)
			{
				group->matched = st->scan_no;
				row = sx_read_groups_combine(st->groups, row, group);
			}
			MemoryContextSwitchTo(old);
			return row;
		}
		st->child_done = true;
	}

	/* what the child did not have is new */
	while (st->next < st->ncandidates)
	{
		SxReadGroup *group = &st->groups->groups[st->candidates[st->next++].group];
		MemoryContext old;

		if (group->matched == st->scan_no)
			continue;
		ResetExprContext(st->live_econtext);
		if (!pass(st, st->quals, group->live))
			continue;
		old = MemoryContextSwitchTo(st->live_econtext->ecxt_per_tuple_memory);
		ExecStoreMinimalTuple(sx_read_groups_alone(st->groups, group), st->out, false);
		MemoryContextSwitchTo(old);
		return st->out;
	}
	return NULL;
}

static TupleTableSlot *
next_merged(ReadState *st)
{
	TupleTableSlot *row;

	for (;;)
	{
		bool		more = fetch_child(st);

		if (more && (st->nsort == 0 || child_goes_first(st)))
		{
			row = st->child_row;
			st->child_row = NULL;
			return row;
		}
		if (!more && st->next >= st->ncandidates)
			return NULL;
		row = next_live(st);
		if (row)
			return row;
	}
}

/* the child's next row that has no live group, into our hand */
static bool
fetch_child(ReadState *st)
{
	while (st->child_row == NULL && !st->child_done)
	{
		TupleTableSlot *row = ExecProcNode(st->child);

		if (TupIsNull(row))
		{
			st->child_done = true;
			break;
		}
		ResetExprContext(st->child_econtext);
		if (st->nkeys > 0 && sx_read_groups_possible(st->groups, row))
		{
			MemoryContext old = MemoryContextSwitchTo(st->child_econtext->ecxt_per_tuple_memory);
			bool		live = sx_read_groups_find(st->groups, row) != NULL;

			MemoryContextSwitchTo(old);
			if (live)
				continue;
		}
		st->child_row = row;
		st->child_sorted = false;
	}
	return st->child_row != NULL;
}

static bool
child_goes_first(ReadState *st)
{
	Candidate  *c;
	MemoryContext old;
	int			result;

	if (st->next >= st->ncandidates)
		return true;
	if (!st->child_sorted)
	{
		st->child_econtext->ecxt_scantuple = st->child_row;
		sort_values(st, st->child_econtext, st->child_values, st->child_isnull);
		st->child_sorted = true;
	}
	c = &st->candidates[st->next];
	old = MemoryContextSwitchTo(st->child_econtext->ecxt_per_tuple_memory);
	result = compare_values(st, st->child_values, st->child_isnull, c->values, c->isnull);
	MemoryContextSwitchTo(old);
	return result <= 0;
}

/* the next candidate, if it qualifies */
static TupleTableSlot *
next_live(ReadState *st)
{
	SxReadGroup *group = &st->groups->groups[st->candidates[st->next++].group];
	bool		tried = st->nsort > 0 && !st->keys_sort;
	MemoryContext old;
	MinimalTuple tuple;

	CHECK_FOR_INTERRUPTS();
	if (group->absorbed)
		return NULL;
	ResetExprContext(st->live_econtext);
	old = MemoryContextSwitchTo(st->live_econtext->ecxt_per_tuple_memory);
	tuple = sx_read_groups_complete(st->groups, group);
	MemoryContextSwitchTo(old);
	if (!tried && !pass(st, st->quals, tuple))
		return NULL;
	ExecStoreMinimalTuple(tuple, st->out, false);
	return st->out;
}

/* ---- end ---- */

static void
rescan(CustomScanState *node)
{
	ReadState  *st = (ReadState *) node;

	ExecScanReScan(&node->ss);
	if (node->ss.ps.chgParam != NULL)
		UpdateChangedParamSet(st->child, node->ss.ps.chgParam);
	if (st->child->chgParam == NULL)
		ExecReScan(st->child);
	st->scanning = false;
	st->child_row = NULL;
	if (st->prepared)
		ExecClearTuple(st->out);
}

static void
end_scan(CustomScanState *node)
{
	ReadState  *st = (ReadState *) node;

	if (st->groups)
		sx_read_groups_end(st->groups);
	ExecEndNode(st->child);
}

static void
explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	ReadState  *st = (ReadState *) node;

	if (es->analyze)
		ExplainPropertyInteger("Live Groups", NULL, st->groups ? st->groups->ngroups : 0, es);
}
