/*
 * view_info.c
 *		What a process needs to know of one view to work on its rows.
 *
 * Read from the catalogs: the materialized table's row type, the aggregates from the
 * stored query, hash and equality functions of the keys from the type cache.  Nothing
 * here is locked: the table's descriptor is copied in one go, and whoever keeps an
 * SxViewInfo makes a new one after an invalidation that concerns the view.  A lock on
 * the materialized table that somebody holds must not stop a worker here.
 *
 * All that is private to one process, and a crash leaves nothing.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/itup.h"
#include "access/nbtree.h"
#include "access/toast_internals.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/typcache.h"

#include "query/analyze.h"
#include "query/view_info.h"
#include "query/window_key.h"

/*
 * The longest tuple that a btree index takes: a third of a page, less room for a heap
 * TID.  (As BTMaxItemSize, whose argument comes and goes between versions.)
 */
#define KEY_TUPLE_MAX \
	MAXALIGN_DOWN((BLCKSZ - \
				   MAXALIGN(SizeOfPageHeaderData + 3 * sizeof(ItemIdData) + 3 * sizeof(ItemPointerData)) - \
				   MAXALIGN(sizeof(BTPageOpaqueData))) / 3)

/* keys whose values take less than this together fit without a closer look */
#define KEY_BYTES_SAFE	1000

static SxViewDef *copy_view_def(const SxViewDef *def);
static void read_descriptor(SxViewInfo *info);
static void look_up_query(SxViewInfo *info);
static void look_up_aggregates(SxViewInfo *info, List *aggrefs);
static void check_type(SxViewInfo *info, int column, Oid type);
static void look_up_keys(SxViewInfo *info);
static void look_up_window(SxViewInfo *info, SxAnalysis *analysis);
static void check_output(SxViewInfo *info, List *targetlist);
pg_noreturn static void report_altered(SxViewInfo *info, const char *detail);

/* ---- creation ---- */

SxViewInfo *
sx_view_info_create(const SxViewDef *def, MemoryContext parent)
{
	MemoryContext context;
	MemoryContext old;
	SxViewInfo *info;

	/* below the current context until all is well, so that an error leaves nothing */
	context = AllocSetContextCreate(CurrentMemoryContext, "streamext view", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);

	info = palloc0(sizeof(SxViewInfo));
	info->context = context;
	info->session_key = -1;
	info->closed_key = def->panes ? def->nkeys - 1 : -1;
	info->def = copy_view_def(def);
	info->window_key = -1;
	read_descriptor(info);
	look_up_query(info);
	info->flat = MakeSingleTupleTableSlot(info->desc, &TTSOpsVirtual);

	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, parent);
	return info;
}

void
sx_view_info_destroy(SxViewInfo *info)
{
	MemoryContextDelete(info->context);
}

static SxViewDef *
copy_view_def(const SxViewDef *def)
{
	SxViewDef  *copy = palloc(sizeof(SxViewDef));
	ListCell   *lc;

	*copy = *def;
	copy->settings = NIL;
	foreach(lc, def->settings)
		copy->settings = lappend(copy->settings, pstrdup(lfirst(lc)));
	return copy;
}

static void
read_descriptor(SxViewInfo *info)
{
	Relation	rel = RelationIdGetRelation(info->def->matid);

	if (!RelationIsValid(rel))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("materialized table with OID %u does not exist", info->def->matid)));
	info->desc = CreateTupleDescCopy(RelationGetDescr(rel));
	RelationClose(rel);

	for (int i = 0; i < info->desc->natts; i++)
		if (TupleDescAttr(info->desc, i)->attisdropped)
			report_altered(info, "A column was dropped.");
}

