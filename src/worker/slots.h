/*
 * slots.h
 *	  Request slots: how a backend asks a worker, and workers ask each other.
 *
 * One fixed array per kind of worker in shared memory.  A slot walks
 * FREE -> CLAIMED -> POSTED -> TAKEN -> DONE -> FREE; a requester that leaves
 * turns POSTED/TAKEN into ABANDONED, and whoever holds it last cleanses it and
 * sets FREE.  state is atomic; the payload belongs to the requester in CLAIMED
 * and DONE, to the worker in TAKEN and ABANDONED, to nobody otherwise.
 * Secrets live in a payload only until taken.
 *
 * A worker that exits or starts answers its predecessor's TAKEN slots with a
 * retryable error and cleanses them.
 */
#ifndef OV_SLOTS_H
#define OV_SLOTS_H

#include "postgres.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "worker/message.h"

typedef enum OvWorkerKind
{
	OV_WORKER_LAUNCHER, OV_WORKER_KEY, OV_WORKER_NETWORK, OV_WORKER_AUDIT
} OvWorkerKind;

/* ---- requester's side (backend or worker) ---- */

/*
 * Send request (built by ov_msg_*) to the key worker, or to the network worker
 * of MyDatabaseId, and wait, interruptibly, at most timeout_ms.  The answer is
 * copied into *reply, whose buffer the caller provides (OV_MESSAGE_MAX) and
 * cleanses.  Raises ERROR with the worker's SQLSTATE/DETAIL/HINT on an error
 * answer; OV021 on timeout, OV050 when no slot comes free, OV020/OV040 with a
 * hint when the worker is not running.  The request buffer is cleansed here on
 * every path.
 */
extern void ov_ask(OvWorkerKind kind, OvOp op, OvMsg *request, OvMsg *reply, int timeout_ms);
/* Sends without waiting for an answer; false if no slot was free.  Never raises. */
extern bool ov_post(OvWorkerKind kind, OvOp op, OvMsg *request);
/* The same as ov_ask without ereport, for workers: false and the error answer in *reply */
extern bool ov_ask_quietly(OvWorkerKind kind, OvOp op, OvMsg *request, OvMsg *reply, int timeout_ms);

/* ---- worker's side ---- */
typedef struct OvTicket		/* a taken slot, process-local */
{
	int			slot;
	uint32		generation;
	OvWorkerKind kind;
	OvOp		op;
	Oid			database;
	int			requester_pid;
} OvTicket;

/* Copies the next POSTED request for this worker into buf and marks it TAKEN.
 * The slot's payload is cleansed at once. */
extern bool ov_slot_take(OvWorkerKind kind, OvTicket *ticket, OvMsg *request, void *buf);
/* Answers and wakes; does nothing but cleanse if the requester has left. */
extern void ov_slot_answer(const OvTicket *ticket, const OvMsg *reply);
extern void ov_slot_answer_error(const OvTicket *ticket, const char *sqlstate, const char *message,
								 const char *detail, const char *hint);
/* Is the requester still waiting? */
extern bool ov_slot_wanted(const OvTicket *ticket);
/* Answers everything a dead predecessor had taken (call at start and exit). */
extern void ov_slot_abandon_all(OvWorkerKind kind, Oid database);
/* Frees detached requests to a database that nobody serves any more. */
extern void ov_slot_forget_database(Oid database);

/* ---- shared memory and registry (shmem.c) ---- */
extern void ov_shmem_request(void);		/* from shmem_request_hook */
extern void ov_shmem_startup(void);		/* from shmem_startup_hook */
extern bool ov_shmem_ready(void);		/* false: not preloaded */

/* A worker registers its PGPROC under its kind and database, and bumps the
 * incarnation; before_shmem_exit unregisters. */
extern void ov_worker_register(OvWorkerKind kind, Oid database);
extern bool ov_worker_alive(OvWorkerKind kind, Oid database);
extern void ov_worker_wake(OvWorkerKind kind, Oid database);
extern uint32 ov_worker_incarnation(OvWorkerKind kind, Oid database);
extern bool ov_is_worker_pid(OvWorkerKind kind, int pid);
/* In this process? Set by ov_worker_register. */
extern OvWorkerKind ov_my_worker_kind;
extern bool ov_i_am_worker;

/* Ask the launcher to look at the databases again (after CREATE EXTENSION commits). */
extern void ov_launcher_poke(void);
/* Embargo: workers leave this database until lifted (DROP/ALTER DATABASE, TEMPLATE). */
extern void ov_database_embargo(Oid database, bool on);

/* Non-secret settings that the key worker publishes (JSON, see ov_vaultfile_public);
 * NULL and a reason while there is no readable vault file. Copied into CurrentMemoryContext. */
extern char *ov_settings(char **reason);
extern uint32 ov_settings_generation(void);
/* Sessions compare how often subkeys have been recalled before they use what they have. */
extern void ov_subkeys_recall(void);
extern uint32 ov_subkeys_recalled(void);
extern void ov_settings_publish(const char *json, const char *reason);	/* key worker only */

/* ---- audit ring (audit_ring.c) ---- */
/*
 * Appends a row for this database; returns its position.  Raises OV042 when
 * the audit writer does not run, or the ring stays full for 5 s.  Allowed in
 * READ ONLY and about-to-abort transactions: nothing of the caller's
 * transaction is touched.
 */
extern uint64 ov_audit_append(const OvMsg *row);
/* Waits until everything up to position is committed (durable) */
extern void ov_audit_wait(uint64 position);
/* Position after everything appended so far: waiting for it covers what a
 * worker appended before it answered. */
extern uint64 ov_audit_head(void);
/* For workers: no ereport; false if it could not be queued now. */
extern bool ov_audit_try_append(const OvMsg *row);
/* A row that cannot be queued leaves at least a line in the server log. */
extern void ov_audit_tell_log(const OvMsg *row);

/*
 * What the network worker of this database found out about it (home.c): held,
 * although the home row fits this server.  claim: claimed_at of the row it
 * looked at; floor: a claim that is to end the hold must be later (0: any).
 */
extern void ov_hold_publish(bool held, TimestampTz claim, TimestampTz floor, const char *why);
extern bool ov_hold_published(TimestampTz claim, char *why, size_t size);
extern TimestampTz ov_hold_floor(void);

#endif							/* OV_SLOTS_H */
