/*
 * file_changes.c
 *		Notes how tables of streams get new files; see catalog/file_marks.c for what the notes say.
 *
 * VACUUM FULL, CLUSTER and every rewrite by ALTER TABLE end with an exchange of files, SET
 * TABLESPACE with a copy; both call the object access hook when the new file is complete and
 * before anybody can see it, in the transaction that commits it.  There the mark is stored.
 * TRUNCATE calls no hook at the right moment, but it is one statement of ours: files are compared
 * before and after it.
 *
 * A rewrite gives all rows the id of its transaction.  So all that was committed before must be in
 * the views' tables (stream_ddl.c has locked and waited), and the transaction itself must not have
 * inserted: its rows could not be told from those that were there.
 *
 * A command that moves rows to other places in a new file, while some view has not read an earlier
 * rewrite, would mix both as well, and is refused: it waited for the views, but without a lock.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/smgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog/definitions.h"
#include "catalog/file_marks.h"
#include "ddl/ddl_internal.h"
#include "testing/stop_points.h"

/* A table that a TRUNCATE is about to empty */
typedef struct Truncated
{
	Oid			leaf;
	SxFile		file;
} Truncated;

static bool file_of(HeapTuple tuple, SxFile *file);
static bool current_file(Oid relid, SxFile *file);
static bool new_file(Oid relid, SxFile *file);
static char kind_of_change(const SxFile *file, Oid relid, bool *verbatim);
static void last_row(SxFile file, BlockNumber *block, OffsetNumber *off, bool *all_own);
static bool is_consumed(const SxFileMark *mark, void *arg);
static SxPosition *detached_at(Oid relid, List *streams);
static bool may_go(const SxFileMark *mark, void *streams);
static SxFileMark *mark_of_file(List *marks, SxFile file);
static bool has_own_rows(Relation rel, SxFileMark *mark);
static bool is_own(const SxFileMark *mark);
static bool is_own_file(const SxFileMark *mark, void *arg);

/* ---- which file ---- */

static bool
file_of(HeapTuple tuple, SxFile *file)
{
	Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

	if (form->relkind != RELKIND_RELATION || form->relpersistence != RELPERSISTENCE_PERMANENT ||
		!OidIsValid(form->relfilenode))
		return false;
	memset(file, 0, sizeof(SxFile));
	SxFileTablespace(*file) = OidIsValid(form->reltablespace) ? form->reltablespace : MyDatabaseTableSpace;
	SxFileDb(*file) = MyDatabaseId;
	SxFileNumber(*file) = form->relfilenode;
	return true;
}

/* as of the last CommandCounterIncrement */
static bool
current_file(Oid relid, SxFile *file)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = file_of(tuple, file);
	ReleaseSysCache(tuple);
	return result;
}

