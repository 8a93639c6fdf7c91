/*
 * result_bound.c
 *		Whether the result of an aggregate can be computed for whatever rows there will be.
 *
 * A result that is stored beside its state (view_info.h) is computed when rows are written, where an error of one group stops
 * the view.  The server's own final functions raise none but for results that their type cannot hold.  Of type numeric that
 * takes arguments of tens of thousands of digits, which is not to be had from what has a declared precision, from integers
 * and from floating point, nor from sums and products of a few such values.  Of type interval it takes infinities, which are values
 * like others since PostgreSQL 17.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "query/aggregate_state.h"

/* of an expression, with at most a thousand digits before and behind the point each: far from the limits also when squared */
#define MOST_LEAVES		20

static bool is_bounded(Node *node, int *leaves);
static bool all_bounded(List *nodes, int *leaves);

bool
sx_result_is_bounded(Aggref *aggref)
{
	int			leaves = 0;
	ListCell   *lc;

	if (aggref->aggtype == INTERVALOID)
		return false;
	foreach(lc, aggref->args)
		if (!is_bounded((Node *) lfirst_node(TargetEntry, lc)->expr, &leaves))
			return false;
	return leaves <= MOST_LEAVES;
}

/* is it of another type than numeric, or has it but so many digits? */
static bool
is_bounded(Node *node, int *leaves)
{
	check_stack_depth();
	if (exprType(node) != NUMERICOID)
		return true;
	if (exprTypmod(node) >= 0)
	{
		(*leaves)++;
		return true;
	}
	switch (nodeTag(node))
	{
		case T_Const:
			(*leaves)++;
			return ((Const *) node)->constisnull ||
				strlen(DatumGetCString(DirectFunctionCall1(numeric_out, ((Const *) node)->constvalue))) <= NUMERIC_MAX_PRECISION;

		case T_OpExpr:
			switch (((OpExpr *) node)->opfuncid)
			{
				case F_NUMERIC_ADD:
				case F_NUMERIC_SUB:
				case F_NUMERIC_MUL:
				case F_NUMERIC_DIV:
				case F_NUMERIC_MOD:
				case F_NUMERIC_UMINUS:
				case F_NUMERIC_UPLUS:
					return all_bounded(((OpExpr *) node)->args, leaves);
			}
			return false;

		case T_FuncExpr:
			switch (((FuncExpr *) node)->funcid)
			{
				case F_NUMERIC_INT2:
				case F_NUMERIC_INT4:
				case F_NUMERIC_INT8:
				case F_NUMERIC_FLOAT4:
				case F_NUMERIC_FLOAT8:
					(*leaves)++;
					return true;
				case F_ABS_NUMERIC:
				case F_ROUND_NUMERIC:
				case F_ROUND_NUMERIC_INT4:
				case F_TRUNC_NUMERIC:
				case F_TRUNC_NUMERIC_INT4:
				case F_FLOOR_NUMERIC:
				case F_CEIL_NUMERIC:
					return all_bounded(((FuncExpr *) node)->args, leaves);
			}
			return false;

		case T_CoalesceExpr:
			return all_bounded(((CoalesceExpr *) node)->args, leaves);

		case T_CaseExpr:
			{
				CaseExpr   *expr = (CaseExpr *) node;
				ListCell   *lc;

				foreach(lc, expr->args)
					if (!is_bounded((Node *) lfirst_node(CaseWhen, lc)->result, leaves))
						return false;
				return expr->defresult == NULL || is_bounded((Node *) expr->defresult, leaves);
			}

		default:
			return false;
	}
}

static bool
all_bounded(List *nodes, int *leaves)
{
	ListCell   *lc;

	foreach(lc, nodes)
		if (!is_bounded(lfirst(lc), leaves))
			return false;
	return true;
}
