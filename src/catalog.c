/*
 * catalog.c
 *	  See catalog.h.
 */
#include "catalog.h"

#include "access/xlog.h"
#include "errors.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "worker/slots.h"

/* ---- settings ---- */

static OvSettings settings;
static bool settings_valid;
static uint32 settings_generation;
static OvArena *settings_arena;

static const char **
string_list(const OvJson *array, int *n)
{
	const char **list;

	*n = 0;
	if (array == NULL || array->type != OV_JSON_ARRAY)
		return NULL;
	list = ov_arena_alloc(settings_arena, sizeof(char *) * (array->count + 1));
	for (const OvJson *e = array->child; e != NULL; e = e->next)
		if (e->type == OV_JSON_STRING)
			list[(*n)++] = e->str;
	return list;
}

/* The keyring: what is not retired */
static void
read_ring(const OvJson *versions)
{
	int		   *numbers = ov_arena_alloc(settings_arena, sizeof(int) * (versions ? versions->count + 1 : 1));
	const char **fingerprints = ov_arena_alloc(settings_arena, sizeof(char *) * (versions ? versions->count + 1 : 1));

	settings.nversions = settings.active_version = 0;
	settings.active_fingerprint = "";
	for (const OvJson *v = versions ? versions->child : NULL; v != NULL; v = v->next)
	{
		const char *fingerprint = ov_json_get_string(v, "fingerprint");
		int64_t		number;

		if (fingerprint == NULL || !ov_json_int64(ov_json_get(v, "version"), false, &number))
			continue;
		numbers[settings.nversions] = (int) number;
		fingerprints[settings.nversions++] = fingerprint;
		if (ov_json_is_true(ov_json_get(v, "active")))
		{
			settings.active_version = (int) number;
			settings.active_fingerprint = fingerprint;
		}
	}
	settings.versions = numbers;
	settings.fingerprints = fingerprints;
}

const char *
ov_ring_fingerprint(const OvSettings *s, int version)
{
	for (int i = 0; i < s->nversions; i++)
		if (s->versions[i] == version)
			return s->fingerprints[i];
	return NULL;
}

const OvSettings *
ov_settings_or_null(void)
{
	uint32		generation;
	char	   *text;
	const OvJson *json;
	const char *source;

	if (!ov_shmem_ready())
		return NULL;
	generation = ov_settings_generation();
	if (settings_valid && generation == settings_generation)
		return &settings;
	settings_valid = false;
	text = ov_settings(NULL);
	if (text == NULL)
		return NULL;
	ov_arena_free(settings_arena);
	settings_arena = ov_arena_new();
	if (ov_json_parse(settings_arena, text, strlen(text), &json, NULL) != OV_OK)
		return NULL;
	pfree(text);
	source = ov_json_get_string(json, "identity_source");
	settings.source = source && strcmp(source, "role") == 0 ? OV_SOURCE_ROLE :
		source && strcmp(source, "authenticated") == 0 ? OV_SOURCE_AUTHENTICATED : OV_SOURCE_ASSERTION;
	settings.instance = ov_json_get_string(json, "instance");
	if (settings.instance == NULL)
		settings.instance = "";
	settings.peers = string_list(ov_json_get(json, "peers"), &settings.npeers);
	read_ring(ov_json_get(json, "versions"));
	settings.allowed_hosts = string_list(ov_json_get(json, "allowed_hosts"), &settings.nhosts);
	settings.allowed_networks = string_list(ov_json_get(json, "allowed_networks"), &settings.nnetworks);
	settings_generation = generation;
	settings_valid = true;
	return &settings;
}

const OvSettings *
ov_current_settings(void)
{
	const OvSettings *s;
	char	   *reason;

	/* right after a start the key worker may not have read the file yet */
	for (int i = 0; (s = ov_settings_or_null()) == NULL && !ov_worker_alive(OV_WORKER_KEY, InvalidOid) && i < 50; i++)
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	if (s != NULL)
		return s;
	(void) ov_settings(&reason);
	ov_raise(ERRCODE_OV_VAULT_SEALED, "the vault is sealed: the key worker has no keyring",
			 ov_detail("reason", reason ? reason : "the vault file is not loaded", NULL),
			 "Set \"oauth_vault.vault_file\" to a vault file that the server can read, and reload.");
}

