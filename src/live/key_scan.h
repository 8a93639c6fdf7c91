/*
 * key_scan.h
 *		Looking up rows of a materialized table by the unique index on its keys.
 */
#ifndef SX_KEY_SCAN_H
#define SX_KEY_SCAN_H

#include "query/view_info.h"

#include "access/genam.h"
#include "access/skey.h"

typedef struct SxKeyScan
{
	SxViewInfo *info;
	Relation	mat;
	Relation	index;
	IndexScanDesc scan;
	ScanKeyData *keys;			/* [nkeys] */
	TupleTableSlot *slot;		/* as the table's access method has it: the row found */
	FmgrInfo	begins_before;	/* sessions: comparison with a point */
	int64		point;
} SxKeyScan;

/* in the current context, where also what the scan remembers is kept; slot: of the table */
extern SxKeyScan *sx_key_scan_begin(SxViewInfo *info, Relation mat, Snapshot snapshot, TupleTableSlot *slot);
extern void sx_key_scan_end(SxKeyScan *s);
/* the row with the keys of this one, in s->slot */
extern bool sx_key_scan_find(SxKeyScan *s, TupleTableSlot *keys);
/*
 * Calls back for every stored session of the group that overlaps [from, to), the last one first; the
 * callback must not use the scan.
 */
extern void sx_key_scan_sessions(SxKeyScan *s, TupleTableSlot *keys, int64 from, int64 to,
								 void (*found) (void *arg, TupleTableSlot *row, const SxSpan *span), void *arg);

#endif							/* SX_KEY_SCAN_H */
