/*
 * utility.c
 *		The utility hook: CREATE MATERIALIZED VIEW ... WITH (streamext.continuous), and the way
 *		of all other commands to view_ddl.c and stream_ddl.c.
 *
 * The hook is in every backend of every database, so the first test is the node tag and the
 * second a static variable (sx_catalog_exists).  It is not a security boundary: what core
 * checks for a command is checked by core, or here in the same way when the command never
 * reaches core.
 *
 * CREATE stands in the user's transaction: the internal relations, the catalog row and, WITH
 * NO DATA, the first position become visible together, and the consumer finds them by the
 * invalidation at commit.  A crash before the commit leaves nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlogdefs.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "commands/createas.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/event_trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "tcop/cmdtag.h"
#include "utils/acl.h"
#include "utils/snapmgr.h"

#include "capture/event_time.h"
#include "ddl/ddl_internal.h"
#include "query/view_def.h"
#include "worker/worker.h"
#include "testing/stop_points.h"

SxUtility  *sx_current_utility = NULL;

static ProcessUtility_hook_type prev_utility_hook = NULL;

static void utility_hook(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
						 ProcessUtilityContext context, ParamListInfo params,
						 QueryEnvironment *query_env, DestReceiver *dest, QueryCompletion *qc);
static bool may_concern_us(Node *stmt);
static bool has_own_options(List *options);
static void create_continuous(SxUtility *u);
static ObjectAddress create_continuous_run(SxUtility *u, void *arg);
static void store_first_position(Oid viewid);
static void refuse_explain(ExplainStmt *stmt);
static void stop_database(const char *name);
static bool on_database(Node *stmt);
static void run_with_our_names(SxUtility *u);
static void run_command(SxUtility *u);

void
sx_ddl_init(void)
{
	prev_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = utility_hook;
	sx_object_access_init();
}

static void
utility_hook(PlannedStmt *pstmt, const char *query_string, bool read_only_tree,
			 ProcessUtilityContext context, ParamListInfo params,
			 QueryEnvironment *query_env, DestReceiver *dest, QueryCompletion *qc)
{
	SxUtility	u = {
		.pstmt = pstmt,
		.stmt = pstmt->utilityStmt,
		.query_string = query_string,
		.read_only_tree = read_only_tree,
		.context = context,
		.params = params,
		.query_env = query_env,
		.dest = dest,
		.qc = qc,
		.settled = NIL,
		.outer = sx_current_utility
	};

	if (!may_concern_us(u.stmt) || sx_is_worker || IsBinaryUpgrade ||
		!IsTransactionState() || IsAbortedTransactionBlockState())
	{
		sx_utility_next(&u, NULL);
		return;
	}

	sx_current_utility = &u;
	PG_TRY();
	{
		if (IsA(u.stmt, CreateTableAsStmt))
			create_continuous(&u);
		else if (IsA(u.stmt, ExplainStmt))
		{
			refuse_explain((ExplainStmt *) u.stmt);
			sx_utility_next(&u, NULL);
		}
		else if (on_database(u.stmt) || !sx_catalog_exists())
			sx_utility_next(&u, NULL);
		else if (IsA(u.stmt, DropStmt) || IsA(u.stmt, DropOwnedStmt) ||
				 IsA(u.stmt, AlterTableStmt) || IsA(u.stmt, IndexStmt))
			run_with_our_names(&u);
		else
			run_command(&u);
	}
	PG_FINALLY();
	{
		sx_current_utility = u.outer;
	}
	PG_END_TRY();
}

/* these fail because of dependencies or open cursors, or take other objects along */
static void
run_with_our_names(SxUtility *u)
{
	SxMessages	messages;

	sx_messages_begin(&messages);
	u->messages = &messages;
	run_command(u);
	u->messages = NULL;
	sx_messages_end(&messages);
}

static void
run_command(SxUtility *u)
{
	if (sx_ddl_on_view(u))
		return;
	sx_ddl_on_stream(u);
	sx_utility_next(u, NULL);
	sx_ddl_after_stream(u);
}