/* ---- home row ---- */

static OvQuery read_home = {
	"SELECT vault_id, system_identifier, database_oid::int8, instance, timeline::int8, claimed_at, counter"
	" FROM oauth_vault.home", ""
};
static OvQuery any_key = {"SELECT FROM oauth_vault.vault_key LIMIT 1", ""};
static OvQuery write_home = {
	"INSERT INTO oauth_vault.home (vault_id, system_identifier, timeline, database_oid, instance)"
	" VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING", "uliOt"
};

static bool
is_peer(const OvSettings *s, const char *instance)
{
	for (int i = 0; i < s->npeers; i++)
		if (strcmp(s->peers[i], instance) == 0)
			return true;
	return false;
}

/*
 * A standby that was promoted has another vault file than the primary had, and
 * a later timeline.  If its file lists the primary's instance as a peer, it is
 * the one that goes on.
 */
static void
compare(OvHome *home, const OvSettings *s)
{
	int64		timeline = GetWALInsertionTimeLine();

	if (s != NULL && strcmp(home->instance, s->instance) != 0)
	{
		if (!is_peer(s, home->instance))
			strlcpy(home->why, "the vault file is of another instance", sizeof(home->why));
		else if (timeline > home->timeline)
			home->promoted = true;
		else
			strlcpy(home->why, "the vault file is a peer's, and this server has not been promoted",
					sizeof(home->why));
	}
	else if (timeline != home->timeline)
		snprintf(home->why, sizeof(home->why), "the server was restored or promoted: it is on timeline "
				 INT64_FORMAT ", the home row on " INT64_FORMAT, timeline, home->timeline);
}

bool
ov_home_row(OvHome *home)
{
	memset(home, 0, sizeof(*home));
	if (ov_query(&read_home, OV_READ, NULL, NULL) == 0)
		return false;
	memcpy(home->vault_id, ov_uuid(0, 1), 16);
	home->instance = ov_text(0, 4);
	home->timeline = ov_int8(0, 5);
	home->claimed_at = ov_time(0, 6);
	home->counter = ov_int8(0, 7);
	if ((uint64) ov_int8(0, 2) != GetSystemIdentifier())
		strlcpy(home->why, "the database cluster is another one", sizeof(home->why));
	else if ((Oid) ov_int8(0, 3) != MyDatabaseId)
		strlcpy(home->why, "the database is a copy within its cluster", sizeof(home->why));
	else
		compare(home, ov_settings_or_null());
	home->held = home->why[0] != '\0';
	return true;
}

bool
ov_home(OvHome *home)
{
	if (!ov_home_row(home))
		return false;
	if (!home->held)
		home->held = ov_hold_published(home->claimed_at, home->why, sizeof(home->why));
	return true;
}

bool
ov_home_is_missing(void)
{
	return ov_query(&read_home, OV_READ, NULL, NULL) == 0 && ov_query(&any_key, OV_READ, NULL, NULL) > 0;
}

void
ov_home_claim(OvHome *home)
{
	unsigned char id[16];
	Datum		args[5];

	if (ov_home(home))
		return;
	/* A new one would stand in the way of the one that a restore is bringing. */
	if (ov_home_is_missing())
		ov_raise(ERRCODE_OV_VAULT_HELD, "this database has keys but no home row: it may be a copy that is being restored",
				 ov_detail("reason", "the home row is missing", NULL),
				 "Restore oauth_vault.home from the same backup: every sealed record names the vault that it identifies.");
	ov_new_uuid(id);
	args[0] = ov_uuid_datum(id);
	args[1] = Int64GetDatum((int64) GetSystemIdentifier());
	args[2] = Int32GetDatum((int32) GetWALInsertionTimeLine());
	args[3] = ObjectIdGetDatum(MyDatabaseId);
	args[4] = ov_text_datum(ov_current_settings()->instance);
	(void) ov_query(&write_home, OV_WRITE, args, NULL);
	if (!ov_home(home))
		elog(ERROR, "the home row could not be read back");
}

/* ---- connectors ---- */

