/*
 * network.h
 *	  Shared by the files of the network worker; nobody else includes this.
 *
 * One process per database, one thread, one loop (network_worker.c).  Whatever
 * is under way is an OvJob: made in a transaction that has been committed
 * before its request leaves, alive while the provider answers, and gone once
 * what the answer means has been committed.  No transaction is open meanwhile.
 *
 * Interrupts are taken at the top of the loop and inside transactions that
 * apply nothing; never while an answer is in memory that has not been stored.
 */
#ifndef OV_NETWORK_H
#define OV_NETWORK_H

#include "postgres.h"

#include "catalog.h"
#include "core/http.h"
#include "core/record.h"
#include "lib/ilist.h"
#include "sql_call.h"
#include "utils/timestamp.h"
#include "worker/slots.h"

/* ---- failures on their way to a caller ---- */

typedef struct OvFailure
{
	char		sqlstate[6];
	char		message[256];
	char		detail[2048];	/* one line of JSON; "" if none */
	char		hint[256];		/* "" if none */
} OvFailure;

/* Fills *f and returns false, so: return ov_refuse(f, ...).  detail, hint: or NULL. */
extern bool ov_refuse(OvFailure *f, const char *sqlstate, const char *message,
					  const char *detail, const char *hint);
extern void ov_answer_failure(const OvTicket *ticket, const OvFailure *f);
/* The failure of a transaction, by the SQLSTATE that ov_transact() returned. */
extern void ov_refuse_database(OvFailure *f, int state);

/* Memory of one round of the loop */
extern MemoryContext ov_round;

/* ---- transactions ---- */

/*
 * Runs work(arg) in one transaction as the owner.  Takes its table locks
 * without waiting, so that it can run with interrupts held.  Returns 0, or the
 * SQLSTATE of the error that rolled it back.  The current memory context is the
 * same afterwards; inside it is SPI's, and gone with the transaction.
 */
typedef void (*OvWork) (void *arg);
extern int	ov_transact(const char *doing, OvWork work, void *arg);
/* A table was not there: is the extension? */
extern bool ov_tables_missed;

/* Arguments of a statement, NULLs included */
typedef struct OvArgs
{
	Datum		v[OV_MAX_ARGS];
	char		nulls[OV_MAX_ARGS + 1];
	int			n;
} OvArgs;

static inline void
ov_arg(OvArgs *a, Datum value, bool isnull)
{
	Assert(a->n < OV_MAX_ARGS);
	a->v[a->n] = value;
	a->nulls[a->n] = isnull ? 'n' : ' ';
	a->nulls[++a->n] = '\0';
}
static inline void
ov_arg_str(OvArgs *a, const char *s)
{
	ov_arg(a, ov_text_datum(s), s == NULL);
}
static inline void
ov_arg_bytes(OvArgs *a, const void *p, size_t len)
{
	ov_arg(a, ov_bytea_datum(p, len), p == NULL);
}
static inline void
ov_arg_json(OvArgs *a, const char *s)
{
	ov_arg(a, ov_jsonb_datum(s), s == NULL);
}
static inline void
ov_arg_time(OvArgs *a, TimestampTz t)	/* 0: NULL */
{
	ov_arg(a, TimestampTzGetDatum(t), t == 0);
}
static inline void
ov_arg_uuid(OvArgs *a, const unsigned char id[16])
{
	ov_arg(a, ov_uuid_datum(id), false);
}
static inline void
ov_arg_int8(OvArgs *a, int64 v)
{
	ov_arg(a, Int64GetDatum(v), false);
}
static inline void
ov_arg_texts(OvArgs *a, const char *const *items, int n)	/* n < 0: NULL */
{
	ov_arg(a, n < 0 ? OV_NULL : ov_text_array_datum(items, n), n < 0);
}
static inline void
ov_arg_array(OvArgs *a, char letter, Datum *items, bool *nulls, int n)
{
	ov_arg(a, ov_array_datum(letter, items, nulls, n), false);
}
/* uuid[] of these ids */
extern void ov_arg_uuids(OvArgs *a, const unsigned char *const *ids, int n);
static inline uint64
ov_run(OvQuery *q, OvSnapshot how, const OvArgs *a)
{
	return ov_query(q, how, a->v, a->nulls);
}

/* ---- copies (home.c) ---- */

/* The home row for work that reaches outside, in the transaction that lets it:
 * false if this copy must keep still, with the reason; says so in the log once. */
