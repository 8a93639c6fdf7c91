/*
 * attempt.h
 *		Runs something that may fail, in a subtransaction.
 */
#ifndef SX_ATTEMPT_H
#define SX_ATTEMPT_H

#include "postgres.h"

/*
 * NULL: it is done.  Otherwise what it did is undone, and this is its error, in the current memory context; that
 * the statement was canceled is raised again, unless with_cancel.
 */
extern ErrorData *sx_attempt(void (*run) (void *arg), void *arg, bool with_cancel);

#endif							/* SX_ATTEMPT_H */
