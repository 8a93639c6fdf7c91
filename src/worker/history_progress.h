/*
 * history_progress.h
 *		How far a builder has come with history, for all to see, and how long the rest takes.
 */
#ifndef SX_HISTORY_PROGRESS_H
#define SX_HISTORY_PROGRESS_H

#include "catalog/definitions.h"
#include "live/registry.h"

/* the builder goes on with what is stored */
extern void sx_progress_begin(const SxStoredScan *scan);
/* in a sample a row took so long: one process, which does nothing else */
extern void sx_progress_sampled(double us);
/* with the next chunk, of so many blocks */
extern void sx_progress_chunk(uint64 blocks);
/* which comes to so many rows of the result; 0: not known */
extern void sx_progress_expect(double result);
/* since the last call; cannot raise */
extern void sx_progress_blocks(BlockNumber blocks, int64 rows);
/* rows of the result, in all */
extern void sx_progress_put(int64 result);
extern void sx_progress_computed(TimestampTz at, int64 result);
/* so many of its rows are */
extern void sx_progress_writes(int64 rows);
/* rows: read for the chunk; rest_us: to be waited now */
extern void sx_progress_written(const SxStoredScan *scan, int64 rows, int64 rest_us);

/* how long the rest of history takes, microseconds; -1: not known */
extern double sx_history_time_left(const SxHistoryProgress *h, TimestampTz now);

#endif							/* SX_HISTORY_PROGRESS_H */
