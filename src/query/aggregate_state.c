/*
 * aggregate_state.c
 *		Partial aggregate states: combine and finalize by the aggregate's own functions.
 *
 * The functions of an aggregate expect to be called by the executor's Agg node: they look
 * for an AggState in their call's context, take a memory context for the transition value
 * from it, and may ask for the Aggref.  Each SxAgg has an AggState of its own with just
 * those parts filled in, and a call here is what the Agg node does for one group:
 *
 *	 combine	take the first state as the transition value, advance it by the second
 *	 finalize	take the state as the transition value, call the final function
 *
 * with the Agg node's rules for NULL and strict functions.  The transition value is always
 * a copy, detoasted to a 4-byte header, since combine functions scribble on it.  A state of
 * type internal is deserialized, worked on and serialized again, and so are the small arrays of the
 * server's avg(int) and its like, which are half a row otherwise.  For functions that are
 * not the server's own that goes strictly by the Agg node's protocol: combine functions may
 * count on an empty transition value first, and on every further one being theirs.
 *
 * Memory: functions run in the per-tuple memory of the AggState's tmpcontext, transition
 * values live in that of its aggcontext; both are reset at the end of each call, after the
 * result was copied to the caller's context.  An error leaves them as they are; the next
 * call finds `busy` set and throws away what is there, without running callbacks that an
 * aborted transaction has made void.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "executor/nodeAgg.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_agg.h"
#include "parser/parse_coerce.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "catalog/definitions.h"
#include "query/aggregate_state.h"
#include "query/state_type.h"

struct SxAgg
{
	Oid			aggfnoid;
	Oid			transtype;		/* resolved; may be INTERNALOID */
	Oid			storagetype;
	Oid			resulttype;
	bool		internal;
	Oid			element;		/* the state is an array of these, eight bytes each, of which only they are kept; or invalid */
	bool		server;			/* the functions for states are the server's own */
	bool		transbyval;
	int16		translen;
	bool		resultbyval;
	int16		resultlen;
	bool		hasfinal;
	bool		storesresult;
	bool		finalcopies;	/* the final function may modify the state */
	bool		finalnull;		/* strict and has extra arguments: always NULL */
	uint32		signature;

	FmgrInfo	combinefn;
	FmgrInfo	serialfn;
	FmgrInfo	deserialfn;
	FmgrInfo	finalfn;
	FunctionCallInfo combine;	/* calls prepared with aggstate as context */
	FunctionCallInfo serial;
	FunctionCallInfo deserial;
	FunctionCallInfo final;

	AggState   *aggstate;
	ExprContext *aggcontext;
	ExprContext *tmpcontext;
	AggStatePerTransData pertrans;	/* for AggGetAggref and AggStateIsShared */
	AggStatePerAggData peragg;
	bool		busy;			/* a call is running, or ended in an error */
};

static SxAgg *build_agg(Aggref *aggref, MemoryContext mcxt);
static Aggref *make_plain_aggref(Oid aggfnoid, const Oid *argtypes, int nargs, Oid collation);
static void check_may_execute(Oid function, Oid role, ObjectType kind);
static uint32 agg_signature(Oid aggfnoid, Oid transtype, Oid deserialfn, const Oid *argtypes, int nargs);
static FunctionCallInfo prepare_call(SxAgg *agg, FmgrInfo *flinfo, Oid function, Expr *expr, int nargs,
									 Oid collation, MemoryContext mcxt);
static Oid	packed_element(SxAgg *agg, Form_pg_aggregate form);
static Datum combine_packed(SxAgg *agg, Datum a, bool anull, Datum b, bool bnull, bool *isnull);
static Datum finalize_packed(SxAgg *agg, Datum state, bool statenull, bool *isnull);
static Datum call_combine(SxAgg *agg, Datum a, bool anull, Datum b, bool bnull, bool *isnull);
static Datum call_final(SxAgg *agg, Datum state, bool statenull, bool *isnull);
static Datum wrap(SxAgg *agg, Datum partial);
static Datum serialize(SxAgg *agg, Datum value, bool valuenull, bool *isnull);
static Datum deserialize(SxAgg *agg, Datum state, bool statenull, bool *isnull);
static Datum unwrap_array(SxAgg *agg, Datum state);
static Datum advance_internal(SxAgg *agg, Datum transvalue, bool transnull, Datum state, bool statenull,
							  bool *isnull);

