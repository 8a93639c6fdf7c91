/*
 * replace.h
 *		A continuous view gets new contents, or a new definition, while it serves: REFRESH and replace_view().
 *
 * A hidden view is made like any other, in schema streamext, with view_def.replaces naming the one whose place
 * it is to take.  Workers build it and keep it up to date as they do all views.  When it is live, a process
 * of its own (swap.c) gives its query and table to the visible view, in one transaction; the consumer keeps
 * its live state and only learns whose it is now.  So no reader meets a gap.
 */
#ifndef SX_REPLACE_H
#define SX_REPLACE_H

#include "catalog/definitions.h"

#include "nodes/parsenodes.h"

/* REFRESH: a hidden view with the same definition; returns it */
extern Oid	sx_refresh_begin(const SxViewDef *def);
/*
 * Until it has taken the place of what the view had, in transactions of our own; ERROR if it is given up, fails
 * again and again, or is kept from its place by something that lasts.
 */
extern void sx_refresh_wait(Oid viewid, Oid old_matid, Oid hidden);
/* locks all of it; nothing if it is gone by then */
extern void sx_drop_hidden(const SxViewDef *hidden);
/* ERROR if another view is to take this one's place: its definition must not change meanwhile */
extern void sx_refuse_while_replaced(const SxViewDef *def);

/* replaced_table.c: indexes that users made on one materialized table, on another one as well */
extern void sx_copy_indexes(const SxViewDef *from, const SxViewDef *to);
/* statistics target, storage, compression and options of columns that both have */
extern void sx_copy_column_settings(const SxViewDef *from, const SxViewDef *to);
typedef struct SxIndexName
{
	Oid			indexid;		/* the copy */
	char	   *name;			/* of the original */
	char	   *comment;
} SxIndexName;
extern List *sx_copied_indexes(const SxViewDef *from, const SxViewDef *to);	/* of SxIndexName * */

#endif							/* SX_REPLACE_H */
