/*
 * grant.c
 *	  Storing what a provider's answer brought: tokens, sealed already, or the
 *	  news that a grant is dead.
 *
 * Two counters guard each row.  A result is installed only if both still are
 * what they were when its request left:
 *	 another token_generation	newer tokens are there; what came is dropped
 *	 another decision_epoch		somebody decided (revoked, consented anew): what
 *								came must not live on, and is queued for revocation
 *	 row gone					the same
 * A row that somebody holds is not waited for: the result goes to grant_inbox,
 * sealed, in the same transaction, and is applied when the lock has gone
 * (inbox.c).  Insert-only, so that nobody can hold it.  A consent that goes there
 * is sealed for a generation beyond whatever waits before it or is under way,
 * and expects the decisions that wait before it: the latest consent wins.
 *
 * Nothing here waits for a lock or asks another process: it runs with
 * interrupts held.
 */
#include "worker/network.h"
#include "worker/grant.h"

#include "core/codec.h"
#include "errors.h"

static OvQuery lock_row = {
	"SELECT token_generation, decision_epoch, status, attempts, coalesce(last_used_at, consented_at),"
	" refresh_expires_at, issued_at, refresh_fixed FROM oauth_vault.connection WHERE connection_id = $1 FOR UPDATE SKIP LOCKED", "u"
};
static OvQuery lock_rows = {
	"SELECT token_generation, decision_epoch, status, attempts, coalesce(last_used_at, consented_at),"
	" refresh_expires_at, issued_at, refresh_fixed, connection_id FROM oauth_vault.connection WHERE connection_id = ANY ($1)"
	" FOR UPDATE SKIP LOCKED", "U"
};
static OvQuery row_exists = {
	"SELECT 1 FROM oauth_vault.connection WHERE connection_id = $1", "u"
};
static OvQuery install = {
	"UPDATE oauth_vault.connection SET token_generation = $2 + 1, status = 'active', status_reason = NULL,"
	" status_detail = NULL, status_since = CASE WHEN status = 'active' THEN status_since ELSE $3 END,"
	" expires_at = $4, refresh_at = $5, attempts = 0, issued_at = $3, last_error = NULL,"
	" refresh_extended_at = CASE WHEN $6 > refresh_expires_at + interval '1 minute' THEN $3 ELSE refresh_extended_at END,"
	" refresh_expires_at = $6,"
	" token_type = coalesce($7, token_type), scopes = coalesce($8, scopes), metadata = metadata || coalesce($9, '{}'),"
	" access_token = $10, refresh_token = $11, id_token = $12,"
	" superseded = CASE WHEN $13::bytea IS NULL THEN superseded ELSE substring(coalesce(superseded, '') || $13"
	"  FROM greatest(octet_length(coalesce(superseded, '') || $13) - 127, 1)) END,"
	" forced_at = CASE WHEN $14 THEN $3 ELSE forced_at END, key_id = $15, refresh_fixed = $16"
	" WHERE connection_id = $1",
	"ulzzzztajbbbbolo"
};
/* As above, without new scopes */
static OvQuery install_many = {
	"UPDATE oauth_vault.connection c SET token_generation = i.generation + 1, status = 'active', status_reason = NULL,"
	" status_detail = NULL, status_since = CASE WHEN status = 'active' THEN status_since ELSE $1 END,"
	" expires_at = i.expires_at, refresh_at = i.refresh_at, attempts = 0, issued_at = $1,"
	" refresh_extended_at = CASE WHEN i.refresh_expires_at > c.refresh_expires_at + interval '1 minute' THEN $1 ELSE c.refresh_extended_at END,"
	" refresh_expires_at = i.refresh_expires_at, last_error = NULL, token_type = coalesce(i.token_type, c.token_type),"
	" metadata = CASE WHEN i.metadata IS NULL THEN c.metadata ELSE c.metadata || i.metadata END,"
	" access_token = i.access, refresh_token = i.refresh, id_token = i.id_token,"
	" superseded = CASE WHEN i.fingerprint IS NULL THEN superseded ELSE substring(coalesce(superseded, '') || i.fingerprint"
	"  FROM greatest(octet_length(coalesce(superseded, '') || i.fingerprint) - 127, 1)) END,"
	" forced_at = coalesce(i.forced_at, c.forced_at), key_id = i.key_id, refresh_fixed = i.fixed <> 0"
	" FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
	" i (id, generation, expires_at, refresh_at, refresh_expires_at, token_type, metadata, access, refresh, id_token,"
	" fingerprint, forced_at, key_id, fixed) WHERE c.connection_id = i.id",
	"z" "ULZZZaJBBBBZLL"
};
static OvQuery end_grant = {
	"UPDATE oauth_vault.connection SET status = 'reauth_required', status_reason = $2, status_detail = $3,"
	" status_since = $4, refresh_at = NULL, attempts = attempts + 1, last_error = $2 WHERE connection_id = $1",
	"utjz"
};
static OvQuery queue_revocation = {
	"INSERT INTO oauth_vault.revocation (connection_id, tenant, user_id, connector_id, key_id, token_generation,"
	" hosts_digest, metadata, access_token, refresh_token, residual_until, next_attempt_at, offboarding_id)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce($8, '{}'), $9, $10, $11, now(),"
	/* of the decision that came between */
	"  (SELECT max(r.offboarding_id) FROM oauth_vault.revocation r WHERE r.connection_id = $1))",
	"uttullbjbbz"
};
static OvQuery lock_live = {
	"SELECT connection_id, token_generation, decision_epoch, provider_subject FROM oauth_vault.connection"
	" WHERE tenant = $1 AND user_id = $2 AND connector_id = $3 AND account = $4"
	" AND status NOT IN ('revoking', 'revoked') FOR UPDATE SKIP LOCKED", "ttut"
};
static OvQuery read_live = {
	"SELECT connection_id, token_generation, decision_epoch, provider_subject FROM oauth_vault.connection"
	" WHERE tenant = $1 AND user_id = $2 AND connector_id = $3 AND account = $4"
	" AND status NOT IN ('revoking', 'revoked')", "ttut"
};
static OvQuery renew_consent = {
	"UPDATE oauth_vault.connection SET token_generation = $16, decision_epoch = decision_epoch + 1,"
	" status = 'active', status_reason = NULL, status_detail = NULL, status_since = $2, key_id = $3,"
	" hosts_digest = $4, expires_at = $5, refresh_at = $6, attempts = 0, issued_at = $2, refresh_expires_at = $7, refresh_extended_at = NULL,"
	" refresh_fixed = false,"
	" last_error = NULL, token_type = coalesce($8, 'Bearer'), requested_scopes = $9, scopes = $10,"
	" provider_subject = coalesce($11, provider_subject), metadata = $12, consented_at = $2, forced_at = NULL,"
	" superseded = NULL, access_token = $13, refresh_token = $14, id_token = $15 WHERE connection_id = $1",
	"uzlb" "zzz" "taatj" "bbb" "l"
};
static OvQuery waiting = {
	"SELECT coalesce(max(token_generation) + 1, 0), count(*) FILTER (WHERE outcome = 'consented')"
	" FROM oauth_vault.grant_inbox WHERE connection_id = $1", "u"
};
static OvQuery insert_consent = {
	"INSERT INTO oauth_vault.connection (connection_id, issued_at, status_since, consented_at, key_id, hosts_digest,"
	" expires_at, refresh_at, refresh_expires_at, token_type, requested_scopes, scopes, provider_subject, metadata,"
	" access_token, refresh_token, id_token, tenant, user_id, connector_id, account, status, token_generation)"
	" VALUES ($1, $2, $2, $2, $3, $4, $5, $6, $7, coalesce($8, 'Bearer'), $9, $10, $11, $12, $13, $14, $15,"
	" $16, $17, $18, $19, 'active', 1)",
	"uzlb" "zzz" "taatj" "bbb" "ttut"
};
static OvQuery hold_connector = {
	"SELECT 1 FROM oauth_vault.connector WHERE connector_id = $1 FOR KEY SHARE SKIP LOCKED", "u"
};

