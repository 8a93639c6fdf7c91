/*
 * window_key.c
 *		The group key that is a window of event time, and which of its values are closed.
 *
 * A window need not be made by tumble(): date_trunc(), date_bin(), a cast to date or the event time itself
 * do as well.  All that is asked of the expression f is that it never falls while the event time rises.
 * Then a window k is closed at time t, that is, no row from t on can fall into it, exactly if k < f(t), in
 * the order of the key's type: nothing needs to be known of sizes, calendars or time zones.  hop() and
 * cumulate() put a row into several windows; there the least of them takes the place of f(t).
 *
 * Sessions are other keys: how far one reaches depends on its rows.  With session(f, gap) a row from t on
 * begins its own session at f(t) at the earliest, so those are closed at t that end at or before f(t).
 *
 * A local time (AT TIME ZONE) falls where clocks are set back, so it makes windows only in zones where
 * they are not.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/namespace.h"
#include "common/int.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "capture/event_time.h"
#include "query/view_info.h"
#include "query/window_key.h"

typedef struct Search
{
	Oid			streamid;
	const SxStreamTime *time;
} Search;

struct SxWindows
{
	SxViewInfo *info;
	MemoryContext context;
	ExprContext *econtext;
	ExprState  *state;			/* of a window that is one value */
	SetExprState *set;			/* of several */
	bool		session;		/* boundary is the end of closed ones */
	ParamListInfo params;
	FmgrInfo	cmp;
	Oid			collation;
	bool		byval;
	int16		typlen;
	int64		lowest;			/* the event times whose windows can be computed without doubt */
	int64		highest;
	int64		until;
	bool		known;			/* boundary was looked for */
	bool		bounded;		/* ... and there is one */
	Datum		boundary;
	Datum		last;			/* the greatest window of the time */
	MemoryContext kept;			/* of both */
};

static Expr *rising(Node *node, List *queries, Search *search);
static Expr *rising_column(Var *var, List *queries, Search *search);
static Expr *rising_argument(Node *node, List *args, int number, List *queries, Search *search);
static Expr *rising_with(RangeTblEntry *rte, AttrNumber attno, List *queries, Search *search);
static Expr *output_column(Query *query, AttrNumber attno, List *queries, Search *search);
static int	time_argument(Oid funcid, List *args);
static bool is_fixed_zone(Node *zone);
static bool is_positive(Node *number);
static void find_range(SxWindows *w);
static bool add_reach(Node *node, int64 *reach);
static bool find_bounds_of_row(SxWindows *w, int64 event_time, Datum *least, Datum *greatest);
static bool find_bounds(SxWindows *w, int64 event_time, Datum *least, Datum *greatest);
static bool find_bounds_of(SxWindows *w, Datum value, Datum *least, Datum *greatest, const Datum *above, int *n);
static bool reaches(SxWindows *w, int64 event_time, Datum key, bool least, bool after);
static bool is_later(SxWindows *w, int64 event_time, Datum window);

/* ---- finding it ---- */

int
sx_find_window_key(SxAnalysis *a, const SxStreamTime *time, Expr **window)
{
	Search		search = {a->streamid, time};
	ListCell   *lc;
	int			n = 0;

	*window = NULL;
	if (time->attno == InvalidAttrNumber)
		return -1;
	foreach(lc, a->keys)
	{
		/* arguments by name take their places, and constants are computed */
		Node	   *key = eval_const_expressions(NULL, (Node *) lfirst_node(TargetEntry, lc)->expr);

		if (sx_is_session_call(key))
			key = linitial(((FuncExpr *) key)->args);
		*window = rising(key, list_make1(a->query), &search);
		if (*window != NULL)
			return n;
		n++;
	}
	return -1;
}