extern bool ov_home_or_refuse(OvHome *home, OvFailure *f);
extern void ov_home_transaction_ended(bool committed);	/* for ov_transact() alone */
extern void ov_home_tick(TimestampTz now);
extern void ov_home_look_again(TimestampTz at);

/* ---- who asked, and the audit trail (worker_audit.c) ---- */

typedef struct OvCaller
{
	char	   *tenant,
			   *user_id,
			   *actor,
			   *jti,
			   *role,
			   *session_user,
			   *address,
			   *application;
} OvCaller;

/* What ov_request_person() put into the request; in the given context. */
extern OvCaller *ov_caller_read(const OvMsg *m, MemoryContext context);
extern OvCaller *ov_caller_copy(const OvCaller *c, MemoryContext context);

typedef struct OvTrace			/* one audit row */
{
	const char *event;
	const char *outcome;		/* ok, denied, failed */
	const OvCaller *caller;		/* NULL: the worker of its own accord */
	const char *tenant;			/* whom it concerns */
	const char *user_id;
	const char *connector;
	const unsigned char *connection_id;
	const char *account;
	const char *const *scopes;
	int			nscopes;
	const char *reason;
	const char *detail;			/* JSON */
} OvTrace;

/* Appends the row, or keeps it until the ring has room; never raises, never waits. */
extern void ov_trace(const OvTrace *t);
/* Moves kept rows to the ring; when some are left, looks again soon. */
extern void ov_trace_flush(void);
/* The process ends: what the ring has no room for goes to the server log. */
extern void ov_trace_leave(void);

/* ---- the loop's clock ---- */

typedef enum OvTick
{
	OV_TICK_HOME,				/* is this a copy?  first of all */
	OV_TICK_CLOCK,				/* rows written under another clock */
	OV_TICK_KEYS,				/* does the ring open our keys? */
	OV_TICK_ROTATE,				/* a rotation of keys */
	OV_TICK_RECOVER,			/* intents of a predecessor */
	OV_TICK_DUE,				/* refreshes that are due */
	OV_TICK_INBOX,				/* results whose row was locked */
	OV_TICK_OUTBOX,				/* revocations */
	OV_TICK_OFFBOARD,			/* erasures */
	OV_TICK_STUCK,				/* answers that could not be stored yet */
	OV_TICK_SWEEP,				/* flows that have ended */
	OV_TICK_TRACE,				/* audit rows that the ring had no room for */
	OV_TICK_WAITERS,			/* callers that have left */
	OV_TICK_EVENTS,				/* events on their way to consumers */
	OV_TICK_DISPATCH,			/* requests that wait for room at their host */
	OV_NTICKS
} OvTick;

/* Have the tick's turn come no later than this. */
extern void ov_tick_at(OvTick tick, TimestampTz at);

/* ---- jobs ---- */

typedef enum OvJobKind
{
	OV_JOB_REFRESH, OV_JOB_EXCHANGE, OV_JOB_REVOKE, OV_JOB_DISCOVER
} OvJobKind;

typedef struct OvHost OvHost;
typedef struct OvJob
{
	OvJobKind	kind;
	MemoryContext context;		/* the job itself and what it points to */
	OvArena    *arena;			/* whatever is secret, and the provider's rules */
	/* Called outside libcurl, in the middle of the engine's round: reads the
	 * answer into the arena; must neither raise an error nor palloc. */
	void		(*read) (struct OvJob *job, const OvHttpResponse *resp);
	void		(*release) (struct OvJob *job); /* what it shares with other jobs; NULL: nothing */
	const char *secrets[OV_MAX_SENT];	/* what is sent: never quoted from the answer */
	dlist_node	all;
	struct OvJob *next;			/* among the arrived or the stuck */
	struct OvHost *host;		/* being asked, or waited for (host_queue.c) */
	bool		reserved;		/* counts as a request of the host's */
	bool		urgent;			/* somebody waits for it */
	bool		probe;			/* an administrator wants to know whether its host works again */
	struct OvJob *next_waiting;
	OvHttpRequest waiting;		/* its strings are in the arena, or constant */
	int64		key_id;			/* its answer will be sealed under this key; 0: none */
	int			failures;		/* of storing the answer */
	bool		done;			/* stored and answered: to be freed */
} OvJob;

extern void *ov_job_new(OvJobKind kind, Size size,
						void (*read) (OvJob *job, const OvHttpResponse *resp));
extern void ov_job_free(OvJob *job);	/* cleanses */
/* Notes a secret that the request carries; NULL: nothing.  In the job's arena. */
extern void ov_job_sends(OvJob *job, const char *secret);
/* Sends, now or when the host has room (host_queue.c); whatever happens then
 * arrives as an answer. */
