/*
 * oauth_vault.c
 *	  Entry of the library: settings, hooks and the two cluster-wide workers.
 *
 * Loaded without shared_preload_libraries the library stays quiet, so that
 * pg_upgrade and CREATE EXTENSION can load it; functions then fail with a hint
 * (ov_shmem_ready).  During a binary upgrade nothing is started.
 */
#include "compat.h"

#include "guc.h"
#include "redact.h"
#include "storage/ipc.h"
#include "vault/vault.h"
#include "worker/slots.h"
#include "worker/worker.h"

OV_MODULE_MAGIC;

static shmem_request_hook_type previous_request_hook;
static shmem_startup_hook_type previous_startup_hook;

static void
request_hook(void)
{
	if (previous_request_hook)
		previous_request_hook();
	ov_shmem_request();
}

static void
startup_hook(void)
{
	if (previous_startup_hook)
		previous_startup_hook();
	ov_shmem_startup();
}

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	ov_guc_define();
	if (IsBinaryUpgrade)
		return;
	ov_session_init();
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_hook;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_hook;
	ov_utility_hook_install();
	ov_redact_install();
	ov_workers_define();
}
