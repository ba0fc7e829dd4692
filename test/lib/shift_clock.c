/*
 * shift_clock.c
 *	  Preloaded into a server by 044_clock.pl: its clock is off by as many seconds
 *	  as the file in SHIFT_CLOCK says (8 bytes, mapped).  The monotonic clock is
 *	  left alone, as setting a real clock would.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;

__attribute__((constructor)) static void
map_it(void)
{
	const char *path = getenv("SHIFT_CLOCK");
	int			fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void	   *p;

	if (fd < 0)
		return;
	p = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED)
		shift = p;
	close(fd);
}

int
clock_gettime(clockid_t id, struct timespec *t)
{
	int			rc = (int) syscall(SYS_clock_gettime, id, t);

	if (rc == 0 && shift != NULL && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		t->tv_sec += *shift;
	return rc;
}

int
gettimeofday(struct timeval *restrict v, void *restrict zone)
{
	struct timespec t;
	int			rc = clock_gettime(CLOCK_REALTIME, &t);

	(void) zone;
	v->tv_sec = t.tv_sec;
	v->tv_usec = t.tv_nsec / 1000;
	return rc;
}

time_t
time(time_t *out)
{
	struct timespec t;

	(void) clock_gettime(CLOCK_REALTIME, &t);
	if (out != NULL)
		*out = t.tv_sec;
	return t.tv_sec;
}
