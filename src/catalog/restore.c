/*
 * restore.c
 *		What a continuous view lacks after a dump was restored or pg_upgrade has run.
 *
 * Both bring the three relations and the row in streamext.view_def, but not the INTERNAL
 * dependencies between the relations, without which DROP ... CASCADE of the stream would leave
 * two of them behind.  A restore inserts the row by COPY, so a trigger sees it (ddl/restored.c);
 * after pg_upgrade nothing does, and a worker asks for the repair when it starts.
 *
 * A stream's condition is such a view, too; it goes with the stream's table and with the extension, and
 * dropping a column that it uses drops it, or is refused, as for any view.
 *
 * No position is restored (it would not be ours), so the view is built anew.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog/definitions.h"

static bool depends_on(Oid relid, Oid refclass, Oid on, DependencyType type);
static bool depend_internally(Oid relid, Oid on);
static void columns_depend_internally(Oid relid, Oid on);

bool
sx_catalog_repair_dependencies(const SxViewDef *def)
{
	bool		view = depend_internally(def->viewid, def->queryid);
	bool		mat = depend_internally(def->matid, def->queryid);

	if (mat)
		columns_depend_internally(def->matid, def->queryid);
	if (mat && OidIsValid(def->replaces) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(def->replaces)))
	{
		ObjectAddress query;
		ObjectAddress replaced;

		ObjectAddressSet(query, RelationRelationId, def->queryid);
		ObjectAddressSet(replaced, RelationRelationId, def->replaces);
		recordDependencyOn(&query, &replaced, DEPENDENCY_AUTO);
	}
	sx_catalog_repair_condition(def->streamid, false);
	return view || mat;
}

void
sx_catalog_condition_depends(Oid conditionid, Oid streamid)
{
	ObjectAddress condition;
	ObjectAddress referenced;

	ObjectAddressSet(condition, RelationRelationId, conditionid);
	ObjectAddressSet(referenced, RelationRelationId, streamid);
	recordDependencyOn(&condition, &referenced, DEPENDENCY_AUTO);
	ObjectAddressSet(referenced, ExtensionRelationId, get_extension_oid(SX_EXTENSION, false));
	recordDependencyOn(&condition, &referenced, DEPENDENCY_AUTO);
}

void
sx_catalog_repair_condition(Oid streamid, bool restored)
{
	SxStreamDef *stream = sx_catalog_stream(streamid);

	if (stream == NULL || (!OidIsValid(stream->conditionid) && stream->condition_by == 0))
		return;
	if (OidIsValid(stream->conditionid) &&
		!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(stream->conditionid)))
		stream->conditionid = InvalidOid;
	else if (OidIsValid(stream->conditionid) &&
			 !depends_on(stream->conditionid, RelationRelationId, streamid, DEPENDENCY_AUTO))
		sx_catalog_condition_depends(stream->conditionid, streamid);
	if (restored)
		sx_catalog_set_condition(streamid, stream->conditionid, stream->condition_settings);
}

static bool
depend_internally(Oid relid, Oid on)
{
	ObjectAddress dependent;
	ObjectAddress referenced;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) ||
		!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(on)) ||
		depends_on(relid, RelationRelationId, on, DEPENDENCY_INTERNAL))
		return false;
	ObjectAddressSet(dependent, RelationRelationId, relid);
	ObjectAddressSet(referenced, RelationRelationId, on);
	recordDependencyOn(&dependent, &referenced, DEPENDENCY_INTERNAL);
	return true;
}

static bool
depends_on(Oid relid, Oid refclass, Oid on, DependencyType type)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key[2];
	HeapTuple	tup;
	bool		found = false;

	ScanKeyInit(&key[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, DependDependerIndexId, true, NULL, 2, key);
	while (!found && HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tup);

		found = form->refclassid == refclass && form->refobjid == on &&
			form->objsubid == 0 && form->deptype == type;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* so that dropping a column's type with CASCADE takes the whole view, not the column */
static void
columns_depend_internally(Oid relid, Oid on)
{
	ObjectAddress dependent;
	ObjectAddress referenced;
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	int			natts;

	if (!HeapTupleIsValid(tuple))
		return;
	natts = ((Form_pg_class) GETSTRUCT(tuple))->relnatts;
	ReleaseSysCache(tuple);

	ObjectAddressSet(referenced, RelationRelationId, on);
	for (int i = 1; i <= natts; i++)
	{
		ObjectAddressSubSet(dependent, RelationRelationId, relid, i);
		recordDependencyOn(&dependent, &referenced, DEPENDENCY_INTERNAL);
	}
}
