/*
 * refresh_shared.c
 *	  Connections that have one chain of refresh tokens between them.
 *
 * Some providers keep a chain for their client and a workspace, whoever has
 * consented: the refresh of one person's connection uses up what all the others
 * hold.  The rules' "shared_key" says which connections of a connector these are.
 * Then one request is under way for all of them, with the newest refresh token
 * that any of them has, and what comes is stored in all of them, each under its
 * own person's key, in one transaction.  What concerns one of them alone (that it
 * was revoked meanwhile) revokes nothing at the provider while others live by it.
 *
 * The key is stamped on a consent, among its metadata, from what the provider's
 * answer said and by built-in rules only: with a site's rules an administrator
 * could make one person's connection the sibling of another's, and his token
 * its.  "shared_key" is no name that rules can capture under.
 */
#include "worker/refresh.h"

#include "core/codec.h"
#include "core/json.h"
#include "utils/memutils.h"

static HTAB *sharing;

typedef struct Shared
{
	unsigned char share[32];	/* hash key: of connector and shared key */
	OvRefresh  *job;
} Shared;

static OvQuery find_siblings = {
	"SELECT connection_id, tenant, user_id, account, key_id, token_generation, decision_epoch, metadata::text,"
	" access_token, refresh_token, issued_at > $4 AND refresh_token IS NOT NULL"
	" FROM oauth_vault.connection WHERE connector_id = $1 AND metadata ->> 'shared_key' = $2 AND metadata ? 'shared_key'"
	" AND status = 'active' AND connection_id <> $3 AND hosts_digest = $5 ORDER BY issued_at DESC LIMIT 64", "utuzb"
};
static OvQuery any_sibling = {
	"SELECT 1 FROM oauth_vault.connection WHERE connector_id = $1 AND metadata ->> 'shared_key' = $2"
	" AND metadata ? 'shared_key' AND status = 'active' AND connection_id <> $3 LIMIT 1", "utu"
};

static bool
builtin_alone(const OvConnector *c)
{
	return c->rules != NULL && c->builtin_rules != NULL && strcmp(c->rules, c->builtin_rules) == 0;
}

/* What was stamped, if it still counts; in the arena */
static const char *
stamped(OvArena *arena, const OvConnector *c, const char *metadata)
{
	const OvJson *values;

	if (strstr(metadata, "shared_key") == NULL || !builtin_alone(c) ||
		ov_json_parse(arena, metadata, strlen(metadata), &values, NULL) != OV_OK)
		return NULL;
	return ov_json_get_string(values, "shared_key");
}

/* metadata: of the grant alone.  The connector's params, which are an administrator's, do not count. */
char *
ov_shared_stamp(OvArena *arena, const OvConnector *c, char *metadata)
{
	OvConnector bare = *c;
	const OvProvider *p;
	char	   *key;
	OvStr		s;

	bare.params = "{}";
	if (!builtin_alone(c) || ov_connector_provider(arena, &bare, metadata, &p, NULL) != OV_OK ||
		ov_provider_shared_key(arena, p, &key, NULL) != OV_OK || key == NULL || metadata[0] != '{')
		return metadata;
	ov_str_init(&s, arena);
	ov_str_puts(&s, "{\"shared_key\":");
	ov_json_quote(&s, key, strlen(key));
	if (strcmp(metadata, "{}") != 0)
		ov_str_putc(&s, ',');
	ov_str_puts(&s, metadata + 1);
	return s.data;
}

bool
ov_shared_in_use(OvArena *arena, const OvConnector *c, const char *metadata, const unsigned char connection_id[16])
{
	const char *key = stamped(arena, c, metadata);
	OvArgs		a = {0};

	if (key == NULL)
		return false;
	ov_arg_uuid(&a, c->id);
	ov_arg_str(&a, key);
	ov_arg_uuid(&a, connection_id);
	return ov_run(&any_sibling, OV_READ, &a) > 0;
}

/* ---- what is under way ---- */

OvRefresh *
ov_shared_running(const OvRefresh *r)
{
	Shared	   *s = r->is_shared && sharing ? hash_search(sharing, r->share, HASH_FIND, NULL) : NULL;

	return s ? s->job : NULL;
}