extern void ov_job_send(OvJob *job, const OvHttpRequest *req);
/* Takes one of the host's places for the request that the job will send, or not
 * (job->reserved): it will have to wait for one, or the host is paused until
 * *paused_until.  Returns the host. */
extern OvHost *ov_host_reserve(OvJob *job, const OvHttpRequest *req, TimestampTz *paused_until);
#define OV_HOST_PAUSED "the provider's host is out of order"
/* Somebody waits for this job now: it goes before those that were merely due. */
extern void ov_host_hurry(OvJob *job);
/* The host stays in memory. */
extern void ov_host_keep(OvHost *h);
/* How many more may be claimed for it; 0 or less: none, until *paused_until if it is paused. */
extern int	ov_host_appetite(OvHost *h, TimestampTz *paused_until);
/* Could requests be sent at all?  false: why not. */
extern bool ov_engine_ready(OvFailure *f);
/* How many more jobs may be begun; background work leaves some for callers. */
extern int	ov_jobs_room(bool background);
extern int	ov_jobs_limit(bool background);
/* More is due than its hosts have room for: look again when a job has ended. */
extern void ov_jobs_hungry(void);
extern bool ov_jobs_use_key(int64 key_id);
extern int	ov_jobs_under_way(void);
extern void ov_jobs_leave(void);	/* at exit: what they hold is released and cleansed */
/* SHA-256 of what must not change while a grant lives: the hosts; also checks
 * that secrets may go there. */
extern bool ov_hosts_check(OvArena *arena, const OvConnector *c, const char *extra, const OvProvider *p,
						   unsigned char digest[32], OvFailure *f);

/* ---- keys (worker_keys.c) ---- */

typedef struct OvUserKeys
{
	unsigned char access[OV_KEY_LEN];
	unsigned char refresh[OV_KEY_LEN];
} OvUserKeys;

/* Both subkeys of a person's key row.  In a transaction.  Callers cleanse. */
extern bool ov_user_keys(const unsigned char vault_id[16], const char *tenant, const char *user_id,
						 int64 key_id, OvUserKeys *keys, OvFailure *f);
/* Asks for those of many people at once, for ov_user_keys() to find. */
typedef struct OvKeyOwner
{
	const char *tenant;
	const char *user_id;
	int64		key_id;
} OvKeyOwner;
extern void ov_user_keys_prefetch(const unsigned char vault_id[16], const OvKeyOwner *owners, int n);
/* The same for the person's current key row, made if there is none. */
extern bool ov_user_keys_current(const unsigned char vault_id[16], const char *tenant, const char *user_id,
								 int64 *key_id, OvUserKeys *keys, OvFailure *f);
/* The same for a key row not older than since, made if there is none. */
extern bool ov_user_keys_since(const unsigned char vault_id[16], const char *tenant, const char *user_id,
							   int64 since, int64 *key_id, OvUserKeys *keys, OvFailure *f);
extern bool ov_connector_key(const unsigned char vault_id[16], const OvConnector *c,
							 unsigned char key[OV_KEY_LEN], OvFailure *f);
/* A new key row for the connector, and its key */
extern bool ov_connector_key_new(const unsigned char vault_id[16], const unsigned char connector_id[16],
								 int64 *key_id, unsigned char key[OV_KEY_LEN], OvFailure *f);

typedef struct OvKeyRow			/* of vault_key */
{
	int64		key_id;
	char	   *kind;
	char	   *tenant;
	char	   *user_id;
	bool		has_connector;
	unsigned char connector_id[16];
	int			platform_version;
	char	   *platform_fingerprint;
	const unsigned char *wrapped;
	size_t		wrapped_len;
} OvKeyRow;

/* Has the key wrapped by the active platform key.  store: and writes that; without, it
 * only shows that the key opens. */
extern bool ov_key_rewrap(const unsigned char vault_id[16], const OvKeyRow *row, bool store, OvFailure *f);
/* The client's credentials, opened into the arena.  previous: the secret before
 * the current one; NULL in *client if there is none. */
extern bool ov_client(OvArena *arena, const unsigned char vault_id[16], const OvConnector *c, bool previous,
					  OvClient *client, OvFailure *f);
/* Opens a record into the arena. */
extern bool ov_open(OvArena *arena, const unsigned char key[OV_KEY_LEN], const OvAad *aad,
					const unsigned char *record, size_t len, const char **plain, OvFailure *f);
