/*
 * valid.h
 *		The condition that rows of a stream must meet: streamext.create_stream(valid => ...).
 */
#ifndef SX_VALID_H
#define SX_VALID_H

#include "catalog/definitions.h"
#include "query/plan.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"

typedef struct SxValid SxValid;

/* a new internal view for the condition, which is checked; in the declaration's transaction */
extern Oid	sx_valid_create_condition(Oid streamid, const char *condition);
/* drops the internal view, which no stream names any more */
extern void sx_valid_drop_condition(Oid conditionid);
/* as it would be written now; NULL: none */
extern char *sx_valid_text(const SxStreamDef *stream);

/* false: surely not, which needs no transaction */
extern bool sx_valid_may_exist(Oid streamid);
/* in a transaction; NULL: there is none.  The process keeps it until catalogs change. */
extern SxValid *sx_valid_of_stream(Oid streamid);

/*
 * Evaluating it, in a transaction with a snapshot, as the owner of the stream's table and under the settings
 * of its declaration, from begin to end.  False: its internal view is locked.  An error leaves the rest to
 * the abort.
 */
typedef struct SxValidRun
{
	SxValid    *valid;
	SxRunAs		as;
	EState	   *estate;
	ExprContext *econtext;
	ExprState  *state;
	AttrNumber	natts;			/* columns of the stream that it needs, from the first */
} SxValidRun;
extern bool sx_valid_begin(SxValidRun *run, SxValid *valid);
/* a slot of the stream's row type; true also if the condition is null; may raise any error */
extern bool sx_valid_test(SxValidRun *run, TupleTableSlot *slot);
extern void sx_valid_end(SxValidRun *run);
/* why a row was rejected, for its dead letter; between begin and end */
extern char *sx_valid_message(SxValidRun *run);
#define SX_INVALID_SQLSTATE "23514"
/* why a row of the stream's type that stands in no table fails the stream's condition; NULL: it does not */
extern char *sx_valid_failure(Oid streamid, HeapTuple row);

#endif							/* SX_VALID_H */
