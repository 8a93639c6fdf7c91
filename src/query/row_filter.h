/*
 * row_filter.h
 *		Rows of a stream that a query is to leave out because they are not valid.
 */
#ifndef SX_ROW_FILTER_H
#define SX_ROW_FILTER_H

#include "query/valid.h"

#include "executor/tuptable.h"
#include "nodes/parsenodes.h"
#include "utils/snapshot.h"

typedef struct SxRowFilter SxRowFilter;

/* of the stream's columns; why it fails; runs as the owner of the stream's table, under the condition's settings */
typedef void (*SxInvalidRowFn) (void *arg, TupleTableSlot *row, const char *sqlstate, const char *message);

/*
 * Which of the rows that the snapshot sees fail the stream's condition, or make it raise an error; in the current
 * context.  NULL: there is no condition.  `tell` may be NULL.
 */
extern SxRowFilter *sx_row_filter_create(Oid streamid, Snapshot snapshot, SxInvalidRowFn tell, void *arg);
/* until end (in a PG_FINALLY), which may come without begin, the next query that is planned leaves them out */
extern void sx_row_filter_begin(SxRowFilter *filter);
extern void sx_row_filter_end(void);

/* in the planner: adds the filter that is to be added; true if there was one */
extern bool sx_row_filter_apply(Query *query);

#endif							/* SX_ROW_FILTER_H */
