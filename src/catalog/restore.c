/*
 * restore.c
 *		What a continuous view lacks after a dump was restored or pg_upgrade has run.
 *
 * Both bring the three relations and the row in streamext.view_def, but not the INTERNAL
 * dependencies between the relations, without which DROP ... CASCADE of the stream would leave
 * two of them behind.  A restore inserts the row by COPY, so a trigger sees it (ddl/restored.c);
 * after pg_upgrade nothing does, and a worker asks for the repair when it starts.
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
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog/definitions.h"

static bool depend_internally(Oid relid, Oid on);
static void columns_depend_internally(Oid relid, Oid on);

bool
sx_catalog_repair_dependencies(const SxViewDef *def)
{
	bool		view = depend_internally(def->viewid, def->queryid);
	bool		mat = depend_internally(def->matid, def->queryid);

	if (mat)
		columns_depend_internally(def->matid, def->queryid);
	return view || mat;
}

static bool
depend_internally(Oid relid, Oid on)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key[2];
	HeapTuple	tup;
	ObjectAddress dependent;
	ObjectAddress referenced;
	bool		found = false;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) ||
		!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(on)))
		return false;

	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyInit(&key[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, DependDependerIndexId, true, NULL, 2, key);
	while (!found && HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tup);

		found = form->refclassid == RelationRelationId && form->refobjid == on &&
			form->objsubid == 0 && form->deptype == DEPENDENCY_INTERNAL;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (found)
		return false;

	ObjectAddressSet(dependent, RelationRelationId, relid);
	ObjectAddressSet(referenced, RelationRelationId, on);
	recordDependencyOn(&dependent, &referenced, DEPENDENCY_INTERNAL);
	return true;
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
