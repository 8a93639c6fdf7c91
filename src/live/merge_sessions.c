/*
 * merge_sessions.c
 *		Writing sessions into the materialized table, united with what is there.
 *
 * The rows come in a tuplestore, in any order, and may be as many as a whole history's: they are sorted
 * by group and time and gone through once.  Rows that overlap become one.  When the next row does
 * not overlap any more, the stored sessions that overlap what there is are looked up, by the index;
 * they may reach on to the next row, so then it is tried again.  (They cannot reach back to what was
 * written before: that had taken up all stored sessions that it overlapped, and stored sessions do
 * not overlap each other.)  What has come together
 *	 - with no stored session, is inserted;
 *	 - within one, is added to it by the upsert of merge.c, which does not touch the index;
 *	 - otherwise takes the place of the sessions it has taken up: those are deleted, by ctid, and
 *	   one row is inserted.
 * Deletes and inserts go by chunks of work_mem.  They do not change what the lookups have yet to find:
 * later rows overlap nothing that was deleted or inserted.  After each chunk there is a new snapshot all
 * the same: a lookup goes back in the index to the first session that it sees, and would go through
 * all that were just written if it did not see them.
 *
 * Rows without a time are equal like other keys.  Everything is part of the caller's transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

#include "live/key_scan.h"
#include "live/merge.h"
#include "testing/stop_points.h"

/* aggregates' scratch memory is given back after this many combined rows */
#define COMBINES_PER_RESET	1000

typedef struct SessionMerge
{
	SxViewInfo *info;
	Relation	mat;
	TupleTableSlot *table_slot;
	Snapshot	snapshot;
	SxKeyScan  *scan;			/* NULL: the table was empty at the beginning */
	MemoryContext scan_context; /* what the scan remembers */
	MemoryContext context;		/* the session at hand */
	MemoryContext scratch;		/* reset with every row */
	int			combines;
	/* the session at hand; without rows: NULL */
	MinimalTuple rows;			/* of the store, combined */
	MinimalTuple stored;		/* of the table, combined */
	SxSpan		span;			/* of both */
	SxSpan		stored_span;
	int64		looked_up;		/* stored sessions that begin before are known */
	ItemPointerData *taken;		/* where the stored ones are */
	int			ntaken;
	int			maxtaken;
	int64		first_end;		/* of those; PG_INT64_MAX: none */
	/* what is to be written */
	SxWritten  *written;		/* or NULL; in the caller's context */
	MemoryContext caller;
	Tuplestorestate *store;
	ItemPointerData *ctids;		/* to be deleted */
	int			ndeleted;
	int			maxdeleted;
	Size		nbytes;
	TupleTableSlot *row;		/* minimal: a row of the store */
	TupleTableSlot *a;
	TupleTableSlot *b;
	TupleTableSlot *sum;		/* virtual */
} SessionMerge;

static bool has_rows(SessionMerge *m);
static void begin_lookups(SessionMerge *m);
static void end_lookups(SessionMerge *m);
static void add_row(SessionMerge *m, TupleTableSlot *row);
static bool same_session(SessionMerge *m, TupleTableSlot *row, const SxSpan *span);
static MinimalTuple combine(SessionMerge *m, MinimalTuple tuple, TupleTableSlot *row);
static bool look_up(SessionMerge *m);
static void take_stored(void *arg, TupleTableSlot *row, const SxSpan *span);
static void finish_session(SessionMerge *m);
static void put_row(SessionMerge *m, TupleTableSlot *row);
static void write_chunk(SessionMerge *m);

