/*
 * vault.h
 *	  Shared by the SQL functions: identity, the frame of a call, keys, audit.
 *
 * Errors are part of the interface.  DETAIL is one line of JSON; per SQLSTATE
 * it has these members (those in brackets where they are known):
 *
 *	OV001 identity_required			reason
 *	OV002 identity_invalid			reason
 *	OV010 reauthorization_required	reason, since [, connector, expires_at, provider_error]
 *	OV011 insufficient_scope		missing_scopes
 *	OV012 no_connection				reason: no_connection, unknown_connector
 *	OV013 ambiguous_account			accounts
 *	OV014 policy_denied				reason [, denied_scopes, host, connector, issuer, retry_at]
 *	OV020 provider_unavailable		reason [, retry_at, provider_error, issuer, sqlstate]
 *	OV021 refresh_timeout			reason
 *	OV022 connector_misconfigured	reason [, connector, provider, provider_error]
 *	OV030 flow_invalid				reason
 *	OV031 authorization_denied		[reason, provider_error]
 *	OV032, OV033					reason
 *	OV034 invalid_provider_response	[reason, provider_error, issuer]
 *	OV040, OV041, OV042, OV050		reason
 *	OV060 vault_held				reason
 *	OV070 user_offboarded			reason, since
 *
 * Everything else is PostgreSQL's own: 22004 and 22023 name the parameter in
 * the message, 25006 is a standby or a READ ONLY transaction that decides
 * something, 55000 a server without shared_preload_libraries.
 */
#ifndef OV_VAULT_H
#define OV_VAULT_H

#include "postgres.h"
#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "fmgr.h"
#include "worker/slots.h"

/* ---- identity (identity.c) ---- */

typedef struct OvPerson
{
	char		tenant[256];
	char		user_id[256];
	char	   *actor;			/* JSON or NULL */
	char	   *issuer;
	char	   *jti;
	char	   *assertion;		/* NULL unless the source is assertion */
	OvSource	source;
	int64		expires_at;		/* unix seconds; PG_INT64_MAX: with the session */
	int64		good_until;		/* the same with the leeway: what is compared with the clock */
	bool		single_use;
	uint32		settings;		/* generation of the settings it was verified under */
} OvPerson;

extern void ov_session_init(void);		/* callbacks; from _PG_init */
extern void ov_session_reset(void);		/* DISCARD ALL: identity, cached assertions, keys */
/*
 * Who the session's user is.  assertion: identity for this call alone, or NULL
 * for the one that is bound.  Raises OV001 or OV002.
 */
extern const OvPerson *ov_person(const char *assertion);
/* The same if nobody has to be asked and nothing is to be raised; else NULL. */
extern const OvPerson *ov_person_at_hand(const void *assertion, size_t len);

/* ---- the frame of a call (call.c) ---- */

typedef enum OvAccess
{
	OV_AS_PERSON,				/* own rows: row security binds */
	OV_AS_ADMIN					/* everybody's rows */
} OvAccess;

typedef struct OvCall
{
	const OvPerson *person;		/* NULL for administrators */
	const char *role;			/* who called */
	MemoryContext caller;		/* results are made here */
	OvArena    *arena;			/* see ov_call_arena */
	uint64		subkeys_seen;	/* ov_subkeys_check() before anything was read */
	Oid			save_user;
	int			save_context;
	int			save_nest;
} OvCall;

/*
 * Begins a call: checks that the library is preloaded, that this is a primary,
 * that we are not inside a security-restricted operation; finds the person;
 * then becomes oauth_vault_owner with search_path pg_catalog and SPI.
 * assertion_arg: index of the assertion parameter, or -1.
 */
/* The same checks for the short way (token.c): false or NULL where that would raise or ask. */
extern bool ov_call_possible(void);
extern const OvPerson *ov_call_person_at_hand(FunctionCallInfo fcinfo, int assertion_arg);
extern void ov_call_begin(OvCall *call, OvAccess access, FunctionCallInfo fcinfo, int assertion_arg);
extern void ov_call_end(OvCall *call);
/* The call in progress, NULL outside */
extern OvCall *ov_current_call;
/* A (sub)transaction of this nest level has ended: calls begun in it are over. */
extern void ov_call_unwind(int level);

