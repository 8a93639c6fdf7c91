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
 * When more rows come than one process computes, a second one takes some of them (consumer_helper.c), into a
 * generation of its own for each view.  Then a transaction that has committed with many rows left is held: it goes on in
 * this way, and is consumed when the rest is little.  Those behind it wait, as rows are judged in the order of commits.
 * Views that join other tables are computed then only: what they find there must be what the transaction has left.
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
#include "worker/early.h"
#include "testing/stop_points.h"

/*
 * Not worth it below; and what one cycle, or one job of the helper, takes, so that others need not wait long.  Tests have
 * small transactions.
 */
#ifdef SX_TESTING
#define EARLY_ROWS		500
#define EARLY_BATCH		1000
#else
#define EARLY_ROWS		10000
#define EARLY_BATCH		40000
#endif
/* from so many rows on that are left the helper is wanted; … when the transaction has committed */
#define HELP_ROWS		(2 * EARLY_BATCH)
#define HELP_LEFT		(2 * EARLY_ROWS)
/* it has groups of its own, which are added to the view's: not where they would take more than this part of live memory */
#define HELP_MEMORY		4
#define GROUP_BYTES		256

typedef struct EarlyPart
{
	LiveView   *lv;
	struct Early *early;
	uint64		incarnation;
	bool		failed;
	SxView	   *hidden;			/* holds the generation; in no registry */
	SxEarlyRows rows;			/* in it; writer NULL: none */
	uint64		nrows;			/* computed, of those that are marked */
	SxBatchTimes times;			/* of them */
	/* the helper's */
	dsa_pointer helped;			/* SxView; Invalid: none */
	uint64		helped_number;
	int			njobs;			/* given and not collected */
} EarlyPart;

typedef struct EarlyKey
{
	TransactionId xid;
	uint32		mark;			/* SX_RUN_EARLY, or SX_RUN_JOINED: for the views that join */
} EarlyKey;

typedef struct Early
{
	EarlyKey	key;
	uint32		done;			/* runs that are marked, while it is open */
	uint64		done_rows;
	List	   *parts;			/* of EarlyPart * */
	int			njobs;			/* of all parts */
	bool		found;			/* by the sweep */
} Early;

static HTAB *earlies = NULL;

/* what is added to a view */
typedef struct AddRows
{
	SxLiveWriter *writer;
	TupleTableSlot *slot;
	bool		ok;
} AddRows;

static void compute_open(void *arg, TransactionId xid, SxReady *part);
static bool hold_ready(Consumer *c, SxPosition *snapshot);
static bool compute_held(Consumer *c, SxReady *r, uint32 marks);
static bool any_good(Early *e);
static bool any_view(Consumer *c, uint32 mark);
static bool takes_part(LiveView *lv, uint32 mark);
static bool is_helped(const SxReady *r, uint32 mark);
static uint64 compute_more(Consumer *c, SxReady *part, uint32 marks, uint32 *next, uint64 left, bool open);
static uint64 batch_rows(uint64 left, bool open);
static uint32 cut(const SxReady *part, uint32 *next, uint32 marks, uint64 most, bool open, SxReady *slice);
static List *parts_of(Consumer *c, const SxReady *slice, uint32 lacking);
static void mark(SxReady *part, uint32 *next, const SxReady *slice, uint32 marks);
static bool compute_here(Consumer *c, List *parts, SxReady *slice);
static void share_rows(SxBatch *batch, List *parts);
static bool give(Consumer *c, List *parts, SxReady *slice);
static bool has_room(List *parts);
static bool add_helped(Consumer *c, EarlyPart *p);
static void free_helped(Consumer *c, EarlyPart *p);
static SxView *helped_view(Consumer *c, EarlyPart *p);
static void collected(Consumer *c, void *owner, const SxHelperView *result);
static void computed(Consumer *c, EarlyPart *p, uint64 nrows, const SxBatchTimes *times);
static bool may_be_late(EarlyPart *p);
static Early *find_early(TransactionId xid, uint32 mark);
static Early *get_early(Consumer *c, TransactionId xid, uint32 mark);
static void add_part(Consumer *c, Early *e, LiveView *lv);
static bool part_is_good(EarlyPart *p);
static void drop_part(Consumer *c, EarlyPart *p);
static void drop_parts(Consumer *c, Early *e);
static void drop_early(Consumer *c, Early *e);
static EarlyPart *find_part(TransactionId xid, LiveView *lv);
static void find_marked(const SxReady *r, uint32 mark);
static void sweep(Consumer *c);
static void add_rows(Consumer *c, SxView *hidden, AddRows *add);
static void add_row(void *arg, MinimalTuple tuple);