/* Columns of lock_row and lock_rows */
static void
read_row(uint64 n, OvRow *row)
{
	char	   *status = ov_text(n, 3);

	memset(row, 0, sizeof(*row));
	row->generation = ov_int8(n, 1);
	row->epoch = ov_int8(n, 2);
	strlcpy(row->status, status, sizeof(row->status));
	row->attempts = (int) ov_int8(n, 4);
	row->used_at = ov_time(n, 5);
	row->refresh_expires_at = ov_time(n, 6);
	row->issued_at = ov_time(n, 7);
	row->refresh_fixed = ov_bool(n, 8);
}

OvLock
ov_row_lock(const unsigned char connection_id[16], OvRow *row)
{
	Datum		id = ov_uuid_datum(connection_id);

	memset(row, 0, sizeof(*row));
	if (ov_query(&lock_row, OV_WRITE, &id, NULL) == 0)
		return ov_query(&row_exists, OV_READ, &id, NULL) == 0 ? OV_LOCK_GONE : OV_LOCK_THEIRS;
	read_row(0, row);
	return OV_LOCK_OURS;
}

void
ov_connector_hold(const unsigned char connector_id[16])
{
	Datum		id = ov_uuid_datum(connector_id);

	if (ov_query(&hold_connector, OV_WRITE, &id, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("the connector is locked by another transaction")));
}

