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

#include <ctype.h>

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "catalog/alerts.h"
#include "ddl/ddl_internal.h"

/* One relation whose name is to be replaced */
typedef struct InternalName
{
	char	   *name;			/* as core describes it */
	char	   *bare;			/* without its schema; NULL if that means something else */
	char	   *view;
} InternalName;

static void add_name(SxMessages *messages, Oid relid, char *view);
static char *name_of(Oid relid);
static void edit_message(void *arg);
static char *edit(const SxMessages *messages, const char *text, bool bare);
static char *replace_name(const char *text, const char *name, const char *with);
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
		add_name(messages, def->queryid, view);
		add_name(messages, def->matid, view);
	}
	foreach(lc, sx_catalog_alerts(InvalidOid))
	{
		SxAlertDef *def = lfirst(lc);
		char	   *view = name_of(def->viewid);

		if (view != NULL)
			add_name(messages, def->alertid, psprintf("%s (alert \"%s\")", view, def->name));
	}
	foreach(lc, sx_catalog_streams())
	{
		SxStreamDef *stream = lfirst(lc);
		char	   *name = name_of(stream->streamid);

		if (name != NULL && OidIsValid(stream->conditionid))
			add_name(messages, stream->conditionid, psprintf("%s (condition of the stream)", name));
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
add_name(SxMessages *messages, Oid relid, char *view)
{
	InternalName *name;
	char	   *internal = name_of(relid);
	char	   *bare = get_rel_name(relid);

	if (internal == NULL || bare == NULL)
		return;
	name = palloc(sizeof(InternalName));
	name->name = internal;
	name->bare = OidIsValid(RelnameGetRelid(bare)) ? NULL : bare;
	name->view = view;
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

static void
edit_message(void *arg)
{
	SxMessages *messages = arg;
	MemoryContext oldcontext;
	ErrorData  *edata;
	char	   *text;
	bool		bare;

	/* the innermost command knows the latest names; and no work in the worst moments */
	if (sx_current_utility == NULL || sx_current_utility->messages != messages ||
		CritSectionCount > 0 || geterrcode() == ERRCODE_OUT_OF_MEMORY)
		return;

	oldcontext = MemoryContextSwitchTo(messages->context);
	edata = CopyErrorData();
	MemoryContextSwitchTo(oldcontext);

	/* core's own messages to a user: not those of functions that it calls, nor DEBUG */
	if (edata->elevel >= INFO && edata->domain != NULL &&
		strcmp(edata->domain, PG_TEXTDOMAIN("postgres")) == 0)
	{
		/* the messages that name a table without its schema */
		bare = edata->message_id != NULL &&
			(strstr(edata->message_id, "uses its row type") != NULL ||
			 strstr(edata->message_id, "because it is being used by active queries") != NULL);
		if (messages->dropped != NULL && edata->message_id != NULL &&
			strcmp(edata->message_id,
				   "cannot drop desired object(s) because other objects depend on them") == 0)
			errmsg("cannot drop %s because other objects depend on it", messages->dropped);
		else if ((text = edit(messages, edata->message, bare)) != NULL)
			errmsg_internal("%s", text);
		if ((text = edit(messages, edata->detail, bare)) != NULL)
			errdetail_internal("%s", text);
		if ((text = edit(messages, edata->detail_log, bare)) != NULL)
			errdetail_log("%s", text);
		if ((text = edit(messages, edata->hint, bare)) != NULL)
			errhint("%s", text);
	}
	MemoryContextSwitchTo(messages->context);
	FreeErrorData(edata);
	MemoryContextSwitchTo(oldcontext);
}

/* NULL: nothing to replace */
static char *
edit(const SxMessages *messages, const char *text, bool bare)
{
	char	   *result = NULL;
	ListCell   *lc;

	if (text == NULL)
		return NULL;
	foreach(lc, messages->names)
	{
		InternalName *name = lfirst(lc);
		char	   *edited = replace_name(text, name->name, name->view);

		if (edited == NULL && bare && name->bare != NULL)
			edited = replace_name(text, name->bare, name->view);
		if (edited != NULL)
			text = result = edited;
	}
	return result;
}

static char *
replace_name(const char *text, const char *name, const char *with)
{
	StringInfoData buf;
	size_t		len = strlen(name);
	const char *from = text;
	const char *found;

	if (strstr(text, name) == NULL)
		return NULL;
	initStringInfo(&buf);
	while ((found = strstr(from, name)) != NULL)
	{
		bool		whole = (found == text || !(in_name(found[-1]) || found[-1] == '.')) &&
			!in_name(found[len]);

		appendBinaryStringInfo(&buf, from, found - from);
		appendStringInfoString(&buf, whole ? with : name);
		from = found + len;
	}
	appendStringInfoString(&buf, from);
	return buf.data;
}

static bool
in_name(char c)
{
	return !IS_HIGHBIT_SET(c) && (isalnum((unsigned char) c) || c == '_' || c == '$');
}
