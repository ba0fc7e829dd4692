/*
 * inbox.c
 *	  grant_inbox: results whose connection row somebody held.
 *
 * A row is written in the transaction that deletes the result's intent, and
 * deleted in the one that applies it, so that a result is in exactly one place.
 * Its tokens are sealed for the connection's next generation, as they would be
 * in the row; what is not secret is in detail.  Rows are applied oldest first,
 * by a timer, and before the connection's next refresh, which must start from
 * them: the refresh token in the row may be used up.
 */
#include "worker/network.h"
#include "worker/grant.h"

#include "core/codec.h"
#include "core/json.h"

#define FIRST_MS 100			/* the lock is mostly gone soon */
#define AGAIN_MS 1000
#define BATCH 50

static OvQuery keep = {
	"INSERT INTO oauth_vault.grant_inbox (inbox_id, connection_id, token_generation, decision_epoch, outcome, detail,"
	" access_token, refresh_token, id_token)"
	" SELECT coalesce(max(i.inbox_id), 0) + 1, $1, $2, $3, $4, $5, $6, $7, $8 FROM oauth_vault.grant_inbox i", "ulltjbbb"
};
static OvQuery next_row = {
	"SELECT inbox_id, connection_id, token_generation, decision_epoch, outcome, detail::text, access_token,"
	" refresh_token, id_token FROM oauth_vault.grant_inbox"
	" WHERE inbox_id > $1 AND connection_id = coalesce($2, connection_id) ORDER BY inbox_id LIMIT 1", "lu"
};
static OvQuery forget = {
	"DELETE FROM oauth_vault.grant_inbox WHERE inbox_id = $1", "l"
};

/* ---- writing ---- */

static void
put_string(OvStr *s, const char *key, const char *value)
{
	if (value == NULL)
		return;
	ov_str_printf(s, "%s\"%s\":", s->len > 1 ? "," : "", key);
	ov_json_quote(s, value, strlen(value));
}

static void
put_int(OvStr *s, const char *key, int64 value)
{
	/* as a string: jsonb's numbers are not ours to rely on */
	ov_str_printf(s, "%s\"%s\":\"" INT64_FORMAT "\"", s->len > 1 ? "," : "", key, value);
}

static void
put_list(OvStr *s, const char *key, const char *const *items, int n)
{
	if (n < 0)
		return;
	ov_str_printf(s, "%s\"%s\":[", s->len > 1 ? "," : "", key);
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			ov_str_putc(s, ',');
		ov_json_quote(s, items[i], strlen(items[i]));
	}
	ov_str_putc(s, ']');
}

static void
insert(const unsigned char connection_id[16], int64 generation, int64 epoch, const char *outcome,
	   const char *detail, const OvGrant *g)
{
	OvArgs		a = {0};

	ov_arg_uuid(&a, connection_id);
	ov_arg_int8(&a, generation);
	ov_arg_int8(&a, epoch);
	ov_arg_str(&a, outcome);
	ov_arg_json(&a, detail);
	ov_arg_bytes(&a, g ? g->access : NULL, g ? g->access_len : 0);
	ov_arg_bytes(&a, g ? g->refresh : NULL, g ? g->refresh_len : 0);
	ov_arg_bytes(&a, g ? g->id : NULL, g ? g->id_len : 0);
	(void) ov_run(&keep, OV_WRITE, &a);
	ov_tick_at(OV_TICK_INBOX, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), FIRST_MS));
}