/* a copy with the event time as a parameter, or NULL; queries: around the node, innermost first */
static Expr *
rising(Node *node, List *queries, Search *search)
{
	check_stack_depth();
	if (IsA(node, Var))
		return rising_column((Var *) node, queries, search);
	if (IsA(node, RelabelType))
	{
		RelabelType *copy = copyObject((RelabelType *) node);

		copy->arg = rising((Node *) copy->arg, queries, search);
		return copy->arg ? (Expr *) copy : NULL;
	}
	if (IsA(node, FuncExpr))
	{
		FuncExpr   *f = (FuncExpr *) node;

		return rising_argument(node, f->args, time_argument(f->funcid, f->args), queries, search);
	}
	if (IsA(node, OpExpr))
	{
		OpExpr	   *op = (OpExpr *) node;

		set_opfuncid(op);
		return rising_argument(node, op->args, time_argument(op->opfuncid, op->args), queries, search);
	}
	return NULL;
}

/* one argument rises, the others are constants */
static Expr *
rising_argument(Node *node, List *args, int number, List *queries, Search *search)
{
	Node	   *copy;
	List	   *newargs = NIL;
	ListCell   *lc;
	int			n = 0;

	if (number < 0)
		return NULL;
	foreach(lc, args)
	{
		Node	   *arg = lfirst(lc);

		if (n++ == number)
			arg = (Node *) rising(arg, queries, search);
		else if (!IsA(arg, Const))
			return NULL;
		if (arg == NULL)
			return NULL;
		newargs = lappend(newargs, arg);
	}
	copy = copyObject(node);
	if (IsA(copy, FuncExpr))
		((FuncExpr *) copy)->args = newargs;
	else
		((OpExpr *) copy)->args = newargs;
	return (Expr *) copy;
}

/* which of a function's arguments its result rises with; -1: none that we know of */
static int
time_argument(Oid funcid, List *args)
{
	switch (funcid)
	{
		case F_DATE_TIMESTAMPTZ:
		case F_DATE_TIMESTAMP:
		case F_TIMESTAMP_DATE:
		case F_TIMESTAMPTZ_DATE:
			return 0;
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT:
		case F_DATE_TRUNC_TEXT_TIMESTAMP:
		case F_DATE_BIN_INTERVAL_TIMESTAMP_TIMESTAMP:
		case F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ:
			return 1;
		case F_TIMEZONE_TEXT_TIMESTAMPTZ:
		case F_TIMEZONE_TEXT_TIMESTAMP:
			return is_fixed_zone(linitial(args)) ? 1 : -1;
		case F_INT8DIV:
		case F_INT84DIV:
		case F_INT82DIV:
			return is_positive(lsecond(args)) ? 0 : -1;
		default:
			break;
	}
	if (get_func_namespace(funcid) == sx_catalog_schema_oid())
	{
		char	   *name = get_func_name(funcid);

		if (name != NULL &&
			(strcmp(name, "tumble") == 0 || strcmp(name, "hop") == 0 || strcmp(name, "cumulate") == 0))
			return 0;
	}
	return -1;
}

static bool
is_fixed_zone(Node *zone)
{
	pg_tz	   *tz;
	long		offset;

	if (!IsA(zone, Const) || ((Const *) zone)->constisnull)
		return false;
	tz = pg_tzset(TextDatumGetCString(((Const *) zone)->constvalue));
	return tz != NULL && pg_get_timezone_offset(tz, &offset);
}

static bool
is_positive(Node *number)
{
	Const	   *c = (Const *) number;

	if (!IsA(number, Const) || c->constisnull)
		return false;
	switch (c->consttype)
	{
		case INT8OID:
			return DatumGetInt64(c->constvalue) > 0;
		case INT4OID:
			return DatumGetInt32(c->constvalue) > 0;
		case INT2OID:
			return DatumGetInt16(c->constvalue) > 0;
		default:
			return false;
	}
}

