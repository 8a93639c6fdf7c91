/*
 * analyze_internal.h
 *		What the files that check a definition share: analyze.c (shape and
 *		relations), functions.c (functions), strategy.c (keys and aggregates).
 */
#ifndef SX_ANALYZE_INTERNAL_H
#define SX_ANALYZE_INTERNAL_H

#include "query/analyze.h"

/* functions.c: refuses functions whose result may change; the query is rewritten */
extern void sx_check_functions(Query *query);
/* the same for an alert's condition */
extern void sx_check_alert_functions(Query *query);
/* the same for the condition that rows of a stream must meet */
extern void sx_check_stream_functions(Query *query);

/* alert_def.c: a condition that comes as text; errors between begin and end point into it */
extern Node *sx_parse_condition(const char *condition, const char *example);
extern void sx_condition_errors_begin(ErrorContextCallback *callback, const char *condition);
extern void sx_condition_errors_end(ErrorContextCallback *callback);

/* view_def.c: a view in our schema that keeps a query, as the extension's owner */
extern Oid	sx_create_internal_view(Query *query, List *names, const char *relname, Oid owner);

/* strategy.c: keys and aggregates of a query; no checks */
extern void sx_split_query(Query *query, SxAnalysis *a);
/* strategy.c: refuses keys and aggregates that do not merge */
extern void sx_check_keys(Query *query, SxAnalysis *a);
extern void sx_check_aggregates(SxAnalysis *a);

#endif							/* SX_ANALYZE_INTERNAL_H */
