/*
 * worker.h
 *	  What the worker processes share: start, signals, transactions as owner.
 */
#ifndef OV_WORKER_H
#define OV_WORKER_H

#include "postgres.h"
#include "postmaster/bgworker.h"
#include "worker/slots.h"

/* from _PG_init, under shared_preload_libraries */
extern void ov_workers_define(void);	/* launcher.c: the two cluster-wide workers */
extern void ov_utility_hook_install(void);	/* utility.c */

extern PGDLLEXPORT void ov_launcher_main(Datum arg);
extern PGDLLEXPORT void ov_key_worker_main(Datum arg);
extern PGDLLEXPORT void ov_network_worker_main(Datum database);
extern PGDLLEXPORT void ov_audit_writer_main(Datum database);

/* Signal handlers that every worker uses; SIGTERM = die */
extern void ov_worker_signals(void);
/* Connect to the database and look for the extension; records its presence
 * and returns false when it is not there. */
extern bool ov_worker_connect(Oid database);
/* Extension still there?  In a transaction of its own; records what it finds. */
extern bool ov_extension_present(void);
/* Did somebody ask to look again (CREATE or DROP EXTENSION committed)? */
extern bool ov_database_unknown(void);
/* React to SIGHUP; true if the configuration was read again. */
extern bool ov_worker_reload(void);

/*
 * Transactions of workers: as oauth_vault_owner, READ COMMITTED, READ WRITE,
 * search_path pg_catalog, synchronous_commit at least "on", no timeouts but a
 * short lock_timeout as the last guard; row security does not bind.
 */
extern void ov_xact_begin(void);
extern void ov_xact_commit(void);
extern void ov_xact_abort(void);		/* also after an error; logs nothing */
/* After PG_CATCH: log the current error once, abort, and clear it; returns its SQLSTATE */
extern int	ov_xact_fail(const char *doing);

/* events.c: this process has changed rows that make events; the network worker looks at its own */
extern bool ov_events_written;

#endif							/* OV_WORKER_H */
