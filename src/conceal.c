/*
 * conceal.c
 *	  Keeps the memory of processes that hold secrets to themselves.
 *
 * A process that is not dumpable leaves no core file, and neither ptrace nor
 * /proc/PID/mem shows its memory to another process of the same user; root may
 * still look.  Workers are so from their start, sessions from their first
 * assertion, secret parameter or subkey on: a session that never calls us can
 * be debugged like any other.
 *
 * Workers also lock the pages they keep secrets in, as far as the limit on
 * locked memory goes.  What libcurl and OpenSSL allocate for themselves is not
 * among them; it is cleansed when it is freed.
 */
#include "postgres.h"

#include "conceal.h"

#include <sys/prctl.h>

#include "core/arena.h"
#include "guc.h"

static int	lock_errno;			/* why pages could not be locked; 0: they are */

void
ov_conceal_pages(void *start, size_t len)
{
	if (!ov_guard_pages(start, len) && lock_errno == 0)
		lock_errno = errno;
}

static bool
undumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 0) == 0;
}

void
ov_conceal_worker(const char *who)
{
	if (!ov_arena_guard() && lock_errno == 0)
		lock_errno = errno;
	if (lock_errno != 0)
	{
		errno = lock_errno;
		ereport(LOG,
				(errmsg("the oauth_vault %s could not lock its memory for secrets: %m", who),
				 errdetail("Secrets in it may be written to swap."),
				 errhint("Raise the server's limit on locked memory (LimitMEMLOCK in a systemd unit, ulimit -l).")));
	}
	if (ov_guc_allow_core_dumps)
		ereport(LOG,
				(errmsg("the memory of the oauth_vault %s can be dumped and traced", who),
				 errhint("\"oauth_vault.allow_core_dumps\" is for debugging: turn it off.")));
	else if (!undumpable())
		ereport(LOG, (errmsg("could not make the oauth_vault %s non-dumpable: %m", who),
					  errdetail("A core dump of it would hold secrets.")));
}

void
ov_conceal_session(void)
{
	static bool done = false;

	if (done)
		return;
	done = true;
	if (!ov_guc_allow_core_dumps && !undumpable())
		ereport(LOG, (errmsg("could not make a session that uses oauth_vault non-dumpable: %m"),
					  errdetail("A core dump of it would hold secrets.")));
}