/* the event time itself, or what a join or a sub-select makes of it */
static Expr *
rising_column(Var *var, List *queries, Search *search)
{
	Query	   *query;
	RangeTblEntry *rte;
	Node	   *alias;

	if (var->varlevelsup >= list_length(queries) || var->varattno <= 0)
		return NULL;
	queries = list_copy_tail(queries, var->varlevelsup);
	query = linitial_node(Query, queries);
	rte = rt_fetch(var->varno, query->rtable);
	switch (rte->rtekind)
	{
		case RTE_RELATION:
			if (rte->relid == search->streamid && var->varattno == search->time->attno)
			{
				Param	   *param = makeNode(Param);

				param->paramkind = PARAM_EXTERN;
				param->paramid = 1;
				param->paramtype = search->time->type;
				param->paramtypmod = -1;
				param->paramcollid = InvalidOid;
				param->location = -1;
				return (Expr *) param;
			}
			return NULL;
		case RTE_SUBQUERY:
			return output_column(rte->subquery, var->varattno, queries, search);
		case RTE_JOIN:
			alias = list_nth(rte->joinaliasvars, var->varattno - 1);
			return alias != NULL ? rising(alias, queries, search) : NULL;
		case RTE_CTE:
			if (rte->self_reference || rte->ctelevelsup >= list_length(queries))
				return NULL;
			return rising_with(rte, var->varattno, list_copy_tail(queries, rte->ctelevelsup), search);
		default:
			return NULL;
	}
}

/* queries begins with the one that has the WITH clause */
static Expr *
rising_with(RangeTblEntry *rte, AttrNumber attno, List *queries, Search *search)
{
	ListCell   *lc;

	foreach(lc, linitial_node(Query, queries)->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (strcmp(cte->ctename, rte->ctename) == 0)
			return output_column(castNode(Query, cte->ctequery), attno, queries, search);
	}
	return NULL;
}

static Expr *
output_column(Query *query, AttrNumber attno, List *queries, Search *search)
{
	TargetEntry *tle = get_tle_by_resno(query->targetList, attno);

	/* a set operation has no expression of its own */
	if (tle == NULL || tle->resjunk || query->setOperations != NULL)
		return NULL;
	return rising(eval_const_expressions(NULL, (Node *) tle->expr), lcons(query, list_copy(queries)), search);
}

/* ---- closed windows ---- */

SxWindows *
sx_windows_create(SxViewInfo *info, MemoryContext parent)
{
	MemoryContext old;
	SxWindows  *w;
	TypeCacheEntry *type;
	Form_pg_attribute att;

	if (info->window_key < 0)
		return NULL;
	old = MemoryContextSwitchTo(AllocSetContextCreate(parent, "streamext windows", ALLOCSET_SMALL_SIZES));
	w = palloc0(sizeof(SxWindows));
	w->info = info;
	w->context = CurrentMemoryContext;
	w->kept = AllocSetContextCreate(w->context, "streamext closed windows", ALLOCSET_SMALL_SIZES);
	w->until = SX_TIME_NONE;
	w->known = true;
	w->session = sx_sessions_close(info);
	att = TupleDescAttr(info->desc, info->window_key);
	type = lookup_type_cache(w->session ? info->session_type->rngelemtype->type_id : att->atttypid,
							 TYPECACHE_CMP_PROC_FINFO);
	fmgr_info_cxt(type->cmp_proc_finfo.fn_oid, &w->cmp, w->context);
	w->collation = att->attcollation;
	w->byval = type->typbyval;
	w->typlen = type->typlen;

	w->econtext = CreateStandaloneExprContext();
	w->params = makeParamList(1);
	w->params->params[0].ptype = info->time.type;
	w->econtext->ecxt_param_list_info = w->params;
	if (expression_returns_set((Node *) info->window))
		w->set = ExecInitFunctionResultSet(info->window, w->econtext, NULL);
	else
		w->state = ExecInitExprWithParams(info->window, w->params);
	find_range(w);
	MemoryContextSwitchTo(old);
	return w;
}

/*
 * At the ends of a type an event time may have a window that the type cannot hold, which is an error for its
 * row, and must not be one for those who ask what a watermark closes.  A window reaches no further from its
 * times than all constants of its expression together, or the fields that date_trunc() knows.
 */