static bool
is_over(const OvRow *row)
{
	return strcmp(row->status, "revoking") == 0 || strcmp(row->status, "revoked") == 0;
}

/* When the worker is to renew what is being installed; 0: not by itself */
static TimestampTz
due(const OvGrant *g, TimestampTz refresh_expires_at, bool refresh_fixed, TimestampTz used_at, TimestampTz now)
{
	OvDue		d = {
		.policy = g->policy,
		.connection_id = g->connection_id,
		.issued_at = now,
		.expires_at = ov_unix_to_timestamp(g->expires_at),
		.refresh_expires_at = refresh_expires_at,
		.refresh_fixed = refresh_fixed,
		.used_at = g->used ? now : used_at,
		.can_refresh = g->can_refresh
	};
	TimestampTz at = ov_due(&d, now);

	if (at != 0)
		ov_tick_at(OV_TICK_DUE, at);
	return at;
}

void
ov_grant_queue_revocation(const OvGrant *g)
{
	OvArgs		a = {0};

	ov_arg_uuid(&a, g->connection_id);
	ov_arg_str(&a, g->tenant);
	ov_arg_str(&a, g->user_id);
	ov_arg_uuid(&a, g->connector_id);
	ov_arg_int8(&a, g->key_id);
	ov_arg_int8(&a, g->generation + 1);
	ov_arg_bytes(&a, g->hosts_digest, 32);
	ov_arg_json(&a, g->metadata);
	ov_arg_bytes(&a, g->access, g->access_len);
	ov_arg_bytes(&a, g->refresh, g->refresh_len);
	ov_arg_time(&a, ov_unix_to_timestamp(g->expires_at));
	(void) ov_run(&queue_revocation, OV_WRITE, &a);
	ov_tick_at(OV_TICK_OUTBOX, GetCurrentTimestamp());
}

/* What is to be done with a grant whose row is this: INSTALLED if it is to be installed. */
static OvStored
judge(const OvGrant *g, OvLock lock, const OvRow *row)
{
	switch (lock)
	{
		case OV_LOCK_THEIRS:
			ov_inbox_keep_grant(g, "refreshed");
			return OV_STORED_LOCKED;
		case OV_LOCK_GONE:
			if (!g->beside)
				ov_grant_queue_revocation(g);
			return OV_STORED_REVOKED;
		case OV_LOCK_OURS:
			break;
	}
	if (row->generation != g->generation)
		return OV_STORED_STALE;
	if (row->epoch != g->epoch || is_over(row))
	{
		if (!g->beside)
			ov_grant_queue_revocation(g);
		return OV_STORED_REVOKED;
	}
	return OV_STORED_INSTALLED;
}