/* ---- looking up an aggregate ---- */

SxAgg *
sx_agg_from_aggref(Aggref *aggref, MemoryContext mcxt)
{
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	Aggref	   *copy = copyObject(aggref);

	MemoryContextSwitchTo(old);
	return build_agg(copy, mcxt);
}

/* The types are checked against the declared ones: they may come from anybody's SQL */
SxAgg *
sx_agg_create(Oid aggfnoid, const Oid *argtypes, int nargs, Oid collation, MemoryContext mcxt)
{
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	Aggref	   *aggref = make_plain_aggref(aggfnoid, argtypes, nargs, collation);

	MemoryContextSwitchTo(old);
	return build_agg(aggref, mcxt);
}

Oid
sx_agg_function(SxAgg *agg)
{
	return agg->aggfnoid;
}

Aggref *
sx_agg_aggref(SxAgg *agg)
{
	return agg->pertrans.aggref;
}

Oid
sx_agg_storage_type(SxAgg *agg)
{
	return agg->storagetype;
}

Oid
sx_agg_result_type(SxAgg *agg)
{
	return agg->resulttype;
}

Oid
sx_agg_partial_type(SxAgg *agg)
{
	return agg->internal ? BYTEAOID : agg->transtype;
}

bool
sx_agg_packed(SxAgg *agg)
{
	return agg->internal || OidIsValid(agg->element);
}

bool
sx_agg_plain(SxAgg *agg)
{
	return !agg->hasfinal && agg->storagetype == agg->resulttype;
}

bool
sx_agg_stores_result(SxAgg *agg)
{
	return agg->storesresult;
}

bool
sx_agg_is_polymorphic(Oid aggfnoid)
{
	Oid		   *argtypes;
	int			nargs;

	(void) get_func_signature(aggfnoid, &argtypes, &nargs);
	for (int i = 0; i < nargs; i++)
	{
		if (IsPolymorphicType(argtypes[i]) || argtypes[i] == ANYOID)
			return true;
	}
	return false;
}