/* as the command has just written it */
static bool
new_file(Oid relid, SxFile *file)
{
	Relation	rel = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		result = false;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, ClassOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = file_of(tuple, file);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* ---- a file was exchanged ---- */

void
sx_file_replaced(Oid relid)
{
	SxFileMark	mark = {0};
	SxFileMark *before;
	List	   *streams;
	List	   *marks;
	ListCell   *lc;
	bool		verbatim;
	bool		all_own;

	if (!current_file(relid, &mark.old_file) || !new_file(relid, &mark.file) ||
		SxFileEquals(mark.old_file, mark.file))
		return;
	streams = sx_streams_over(relid);
	if (streams == NIL && detached_at(relid, NIL) == NULL)
		return;
	mark.leaf = relid;
	mark.kind = kind_of_change(&mark.file, relid, &verbatim);
	if (mark.kind == '\0')
		return;					/* nobody that we know: the workers will compare */
	mark.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	if (streams == NIL)
	{
		/* for sx_check_rewritten() */
		if (mark.kind == SX_FILE_REWRITTEN)
			sx_catalog_add_file_mark(&mark);
		return;
	}
	marks = sx_catalog_file_marks(relid);

	if (mark.kind == SX_FILE_REWRITTEN)
	{
		foreach(lc, streams)
			sx_require_settled(lfirst_oid(lc), relid);
		mark.writer = U64FromFullTransactionId(GetCurrentFullTransactionId());
		last_row(mark.file, &mark.last_block, &mark.last_offset, &all_own);
	}
	else if (verbatim && (before = mark_of_file(marks, mark.old_file)) != NULL &&
			 before->kind == SX_FILE_REWRITTEN)
	{
		/* the rows stand where they stood */
		mark.kind = SX_FILE_REWRITTEN;
		mark.writer = before->writer;
		mark.last_block = before->last_block;
		mark.last_offset = before->last_offset;
	}
	else
	{
		foreach(lc, marks)
		{
			SxFileMark *m = lfirst(lc);

			if (m->kind == SX_FILE_REWRITTEN && (is_own(m) || !is_consumed(m, streams)))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_IN_USE),
						 errmsg("cannot move the rows of \"%s\": it was rewritten a moment ago, and not all continuous views have read that",
								get_rel_name(relid)),
						 is_own(m) ? errhint("Commit, then run the command.") :
						 errhint("Run the command again.")));
		}
	}
	sx_catalog_delete_file_marks(relid, may_go, streams);
	sx_catalog_add_file_mark(&mark);
	SX_STOP_POINT(file_noted);
}

/*
 * By the statement that runs; '\0': none that we know.  ALTER TABLE with SET TABLESPACE among
 * other things copies the file if nothing else asks for a rewrite; then not all rows are ours.
 */
static char
kind_of_change(const SxFile *file, Oid relid, bool *verbatim)
{
	SxUtility  *u = sx_current_utility;
	bool		moves = false;
	bool		others = false;
	bool		all_own;
	BlockNumber block;
	OffsetNumber off;
	ListCell   *lc;

	*verbatim = false;
	if (u == NULL)
		return '\0';
	switch (nodeTag(u->stmt))
	{
		case T_VacuumStmt:
		case T_ClusterStmt:
			return SX_FILE_KEPT;
		case T_AlterTableMoveAllStmt:
			*verbatim = true;
			return SX_FILE_KEPT;
		case T_AlterTableStmt:
			foreach(lc, ((AlterTableStmt *) u->stmt)->cmds)
			{
				if (lfirst_node(AlterTableCmd, lc)->subtype == AT_SetTableSpace)
					moves = true;
				else
					others = true;
			}
			if (!moves)
				return SX_FILE_REWRITTEN;
			if (others)
			{
				last_row(*file, &block, &off, &all_own);
				if (all_own)
					return SX_FILE_REWRITTEN;
			}
			*verbatim = true;
			return SX_FILE_KEPT;
		default:
			return '\0';
	}
}

/* the last row of a file that nobody else can write to; all_own: our (sub-)transaction made all rows */
static void
last_row(SxFile file, BlockNumber *block, OffsetNumber *off, bool *all_own)
{
	BlockNumber nblocks = smgrnblocks(SxSmgrOpen(file), MAIN_FORKNUM);
	TransactionId own = GetCurrentTransactionId();

	*block = 0;
	*off = InvalidOffsetNumber;
	*all_own = true;
	for (BlockNumber b = nblocks; b > 0; b--)
	{
		Buffer		buffer = ReadBufferWithoutRelcache(file, MAIN_FORKNUM, b - 1, RBM_NORMAL, NULL, true);
		Page		page;
		OffsetNumber max;

		CHECK_FOR_INTERRUPTS();
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		page = BufferGetPage(buffer);
		max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
		for (OffsetNumber i = FirstOffsetNumber; i <= max && *all_own; i++)
		{
			ItemId		lp = PageGetItemId(page, i);

			if (ItemIdIsNormal(lp) &&
				HeapTupleHeaderGetRawXmin((HeapTupleHeader) PageGetItem(page, lp)) != own)
				*all_own = false;
		}
		UnlockReleaseBuffer(buffer);
		if (max > 0)
		{
			*block = b - 1;
			*off = max;
			return;
		}
	}
}

