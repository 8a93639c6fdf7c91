/*
 * early.h
 *		Hidden live state: rows of a view that are computed before their transaction is consumed, by the consumer
 *		(consumer_early.c) or its helper (helper.c).  No reader knows of it.
 */
#ifndef SX_EARLY_H
#define SX_EARLY_H

#include "worker/worker_internal.h"

typedef struct SxEarlyRows
{
	SxViewInfo *info;
	SxPlan	   *plan;
	SxLiveWriter *writer;		/* of a view in no registry */
} SxEarlyRows;

/* adds the batch to what the writer has prepared; whatever fails is left to whoever consumes the rows */
extern SxProcessResult sx_early_run(SxEarlyRows *rows, SxBatch *batch, MemoryContext context);
/* what is prepared becomes the rows */
extern void sx_early_keep(SxEarlyRows *rows);
extern void sx_early_discard(SxEarlyRows *rows);

#endif							/* SX_EARLY_H */