/* once a cycle, after WAL was read; true if there is a transaction to follow closely */
bool
sx_consumer_early(Consumer *c, SxPosition *snapshot)
{
	bool		any = false;
	ListCell   *lc;

	if (earlies == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(EarlyKey);
		ctl.entrysize = sizeof(Early);
		earlies = hash_create("streamext early transactions", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	sx_consumer_collect(c, collected);
	if (hash_get_num_entries(earlies) > 0)
		sweep(c);
	/* what has committed goes first, with both processes */
	if (!hold_ready(c, snapshot))
		sx_pending_large(c->tail->capture->pending, EARLY_ROWS, compute_open, c);
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
compute_open(void *arg, TransactionId xid, SxReady *part)
{
	Consumer   *c = arg;
	Early	   *e = get_early(c, xid, SX_RUN_EARLY);

	if (any_good(e))
		e->done_rows += compute_more(c, part, SX_RUN_EARLY, &e->done, part->nrows - e->done_rows, true);
}

/* those that have committed, up to the first that is to wait; true: one is */
static bool
hold_ready(Consumer *c, SxPosition *snapshot)
{
	uint32		marks = (any_view(c, SX_RUN_EARLY) ? SX_RUN_EARLY : 0) | (any_view(c, SX_RUN_JOINED) ? SX_RUN_JOINED : 0);
	/* what a scan has found waits for nobody: nobody is to wait before it */
	bool		may_hold = sx_pending_found(c->tail->capture->pending) == 0;
	bool		held = false;
	dlist_iter	iter;

	dlist_foreach(iter, sx_pending_ready(c->tail->capture->pending))
	{
		SxReady    *r = dlist_container(SxReady, node, iter.cur);

		r->held = false;
		if (held || !may_hold || r->fxid == SX_ALWAYS_XID || r->nrows < EARLY_ROWS)
			continue;
		/* its own rows in other tables are visible, too */
		r->held = held = compute_held(c, r, sx_position_contains(snapshot, r->fxid) ? marks : marks & SX_RUN_EARLY);
	}
	return held;
}

/* true: there is more to wait for than one process would do in a moment */
static bool
compute_held(Consumer *c, SxReady *r, uint32 marks)
{
	uint64		left = 0;
	uint32		next = 0;
	bool		helped;

	for (uint32 i = 0; i < r->nruns; i++)
	{
		if ((r->runs[i].file & marks) != marks)
			left += r->runs[i].count;
		/* what was computed is worth nothing: see sx_consumer_has_early() */
		if ((r->runs[i].file & (SX_RUN_EARLY | SX_RUN_JOINED)) != 0 &&
			sx_file_map_entry(c->tail->capture->map, SxRunFile(&r->runs[i]))->dead)
			return false;
	}
	helped = !sx_consumer_helper_hangs() && (is_helped(r, SX_RUN_EARLY) || is_helped(r, SX_RUN_JOINED));
	if (!helped && (left < HELP_LEFT || sx_consumer_helper_room(c, false, left >= HELP_ROWS) == 0))
		return false;
	return compute_more(c, r, marks, &next, left, false) > 0 || helped;
}

static bool
is_helped(const SxReady *r, uint32 mark)
{
	TransactionId last = InvalidTransactionId;

	for (uint32 i = 0; r->early && i < r->nruns; i++)
	{
		Early	   *e;

		if ((r->runs[i].file & mark) == 0 || r->runs[i].xid == last)
			continue;
		last = r->runs[i].xid;
		e = find_early(last, mark);
		if (e != NULL && e->njobs > 0)
			return true;
	}
	return false;
}

static bool
any_good(Early *e)
{
	ListCell   *lc;

	foreach(lc, e->parts)
		if (part_is_good(lfirst(lc)))
			return true;
	return false;
}

static bool
any_view(Consumer *c, uint32 mark)
{
	ListCell   *lc;

	foreach(lc, c->views)
		if (takes_part(lfirst(lc), mark))
			return true;
	return false;
}

/* a lookup row of the same transaction is not visible before it commits */
static bool
takes_part(LiveView *lv, uint32 mark)
{
	return lv->shared->state == SX_VIEW_LIVE && lv->writer != NULL && sx_early_mark(lv) == mark;
}

/*
 * The next rows of a part, from one that lacks some of these marks on: some for the helper, which is at work meanwhile, and
 * some here.  Returns how many.
 */
static uint64
compute_more(Consumer *c, SxReady *part, uint32 marks, uint32 *next, uint64 left, bool open)
{
	uint64		all = left;
	uint64		most;
	SxReady		slice;
	uint32		lacking;

	while (left >= (open ? HELP_ROWS : HELP_LEFT) && sx_consumer_helper_room(c, open, true) > 0)
	{
		/* a small one tells as well whether there is a processor for it */
		most = open && sx_consumer_is_crowded() ? EARLY_ROWS : batch_rows(left, open);
		lacking = cut(part, next, marks, most, open, &slice);
		if (lacking == 0 || !give(c, parts_of(c, &slice, lacking), &slice))
			break;
		mark(part, next, &slice, lacking);
		left -= slice.nrows;
	}
	lacking = cut(part, next, marks, batch_rows(left, open), open, &slice);
	if (lacking != 0 && compute_here(c, parts_of(c, &slice, lacking), &slice))
	{
		mark(part, next, &slice, lacking);
		left -= slice.nrows;
		c->early_backlog |= left >= EARLY_ROWS;
	}
	return all - left;
}

static uint64
batch_rows(uint64 left, bool open)
{
	/* at the end smaller ones, so that nobody has much to do when the other has nothing */
	return open ? EARLY_BATCH : Min(EARLY_BATCH, Max(EARLY_ROWS, left / 4));
}

/*
 * A batch from there on, of one raw id, that lacks the marks that are returned; 0: there is none.  Of what is not open any more
 * small ones are passed over.
 */
static uint32
cut(const SxReady *part, uint32 *next, uint32 marks, uint64 most, bool open, SxReady *slice)
{
	*slice = *part;
	slice->early = false;
	for (;;)
	{
		uint32		lacking;
		uint32		end;

		while (*next < part->nruns && (part->runs[*next].file & marks) == marks)
			(*next)++;
		if (*next == part->nruns)
			return 0;
		slice->runs = part->runs + *next;
		slice->nrows = 0;
		lacking = marks & ~slice->runs[0].file;
		for (end = *next; end < part->nruns && slice->nrows < most; end++)
		{
			const SxRun *run = &part->runs[end];

			if ((marks & ~run->file) != lacking || run->xid != slice->runs[0].xid)
				break;
			slice->nrows += run->count;
		}
		slice->nruns = end - *next;
		if (slice->nrows >= EARLY_ROWS)
			return lacking;
		if (open)
			return 0;
		*next = end;
	}
}

/* of the views whose mark the slice lacks */
static List *
parts_of(Consumer *c, const SxReady *slice, uint32 lacking)
{
	List	   *parts = NIL;

	if ((lacking & SX_RUN_EARLY) != 0)
		parts = list_concat(parts, get_early(c, slice->runs[0].xid, SX_RUN_EARLY)->parts);
	if ((lacking & SX_RUN_JOINED) != 0)
		parts = list_concat(parts, get_early(c, slice->runs[0].xid, SX_RUN_JOINED)->parts);
	return parts;
}

static void
mark(SxReady *part, uint32 *next, const SxReady *slice, uint32 marks)
{
	for (uint32 i = 0; i < slice->nruns; i++)
		slice->runs[i].file |= marks;
	part->early = true;
	*next += slice->nruns;
}

/* false: nobody profits: look again when there are more rows, perhaps for new views */
static bool
compute_here(Consumer *c, List *parts, SxReady *slice)
{
	SxBatch    *batch = NULL;
	ListCell   *lc;
	bool		any = false;

	foreach(lc, parts)
	{
		EarlyPart  *p = lfirst(lc);
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
				sx_process_end_share(batch);
			batch = sx_batch_create(c->tail->capture->map, p->lv->def->streamid, &slice, 1, 0);
			sx_ask_times(batch, &p->lv->time);
			share_rows(batch, parts);
		}
		if (batch->nrows == 0)
		{
			any = true;
			p->nrows += slice->nrows;
			continue;
		}

		p->rows.info = p->lv->info;
		p->rows.plan = p->lv->plan;
		sx_consumer_begin_run(p->lv, batch->nrows);
		ok = sx_early_run(&p->rows, batch, c->turn) == SX_PROCESS_OK;
		if (!sx_consumer_end_run(p->lv, batch->nrows))
		{
			/* it leaves when nobody goes through its parts any more */
			p->lv->over_budget = true;
			ok = false;
		}
		if (ok)
		{
			any = true;
			computed(c, p, slice->nrows, batch->times);
		}
		else
			drop_part(c, p);
	}
	if (batch != NULL)
		sx_process_end_share(batch);
	return any;
}

/* the other views of its stream take it, too */
static void
share_rows(SxBatch *batch, List *parts)
{
	List	   *plans = NIL;
	ListCell   *lc;

	foreach(lc, parts)
	{
		EarlyPart  *p = lfirst(lc);

		if (part_is_good(p) && p->lv->def->streamid == batch->stream)
			plans = lappend(plans, p->lv->plan);
	}
	sx_process_share(batch, plans);
	list_free(plans);
}

/* to the helper, for all views that profit; false: not this time */
static bool
give(Consumer *c, List *parts, SxReady *slice)
{
	List	   *wanted = NIL;
	ListCell   *lc;

	if (!has_room(parts))
		return false;
	foreach(lc, parts)
	{
		EarlyPart  *p = lfirst(lc);
		SxWantedView *w;

		if (!part_is_good(p) || p->lv->over_budget)
			continue;
		if (!DsaPointerIsValid(p->helped) && !add_helped(c, p))
			return false;
		w = palloc0(sizeof(SxWantedView));
		w->view.viewid = p->lv->def->viewid;
		w->view.matid = p->lv->def->matid;
		w->view.streamid = p->lv->def->streamid;
		w->view.time = p->lv->time;
		w->view.hidden = p->helped;
		w->view.number = p->helped_number;
		w->view.times.first = SX_TIME_END;
		w->view.times.last = SX_TIME_NONE;
		w->owner = p;
		wanted = lappend(wanted, w);
	}
	if (wanted == NIL || !sx_consumer_give(c, slice, wanted))
		return false;
	SX_STOP_POINT(helper_given);
	foreach(lc, wanted)
	{
		EarlyPart  *p = ((SxWantedView *) lfirst(lc))->owner;

		p->njobs++;
		p->early->njobs++;
	}
	return true;
}

static bool
has_room(List *parts)
{
	uint64		groups = 0;
	ListCell   *lc;

	foreach(lc, parts)
	{
		EarlyPart  *p = lfirst(lc);

		if (part_is_good(p))
			groups += sx_gen_open_entries(p->hidden);
	}
	return groups * GROUP_BYTES * HELP_MEMORY < sx_live_memory * UINT64CONST(1024);
}

static bool
add_helped(Consumer *c, EarlyPart *p)
{
	static uint64 numbers = 0;
	dsa_area   *area = sx_db_area(c->db);
	dsa_pointer dp = dsa_allocate_extended(area, sizeof(SxView), DSA_ALLOC_NO_OOM | DSA_ALLOC_ZERO);

	if (!DsaPointerIsValid(dp))
		return false;
	if (!sx_gen_open(c->db, dsa_get_address(area, dp), 1024))
	{
		dsa_free(area, dp);
		return false;
	}
	p->helped = dp;
	p->helped_number = ++numbers;
	return true;
}

static void
free_helped(Consumer *c, EarlyPart *p)
{
	if (!DsaPointerIsValid(p->helped))
		return;
	sx_gen_drop_all(c->db, helped_view(c, p));
	dsa_free(sx_db_area(c->db), p->helped);
	p->helped = InvalidDsaPointer;
}

static SxView *
helped_view(Consumer *c, EarlyPart *p)
{
	return dsa_get_address(sx_db_area(c->db), p->helped);
}

/* a job of the helper has come to an end, for this part */
static void
collected(Consumer *c, void *owner, const SxHelperView *result)
{
	EarlyPart  *p = owner;

	p->njobs--;
	p->early->njobs--;
	if (!p->failed && result->result == SX_PROCESS_OK)
		computed(c, p, result->nrows, &result->times);
	else if (!p->failed)
	{
		if (result->result == SX_PROCESS_SLOW)
		{
			p->lv->over_budget = true;
			p->lv->slow_ms = result->slow_ms;
			p->lv->slow_rows = result->nrows;
		}
		drop_part(c, p);
	}
	/* those that failed meanwhile have waited for this */
	if (p->failed && p->njobs == 0)
		free_helped(c, p);
}

static void
computed(Consumer *c, EarlyPart *p, uint64 nrows, const SxBatchTimes *times)
{
	p->nrows += nrows;
	if (times != NULL)
	{
		p->times.first = Min(p->times.first, times->first);
		p->times.last = Max(p->times.last, times->last);
		p->times.future += times->future;
	}
	/* it will not be used, as watermarks only rise */
	if (may_be_late(p))
		drop_part(c, p);
}

/* that is judged row by row, by the watermark before the commit */
static bool
may_be_late(EarlyPart *p)
{
	LiveView   *lv = p->lv;

	return lv->lateness != NULL &&
		p->times.first < sx_lateness_before(&lv->time, lv->shared->watermark, lv->shared->removed_until);
}

static Early *
find_early(TransactionId xid, uint32 mark)
{
	EarlyKey	key = {xid, mark};

	return hash_search(earlies, &key, HASH_FIND, NULL);
}

static Early *
get_early(Consumer *c, TransactionId xid, uint32 mark)
{
	EarlyKey	key = {xid, mark};
	bool		found;
	Early	   *e = hash_search(earlies, &key, HASH_ENTER, &found);
	ListCell   *lc;

	if (found)
		return e;
	memset((char *) e + sizeof(EarlyKey), 0, sizeof(Early) - sizeof(EarlyKey));
	foreach(lc, c->views)
		if (takes_part(lfirst(lc), mark))
			add_part(c, e, lfirst(lc));
	return e;
}

static void
add_part(Consumer *c, Early *e, LiveView *lv)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	EarlyPart  *p = palloc0(sizeof(EarlyPart));

	p->lv = lv;
	p->early = e;
	p->incarnation = lv->shared->incarnation;
	p->times.first = SX_TIME_END;
	p->times.last = SX_TIME_NONE;
	p->hidden = palloc0(sizeof(SxView));
	if (sx_gen_open(c->db, p->hidden, 1024))
		p->rows.writer = sx_live_writer_create(c->db, p->hidden, lv->info, TopMemoryContext);
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
	if (p->rows.writer)
	{
		sx_early_discard(&p->rows);
		sx_live_writer_destroy(p->rows.writer);
		p->rows.writer = NULL;
	}
	if (p->hidden->open_gen != 0)
		sx_gen_drop_all(c->db, p->hidden);
	if (p->njobs > 0)
		sx_consumer_unwanted(c, p);
	else
		free_helped(c, p);
}

static void
drop_parts(Consumer *c, Early *e)
{
	ListCell   *lc;

	foreach(lc, e->parts)
		drop_part(c, lfirst(lc));
}

/* not while the helper is at work for it */
static void
drop_early(Consumer *c, Early *e)
{
	ListCell   *lc;

	drop_parts(c, e);
	if (e->njobs > 0)
		return;
	foreach(lc, e->parts)
	{
		EarlyPart  *p = lfirst(lc);

		pfree(p->hidden);
		pfree(p);
	}
	list_free(e->parts);
	hash_search(earlies, &e->key, HASH_REMOVE, NULL);
}

static void
find_marked(const SxReady *r, uint32 mark)
{
	TransactionId last = InvalidTransactionId;

	for (uint32 i = 0; i < r->nruns; i++)
	{
		Early	   *e;

		if ((r->runs[i].file & mark) == 0 || r->runs[i].xid == last)
			continue;
		last = r->runs[i].xid;
		e = find_early(last, mark);
		if (e)
			e->found = true;
	}
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
		e->found = sx_pending_find(pending, e->key.xid) != NULL;

	dlist_foreach(iter, sx_pending_ready(pending))
	{
		SxReady    *r = dlist_container(SxReady, node, iter.cur);

		if (!r->early)
			continue;
		find_marked(r, SX_RUN_EARLY);
		find_marked(r, SX_RUN_JOINED);
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
		drop_parts(c, e);
	sx_consumer_wait_helper(c, collected);
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
	Early	   *e = find_early(xid, sx_early_mark(lv));
	ListCell   *lc;

	if (e == NULL)
		return NULL;
	foreach(lc, e->parts)
	{
		EarlyPart  *p = lfirst(lc);

		if (p->lv == lv && part_is_good(p) && p->njobs == 0)
			return p;
	}
	return NULL;
}

/*
 * Have all marked runs of this transaction been computed for this view?  Not if one lies in a
 * file that has gone: the transaction itself truncated or dropped what it had inserted.  Nor if a row may be
 * late.
 */
bool
sx_consumer_has_early(Consumer *c, LiveView *lv, SxReady *r)
{
	uint32		mark = sx_early_mark(lv);
	EarlyPart  *part = NULL;
	uint64		nrows = 0;

	if (!r->early || earlies == NULL)
		return false;
	for (uint32 i = 0; i < r->nruns; i++)
	{
		const SxRun *run = &r->runs[i];

		if ((run->file & mark) == 0)
			continue;
		if (sx_file_map_entry(c->tail->capture->map, SxRunFile(run))->dead)
			return false;
		if (part == NULL || part->early->key.xid != run->xid)
		{
			if (part != NULL && part->nrows != nrows)
				return false;
			part = find_part(run->xid, lv);
			if (part == NULL || may_be_late(part))
				return false;
			nrows = 0;
		}
		nrows += run->count;
	}
	return part != NULL && part->nrows == nrows;
}

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

			if ((r->runs[i].file & sx_early_mark(lv)) == 0 || r->runs[i].xid == last)
				continue;
			last = r->runs[i].xid;
			p = find_part(last, lv);
			lv->watermark = sx_watermark_after(&lv->time, lv->watermark, p->times.last);
			lv->counts.future += p->times.future;
			sx_early_keep(&p->rows);
			add_rows(c, p->hidden, &add);
			if (DsaPointerIsValid(p->helped))
				add_rows(c, helped_view(c, p), &add);
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
add_rows(Consumer *c, SxView *hidden, AddRows *add)
{
	sx_gen_rows(c->db, &hidden->gens[hidden->open_gen % SX_MAX_GENERATIONS], add_row, add);
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