static void
look_up_query(SxViewInfo *info)
{
	MemoryContext scratch = AllocSetContextCreate(info->context, "streamext query", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	SxAnalysis *analysis = sx_analyze_stored(info->def->queryid, info->def->streamid);

	if (info->def->strategy == SX_MERGE)
	{
		look_up_aggregates(info, analysis->aggrefs);
		look_up_keys(info);
		if (analysis->session)
		{
			info->session_key = info->nkeys - 1;
			info->session_type = lookup_type_cache(TupleDescAttr(info->desc, info->session_key)->atttypid,
												   TYPECACHE_RANGE_INFO);
			info->session_gap = sx_session_gap_number(llast_node(TargetEntry, analysis->keys));
			if (info->session_type->rngelemtype == NULL)
				report_altered(info, "The column of sessions has another type.");
		}
	}
	else
		check_output(info, analysis->query->targetList);
	look_up_window(info, analysis);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

/* their columns follow the keys, in the order of the analysed query's aggregates; states beside results follow those */
static void
look_up_aggregates(SxViewInfo *info, List *aggrefs)
{
	ListCell   *lc;
	int			n = 0;

	info->nkeys = info->def->nkeys;
	info->naggs = list_length(aggrefs);
	info->aggs = MemoryContextAllocZero(info->context, (info->naggs + 1) * sizeof(SxAgg *));
	info->states = MemoryContextAllocZero(info->context, (info->naggs + 1) * sizeof(int));
	info->results = MemoryContextAllocZero(info->context, (info->naggs + 1) * sizeof(int));
	foreach(lc, aggrefs)
	{
		SxAgg	   *agg = sx_agg_from_aggref(lfirst_node(Aggref, lc), info->context);

		info->states[n] = info->nkeys + n;
		if (sx_agg_stores_result(agg) && !info->def->panes)
		{
			info->states[n] = info->nkeys + info->naggs + info->nresults;
			info->results[info->nresults++] = n;
		}
		info->aggs[n++] = agg;
	}
	if (info->nkeys < 1 || info->nkeys + info->naggs + info->nresults != info->desc->natts)
		report_altered(info, "It has another number of columns.");
	for (int i = 0; i < info->naggs; i++)
		check_type(info, info->states[i], sx_agg_storage_type(info->aggs[i]));
	for (int i = 0; i < info->nresults; i++)
		check_type(info, info->nkeys + info->results[i], sx_agg_result_type(info->aggs[info->results[i]]));
}

static void
check_type(SxViewInfo *info, int column, Oid type)
{
	Form_pg_attribute att = TupleDescAttr(info->desc, column);

	if (att->atttypid != type)
		report_altered(info, psprintf("Column \"%s\" has type %s, not %s.", NameStr(att->attname),
									  format_type_be(att->atttypid), format_type_be(type)));
}

/* an append view's table has the query's output columns */
static void
check_output(SxViewInfo *info, List *targetlist)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, targetlist)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (tle->resjunk)
			continue;
		if (n >= info->desc->natts ||
			TupleDescAttr(info->desc, n)->atttypid != exprType((Node *) tle->expr))
			report_altered(info, "Its columns are not the query's output columns.");
		n++;
	}
	if (n != info->desc->natts)
		report_altered(info, "It has another number of columns.");
}

/* default btree equality, as in the unique index; the hash function agrees with it */
static void
look_up_keys(SxViewInfo *info)
{
	MemoryContext old = MemoryContextSwitchTo(info->context);

	info->hashfns = palloc0(info->nkeys * sizeof(FmgrInfo));
	info->eqfns = palloc0(info->nkeys * sizeof(FmgrInfo));
	info->collations = palloc0(info->nkeys * sizeof(Oid));
	info->keydesc = CreateTemplateTupleDesc(info->nkeys);
	MemoryContextSwitchTo(old);

	for (int i = 0; i < info->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(info->desc, i);
		TypeCacheEntry *type = lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR_FINFO | TYPECACHE_HASH_PROC_FINFO);

		if (!OidIsValid(type->eq_opr_finfo.fn_oid) || !OidIsValid(type->hash_proc_finfo.fn_oid))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("could not identify an equality and a hash function for type %s",
							format_type_be(att->atttypid))));
		fmgr_info_cxt(type->eq_opr_finfo.fn_oid, &info->eqfns[i], info->context);
		fmgr_info_cxt(type->hash_proc_finfo.fn_oid, &info->hashfns[i], info->context);
		info->collations[i] = att->attcollation;
		TupleDescCopyEntry(info->keydesc, i + 1, info->desc, i + 1);
	}
}

