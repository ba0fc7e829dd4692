/*
 * vault.h
 *	  Shared by the SQL functions: identity, the frame of a call, keys, audit.
 */
#ifndef OV_VAULT_H
#define OV_VAULT_H

#include "postgres.h"
#include "catalog.h"
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
} OvPerson;

extern void ov_session_init(void);		/* callbacks; from _PG_init */
extern void ov_session_reset(void);		/* DISCARD ALL: identity, cached assertions, keys */
/*
 * Who the session's user is.  assertion: identity for this call alone, or NULL
 * for the one that is bound.  Raises OV001 or OV002.
 */
extern const OvPerson *ov_person(const char *assertion);

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
	Oid			save_user;
	int			save_context;
	int			save_nest;
	struct OvCall *outer;
} OvCall;

/*
 * Begins a call: checks that the library is preloaded, that this is a primary,
 * that we are not inside a security-restricted operation; finds the person;
 * then becomes oauth_vault_owner with search_path pg_catalog and SPI.
 * assertion_arg: index of the assertion parameter, or -1.
 */
extern void ov_call_begin(OvCall *call, OvAccess access, FunctionCallInfo fcinfo, int assertion_arg);
extern void ov_call_end(OvCall *call);
/* The call in progress, NULL outside */
extern OvCall *ov_current_call;

/* Parameters.  required: NULL is 22004, empty 22023, both naming the parameter. */
extern char *ov_arg_text(FunctionCallInfo fcinfo, int n, const char *name, bool required);
extern char **ov_arg_text_array(FunctionCallInfo fcinfo, int n, const char *name, int *count);	/* NULL if NULL */
extern char *ov_arg_json_object(FunctionCallInfo fcinfo, int n, const char *name);

/* One result row, made in the caller's context */
extern Datum ov_row(OvCall *call, FunctionCallInfo fcinfo, const Datum *values, const bool *nulls);
extern Datum ov_copy_text(OvCall *call, const char *s);
extern Datum ov_copy_array(OvCall *call, char **items, int n);
extern bool ov_array_has(char **items, int n, const char *item);
extern char *ov_array_json(char **items, int n);
extern char *ov_time_text(TimestampTz t);

/* Buffers of the session's one exchange with a worker at a time */
extern OvMsg *ov_request(void);
extern void ov_request_person(OvMsg *m, OvCall *call);	/* tenant, user, actor, session facts for audit */
extern OvMsg *ov_send(OvWorkerKind kind, OvOp op);	/* sends ov_request(); the answer */
extern void ov_done_with_answer(void);

/* ---- keys (subkeys.c) ---- */

/* The person's access subkey for this vault_key row, released or cached. */
extern void ov_access_subkey(const OvPerson *person, const unsigned char vault_id[16], int64 key_id,
							 const unsigned char *wrapped, size_t len, unsigned char subkey[OV_KEY_LEN]);
extern void ov_forget_subkeys(void);

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
	const unsigned char *fingerprint;	/* of the token given out */
	const char *tenant;			/* for administrators: whom it concerns */
	const char *user_id;
} OvEvent;

/* Appends the row; with "durable" returns when it is committed. */
extern void ov_audit(OvCall *call, const OvEvent *event);
/* Waits for what a worker appended on this call's behalf. */
extern void ov_audit_settle(void);
/* The error that is being raised, as a denial; never waits. */
extern void ov_audit_denial(OvCall *call, const OvEvent *event, int sqlstate);

/* ---- connections (connection.c) ---- */

typedef struct OvConnection
{
	unsigned char id[16];
	unsigned char connector_id[16];
	char	   *connector;
	char	   *account;
	char	   *status;
	char	   *reason;
	char	   *detail;
	TimestampTz since;
	int64		key_id;
	const unsigned char *wrapped;
	size_t		wrapped_len;
	unsigned char vault_id[16];
	int64		generation;
	unsigned char hosts_digest[32];
	TimestampTz expires_at;		/* 0 unknown */
	TimestampTz issued_at;
	char	   *token_type;
	char	  **scopes;
	int			nscopes;
	char	   *metadata;
	char	   *provider_subject;
	const unsigned char *access;
	size_t		access_len;
	bool		can_refresh;
	const unsigned char *superseded;	/* 16-byte fingerprints, oldest first */
	size_t		superseded_len;
} OvConnection;

/*
 * The person's connection at a connector.  account NULL: the only live one.
 * Raises OV012, OV013.  live_only: a revoked one does not count.
 */
extern OvConnection *ov_connection(OvCall *call, const char *connector, const char *account);
extern OvConnection *ov_connection_reload(OvCall *call, const OvConnection *c);
/* OV010 and OV060 as its status says */
extern void ov_connection_usable(OvCall *call, const OvConnection *c);
/* Opens the access token into a text datum of the caller's */
extern text *ov_open_access_token(OvCall *call, const OvConnection *c, unsigned char fingerprint[16]);

#endif							/* OV_VAULT_H */
