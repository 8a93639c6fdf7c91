/*
 * state_type.h
 *		The type streamext.state: the state of an aggregate as bytes, and whose it is.
 */
#ifndef SX_STATE_TYPE_H
#define SX_STATE_TYPE_H

#include "postgres.h"

/* signature: of what the aggregate's OID does not say, 0 if it says all; palloc'd */
extern struct varlena *sx_state_wrap(Oid aggregate, uint32 signature, const char *bytes, Size len);
/* the bytes, after every check, behind room for a header of so many; palloc'd */
extern char *sx_state_unwrap(Oid aggregate, uint32 signature, Datum state, Size before, Size *len);

#endif							/* SX_STATE_TYPE_H */
