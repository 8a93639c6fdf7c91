/*
 * consumer_early.c
 *		Large transactions: their rows are computed while they are still open, so that little
 *		is left to do when they commit.
 *
 * For each part of an open transaction (by the raw id of its records, because a
 * sub-transaction may still be rolled back) and each live view, partial rows are collected
 * in a generation of their own, which no reader knows.  The addresses stay and are marked.
 * At commit the collected rows are added to the view, and marked addresses are left out of
 * its batch; a rollback drops them.
 *
 * This is only an optimization: whenever anything is in the way (an error, memory, a lock, a
 * view that joined later) the part is dropped, and the marked addresses are computed at
 * commit like all others.
 */
#include "worker/consumer_internal.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "time/watermark.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* not worth it below; and what one cycle takes, so that others need not wait long */
#define EARLY_ROWS		10000
#define EARLY_BATCH		40000

typedef struct EarlyPart
{
	LiveView   *lv;
	uint64		incarnation;
	bool		failed;
	SxView	   *hidden;			/* holds the generation; in no registry */
	SxLiveWriter *writer;
	SxViewInfo *info;			/* lv's, for as long as it is live */
	SxBatchTimes times;			/* of its rows */
} EarlyPart;

typedef struct Early
{
	TransactionId xid;			/* hash key */
	uint32		done;			/* runs computed */
	List	   *parts;			/* of EarlyPart * */
	bool		found;			/* by the sweep */
} Early;

static HTAB *earlies = NULL;

static void compute_more(void *arg, TransactionId xid, SxReady *part);
static void share_rows(SxBatch *batch, List *parts);
static void add_times(SxBatchTimes *to, const SxBatchTimes *more);
static Early *get_early(Consumer *c, TransactionId xid);
static void add_part(Consumer *c, Early *e, LiveView *lv);
static bool part_is_good(EarlyPart *p);
static void drop_part(Consumer *c, EarlyPart *p);
static void drop_early(Consumer *c, Early *e);
static EarlyPart *find_part(TransactionId xid, LiveView *lv);
static void sweep(Consumer *c);
static bool apply_early_row(void *arg, TupleTableSlot *row);
static bool reject_early(void *arg, const char *reason, const char *sqlstate, const char *row_json,
						 const char *message);
static void add_row(void *arg, MinimalTuple tuple);

/* once a cycle, after WAL was read; true if there is a transaction to follow closely */
bool
sx_consumer_early(Consumer *c)
{
	bool		any = false;
	ListCell   *lc;

	if (earlies == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(TransactionId);
		ctl.entrysize = sizeof(Early);
		earlies = hash_create("streamext early transactions", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	if (hash_get_num_entries(earlies) > 0)
		sweep(c);
	sx_pending_large(c->tail->capture->pending, EARLY_ROWS, compute_more, c);
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		if (lv->over_budget && lv->shared->state == SX_VIEW_LIVE)
			sx_consumer_slow(c, lv);
		lv->over_budget = false;
	}
	any = hash_get_num_entries(earlies) > 0;
	return any;
}

static void
compute_more(void *arg, TransactionId xid, SxReady *part)
{
	Consumer   *c = arg;
	Early	   *e = get_early(c, xid);
	SxReady		slice = *part;
	uint64		nrows = 0;
	uint32		end;
	SxBatch    *batch = NULL;
	ListCell   *lc;
	bool		any = false;

	for (end = e->done; end < part->nruns && nrows < EARLY_BATCH; end++)
		nrows += part->runs[end].count;
	if (nrows < EARLY_ROWS)
		return;

	slice.runs = part->runs + e->done;
	slice.nruns = end - e->done;
	slice.nrows = nrows;
	slice.early = false;
	foreach(lc, e->parts)
	{
		EarlyPart  *p = lfirst(lc);
		SxReady    *ready = &slice;
		SxProcess	process;
		bool		ok;

		if (p->failed)
			continue;
		if (!part_is_good(p) || p->lv->over_budget)
		{
			drop_part(c, p);
			continue;
		}
		if (batch == NULL || batch->stream != p->lv->def->streamid)
		{
			if (batch != NULL)
				sx_consumer_end_share(batch);
			batch = sx_batch_create(c->tail->capture->map, p->lv->def->streamid, &ready, 1, false);
			sx_ask_times(batch, &p->lv->time);
			share_rows(batch, e->parts);
		}
		if (batch->nrows == 0)
		{
			any = true;
			continue;
		}

		memset(&process, 0, sizeof(process));
		process.info = p->lv->info;
		process.plan = p->lv->plan;
		process.apply = apply_early_row;
		process.reject = reject_early;
		process.arg = p;
		process.context = c->turn;
		process.give_up = true;
		sx_consumer_begin_run(p->lv, batch->nrows);
		ok = sx_process_batch(&process, batch) == SX_PROCESS_OK;
		if (!sx_consumer_end_run(p->lv, batch->nrows))
		{
			/* it leaves when nobody goes through its parts any more */
			p->lv->over_budget = true;
			ok = false;
		}
		if (ok)
		{
			any = true;
			if (batch->times)
				add_times(&p->times, batch->times);
		}
		else
			drop_part(c, p);
	}
	if (batch != NULL)
		sx_consumer_end_share(batch);
	if (!any)
	{
		/* nobody profits: look again when there are more rows, perhaps for new views */
		return;
	}

	for (uint32 i = e->done; i < end; i++)
		part->runs[i].file |= SX_RUN_EARLY;
	part->early = true;
	e->done = end;
}

/* the other views of its stream take it, too */
static void
share_rows(SxBatch *batch, List *parts)
{
	List	   *views = NIL;
	ListCell   *lc;

	foreach(lc, parts)
	{
		EarlyPart  *p = lfirst(lc);

		if (part_is_good(p) && p->lv->def->streamid == batch->stream)
			views = lappend(views, p->lv);
	}
	sx_consumer_begin_share(batch, views);
	list_free(views);
}

static void
add_times(SxBatchTimes *to, const SxBatchTimes *more)
{
	to->first = Min(to->first, more->first);
	to->last = Max(to->last, more->last);
	to->future += more->future;
}

static Early *
get_early(Consumer *c, TransactionId xid)
{
	bool		found;
	Early	   *e = hash_search(earlies, &xid, HASH_ENTER, &found);
	ListCell   *lc;

	if (found)
		return e;
	e->done = 0;
	e->parts = NIL;
	foreach(lc, c->views)
	{
		LiveView   *lv = lfirst(lc);

		/* a lookup row of the same transaction is not visible before it commits */
		if (lv->shared->state == SX_VIEW_LIVE && lv->writer && !lv->has_lookups)
			add_part(c, e, lv);
	}
	return e;
}

static void
add_part(Consumer *c, Early *e, LiveView *lv)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	EarlyPart  *p = palloc0(sizeof(EarlyPart));

	p->lv = lv;
	p->incarnation = lv->shared->incarnation;
	p->times.first = SX_TIME_END;
	p->times.last = SX_TIME_NONE;
	p->hidden = palloc0(sizeof(SxView));
	if (sx_gen_open(c->db, p->hidden, 1024))
		p->writer = sx_live_writer_create(c->db, p->hidden, lv->info, TopMemoryContext);
	else
		p->failed = true;
	e->parts = lappend(e->parts, p);
	MemoryContextSwitchTo(old);
}