/* aggref is ours, in mcxt */
static SxAgg *
build_agg(Aggref *aggref, MemoryContext mcxt)
{
	MemoryContext old = MemoryContextSwitchTo(mcxt);
	Oid			aggfnoid = aggref->aggfnoid;
	Oid			collation = aggref->inputcollid;
	Oid			argtypes[FUNC_MAX_ARGS];
	int			nargs;
	int			nfinal;
	Oid			owner;
	HeapTuple	tuple;
	FormData_pg_aggregate form;
	Expr	   *expr;
	SxAgg	   *agg;

	if (aggref->aggkind != AGGKIND_NORMAL || aggref->aggorder != NIL || aggref->aggdistinct != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("aggregate %s cannot be kept as a partial state", format_procedure(aggfnoid)),
				 errdetail("Ordered-set aggregates and aggregates with DISTINCT or ORDER BY need all their input at once.")));

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", aggfnoid);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);

	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggfnoid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggfnoid);
	form = *(Form_pg_aggregate) GETSTRUCT(tuple);
	ReleaseSysCache(tuple);

	if (!OidIsValid(form.aggcombinefn) ||
		(form.aggtranstype == INTERNALOID &&
		 (!OidIsValid(form.aggserialfn) || !OidIsValid(form.aggdeserialfn) ||
		  !OidIsValid(form.aggfinalfn))))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("aggregate %s cannot be kept as a partial state", format_procedure(aggfnoid)),
				 OidIsValid(form.aggcombinefn) ?
				 errdetail("It has no serialization or no final function.") :
				 errdetail("It has no combine function.")));

	check_may_execute(aggfnoid, GetUserId(), OBJECT_AGGREGATE);
	check_may_execute(form.aggcombinefn, owner, OBJECT_FUNCTION);
	if (OidIsValid(form.aggfinalfn))
		check_may_execute(form.aggfinalfn, owner, OBJECT_FUNCTION);

	/*
	 * Unlike the Agg node, streamext.combine and streamext.finalize take states from their
	 * caller, who can make values of every type but ours.  Whoever was not allowed to call
	 * the functions directly must not get there through us.
	 */
	if (form.aggtranstype != INTERNALOID)
	{
		check_may_execute(form.aggcombinefn, GetUserId(), OBJECT_FUNCTION);
		if (OidIsValid(form.aggfinalfn))
			check_may_execute(form.aggfinalfn, GetUserId(), OBJECT_FUNCTION);
	}

	agg = palloc0(sizeof(SxAgg));
	agg->aggfnoid = aggfnoid;
	agg->internal = (form.aggtranstype == INTERNALOID);
	nargs = get_aggregate_argtypes(aggref, argtypes);
	agg->transtype = resolve_aggregate_transtype(aggfnoid, form.aggtranstype, argtypes, nargs);
	agg->resulttype = aggref->aggtype;
	agg->server = (form.aggcombinefn < FirstNormalObjectId && form.aggdeserialfn < FirstNormalObjectId);
	agg->element = packed_element(agg, &form);
	agg->storagetype = sx_agg_packed(agg) ? sx_catalog_state_type_oid() : agg->transtype;
	agg->hasfinal = OidIsValid(form.aggfinalfn);
	agg->finalcopies = (form.aggfinalmodify != AGGMODIFY_READ_ONLY);
	get_typlenbyval(agg->transtype, &agg->translen, &agg->transbyval);
	get_typlenbyval(agg->resulttype, &agg->resultlen, &agg->resultbyval);
	agg->storesresult = agg->hasfinal && aggfnoid < FirstNormalObjectId &&
		func_volatile(form.aggfinalfn) == PROVOLATILE_IMMUTABLE &&
		(agg->resultlen > 0 || agg->resulttype == NUMERICOID) && !type_is_collatable(agg->resulttype) &&
		sx_result_is_bounded(aggref);
	if (sx_agg_packed(agg))
		agg->signature = agg_signature(aggfnoid, agg->transtype, form.aggdeserialfn, argtypes, nargs);

	aggref->aggtranstype = agg->transtype;
	agg->aggstate = makeNode(AggState);
	agg->aggcontext = CreateStandaloneExprContext();
	agg->tmpcontext = CreateStandaloneExprContext();
	agg->aggstate->curaggcontext = agg->aggcontext;
	agg->aggstate->tmpcontext = agg->tmpcontext;
	agg->aggstate->aggsplit = AGGSPLIT_SIMPLE;
	agg->aggstate->numaggs = 1;
	agg->aggstate->numtrans = 1;
	agg->aggstate->peragg = &agg->peragg;
	agg->aggstate->pertrans = &agg->pertrans;
	agg->pertrans.aggref = aggref;
	agg->pertrans.aggtranstype = agg->transtype;
	agg->pertrans.aggCollation = collation;
	agg->peragg.aggref = aggref;

	build_aggregate_transfn_expr(&agg->transtype, 1, 0, false, agg->transtype, collation,
								 form.aggcombinefn, InvalidOid, &expr, NULL);
	agg->combine = prepare_call(agg, &agg->combinefn, form.aggcombinefn, expr, 2, collation, mcxt);

	if (agg->internal)
	{
		if (agg->combinefn.fn_strict)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
					 errmsg("combine function with transition type %s must not be declared STRICT",
							format_type_be(agg->transtype))));

		check_may_execute(form.aggserialfn, owner, OBJECT_FUNCTION);
		check_may_execute(form.aggdeserialfn, owner, OBJECT_FUNCTION);
		build_aggregate_serialfn_expr(form.aggserialfn, &expr);
		agg->serial = prepare_call(agg, &agg->serialfn, form.aggserialfn, expr, 1, InvalidOid, mcxt);
		build_aggregate_deserialfn_expr(form.aggdeserialfn, &expr);
		agg->deserial = prepare_call(agg, &agg->deserialfn, form.aggdeserialfn, expr, 2, InvalidOid, mcxt);
		/* the second argument only makes the function impossible to call from SQL */
		agg->deserial->args[1].value = (Datum) 0;
		agg->deserial->args[1].isnull = false;
	}

	if (agg->hasfinal)
	{
		nfinal = form.aggfinalextra ? nargs + 1 : 1;
		build_aggregate_finalfn_expr(argtypes, nfinal, agg->transtype, agg->resulttype, collation,
									 form.aggfinalfn, &expr);
		agg->final = prepare_call(agg, &agg->finalfn, form.aggfinalfn, expr, nfinal, collation, mcxt);
		for (int i = 1; i < nfinal; i++)
		{
			agg->final->args[i].value = (Datum) 0;
			agg->final->args[i].isnull = true;
		}
		agg->finalnull = (agg->finalfn.fn_strict && nfinal > 1);
	}

	MemoryContextSwitchTo(old);
	return agg;
}

