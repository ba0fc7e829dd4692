/*
 * clock.c
 *	  Moves the wall clock of a server under test: LD_PRELOAD, and CLOCK_OFFSET
 *	  in seconds.  Clocks that only measure are left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static time_t
offset(void)
{
	const char *s = getenv("CLOCK_OFFSET");

	return s ? (time_t) atoll(s) : 0;
}

int
clock_gettime(clockid_t clock, struct timespec *t)
{
	static int	(*next) (clockid_t, struct timespec *);
	int			rc;

	if (!next)
		next = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	rc = next(clock, t);
	if (rc == 0 && clock == CLOCK_REALTIME)
		t->tv_sec += offset();
	return rc;
}

int
gettimeofday(struct timeval *restrict t, void *restrict zone)
{
	struct timespec now;

	(void) zone;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return -1;
	t->tv_sec = now.tv_sec;
	t->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *t)
{
	struct timespec now;

	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return (time_t) -1;
	if (t)
		*t = now.tv_sec;
	return now.tv_sec;
}