/* The cheap test: may this command concern a view or a stream, if there are any? */
static bool
may_concern_us(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreateTableAsStmt:
			{
				CreateTableAsStmt *ctas = (CreateTableAsStmt *) stmt;

				return ctas->objtype == OBJECT_MATVIEW && has_own_options(ctas->into->options);
			}
		case T_AlterDatabaseStmt:
		case T_AlterObjectSchemaStmt:
		case T_AlterTableMoveAllStmt:
		case T_AlterTableStmt:
		case T_ClusterStmt:
		case T_CommentStmt:
		case T_CreateForeignTableStmt:
		case T_CreatePolicyStmt:
		case T_CreateStmt:
		case T_CreateTrigStmt:
		case T_CreatedbStmt:
		case T_DropOwnedStmt:
		case T_DropStmt:
		case T_DropdbStmt:
		case T_ExplainStmt:
		case T_GrantStmt:
		case T_IndexStmt:
		case T_RefreshMatViewStmt:
		case T_ReindexStmt:
		case T_RenameStmt:
		case T_RuleStmt:
		case T_SecLabelStmt:
		case T_TruncateStmt:
		case T_VacuumStmt:
		case T_ViewStmt:
			return true;
		default:
			return false;
	}
}

void
sx_utility_next(SxUtility *u, Node *stmt)
{
	PlannedStmt *pstmt = u->pstmt;
	bool		read_only_tree = u->read_only_tree;

	if (stmt != NULL)
	{
		pstmt = makeNode(PlannedStmt);
		*pstmt = *u->pstmt;
		pstmt->utilityStmt = stmt;
		read_only_tree = false;
	}
	if (prev_utility_hook)
		prev_utility_hook(pstmt, u->query_string, read_only_tree, u->context,
						  u->params, u->query_env, u->dest, u->qc);
	else
		standard_ProcessUtility(pstmt, u->query_string, read_only_tree, u->context,
								u->params, u->query_env, u->dest, u->qc);
}

void
sx_utility_run(SxUtility *u, CommandTag tag,
			   ObjectAddress (*run) (SxUtility *u, void *arg), void *arg)
{
	const char *name = GetCommandTagName(tag);
	bool		complete = u->context <= PROCESS_UTILITY_QUERY;
	bool		cleanup;

	PreventCommandIfReadOnly(name);
	PreventCommandIfParallelMode(name);
	PreventCommandDuringRecovery(name);

	cleanup = complete && EventTriggerBeginCompleteQuery();
	PG_TRY();
	{
		ObjectAddress address;

		if (complete)
			EventTriggerDDLCommandStart(u->stmt);
		address = run(u, arg);
		if (OidIsValid(address.objectId))
			EventTriggerCollectSimpleCommand(address, InvalidObjectAddress, u->stmt);
		if (complete)
		{
			EventTriggerSQLDrop(u->stmt);
			EventTriggerDDLCommandEnd(u->stmt);
		}
	}
	PG_FINALLY();
	{
		if (cleanup)
			EventTriggerEndCompleteQuery();
	}
	PG_END_TRY();
}

/* ---- CREATE ---- */

static bool
has_own_options(List *options)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (def->defnamespace != NULL && strcmp(def->defnamespace, SX_EXTENSION) == 0)
			return true;
	}
	return false;
}

typedef struct CreateArgs
{
	CreateTableAsStmt *stmt;	/* ours to change */
	SxViewOptions options;
} CreateArgs;

static void
create_continuous(SxUtility *u)
{
	CreateArgs	args;
	List	   *given = ((CreateTableAsStmt *) u->stmt)->into->options;
	bool		continuous = false;
	ListCell   *lc;

	sx_require_preload();
	if (!sx_catalog_exists())
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", SX_EXTENSION),
				 errhint("CREATE EXTENSION %s;", SX_EXTENSION)));

	args.stmt = copyObject((CreateTableAsStmt *) u->stmt);
	memset(&args.options, 0, sizeof(args.options));
	args.options.flush_interval = -1;
	args.stmt->into->options = sx_view_parse_options(args.stmt->into->options, &args.options,
													 &continuous);
	if (!continuous)
	{
		foreach(lc, given)
		{
			DefElem    *def = lfirst_node(DefElem, lc);

			if (def->defnamespace != NULL && strcmp(def->defnamespace, SX_EXTENSION) == 0 &&
				strcmp(def->defname, "continuous") != 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"streamext.%s\" needs a continuous view", def->defname),
						 errhint("Add streamext.continuous to the WITH clause.")));
		}
		/* streamext.continuous = false alone says: an ordinary one */
		sx_utility_next(u, (Node *) args.stmt);
		return;
	}

	sx_utility_run(u, CMDTAG_CREATE_MATERIALIZED_VIEW, create_continuous_run, &args);
}

