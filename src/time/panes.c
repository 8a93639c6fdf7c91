/*
 * panes.c
 *		Windows made of panes that close: they get rows of their own.
 */
#include "time/panes.h"

#include "access/htup_details.h"
#include "capture/event_time.h"
#include "executor/spi.h"
#include "live/merge.h"
#include "miscadmin.h"
#include "query/panes.h"
#include "query/window.h"
#include "query/window_key.h"
#include "utils/memutils.h"

/* rows fetched at a time */
#define FETCH_ROWS	1000

typedef struct Pane
{
	Datum		start;
	MinimalTuple states;		/* with the keys */
	MinimalTuple suffix;		/* together with later ones, see put_windows() */
} Pane;

/* Windows that get rows of their own */
typedef struct Closing
{
	SxViewInfo *info;
	FuncExpr   *hop;
	SxWindows  *windows;
	bool		first_of_all;	/* from the beginning of time; else ... */
	Datum		begin;			/* ... from this window */
	Datum		end;			/* to before this one */
	/* the present group */
	MinimalTuple keys;			/* NULL: there is none yet */
	int			first;			/* its panes, see put_windows() */
	int			middle;
	int			next;
	MinimalTuple back;
	Datum		window;			/* to be put together next */
	bool		any;			/* there is one */
	bool		done;			/* the others are open */
	Pane	   *panes;
	int			maxpanes;
	MemoryContext context;
	MemoryContext scratch;
	MemoryContext group_context;	/* rows of the present group */
	TupleTableSlot *row;		/* read from the table */
	TupleTableSlot *sorted;		/* or sorted */
	TupleTableSlot *a;
	TupleTableSlot *b;
	TupleTableSlot *combined;
	Tuplestorestate *closed;
} Closing;

static void read_panes(Closing *c, const char *sql, Oid *types, Datum *bounds);
static void begin_closing(Closing *c, SxViewInfo *info);
static Tuplestorestate *end_closing(Closing *c);
static void take_pane(Closing *c, TupleTableSlot *row);
static bool same_group(Closing *c, TupleTableSlot *row);
static void make_room(Closing *c);
static void end_group(Closing *c);
static void put_windows(Closing *c, const Datum *coming);
static void drop_pane(Closing *c);
static void set_back(Closing *c, MinimalTuple back);
static MinimalTuple combine(Closing *c, MinimalTuple a, MinimalTuple b);
static void put_window(Closing *c, Datum window, MinimalTuple states);
static Tuplestorestate *late_rows(SxViewInfo *info, SxWindows *windows, Tuplestorestate *rows);

int64
sx_panes_closed_until(const SxViewInfo *info, int64 watermark, int64 before)
{
	if (info->closed_key < 0 || info->window_key < 0)
		return before;
	return Max(before, sx_event_time_minus(watermark, info->time.lateness));
}

void
sx_panes_merge_late(SxViewInfo *info, Tuplestorestate *rows, int64 closed_until, int64 removed_until, SxWritten *written)
{
	Closing		c = {0};
	Tuplestorestate *late;
	Tuplesortstate *sort;

	if (info->closed_key < 0)
		return;
	written->rows = NULL;
	c.windows = sx_windows_create(info, CurrentMemoryContext);
	(void) sx_windows_set_time(c.windows, removed_until);
	c.first_of_all = !sx_windows_boundary(c.windows, &c.begin);
	(void) sx_windows_set_time(c.windows, closed_until);
	if (!sx_windows_boundary(c.windows, &c.end))
		return;
	late = late_rows(info, c.windows, rows);
	if (late == NULL)
		return;

	begin_closing(&c, info);
	sort = sx_sort_rows(info, late, info->window_key, true, work_mem, c.sorted);
	while (tuplesort_gettupleslot(sort, true, false, c.sorted, NULL))
		take_pane(&c, c.sorted);
	end_group(&c);
	tuplesort_end(sort);
	tuplestore_end(late);
	written->rows = end_closing(&c);
	sx_merge_into_table(info, written->rows, NULL);
}

/* panes with windows that have rows of their own; NULL: there is none */
static Tuplestorestate *
late_rows(SxViewInfo *info, SxWindows *windows, Tuplestorestate *rows)
{
	TupleTableSlot *pane = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	Tuplestorestate *late = NULL;
	Datum		boundary;

	(void) sx_panes_boundary(windows, &boundary);
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, pane))
	{
		bool		isnull;
		Datum		start = slot_getattr(pane, info->window_key + 1, &isnull);

		CHECK_FOR_INTERRUPTS();
		if (isnull || sx_windows_compare(windows, start, boundary) >= 0)
			continue;
		if (late == NULL)
			late = tuplestore_begin_heap(false, false, work_mem);
		tuplestore_puttupleslot(late, pane);
	}
	ExecDropSingleTupleTableSlot(pane);
	return late;
}

