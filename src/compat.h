/*
 * compat.h
 *		Every difference between the PostgreSQL versions that streamext supports
 *		(15 to 18), and the only file that looks at PG_VERSION_NUM.
 *
 * Each entry names what changed in which version.
 */
#ifndef SX_COMPAT_H
#define SX_COMPAT_H

#include "postgres.h"

#include "storage/bufmgr.h"
#include "utils/rel.h"

#if PG_VERSION_NUM < 150000
#error "streamext needs PostgreSQL 15 or later"
#endif

/* 16: postgres.h no longer brings the macros of varlena values */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16: RelFileNode became RelFileLocator, and its fields were renamed */
#if PG_VERSION_NUM >= 160000
#include "storage/relfilelocator.h"
typedef RelFileLocator SxFile;
#define SxFileDb(f)				((f).dbOid)
#define SxFileNumber(f)			((f).relNumber)
#define SxFileTablespace(f)		((f).spcOid)
#define SxRelationFile(rel)		((rel)->rd_locator)
#else
#include "storage/relfilenode.h"
typedef RelFileNode SxFile;
#define SxFileDb(f)				((f).dbNode)
#define SxFileNumber(f)			((f).relNode)
#define SxFileTablespace(f)		((f).spcNode)
#define SxRelationFile(rel)		((rel)->rd_node)
#endif

static inline bool
SxFileEquals(SxFile a, SxFile b)
{
	return memcmp(&a, &b, sizeof(SxFile)) == 0;
}

/* 17: a backend's id became its process number */
#if PG_VERSION_NUM >= 170000
#define SxSmgrOpen(file)		smgropen((file), INVALID_PROC_NUMBER)
#else
#define SxSmgrOpen(file)		smgropen((file), InvalidBackendId)
#endif

/* the server's major version, kept with what a later one may not understand */
#define SX_SERVER_MAJOR			(PG_VERSION_NUM / 10000)

/* 16: pg_proc_aclcheck became object_aclcheck */
#if PG_VERSION_NUM >= 160000
#define SxProcAclCheck(oid, role)	object_aclcheck(ProcedureRelationId, (oid), (role), ACL_EXECUTE)
#else
#define SxProcAclCheck(oid, role)	pg_proc_aclcheck((oid), (role), ACL_EXECUTE)
#endif

/* 17: ShmemVariableCache became TransamVariables */
#if PG_VERSION_NUM >= 170000
#define SxXactCompletionCount() (TransamVariables->xactCompletionCount)
#else
#define SxXactCompletionCount() (ShmemVariableCache->xactCompletionCount)
#endif

/* 16: flatten_join_alias_vars gained the planner's root */
#if PG_VERSION_NUM >= 160000
#define SxFlattenAliases(query, node)	flatten_join_alias_vars(NULL, (query), (node))
#else
#define SxFlattenAliases(query, node)	flatten_join_alias_vars((query), (node))
#endif

/* 18: GROUP BY expressions moved to a range table entry; put them back */
#if PG_VERSION_NUM >= 180000
#define SxFlattenGroupEntry(query) \
	do { \
		if ((query)->hasGroupRTE) \
		{ \
			(query)->targetList = (List *) \
				flatten_group_exprs(NULL, (query), (Node *) (query)->targetList); \
			(query)->havingQual = flatten_group_exprs(NULL, (query), (query)->havingQual); \
		} \
	} while (0)
#else
#define SxFlattenGroupEntry(query)	((void) (query))
#endif
#if PG_VERSION_NUM >= 180000
#define SX_IGNORE_GROUPEXPRS	QTW_IGNORE_GROUPEXPRS
#else
#define SX_IGNORE_GROUPEXPRS	0
#endif

/* 16: permissions moved from the range table to entries of their own */
#if PG_VERSION_NUM >= 160000
#include "catalog/pg_tablespace.h"
#include "parser/parse_relation.h"
#define SxCheckQueryPermissions(query) \
	ExecCheckPermissions((query)->rtable, (query)->rteperminfos, true)