#define CONNECTOR_COLUMNS \
	"SELECT n.connector_id, n.name, n.provider, n.client_id, n.client_secret, n.secret_generation," \
	" n.previous_secret, coalesce(n.previous_generation, 0), n.key_id, k.wrapped, n.redirect_uris," \
	" n.default_scopes, n.max_scopes, n.params::text, n.issuer, n.metadata::text, n.refresh_policy," \
	" n.status, n.status_reason, n.paused_by," \
	" CASE WHEN s.rules IS NULL THEN b.rules WHEN b.rules IS NULL THEN s.rules" \
	"  ELSE oauth_vault.merge_patch(b.rules, s.rules) END::text, b.rules::text," \
	" n.require_actor, n.require_purpose, coalesce(n.max_reads_per_actor, 0)::int8" \
	" FROM oauth_vault.connector n JOIN oauth_vault.vault_key k ON k.key_id = n.key_id" \
	" LEFT JOIN oauth_vault.provider_builtin b ON b.name = n.provider" \
	" LEFT JOIN oauth_vault.provider_site s ON s.name = n.provider"

static OvQuery by_name = {CONNECTOR_COLUMNS " WHERE n.name = $1 AND n.status <> 'dropped'", "t"};
static OvQuery by_id = {CONNECTOR_COLUMNS " WHERE n.connector_id = $1", "u"};
static OvQuery rules_by_name = {
	"SELECT CASE WHEN s.rules IS NULL THEN b.rules WHEN b.rules IS NULL THEN s.rules"
	" ELSE oauth_vault.merge_patch(b.rules, s.rules) END::text, b.rules::text"
	" FROM (SELECT $1 AS name) w LEFT JOIN oauth_vault.provider_builtin b USING (name)"
	" LEFT JOIN oauth_vault.provider_site s USING (name)", "t"
};

static const unsigned char *
copy_bytes(int col, size_t *len)
{
	const unsigned char *p = ov_bytea(0, col, len);

	return p ? memcpy(palloc(*len + 1), p, *len) : NULL;
}

static OvConnector *
fetch_connector(OvQuery *q, Datum key)
{
	OvConnector *c;

	if (ov_query(q, OV_READ, &key, NULL) == 0)
		return NULL;
	c = palloc0(sizeof(OvConnector));
	memcpy(c->id, ov_uuid(0, 1), 16);
	c->name = ov_text(0, 2);
	c->provider = ov_text(0, 3);
	c->client_id = ov_text(0, 4);
	c->secret = copy_bytes(5, &c->secret_len);
	c->secret_generation = ov_int8(0, 6);
	c->previous_secret = copy_bytes(7, &c->previous_len);
	c->previous_generation = ov_int8(0, 8);
	c->key_id = ov_int8(0, 9);
	c->wrapped = copy_bytes(10, &c->wrapped_len);
	c->redirect_uris = ov_text_array(0, 11, &c->nredirect_uris);
	c->default_scopes = ov_text_array(0, 12, &c->ndefault_scopes);
	c->has_max_scopes = !ov_null(0, 13);
	c->max_scopes = ov_text_array(0, 13, &c->nmax_scopes);
	c->params = ov_text(0, 14);
	c->issuer = ov_text(0, 15);
	c->metadata = ov_text(0, 16);
	c->policy = ov_text(0, 17);
	c->status = ov_text(0, 18);
	c->status_reason = ov_text(0, 19);
	c->paused_by = ov_text(0, 20);
	c->rules = ov_text(0, 21);
	c->builtin_rules = ov_text(0, 22);
	c->require_actor = ov_bool(0, 23);
	c->require_purpose = ov_bool(0, 24);
	c->max_reads_per_actor = (int32) ov_int8(0, 25);
	return c;
}

OvConnector *
ov_connector_by_name(const char *name)
{
	return fetch_connector(&by_name, ov_text_datum(name));
}

OvConnector *
ov_connector_by_id(const unsigned char id[16])
{
	return fetch_connector(&by_id, ov_uuid_datum(id));
}

