/*
 * view_def.h
 *		Makes the three relations of a continuous view: the internal view that keeps the
 *		query, the materialized table with its unique index, and the view users read.
 *
 * Internals live in schema streamext under names query_<n> and mat_<n>, owned by the
 * view's owner.  Dependencies: the user's view and the materialized table each depend
 * INTERNALly on the internal query view, so that DROP ... CASCADE of a used table takes
 * everything, and DROP of the view is turned into a DROP of the query view (ddl/).
 * The user's view reads   SELECT keys, results or finalize(states) FROM mat, (SELECT) live WHERE having.
 */
#ifndef SX_VIEW_DEF_H
#define SX_VIEW_DEF_H

#include "query/analyze.h"

#include "catalog/objectaddress.h"
#include "nodes/primnodes.h"

typedef struct SxViewOptions
{
	Oid			stream;			/* InvalidOid: find it */
	bool		on_close;
	int			flush_interval; /* ms, -1: default */
	int64		retention;		/* microseconds, -1: none */
	Oid			replaces;		/* hidden, to take this view's place; the name in `into` does not count */
	List	   *settings;		/* pinned ones; NIL: those of the session */
} SxViewOptions;

/*
 * Creates everything for `into` (rel, colNames, skipData, accessMethod and tablespace of the
 * CREATE MATERIALIZED VIEW) from the analysed query, as the current user, and inserts the
 * catalog row and, without GROUP BY, the one row.  Returns the user's view.
 */
extern ObjectAddress sx_view_create(IntoClause *into, Query *query, const SxViewOptions *options);

/* the streamext.* options of a WITH clause, removed from the list; unknown ones are an ERROR;
 * *continuous says whether streamext.continuous was there and true */
extern List *sx_view_parse_options(List *defelems, SxViewOptions *options, bool *continuous);

/* the query of a view's rule, as it was when it was stored */
extern Query *sx_view_stored_query(Oid viewid);
/* options of a view that is there */
extern void sx_view_set_emit(const SxViewDef *def, bool on_close);
extern void sx_view_prepare_retention(const SxViewDef *def);
/* an index by which windows that have closed are found, if there is none; key: of the view's window */
extern void sx_view_index_window(const SxViewDef *def, int key, bool session);

#endif							/* SX_VIEW_DEF_H */
