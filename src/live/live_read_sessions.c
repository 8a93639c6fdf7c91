/*
 * live_read_sessions.c
 *		The live groups of one read node, for a view of sessions.
 *
 * The rows of all generations are sorted by group and time, and rows that overlap become one: what
 * is left of a group stands together, in order, and overlaps nothing.  So the live sessions that
 * overlap a row of the table are found by binary search.
 *
 * A row of the table that no live session overlaps passes as it is.  All others are taken out: a live
 * session is completed by the stored sessions that it overlaps, which may overlap more live
 * sessions, and so on.  Live sessions that another has taken up so are marked, and no rows of their
 * own any more.  The members of such a chain have equal keys, the session aside, so whatever finds one
 * of them by keys finds all.
 */
#include "live/live_read_internal.h"

#include "miscadmin.h"
#include "utils/memutils.h"

/* a live row on its way into the groups */
typedef struct LiveRow
{
	int			class;			/* rows of one group */
	int			number;			/* in the request */
	SxSpan		span;
} LiveRow;

/* the first row of a class */
typedef struct RowClass
{
	int			number;
	int			next;			/* with the same bucket; -1: last */
} RowClass;

/* a session that is being completed */
typedef struct Completion
{
	SxReadGroups *g;
	MemoryContext scratch;
	MinimalTuple stored;		/* of the table, combined; NULL: none */
	SxSpan		span;
} Completion;

static LiveRow *classify(SxReadGroups *g, SxLiveRequest *request);
static int	find_class(SxReadGroups *g, SxLiveRequest *request, RowClass *classes, int *nclasses,
					   const int *buckets, int number);
static int	compare_rows(const void *a, const void *b, void *arg);
static void take_stored(void *arg, TupleTableSlot *row, const SxSpan *span);
static void look_up(Completion *c, SxReadGroup *group, int64 from, int64 to);
static MinimalTuple combine(SxReadGroups *g, MinimalTuple a, MinimalTuple b, MemoryContext context);

/* in a scratch context, the caller's */
void
sx_read_sessions_build(SxReadGroups *g, SxLiveRequest *request)
{
	MemoryContext scratch = CurrentMemoryContext;
	MemoryContext row_context = AllocSetContextCreate(scratch, "streamext live session", ALLOCSET_DEFAULT_SIZES);
	LiveRow    *rows = classify(g, request);
	SxReadGroup *group = NULL;
	SxReadGroup *first = NULL;
	int			class = -1;
	bool		combined = false;

	MemoryContextSwitchTo(row_context);
	for (int i = 0; i < request->nrows; i++)
	{
		LiveRow    *row = &rows[i];

		if ((i & 1023) == 0)
			CHECK_FOR_INTERRUPTS();
		if (group != NULL && row->class == class && sx_spans_meet(&group->span, &row->span))
		{
			MinimalTuple united = combine(g, group->live, request->rows[row->number], g->context);

			if (combined)
				pfree(group->live);
			combined = true;
			group->live = united;
			group->span = sx_span_union(&group->span, &row->span);
			MemoryContextReset(row_context);
			continue;
		}

		combined = false;
		group = &g->groups[g->ngroups];
		memset(group, 0, sizeof(SxReadGroup));
		group->live = request->rows[row->number];
		group->span = row->span;
		group->hash = request->hashes[row->number];
		group->keyhash = &request->keyhashes[(Size) row->number * g->info->nkeys];
		group->next = -1;
		if (row->class != class)
		{
			int		   *head = &g->buckets[group->hash & g->mask];

			/* the chain has the first of each run */
			class = row->class;
			first = group;
			group->next = *head;
			*head = g->ngroups;
		}
		group->first = first - g->groups;
		first->run++;
		g->ngroups++;
	}
	MemoryContextSwitchTo(scratch);
	MemoryContextDelete(row_context);
}

/* the rows, sorted by group and time */
static LiveRow *
classify(SxReadGroups *g, SxLiveRequest *request)
{
	int			n = request->nrows;
	LiveRow    *rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(LiveRow) * Max(n, 1));
	RowClass   *classes = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(RowClass) * Max(n, 1));
	int		   *buckets = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int) * (g->mask + (Size) 1));
	int			nclasses = 0;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(caller, "streamext live class", ALLOCSET_DEFAULT_SIZES);

	memset(buckets, -1, sizeof(int) * (g->mask + (Size) 1));
	MemoryContextSwitchTo(scratch);
	for (int i = 0; i < n; i++)
	{
		int		   *head = &buckets[request->hashes[i] & g->mask];
		int			before = nclasses;

		ExecStoreMinimalTuple(request->rows[i], g->live, false);
		rows[i].number = i;
		rows[i].span = sx_row_span(g->info, g->live);
		rows[i].class = find_class(g, request, classes, &nclasses, buckets, i);
		if (nclasses > before)
		{
			classes[before].next = *head;
			*head = before;
		}
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	qsort_arg(rows, n, sizeof(LiveRow), compare_rows, NULL);
	return rows;
}

/* that of the row in g->live */
static int
find_class(SxReadGroups *g, SxLiveRequest *request, RowClass *classes, int *nclasses, const int *buckets,
		   int number)
{
	for (int c = buckets[request->hashes[number] & g->mask]; c >= 0; c = classes[c].next)
	{
		if (request->hashes[classes[c].number] != request->hashes[number])
			continue;
		ExecStoreMinimalTuple(request->rows[classes[c].number], g->probe, false);
		if (sx_keys_equal(g->info, g->probe, g->live))
			return c;
	}
	classes[*nclasses].number = number;
	return (*nclasses)++;
}