/*
 * An Aggref that is good enough for the functions: the aggregate over NULL constants of
 * these types.
 */
static Aggref *
make_plain_aggref(Oid aggfnoid, const Oid *argtypes, int nargs, Oid collation)
{
	Aggref	   *aggref = makeNode(Aggref);
	Oid		   *declared;
	Oid			actual[FUNC_MAX_ARGS];
	int			ndeclared;
	Oid			rettype;
	HeapTuple	tuple;
	char		kind;

	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggfnoid));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("function %s is not an aggregate",
						DatumGetCString(DirectFunctionCall1(regprocedureout, ObjectIdGetDatum(aggfnoid))))));
	kind = ((Form_pg_aggregate) GETSTRUCT(tuple))->aggkind;
	ReleaseSysCache(tuple);

	rettype = get_func_signature(aggfnoid, &declared, &ndeclared);

	/* with VARIADIC "any", there may be more arguments than declared ones */
	if (nargs > FUNC_MAX_ARGS || nargs < ndeclared ||
		(nargs > ndeclared && get_func_variadictype(aggfnoid) != ANYOID))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("aggregate %s has another number of arguments", format_procedure(aggfnoid)),
				 errdetail("It takes %d, given are the types of %d.", ndeclared, nargs)));
	for (int i = 0; i < ndeclared; i++)
	{
		actual[i] = argtypes[i];
		if (declared[i] != actual[i] && declared[i] != ANYOID && !IsPolymorphicType(declared[i]))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("argument %d of aggregate %s has type %s, not %s", i + 1,
							format_procedure(aggfnoid), format_type_be(declared[i]),
							format_type_be(actual[i]))));
	}
	rettype = enforce_generic_type_consistency(actual, declared, ndeclared, rettype, false);

	aggref->aggfnoid = aggfnoid;
	aggref->aggtype = rettype;
	aggref->aggcollid = type_is_collatable(rettype) ? collation : InvalidOid;
	aggref->inputcollid = collation;
	aggref->aggkind = kind;
	aggref->aggstar = (nargs == 0);
	aggref->aggsplit = AGGSPLIT_SIMPLE;
	aggref->location = -1;
	for (int i = 0; i < nargs; i++)
	{
		Const	   *arg = makeNullConst(argtypes[i], -1,
										type_is_collatable(argtypes[i]) ? collation : InvalidOid);

		aggref->aggargtypes = lappend_oid(aggref->aggargtypes, argtypes[i]);
		aggref->args = lappend(aggref->args, makeTargetEntry((Expr *) arg, i + 1, NULL, false));
	}
	return aggref;
}

