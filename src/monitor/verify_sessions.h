/*
 * verify_sessions.h
 *		What a view of sessions must show, computed from the raw rows.
 */
#ifndef SX_VERIFY_SESSIONS_H
#define SX_VERIFY_SESSIONS_H

#include "query/view_info.h"

#include "utils/snapshot.h"
#include "utils/tuplestore.h"

/*
 * The rows of the view (desc: its row type), by what the snapshot sees of its stream; as the view's owner,
 * inside SxRunAs.
 */
extern Tuplestorestate *sx_recompute_sessions(SxViewInfo *info, Snapshot snapshot, TupleDesc desc);

#endif							/* SX_VERIFY_SESSIONS_H */
