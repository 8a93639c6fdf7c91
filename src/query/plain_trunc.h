/*
 * plain_trunc.h
 *		date_trunc() where all that it does is to divide.
 */
#ifndef SX_PLAIN_TRUNC_H
#define SX_PLAIN_TRUNC_H

#include "nodes/parsenodes.h"

/* the query with calls of tumble() instead, where these give the same; zone: the setting TimeZone, or NULL */
extern Query *sx_plain_trunc(Query *query, const char *zone);

#endif							/* SX_PLAIN_TRUNC_H */