/*
 * The whole of a person's function: begins the call, runs body inside, ends
 * the call.  An error of ours is audited as a denial under body's event and
 * thrown on; a body that sets event->event to NULL leaves that to the worker.
 */
struct OvEvent;
typedef Datum (*OvBody) (OvCall *call, FunctionCallInfo fcinfo, struct OvEvent *event);
extern Datum ov_person_call(FunctionCallInfo fcinfo, const char *event, int assertion_arg, OvBody body);
/* The same for an administrator's */
extern Datum ov_admin_call(FunctionCallInfo fcinfo, const char *event, OvBody body);

/*
 * Runs a decision (writes of the caller's own transaction) in a subtransaction,
 * and again when a row has moved since the snapshot, so that decisions work in
 * REPEATABLE READ and SERIALIZABLE.
 */
extern void ov_decide(void (*step) (OvCall *call, void *arg), OvCall *call, void *arg);
/* Wakes the network worker when the work of this (sub)transaction commits. */
extern void ov_wake_after_commit(void);
/* Has every session forget the subkeys that it was given when this (sub)transaction commits. */
extern void ov_recall_after_commit(void);

/* Lives until the call ends, however it ends, and is cleansed then. */
extern OvArena *ov_call_arena(OvCall *call);

/* Parameters.  required: NULL is 22004, empty 22023, both naming the parameter. */
extern char *ov_arg_text(FunctionCallInfo fcinfo, int n, const char *name, bool required);
/* The same, of at most max bytes */
extern char *ov_arg_name(FunctionCallInfo fcinfo, int n, const char *name, bool required, int max);
/* The same, in ov_call_arena() */
extern char *ov_arg_secret(OvCall *call, FunctionCallInfo fcinfo, int n, const char *name, bool required);
extern char **ov_arg_text_array(FunctionCallInfo fcinfo, int n, const char *name, int *count);	/* NULL if NULL */
extern char *ov_arg_json_object(FunctionCallInfo fcinfo, int n, const char *name);

/* One result row, made in the caller's context */
extern Datum ov_row(OvCall *call, FunctionCallInfo fcinfo, const Datum *values, const bool *nulls);
/* One more row of the set that InitMaterializedSRF() has begun */
extern void ov_put_row(FunctionCallInfo fcinfo, const Datum *values, const bool *nulls);
extern Datum ov_copy_text(OvCall *call, const char *s);
extern Datum ov_copy_array(OvCall *call, char **items, int n);
extern bool ov_array_has(char **items, int n, const char *item);
extern char *ov_array_json(char **items, int n);

/* Buffers of the session's one exchange with a worker at a time */
extern OvMsg *ov_request(void);
extern void ov_request_person(OvMsg *m, OvCall *call);	/* tenant, user, actor, session facts for audit */
extern OvMsg *ov_send(OvWorkerKind kind, OvOp op);	/* sends ov_request(); the answer */
extern bool ov_send_quietly(OvWorkerKind kind, OvOp op);	/* false instead of a worker's error */
extern void ov_post_request(OvWorkerKind kind, OvOp op);	/* sends it and waits for nothing */
extern void ov_done_with_answer(void);

/* ---- keys (subkeys.c) ---- */

/* The person's access subkey that the connection is sealed under, released or cached */
struct OvConnection;
extern void ov_access_subkey(const OvCall *call, const struct OvConnection *c, unsigned char subkey[OV_KEY_LEN]);
/* The same if it is cached; else false. */
extern bool ov_access_subkey_cached(const OvPerson *person, const unsigned char vault_id[16], int64 key_id,
									unsigned char subkey[OV_KEY_LEN]);
extern void ov_forget_subkeys(void);
/* Forgets them if they have been recalled, or the vault file has changed; how often that has been. */
extern uint64 ov_subkeys_check(void);

