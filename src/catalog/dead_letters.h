/*
 * dead_letters.h
 *		Rejected rows, one by one: streamext.dead_letter.
 */
#ifndef SX_DEAD_LETTERS_H
#define SX_DEAD_LETTERS_H

#include "catalog/definitions.h"

#include "storage/itemptr.h"
#include "utils/jsonb.h"

typedef struct SxDeadLetter
{
	ItemPointerData tid;
	char	   *row;			/* jsonb as text; NULL: not known */
	char	   *message;
	/* what is wrong with it now; NULL: what was before */
	const char *reason;
	const char *sqlstate;
} SxDeadLetter;

/* of SxDeadLetter *, in the order in which they were written */
extern List *sx_catalog_dead_letters(Oid viewid);
extern void sx_catalog_delete_dead_letter(SxDeadLetter *letter);
extern void sx_catalog_update_dead_letter(SxDeadLetter *letter);	/* all but its row */
/* the view of a dead letter; InvalidOid: there is none with this id.  With row: that becomes its row. */
extern Oid	sx_catalog_dead_letter_row(int64 id, Jsonb *row);

#endif							/* SX_DEAD_LETTERS_H */