static void
look_up_window(SxViewInfo *info, SxAnalysis *analysis)
{
	SxStreamDef *stream = sx_catalog_stream(info->def->streamid);
	Expr	   *window;
	MemoryContext old;

	if (stream == NULL)
		return;
	info->time = stream->time;
	if (info->def->strategy != SX_MERGE)
		return;
	info->window_key = sx_find_window_key(analysis, &info->time, &window);
	old = MemoryContextSwitchTo(info->context);
	info->window = copyObject(window);
	MemoryContextSwitchTo(old);
}

static void
report_altered(SxViewInfo *info, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the materialized table of continuous view \"%s\" was altered", get_rel_name(info->def->viewid)),
			 errdetail_internal("%s", detail),
			 errhint("Drop the view and create it again.")));
}

/* ---- keys ---- */

uint32
sx_key_hash(SxViewInfo *info, int key, Datum value, bool isnull)
{
	if (isnull || key == info->session_key)
		return 0;
	return DatumGetUInt32(FunctionCall1Coll(&info->hashfns[key], info->collations[key], value));
}

uint32
sx_row_hash(const uint32 *keyhashes, int nkeys)
{
	uint32		hash = 0;

	for (int i = 0; i < nkeys; i++)
		hash = hash_combine(hash, keyhashes[i]);

	/* bucket numbers are taken from the low bits */
	return murmurhash32(hash);
}

bool
sx_keys_equal(SxViewInfo *info, TupleTableSlot *a, TupleTableSlot *b)
{
	/* the last keys differ more often than the first */
	for (int i = info->nkeys - 1; i >= 0; i--)
	{
		bool		anull;
		bool		bnull;
		Datum		avalue;
		Datum		bvalue;

		if (i == info->session_key)
			continue;
		avalue = slot_getattr(a, i + 1, &anull);
		bvalue = slot_getattr(b, i + 1, &bnull);
		if (anull != bnull)
			return false;
		if (!anull &&
			!DatumGetBool(FunctionCall2Coll(&info->eqfns[i], info->collations[i], avalue, bvalue)))
			return false;
	}
	return true;
}

int
sx_keys_compare(SxViewInfo *info, TupleTableSlot *a, TupleTableSlot *b)
{
	if (info->cmpfns == NULL)
	{
		FmgrInfo   *fns = MemoryContextAllocZero(info->context, sizeof(FmgrInfo) * info->nkeys);

		for (int i = 0; i < info->nkeys; i++)
			fmgr_info_cxt(lookup_type_cache(TupleDescAttr(info->desc, i)->atttypid, TYPECACHE_CMP_PROC)->cmp_proc,
						  &fns[i], info->context);
		info->cmpfns = fns;
	}
	for (int i = 0; i < info->nkeys; i++)
	{
		bool		anull;
		bool		bnull;
		Datum		avalue = slot_getattr(a, i + 1, &anull);
		Datum		bvalue = slot_getattr(b, i + 1, &bnull);
		int			order;

		if (i == info->session_key)
			continue;
		if (anull || bnull)
			order = (int) anull - (int) bnull;
		else
			order = DatumGetInt32(FunctionCall2Coll(&info->cmpfns[i], info->collations[i], avalue, bvalue));
		if (order != 0)
			return order;
	}
	return 0;
}

bool
sx_key_fits(SxViewInfo *info, TupleTableSlot *slot)
{
	Size		size = 0;
	bool		hasnull = false;
	bool		fits;
	Datum	   *values;
	bool	   *isnull;
	MemoryContext scratch;
	MemoryContext old;

	slot_getsomeattrs(slot, info->nkeys);
	for (int i = 0; i < info->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(info->keydesc, i);

		if (slot->tts_isnull[i])
			hasnull = true;
		else if (att->attlen == -1)
			size += toast_raw_datum_size(slot->tts_values[i]);
		else if (att->attlen == -2)
			size += strlen(DatumGetCString(slot->tts_values[i])) + 1;
		else
			size += att->attlen;
	}
	if (size < KEY_BYTES_SAFE)
		return true;

	/* long values may still fit compressed: find out as the index would */
	scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext key", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(scratch);
	values = palloc(info->nkeys * sizeof(Datum));
	isnull = palloc(info->nkeys * sizeof(bool));
	for (int i = 0; i < info->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(info->keydesc, i);

		values[i] = slot->tts_values[i];
		isnull[i] = slot->tts_isnull[i];
		if (isnull[i] || att->attlen != -1)
			continue;
		if (VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			values[i] = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(values[i])));
		if (!VARATT_IS_EXTENDED(DatumGetPointer(values[i])) &&
			VARSIZE(DatumGetPointer(values[i])) > TOAST_INDEX_TARGET &&
			(att->attstorage == TYPSTORAGE_EXTENDED || att->attstorage == TYPSTORAGE_MAIN))
		{
			Datum		compressed = toast_compress_datum(values[i], att->attcompression);

			if (DatumGetPointer(compressed) != NULL)
				values[i] = compressed;
		}
	}
	size = IndexInfoFindDataOffset(hasnull ? INDEX_NULL_MASK : 0) +
		heap_compute_data_size(info->keydesc, values, isnull);
	fits = MAXALIGN(size) <= KEY_TUPLE_MAX;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return fits;
}