static void
find_range(SxWindows *w)
{
	bool		number = w->info->time.type == INT8OID;
	int64		reach = number ? 0 : INT64CONST(1010) * DAYS_PER_YEAR * USECS_PER_DAY;

	(void) add_reach((Node *) w->info->window, &reach);
	w->lowest = number ? PG_INT64_MIN + 1 : MIN_TIMESTAMP;
	w->highest = number ? PG_INT64_MAX - 1 : END_TIMESTAMP - 1;
	w->lowest = reach >= -(w->lowest / 2) ? 0 : w->lowest + reach;
	w->highest = reach >= w->highest / 2 ? 0 : w->highest - reach;
}

static bool
add_reach(Node *node, int64 *reach)
{
	Const	   *c = (Const *) node;
	double		length = 0;

	if (node == NULL)
		return false;
	if (IsA(node, Const) && !c->constisnull)
	{
		if (c->consttype == INTERVALOID)
		{
			Interval   *span = DatumGetIntervalP(c->constvalue);

			length = fabs((double) span->time) + (fabs((double) span->day) + 31 * fabs((double) span->month)) * USECS_PER_DAY;
		}
		else if (c->consttype == INT8OID)
			length = fabs((double) DatumGetInt64(c->constvalue));
		else if (c->consttype == INT4OID)
			length = fabs((double) DatumGetInt32(c->constvalue));
		*reach = (int64) Min(*reach + length, (double) (PG_INT64_MAX / 2));
	}
	return expression_tree_walker(node, add_reach, reach);
}

bool
sx_windows_set_time(SxWindows *w, int64 closed_until)
{
	if (closed_until == w->until)
		return false;
	w->until = closed_until;
	w->known = false;
	return true;
}

bool
sx_windows_advance(SxWindows *w, int64 from, int64 to)
{
	Datum		boundary;
	Datum		least;
	Datum		greatest;

	(void) sx_windows_set_time(w, to);
	if (!sx_windows_boundary(w, &boundary))
		return false;
	return !find_bounds(w, from, &least, &greatest) ||
		DatumGetInt32(FunctionCall2Coll(&w->cmp, w->collation, least, boundary)) < 0;
}

bool
sx_windows_boundary(SxWindows *w, Datum *boundary)
{
	if (!w->known)
	{
		Datum		least;
		Datum		greatest;

		w->bounded = find_bounds(w, w->until, &least, &greatest);
		MemoryContextReset(w->kept);
		if (w->bounded)
		{
			MemoryContext old = MemoryContextSwitchTo(w->kept);

			w->boundary = datumCopy(least, w->byval, w->typlen);
			w->last = datumCopy(greatest, w->byval, w->typlen);
			MemoryContextSwitchTo(old);
		}
		w->known = true;
	}
	*boundary = w->boundary;
	return w->bounded;
}

bool
sx_panes_boundary(SxWindows *w, Datum *boundary)
{
	Datum		window;
	bool		bounded = sx_windows_boundary(w, &window);

	*boundary = w->last;
	return bounded;
}

int
sx_windows_compare(SxWindows *w, Datum a, Datum b)
{
	return DatumGetInt32(FunctionCall2Coll(&w->cmp, w->collation, a, b));
}

bool
sx_window_is_closed(SxWindows *w, Datum key, bool isnull)
{
	Datum		boundary;

	if (isnull || !sx_windows_boundary(w, &boundary))
		return false;
	if (w->session)
		return sx_span_ends_by(w->info->session_type, key, sx_span_point(w->info->session_type, boundary));
	return DatumGetInt32(FunctionCall2Coll(&w->cmp, w->collation, key, boundary)) < 0;
}

bool
sx_windows_session_boundary(SxWindows *w, int64 *point)
{
	Datum		boundary;

	if (!sx_windows_boundary(w, &boundary))
		return false;
	*point = sx_span_point(w->info->session_type, boundary);
	return true;
}

bool
sx_windows_session_begin(SxWindows *w, int64 event_time, int64 *point)
{
	Datum		least;
	Datum		greatest;

	if (!find_bounds_of_row(w, event_time, &least, &greatest))
		return false;
	*point = sx_span_point(w->info->session_type, least);
	return true;
}