static TimestampTz
new_refresh_expiry(const OvGrant *g, const OvRow *row)
{
	return g->refresh_expires_at != 0 ? ov_unix_to_timestamp(g->refresh_expires_at) : row->refresh_expires_at;
}

static void
install_one(const OvGrant *g, const OvRow *row, TimestampTz now)
{
	OvArgs		a = {0};
	TimestampTz refresh_expires_at = new_refresh_expiry(g, row);
	bool		fixed = ov_refresh_fixed(row, refresh_expires_at, now);

	ov_arg_uuid(&a, g->connection_id);
	ov_arg_int8(&a, g->generation);
	ov_arg_time(&a, now);
	ov_arg_time(&a, ov_unix_to_timestamp(g->expires_at));
	ov_arg_time(&a, due(g, refresh_expires_at, fixed, row->used_at, now));
	ov_arg_time(&a, refresh_expires_at);
	ov_arg_str(&a, g->token_type);
	ov_arg_texts(&a, g->scopes, g->nscopes);
	ov_arg_json(&a, g->metadata);
	ov_arg_bytes(&a, g->access, g->access_len);
	ov_arg_bytes(&a, g->refresh, g->refresh_len);
	ov_arg_bytes(&a, g->id, g->id_len);
	ov_arg_bytes(&a, g->has_fingerprint ? g->fingerprint : NULL, OV_FINGERPRINT_LEN);
	ov_arg(&a, BoolGetDatum(g->forced), false);
	/* The row may have been sealed anew under another key since: these are not. */
	ov_arg_int8(&a, g->key_id);
	ov_arg(&a, BoolGetDatum(fixed), false);
	(void) ov_run(&install, OV_WRITE, &a);
}

OvStored
ov_grant_install(const OvGrant *g, TimestampTz now)
{
	OvRow		row;
	OvLock		lock = ov_row_lock(g->connection_id, &row);
	OvStored	stored = judge(g, lock, &row);

	if (stored == OV_STORED_INSTALLED)
		install_one(g, &row, now);
	return stored;
}

/* ---- many in one statement ---- */

enum
{
	COL_ID, COL_GENERATION, COL_EXPIRES, COL_DUE, COL_REFRESH_EXPIRES, COL_TYPE, COL_METADATA, COL_ACCESS,
	COL_REFRESH, COL_ID_TOKEN, COL_FINGERPRINT, COL_FORCED, COL_KEY, COL_FIXED, NCOLS
};

typedef struct Columns
{
	Datum	   *v[NCOLS];
	bool	   *nulls[NCOLS];
	int			n;
} Columns;

static void
put(Columns *c, int col, Datum value, bool isnull)
{
	c->v[col][c->n] = value;
	c->nulls[col][c->n] = isnull;
}

static void
put_time(Columns *c, int col, TimestampTz t)
{
	put(c, col, TimestampTzGetDatum(t), t == 0);
}

static void
put_bytes(Columns *c, int col, const void *p, size_t len)
{
	put(c, col, ov_bytea_datum(p, len), p == NULL);
}

static void
add_columns(Columns *c, const OvGrant *g, const OvRow *row, TimestampTz now)
{
	TimestampTz refresh_expires_at = new_refresh_expiry(g, row);
	bool		fixed = ov_refresh_fixed(row, refresh_expires_at, now);
	const char *metadata = g->same_metadata ? NULL : g->metadata;

	put(c, COL_ID, ov_uuid_datum(g->connection_id), false);
	put(c, COL_GENERATION, Int64GetDatum(g->generation), false);
	put_time(c, COL_EXPIRES, ov_unix_to_timestamp(g->expires_at));
	put_time(c, COL_DUE, due(g, refresh_expires_at, fixed, row->used_at, now));
	put_time(c, COL_REFRESH_EXPIRES, refresh_expires_at);
	put(c, COL_TYPE, ov_text_datum(g->token_type), g->token_type == NULL);
	put(c, COL_METADATA, ov_jsonb_datum(metadata), metadata == NULL);
	put_bytes(c, COL_ACCESS, g->access, g->access_len);
	put_bytes(c, COL_REFRESH, g->refresh, g->refresh_len);
	put_bytes(c, COL_ID_TOKEN, g->id, g->id_len);
	put_bytes(c, COL_FINGERPRINT, g->has_fingerprint ? g->fingerprint : NULL, OV_FINGERPRINT_LEN);
	put_time(c, COL_FORCED, g->forced ? now : 0);
	put(c, COL_KEY, Int64GetDatum(g->key_id), false);
	put(c, COL_FIXED, Int64GetDatum(fixed ? 1 : 0), false);
	c->n++;
}