/* the older generation first */
static int
compare_rows(const void *a, const void *b, void *arg)
{
	const LiveRow *ra = a;
	const LiveRow *rb = b;

	CHECK_FOR_INTERRUPTS();
	if (ra->class != rb->class)
		return ra->class < rb->class ? -1 : 1;
	if (ra->span.isnull != rb->span.isnull)
		return ra->span.isnull ? 1 : -1;
	if (!ra->span.isnull && ra->span.lower != rb->span.lower)
		return ra->span.lower < rb->span.lower ? -1 : 1;
	return ra->number < rb->number ? -1 : ra->number > rb->number;
}

/* a live session that overlaps this row of the table, or NULL; scraps in the current context */
SxReadGroup *
sx_read_sessions_find(SxReadGroups *g, uint32 hash, TupleTableSlot *row)
{
	SxSpan		span;

	for (int i = g->buckets[hash & g->mask]; i >= 0; i = g->groups[i].next)
	{
		SxReadGroup *run = &g->groups[i];
		int			low = 0;
		int			high = run->run;

		if (run->hash != hash)
			continue;
		ExecStoreMinimalTuple(run->live, g->probe, false);
		if (!sx_keys_equal(g->info, g->probe, row))
			continue;
		span = sx_row_span(g->info, row);
		if (span.isnull)
			return run[run->run - 1].span.isnull ? &run[run->run - 1] : NULL;

		/* the last that begins before the row ends */
		while (low < high)
		{
			int			middle = (low + high) / 2;

			if (!run[middle].span.isnull && run[middle].span.lower < span.upper)
				low = middle + 1;
			else
				high = middle;
		}
		return low > 0 && sx_spans_meet(&run[low - 1].span, &span) ? &run[low - 1] : NULL;
	}
	return NULL;
}

/* fills in group->full, and marks what it takes up; scraps in the current context */
void
sx_read_sessions_complete(SxReadGroups *g, SxReadGroup *group)
{
	SxReadGroup *run = &g->groups[group->first];
	SxReadGroup *end = run + run->run;
	SxReadGroup *left = group;
	SxReadGroup *right = group;
	MinimalTuple live = group->live;
	MemoryContext scratch = CurrentMemoryContext;
	Completion	c = {.g = g, .scratch = scratch, .span = group->span};

	look_up(&c, group, group->span.lower, group->span.upper);
	for (bool more = !group->span.isnull; more;)
	{
		more = false;
		CHECK_FOR_INTERRUPTS();
		if (left > run && sx_spans_meet(&left[-1].span, &c.span))
		{
			int64		to = c.span.lower;

			left--;
			c.span = sx_span_union(&c.span, &left->span);
			look_up(&c, left, c.span.lower, to);
			live = combine(g, left->live, live, scratch);
			left->absorbed = true;
			more = true;
		}
		if (right + 1 < end && sx_spans_meet(&right[1].span, &c.span))
		{
			int64		from = c.span.upper;

			right++;
			c.span = sx_span_union(&c.span, &right->span);
			look_up(&c, right, from, c.span.upper);
			live = combine(g, live, right->live, scratch);
			right->absorbed = true;
			more = true;
		}
	}
	if (c.stored)
		live = combine(g, c.stored, live, scratch);
	group->full = live != group->live || g->results ? sx_read_groups_keep(g, live) : live;
}

/* stored sessions of the group that overlap [from, to), or the one without a time */
static void
look_up(Completion *c, SxReadGroup *group, int64 from, int64 to)
{
	SxReadGroups *g = c->g;
	MemoryContext old;

	/* a B-tree scan remembers dead entries from one call to the next, in the context of the call */
	old = MemoryContextSwitchTo(g->context);
	if (g->scan == NULL)
		g->scan = sx_key_scan_begin(g->info, g->mat, g->snapshot, g->table);
	ExecStoreMinimalTuple(group->live, g->live, false);
	if (group->span.isnull)
	{
		if (sx_key_scan_find(g->scan, g->live))
			take_stored(c, g->table, &group->span);
	}
	else if (from < to)
		sx_key_scan_sessions(g->scan, g->live, from, to, take_stored, c);
	ExecClearTuple(g->table);
	MemoryContextSwitchTo(old);
}

static void
take_stored(void *arg, TupleTableSlot *row, const SxSpan *span)
{
	Completion *c = arg;
	MemoryContext old = MemoryContextSwitchTo(c->scratch);
	MinimalTuple tuple = ExecCopySlotMinimalTuple(row);

	c->stored = c->stored ? combine(c->g, c->stored, tuple, c->scratch) : tuple;
	c->span = sx_span_union(&c->span, span);
	MemoryContextSwitchTo(old);
}

/* scraps in the current context */
static MinimalTuple
combine(SxReadGroups *g, MinimalTuple a, MinimalTuple b, MemoryContext context)
{
	MinimalTuple result;
	MemoryContext old;

	ExecStoreMinimalTuple(a, g->probe, false);
	ExecStoreMinimalTuple(b, g->second, false);
	sx_combine_rows(g->info, g->probe, g->second, g->combined);
	old = MemoryContextSwitchTo(context);
	result = ExecCopySlotMinimalTuple(g->combined);
	MemoryContextSwitchTo(old);
	ExecClearTuple(g->combined);
	sx_read_groups_combined(g);
	return result;
}