void
sx_merge_sessions(SxViewInfo *info, Tuplestorestate *rows, SxWritten *written)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "streamext merge sessions", ALLOCSET_DEFAULT_SIZES);
	Relation	mat = table_open(info->def->matid, RowExclusiveLock);
	Tuplesortstate *sort;
	SessionMerge m = {0};

	if (written != NULL)
		written->rows = tuplestore_begin_heap(false, false, work_mem);
	m.written = written;
	m.caller = caller;
	m.first_end = PG_INT64_MAX;
	MemoryContextSwitchTo(context);
	m.info = info;
	m.scan_context = AllocSetContextCreate(context, "streamext merge lookups", ALLOCSET_DEFAULT_SIZES);
	m.context = AllocSetContextCreate(context, "streamext merge session", ALLOCSET_DEFAULT_SIZES);
	m.scratch = AllocSetContextCreate(context, "streamext merge scratch", ALLOCSET_DEFAULT_SIZES);
	m.mat = mat;
	m.table_slot = table_slot_create(mat, NULL);
	if (has_rows(&m))
		begin_lookups(&m);
	m.row = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	m.a = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	m.b = MakeSingleTupleTableSlot(info->desc, &TTSOpsMinimalTuple);
	m.sum = MakeSingleTupleTableSlot(info->desc, &TTSOpsVirtual);
	m.store = tuplestore_begin_heap(false, false, work_mem);
	m.maxdeleted = 64;
	m.ctids = palloc(sizeof(ItemPointerData) * m.maxdeleted);

	sort = sx_sort_rows(info, rows, info->session_key, true, work_mem, m.row);
	MemoryContextSwitchTo(m.scratch);
	while (tuplesort_gettupleslot(sort, true, false, m.row, NULL))
	{
		CHECK_FOR_INTERRUPTS();
		add_row(&m, m.row);
		MemoryContextReset(m.scratch);
	}
	if (m.rows != NULL)
		finish_session(&m);
	tuplesort_end(sort);
	write_chunk(&m);

	tuplestore_end(m.store);
	if (m.scan != NULL)
		end_lookups(&m);
	ExecDropSingleTupleTableSlot(m.row);
	ExecDropSingleTupleTableSlot(m.a);
	ExecDropSingleTupleTableSlot(m.b);
	ExecDropSingleTupleTableSlot(m.sum);
	ExecDropSingleTupleTableSlot(m.table_slot);
	for (int i = 0; i < info->naggs; i++)
		sx_agg_reset(info->aggs[i]);
	table_close(mat, NoLock);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/* a new view's table has none, and what is written here overlaps nothing that follows */
static bool
has_rows(SessionMerge *m)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(m->mat, snapshot, 0, NULL);
	bool		result = table_scan_getnextslot(scan, ForwardScanDirection, m->table_slot);

	ExecClearTuple(m->table_slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	return result;
}

static void
begin_lookups(SessionMerge *m)
{
	MemoryContext old = MemoryContextSwitchTo(m->scan_context);

	m->snapshot = RegisterSnapshot(GetLatestSnapshot());
	m->scan = sx_key_scan_begin(m->info, m->mat, m->snapshot, m->table_slot);
	MemoryContextSwitchTo(old);
}

static void
end_lookups(SessionMerge *m)
{
	ExecClearTuple(m->table_slot);
	sx_key_scan_end(m->scan);
	m->scan = NULL;
	UnregisterSnapshot(m->snapshot);
	MemoryContextReset(m->scan_context);
}

static void
add_row(SessionMerge *m, TupleTableSlot *row)
{
	SxSpan		span = sx_row_span(m->info, row);
	MemoryContext old;

	if (m->rows != NULL)
	{
		if (same_session(m, row, &span) || (look_up(m) && same_session(m, row, &span)))
		{
			m->rows = combine(m, m->rows, row);
			m->span = sx_span_union(&m->span, &span);
			return;
		}
		finish_session(m);
	}
	old = MemoryContextSwitchTo(m->context);
	m->rows = ExecCopySlotMinimalTuple(row);
	MemoryContextSwitchTo(old);
	m->span = span;
	m->looked_up = span.lower;
}

static bool
same_session(SessionMerge *m, TupleTableSlot *row, const SxSpan *span)
{
	ExecStoreMinimalTuple(m->rows, m->a, false);
	return sx_keys_equal(m->info, m->a, row) && sx_spans_meet(&m->span, span);
}

/* in place of the tuple, whose keys it keeps */
static MinimalTuple
combine(SessionMerge *m, MinimalTuple tuple, TupleTableSlot *row)
{
	MinimalTuple result;
	MemoryContext old;

	ExecStoreMinimalTuple(tuple, m->b, false);
	sx_combine_rows(m->info, m->b, row, m->sum);
	old = MemoryContextSwitchTo(m->context);
	result = sx_flatten_row(m->info, m->sum);
	MemoryContextSwitchTo(old);
	ExecClearTuple(m->sum);
	ExecClearTuple(m->b);
	pfree(tuple);
	if (++m->combines >= COMBINES_PER_RESET)
	{
		for (int i = 0; i < m->info->naggs; i++)
			sx_agg_reset(m->info->aggs[i]);
		m->combines = 0;
	}
	return result;
}

/* the stored sessions that overlap the one at hand; false: they were looked up already */
static bool
look_up(SessionMerge *m)
{
	MemoryContext old;

	if (m->span.isnull || m->scan == NULL || m->looked_up >= m->span.upper)
		return false;
	ExecStoreMinimalTuple(m->rows, m->a, false);
	old = MemoryContextSwitchTo(m->scan_context);
	sx_key_scan_sessions(m->scan, m->a, m->looked_up, m->span.upper, take_stored, m);
	MemoryContextSwitchTo(old);
	/* nothing begins within a stored session */
	m->looked_up = m->span.upper;
	return true;
}

