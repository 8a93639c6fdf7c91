/*
 * dead_letters.h
 *		Rejected rows, one by one: streamext.dead_letter.
 */
#ifndef SX_DEAD_LETTERS_H
#define SX_DEAD_LETTERS_H

#include "catalog/definitions.h"

#include "storage/itemptr.h"

typedef struct SxDeadLetter
{
	ItemPointerData tid;
	char	   *row;			/* jsonb as text; NULL: not known */
	char	   *message;
} SxDeadLetter;

/* of SxDeadLetter *, in the order in which they were written */
extern List *sx_catalog_dead_letters(Oid viewid);
extern void sx_catalog_delete_dead_letter(SxDeadLetter *letter);
extern void sx_catalog_update_dead_letter(SxDeadLetter *letter);	/* its message */

#endif							/* SX_DEAD_LETTERS_H */
