/*
 * ddl.h
 *		The utility hook, the object access hook and the SQL functions that define things.
 */
#ifndef SX_DDL_H
#define SX_DDL_H

#include "streamext.h"

#include "catalog/definitions.h"

extern void sx_ddl_init(void);	/* chains the hooks, at load */

/*
 * The continuous view of this name for the current user, who must own it or (owner = false)
 * may SELECT from it; ERROR otherwise, or if it is no continuous view.
 */
extern SxViewDef *sx_view_for_user(Oid viewid, bool owner);
/* one SELECT; ERROR if the text is anything else */
extern struct SelectStmt *sx_parse_select(const char *text);

/* view_ddl.c: for hints, a name as a command needs it, and as the argument of a function */
extern char *sx_name_to_type(Oid relid);
extern char *sx_argument_to_type(Oid relid);

#endif							/* SX_DDL_H */
