/*
 * object_access.c
 *		The object access hook: catalog rows go with the objects they are about, however
 *		those are dropped (DROP of the view, CASCADE from a table, schema, owner or extension).
 *
 * The deleting command holds AccessExclusiveLock on the relation, so no flush is under way,
 * and the deletions of our rows commit or roll back with it.
 *
 * A table that gets a new file is noted (file_changes.c).
 *
 * A partition of a stream that is dropped in a way that the utility hook did not see coming
 * may have rows that nobody has read.  It is locked by now, so that they cannot be read any
 * more: if there are any, the drop fails.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "catalog/alerts.h"
#include "catalog/file_marks.h"
#include "catalog/sinks.h"
#include "ddl/ddl_internal.h"
#include "worker/worker.h"

/* How long the consumer has to say that nothing is unread */
#define UNREAD_TIMEOUT_MS	2000

static object_access_hook_type prev_object_access_hook = NULL;

static void object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg);
static void relation_dropped(Oid relid);
static void drop_sinks_into(Oid relid);
static void check_nothing_unread(Oid relid);

void
sx_object_access_init(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = object_access;
}

static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, class_id, object_id, sub_id, arg);

	if (IsBinaryUpgrade || !IsTransactionState())
		return;
	if (access == OAT_POST_ALTER && class_id == RelationRelationId && sub_id == 0 && !sx_is_worker &&
		sx_catalog_exists())
	{
		sx_file_replaced(object_id);
		return;
	}
	if (access != OAT_DROP)
		return;

	if (class_id == ExtensionRelationId)
	{
		/* by name: our cache has already noticed that the schema is gone */
		char	   *name = get_extension_name(object_id);

		if (name != NULL && strcmp(name, SX_EXTENSION) == 0)
			sx_worker_stop_at_commit();
	}
	else if (class_id == RelationRelationId && sub_id == 0 && sx_catalog_exists())
		relation_dropped(object_id);
}

static void
relation_dropped(Oid relid)
{
	SxViewDef  *def;

	switch (get_rel_relkind(relid))
	{
		case RELKIND_VIEW:
			if (sx_catalog_alert(relid) != NULL)
			{
				sx_catalog_delete_alert(relid);
				break;
			}
			def = sx_catalog_view(relid);
			if (def == NULL)
				def = sx_catalog_view_by_query(relid);
			if (def != NULL)
				sx_catalog_delete_view(def->viewid);
			else
				sx_catalog_forget_condition(relid);
			break;

		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			def = sx_catalog_view_by_mat(relid);
			if (def != NULL)
			{
				sx_catalog_delete_view(def->viewid);
				break;
			}
			if (get_rel_relispartition(relid))
				check_nothing_unread(relid);
			drop_sinks_into(relid);
			sx_catalog_delete_marks(relid);
			sx_catalog_delete_file_marks(relid, NULL, NULL);
			if (sx_catalog_stream(relid) != NULL)
				sx_catalog_delete_stream(relid);
			break;

		default:
			break;
	}
}

/* nobody could append to it any more */
static void
drop_sinks_into(Oid relid)
{
	ListCell   *lc;

	foreach(lc, sx_catalog_sinks_into(relid))
	{
		SxSink	   *sink = lfirst(lc);

		ereport(NOTICE,
				(errmsg("closed windows of continuous view \"%s\" are no longer appended to table \"%s\"",
						get_rel_name(sink->viewid), get_rel_name(relid))));
		(void) sx_catalog_delete_sink(sink->viewid, relid);
		sx_catalog_announce();
	}
}

static void
check_nothing_unread(Oid relid)
{
	List	   *streams = sx_streams_over(relid);
	ListCell   *lc;

	foreach(lc, streams)
	{
		Oid			stream = lfirst_oid(lc);
		char	   *blocker = NULL;
		bool		settled = false;

		for (SxUtility *u = sx_current_utility; u != NULL && !settled; u = u->outer)
			settled = list_member_oid(u->settled, stream);
		if (settled || stream == relid)
			continue;
		if (!sx_stream_is_flushed(stream, UNREAD_TIMEOUT_MS, &blocker))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot drop partition \"%s\" before continuous views have read its rows",
							get_rel_name(relid)),
					 errdetail("Stream \"%s\" is used by %s.", get_rel_name(stream),
							   sx_view_names(stream)),
					 errhint("Drop the partition by DROP TABLE first, or drop the views.")));
	}
}