/* the view has been live without a break since the part began */
static bool
part_is_good(EarlyPart *p)
{
	return !p->failed && p->lv->shared->state == SX_VIEW_LIVE && p->lv->info != NULL &&
		p->lv->shared->incarnation == p->incarnation;
}

/* its memory goes, the entry stays so that the addresses it lacks are computed at commit */
static void
drop_part(Consumer *c, EarlyPart *p)
{
	p->failed = true;
	if (p->writer)
	{
		if (sx_live_has_prepared(p->writer))
			sx_live_discard(p->writer);
		sx_live_writer_destroy(p->writer);
		p->writer = NULL;
	}
	if (p->hidden->open_gen != 0)
		sx_gen_drop_all(c->db, p->hidden);
}

static void
drop_early(Consumer *c, Early *e)
{
	ListCell   *lc;

	foreach(lc, e->parts)
	{
		EarlyPart  *p = lfirst(lc);

		drop_part(c, p);
		pfree(p->hidden);
		pfree(p);
	}
	list_free(e->parts);
	hash_search(earlies, &e->xid, HASH_REMOVE, NULL);
}

/* parts that were rolled back are neither open nor ready */
static void
sweep(Consumer *c)
{
	SxPending  *pending = c->tail->capture->pending;
	HASH_SEQ_STATUS seq;
	Early	   *e;
	dlist_iter	iter;

	hash_seq_init(&seq, earlies);
	while ((e = hash_seq_search(&seq)) != NULL)
		e->found = sx_pending_find(pending, e->xid) != NULL;

	dlist_foreach(iter, sx_pending_ready(pending))
	{
		SxReady    *r = dlist_container(SxReady, node, iter.cur);
		TransactionId last = InvalidTransactionId;

		for (uint32 i = 0; r->early && i < r->nruns; i++)
		{
			if ((r->runs[i].file & SX_RUN_EARLY) == 0 || r->runs[i].xid == last)
				continue;
			last = r->runs[i].xid;
			e = hash_search(earlies, &last, HASH_FIND, NULL);
			if (e)
				e->found = true;
		}
	}

	hash_seq_init(&seq, earlies);
	while ((e = hash_seq_search(&seq)) != NULL)
		if (!e->found)
			drop_early(c, e);
}

