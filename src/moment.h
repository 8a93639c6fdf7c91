/*
 * moment.h
 *		The time by which pauses, intervals and deadlines are measured.
 *
 * The clock on the wall jumps: set by hand, by NTP, by a virtual machine that was moved.  A view
 * that is tried again "at half past" would then wait for hours, and so would its flushes.  All
 * that only measures how long something took, or must still take, reads this clock, which
 * only ever goes forward, at the same pace for all processes of the machine.  What is shown to
 * users or stored is a TimestampTz from GetCurrentTimestamp() as ever.
 */
#ifndef SX_MOMENT_H
#define SX_MOMENT_H

#include "postgres.h"

#include "portability/instr_time.h"
#include "utils/timestamp.h"

/* so that 0 is long ago even right after the machine was started */
#define SX_MOMENT_BASE		(365 * USECS_PER_DAY)

/*
 * Microseconds.  A TimestampTz only so that its arithmetic can be used: compare it with others of
 * its kind, never show or store it.  It means nothing after a restart of the machine.
 */
static inline TimestampTz
sx_now(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return SX_MOMENT_BASE + (TimestampTz) INSTR_TIME_GET_MICROSEC(t);
}

#endif							/* SX_MOMENT_H */
