/*
 * refresh.h
 *	  Between refresh.c, which claims, refresh_due.c, which finds what to claim,
 *	  and refresh_apply.c, which stores.
 */
#ifndef OV_REFRESH_H
#define OV_REFRESH_H

#include "worker/network.h"

#define OV_MAX_TRIES 2			/* of one refresh token: once, and once after a crash */

typedef struct OvWaiter
{
	struct OvWaiter *next;
	OvTicket	ticket;
	bool		rejected;		/* asked by REJECTED: wants a result, not a reason */
	int64		generation;		/* of the connection that it asked for */
} OvWaiter;

/* Another connection with the same chain of refresh tokens (refresh_shared.c) */
typedef struct OvSibling
{
	OvGrant		g;
	OvUserKeys *keys;			/* in the arena */
	OvStored	stored;
} OvSibling;

/*
 * What refreshes at one connector, with the same captured values, have in common:
 * read and decrypted once, for as long as any of them is under way (refresh_rules.c).
 */
typedef struct OvRules
{
	unsigned char digest[32];	/* hash key: of all that it is made of */
	int			users;
	bool		shared;			/* can be found */
	OvArena    *arena;
	const OvProvider *provider;
	unsigned char hosts_digest[32];
	bool		has_client;
	OvClient	client;
	OvClient	previous;		/* with the client secret before this one */
	bool		has_previous;
} OvRules;

/* A refresh under way; its intent row is committed. */
typedef struct OvRefresh
{
	OvJob		job;
	OvGrant		g;
	OvRules    *rules;
	OvHttpRequest req;
	OvUserKeys *keys;			/* in the arena */
	unsigned char vault_id[16];
	const char *refresh_token;	/* those that were sent */
	const char *access_token;
	char	  **scopes;			/* granted so far */
	int			nscopes;
	const char *subject;		/* the provider's account, pinned by the consent; NULL: not known */
	bool		on_previous;	/* sent with the client secret before this one */
	int64		secret_generation;
	bool		in_doubt;		/* this refresh token was sent before, and the answer is not known */
	int			tries;			/* how often it has been sent, with this */
	bool		is_shared;
	unsigned char share[32];	/* names the chain */
	OvSibling  *siblings;
	int			nsiblings;
	OvWaiter   *waiters;
	OvCaller   *caller;			/* the first of them; NULL: of our own accord */

	/* the answer */
	OvTokens	tokens;
	bool		sealed;
	bool		unanswered;		/* sent, and then silence */
	bool		foreign;		/* its ID token is somebody else's: none of it is kept */
	OvError		id_error;		/* why the ID token is not kept; no message: it is, or there was none */

	/* what became of it, once stored */
	enum
	{
		OV_END_FRESH,			/* there are newer tokens: ours, or somebody's */
		OV_END_DEAD,
		OV_END_LATER,
		OV_END_PAUSED,
		OV_END_LOCKED,
		OV_END_GONE
	}			end;
	bool		paused_now;
	TimestampTz retry_at;
	const char *reason;
} OvRefresh;

typedef enum OvVerdict
{
	OV_UNDECIDED,					/* nothing to do for it */
	OV_STARTED,
	OV_JOINED,
	OV_ANSWERED,					/* there is a newer token already */
	OV_ENDED,						/* found dead without asking the provider */
	OV_REFUSED
} OvVerdict;

/* A connection as a claim needs it; strings and records live until the transaction ends */
typedef struct OvRefreshRow
{
	char	   *tenant,
			   *user_id,
			   *account,
			   *status,
			   *reason,
			   *metadata,
			   *last_error,
			   *subject;		/* NULL: not known */
	unsigned char connector_id[16];
	unsigned char hosts_digest[32];
	TimestampTz since,
				expires_at,
				refresh_at,
				issued_at,
				forced_at;
	int64		key_id,
				generation,
				epoch;
	int			attempts;
	char	  **scopes;
	int			nscopes;
	const unsigned char *access,
			   *refresh;
	size_t		access_len,
				refresh_len;
} OvRefreshRow;