/* the Agg node checks the aggregate for the user and its functions for the aggregate's owner */
static void
check_may_execute(Oid function, Oid role, ObjectType kind)
{
	AclResult	result = SxProcAclCheck(function, role);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, kind, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

/* of the server's own that count and sum in an array, which starts with zeros; its type is declared: others take arrays */
static Oid
packed_element(SxAgg *agg, Form_pg_aggregate form)
{
	if (agg->aggfnoid >= FirstNormalObjectId || !agg->server || !OidIsValid(form->aggfinalfn) ||
		!func_strict(form->aggcombinefn))
		return InvalidOid;
	switch (form->aggtranstype)
	{
		case INT8ARRAYOID:
			return INT8OID;
		case FLOAT8ARRAYOID:
			return FLOAT8OID;
		default:
			return InvalidOid;
	}
}

/* 0: an aggregate of the server's that its OID describes */
static uint32
agg_signature(Oid aggfnoid, Oid transtype, Oid deserialfn, const Oid *argtypes, int nargs)
{
	uint32		hash = hash_combine(murmurhash32(transtype), murmurhash32(deserialfn));
	Oid		   *declared;
	int			ndeclared;

	/* only the arguments whose type the aggregate's OID does not say */
	if (aggfnoid < FirstNormalObjectId && transtype < FirstNormalObjectId && deserialfn < FirstNormalObjectId &&
		!sx_agg_is_polymorphic(aggfnoid))
		return 0;
	(void) get_func_signature(aggfnoid, &declared, &ndeclared);
	for (int i = 0; i < nargs; i++)
		if (i >= ndeclared || declared[i] == ANYOID || IsPolymorphicType(declared[i]))
			hash = hash_combine(hash, murmurhash32(argtypes[i]));
	return hash;
}

static FunctionCallInfo
prepare_call(SxAgg *agg, FmgrInfo *flinfo, Oid function, Expr *expr, int nargs, Oid collation,
			 MemoryContext mcxt)
{
	FunctionCallInfo fcinfo = palloc0(SizeForFunctionCallInfo(nargs));

	fmgr_info_cxt(function, flinfo, mcxt);
	fmgr_info_set_expr((Node *) expr, flinfo);
	InitFunctionCallInfoData(*fcinfo, flinfo, nargs, collation, (Node *) agg->aggstate, NULL);
	return fcinfo;
}

/* ---- combine and finalize ---- */

static inline void
begin_call(SxAgg *agg)
{
	if (unlikely(agg->busy))
	{
		agg->aggcontext->ecxt_callbacks = NULL;
		agg->tmpcontext->ecxt_callbacks = NULL;
		MemoryContextReset(agg->aggcontext->ecxt_per_tuple_memory);
		MemoryContextReset(agg->tmpcontext->ecxt_per_tuple_memory);
	}
	agg->busy = true;
}

static inline void
end_call(SxAgg *agg)
{
	ReScanExprContext(agg->aggcontext);
	ReScanExprContext(agg->tmpcontext);
	agg->busy = false;
}

void
sx_agg_reset(SxAgg *agg)
{
	begin_call(agg);
	end_call(agg);
}

Datum
sx_agg_wrap(SxAgg *agg, Datum partial, bool isnull)
{
	return isnull || !sx_agg_packed(agg) ? partial : wrap(agg, partial);
}

Datum
sx_agg_combine(SxAgg *agg, Datum a, bool anull, Datum b, bool bnull, bool *isnull)
{
	MemoryContext old;
	Datum		copy = (Datum) 0;
	Datum		result;

	if (sx_agg_packed(agg))
		return combine_packed(agg, a, anull, b, bnull, isnull);

	/* a strict function never sees a NULL: the first state that is not one is the value */
	if (agg->combinefn.fn_strict && (anull || bnull))
	{
		*isnull = anull && bnull;
		return anull ? b : a;
	}

	if (!agg->transbyval && !anull)
		copy = agg->translen == -1 ? PointerGetDatum(PG_DETOAST_DATUM_COPY(a)) :
			datumCopy(a, false, agg->translen);
	else
		copy = a;

	begin_call(agg);
	old = MemoryContextSwitchTo(agg->tmpcontext->ecxt_per_tuple_memory);
	result = call_combine(agg, copy, anull, b, bnull, isnull);
	MemoryContextSwitchTo(old);

	/* what is neither of the arguments lies in memory that end_call() takes away */
	if (!agg->transbyval && !*isnull &&
		(anull || result != copy) && (bnull || result != b))
		result = datumCopy(result, false, agg->translen);
	end_call(agg);
	return result;
}

Datum
sx_agg_finalize(SxAgg *agg, Datum state, bool statenull, bool *isnull)
{
	MemoryContext old;
	Datum		result;

	if (sx_agg_packed(agg))
		return finalize_packed(agg, state, statenull, isnull);

	if (!agg->hasfinal)
	{
		*isnull = statenull;
		return state;
	}
	if (agg->finalnull || (statenull && agg->finalfn.fn_strict))
	{
		*isnull = true;
		return (Datum) 0;
	}

	begin_call(agg);
	old = MemoryContextSwitchTo(agg->tmpcontext->ecxt_per_tuple_memory);
	if (!agg->transbyval && !statenull)
	{
		if (!agg->finalcopies)
			state = MakeExpandedObjectReadOnly(state, false, agg->translen);
		else if (agg->translen == -1)
			state = PointerGetDatum(PG_DETOAST_DATUM_COPY(state));
		else
			state = datumCopy(state, false, agg->translen);
	}
	result = call_final(agg, state, statenull, isnull);
	MemoryContextSwitchTo(old);

	if (!agg->resultbyval && !*isnull)
		result = datumCopy(result, false, agg->resultlen);
	end_call(agg);
	return result;
}

static Datum
combine_packed(SxAgg *agg, Datum a, bool anull, Datum b, bool bnull, bool *isnull)
{
	MemoryContext old;
	Datum		value = (Datum) 0;
	Datum		other;
	bool		valuenull = true;
	bool		othernull;

	/* the Agg node skips a NULL that it cannot deserialize, or combine: the other state is the value */
	if ((OidIsValid(agg->element) || agg->deserialfn.fn_strict) && (anull || bnull))
	{
		*isnull = anull && bnull;
		return anull ? b : a;
	}

	begin_call(agg);
	if (agg->server)
	{
		/* the server's own functions take a fresh state as the transition value */
		old = MemoryContextSwitchTo(agg->aggcontext->ecxt_per_tuple_memory);
		value = deserialize(agg, a, anull, &valuenull);
		MemoryContextSwitchTo(agg->tmpcontext->ecxt_per_tuple_memory);
		other = deserialize(agg, b, bnull, &othernull);
		value = call_combine(agg, value, valuenull, other, othernull, &valuenull);
	}
	else
	{
		old = MemoryContextSwitchTo(agg->tmpcontext->ecxt_per_tuple_memory);
		value = advance_internal(agg, value, valuenull, a, anull, &valuenull);
		value = advance_internal(agg, value, valuenull, b, bnull, &valuenull);
	}

	value = serialize(agg, value, valuenull, isnull);
	MemoryContextSwitchTo(old);
	value = *isnull ? (Datum) 0 : wrap(agg, value);
	end_call(agg);
	return value;
}

static Datum
finalize_packed(SxAgg *agg, Datum state, bool statenull, bool *isnull)
{
	MemoryContext old;
	Datum		value = (Datum) 0;
	bool		valuenull = true;

	if (agg->finalnull || (statenull && agg->finalfn.fn_strict))
	{
		*isnull = true;
		return (Datum) 0;
	}

	begin_call(agg);
	old = MemoryContextSwitchTo(agg->tmpcontext->ecxt_per_tuple_memory);
	if (!statenull && agg->server)
	{
		MemoryContextSwitchTo(agg->aggcontext->ecxt_per_tuple_memory);
		value = deserialize(agg, state, false, &valuenull);
		MemoryContextSwitchTo(agg->tmpcontext->ecxt_per_tuple_memory);
	}
	else if (!statenull)
		value = advance_internal(agg, value, true, state, false, &valuenull);

	/* no aggregate returns internal, so there is a final function */
	if (valuenull && agg->finalfn.fn_strict)
		*isnull = true;
	else
		value = call_final(agg, value, valuenull, isnull);
	MemoryContextSwitchTo(old);

	if (*isnull)
		value = (Datum) 0;
	else if (!agg->resultbyval)
		value = datumCopy(value, false, agg->resultlen);
	end_call(agg);
	return value;
}

static inline Datum
call_combine(SxAgg *agg, Datum a, bool anull, Datum b, bool bnull, bool *isnull)
{
	FunctionCallInfo fcinfo = agg->combine;
	Datum		result;

	fcinfo->args[0].value = a;
	fcinfo->args[0].isnull = anull;
	fcinfo->args[1].value = b;
	fcinfo->args[1].isnull = bnull;
	fcinfo->isnull = false;
	agg->aggstate->curpertrans = &agg->pertrans;
	result = FunctionCallInvoke(fcinfo);
	agg->aggstate->curpertrans = NULL;
	*isnull = fcinfo->isnull;
	return result;
}

static inline Datum
call_final(SxAgg *agg, Datum state, bool statenull, bool *isnull)
{
	FunctionCallInfo fcinfo = agg->final;
	Datum		result;

	/* an error in the combine function may have left this set */
	agg->aggstate->curpertrans = NULL;
	agg->aggstate->curperagg = &agg->peragg;
	fcinfo->args[0].value = state;
	fcinfo->args[0].isnull = statenull;
	fcinfo->isnull = false;
	result = FunctionCallInvoke(fcinfo);
	agg->aggstate->curperagg = NULL;
	*isnull = fcinfo->isnull;
	return result;
}

/* what a partial plan puts out -> the column's value */
static Datum
wrap(SxAgg *agg, Datum partial)
{
	Datum		result;

	if (OidIsValid(agg->element))
	{
		ArrayType  *array = DatumGetArrayTypeP(partial);

		if (ARR_NDIM(array) != 1 || ARR_HASNULL(array) || ARR_LBOUND(array)[0] != 1 || ARR_ELEMTYPE(array) != agg->element)
			elog(ERROR, "state of aggregate %s is not an array of numbers", format_procedure(agg->aggfnoid));
		result = PointerGetDatum(sx_state_wrap(agg->aggfnoid, agg->signature, ARR_DATA_PTR(array),
											   ARR_DIMS(array)[0] * sizeof(int64)));
		if ((Pointer) array != DatumGetPointer(partial))
			pfree(array);
	}
	else
	{
		bytea	   *bytes = DatumGetByteaPP(partial);

		result = PointerGetDatum(sx_state_wrap(agg->aggfnoid, agg->signature, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)));
		if ((Pointer) bytes != DatumGetPointer(partial))
			pfree(bytes);
	}
	return result;
}