/* do all stored positions contain the command? */
static bool
is_consumed(const SxFileMark *mark, void *arg)
{
	List	   *streams = arg;
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, streams)
	{
		foreach(lc2, sx_catalog_views_of_stream(lfirst_oid(lc)))
		{
			Oid			viewid = ((SxViewDef *) lfirst(lc2))->viewid;
			SxStoredPosition *pos = sx_catalog_position(viewid);

			/* one that is stopped does not go on from there */
			if (sx_catalog_stop_reason(viewid, NULL) != NULL)
				continue;
			if (pos != NULL && pos->ours && !sx_position_contains(pos->position, mark->xid))
				return false;
		}
	}
	return true;
}

static SxFileMark *
mark_of_file(List *marks, SxFile file)
{
	ListCell   *lc;

	foreach(lc, marks)
	{
		if (SxFileEquals(((SxFileMark *) lfirst(lc))->file, file))
			return lfirst(lc);
	}
	return NULL;
}

static bool
is_own(const SxFileMark *mark)
{
	FullTransactionId own = GetTopFullTransactionIdIfAny();

	return FullTransactionIdIsValid(own) && mark->xid == U64FromFullTransactionId(own);
}

bool
sx_rewritten_by_us(Oid relid)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_file_marks(relid))
	{
		SxFileMark *mark = lfirst(lc);

		if (mark->kind == SX_FILE_REWRITTEN && is_own(mark))
			return true;
	}
	return false;
}

/* has it been rewritten, by another transaction, and not all views have read that? */
bool
sx_rewrite_is_unread(Oid relid)
{
	List	   *streams = NIL;
	ListCell   *lc;

	foreach(lc, sx_catalog_file_marks(relid))
	{
		SxFileMark *mark = lfirst(lc);

		if (mark->kind != SX_FILE_REWRITTEN || is_own(mark))
			continue;
		if (streams == NIL)
			streams = sx_streams_over(relid);
		if (!is_consumed(mark, streams))
			return true;
	}
	return false;
}

/* ---- partitions that are out ---- */

/* what a partition held when it was detached from one of these (NIL: from any); NULL: it was not, or came back */
static SxPosition *
detached_at(Oid relid, List *streams)
{
	SxAttachMark *latest = NULL;
	ListCell   *lc;

	foreach(lc, sx_catalog_marks(relid))
	{
		SxAttachMark *mark = lfirst(lc);

		if (streams != NIL && !list_member_oid(streams, mark->stream))
			continue;
		if (latest == NULL || latest->snapshot->xmax <= mark->snapshot->xmax)
			latest = mark;
	}
	return latest && !latest->attached ? latest->snapshot : NULL;
}

/*
 * Nobody needs the mark: all views on these streams have read past it, and of a rewrite, the table is not
 * out of any other stream, to which it might come back.
 */
static bool
may_go(const SxFileMark *mark, void *streams)
{
	ListCell   *lc;

	if (mark->kind == SX_FILE_REWRITTEN)
	{
		foreach(lc, sx_catalog_marks(mark->leaf))
		{
			SxAttachMark *m = lfirst(lc);

			if (!m->attached && detached_at(mark->leaf, list_make1_oid(m->stream)) != NULL)
				return false;
		}
	}
	return is_consumed(mark, streams);
}

/* Before one is attached to these: rows that were counted before it was detached must look as they did then */
void
sx_check_rewritten(Oid relid, List *streams)
{
	SxPosition *detached = detached_at(relid, streams);
	ListCell   *lc;

	if (detached == NULL)
		return;
	foreach(lc, sx_catalog_file_marks(relid))
	{
		SxFileMark *mark = lfirst(lc);

		if (mark->kind == SX_FILE_REWRITTEN && !sx_position_contains(detached, mark->xid))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot attach \"%s\" to a stream: it was rewritten after it had been detached from one",
							get_rel_name(relid)),
					 errdetail("Rows that continuous views have counted could not be told from new ones."),
					 errhint("Attach a new table that holds only the rows that are new.")));
	}
}