static ObjectAddress
create_continuous_run(SxUtility *u, void *arg)
{
	CreateArgs *args = arg;
	IntoClause *into = args->stmt->into;
	ObjectAddress address;

	/* says so in a notice, as for any materialized view */
	if (CreateTableAsRelExists(args->stmt))
		return InvalidObjectAddress;

	/* before anything else: from here on the slot keeps what the view has not read */
	sx_worker_require();
	SX_STOP_POINT(create_required);

	address = sx_view_create(into, castNode(Query, args->stmt->query), &args->options);
	CommandCounterIncrement();
	if (into->skipData)
		store_first_position(address.objectId);
	return address;
}

/*
 * WITH NO DATA: the view starts at this statement's snapshot, and what commits after it is new.
 * A snapshot does not list its own transaction, which has not ended either.
 */
static void
store_first_position(Oid viewid)
{
	SxStoredPosition pos = {.watermark = SX_TIME_NONE, .removed_until = SX_TIME_NONE, .closed_until = SX_TIME_NONE};
	FullTransactionId own = GetTopFullTransactionId();
	uint64		xid = U64FromFullTransactionId(own);

	pos.viewid = viewid;
	pos.position = sx_position_without(sx_position_from_snapshot(GetActiveSnapshot()), &xid, 1);
	pos.start_lsn = InvalidXLogRecPtr;
	/* of a partition that comes back, what the stream has had before is not new: as if it had been counted */
	pos.built_by = FirstNormalTransactionId;
	sx_catalog_store_position(&pos);
	CommandCounterIncrement();
	sx_catalog_announce();
}

static void
refuse_explain(ExplainStmt *stmt)
{
	Query	   *query = (Query *) stmt->query;
	CreateTableAsStmt *ctas;

	if (!IsA(query, Query) || query->commandType != CMD_UTILITY ||
		query->utilityStmt == NULL || !IsA(query->utilityStmt, CreateTableAsStmt))
		return;
	ctas = (CreateTableAsStmt *) query->utilityStmt;
	if (ctas->objtype == OBJECT_MATVIEW && has_own_options(ctas->into->options))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot explain the creation of a continuous view"),
				 errhint("EXPLAIN the SELECT, or create the view and look at streamext.views.")));
}

/* ---- databases ---- */

/* Commands on databases, which concern us wherever they are given */
static bool
on_database(Node *stmt)
{
	ListCell   *lc;

	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			stop_database(((DropdbStmt *) stmt)->dbname);
			return true;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType != OBJECT_DATABASE)
				return false;
			stop_database(((RenameStmt *) stmt)->subname);
			return true;
		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) stmt)->options)
			{
				if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
					stop_database(((AlterDatabaseStmt *) stmt)->dbname);
			}
			return true;
		case T_CreatedbStmt:
			foreach(lc, ((CreatedbStmt *) stmt)->options)
			{
				DefElem    *def = lfirst_node(DefElem, lc);

				if (strcmp(def->defname, "template") == 0 && def->arg != NULL)
					stop_database(defGetString(def));
			}
			return true;
		default:
			return false;
	}
}

/*
 * These commands count every process in the database and wait only 5 s.  Whoever may not
 * give them does not stop our workers either; core says why.
 */
static void
stop_database(const char *name)
{
	Oid			dboid = get_database_oid(name, true);

	if (!OidIsValid(dboid) || dboid == MyDatabaseId || sx_shared == NULL ||
		sx_db_lookup(dboid, false) == NULL ||
		!SxDatabaseOwnerCheck(dboid, GetUserId()))
		return;
	sx_worker_stop_database(dboid);
}
