/*
 * open_rows.h
 *		The stored form of addresses of transactions that are still open.
 */
#ifndef SX_OPEN_ROWS_H
#define SX_OPEN_ROWS_H

#include "capture/wal_tail.h"

/* what c has stored of this stream (sx_pending_store), palloc'd; NULL: nothing */
extern bytea *sx_open_rows_pack(SxCapture *c, Oid stream);
/* into a capture whose map is complete and which has not read anything yet; may be NULL */
extern void sx_open_rows_load(SxCapture *c, const bytea *packed);
/*
 * Stores what is open when the WAL that must be kept for it has grown long, at most max_bytes.
 * Cheap when nothing is to be done.
 */
extern void sx_open_rows_relieve(SxCapture *c, Size max_bytes);

#endif							/* SX_OPEN_ROWS_H */