/* ---- before a rewrite ---- */

void
sx_check_own_rows(Oid relid, const char *command)
{
	Relation	rel;
	SxFile		file;
	bool		found;

	/* a transaction that has written nothing has inserted nothing */
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()) || !current_file(relid, &file))
		return;
	rel = relation_open(relid, NoLock);
	found = has_own_rows(rel, mark_of_file(sx_catalog_file_marks(relid), SxRelationFile(rel)));
	relation_close(rel, NoLock);
	if (found)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot run %s on \"%s\" because this transaction has inserted rows into it",
						command, get_rel_name(relid)),
				 errdetail("They could not be told from older rows, which continuous views have read."),
				 errhint("Commit before you run the command.")));
}

static bool
has_own_rows(Relation rel, SxFileMark *mark)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	bool		found = false;

	for (BlockNumber block = 0; block < nblocks && !found; block++)
	{
		Buffer		buffer;
		Page		page;
		OffsetNumber max;

		CHECK_FOR_INTERRUPTS();
		buffer = ReadBufferExtended(rel, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		page = BufferGetPage(buffer);
		max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
		for (OffsetNumber off = FirstOffsetNumber; off <= max && !found; off++)
		{
			ItemId		lp = PageGetItemId(page, off);
			HeapTupleHeader tuple;
			TransactionId xmin;

			if (!ItemIdIsNormal(lp))
				continue;
			tuple = (HeapTupleHeader) PageGetItem(page, lp);
			xmin = HeapTupleHeaderGetRawXmin(tuple);
			found = (tuple->t_infomask & HEAP_UPDATED) == 0 && TransactionIdIsNormal(xmin) &&
				TransactionIdIsCurrentTransactionId(xmin) &&
				!(mark != NULL && mark->kind == SX_FILE_REWRITTEN &&
				  sx_file_mark_covers(mark, next, xmin, block, off));
		}
		UnlockReleaseBuffer(buffer);
	}
	FreeAccessStrategy(strategy);
	return found;
}

/* ---- TRUNCATE ---- */

void
sx_before_truncate_files(SxUtility *u, List *relids)
{
	ListCell   *lc;

	foreach(lc, relids)
	{
		Truncated  *t = palloc(sizeof(Truncated));

		t->leaf = lfirst_oid(lc);
		if (sx_streams_over(t->leaf) != NIL && current_file(t->leaf, &t->file))
			u->truncated = lappend(u->truncated, t);
	}
}

/* a file that this transaction has made is emptied in place */
static bool
is_own_file(const SxFileMark *mark, void *arg)
{
	return is_own(mark) && SxFileEquals(mark->file, *(SxFile *) arg);
}

void
sx_after_truncate_files(SxUtility *u)
{
	ListCell   *lc;

	foreach(lc, u->truncated)
	{
		Truncated  *t = lfirst(lc);
		SxFileMark	mark = {0};

		if (!current_file(t->leaf, &mark.file))
			continue;
		mark.leaf = t->leaf;
		mark.kind = SX_FILE_TRUNCATED;
		mark.xid = U64FromFullTransactionId(GetTopFullTransactionId());
		mark.old_file = t->file;
		if (SxFileEquals(mark.file, t->file))
		{
			SxFileMark *own = mark_of_file(sx_catalog_file_marks(t->leaf), t->file);

			if (own == NULL)
				continue;
			/* no row of the rewrite is left */
			mark.old_file = own->old_file;
			sx_catalog_delete_file_marks(t->leaf, is_own_file, &t->file);
		}
		sx_catalog_delete_file_marks(t->leaf, may_go, sx_streams_over(t->leaf));
		sx_catalog_add_file_mark(&mark);
		SX_STOP_POINT(truncate_noted);
	}
	if (u->truncated != NIL)
		CommandCounterIncrement();
}