void
ov_inbox_keep_grant(const OvGrant *g, const char *outcome)
{
	OvArena    *arena = ov_arena_new();
	OvStr		s;

	ov_str_init(&s, arena);
	ov_str_putc(&s, '{');
	put_string(&s, "connector", g->connector);
	put_string(&s, "connector_id", ov_b64url(arena, g->connector_id, 16));
	put_string(&s, "hosts_digest", ov_b64url(arena, g->hosts_digest, 32));
	put_string(&s, "tenant", g->tenant);
	put_string(&s, "user_id", g->user_id);
	put_string(&s, "account", g->account);
	put_string(&s, "policy", g->policy);
	put_int(&s, "key_id", g->key_id);
	put_int(&s, "expires_at", g->expires_at);
	put_int(&s, "refresh_expires_at", g->refresh_expires_at);
	put_int(&s, "flags", (g->can_refresh ? 1 : 0) | (g->forced ? 2 : 0) | (g->used ? 4 : 0) | (g->beside ? 8 : 0));
	put_string(&s, "token_type", g->token_type);
	put_list(&s, "scopes", g->scopes, g->nscopes);
	put_list(&s, "requested", g->requested, g->requested ? g->nrequested : -1);
	put_string(&s, "subject", g->subject);
	put_string(&s, "metadata", g->metadata);
	if (g->has_fingerprint)
		put_string(&s, "fingerprint", ov_b64url(arena, g->fingerprint, OV_FINGERPRINT_LEN));
	ov_str_putc(&s, '}');
	if (ov_arena_failed(arena))
	{
		ov_arena_free(arena);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	insert(g->connection_id, g->generation, g->epoch, outcome, s.data, g);
	ov_arena_free(arena);
}

void
ov_inbox_keep_end(const unsigned char connection_id[16], int64 generation, int64 epoch, const char *reason,
				  const char *detail)
{
	OvArena    *arena = ov_arena_new();
	OvStr		s;
	char	   *text;

	ov_str_init(&s, arena);
	ov_str_putc(&s, '{');
	put_string(&s, "reason", reason);
	put_string(&s, "detail", detail);
	ov_str_putc(&s, '}');
	text = pstrdup(s.data);
	ov_arena_free(arena);
	insert(connection_id, generation, epoch, "dead", text, NULL);
}

/* ---- reading ---- */

static bool
get_bytes(OvArena *arena, const OvJson *j, const char *key, unsigned char *out, size_t len)
{
	const char *s = ov_json_get_string(j, key);
	unsigned char *data;
	size_t		n;

	if (s == NULL || ov_b64url_decode(arena, s, strlen(s), &data, &n) != OV_OK || n != len)
		return false;
	memcpy(out, data, len);
	return true;
}

static int64
get_int(const OvJson *j, const char *key)
{
	int64_t		v = 0;

	(void) ov_json_int64(ov_json_get(j, key), true, &v);
	return v;
}

static int
get_list(OvArena *arena, const OvJson *j, const char *key, const char *const **items)
{
	const OvJson *list = ov_json_get(j, key);
	const char **out;
	int			n = 0;

	*items = NULL;
	if (list == NULL || list->type != OV_JSON_ARRAY)
		return -1;
	out = ov_arena_alloc(arena, sizeof(char *) * (list->count + 1));
	for (const OvJson *e = list->child; e != NULL; e = e->next)
		if (e->type == OV_JSON_STRING)
			out[n++] = e->str;
	*items = out;
	return n;
}

static void
read_grant(OvArena *arena, const OvJson *j, OvGrant *g)
{
	int64		flags = get_int(j, "flags");

	if (!get_bytes(arena, j, "connector_id", g->connector_id, 16) ||
		!get_bytes(arena, j, "hosts_digest", g->hosts_digest, 32))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("a row of grant_inbox is malformed")));
	g->connector = ov_json_get_string(j, "connector");
	g->tenant = ov_json_get_string(j, "tenant");
	g->user_id = ov_json_get_string(j, "user_id");
	g->account = ov_json_get_string(j, "account");
	g->policy = ov_json_get_string(j, "policy");
	if (g->policy == NULL)
		g->policy = "recent";
	g->key_id = get_int(j, "key_id");
	g->expires_at = get_int(j, "expires_at");
	g->refresh_expires_at = get_int(j, "refresh_expires_at");
	g->can_refresh = flags & 1;
	g->beside = (flags & 8) != 0;
	g->forced = flags & 2;
	g->used = flags & 4;
	g->token_type = ov_json_get_string(j, "token_type");
	g->nscopes = get_list(arena, j, "scopes", &g->scopes);
	g->nrequested = get_list(arena, j, "requested", &g->requested);
	g->subject = ov_json_get_string(j, "subject");
	g->metadata = ov_json_get_string(j, "metadata");
	g->has_fingerprint = get_bytes(arena, j, "fingerprint", g->fingerprint, OV_FINGERPRINT_LEN);
}

static const unsigned char *
copy_record(OvArena *arena, int column, size_t *len)
{
	const unsigned char *p = ov_bytea(0, column, len);

	return p ? memcpy(ov_arena_alloc(arena, *len + 1), p, *len) : NULL;
}

/* A consent whose row was locked: installed unless somebody decided meanwhile. */
static void
apply_consent(const OvGrant *g, TimestampTz now)
{
	OvRow		row;
	OvLock		lock = ov_row_lock(g->connection_id, &row);

	if (lock == OV_LOCK_OURS && row.generation <= g->generation && row.epoch == g->epoch &&
		strcmp(row.status, "revoking") != 0 && strcmp(row.status, "revoked") != 0)
		(void) ov_consent_install(g, true, false, now);
	else
		ov_grant_queue_revocation(g);
}