/* Seals into the arena; NULL plain: NULL record.  No ereport, no palloc. */
extern OvCode ov_seal(OvArena *arena, const unsigned char key[OV_KEY_LEN], const OvAad *aad, const char *plain,
					  const unsigned char **record, size_t *len);
extern void ov_keys_conceal(void);	/* before ov_conceal_worker */
extern void ov_keys_forget(void);
extern void ov_keys_drop(int64 key_id); /* the key is destroyed */

/* ---- when (refresh_schedule.c) ---- */

typedef struct OvRow			/* what is looked at under the row's lock */
{
	int64		generation;
	int64		epoch;
	char		status[32];
	int			attempts;
	TimestampTz used_at;
	TimestampTz refresh_expires_at;
	TimestampTz issued_at;
	bool		refresh_fixed;	/* using the refresh token does not prolong its life */
} OvRow;

typedef struct OvDue
{
	const char *policy;			/* eager, recent, lazy */
	const unsigned char *connection_id;
	TimestampTz issued_at;
	TimestampTz expires_at;		/* 0 unknown, DT_NOEND never */
	TimestampTz refresh_expires_at; /* the same */
	bool		refresh_fixed;
	TimestampTz used_at;		/* last use, or consent */
	bool		can_refresh;
} OvDue;

/* Does a refresh token that now lives until expires_at have a fixed life, going by what it was before? */
extern bool ov_refresh_fixed(const OvRow *before, TimestampTz expires_at, TimestampTz now);
/* When to renew ahead of expiry; 0: not by itself */
extern TimestampTz ov_due(const OvDue *d, TimestampTz now);
/* 0 to us, always the same for a connection: spreads what would come together */
extern int64 ov_spread(const unsigned char connection_id[16], int64 us);
/* When to try again after the attempts-th failure in a row */
extern TimestampTz ov_retry_at(OvOutcome outcome, int attempts, int64 retry_after, TimestampTz now);

/* ---- grants: what an answer brought, sealed (grant.c) ---- */

typedef struct OvGrant
{
	unsigned char connection_id[16];
	unsigned char connector_id[16];
	unsigned char hosts_digest[32];
	const char *connector;
	const char *tenant;
	const char *user_id;
	const char *account;
	const char *policy;
	int64		key_id;
	int64		generation;		/* of the intent; the records are sealed for the next one */
	int64		epoch;
	const unsigned char *access,
			   *refresh,
			   *id;
	size_t		access_len,
				refresh_len,
				id_len;
	bool		can_refresh;
	bool		forced;
	bool		used;			/* somebody waits for it */
	int64		expires_at;		/* unix seconds; 0 unknown, INT64_MAX never */
	int64		refresh_expires_at;
	const char *token_type;
	const char *const *scopes;
	int			nscopes;		/* -1: the answer did not say */
	const char *metadata;		/* JSON object: merged into, or for a consent in place of, the row's */
	bool		beside;			/* others have the same tokens: never queued for revocation */
	bool		same_metadata;	/* it is the row's: nothing to merge */
	bool		has_fingerprint;	/* of the access token that is replaced */
	unsigned char fingerprint[OV_FINGERPRINT_LEN];
	/* a consent only */
	const char *const *requested;
	int			nrequested;
	const char *subject;
} OvGrant;

typedef enum OvStored
{
	OV_STORED_INSTALLED,
	OV_STORED_STALE,			/* other tokens are there: what came is dropped */
	OV_STORED_REVOKED,			/* somebody decided meanwhile, or the row is gone: queued for revocation */
	OV_STORED_LOCKED			/* in grant_inbox until the lock goes */
} OvStored;

typedef enum OvLock
{
	OV_LOCK_OURS, OV_LOCK_THEIRS, OV_LOCK_GONE
} OvLock;

/* All in the caller's transaction, and without waiting for a lock. */
extern OvLock ov_row_lock(const unsigned char connection_id[16], OvRow *row);
extern OvStored ov_grant_install(const OvGrant *g, TimestampTz now);
/* The same for many different connections; stored[i] says what became of each. */
extern void ov_grants_install(const OvGrant *const *grants, int n, OvStored *stored, TimestampTz now);
/* The grant is dead, unless the row has moved on. */
extern OvStored ov_grant_end(const unsigned char connection_id[16], int64 generation, int64 epoch,
							 const char *reason, const char *detail, TimestampTz now);
/* The person's live row for a consent: fills in id, generation and epoch, or
 * those of a new row.  false: none.  *locked: somebody holds it. */
