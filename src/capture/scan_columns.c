/*
 * scan_columns.c
 *		What the scans that stand in for a stream (delta_scan.c, range_scan.c) have to fill, and what they give.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "optimizer/tlist.h"

#include "capture/scan_columns.h"

List *
sx_columns_needed(RelOptInfo *rel, List *tlist, List *quals)
{
	Bitmapset  *attrs = NULL;
	List	   *result = NIL;
	bool		whole_row;

	pull_varattnos((Node *) tlist, rel->relid, &attrs);
	/* tlist is empty when the node above will replace it by its own */
	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &attrs);
	pull_varattnos((Node *) quals, rel->relid, &attrs);
	whole_row = bms_is_member(InvalidAttrNumber - FirstLowInvalidHeapAttributeNumber, attrs);
	for (int attno = 1; attno <= rel->max_attr; attno++)
	{
		if (whole_row || bms_is_member(attno - FirstLowInvalidHeapAttributeNumber, attrs))
			result = lappend_int(result, attno);
	}
	bms_free(attrs);
	return result;
}

/* values are taken out of a row from the first column to the last one that is used */
int
sx_last_column(List *columns)
{
	return columns == NIL ? 0 : llast_int(columns);
}

/*
 * All columns in their order, where tlist is nothing but columns; the planner does so for its own scans only.
 */
List *
sx_whole_rows(PlannerInfo *root, RelOptInfo *rel, List *tlist)
{
	List	   *result = build_physical_tlist(root, rel);
	ListCell   *lc;

	foreach(lc, tlist)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		TargetEntry *column = tlist_member(tle->expr, result);

		if (column == NULL || (tle->ressortgroupref != 0 && column->ressortgroupref != 0))
			return tlist;
		if (tle->ressortgroupref != 0)
			column->ressortgroupref = tle->ressortgroupref;
	}
	return result;
}
