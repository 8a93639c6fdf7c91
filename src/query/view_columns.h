/*
 * view_columns.h
 *		The columns of a continuous view, and what stands behind them.
 */
#ifndef SX_VIEW_COLUMNS_H
#define SX_VIEW_COLUMNS_H

#include "catalog/definitions.h"

#include "nodes/parsenodes.h"

/* a column of the user's view as expression over the materialized table (Var varno 1) */
extern Node *sx_view_column_expr(const SxViewDef *def, const char *colname);
/* the place in the view's stored query of the materialized table, or of what stands for it, with its columns */
extern int	sx_view_table_rti(Query *query, Oid matid);
/* their names, of char * */
extern List *sx_view_columns(const SxViewDef *def);
/* the column that is this key (from 0); NULL: the view does not put it out */
extern char *sx_view_key_column(const SxViewDef *def, int key);

#endif							/* SX_VIEW_COLUMNS_H */
