/*
 * ddl_internal.h
 *		What the files of ddl/ share.
 */
#ifndef SX_DDL_INTERNAL_H
#define SX_DDL_INTERNAL_H

#include "ddl/ddl.h"

#include "catalog/definitions.h"
#include "catalog/objectaddress.h"
#include "tcop/utility.h"

/* Core's messages while a command runs, see messages.c */
typedef struct SxMessages
{
	List	   *names;
	char	   *dropped;		/* the only object of a DROP, described; or NULL */
	MemoryContext context;
	ErrorContextCallback callback;
} SxMessages;

/* One call of the utility hook */
typedef struct SxUtility
{
	PlannedStmt *pstmt;
	Node	   *stmt;			/* pstmt->utilityStmt: not ours to change */
	const char *query_string;
	bool		read_only_tree;
	ProcessUtilityContext context;
	ParamListInfo params;
	QueryEnvironment *query_env;
	DestReceiver *dest;
	QueryCompletion *qc;
	List	   *settled;		/* of Oid: streams whose rows may vanish in this statement, because
								 * they are flushed and locked, or their views go as well */
	List	   *truncated;		/* of file_changes.c */
	SxMessages *messages;		/* of a command that may name internal relations, or NULL */
	struct SxUtility *outer;
} SxUtility;

/* the innermost statement that passes through our hook, or NULL */
extern SxUtility *sx_current_utility;

/* utility.c: the next hook, or core, with this statement (NULL: the one that came) */
extern void sx_utility_next(SxUtility *u, Node *stmt);
/* runs a statement of ours with what core does around DDL: read-only checks, event triggers */
extern void sx_utility_run(SxUtility *u, CommandTag tag,
						   ObjectAddress (*run) (SxUtility *u, void *arg), void *arg);

/* messages.c: core's messages about dependencies name views, not what is behind them */
extern void sx_messages_begin(SxMessages *messages);
extern void sx_messages_end(SxMessages *messages);
extern void sx_messages_dropping(Oid viewid);

/* view_ddl.c: commands on a view's relations; true: done */
extern bool sx_ddl_on_view(SxUtility *u);
/* the view that this name has something to do with, or NULL; *relid: which relation it is */
extern SxViewDef *sx_find_view(const RangeVar *rv, Oid *relid);
extern void sx_refuse_internal(const SxViewDef *def, Oid relid);
extern RangeVar *sx_range_var_of(Oid relid);
/* ERROR unless it only tunes storage */
extern void sx_alter_internal(const SxViewDef *def, Oid relid, AlterTableStmt *stmt);

/* view_index_ddl.c; true: done */
extern bool sx_on_create_index(SxUtility *u, IndexStmt *stmt);
extern bool sx_on_alter_index(SxUtility *u, AlterTableStmt *stmt);
extern bool sx_on_drop_index(SxUtility *u, DropStmt *stmt);
extern bool sx_on_rename_index(SxUtility *u, RenameStmt *stmt);
/* where a view's index of this name is; NULL: it is none */
extern RangeVar *sx_hidden_index(const RangeVar *rv);

/* stream_ddl.c: what must happen on streams before the command runs */
extern void sx_ddl_on_stream(SxUtility *u);
extern void sx_ddl_after_stream(SxUtility *u);
/* the streams (with views) that this relation's rows belong to: itself and its ancestors */
extern List *sx_streams_over(Oid relid);
/* and those whose rows are in its partitions */
extern List *sx_streams_of_tree(Oid relid);
/* do rows of this table reach the stream, directly or through views and their sinks?  seen: NIL */
extern bool sx_table_feeds(Oid table, Oid streamid, List *seen);
/* the relation, with its partitions */
extern List *sx_stream_tree(Oid relid);
/* its partitions */
extern void sx_lock_tree(Oid relid, LOCKMODE lockmode);
/* names of a stream's views, for messages */
extern char *sx_view_names(Oid streamid);

/* partition_ddl.c */
extern void sx_before_attach(Oid parent, PartitionCmd *cmd);
extern void sx_before_detach(SxUtility *u, Oid parent, PartitionCmd *cmd);
extern void sx_before_create(CreateStmt *stmt, bool foreign);
extern void sx_check_inherit(const RangeVar *parent);

/* settle.c: until all that was committed to these streams is in their views' tables; noted in u */
extern void sx_settle(SxUtility *u, List *streams, const char *command);
/* the same before any lock is taken: a view may be waiting for a writer who would then wait for us */
extern void sx_settle_unlocked(List *streams, const char *command);
/* before a table gets a new file but keeps its rows: what is read now need not be found by a scan */
extern void sx_spare_a_scan(List *streams, const char *command);
/* a rewrite of this table is under way: ERROR unless its rows are known to be read */
extern void sx_require_settled(Oid streamid, Oid relid);
/*
 * Waits until all rows that were committed before are in the tables of all views on these streams; ERROR if one is
 * paused, stopped, or takes longer than streamext.wait_timeout.
 */
extern void sx_require_flushed(List *streams, const char *command);
extern bool sx_stream_is_flushed(Oid streamid, int timeout_ms, char **blocker);

/*
 * stream_locks.c: runs lock(), which keeps writers out and waits for views, and locks the relations that it
 * returns, in this order, for the command; all again while a writer is in the way.
 */
typedef List *(*SxLockStreams) (void *arg);
extern void sx_lock_streams(SxUtility *u, SxLockStreams lock, void *arg);

/* file_changes.c: notes of new files */
extern void sx_file_replaced(Oid relid);
extern bool sx_rewritten_by_us(Oid relid);
extern void sx_check_rewritten(Oid relid, List *streams);
extern bool sx_rewrite_is_unread(Oid relid);
extern void sx_check_own_rows(Oid relid, const char *command);
extern void sx_before_truncate_files(SxUtility *u, List *relids);
extern void sx_after_truncate_files(SxUtility *u);

/* object_access.c */
extern void sx_object_access_init(void);

#endif							/* SX_DDL_INTERNAL_H */
