/*
 * discover.c
 *	  Fetching an issuer's metadata for an administrator (RFC 8414, OpenID
 *	  Connect Discovery).
 *
 * Nothing is stored: the document goes back to the session, which freezes it in
 * the connector.  Only hosts to which a secret might go are asked at all: those
 * of the built-in catalogue and the vault file's allowed_hosts, so that SQL
 * cannot make the server fetch from anywhere.
 */
#include "worker/network.h"

#include "core/codec.h"
#include "core/json.h"
#include "errors.h"
#include "guc.h"
#include "utils/memutils.h"

typedef struct Discovery
{
	OvJob		job;
	OvTicket	ticket;
	char	   *issuer;			/* in the arena, like the rest */
	char	   *urls[3];
	int			nurls;
	int			asked;
	char	   *metadata;		/* NULL: no good answer yet */
	bool		final;			/* the answer settles it, for better or worse */
	bool		unreachable;
	OvError		err;
} Discovery;

typedef struct Check
{
	Discovery  *d;
	bool		permitted;
	bool		held;
	OvFailure	failure;
	char	   *host;
} Check;

static OvQuery catalogue = {
	"SELECT rules::text FROM oauth_vault.provider_builtin", ""
};

/* Does a provider of the built-in catalogue have this host? */
static bool
in_catalogue(const char *host)
{
	uint64		n = ov_query(&catalogue, OV_READ, NULL, NULL);
	bool		found = false;

	for (uint64 i = 0; i < n && !found; i++)
	{
		OvArena    *arena = ov_arena_new();
		char	   *text = ov_text(i, 1);
		const OvJson *rules,
				   *none;
		const OvProvider *p;
		const char *const *hosts;
		unsigned char digest[32];
		int			nhosts;

		if (ov_json_parse(arena, text, strlen(text), &rules, NULL) == OV_OK &&
			ov_json_parse(arena, "{}", 2, &none, NULL) == OV_OK &&
			ov_provider_load(arena, rules, NULL, none, &p, NULL) == OV_OK &&
			ov_provider_hosts(arena, p, &hosts, &nhosts, digest, NULL) == OV_OK)
			for (int k = 0; k < nhosts && !found; k++)
				found = strcmp(hosts[k], host) == 0;
		ov_arena_free(arena);
	}
	return found;
}

static void
check_work(void *arg)
{
	Check	   *c = arg;
	const OvSettings *s = ov_settings_or_null();
	OvHome		home;

	/* A vault that has neither home row nor keys yet is a new one, not a copy. */
	if ((ov_home_row(&home) || ov_home_is_missing()) && !ov_home_or_refuse(&home, &c->failure))
	{
		c->held = true;
		return;
	}
	for (int i = 0; s != NULL && i < s->nhosts && !c->permitted; i++)
		c->permitted = pg_strcasecmp(s->allowed_hosts[i], c->host) == 0;
	if (!c->permitted)
		c->permitted = in_catalogue(c->host);
}

static bool
ask_next(Discovery *d)
{
	OvHttpRequest req = {.method = "GET", .url = d->urls[d->asked++]};

	req.headers[req.nheaders++] = "Accept: application/json";
	ov_job_send(&d->job, &req);
	return true;
}

/* As it arrives */
static void
read_document(OvJob *job, const OvHttpResponse *resp)
{
	Discovery  *d = (Discovery *) job;
	OvCode		code;

	code = ov_discovery_response(job->arena, d->issuer, resp, ov_guc_allow_insecure_loopback, &d->metadata, &d->err);
	if (code != OV_OK)
		d->metadata = NULL;
	d->unreachable = code == OV_E_IO;
	/* Only where there is no document may another place have it. */
	d->final = code != OV_E_NOTFOUND;
}

static bool
prepare(Discovery *d, OvFailure *f)
{
	OvUrl		url;
	Check		c = {.d = d};
	int			state;

	if (ov_discovery_urls(d->job.arena, d->issuer, ov_guc_allow_insecure_loopback, d->urls, &d->nurls, &d->err) != OV_OK ||
		ov_url_parse(d->job.arena, d->issuer, &url, &d->err) != OV_OK)
		return ov_refuse(f, "22023", "parameter \"issuer\" is not an issuer's URL",
						 ov_detail("reason", d->err.message, NULL), NULL);
	/* scheme://host[:port] without the scheme */
	c.host = ov_arena_strdup(d->job.arena, strstr(url.origin, "://") + 3);
	state = ov_transact("look at an issuer's host", check_work, &c);
	if (state != 0)
	{
		ov_refuse_database(f, state);
		return false;
	}
	if (c.held)
	{
		*f = c.failure;
		return false;
	}
	if (!c.permitted)
		return ov_refuse(f, "OV014", psprintf("host \"%s\" is not allowed", c.host),
						 ov_detail("reason", "host", "host", c.host, "issuer", d->issuer, NULL),
						 "Hosts come from the built-in catalogue, or from \"allowed_hosts\" in the vault file.");
	return ov_engine_ready(f);
}

void
ov_discovery_start(const OvTicket *ticket, const OvMsg *m)
{
	Discovery  *d = ov_job_new(OV_JOB_DISCOVER, sizeof(Discovery), read_document);
	const void *data;
	size_t		len;
	OvFailure	f = {{0}};

	d->ticket = *ticket;
	if (!ov_msg_get(m, OV_TAG_ISSUER, &data, &len))
		len = 0;
	d->issuer = ov_arena_strndup(d->job.arena, len > 0 ? data : "", len);
	if (prepare(d, &f) && ask_next(d))
		return;
	ov_answer_failure(ticket, &f);
	ov_job_free(&d->job);
}

void
ov_discovery_apply(OvJob *job)
{
	Discovery  *d = (Discovery *) job;
	OvFailure	f = {{0}};

	if (!d->final && d->asked < d->nurls)
	{
		ask_next(d);
		return;
	}
	job->done = true;
	if (d->metadata != NULL)
	{
		size_t		size = strlen(d->metadata) + 64;
		unsigned char *buf = palloc(size);
		OvMsg		answer;

		ov_msg_init(&answer, buf, size);
		ov_msg_put_str(&answer, OV_TAG_METADATA, d->metadata);
		ov_slot_answer(&d->ticket, &answer);
		return;
	}
	if (d->unreachable)
		(void) ov_refuse(&f, "OV020", psprintf("the metadata of issuer \"%s\" could not be fetched", d->issuer),
						 ov_detail("reason", d->err.message, "issuer", d->issuer, NULL),
						 strstr(d->err.message, "certificate") ?
						 "If the issuer's certificate is of a private CA, name it in \"oauth_vault.ca_file\"." :
						 "Check that the issuer can be reached from this server, and try again.");
	else
		(void) ov_refuse(&f, "OV034", psprintf("the metadata of issuer \"%s\" cannot be used", d->issuer),
						 ov_detail("reason", d->err.message, "issuer", d->issuer, NULL),
						 "Check the issuer's URL: it is compared character by character.");
	ov_answer_failure(&d->ticket, &f);
}