#define SxSelectedColumns(query, rte)	(getRTEPermissionInfo((query)->rteperminfos, (rte))->selectedCols)
#define SxDropPermissions(rte)	((rte)->perminfoindex = 0)
#define SxCheckAsUser(query, rte) \
	((rte)->perminfoindex == 0 ? InvalidOid : \
	 getRTEPermissionInfo((query)->rteperminfos, (rte))->checkAsUser)
#define SxQueryTakeTables(query, pstate) \
	((query)->rtable = (pstate)->p_rtable, (query)->rteperminfos = (pstate)->p_rteperminfos)
#define SxTablespaceAclCheck(oid, role)	object_aclcheck(TableSpaceRelationId, (oid), (role), ACL_CREATE)
#else
#define SxDropPermissions(rte)	((rte)->requiredPerms = 0)
#define SxCheckQueryPermissions(query)	ExecCheckRTPerms((query)->rtable, true)
#define SxSelectedColumns(query, rte)	((rte)->selectedCols)
#define SxCheckAsUser(query, rte)		((rte)->checkAsUser)
#define SxQueryTakeTables(query, pstate)	((query)->rtable = (pstate)->p_rtable)
#define SxTablespaceAclCheck(oid, role)	pg_tablespace_aclcheck((oid), (role), ACL_CREATE)
#endif

/* 16: DefineIndex gained total_parts */
#if PG_VERSION_NUM >= 160000
#define SxDefineIndex(relid, stmt) \
	DefineIndex((relid), (stmt), InvalidOid, InvalidOid, InvalidOid, -1, false, false, false, false, true)
#else
#define SxDefineIndex(relid, stmt) \
	DefineIndex((relid), (stmt), InvalidOid, InvalidOid, InvalidOid, false, false, false, false, true)
#endif

/* 18: ExecutorRun lost execute_once; ExplainState moved to a header of its own */
#if PG_VERSION_NUM >= 180000
#define SxExecutorRun(desc)	ExecutorRun((desc), ForwardScanDirection, 0)
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#else
#define SxExecutorRun(desc)	ExecutorRun((desc), ForwardScanDirection, 0, true)
#endif

/* 17: failover and synced were added; 18: error_if_invalid was added */
#if PG_VERSION_NUM >= 170000
#define SxReplicationSlotCreate(name, persistency) \
	ReplicationSlotCreate(name, false, persistency, false, false, false)
#else
#define SxReplicationSlotCreate(name, persistency) \
	ReplicationSlotCreate(name, false, persistency, false)
#endif
#if PG_VERSION_NUM >= 180000
#define SxReplicationSlotAcquire(name, nowait)	ReplicationSlotAcquire(name, nowait, false)
#else
#define SxReplicationSlotAcquire(name, nowait)	ReplicationSlotAcquire(name, nowait)
#endif

/* 16: invalidated_at became the cause of the invalidation */
#if PG_VERSION_NUM >= 160000
#define SxSlotInvalidated(slot)	((slot)->data.invalidated != RS_INVAL_NONE)
#else
#define SxSlotInvalidated(slot) \
	(!XLogRecPtrIsInvalid((slot)->data.invalidated_at) && \
	 XLogRecPtrIsInvalid((slot)->data.restart_lsn))
#endif

/* 16: a place for soft errors was added */
#if PG_VERSION_NUM >= 160000
#define SxStringToNameList(string)	stringToQualifiedNameList(string, NULL)
#else
#define SxStringToNameList(string)	stringToQualifiedNameList(string)
#endif

/* 17: old_snapshot_threshold went, and its error code with it */
#ifndef ERRCODE_SNAPSHOT_TOO_OLD
#define ERRCODE_SNAPSHOT_TOO_OLD	MAKE_SQLSTATE('7', '2', '0', '0', '0')
#endif

/* 18: pg_noreturn, before the declaration, replaced pg_attribute_noreturn(), behind it */
#ifndef pg_noreturn
#define pg_noreturn					__attribute__((noreturn))
#endif

