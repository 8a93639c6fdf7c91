/*
 * streamext.h
 *		Settings and names that every stage shares.
 */
#ifndef SX_STREAMEXT_H
#define SX_STREAMEXT_H

#include "compat.h"

#define SX_SCHEMA			"streamext"
#define SX_EXTENSION		"streamext"

/* Continuous views per database: bounds the fixed part of shared memory */
#define SX_MAX_VIEWS		256
/* Generations per view; see live/live_state.h */
#define SX_MAX_GENERATIONS	32

/* settings (streamext.c) */
extern int	sx_flush_interval;	/* ms */
extern int	sx_cycle_interval;	/* ms */
extern bool sx_enable_helper;
extern int	sx_live_memory;		/* kB */
extern int	sx_view_budget;		/* ms; 0: none */
extern int	sx_read_consistency;	/* SxReadConsistency */
extern int	sx_wait_timeout;	/* ms */
extern int	sx_max_databases;
extern int	sx_max_held_wal;	/* MB */
extern int	sx_max_held_xids;
extern int	sx_backfill_rate;	/* rows per second; 0: no limit */
#ifdef SX_TESTING
extern int	sx_testing_chunk_blocks;	/* 0: as always */
#endif

typedef enum SxReadConsistency
{
	SX_READ_LATEST,
	SX_READ_WAIT
} SxReadConsistency;

/* true once the library was loaded by shared_preload_libraries */
extern bool sx_preloaded;

/* ERROR with the line to add, unless sx_preloaded */
extern void sx_require_preload(void);

#endif							/* SX_STREAMEXT_H */