bool
sx_window_is_removed(SxWindows *w, Datum key, bool isnull)
{
	int64		point;

	if (!w->session)
		return sx_window_is_closed(w, key, isnull);
	return !isnull && sx_windows_session_boundary(w, &point) &&
		sx_span_of(w->info->session_type, key, false).lower < point;
}

bool
sx_time_is_removed(SxWindows *w, int64 event_time, bool *any)
{
	Datum		boundary;
	Datum		least;
	Datum		greatest;

	if (!w->session)
		return sx_time_is_closed(w, event_time, any);
	*any = sx_windows_boundary(w, &boundary) && find_bounds_of_row(w, event_time, &least, &greatest) &&
		DatumGetInt32(FunctionCall2Coll(&w->cmp, w->collation, least, boundary)) < 0;
	return *any;
}

bool
sx_time_is_closed(SxWindows *w, int64 event_time, bool *any)
{
	Datum		boundary;
	Datum		least;
	Datum		greatest;

	*any = false;
	if (!sx_windows_boundary(w, &boundary))
		return false;
	if (!find_bounds_of_row(w, event_time, &least, &greatest))
		return false;
	if (w->session)
	{
		TypeCacheEntry *type = w->info->session_type;
		int64		end;

		*any = !pg_add_s64_overflow(sx_span_point(type, least), w->info->session_gap, &end) &&
			end <= sx_span_point(type, boundary);
		return *any;
	}
	*any = DatumGetInt32(FunctionCall2Coll(&w->cmp, w->collation, least, boundary)) < 0;
	return DatumGetInt32(FunctionCall2Coll(&w->cmp, w->collation, greatest, boundary)) < 0;
}

/*
 * The next window is looked for where it would be if it were as long as the last one; where it is not, by
 * halving.
 */
int64
sx_windows_between(SxWindows *w, int64 from, int64 to, int64 limit)
{
	int64		count;
	int64		length = 1;
	int			n = 0;
	Datum		least;
	Datum		greatest;
	Datum		value;
	Datum		last;

	to = Min(to, w->highest);
	if (w->session || from == SX_TIME_NONE || from > to)
		return 0;
	from = Max(from, w->lowest);
	if (from > to || !sx_event_time_value(from, w->info->time.type, &value) ||
		!find_bounds_of(w, value, &least, &greatest, NULL, &n))
		return 0;
	count = n;
	last = datumCopy(greatest, w->byval, w->typlen);
	while (count < limit && from < to && is_later(w, to, last))
	{
		int64		before = from;	/* not later than the last window ... */
		int64		after = to;		/* ... and later */

		for (int64 step = length; step < to - before; step = Min(step, PG_INT64_MAX / 2) * 2)
		{
			if (is_later(w, before + step, last))
			{
				after = before + step;
				/* most windows are as long as the one before */
				if (before == from && step == length && length > 1 && !is_later(w, after - 1, last))
					before = after - 1;
				break;
			}
			before += step;
		}
		while (after - before > 1)
		{
			int64		middle = before + (after - before) / 2;

			if (is_later(w, middle, last))
				after = middle;
			else
				before = middle;
		}
		length = after - from;
		from = after;
		(void) sx_event_time_value(from, w->info->time.type, &value);
		(void) find_bounds_of(w, value, &least, &greatest, &last, &n);
		count += n;
		last = datumCopy(greatest, w->byval, w->typlen);
	}
	return Min(count, limit);
}

bool
sx_windows_reach(SxWindows *w, Datum key, bool least, bool after, int64 *event_time)
{
	int64		before = w->lowest;
	int64		reached = w->highest;

	if (reaches(w, SX_TIME_NONE, key, least, after))
	{
		*event_time = SX_TIME_NONE;
		return true;
	}
	/* windows of times before that are not known */
	if (reaches(w, before, key, least, after))
	{
		*event_time = least || after ? before : SX_TIME_NONE;
		return true;
	}
	if (!reaches(w, reached, key, least, after))
		return false;
	while (before + 1 < reached)
	{
		/* their distance may be beyond int64 */
		int64		middle = before / 2 + reached / 2 + (before % 2 + reached % 2) / 2;

		if (middle <= before)
			middle = before + 1;
		if (reaches(w, middle, key, least, after))
			reached = middle;
		else
			before = middle;
	}
	*event_time = reached;
	return true;
}