/* a transition value -> what a partial plan would put out */
static Datum
serialize(SxAgg *agg, Datum value, bool valuenull, bool *isnull)
{
	FunctionCallInfo fcinfo = agg->serial;

	if (!agg->internal || (valuenull && agg->serialfn.fn_strict))
	{
		*isnull = valuenull;
		return value;
	}
	fcinfo->args[0].value = value;
	fcinfo->args[0].isnull = valuenull;
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	*isnull = fcinfo->isnull;
	return value;
}

/* in CurrentMemoryContext; the bytes themselves too, which states may point into */
static Datum
deserialize(SxAgg *agg, Datum state, bool statenull, bool *isnull)
{
	FunctionCallInfo fcinfo = agg->deserial;
	char	   *bytes = NULL;
	Size		len;
	Datum		result;

	if (!agg->internal)
	{
		*isnull = statenull;
		return statenull ? (Datum) 0 : unwrap_array(agg, state);
	}
	if (!statenull)
	{
		bytes = sx_state_unwrap(agg->aggfnoid, agg->signature, state, VARHDRSZ, &len);
		SET_VARSIZE(bytes, VARHDRSZ + len);
	}
	fcinfo->args[0].value = PointerGetDatum(bytes);
	fcinfo->args[0].isnull = statenull;
	fcinfo->isnull = false;
	agg->aggstate->curpertrans = &agg->pertrans;
	result = FunctionCallInvoke(fcinfo);
	agg->aggstate->curpertrans = NULL;
	*isnull = fcinfo->isnull;
	return result;
}

static Datum
unwrap_array(SxAgg *agg, Datum state)
{
	Size		len;
	ArrayType  *array = (ArrayType *) sx_state_unwrap(agg->aggfnoid, agg->signature, state, ARR_OVERHEAD_NONULLS(1), &len);

	SET_VARSIZE(array, ARR_OVERHEAD_NONULLS(1) + len);
	array->ndim = 1;
	array->dataoffset = 0;		/* no NULLs */
	array->elemtype = agg->element;
	ARR_DIMS(array)[0] = len / sizeof(int64);
	ARR_LBOUND(array)[0] = 1;
	return PointerGetDatum(array);
}

/* one step of the Agg node over partial states */
static Datum
advance_internal(SxAgg *agg, Datum transvalue, bool transnull, Datum state, bool statenull, bool *isnull)
{
	bool		othernull;
	Datum		other;

	if (statenull && agg->deserialfn.fn_strict)
	{
		*isnull = transnull;
		return transvalue;
	}
	other = deserialize(agg, state, statenull, &othernull);
	return call_combine(agg, transvalue, transnull, other, othernull, isnull);
}