/* Their rows are locked, by us. */
static void
install_together(Columns *c, TimestampTz now)
{
	static const char letters[] = "ulzzztjbbbbzll";
	OvArgs		a = {0};

	if (c->n == 0)
		return;
	ov_arg_time(&a, now);
	for (int col = 0; col < NCOLS; col++)
		ov_arg_array(&a, letters[col], c->v[col], c->nulls[col], c->n);
	if (ov_run(&install_many, OV_WRITE, &a) != c->n)
		elog(ERROR, "not all of the locked connections could be written");
}

/* The row of this connection among the n locked ones, or NULL */
static const OvRow *
find_row(const OvRow *rows, const unsigned char (*ids)[16], int n, const unsigned char id[16])
{
	for (int i = 0; i < n; i++)
		if (memcmp(ids[i], id, 16) == 0)
			return &rows[i];
	return NULL;
}

void
ov_grants_install(const OvGrant *const *grants, int n, OvStored *stored, TimestampTz now)
{
	const unsigned char **wanted = palloc(sizeof(char *) * n);
	OvRow	   *rows = palloc(sizeof(OvRow) * n);
	unsigned char (*ids)[16] = palloc(16 * (Size) n);
	Columns		columns = {.n = 0};
	OvArgs		a = {0};
	int			nrows;

	for (int i = 0; i < n; i++)
		wanted[i] = grants[i]->connection_id;
	ov_arg_uuids(&a, wanted, n);
	nrows = (int) ov_run(&lock_rows, OV_WRITE, &a);
	Assert(nrows <= n);
	for (int i = 0; i < nrows; i++)
	{
		read_row(i, &rows[i]);
		memcpy(ids[i], ov_uuid(i, 9), 16);
	}
	for (int col = 0; col < NCOLS; col++)
	{
		columns.v[col] = palloc(sizeof(Datum) * n);
		columns.nulls[col] = palloc(n);
	}
	for (int i = 0; i < n; i++)
	{
		const OvGrant *g = grants[i];
		const OvRow *row = find_row(rows, (const unsigned char (*)[16]) ids, nrows, g->connection_id);

		/* One that is not among them may have come free since: that is no matter. */
		if (row == NULL || g->nscopes >= 0)
			stored[i] = ov_grant_install(g, now);
		else if ((stored[i] = judge(g, OV_LOCK_OURS, row)) == OV_STORED_INSTALLED)
			add_columns(&columns, g, row, now);
	}
	install_together(&columns, now);
}

OvStored
ov_grant_end(const unsigned char connection_id[16], int64 generation, int64 epoch, const char *reason,
			 const char *detail, TimestampTz now)
{
	OvArgs		a = {0};
	OvRow		row;

	switch (ov_row_lock(connection_id, &row))
	{
		case OV_LOCK_THEIRS:
			ov_inbox_keep_end(connection_id, generation, epoch, reason, detail);
			return OV_STORED_LOCKED;
		case OV_LOCK_GONE:
			return OV_STORED_REVOKED;
		case OV_LOCK_OURS:
			break;
	}
	/* Somebody else was first: what the provider refused is not the grant. */
	if (row.generation != generation)
		return OV_STORED_STALE;
	if (row.epoch != epoch || is_over(&row))
		return OV_STORED_REVOKED;
	ov_arg_uuid(&a, connection_id);
	ov_arg_str(&a, reason);
	ov_arg_json(&a, detail);
	ov_arg_time(&a, now);
	(void) ov_run(&end_grant, OV_WRITE, &a);
	return OV_STORED_INSTALLED;
}

