/*
 * catalog_internal.h
 *		What the files of catalog/ share.
 */
#ifndef SX_CATALOG_INTERNAL_H
#define SX_CATALOG_INTERNAL_H

#include "catalog/definitions.h"

#include "access/genam.h"
#include "utils/rel.h"

/* Our tables and their indexes, in the order of relation_names[] */
typedef enum SxOurRelation
{
	SX_REL_STREAM_DEF,
	SX_REL_STREAM_DEF_PKEY,
	SX_REL_VIEW_DEF,
	SX_REL_VIEW_DEF_PKEY,
	SX_REL_VIEW_DEF_QUERY_KEY,
	SX_REL_VIEW_DEF_MAT_KEY,
	SX_REL_VIEW_POSITION,
	SX_REL_VIEW_POSITION_PKEY,
	SX_REL_DEAD_LETTER,
	SX_REL_DEAD_LETTER_PKEY,
	SX_REL_DEAD_LETTER_VIEW_IDX,
	SX_REL_LOST_INTERVAL,
	SX_REL_LOST_INTERVAL_VIEW_IDX,
	SX_REL_ATTACH_MARK,
	SX_REL_ATTACH_MARK_LEAF_IDX,
	SX_REL_FILE_MARK,
	SX_REL_FILE_MARK_LEAF_IDX,
	SX_REL_VIEW_STOP,
	SX_REL_VIEW_STOP_PKEY,
	SX_REL_ALERT_DEF,
	SX_REL_ALERT_DEF_PKEY,
	SX_REL_ALERT_DEF_ALERT_KEY,
	SX_REL_ALERT_FIRED,
	SX_REL_ALERT_FIRED_KEY,
	SX_REL_ALERT_ERROR,
	SX_REL_ALERT_ERROR_PKEY,
	SX_REL_JOB_RUN,
	SX_REL_JOB_RUN_PKEY,
	SX_REL_SINK,
	SX_REL_SINK_PKEY,
	SX_REL_SINK_TARGET_IDX,
	SX_N_RELATIONS
} SxOurRelation;

/* objects.c; InvalidOid without the extension */
extern Oid	sx_our_relation(SxOurRelation which);
/* ERROR without the extension */
extern void sx_must_exist(void);
/* NULL without the extension, or while it is being dropped */
extern Relation sx_open_ours(SxOurRelation which, LOCKMODE lockmode);
extern SysScanDesc sx_scan_by_oid(Relation rel, SxOurRelation index, AttrNumber attno, Oid value,
								  Snapshot snapshot);
/* the rows where an OID column has this value; none without the extension */
typedef struct SxRows
{
	Relation	rel;
	SysScanDesc scan;
	LOCKMODE	lockmode;
} SxRows;
extern void sx_rows_open(SxRows *rows, SxOurRelation table, SxOurRelation index, AttrNumber attno, Oid value,
						 Snapshot snapshot, LOCKMODE lockmode);
extern HeapTuple sx_rows_next(SxRows *rows);	/* NULL at the end */
extern void sx_rows_close(SxRows *rows);
extern void sx_insert_row(SxOurRelation table, const Datum *values, const bool *nulls);
extern void sx_change_oid(SxOurRelation table, SxOurRelation index, AttrNumber attno, Oid from, Oid to);
extern void sx_delete_by_oid(SxOurRelation table, SxOurRelation index, AttrNumber attno, Oid value);
/* ERROR if it is null */
extern Datum sx_column(HeapTuple tup, AttrNumber attno, Relation rel);

/* positions.c: the position of one view becomes another's, which has none */
extern void sx_catalog_move_position(Oid from, Oid to);

#endif							/* SX_CATALOG_INTERNAL_H */