/* ---- sealing what is handed in (seal.c) ---- */

typedef struct OvSealOwner
{
	const char *kind;			/* OV_KIND_USER, OV_KIND_CONNECTOR */
	const char *tenant;			/* of a person */
	const char *user_id;
	const unsigned char *connector_id;	/* of a connector; NULL for a person */
} OvSealOwner;

typedef struct OvSeal
{
	OvSealOwner	owner;
	int64		key_id;
	const unsigned char *wrapped;
	size_t		wrapped_len;
	const unsigned char *connector_id;	/* what the record is bound to */
	const unsigned char *connection_id;
	const unsigned char *hosts_digest;
	int64		generation;
} OvSeal;

/* The record, as a bytea */
extern Datum ov_have_sealed(const OvHome *home, const OvSeal *s, OvPurpose purpose, const char *secret);
/* A new key of the owner's, in this transaction; 0: somebody has made one just now. */
extern int64 ov_have_new_key(const OvHome *home, const OvSealOwner *owner, const unsigned char **wrapped, size_t *wrapped_len);
/* The person's newest key, made if there is none, held until the transaction ends */
extern int64 ov_person_key(const OvHome *home, const char *tenant, const char *user_id, const unsigned char **wrapped,
						   size_t *wrapped_len);

/* ---- audit (audit.c) ---- */

typedef struct OvEvent
{
	const char *event;
	const char *outcome;		/* ok, denied, failed */
	const char *connector;
	const unsigned char *connection_id;
	const char *account;
	char	  **scopes;
	int			nscopes;
	const char *purpose;
	const char *reason;
	const char *detail;			/* JSON */
	const unsigned char *fingerprint;	/* of the token given out */
	const char *tenant;			/* for administrators: whom it concerns */
	const char *user_id;
} OvEvent;

/* Appends the row; with "durable" returns when it is committed. */
extern void ov_audit(OvCall *call, const OvEvent *event);
/* The same without waiting for the row, and never an error: for what is no access. */
extern void ov_audit_note(OvCall *call, const OvEvent *event);
/* The same without waiting: many, and then ov_audit_settle() */
extern void ov_audit_append_event(OvCall *call, const OvEvent *event);
/* Waits for what has been appended, by a worker on this call's behalf too. */
extern void ov_audit_settle(void);
/*
 * The error that is being raised, as a denial (or, where the provider or this
 * server is to blame, a failure); never waits.  Errors that are not of class
 * OV are nobody's refusal and leave no row.
 */
extern void ov_audit_denial(OvCall *call, const OvEvent *event, int sqlstate);
/* The same of any class, where who has tried matters whatever it came to */
extern void ov_audit_failure(OvCall *call, const OvEvent *event, int sqlstate);

/* ---- connections (connection.c) ---- */

typedef struct OvConnection
{
	unsigned char id[16];
	unsigned char connector_id[16];
	char	   *connector;
	char	   *account;
	char	   *status;
	char	   *reason;
	TimestampTz since;
	int64		key_id;
	const unsigned char *wrapped;	/* the person's key */
	size_t		wrapped_len;
	bool		held;			/* this database is an unclaimed copy */
	const char *held_why;
	unsigned char vault_id[16];
	int64		generation;
	unsigned char hosts_digest[32];
	TimestampTz expires_at;		/* 0 unknown */
	TimestampTz issued_at;
	TimestampTz refresh_at;		/* 0: not scheduled */
	char	   *token_type;
	char	  **scopes;
	int			nscopes;
	char	  **requested;
	int			nrequested;
	char	   *metadata;
	char	   *provider_subject;
	const unsigned char *access;	/* sealed; NULL: none */
	size_t		access_len;
	bool		can_refresh;
	const unsigned char *superseded;	/* 16-byte fingerprints, oldest first */
	size_t		superseded_len;
	char	   *connector_status;
	char	   *connector_reason;
	char	   *policy;
	bool		require_actor;	/* the connector's rules for agents (agents.c) */
	bool		require_purpose;
	int32		max_reads_per_actor;	/* in a minute; 0: no limit */
} OvConnection;

