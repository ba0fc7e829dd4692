/*
 * revoke.c
 *	  oauth_revoke: a decision of the caller's transaction.
 *
 * With this transaction's commit the connection has no tokens any more; its
 * sealed records have moved, as they were, to a revocation row, which the
 * network worker takes to the provider after the commit.  A refresh under way
 * sees another decision_epoch and installs nothing.  Rolled back, nothing has
 * happened.
 *
 * The row is locked with the latest snapshot.  Workers never wait for it.
 */
#include "vault/vault.h"

#include "miscadmin.h"

PG_FUNCTION_INFO_V1(ov_revoke);

static OvQuery lock_row = {
	"SELECT status FROM oauth_vault.connection WHERE connection_id = $1 AND tenant = $2 AND user_id = $3 FOR UPDATE",
	"utt"
};
static OvQuery queue = {
	"INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation,"
	" hosts_digest, metadata, access_token, refresh_token)"
	" SELECT connection_id, tenant, user_id, connector_id, key_id, token_generation, hosts_digest, metadata,"
	" access_token, refresh_token FROM oauth_vault.connection"
	" WHERE connection_id = $1 AND tenant = $2 AND user_id = $3", "utt"
};
static OvQuery end_row = {
	"UPDATE oauth_vault.connection SET status = 'revoking', status_reason = 'revoked_by_person', status_detail = NULL,"
	" status_since = now(), decision_epoch = decision_epoch + 1, refresh_at = NULL, attempts = 0,"
	" access_token = NULL, refresh_token = NULL, id_token = NULL"
	" WHERE connection_id = $1 AND tenant = $2 AND user_id = $3", "utt"
};
static OvQuery outcome = {
	"SELECT c.status, (SELECT r.state FROM oauth_vault.revocation r WHERE r.connection_id = c.connection_id"
	" ORDER BY r.revocation_id DESC LIMIT 1)"
	" FROM oauth_vault.connection c WHERE c.connection_id = $1 AND c.tenant = $2 AND c.user_id = $3", "utt"
};

typedef struct Revoking
{
	const char *connector;
	const char *account;
	OvConnection *c;
	bool		decided;		/* by us, now */
} Revoking;

static void
row_args(OvCall *call, const OvConnection *c, Datum args[3])
{
	args[0] = ov_uuid_datum(c->id);
	args[1] = ov_text_datum(call->person->tenant);
	args[2] = ov_text_datum(call->person->user_id);
}

static bool
is_over(const char *status)
{
	return strcmp(status, "revoking") == 0 || strcmp(status, "revoked") == 0;
}

static void
revoke_row(OvCall *call, void *arg)
{
	Revoking   *r = arg;
	Datum		args[3];

	r->decided = false;
	r->c = ov_connection(call, r->connector, r->account);
	if (is_over(r->c->status))
		return;
	row_args(call, r->c, args);
	/* somebody may have been faster while we waited for the lock */
	if (ov_query(&lock_row, OV_WRITE, args, NULL) == 0 || is_over(ov_text(0, 1)))
		return;
	(void) ov_query(&queue, OV_WRITE, args, NULL);
	(void) ov_query(&end_row, OV_WRITE, args, NULL);
	ov_wake_after_commit();
	r->decided = true;
}

static Datum
revoke_connection(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	Revoking	r = {0};
	Datum		args[3];
	Datum		values[3];
	bool		nulls[3] = {false};

	r.connector = ov_arg_name(fcinfo, 0, "connector", true, 255);
	r.account = ov_arg_name(fcinfo, 1, "account", false, 255);
	event->connector = r.connector;
	event->account = r.account;
	PreventCommandIfReadOnly("oauth_revoke()");
	ov_decide(revoke_row, call, &r);
	event->account = r.c->account;
	event->connection_id = r.c->id;
	if (r.decided)
		ov_audit(call, event);

	row_args(call, r.c, args);
	if (ov_query(&outcome, OV_READ, args, NULL) == 0)
		ov_no_connection("no_connection");
	values[0] = ov_uuid_datum(r.c->id);
	values[1] = ov_text_datum(ov_text(0, 1));
	/* a connection that was imported as revoked has nothing to send */
	values[2] = ov_text_datum(ov_null(0, 2) ? "unsupported" : ov_text(0, 2));
	return ov_row(call, fcinfo, values, nulls);
}

Datum
ov_revoke(PG_FUNCTION_ARGS)
{
	return ov_person_call(fcinfo, "revocation_requested", 2, revoke_connection);
}
