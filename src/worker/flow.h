/*
 * flow.h
 *	  Between flow_begin.c, flow_complete.c, which sends a code, and flow_store.c,
 *	  which follows up what it brought and stores it.
 */
#ifndef OV_FLOW_H
#define OV_FLOW_H

#include "worker/network.h"

#define OV_MAX_SLOTS 4

/* A further token that a consent brings, and its rules */
typedef struct OvSlot
{
	const char *name;
	const char *metadata;		/* the flow's, with the variables that select it */
	const OvProvider *provider;
	OvTokens	tokens;
	OvGrant		g;
	bool		stored;
} OvSlot;

/* What is being asked.  Each answer either ends the exchange or leads to the next step. */
typedef enum OvStep
{
	OV_STEP_CODE,				/* the code for tokens */
	OV_STEP_LONG_LIVED,			/* a short-lived token for a long-lived one */
	OV_STEP_LOOKUP				/* whose account it is */
} OvStep;

typedef struct OvExchange
{
	OvJob		job;
	OvTicket	ticket;
	OvCaller   *caller;
	OvGrant		g;				/* strings in the job's context or arena */
	unsigned char vault_id[16];
	OvUserKeys *keys;
	const OvProvider *provider;
	OvClient	client;
	const char *client_id;
	const char *nonce;
	const char *metadata;		/* params and what the callback brought */
	const char *return_to;
	TimestampTz begun;			/* the flow */
	dlist_node	exchanging;
	OvHttpRequest req;
	OvHttpRequest again;		/* the same with the previous client secret */
	bool		has_again;
	bool		sent_again;
	OvClient	previous;		/* whose it was */
	OvSlot		slots[OV_MAX_SLOTS];
	int			nslots;
	int64		secret_generation;

	/* the answers */
	OvStep		step;
	OvTokens	tokens;
	OvTokens	found;			/* the lookup's */
	const char *first_token;	/* short-lived, until there is another */
	bool		id_token_bad;
	OvError		id_error;
	const char *subject;

	/* what became of it */
	bool		refused;
	OvFailure	failure;
	OvStored	stored;
	bool		to_revoke;		/* the tokens cannot be kept */
	bool		pause;			/* the client was refused */
	bool		paused_now;
} OvExchange;

/* A field of a request, in the arena; NULL if absent */
extern char *ov_field(OvArena *arena, const OvMsg *m, OvTag tag);
/* The connector if it is there and in service */
extern OvConnector *ov_usable_connector(OvConnector *c, OvFailure *f);
extern bool ov_provider_of(OvArena *arena, const OvConnector *c, const char *extra, const OvProvider **provider,
						   OvFailure *f);

/* ---- flow_store.c ---- */

/* One flat JSON object of two; NULL when they are none */
extern char *ov_merge_values(OvArena *arena, const char *base, const char *more);
extern void ov_exchange_read(OvJob *job, const OvHttpResponse *resp);
extern void ov_exchange_trace(const OvExchange *x);

#endif							/* OV_FLOW_H */