bool
ov_provider_rules(const char *name, char **rules, char **builtin_rules)
{
	Datum		arg = ov_text_datum(name);

	*rules = *builtin_rules = NULL;
	if (ov_query(&rules_by_name, OV_READ, &arg, NULL) == 0)
		return false;
	*rules = ov_text(0, 1);
	*builtin_rules = ov_text(0, 2);
	return *rules != NULL;
}

/* A flat object with the members of both; extra's win. */
static OvCode
merge_variables(OvArena *arena, const char *params, const char *extra, const OvJson **out, OvError *err)
{
	const OvJson *a,
			   *b = NULL;
	OvStr		s;
	OvCode		code;
	bool		first = true;

	code = ov_json_parse(arena, params, strlen(params), &a, err);
	if (code == OV_OK && extra != NULL)
		code = ov_json_parse(arena, extra, strlen(extra), &b, err);
	if (code != OV_OK)
		return code;
	if (b == NULL)
	{
		*out = a;
		return OV_OK;
	}
	ov_str_init(&s, arena);
	ov_str_putc(&s, '{');
	for (int pass = 0; pass < 2; pass++)
		for (const OvJson *m = pass == 0 ? a->child : b->child; m != NULL; m = m->next)
		{
			if (pass == 0 && ov_json_get(b, m->key) != NULL)
				continue;
			if (!first)
				ov_str_putc(&s, ',');
			first = false;
			ov_json_quote(&s, m->key, strlen(m->key));
			ov_str_putc(&s, ':');
			ov_json_write(&s, m);
		}
	ov_str_putc(&s, '}');
	return ov_json_parse(arena, s.data, s.len, out, err);
}

static OvCode
load(OvArena *arena, const char *rules_text, const char *metadata_text, const OvConnector *c, const char *extra,
	 const OvProvider **provider, OvError *err)
{
	const OvJson *rules,
			   *metadata = NULL,
			   *variables;
	OvCode		code;

	code = ov_json_parse(arena, rules_text, strlen(rules_text), &rules, err);
	if (code == OV_OK && metadata_text != NULL)
		code = ov_json_parse(arena, metadata_text, strlen(metadata_text), &metadata, err);
	if (code == OV_OK)
		code = merge_variables(arena, c->params, extra, &variables, err);
	if (code == OV_OK)
		code = ov_provider_load(arena, rules, metadata, variables, provider, err);
	return code;
}

OvCode
ov_connector_provider(OvArena *arena, const OvConnector *c, const char *extra,
					  const OvProvider **provider, OvError *err)
{
	if (c->rules == NULL)
		return ov_fail(err, OV_E_NOTFOUND, "there is no provider \"%s\" in the catalogue", c->provider);
	return load(arena, c->rules, c->metadata, c, extra, provider, err);
}

OvCode
ov_hosts_permitted(OvArena *arena, const OvConnector *c, const char *extra,
				   const OvProvider *provider, OvError *err)
{
	const OvSettings *s = ov_settings_or_null();
	const OvProvider *builtin;
	const char *const *hosts;
	const char *const *known = NULL;
	int			nhosts,
				nknown = 0;
	unsigned char digest[32];
	OvCode		code;

	code = ov_provider_hosts(arena, provider, &hosts, &nhosts, digest, err);
	if (code != OV_OK)
		return code;
	/* A generic provider has no hosts of its own: loading it alone may fail. */
	if (c->builtin_rules != NULL &&
		load(arena, c->builtin_rules, NULL, c, extra, &builtin, NULL) == OV_OK &&
		ov_provider_hosts(arena, builtin, &known, &nknown, digest, NULL) != OV_OK)
		nknown = 0;
	for (int i = 0; i < nhosts; i++)
	{
		bool		ok = false;

		for (int k = 0; k < nknown && !ok; k++)
			ok = strcmp(hosts[i], known[k]) == 0;
		for (int k = 0; s != NULL && k < s->nhosts && !ok; k++)
			ok = pg_strcasecmp(hosts[i], s->allowed_hosts[k]) == 0;
		if (!ok)
		{
			(void) ov_fail(err, OV_E_DENIED, "secrets may not be sent to host \"%s\"", hosts[i]);
			if (err != NULL)
				strlcpy(err->detail, hosts[i], sizeof(err->detail));
			return OV_E_DENIED;
		}
	}
	return OV_OK;
}
