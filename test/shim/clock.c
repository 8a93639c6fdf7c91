/*
 * test/shim/clock.c
 *		A clock that a test can set, for the server that is started with it in LD_PRELOAD.
 *
 * The file that SHIM_CLOCK names holds the number of seconds by which the clock on the wall is
 * wrong, as a binary 64-bit integer.  It is mapped, so that a jump reaches all processes at once.
 * The monotonic clock stays as it is: it never jumps on a real machine either.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;
static int64_t none = 0;

static int64_t
seconds(void)
{
	if (offset == NULL)
	{
		const char *path = getenv("SHIM_CLOCK");
		int			fd = path ? open(path, O_RDONLY) : -1;
		void	   *map = fd >= 0 ? mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

		if (fd >= 0)
			close(fd);
		offset = map == MAP_FAILED ? &none : map;
	}
	return *offset;
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	static int	(*real) (clockid_t, struct timespec *);
	int			result;

	if (real == NULL)
		real = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	result = real(clock, ts);
	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		ts->tv_sec += seconds();
	return result;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec ts;

	(void) tz;
	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *result)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (result)
		*result = ts.tv_sec;
	return ts.tv_sec;
}