typedef struct OvLoadedRow
{
	unsigned char id[16];
	bool		taken;
	OvRefreshRow row;
} OvLoadedRow;

typedef struct OvWant
{
	bool		has_ticket;
	OvTicket	ticket;
	bool		rejected;
	bool		force;
	bool		due;			/* our own accord */
	bool		recover;
	unsigned char id[16];
	int64		generation;		/* what the caller has; 0: whatever */
	OvCaller   *caller;
	char	   *error;			/* of REJECTED */

	int64		own_generation; /* OV_JOINED, to a sibling's; otherwise 0 */
	bool		unclaimed;		/* OV_STARTED: its intent is still to be inserted */
	OvVerdict		verdict;
	OvRefresh  *job;			/* OV_STARTED, OV_JOINED */
	OvFailure	failure;		/* OV_REFUSED, OV_ENDED */
	int64		new_generation;
	const char *result;
	TimestampTz retry_at;		/* of one that is due: not before; 0: the usual pause */
	OvHost	   *host;			/* that it goes to; NULL: it did not come that far */
	OvTrace		trace;			/* OV_ENDED */
} OvWant;

/* Claims and sends, in one transaction; every want has its verdict afterwards. */
extern void ov_refresh_claim(OvWant **wants, int n);
/* refresh_flight.c: the refresh of this connection that is under way, or NULL */
extern OvRefresh *ov_refresh_running(const unsigned char id[16]);
extern void ov_refresh_each(void (*count) (const OvRefresh *r));
extern void ov_refresh_remember(OvRefresh *job);
extern void ov_refresh_attach(OvWant *w);	/* its caller, if it has one, waits for its job */

/* refresh_rules.c: *use is to be released whatever comes; connector: ov_connector_digest(), once a
 * round.  In a transaction.  false: *f. */
extern bool ov_rules_use(OvRules **use, const unsigned char vault_id[16], const OvConnector *c,
						 const unsigned char connector[32], const char *metadata, OvFailure *f);
extern bool ov_rules_client(OvRules *rules, const unsigned char vault_id[16], const OvConnector *c, OvFailure *f);
extern void ov_rules_release(OvRules *rules);	/* NULL is fine; the last one cleanses */
extern void ov_connector_digest(const OvConnector *c, unsigned char digest[32]);

/* refresh_shared.c: in a transaction, notes the chain and the siblings of a refresh that is to be
 * sent, and takes the newest of their refresh tokens */
extern void ov_shared_claim(OvRefresh *r, const OvConnector *c, TimestampTz issued_at);
extern OvRefresh *ov_shared_running(const OvRefresh *r);	/* of the same chain, or NULL */
extern void ov_shared_remember(OvRefresh *r);
extern void ov_shared_forget(const OvRefresh *r);

/* refresh_load.c: the row; false: there is none */
extern bool ov_refresh_load(const unsigned char id[16], OvRefreshRow *row);
/* Those of these connections that have no intent and nothing in the inbox */
extern OvLoadedRow *ov_refresh_load_many(const unsigned char *const *ids, int n, int *nrows);
/* One of them, once: what a second want of the same round finds may have changed. */
extern bool ov_loaded_take(OvLoadedRow *rows, int n, const unsigned char id[16], OvRefreshRow *row);

extern void ov_refresh_read(OvJob *job, const OvHttpResponse *resp);
extern void ov_refresh_forget(OvRefresh *r);	/* no longer in flight: nobody joins it any more */

/* Failures in words, the same from a claim and from an answer */
extern bool ov_refuse_dead(OvFailure *f, const char *connector, const char *reason, TimestampTz since,
						   const char *provider_error);
extern bool ov_refuse_later(OvFailure *f, const char *reason, const char *provider_error, TimestampTz retry_at);
extern bool ov_refuse_paused(OvFailure *f, const char *connector, const char *reason);
extern bool ov_refuse_locked(OvFailure *f);
extern bool ov_refuse_gone(OvFailure *f);
extern void ov_answer_refreshed(const OvTicket *ticket, bool rejected, const char *result, int64 generation);

#endif							/* OV_REFRESH_H */