void
ov_shared_remember(OvRefresh *r)
{
	Shared	   *s;

	if (!r->is_shared)
		return;
	if (sharing == NULL)
	{
		HASHCTL		ctl = {.keysize = 32, .entrysize = sizeof(Shared), .hcxt = TopMemoryContext};

		sharing = hash_create("oauth_vault shared refreshes", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	s = hash_search(sharing, r->share, HASH_ENTER, NULL);
	s->job = r;
}

void
ov_shared_forget(const OvRefresh *r)
{
	if (ov_shared_running(r) == r)
		(void) hash_search(sharing, r->share, HASH_REMOVE, NULL);
}

/* ---- the siblings of a claim ---- */

typedef struct Found			/* a row; strings and records live until the transaction ends */
{
	unsigned char id[16];
	char	   *tenant,
			   *user_id,
			   *account,
			   *metadata;
	int64		key_id,
				generation,
				epoch;
	const unsigned char *access,
			   *refresh;
	size_t		access_len,
				refresh_len;
	bool		newer;
} Found;

static void
read_found(uint64 n, Found *f)
{
	memcpy(f->id, ov_uuid(n, 1), 16);
	f->tenant = ov_text(n, 2);
	f->user_id = ov_text(n, 3);
	f->account = ov_text(n, 4);
	f->key_id = ov_int8(n, 5);
	f->generation = ov_int8(n, 6);
	f->epoch = ov_int8(n, 7);
	f->metadata = ov_text(n, 8);
	f->access = ov_bytea(n, 9, &f->access_len);
	f->refresh = ov_bytea(n, 10, &f->refresh_len);
	f->newer = ov_bool(n, 11);
}

/* A sibling with its keys, and its token if that is the newest; false: it is left as it is. */
static bool
take(OvRefresh *r, const Found *found, bool newest, OvSibling *s)
{
	OvArena    *arena = r->job.arena;
	MemoryContext context = r->job.context;
	OvGrant    *g = &s->g;
	OvAad		aad = {.tenant = found->tenant, .user_id = found->user_id, .key_id = found->key_id,
	.token_generation = found->generation, .purpose = OV_PURPOSE_ACCESS_TOKEN};
	const char *token;
	OvFailure	why;

	memset(s, 0, sizeof(*s));
	s->keys = ov_arena_alloc(arena, sizeof(OvUserKeys));
	memcpy(aad.vault_id, r->vault_id, 16);
	memcpy(aad.connector_id, r->g.connector_id, 16);
	memcpy(aad.connection_id, found->id, 16);
	memcpy(aad.hosts_digest, r->g.hosts_digest, 32);
	if (!ov_user_keys(r->vault_id, found->tenant, found->user_id, found->key_id, s->keys, &why) ||
		!ov_open(arena, s->keys->access, &aad, found->access, found->access_len, &token, &why))
		return false;
	*g = r->g;
	memcpy(g->connection_id, found->id, 16);
	g->tenant = MemoryContextStrdup(context, found->tenant);
	g->user_id = MemoryContextStrdup(context, found->user_id);
	g->account = MemoryContextStrdup(context, found->account);
	g->metadata = MemoryContextStrdup(context, found->metadata);
	g->key_id = found->key_id;
	g->generation = found->generation;
	g->epoch = found->epoch;
	g->forced = g->used = false;
	g->beside = true;
	g->has_fingerprint = token != NULL;
	if (token != NULL)
		ov_token_fingerprint(s->keys->access, token, strlen(token), g->fingerprint);
	aad.purpose = OV_PURPOSE_REFRESH_TOKEN;
	if (newest && ov_open(arena, s->keys->refresh, &aad, found->refresh, found->refresh_len, &token, &why) && token != NULL)
		r->refresh_token = token;
	return true;
}

void
ov_shared_claim(OvRefresh *r, const OvConnector *c, TimestampTz issued_at)
{
	const char *key = stamped(r->job.arena, c, r->g.metadata);
	OvArgs		a = {0};
	OvStr		s;
	Found	   *found;
	OvKeyOwner *owners;
	int			n;

	if (key == NULL)
		return;
	r->is_shared = true;
	ov_str_init(&s, r->job.arena);
	ov_str_add(&s, (const char *) c->id, 16);
	ov_str_puts(&s, key);
	ov_sha256(s.data, s.len, r->share);
	if (ov_shared_running(r) != NULL)
		return;					/* it will be joined */
	ov_arg_uuid(&a, c->id);
	ov_arg_str(&a, key);
	ov_arg_uuid(&a, r->g.connection_id);
	ov_arg_time(&a, issued_at ? issued_at : DT_NOBEGIN);
	ov_arg_bytes(&a, r->g.hosts_digest, 32);
	n = (int) ov_run(&find_siblings, OV_READ, &a);
	found = palloc(sizeof(Found) * (n + 1));
	owners = palloc(sizeof(OvKeyOwner) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		read_found(i, &found[i]);
		owners[i] = (OvKeyOwner) {found[i].tenant, found[i].user_id, found[i].key_id};
	}
	if (n > 0)
		ov_user_keys_prefetch(r->vault_id, owners, n);
	r->siblings = MemoryContextAllocZero(r->job.context, sizeof(OvSibling) * (n + 1));
	for (int i = 0; i < n; i++)
		if (take(r, &found[i], i == 0 && found[i].newer, &r->siblings[r->nsiblings]))
			r->nsiblings++;
	r->g.beside = r->nsiblings > 0;
}