/* runs where the scan keeps what it remembers */
static void
take_stored(void *arg, TupleTableSlot *row, const SxSpan *span)
{
	SessionMerge *m = arg;
	MemoryContext old = MemoryContextSwitchTo(m->context);

	if (m->ntaken == m->maxtaken)
	{
		m->maxtaken = Max(8, 2 * m->maxtaken);
		m->taken = m->taken ? repalloc_huge(m->taken, sizeof(ItemPointerData) * m->maxtaken) :
			palloc(sizeof(ItemPointerData) * m->maxtaken);
	}
	m->taken[m->ntaken++] = row->tts_tid;
	if (m->stored == NULL)
	{
		m->stored = ExecCopySlotMinimalTuple(row);
		m->stored_span = *span;
	}
	else
	{
		MemoryContextSwitchTo(m->scratch);
		m->stored = combine(m, m->stored, row);
	}
	m->span = sx_span_union(&m->span, span);
	m->first_end = Min(m->first_end, span->upper);
	MemoryContextSwitchTo(old);
}

/* what has come together goes to be written */
static void
finish_session(SessionMerge *m)
{
	int			key = m->info->session_key;

	(void) look_up(m);
	ExecStoreMinimalTuple(m->rows, m->a, false);
	if (m->ntaken == 0)
		put_row(m, m->a);
	else if (m->ntaken == 1 && m->span.lower == m->stored_span.lower && m->span.upper == m->stored_span.upper)
	{
		/* the upsert finds it by its session */
		slot_getallattrs(m->a);
		ExecClearTuple(m->sum);
		memcpy(m->sum->tts_values, m->a->tts_values, sizeof(Datum) * m->info->desc->natts);
		memcpy(m->sum->tts_isnull, m->a->tts_isnull, sizeof(bool) * m->info->desc->natts);
		m->sum->tts_values[key] = sx_span_range(m->info->session_type, &m->stored_span);
		ExecStoreVirtualTuple(m->sum);
		put_row(m, m->sum);
		ExecClearTuple(m->sum);
	}
	else
	{
		for (int i = 0; i < m->ntaken; i++)
		{
			if (m->ndeleted == m->maxdeleted)
			{
				m->maxdeleted *= 2;
				m->ctids = repalloc_huge(m->ctids, sizeof(ItemPointerData) * m->maxdeleted);
			}
			m->ctids[m->ndeleted++] = m->taken[i];
		}
		m->stored = combine(m, m->stored, m->a);
		ExecStoreMinimalTuple(m->stored, m->b, false);
		put_row(m, m->b);
		ExecClearTuple(m->b);
	}
	ExecClearTuple(m->a);
	m->nbytes += m->rows->t_len;
	m->nbytes += m->ntaken * sizeof(ItemPointerData);
	m->rows = NULL;
	m->stored = NULL;
	m->taken = NULL;
	m->ntaken = 0;
	m->maxtaken = 0;
	m->first_end = PG_INT64_MAX;
	MemoryContextReset(m->context);
	if (m->nbytes > (Size) work_mem * 1024)
	{
		bool		looking = m->scan != NULL;

		if (looking)
			end_lookups(m);
		write_chunk(m);
		if (looking)
			begin_lookups(m);
	}
}

/* its key is the one that the table will have */
static void
put_row(SessionMerge *m, TupleTableSlot *row)
{
	SxWritten  *w = m->written;

	tuplestore_puttupleslot(m->store, row);
	if (w == NULL)
		return;
	tuplestore_puttupleslot(w->rows, row);
	if (w->n == w->max)
	{
		w->max = Max(64, 2 * w->max);
		w->taken = w->taken == NULL ? MemoryContextAllocHuge(m->caller, sizeof(int64) * w->max) :
			repalloc_huge(w->taken, sizeof(int64) * w->max);
	}
	w->taken[w->n++] = m->first_end;
}

static void
write_chunk(SessionMerge *m)
{
	if (m->ndeleted > 0)
	{
		Datum	   *ctids = MemoryContextAllocHuge(m->scratch, sizeof(Datum) * m->ndeleted);

		for (int i = 0; i < m->ndeleted; i++)
			ctids[i] = PointerGetDatum(&m->ctids[i]);
		sx_merge_delete(m->info, ctids, m->ndeleted);
		SX_STOP_POINT_OF(merge_deleted, m->info->def->viewid);
		m->ndeleted = 0;
	}
	if (tuplestore_tuple_count(m->store) > 0)
		sx_merge_write(m->info, m->store, NULL);
	tuplestore_clear(m->store);
	m->nbytes = 0;
}