/*
 * The person's connection at a connector.  account NULL: the only live one.
 * A revoked one stands for it when there is no live one.  Raises OV012, OV013.
 * What these return lives until the call ends.
 */
extern OvConnection *ov_connection(OvCall *call, const char *connector, const char *account);
/* All live ones, ordered by account */
extern OvConnection **ov_live_connections(OvCall *call, const char *connector, const char *account, int *n);
extern OvConnection *ov_connection_by_id(OvCall *call, const unsigned char id[16]);
/* The row as it is now; OV012 when it has gone */
extern OvConnection *ov_connection_reload(OvCall *call, const OvConnection *c);
/* OV010 when its status says so */
extern void ov_connection_usable(const OvConnection *c);
pg_noreturn extern void ov_ambiguous_account(OvConnection **list, int n);
pg_noreturn extern void ov_no_connection(const char *reason);
/* Opens the access token into a text datum of the caller's; fingerprint may be NULL */
extern text *ov_open_access_token(OvCall *call, const OvConnection *c, unsigned char fingerprint[16]);
/* The same with a cached subkey; NULL: there is none, or it does not open */
extern text *ov_open_with_cached_key(OvCall *call, const OvConnection *c, unsigned char fingerprint[16]);
extern void ov_cleanse_text(text *t);

/* ---- what a connector asks of agents (agents.c) ---- */

extern bool ov_asks_of_agents(const OvConnection *c);
/* Raises OV014 when the call is not as the connector's rules want it, and counts it. */
extern void ov_check_agent(OvCall *call, const OvConnection *c, const OvEvent *event);

/* ---- the short way to a connection (hot.c) ---- */

/*
 * The person's live connection, read without SPI, if there is nothing to explain
 * about it.  Of *c, what this does not fill in (key, policy, names) is zero.
 */
extern bool ov_hot_connection(const OvPerson *person, const char *connector, const char *account, OvConnection *c);
/* c was found the long way since: the short one may be taken next time. */
extern void ov_hot_remember(const OvConnection *c);

/* ---- ending connections (revoke.c, offboard.c) ---- */

typedef struct OvEnded
{
	unsigned char id[16];
	char	   *connector;
	char	   *account;
	char	   *tenant;
	char	   *user_id;
} OvEnded;

typedef struct OvEnding
{
	/* which; what is not set does not matter */
	const unsigned char *one;	/* this connection alone */
	const char *tenant;
	const char *user_id;
	const unsigned char *connector_id;
	char	  **scopes;			/* any of them granted */
	int			nscopes;
	TimestampTz unused_since;
	TimestampTz consented_before;
	/* how */
	const char *why;			/* status_reason */
	const char *reason;			/* the administrator's own words, for the trail */
	int64		offboarding_id; /* 0: none */
	/* what became of it */
	OvEnded    *ended;
	int64		nended;
	int64		size;
	int64		people;
} OvEnding;

/* Locks and ends the live connections that fit; inside ov_decide(). */
extern void ov_end_connections(OvEnding *e);
extern void ov_audit_ended(OvCall *call, const OvEnding *e);
/* OV070 when the person or the whole tenant has been offboarded */
extern void ov_check_onboarded(OvCall *call);
extern void ov_check_person_onboarded(const char *tenant, const char *user_id);

/* ---- scopes (scope.c) ---- */

/*
 * What oauth_begin asks the provider for.  asked NULL: what was asked before,
 * if the connection has to be renewed, else the defaults.  existing: the live
 * connection that is being renewed or widened, or NULL.  Raises OV014, 22023.
 */
extern char **ov_scopes_to_ask(OvCall *call, const OvConnector *connector, const OvConnection *existing,
							   char **asked, int nasked, int *n);
/* Scope tokens of RFC 6749 section 3.3? else 22023 naming the parameter */
extern void ov_check_scopes(char **scopes, int n, const char *name);

#endif							/* OV_VAULT_H */
