/*
 * aggregate_functions.c
 *		streamext.combine(), merge() and finalize(): partial states in the text of queries.
 *
 * They say by constants which aggregate it is and what it was called with; the work is done by aggregate_state.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "query/aggregate_state.h"

/* What streamext.combine, merge and finalize keep between calls */
typedef struct AggCache
{
	Oid			aggfnoid;
	MemoryContext context;
	SxAgg	   *agg;
} AggCache;

static SxAgg *cached_agg(FunctionCallInfo fcinfo, int aggregate, int state, bool finalize);
static void check_arg_type(FunctionCallInfo fcinfo, int arg, Oid expected, const char *what, Oid aggfnoid);

PG_FUNCTION_INFO_V1(sx_combine);
PG_FUNCTION_INFO_V1(sx_merge_step);
PG_FUNCTION_INFO_V1(sx_finalize);

/*
 * The aggregate named by an argument; the types of its own arguments are those from argument 3
 * on.  Everything that can be wrong with a call, but the state's bytes, is found out here,
 * once per expression: the types of arguments are constant.
 */
static SxAgg *
cached_agg(FunctionCallInfo fcinfo, int aggregate, int state, bool finalize)
{
	FmgrInfo   *flinfo = fcinfo->flinfo;
	AggCache   *cache = flinfo->fn_extra;
	Oid			aggfnoid;
	Oid			argtypes[FUNC_MAX_ARGS];
	int			nargs = PG_NARGS() - 3;

	if (unlikely(PG_ARGISNULL(aggregate)))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("aggregate must not be null")));
	aggfnoid = PG_GETARG_OID(aggregate);

	if (likely(cache != NULL && cache->aggfnoid == aggfnoid))
		return cache->agg;

	if (nargs > 0)
	{
		if (get_fn_expr_variadic(flinfo))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument types must be given one by one, not as a VARIADIC array")));
		for (int i = 0; i < nargs; i++)
			argtypes[i] = get_fn_expr_argtype(flinfo, 3 + i);
	}
	else
	{
		Oid		   *declared;

		if (!SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(aggfnoid)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("aggregate with OID %u does not exist", aggfnoid)));
		(void) get_func_signature(aggfnoid, &declared, &nargs);
		for (int i = 0; i < nargs; i++)
		{
			if (IsPolymorphicType(declared[i]))
				ereport(ERROR,
						(errcode(ERRCODE_INDETERMINATE_DATATYPE),
						 errmsg("could not determine the argument types of aggregate %s",
								format_procedure(aggfnoid)),
						 errhint("Add a NULL of each argument's type at the end of the call.")));
			argtypes[i] = declared[i];
		}
	}

	if (cache == NULL)
		cache = flinfo->fn_extra = MemoryContextAllocZero(flinfo->fn_mcxt, sizeof(AggCache));
	cache->aggfnoid = InvalidOid;	/* until all checks are through */
	if (cache->context != NULL)
		MemoryContextDelete(cache->context);
	cache->context = NULL;
	cache->context = AllocSetContextCreate(flinfo->fn_mcxt, "streamext aggregate", ALLOCSET_SMALL_SIZES);
	cache->agg = sx_agg_create(aggfnoid, argtypes, nargs, PG_GET_COLLATION(), cache->context);
	check_arg_type(fcinfo, state, sx_agg_storage_type(cache->agg), "state", aggfnoid);
	if (finalize)
		check_arg_type(fcinfo, 2, sx_agg_result_type(cache->agg), "result", aggfnoid);
	cache->aggfnoid = aggfnoid;
	return cache->agg;
}

static void
check_arg_type(FunctionCallInfo fcinfo, int arg, Oid expected, const char *what, Oid aggfnoid)
{
	Oid			actual = get_fn_expr_argtype(fcinfo->flinfo, arg);

	if (actual != expected)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s of aggregate %s has type %s, not %s", what, format_procedure(aggfnoid),
						format_type_be(expected),
						OidIsValid(actual) ? format_type_be(actual) : "unknown")));
}

Datum
sx_combine(PG_FUNCTION_ARGS)
{
	SxAgg	   *agg = cached_agg(fcinfo, 0, 1, false);
	bool		isnull;
	Datum		result;

	result = sx_agg_combine(agg, PG_GETARG_DATUM(1), PG_ARGISNULL(1),
							PG_GETARG_DATUM(2), PG_ARGISNULL(2), &isnull);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}

/* the aggregate merge(): the first state is the value that the others are combined with */
Datum
sx_merge_step(PG_FUNCTION_ARGS)
{
	SxAgg	   *agg = cached_agg(fcinfo, 1, 2, false);
	bool		isnull = PG_ARGISNULL(2);
	Datum		result = PG_GETARG_DATUM(2);

	if (!PG_ARGISNULL(0))
		result = sx_agg_combine(agg, PG_GETARG_DATUM(0), false, PG_GETARG_DATUM(2), isnull, &isnull);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}

Datum
sx_finalize(PG_FUNCTION_ARGS)
{
	SxAgg	   *agg = cached_agg(fcinfo, 0, 1, true);
	bool		isnull;
	Datum		result;

	result = sx_agg_finalize(agg, PG_GETARG_DATUM(1), PG_ARGISNULL(1), &isnull);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}