/* Applies the row that was just read; its connection's row is free. */
static void
apply_row(OvArena *arena, TimestampTz now)
{
	OvGrant		g = {0};
	Datum		id = Int64GetDatum(ov_int8(0, 1));
	char	   *outcome = ov_text(0, 5);
	char	   *text = ov_text(0, 6);
	const OvJson *j;

	memcpy(g.connection_id, ov_uuid(0, 2), 16);
	g.generation = ov_int8(0, 3);
	g.epoch = ov_int8(0, 4);
	g.access = copy_record(arena, 7, &g.access_len);
	g.refresh = copy_record(arena, 8, &g.refresh_len);
	g.id = copy_record(arena, 9, &g.id_len);
	if (ov_json_parse(arena, text, strlen(text), &j, NULL) != OV_OK)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("a row of grant_inbox is malformed")));
	if (strcmp(outcome, "dead") == 0)
		(void) ov_grant_end(g.connection_id, g.generation, g.epoch, ov_json_get_string(j, "reason"),
							ov_json_get_string(j, "detail"), now);
	else
	{
		read_grant(arena, j, &g);
		if (strcmp(outcome, "consented") == 0)
			apply_consent(&g, now);
		else
			(void) ov_grant_install(&g, now);
	}
	(void) ov_query(&forget, OV_WRITE, &id, NULL);
}

/* One after the other; *after moves on.  Returns false when there is none. */
static bool
step(int64 *after, const unsigned char *connection_id, bool *left, TimestampTz now)
{
	OvArgs		a = {0};
	OvRow		row;
	OvArena    *arena;
	unsigned char id[16];
	int64		inbox_id;

	ov_arg_int8(&a, *after);
	ov_arg(&a, connection_id ? ov_uuid_datum(connection_id) : OV_NULL, connection_id == NULL);
	if (ov_run(&next_row, OV_READ, &a) == 0)
		return false;
	inbox_id = ov_int8(0, 1);
	memcpy(id, ov_uuid(0, 2), 16);
	if (ov_row_lock(id, &row) == OV_LOCK_THEIRS)
	{
		*after = inbox_id;
		*left = true;
		return true;
	}
	(void) ov_run(&next_row, OV_READ, &a);
	*after = inbox_id;
	arena = ov_arena_new();
	PG_TRY();
	{
		apply_row(arena, now);
	}
	PG_FINALLY();
	{
		ov_arena_free(arena);
	}
	PG_END_TRY();
	return true;
}

bool
ov_inbox_apply(const unsigned char connection_id[16], TimestampTz now)
{
	int64		after = 0;
	bool		left = false;

	while (!left && step(&after, connection_id, &left, now))
		;
	return !left;
}

typedef struct Round
{
	TimestampTz now;
	int64		after;			/* rows up to here have had their turn */
	int			limit;
	bool		left;			/* some are locked, or cannot be applied */
	bool		ended;			/* there are no more */
} Round;

static void
apply_some(void *arg)
{
	Round	   *r = arg;

	for (int n = 0; n < r->limit && !r->ended; n++)
		r->ended = !step(&r->after, NULL, &r->left, r->now);
}

/* Goes on where the last round stopped: what is locked must not hide what is behind it. */
void
ov_inbox_tick(TimestampTz now)
{
	static const char doing[] = "apply results that waited for a lock";
	static int64 cursor = 0;
	static bool left = false;	/* since the last start from the beginning */
	Round		r = {.now = now, .after = cursor, .limit = BATCH, .left = left};
	int			state = ov_transact(doing, apply_some, &r);
	int64		from;

	if (state == ERRCODE_LOCK_NOT_AVAILABLE)
	{
		ov_tick_at(OV_TICK_INBOX, TimestampTzPlusMilliseconds(now, AGAIN_MS));
		return;
	}
	if (state != 0)
	{
		/* one bad row must not hold up the others */
		r = (Round) {.now = now, .after = cursor, .limit = 1, .left = left};
		for (int n = 0; n < BATCH && !r.ended; n++)
			if (ov_transact(doing, apply_some, &r) != 0)
				r.left = true;
	}
	from = cursor;
	cursor = r.ended ? 0 : r.after;
	left = r.left && !r.ended;
	/* numbers begin anew when the table is empty: what came meanwhile may stand before where this round began */
	if (r.left || !r.ended || from > 0)
		ov_tick_at(OV_TICK_INBOX, TimestampTzPlusMilliseconds(now, r.ended ? AGAIN_MS : FIRST_MS));
}
