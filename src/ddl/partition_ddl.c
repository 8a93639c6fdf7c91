/*
 * partition_ddl.c
 *		What becomes a part of a stream, or leaves it: ATTACH, DETACH, CREATE TABLE, INHERIT.
 *
 * Attached and detached partitions are noted in streamext.attach_mark, with a snapshot taken
 * while nobody can write to them.  A partition that is new to a view brings all its rows, but for
 * those that this view had counted before it was detached from this stream.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/sinks.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "capture/position.h"
#include "catalog/file_marks.h"
#include "ddl/ddl_internal.h"
#include "testing/stop_points.h"

/* What lock_detached() needs, and yields */
typedef struct Detach
{
	SxUtility  *u;
	Oid			parent;
	PartitionCmd *cmd;
	Oid			relid;
} Detach;

static List *lock_detached(void *arg);
static void store_marks(List *streams, List *leaves, bool attached);
static void refuse_member(const char *name, const char *problem);
static void refuse_circle(Oid parent, Oid child);

void
sx_before_attach(Oid parent, PartitionCmd *cmd)
{
	List	   *streams;
	List	   *leaves = NIL;
	ListCell   *lc;
	Oid			child;

	if (get_rel_relkind(parent) != RELKIND_PARTITIONED_TABLE || (streams = sx_streams_over(parent)) == NIL)
		return;

	LockRelationOid(parent, ShareUpdateExclusiveLock);
	child = RangeVarGetRelidExtended(cmd->name, ShareRowExclusiveLock, 0,
									 RangeVarCallbackOwnsRelation, NULL);
	sx_lock_tree(child, ShareRowExclusiveLock);

	foreach(lc, sx_stream_tree(child))
	{
		Oid			relid = lfirst_oid(lc);
		char		relkind = get_rel_relkind(relid);
		Relation	rel;

		if (relkind == RELKIND_FOREIGN_TABLE)
			refuse_member(get_rel_name(relid), "a foreign table");
		if (relkind == RELKIND_PARTITIONED_TABLE)
			continue;
		rel = relation_open(relid, NoLock);
		if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
			refuse_member(RelationGetRelationName(rel), "an unlogged table");
		if (relkind == RELKIND_RELATION && rel->rd_rel->relam != HEAP_TABLE_AM_OID)
			refuse_member(RelationGetRelationName(rel), "not a heap table");
		relation_close(rel, NoLock);
		sx_check_rewritten(relid, streams);
		refuse_circle(parent, relid);
		leaves = lappend_oid(leaves, relid);
	}
	store_marks(streams, leaves, true);
}

/* a sink of a view that the stream feeds would feed the stream */
static void
refuse_circle(Oid parent, Oid child)
{
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, sx_catalog_views())
	{
		SxViewDef  *def = lfirst(lc);

		foreach(lc2, sx_catalog_sinks(def->viewid))
		{
			if (((SxSink *) lfirst(lc2))->target == child && sx_table_feeds(parent, def->streamid, NIL))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("table \"%s\" cannot become a partition of \"%s\"", get_rel_name(child), get_rel_name(parent)),
						 errdetail("It is a sink of continuous view \"%s\", which would be fed by its own rows.",
								   get_rel_name(def->viewid)),
						 errhint("streamext.drop_sink() first.")));
		}
	}
}

void
sx_before_detach(SxUtility *u, Oid parent, PartitionCmd *cmd)
{
	Detach		arg = {.u = u, .parent = parent, .cmd = cmd};
	List	   *leaves = NIL;
	ListCell   *lc;
	Oid			child;

	if (sx_streams_over(parent) == NIL)
		return;

	/* it commits in between, where our lock would end and writers could go on */
	if (cmd->concurrent)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot detach a partition of a stream concurrently"),
				 errdetail("\"%s\" is a stream, or part of one, that continuous views use.",
						   get_rel_name(parent)),
				 errhint("Use ALTER TABLE ... DETACH PARTITION without CONCURRENTLY.")));

	sx_lock_streams(u, lock_detached, &arg);
	child = arg.relid;
	if (!OidIsValid(child))
		return;

	foreach(lc, sx_stream_tree(child))
	{
		/* its rows, all ours now, are counted: if it came back they would look new */
		if (sx_rewritten_by_us(lfirst_oid(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot detach partition \"%s\" in the transaction that has rewritten it",
							get_rel_name(lfirst_oid(lc))),
					 errhint("Commit before you detach it.")));
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION)
			leaves = lappend_oid(leaves, lfirst_oid(lc));
	}
	store_marks(sx_streams_over(parent), leaves, false);
}

