/*
 * key_scan.c
 *		Looking up rows of a materialized table by the unique index on its keys.
 *
 * NULL is a key like others.  Stored sessions of one group do not overlap, and stand last in the
 * index, in the order of time.  So those that overlap [from, to) are found going back from the last
 * one that begins before `to`, until one has ended at `from`.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/table.h"
#include "catalog/pg_index.h"
#include "fmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "live/key_scan.h"

static bool is_key_index(Relation index, int nkeys);
static Datum begins_before(PG_FUNCTION_ARGS);
static void set_keys(SxKeyScan *s, TupleTableSlot *keys, int nkeys);

SxKeyScan *
sx_key_scan_begin(SxViewInfo *info, Relation mat, Snapshot snapshot, TupleTableSlot *slot)
{
	SxKeyScan  *s = palloc0(sizeof(SxKeyScan));
	ListCell   *lc;

	s->info = info;
	s->mat = mat;
	s->slot = slot;
	foreach(lc, RelationGetIndexList(mat))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (is_key_index(index, info->nkeys))
		{
			s->index = index;
			break;
		}
		index_close(index, AccessShareLock);
	}
	if (s->index == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the materialized table of continuous view \"%s\" has lost its unique index",
						get_rel_name(info->def->viewid)),
				 errhint("Drop the view and create it again.")));

	s->keys = palloc0(sizeof(ScanKeyData) * info->nkeys);
	for (int i = 0; i < info->nkeys; i++)
		ScanKeyEntryInitialize(&s->keys[i], 0, i + 1, BTEqualStrategyNumber,
							   InvalidOid, info->collations[i], info->eqfns[i].fn_oid, (Datum) 0);
	if (info->session_key >= 0)
	{
		fmgr_info(F_RANGE_LE, &s->begins_before);
		s->begins_before.fn_addr = begins_before;
		s->begins_before.fn_extra = s;
	}
	s->scan = SxIndexBeginScan(mat, s->index, snapshot, info->nkeys);
	return s;
}

static bool
is_key_index(Relation index, int nkeys)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique || !form->indisvalid || !form->indnullsnotdistinct ||
		form->indnkeyatts != nkeys || RelationGetIndexExpressions(index) != NIL ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < nkeys; i++)
		if (form->indkey.values[i] != i + 1)
			return false;
	return true;
}

void
sx_key_scan_end(SxKeyScan *s)
{
	index_endscan(s->scan);
	index_close(s->index, NoLock);
}

/*
 * In place of session <= [point, infinity).  A scan compares all the rest of the page in which it
 * begins, so this must be quick.
 */
static Datum
begins_before(PG_FUNCTION_ARGS)
{
	SxKeyScan  *s = fcinfo->flinfo->fn_extra;

	PG_RETURN_BOOL(sx_span_of(s->info->session_type, PG_GETARG_DATUM(0), false).lower < s->point);
}

static void
set_keys(SxKeyScan *s, TupleTableSlot *keys, int nkeys)
{
	slot_getsomeattrs(keys, nkeys);
	for (int i = 0; i < nkeys; i++)
	{
		ScanKeyData *key = &s->keys[i];

		key->sk_flags = keys->tts_isnull[i] ? SK_ISNULL | SK_SEARCHNULL : 0;
		key->sk_argument = keys->tts_isnull[i] ? (Datum) 0 : keys->tts_values[i];
	}
}

bool
sx_key_scan_find(SxKeyScan *s, TupleTableSlot *keys)
{
	set_keys(s, keys, s->info->nkeys);
	if (s->info->session_key >= 0)
	{
		s->keys[s->info->session_key].sk_strategy = BTEqualStrategyNumber;
		s->keys[s->info->session_key].sk_func = s->info->eqfns[s->info->session_key];
	}
	index_rescan(s->scan, s->keys, s->info->nkeys, NULL, 0);
	return index_getnext_slot(s->scan, ForwardScanDirection, s->slot);
}

void
sx_key_scan_sessions(SxKeyScan *s, TupleTableSlot *keys, int64 from, int64 to,
					 void (*found) (void *arg, TupleTableSlot *row, const SxSpan *span), void *arg)
{
	SxViewInfo *info = s->info;
	ScanKeyData *key = &s->keys[info->session_key];

	set_keys(s, keys, info->session_key);
	key->sk_flags = 0;
	key->sk_strategy = BTLessEqualStrategyNumber;
	key->sk_func = s->begins_before;
	s->point = to;
	/* greater than every session that begins there */
	key->sk_argument = sx_span_from(info->session_type, to);
	index_rescan(s->scan, s->keys, info->nkeys, NULL, 0);
	while (index_getnext_slot(s->scan, BackwardScanDirection, s->slot))
	{
		SxSpan		span = sx_row_span(info, s->slot);

		if (span.upper <= from)
			break;
		found(arg, s->slot, &span);
	}
	pfree(DatumGetPointer(key->sk_argument));
}
