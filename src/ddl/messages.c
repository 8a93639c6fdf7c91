/*
 * messages.c
 *		Core's messages about dependencies, in the user's names.
 *
 * What a continuous view depends on, core records for its query view, and says so: "view
 * streamext.query_6 depends on table rates".  An error context callback around the commands
 * that look at dependencies puts the name of the user's view in its place, in the error and
 * in the notices of CASCADE.  Only words change; what core decides stands.
 *
 * The names are collected before the command runs, and the callback only edits text:
 * it may be called in the middle of anything that reports.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "ddl/ddl_internal.h"

/* One relation whose name is to be replaced */
typedef struct InternalName
{
	char	   *name;			/* as core writes it */
	char	   *meant;
} InternalName;

static void add_name(SxMessages *messages, Oid relid, const char *format, const char *view);
static char *name_of(Oid relid);
static void edit_message(void *arg);
static char *edit(const SxMessages *messages, const char *text);
static bool in_name(char c);

void
sx_messages_begin(SxMessages *messages)
{
	ListCell   *lc;

	messages->names = NIL;
	messages->dropped = NULL;
	messages->context = CurrentMemoryContext;
	foreach(lc, sx_catalog_views())
	{
		SxViewDef  *def = lfirst(lc);
		char	   *view = name_of(def->viewid);

		if (view == NULL)
			continue;
		add_name(messages, def->queryid, "%s", view);
		add_name(messages, def->matid, "\"of continuous view %s\"", view);
	}
	messages->callback.callback = edit_message;
	messages->callback.arg = messages;
	messages->callback.previous = error_context_stack;
	error_context_stack = &messages->callback;
}

void
sx_messages_end(SxMessages *messages)
{
	error_context_stack = messages->callback.previous;
}

/* the command drops nothing but this view, so an error can name it */
void
sx_messages_dropping(Oid viewid)
{
	ObjectAddress address;

	if (sx_current_utility == NULL || sx_current_utility->messages == NULL)
		return;
	ObjectAddressSet(address, RelationRelationId, viewid);
	sx_current_utility->messages->dropped = getObjectDescription(&address, false);
}

static void
add_name(SxMessages *messages, Oid relid, const char *format, const char *view)
{
	InternalName *name;
	char	   *internal = name_of(relid);

	if (internal == NULL)
		return;
	name = palloc(sizeof(InternalName));
	name->name = internal;
	name->meant = psprintf(format, view);
	messages->names = lappend(messages->names, name);
}

/* as in core's descriptions: qualified if it is not in the search path */
static char *
name_of(Oid relid)
{
	char	   *relname = get_rel_name(relid);

	if (relname == NULL)
		return NULL;
	return quote_qualified_identifier(RelationIsVisible(relid) ? NULL :
									  get_namespace_name(get_rel_namespace(relid)), relname);
}