extern bool ov_grant_find(OvGrant *g, bool *locked, char **subject);
extern OvStored ov_consent_install(const OvGrant *g, bool exists, bool locked, TimestampTz now);
extern void ov_grant_queue_revocation(const OvGrant *g);
/* A new consent is stored: queued revocations of older grants that would end it too are not sent. */
extern void ov_revocations_supersede(const OvGrant *g, OvArena *arena, const OvProvider *p,
									 const unsigned char vault_id[16], const OvUserKeys *keys, const OvTokens *t,
									 TimestampTz now);
/* Takes a share of the connector's row for a reference to it; raises 55P03 when it is locked. */
extern void ov_connector_hold(const unsigned char connector_id[16]);

/* Applies what waits for this connection; false: some is left, its row is locked. */
extern bool ov_inbox_apply(const unsigned char connection_id[16], TimestampTz now);
extern void ov_inbox_tick(TimestampTz now);

/* ---- clock.c ---- */

/* By how much the server's clock has been set since the last call; 0: not at all */
extern int64 ov_clock_moved(void);
extern void ov_clock_tick(TimestampTz now);

/* ---- refresh_shared.c: connections with one chain of refresh tokens ---- */

/* A grant's metadata with the key of its chain, if it shares one; of rules that are built in only */
extern char *ov_shared_stamp(OvArena *arena, const OvConnector *c, char *metadata);
/* Does another connection live by the same chain? */
extern bool ov_shared_in_use(OvArena *arena, const OvConnector *c, const char *metadata,
							 const unsigned char connection_id[16]);

/* ---- refresh.c, refresh_apply.c ---- */

/* Requests of one round, claimed together. */
extern void ov_refresh_request_add(const OvTicket *ticket, const OvMsg *m);
extern void ov_refresh_requests_run(void);
extern void ov_refresh_recover_tick(TimestampTz now);
extern void ov_refresh_recover_again(void);		/* there may be intents of others now */
extern void ov_refresh_due_tick(TimestampTz now);
extern void ov_refresh_look_anew(void);	/* at all that is due, from the beginning */
/* Stores the answers, and in the same transaction that others leave, as ov_refresh_depart()
 * does; false: only the latter is still to be done. */
extern bool ov_refresh_apply(OvJob **jobs, int n, OvJob **leaving, int nleaving);
extern void ov_refresh_waiters_tick(TimestampTz now);
/* Commits that these are sent now, as far as they are refreshes; false: not yet. */
extern bool ov_refresh_depart(OvJob **jobs, int n);
/* The same, in the caller's transaction */
extern void ov_refresh_note_departure(OvJob **jobs, int n);

/* ---- key_check.c, rotation.c ---- */

/* In a transaction: reads a key row from columns of the last result, beginning with col. */
extern void ov_key_row(uint64 row, int col, OvKeyRow *key);
#define OV_KEY_COLUMNS "key_id, kind, tenant, user_id, connector_id, platform_version, platform_fingerprint, wrapped"
extern void ov_key_check_tick(TimestampTz now);
/* Nobody else has vault_key rows that are not committed; until the transaction ends none can be written. */
extern bool ov_keys_settled(void);
extern void ov_rotation_tick(TimestampTz now);

/* ---- offboarding.c: in a transaction, all but the tick ---- */

/* Is the person or the whole tenant out, or has been since?  Then *f says so. */
extern bool ov_offboarded(const char *tenant, const char *user_id, TimestampTz since, OvFailure *f);
/* Keys of the person with a lower id are of the time before an offboarding. */
extern int64 ov_first_key(const char *tenant, const char *user_id);
/* Until the transaction ends nobody offboards the person; raises 55P03 when somebody is about to. */
extern void ov_person_hold(const char *tenant, const char *user_id);
extern void ov_offboarding_tick(TimestampTz now);

/* ---- flow.c, revocation.c, discover.c ---- */

extern void ov_flow_begin(const OvTicket *ticket, const OvMsg *m);
extern void ov_flow_complete(const OvTicket *ticket, const OvMsg *m);
extern void ov_flow_apply(OvJob *job);
extern void ov_flow_sweep_tick(TimestampTz now);

/* ---- events (events.c) ---- */

extern void ov_events_tick(TimestampTz now);
/* Is a code of theirs being exchanged?  NULL: anybody's, at any connector */
extern bool ov_flow_exchanging(const char *tenant, const char *user_id, const unsigned char *connector_id);
extern void ov_outbox_tick(TimestampTz now);
extern void ov_revocation_apply(OvJob **jobs, int n);
extern void ov_discovery_start(const OvTicket *ticket, const OvMsg *m);
extern void ov_discovery_apply(OvJob *job);

#endif							/* OV_NETWORK_H */