/* core refuses what is no partition of this one */
static List *
lock_detached(void *arg)
{
	Detach	   *d = arg;
	Oid			parent = d->parent;
	Oid			child = RangeVarGetRelid(d->cmd->name, NoLock, true);

	d->relid = InvalidOid;
	if (!OidIsValid(child) || !get_rel_relispartition(child) || get_partition_parent(child, true) != parent)
		return NIL;
	sx_settle_unlocked(sx_streams_over(parent), "DETACH PARTITION");
	LockRelationOid(parent, ShareRowExclusiveLock);
	child = RangeVarGetRelid(d->cmd->name, ShareRowExclusiveLock, true);
	if (!OidIsValid(child) || !get_rel_relispartition(child) || get_partition_parent(child, true) != parent)
		return NIL;
	sx_lock_tree(child, ShareRowExclusiveLock);
	sx_settle(d->u, sx_streams_over(parent), "DETACH PARTITION");
	d->relid = child;
	return list_make2_oid(parent, child);
}

/*
 * What we have done to a table before we attach it is in the mark, since nobody can read the rows by WAL.
 * What we have inserted into one that we detach is not: should it come back, those are new.
 */
static void
store_marks(List *streams, List *leaves, bool attached)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SxPosition *position = sx_position_from_snapshot(snapshot);
	uint64		own = U64FromFullTransactionId(GetTopFullTransactionId());
	ListCell   *lc;

	position = attached ? sx_position_with_own(position) : sx_position_without(position, &own, 1);
	foreach(lc, leaves)
	{
		ListCell   *lc2;

		foreach(lc2, streams)
			sx_catalog_add_mark(lfirst_oid(lc), lfirst_oid(lc2), attached, position);
	}
	UnregisterSnapshot(snapshot);
	SX_STOP_POINT(mark_stored);
}

static void
refuse_member(const char *name, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot make \"%s\" a partition of a stream", name),
			 errdetail("It is %s: its inserts are not in the write-ahead log as those of heap tables are.",
					   problem),
			 errhint("Use an ordinary, logged table, or drop the continuous views on the stream.")));
}

void
sx_check_inherit(const RangeVar *parent)
{
	Oid			relid = RangeVarGetRelid(parent, NoLock, true);

	if (OidIsValid(relid) && sx_catalog_stream(relid) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot inherit from stream \"%s\"", parent->relname),
				 errdetail("Rows of plain inheritance children would be missed."),
				 errhint("Use a partitioned table.")));
}

void
sx_before_create(CreateStmt *stmt, bool foreign)
{
	Oid			parent;
	ListCell   *lc;

	if (stmt->inhRelations == NIL)
		return;
	if (stmt->partbound == NULL)
	{
		foreach(lc, stmt->inhRelations)
			sx_check_inherit(lfirst_node(RangeVar, lc));
		return;
	}

	parent = RangeVarGetRelid(linitial_node(RangeVar, stmt->inhRelations), NoLock, true);
	if (!OidIsValid(parent) || sx_streams_over(parent) == NIL)
		return;
	if (foreign)
		refuse_member(stmt->relation->relname, "a foreign table");
	if (stmt->relation->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse_member(stmt->relation->relname, "an unlogged table");
	if (stmt->partspec == NULL)
	{
		const char *method = stmt->accessMethod ? stmt->accessMethod : default_table_access_method;

		if (get_am_oid(method, true) != HEAP_TABLE_AM_OID)
			refuse_member(stmt->relation->relname, "not a heap table");
	}
}
