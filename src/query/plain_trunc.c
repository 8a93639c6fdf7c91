/*
 * plain_trunc.c
 *		date_trunc() where all that it does is to divide.
 *
 * For each row date_trunc() reads the names of the unit and of the zone, and takes the time apart into years, months and so
 * on: as much work as all the rest that a cheap view does with a row.  Without a zone, and in one that is UTC, seconds, minutes,
 * hours and days are windows of a fixed length, so tumble() gives the same, for all times there are.  It takes its place in
 * delta plans; the stored query stays what it is.
 *
 * Whether a zone given by name is UTC is asked of date_trunc() itself: names may be abbreviations, which are configured.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_func.h"
#include "pgtime.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "query/plain_trunc.h"
#include "streamext.h"

typedef struct Unit
{
	const char *name;
	int64		length;
} Unit;

static const Unit units[] = {
	{"second", USECS_PER_SEC},
	{"minute", USECS_PER_MINUTE},
	{"hour", USECS_PER_HOUR},
	{"day", USECS_PER_DAY},
};

static Node *mutator(Node *node, void *zone);
static Expr *as_tumble(FuncExpr *trunc, const char *zone);
static int64 unit_length(Node *unit);
static bool is_utc(const char *zone);
static bool trunc_is_utc(Node *zone);

Query *
sx_plain_trunc(Query *query, const char *zone)
{
	return query_tree_mutator(query, mutator, unconstify(char *, zone), 0);
}

static Node *
mutator(Node *node, void *zone)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, mutator, zone, 0);
	node = expression_tree_mutator(node, mutator, zone);
	if (IsA(node, FuncExpr))
	{
		Expr	   *tumble = as_tumble((FuncExpr *) node, zone);

		if (tumble != NULL)
			return (Node *) tumble;
	}
	return node;
}

/* NULL: it is something else, or more */
static Expr *
as_tumble(FuncExpr *trunc, const char *zone)
{
	Oid			types[] = {TIMESTAMPTZOID, INTERVALOID};
	Interval   *size;
	int64		length;
	Oid			funcid;

	switch (trunc->funcid)
	{
		case F_DATE_TRUNC_TEXT_TIMESTAMP:
			types[0] = TIMESTAMPOID;
			break;
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
			if (!is_utc(zone))
				return NULL;
			break;
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT:
			if (!trunc_is_utc(lthird(trunc->args)))
				return NULL;
			break;
		default:
			return NULL;
	}
	length = unit_length(linitial(trunc->args));
	if (length == 0)
		return NULL;
	funcid = LookupFuncName(list_make2(makeString(SX_SCHEMA), makeString("tumble")), lengthof(types), types, false);
	if (SxProcAclCheck(funcid, GetUserId()) != ACLCHECK_OK)
		return NULL;

	size = palloc0(sizeof(Interval));
	size->time = length;
	return (Expr *) makeFuncExpr(funcid, types[0],
								 list_make2(lsecond(trunc->args),
											makeConst(INTERVALOID, -1, InvalidOid, sizeof(Interval), IntervalPGetDatum(size), false, false)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

/* 0: none of those */
static int64
unit_length(Node *unit)
{
	char	   *name;

	if (!IsA(unit, Const) || ((Const *) unit)->constisnull)
		return 0;
	name = TextDatumGetCString(((Const *) unit)->constvalue);
	for (int i = 0; i < lengthof(units); i++)
		if (pg_strcasecmp(name, units[i].name) == 0)
			return units[i].length;
	return 0;
}

static bool
is_utc(const char *zone)
{
	pg_tz	   *tz = zone == NULL ? NULL : pg_tzset(zone);
	long int	offset;

	return tz != NULL && pg_get_timezone_offset(tz, &offset) && offset == 0;
}

/* the midnight before noon is at one end of the day only if there is no offset */
static bool
trunc_is_utc(Node *zone)
{
	Const	   *name = (Const *) zone;
	TimestampTz noon = USECS_PER_DAY / 2;

	return IsA(zone, Const) && !name->constisnull && is_utc(TextDatumGetCString(name->constvalue)) &&
		DatumGetTimestampTz(DirectFunctionCall3(timestamptz_trunc_zone, CStringGetTextDatum("day"),
												TimestampTzGetDatum(noon), name->constvalue)) == 0;
}