/* What the locked row will be once all that waits for it has been applied */
static void
look_ahead(OvGrant *g)
{
	Datum		id = ov_uuid_datum(g->connection_id);

	(void) ov_query(&waiting, OV_READ, &id, NULL);
	/* one more: a refresh may be under way */
	g->generation = Max(g->generation, ov_int8(0, 1)) + 1;
	g->epoch += ov_int8(0, 2);
}

bool
ov_grant_find(OvGrant *g, bool *locked, char **subject)
{
	OvArgs		a = {0};
	unsigned char id[16];

	*locked = false;
	*subject = NULL;
	ov_arg_str(&a, g->tenant);
	ov_arg_str(&a, g->user_id);
	ov_arg_uuid(&a, g->connector_id);
	ov_arg_str(&a, g->account);
	if (ov_run(&lock_live, OV_WRITE, &a) == 0)
	{
		if (ov_run(&read_live, OV_READ, &a) == 0)
		{
			ov_new_uuid(g->connection_id);
			g->generation = 0;
			g->epoch = 0;
			return false;
		}
		*locked = true;
	}
	else
	{
		/* what waits for this row comes first; then it has other counters */
		memcpy(id, ov_uuid(0, 1), 16);
		(void) ov_inbox_apply(id, GetCurrentTimestamp());
		(void) ov_run(&lock_live, OV_WRITE, &a);
	}
	memcpy(g->connection_id, ov_uuid(0, 1), 16);
	g->generation = ov_int8(0, 2);
	g->epoch = ov_int8(0, 3);
	*subject = ov_text(0, 4);
	if (*locked)
		look_ahead(g);
	return true;
}

OvStored
ov_consent_install(const OvGrant *g, bool exists, bool locked, TimestampTz now)
{
	OvArgs		a = {0};
	TimestampTz refresh_expires_at = ov_unix_to_timestamp(g->refresh_expires_at);

	if (locked)
	{
		ov_inbox_keep_grant(g, "consented");
		return OV_STORED_LOCKED;
	}
	ov_arg_uuid(&a, g->connection_id);
	ov_arg_time(&a, now);
	ov_arg_int8(&a, g->key_id);
	ov_arg_bytes(&a, g->hosts_digest, 32);
	ov_arg_time(&a, ov_unix_to_timestamp(g->expires_at));
	ov_arg_time(&a, due(g, refresh_expires_at, false, now, now));
	ov_arg_time(&a, refresh_expires_at);
	ov_arg_str(&a, g->token_type);
	ov_arg_texts(&a, g->requested, Max(g->nrequested, 0));
	/* RFC 6749 section 5.1: an answer without scope granted what was asked for */
	ov_arg_texts(&a, g->nscopes < 0 ? g->requested : g->scopes,
				 g->nscopes < 0 ? Max(g->nrequested, 0) : g->nscopes);
	ov_arg_str(&a, g->subject);
	ov_arg_json(&a, g->metadata ? g->metadata : "{}");
	ov_arg_bytes(&a, g->access, g->access_len);
	ov_arg_bytes(&a, g->refresh, g->refresh_len);
	ov_arg_bytes(&a, g->id, g->id_len);
	if (exists)
	{
		ov_arg_int8(&a, g->generation + 1);
		(void) ov_run(&renew_consent, OV_WRITE, &a);
	}
	else
	{
		ov_arg_str(&a, g->tenant);
		ov_arg_str(&a, g->user_id);
		ov_arg_uuid(&a, g->connector_id);
		ov_arg_str(&a, g->account);
		(void) ov_run(&insert_consent, OV_WRITE, &a);
	}
	return OV_STORED_INSTALLED;
}
