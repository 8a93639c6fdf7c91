/*
 * view_def_internal.h
 *		Shared by what makes the relations of a continuous view: view_def.c, table_columns.c, reading_query.c and
 *		view_windows.c.
 */
#ifndef SX_VIEW_DEF_INTERNAL_H
#define SX_VIEW_DEF_INTERNAL_H

#include "query/analyze_internal.h"
#include "query/view_def.h"

#include "utils/rel.h"

/* One column of the materialized table */
typedef struct SxTableColumn
{
	char	   *name;
	Oid			type;
	int32		typmod;
	Oid			collation;
} SxTableColumn;

/* table_columns.c: of SxTableColumn *; names: of the view's columns */
extern List *sx_table_columns(SxAnalysis *a, List *names, bool panes);
/* is the aggregate's column its result, and its state elsewhere? */
extern bool sx_stores_result(Aggref *aggref, bool panes);

/* reading_query.c: the query of the user's view */
extern Query *sx_reading_query(SxAnalysis *a, List *names, List *columns, Relation mat, bool panes);

/* view_windows.c: the key that is the view's window; an error that `what` needs one, if there is none */
extern int	sx_needed_window(SxAnalysis *a, const char *what);

#endif							/* SX_VIEW_DEF_INTERNAL_H */