/* memory is short: everything that only saves time goes first */
void
sx_consumer_drop_early(Consumer *c)
{
	HASH_SEQ_STATUS seq;
	Early	   *e;

	if (earlies == NULL)
		return;
	hash_seq_init(&seq, earlies);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		ListCell   *lc;

		foreach(lc, e->parts)
			drop_part(c, lfirst(lc));
	}
}

/* before a view's info goes away */
void
sx_consumer_drop_early_of(Consumer *c, LiveView *lv)
{
	HASH_SEQ_STATUS seq;
	Early	   *e;

	if (earlies == NULL)
		return;
	hash_seq_init(&seq, earlies);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		ListCell   *lc;

		foreach(lc, e->parts)
		{
			EarlyPart  *p = lfirst(lc);

			if (p->lv == lv)
			{
				drop_part(c, p);
				p->lv = NULL;
			}
		}
	}
}

static EarlyPart *
find_part(TransactionId xid, LiveView *lv)
{
	Early	   *e = hash_search(earlies, &xid, HASH_FIND, NULL);
	ListCell   *lc;

	if (e == NULL)
		return NULL;
	foreach(lc, e->parts)
	{
		EarlyPart  *p = lfirst(lc);

		if (p->lv == lv && part_is_good(p))
			return p;
	}
	return NULL;
}

/*
 * Have all marked runs of this transaction been computed for this view?  Not if one lies in a
 * file that has gone: the transaction itself truncated or dropped what it had inserted.  Nor if a row may be
 * late: that is judged row by row, by the watermark before the commit.
 */
bool
sx_consumer_has_early(Consumer *c, LiveView *lv, SxReady *r)
{
	TransactionId last = InvalidTransactionId;
	EarlyPart  *part;

	if (!r->early || earlies == NULL)
		return false;
	for (uint32 i = 0; i < r->nruns; i++)
	{
		if ((r->runs[i].file & SX_RUN_EARLY) == 0)
			continue;
		if (sx_file_map_entry(c->tail->capture->map, SxRunFile(&r->runs[i]))->dead)
			return false;
		if (r->runs[i].xid == last)
			continue;
		last = r->runs[i].xid;
		part = find_part(last, lv);
		if (part == NULL || (lv->lateness != NULL && part->times.first <
							 sx_lateness_before(&lv->time, lv->shared->watermark, lv->shared->removed_until)))
			return false;
	}
	return true;
}

typedef struct AddRows
{
	SxLiveWriter *writer;
	TupleTableSlot *slot;
	bool		ok;
} AddRows;

/*
 * Adds what was computed early for this transaction to what the view's writer has prepared.  The
 * collected rows stay, in case the cycle must be computed again.
 */
SxProcessResult
sx_consumer_apply_early(Consumer *c, LiveView *lv, SxReady *r, ErrorData **error)
{
	volatile SxProcessResult result = SX_PROCESS_OK;
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		SxRunAs		as;
		AddRows		add;
		SxRowCounts none = {0};
		TransactionId last = InvalidTransactionId;

		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		sx_run_as_begin(&as, lv->def);
		add.writer = lv->writer;
		add.slot = MakeSingleTupleTableSlot(lv->info->desc, &TTSOpsMinimalTuple);
		add.ok = true;
		for (uint32 i = 0; i < r->nruns; i++)
		{
			EarlyPart  *p;

			if ((r->runs[i].file & SX_RUN_EARLY) == 0 || r->runs[i].xid == last)
				continue;
			last = r->runs[i].xid;
			p = find_part(last, lv);
			lv->watermark = sx_watermark_after(&lv->time, lv->watermark, p->times.last);
			lv->counts.future += p->times.future;
			if (sx_live_has_prepared(p->writer))
			{
				sx_lock_publish_exclusive(c->db);
				sx_live_publish(p->writer, c->cycle, &none);
				sx_unlock_publish(c->db);
				sx_live_published(p->writer);
			}
			sx_gen_rows(c->db, &p->hidden->gens[p->hidden->open_gen % SX_MAX_GENERATIONS], add_row, &add);
		}
		if (!add.ok)
			result = SX_PROCESS_NO_MEMORY;
		ExecDropSingleTupleTableSlot(add.slot);
		sx_run_as_end(&as);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		*error = sx_worker_recover(caller);
		result = sx_budget_exceeded() ? SX_PROCESS_SLOW : SX_PROCESS_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return result;
}

static void
add_row(void *arg, MinimalTuple tuple)
{
	AddRows    *add = arg;

	if (!add->ok)
		return;
	ExecStoreMinimalTuple(tuple, add->slot, false);
	add->ok = sx_live_prepare(add->writer, add->slot);
}

static bool
apply_early_row(void *arg, TupleTableSlot *row)
{
	EarlyPart  *p = arg;

	return sx_live_prepare(p->writer, row);
}

/* a row that fails is found again, and written down, at commit */
static bool
reject_early(void *arg, const char *reason, const char *sqlstate, const char *row_json,
			 const char *message)
{
	return false;
}
