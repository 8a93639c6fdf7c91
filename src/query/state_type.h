/*
 * state_type.h
 *		The type streamext.state: what the serialization function of an aggregate returned, and whose it is.
 */
#ifndef SX_STATE_TYPE_H
#define SX_STATE_TYPE_H

#include "postgres.h"

/* signature: of what the aggregate's OID does not say; palloc'd */
extern struct varlena *sx_state_wrap(Oid aggregate, uint32 signature, Datum bytes);
/* the bytes for the deserialization function, after every check; palloc'd */
extern bytea *sx_state_unwrap(Oid aggregate, uint32 signature, Datum state);

#endif							/* SX_STATE_TYPE_H */
