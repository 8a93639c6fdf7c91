/*
 * live_read.h
 *		The read node: wraps the paths of a materialized table so that a scan yields
 *		table rows combined with live state.
 */
#ifndef SX_LIVE_READ_H
#define SX_LIVE_READ_H

#include "streamext.h"

/* set_rel_pathlist_hook part and custom scan registration; chained by streamext.c */
extern void sx_live_read_init(void);
/* workers that read materialized tables as tables */
extern bool sx_live_read_disabled;

#endif							/* SX_LIVE_READ_H */