void
sx_panes_close(SxViewInfo *info, int64 from, int64 to)
{
	Closing		c = {0};
	Tuplestorestate *closed;
	Oid			types[2];
	Datum		bounds[2] = {0};

	if (info->closed_key < 0 || info->window_key < 0 || to <= from)
		return;
	c.windows = sx_windows_create(info, CurrentMemoryContext);
	(void) sx_windows_set_time(c.windows, from);
	c.first_of_all = !sx_windows_boundary(c.windows, &c.begin);
	if (!sx_windows_advance(c.windows, from, to))
		return;
	(void) sx_windows_boundary(c.windows, &c.end);
	(void) sx_panes_boundary(c.windows, &bounds[0]);
	bounds[1] = c.begin;
	types[0] = types[1] = TupleDescAttr(info->desc, info->window_key)->atttypid;

	begin_closing(&c, info);
	read_panes(&c, sx_panes_in_order(info, c.first_of_all), types, bounds);
	closed = end_closing(&c);
	sx_merge_into_table(info, closed, NULL);
	tuplestore_end(closed);
}

/* ---- windows of panes ---- */

static void
begin_closing(Closing *c, SxViewInfo *info)
{
	c->info = info;
	c->hop = (FuncExpr *) info->window;
	c->context = AllocSetContextCreate(CurrentMemoryContext, "streamext closing windows", ALLOCSET_DEFAULT_SIZES);
	c->scratch = AllocSetContextCreate(c->context, "streamext states", ALLOCSET_DEFAULT_SIZES);
	c->group_context = AllocSetContextCreate(c->context, "streamext panes of a group", ALLOCSET_DEFAULT_SIZES);
	c->row = MakeSingleTupleTableSlot(info->desc, &TTSOpsVirtual);
	c->a = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	c->b = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	c->sorted = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	c->combined = MakeSingleTupleTableSlot(info->desc, &TTSOpsVirtual);
	c->closed = tuplestore_begin_heap(false, false, work_mem);
}

/* what there is to be written */
static Tuplestorestate *
end_closing(Closing *c)
{
	for (int i = 0; i < c->info->naggs; i++)
		sx_agg_reset(c->info->aggs[i]);
	ExecDropSingleTupleTableSlot(c->row);
	ExecDropSingleTupleTableSlot(c->a);
	ExecDropSingleTupleTableSlot(c->b);
	ExecDropSingleTupleTableSlot(c->sorted);
	ExecDropSingleTupleTableSlot(c->combined);
	MemoryContextDelete(c->context);
	return c->closed;
}

/* panes come group by group, in the order of time */
static void
read_panes(Closing *c, const char *sql, Oid *types, Datum *bounds)
{
	Portal		portal;

	SPI_connect();
	/* not read-only: it sees what this transaction has written */
	portal = SPI_cursor_open_with_args(NULL, sql, c->first_of_all ? 1 : 2, types, bounds, NULL, false, 0);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			CHECK_FOR_INTERRUPTS();
			ExecClearTuple(c->row);
			heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, c->row->tts_values, c->row->tts_isnull);
			ExecStoreVirtualTuple(c->row);
			take_pane(c, c->row);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	end_group(c);
	SPI_cursor_close(portal);
	SPI_finish();
}

static void
take_pane(Closing *c, TupleTableSlot *row)
{
	Datum		start;
	MemoryContext old;
	Pane	   *pane;

	CHECK_FOR_INTERRUPTS();
	slot_getallattrs(row);
	start = row->tts_values[c->info->window_key];
	if (c->keys != NULL && !same_group(c, row))
		end_group(c);
	put_windows(c, &start);
	if (c->done)
		return;

	old = MemoryContextSwitchTo(c->group_context);
	if (c->keys == NULL)
		c->keys = sx_flatten_row(c->info, row);
	if (c->next == c->maxpanes)
		make_room(c);
	pane = &c->panes[c->next++];
	pane->start = start;
	pane->states = pane->suffix = sx_flatten_row(c->info, row);
	set_back(c, combine(c, c->back, pane->states));
	if (!c->any)
	{
		/* the first window that it is part of */
		Datum	   *starts;

		(void) sx_hop_points(c->hop, start, false, &starts);
		c->window = starts[0];
		if (!c->first_of_all && sx_windows_compare(c->windows, c->window, c->begin) < 0)
			c->window = c->begin;
		c->any = true;
		pfree(starts);
	}
	MemoryContextSwitchTo(old);
}

/* at the end of the array: by those that are not needed any more, or a larger one */
static void
make_room(Closing *c)
{
	if (c->first > c->maxpanes / 2)
	{
		c->next -= c->first;
		c->middle -= c->first;
		memmove(c->panes, c->panes + c->first, sizeof(Pane) * c->next);
		c->first = 0;
		return;
	}
	c->maxpanes = Max(64, c->maxpanes * 2);
	c->panes = c->panes == NULL ? MemoryContextAlloc(c->context, sizeof(Pane) * c->maxpanes) :
		repalloc_huge(c->panes, sizeof(Pane) * c->maxpanes);
}

