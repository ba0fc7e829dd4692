/*
 * refresh_rules.c
 *	  A connector's rules and client credentials, parsed and decrypted once for all
 *	  refreshes that need the same.
 *
 * Found by a digest of everything they are made of, so that whatever an
 * administrator changes makes other ones.  They live as long as a job uses them:
 * no secret stays longer in memory than it would with each job having its own.
 */
#include "worker/refresh.h"

#include "core/codec.h"
#include "errors.h"
#include "utils/memutils.h"
#include "worker/shmem.h"

static HTAB *in_use;

typedef struct Entry
{
	unsigned char digest[32];	/* hash key */
	OvRules    *rules;
} Entry;

static void
add(StringInfo s, const void *data, size_t len)
{
	uint64		n = len;

	appendBinaryStringInfo(s, (const char *) &n, sizeof(n));
	if (len > 0)
		appendBinaryStringInfo(s, data, (int) len);
}

static void
add_text(StringInfo s, const char *text)
{
	add(s, text ? text : "", text ? strlen(text) + 1 : 0);
}

void
ov_connector_digest(const OvConnector *c, unsigned char digest[32])
{
	uint32		settings = ov_settings_generation();	/* allowed hosts */
	StringInfoData s;

	initStringInfo(&s);
	add(&s, c->id, sizeof(c->id));
	add(&s, &settings, sizeof(settings));
	add_text(&s, c->client_id);
	add(&s, c->secret, c->secret ? c->secret_len : 0);
	add(&s, &c->secret_generation, sizeof(c->secret_generation));
	add(&s, c->previous_secret, c->previous_secret ? c->previous_len : 0);
	add(&s, &c->previous_generation, sizeof(c->previous_generation));
	add(&s, &c->key_id, sizeof(c->key_id));
	add_text(&s, c->params);
	add_text(&s, c->metadata);
	add_text(&s, c->rules);
	add_text(&s, c->builtin_rules);
	ov_sha256(s.data, s.len, digest);
	pfree(s.data);
}

static void
digest_of(const unsigned char vault_id[16], const unsigned char connector[32], const char *metadata,
		  unsigned char digest[32])
{
	unsigned char text[32 + 16 + 32];

	memcpy(text, connector, 32);
	memcpy(text + 32, vault_id, 16);
	ov_sha256(metadata, strlen(metadata), text + 48);
	ov_sha256(text, sizeof(text), digest);
}

/* The provider as this connection's values make it, and its hosts */
static bool
load(const OvConnector *c, const char *metadata, OvRules *rules, OvFailure *f)
{
	OvError		err = {0};

	if (ov_connector_provider(rules->arena, c, metadata, &rules->provider, &err) != OV_OK)
		return ov_refuse(f, "OV022", psprintf("the rules of connector \"%s\" cannot be used: %s", c->name, err.message),
						 ov_detail("reason", err.message, "connector", c->name, NULL),
						 "An administrator must correct the connector or its provider's rules.");
	return ov_hosts_check(rules->arena, c, metadata, rules->provider, rules->hosts_digest, f);
}

/* What does not fit into memory must not be found by others. */
static bool
fits(const OvRules *rules, OvFailure *f)
{
	return !ov_arena_failed(rules->arena) ||
		ov_refuse(f, "OV020", "the request to the provider could not be built",
				  ov_detail("reason", "out of memory", NULL), "Try again later.");
}

bool
ov_rules_use(OvRules **use, const unsigned char vault_id[16], const OvConnector *c, const unsigned char connector[32],
			 const char *metadata, OvFailure *f)
{
	unsigned char digest[32];
	OvRules    *rules;
	Entry	   *e;

	if (in_use == NULL)
	{
		HASHCTL		ctl = {.keysize = 32, .entrysize = sizeof(Entry), .hcxt = TopMemoryContext};

		in_use = hash_create("oauth_vault rules", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	digest_of(vault_id, connector, metadata, digest);
	e = hash_search(in_use, digest, HASH_FIND, NULL);
	if (e != NULL)
	{
		*use = e->rules;
		e->rules->users++;
		return true;
	}
	/* the caller's from here on, so that an error leaves nothing behind */
	*use = rules = MemoryContextAllocZero(TopMemoryContext, sizeof(OvRules));
	rules->users = 1;
	rules->arena = ov_arena_new();
	if (!load(c, metadata, rules, f) || !fits(rules, f))
		return false;
	e = hash_search(in_use, digest, HASH_ENTER, NULL);
	e->rules = rules;
	memcpy(rules->digest, digest, 32);
	rules->shared = true;
	return true;
}

bool
ov_rules_client(OvRules *rules, const unsigned char vault_id[16], const OvConnector *c, OvFailure *f)
{
	if (rules->has_client)
		return true;
	if (!ov_client(rules->arena, vault_id, c, false, &rules->client, f) ||
		(c->previous_secret != NULL && !ov_client(rules->arena, vault_id, c, true, &rules->previous, f)) ||
		!fits(rules, f))
		return false;
	rules->has_previous = c->previous_secret != NULL;
	rules->has_client = true;
	return true;
}

void
ov_rules_release(OvRules *rules)
{
	if (rules == NULL || --rules->users > 0)
		return;
	if (rules->shared)
		(void) hash_search(in_use, rules->digest, HASH_REMOVE, NULL);
	ov_arena_free(rules->arena);
	pfree(rules);
}
