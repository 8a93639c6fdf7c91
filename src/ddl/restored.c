/*
 * restored.c
 *		The trigger that sees the rows of streamext.view_def and streamext.stream_def which a dump restores.
 *
 * It completes the view, or the stream's condition (catalog/restore.c), and tells the workers.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/rel.h"

#include "catalog/definitions.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(sx_view_restored);

Datum
sx_view_restored(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	SxViewDef  *def;
	Oid			table;
	Oid			relid;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		((table = RelationGetRelid(trigger->tg_relation)) != sx_catalog_table_oid("view_def") &&
		 table != sx_catalog_table_oid("stream_def")))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("view_restored is a row trigger for inserts into streamext.view_def and streamext.stream_def")));

	desc = RelationGetDescr(trigger->tg_relation);
	relid = DatumGetObjectId(heap_getattr(trigger->tg_trigtuple, 1, desc, &isnull));
	CommandCounterIncrement();
	if (table == sx_catalog_table_oid("stream_def"))
		sx_catalog_repair_condition(relid, true);
	else if ((def = sx_catalog_view(relid)) != NULL)
		(void) sx_catalog_repair_dependencies(def);
	sx_catalog_announce();
	sx_worker_announce();
	return PointerGetDatum(trigger->tg_trigtuple);
}