/* 18: deferrable_ok was added */
#if PG_VERSION_NUM >= 180000
#define SxPrimaryKeyIndex(rel)		RelationGetPrimaryKeyIndex(rel, false)
#else
#define SxPrimaryKeyIndex(rel)		RelationGetPrimaryKeyIndex(rel)
#endif

/* 18: transformRelOptions takes constants */
#if PG_VERSION_NUM >= 180000
typedef const char *const SxOptionNamespace;
#else
typedef char *SxOptionNamespace;
#endif

/* 16: a place for soft errors was added */
#if PG_VERSION_NUM >= 160000
#define SxMakeRange(type, lower, upper)	make_range((type), (lower), (upper), false, NULL)
#else
#define SxMakeRange(type, lower, upper)	make_range((type), (lower), (upper), false)
#endif

/* 16: missing_ok was added */
#if PG_VERSION_NUM >= 160000
#define SxBuildAttrMapIfReq(in, out)	build_attrmap_by_name_if_req(in, out, false)
#else
#define SxBuildAttrMapIfReq(in, out)	build_attrmap_by_name_if_req(in, out)
#endif

/* 16: the ownership checks of each catalog became object_ownercheck */
#if PG_VERSION_NUM >= 160000
#define SxClassOwnerCheck(oid, role)	object_ownercheck(RelationRelationId, (oid), (role))
#define SxNamespaceOwnerCheck(oid, role) object_ownercheck(NamespaceRelationId, (oid), (role))
#define SxDatabaseOwnerCheck(oid, role) object_ownercheck(DatabaseRelationId, (oid), (role))
#else
#define SxClassOwnerCheck(oid, role)	pg_class_ownercheck((oid), (role))
#define SxNamespaceOwnerCheck(oid, role) pg_namespace_ownercheck((oid), (role))
#define SxDatabaseOwnerCheck(oid, role) pg_database_ownercheck((oid), (role))
#endif

/* 17: ALTER COLUMN SET EXPRESSION, which rewrites */
#if PG_VERSION_NUM >= 170000
#define SxIsSetExpression(subtype)		((subtype) == AT_SetExpression)
#else
#define SxIsSetExpression(subtype)		false
#endif

/* 17: a VirtualTransactionId names its process by procNumber */
#if PG_VERSION_NUM >= 170000
#include "storage/procarray.h"
#define SxVirtualXidProc(vxid)	ProcNumberGetProc((vxid).procNumber)
#define SxProcLocalXid(proc)	((proc)->vxid.lxid)
#else
#include "storage/sinvaladt.h"
#define SxVirtualXidProc(vxid)	BackendIdGetProc((vxid).backendId)
#define SxProcLocalXid(proc)	((proc)->lxid)
#endif

/* 18: index_beginscan counts for EXPLAIN */
#if PG_VERSION_NUM >= 180000
#define SxIndexBeginScan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define SxIndexBeginScan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 18: the direction of a pathkey became a CompareType */
#if PG_VERSION_NUM >= 180000
#define SxPathKeyOperator(pk, type) \
	get_opfamily_member_for_cmptype((pk)->pk_opfamily, (type), (type), (pk)->pk_cmptype)
#else
#define SxPathKeyOperator(pk, type) \
	get_opfamily_member((pk)->pk_opfamily, (type), (type), (pk)->pk_strategy)
#endif

/* 18: ExplainProperty functions moved to explain_format.h, ExplainState to explain_state.h */
#if PG_VERSION_NUM >= 180000
#define SX_EXPLAIN_HEADER		"commands/explain_format.h"
#define SX_EXPLAIN_STATE_HEADER	"commands/explain_state.h"
#else
#define SX_EXPLAIN_HEADER		"commands/explain.h"
#define SX_EXPLAIN_STATE_HEADER	"commands/explain.h"
#endif

#endif							/* SX_COMPAT_H */