/* ---- rows ---- */

SxSpan
sx_row_span(SxViewInfo *info, TupleTableSlot *row)
{
	bool		isnull;
	Datum		value = slot_getattr(row, info->session_key + 1, &isnull);

	return sx_span_of(info->session_type, value, isnull);
}

void
sx_combine_rows(SxViewInfo *info, TupleTableSlot *a, TupleTableSlot *b, TupleTableSlot *into)
{
	slot_getallattrs(a);
	slot_getallattrs(b);
	ExecClearTuple(into);
	for (int i = 0; i < info->nkeys; i++)
	{
		into->tts_values[i] = a->tts_values[i];
		into->tts_isnull[i] = a->tts_isnull[i];
	}
	if (info->session_key >= 0 && !a->tts_isnull[info->session_key])
	{
		SxSpan		of_a = sx_row_span(info, a);
		SxSpan		of_b = sx_row_span(info, b);

		of_a = sx_span_union(&of_a, &of_b);
		into->tts_values[info->session_key] = sx_span_range(info->session_type, &of_a);
	}
	for (int i = 0; i < info->naggs; i++)
	{
		int			column = info->states[i];

		into->tts_values[column] = sx_agg_combine(info->aggs[i],
												  a->tts_values[column], a->tts_isnull[column],
												  b->tts_values[column], b->tts_isnull[column],
												  &into->tts_isnull[column]);
	}
	for (int i = 0; i < info->nresults; i++)
		into->tts_isnull[info->nkeys + info->results[i]] = true;
	ExecStoreVirtualTuple(into);
}

void
sx_compute_results(SxViewInfo *info, TupleTableSlot *row, const bool *wanted)
{
	for (int i = 0; i < info->nresults; i++)
	{
		int			n = info->results[i];
		int			column = info->nkeys + n;
		int			state = info->states[n];

		row->tts_isnull[column] = true;
		if (wanted == NULL || wanted[i])
			row->tts_values[column] = sx_agg_finalize(info->aggs[n], row->tts_values[state], row->tts_isnull[state],
													  &row->tts_isnull[column]);
	}
}

MinimalTuple
sx_flatten_row(SxViewInfo *info, TupleTableSlot *slot)
{
	int			natts = info->desc->natts;
	TupleTableSlot *flat = info->flat;
	MinimalTuple result;
	bool		changed = false;

	slot_getallattrs(slot);
	ExecClearTuple(flat);
	for (int i = 0; i < natts; i++)
	{
		Datum		value = slot->tts_values[i];

		flat->tts_isnull[i] = slot->tts_isnull[i];
		if (!slot->tts_isnull[i] && TupleDescAttr(info->desc, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(value)))
		{
			/* compressed stays compressed */
			value = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(value)));
			changed = true;
		}
		flat->tts_values[i] = value;
	}
	ExecStoreVirtualTuple(flat);
	result = ExecCopySlotMinimalTuple(flat);

	if (changed)
		for (int i = 0; i < natts; i++)
			if (!slot->tts_isnull[i] && flat->tts_values[i] != slot->tts_values[i])
				pfree(DatumGetPointer(flat->tts_values[i]));
	ExecClearTuple(flat);
	return result;
}
