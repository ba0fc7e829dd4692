/*
 * debug_point.c
 *	  Carries out the orders of a test at named points; see debug_point.h.
 *
 * An order is one line of the file oauth_vault.point in the data directory,
 *		ID ACTION SKIP NAME
 * and is carried out by the first process that has been at the point SKIP times
 * before.  Whoever carries it out renames the file away first, so one order acts
 * once, and appends "ID PID NAME" to oauth_vault.point.done.  Actions:
 *		terminate	SIGTERM to itself: FATAL at the next check for interrupts
 *		kill		SIGKILL to itself: the postmaster restarts the cluster
 *		postmaster	SIGKILL to the postmaster
 *		error		an ERROR; only for points inside a transaction
 *		pause		waits until oauth_vault.point.go exists, half a minute at most
 */
#include "postgres.h"

#include "debug_point.h"

#ifdef OV_DEBUG_POINTS

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"

#define ORDER "oauth_vault.point"

static int	last_id;
static int	passed;

static void
report(int id, const char *name, const char *more)
{
	char		line[256];
	int			fd = open(ORDER ".done", O_WRONLY | O_APPEND | O_CREAT, 0600);
	int			len = snprintf(line, sizeof(line), "%d %d %s%s\n", id, MyProcPid, name, more);

	if (fd < 0 || write(fd, line, len) != len)
		_exit(3);				/* the test must not go on without it */
	close(fd);
}

static void
wait_for_go(void)
{
	for (int i = 0; i < 3000 && access(ORDER ".go", F_OK) != 0; i++)
		pg_usleep(10000);
}

void
ov_debug_point(const char *name, const char *more)
{
	char		line[256];
	char		action[16];
	char		where[128];
	char		here[128];
	int			id;
	int			skip;
	ssize_t		len;
	int			fd = open(ORDER, O_RDONLY);

	if (fd < 0)
		return;
	len = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (len <= 0)
		return;
	line[len] = '\0';
	snprintf(here, sizeof(here), "%s%s", name, more);
	if (sscanf(line, "%d %15s %d %127[^\n]", &id, action, &skip, where) != 4 || strcmp(where, here) != 0)
		return;
	if (id != last_id)
	{
		last_id = id;
		passed = 0;
	}
	if (passed++ < skip || rename(ORDER, ORDER ".taken") != 0)
		return;
	report(id, name, more);
	if (strcmp(action, "terminate") == 0)
		(void) kill(MyProcPid, SIGTERM);
	else if (strcmp(action, "kill") == 0)
		(void) kill(MyProcPid, SIGKILL);
	else if (strcmp(action, "postmaster") == 0)
		(void) kill(PostmasterPid, SIGKILL);
	else if (strcmp(action, "pause") == 0)
		wait_for_go();
	else if (strcmp(action, "error") == 0)
		ereport(ERROR, (errmsg("ordered at the point \"%s\"", here)));
}

#endif
