/*
 * row_json.h
 *		Rows as JSON, and back: what dead letters keep.
 */
#ifndef SX_ROW_JSON_H
#define SX_ROW_JSON_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "fmgr.h"

/*
 * to_jsonb() of rows of this type, in the current context.  Types may have casts to JSON: rows of a stream are
 * for its owner to convert, who has chosen the types.
 */
extern void sx_row_json_function(FmgrInfo *to_jsonb, TupleDesc desc);
/* a row of the stream's type, in the current context; runs as the stream's owner; may raise any error */
extern HeapTuple sx_row_of_json(Oid streamid, const char *json);

#endif							/* SX_ROW_JSON_H */