static bool
reaches(SxWindows *w, int64 event_time, Datum key, bool least, bool after)
{
	Datum		first;
	Datum		last;
	int			order;

	if (!find_bounds_of_row(w, event_time, &first, &last))
		return false;
	order = sx_windows_compare(w, least ? first : last, key);
	return after ? order > 0 : order >= 0;
}

bool
sx_windows_last(SxWindows *w, int64 event_time, Datum *window)
{
	Datum		least;

	return find_bounds_of_row(w, event_time, &least, window);
}

bool
sx_windows_of(SxWindows *w, int64 event_time, Datum *least, Datum *greatest)
{
	return find_bounds_of_row(w, event_time, least, greatest);
}

/* does a later window than this one hold that time? */
static bool
is_later(SxWindows *w, int64 event_time, Datum window)
{
	Datum		least;
	Datum		greatest;

	return find_bounds(w, event_time, &least, &greatest) && sx_windows_compare(w, greatest, window) > 0;
}

/*
 * The windows of a row's event time.  It may be the lowest there is, unlike a watermark; where its own windows
 * are beyond what can be computed, those of the next time take their place, which is never too early.
 */
static bool
find_bounds_of_row(SxWindows *w, int64 event_time, Datum *least, Datum *greatest)
{
	if (event_time == SX_TIME_NONE && w->info->time.type != INT8OID)
		return find_bounds_of(w, sx_event_time_lowest(w->info->time.type), least, greatest, NULL, NULL);
	return find_bounds(w, Max(event_time, w->lowest), least, greatest);
}

/* the windows of one event time, in the expression context's memory; false: none */
static bool
find_bounds(SxWindows *w, int64 event_time, Datum *least, Datum *greatest)
{
	Datum		value;

	if (event_time < w->lowest)
		return false;
	if (event_time != SX_TIME_END)
		event_time = Min(event_time, w->highest);
	return sx_event_time_value(event_time, w->info->time.type, &value) && find_bounds_of(w, value, least, greatest, NULL, NULL);
}

static bool
find_bounds_of(SxWindows *w, Datum value, Datum *least, Datum *greatest, const Datum *above, int *n)
{
	MemoryContext old;
	bool		isnull;
	bool		found = false;
	ExprDoneCond done;

	ResetExprContext(w->econtext);
	w->params->params[0].value = value;
	w->params->params[0].isnull = false;
	w->params->params[0].pflags = PARAM_FLAG_CONST;
	old = MemoryContextSwitchTo(w->econtext->ecxt_per_tuple_memory);
	if (w->state != NULL)
	{
		value = ExecEvalExpr(w->state, w->econtext, &isnull);
		*least = *greatest = value;
		if (n != NULL && !isnull)
			*n = above == NULL || sx_windows_compare(w, value, *above) > 0;
		MemoryContextSwitchTo(old);
		return !isnull;
	}
	if (n != NULL)
		*n = 0;
	do
	{
		value = ExecMakeFunctionResultSet(w->set, w->econtext, w->econtext->ecxt_per_tuple_memory, &isnull, &done);
		if (done == ExprEndResult || isnull)
			continue;
		value = datumCopy(value, w->byval, w->typlen);
		if (!found || DatumGetInt32(FunctionCall2Coll(&w->cmp, w->collation, value, *least)) < 0)
			*least = value;
		if (!found || DatumGetInt32(FunctionCall2Coll(&w->cmp, w->collation, value, *greatest)) > 0)
			*greatest = value;
		if (n != NULL && (above == NULL || sx_windows_compare(w, value, *above) > 0))
			(*n)++;
		found = true;
	} while (done == ExprMultipleResult);
	MemoryContextSwitchTo(old);
	return found;
}