static bool
same_group(Closing *c, TupleTableSlot *row)
{
	SxViewInfo *info = c->info;
	bool		same = true;

	ExecStoreMinimalTuple(c->keys, c->a, false);
	for (int i = 0; i < info->closed_key && same; i++)
	{
		bool		isnull;
		Datum		value;

		if (i == info->window_key)
			continue;
		value = slot_getattr(c->a, i + 1, &isnull);
		same = isnull == row->tts_isnull[i] &&
			(isnull || DatumGetBool(FunctionCall2Coll(&info->eqfns[i], info->collations[i], value,
													  row->tts_values[i])));
	}
	ExecClearTuple(c->a);
	return same;
}

static void
end_group(Closing *c)
{
	put_windows(c, NULL);
	c->keys = NULL;
	c->back = NULL;
	c->first = c->middle = c->next = 0;
	c->any = c->done = false;
	MemoryContextReset(c->group_context);
}

/*
 * The group's windows that end before the pane that comes now; or all.  Three combinations each, however many
 * panes a window has: panes are a queue, of which those from `middle` on are summed up in `back` as they come.
 * When the part before it is used up, all become that part, each summed up with those after it.
 */
static void
put_windows(Closing *c, const Datum *coming)
{
	MemoryContext old = MemoryContextSwitchTo(c->group_context);

	while (c->any && !c->done)
	{
		Datum		last;
		Datum		after;
		bool		more;

		CHECK_FOR_INTERRUPTS();
		if (sx_windows_compare(c->windows, c->window, c->end) >= 0)
		{
			c->done = true;
			break;
		}
		more = sx_hop_window(c->hop, c->window, &last, &after);
		if (coming != NULL && sx_windows_compare(c->windows, last, *coming) >= 0)
			break;
		while (c->first < c->next && sx_windows_compare(c->windows, c->panes[c->first].start, c->window) < 0)
			drop_pane(c);
		if (c->first == c->next)
			c->any = false;
		else
		{
			MinimalTuple suffix = c->first < c->middle ? c->panes[c->first].suffix : NULL;
			MinimalTuple all = combine(c, suffix, c->back);

			put_window(c, c->window, all);
			if (all != suffix && all != c->back)
				pfree(all);
			c->window = after;
			c->any = more;
		}
	}
	MemoryContextSwitchTo(old);
}

/* the first of the queue */
static void
drop_pane(Closing *c)
{
	Pane	   *pane = &c->panes[c->first];

	if (c->first == c->middle)
	{
		for (int i = c->next - 2; i >= c->first; i--)
			c->panes[i].suffix = combine(c, c->panes[i].states, c->panes[i + 1].suffix);
		set_back(c, NULL);
		c->middle = c->next;
	}
	if (pane->suffix != pane->states)
		pfree(pane->suffix);
	pfree(pane->states);
	c->first++;
}

/* it may be the states of the first pane that it sums up */
static void
set_back(Closing *c, MinimalTuple back)
{
	if (c->back != NULL && c->back != back && c->back != c->panes[c->middle].states)
		pfree(c->back);
	c->back = back;
}

/* either may be NULL: nothing */
static MinimalTuple
combine(Closing *c, MinimalTuple a, MinimalTuple b)
{
	MemoryContext old;
	MinimalTuple result;

	if (a == NULL || b == NULL)
		return a == NULL ? b : a;
	MemoryContextReset(c->scratch);
	old = MemoryContextSwitchTo(c->scratch);
	ExecStoreMinimalTuple(a, c->a, false);
	ExecStoreMinimalTuple(b, c->b, false);
	sx_combine_rows(c->info, c->a, c->b, c->combined);
	MemoryContextSwitchTo(old);
	result = sx_flatten_row(c->info, c->combined);
	ExecClearTuple(c->combined);
	ExecClearTuple(c->a);
	ExecClearTuple(c->b);
	return result;
}

static void
put_window(Closing *c, Datum window, MinimalTuple states)
{
	ExecStoreMinimalTuple(states, c->a, false);
	slot_getallattrs(c->a);
	ExecClearTuple(c->combined);
	memcpy(c->combined->tts_values, c->a->tts_values, sizeof(Datum) * c->info->desc->natts);
	memcpy(c->combined->tts_isnull, c->a->tts_isnull, sizeof(bool) * c->info->desc->natts);
	c->combined->tts_values[c->info->window_key] = window;
	c->combined->tts_values[c->info->closed_key] = BoolGetDatum(true);
	ExecStoreVirtualTuple(c->combined);
	tuplestore_puttupleslot(c->closed, c->combined);
	ExecClearTuple(c->combined);
	ExecClearTuple(c->a);
}
