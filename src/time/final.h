/*
 * final.h
 *		Which rows of a view are final.
 */
#ifndef SX_FINAL_H
#define SX_FINAL_H

/*
 * While it is set every row counts as final, so that a view with emit = on_close shows all its groups to
 * whoever compares them with the query.  Reset by whoever sets it, also after an error.
 */
extern bool sx_all_is_final;

/* SQL-callable (src/sql/32_time.sql): streamext.is_final(view regclass, window_start anyelement) */

#endif							/* SX_FINAL_H */
