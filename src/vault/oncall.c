/*
 * oncall.c
 *	  For whoever is called at night: figures, what is the matter with one
 *	  connection, and trying it again now.
 *
 * Administrators' calls.  Nothing here shows anything sealed.
 */
#include "vault/vault.h"

#include "funcapi.h"
#include "guc.h"
#include "utils/timestamp.h"
#include "worker/figures.h"

PG_FUNCTION_INFO_V1(ov_vault_metrics);
PG_FUNCTION_INFO_V1(ov_vault_hosts);
PG_FUNCTION_INFO_V1(ov_explain);
PG_FUNCTION_INFO_V1(ov_refresh_now);

static void
put_metric(FunctionCallInfo fcinfo, const char *name, const char *type, const char *labels, double value, const char *help)
{
	Datum		values[5] = {
		ov_text_datum(name), ov_text_datum(type), ov_jsonb_datum(labels ? labels : "{}"), Float8GetDatum(value), ov_text_datum(help)
	};
	bool		nulls[5] = {false};

	ov_put_row(fcinfo, values, nulls);
}

/* ---- metrics ---- */

/*
 * From the tables, in one statement.  Connections are counted once for all
 * their gauges: that reads every one of them.
 */
static OvQuery gauges = {
	"WITH c AS (SELECT split_part(n.name, ':', 1) AS connector, c.status, count(*) AS n,"
	"   count(*) FILTER (WHERE c.attempts > 0 AND c.status = 'active') AS failing"
	"  FROM oauth_vault.connection c JOIN oauth_vault.connector n USING (connector_id) GROUP BY 1, 2),"
	" d AS (SELECT split_part(k.name, ':', 1) AS connector, x.n, x.late, y.next FROM oauth_vault.connector k"
	"  CROSS JOIN LATERAL (SELECT count(*) AS n, extract(epoch FROM clock_timestamp() - min(refresh_at)) AS late"
	"   FROM oauth_vault.connection WHERE connector_id = k.connector_id AND status = 'active'"
	"   AND refresh_at <= statement_timestamp()) x"
	"  LEFT JOIN LATERAL (SELECT refresh_at AS next FROM oauth_vault.connection WHERE connector_id = k.connector_id"
	"   AND status = 'active' AND refresh_at > statement_timestamp() ORDER BY refresh_at LIMIT 1) y ON true"
	"  WHERE k.status <> 'dropped')"
	" SELECT 'oauth_vault_connections', jsonb_build_object('connector', connector, 'status', status), n::float8,"
	"  'Connections' FROM c"
	" UNION ALL SELECT 'oauth_vault_connections_failing', jsonb_build_object('connector', connector), sum(failing)::float8,"
	"  'Live connections whose last attempts to renew have failed' FROM c GROUP BY connector"
	" UNION ALL SELECT 'oauth_vault_connectors', jsonb_build_object('status', s.status), count(n.connector_id)::float8,"
	"  'Connectors' FROM (VALUES ('active'), ('paused'), ('retired')) s (status) LEFT JOIN oauth_vault.connector n USING (status) GROUP BY s.status"
	" UNION ALL SELECT 'oauth_vault_connections_ending', jsonb_build_object('connector', split_part(n.name, ':', 1)),"
	"  count(c.connection_id)::float8, 'Live connections whose refresh token ends within a week and is not prolonged by use'"
	"  FROM oauth_vault.connector n LEFT JOIN oauth_vault.connection c ON c.connector_id = n.connector_id AND c.status = 'active'"
	"   AND c.refresh_fixed AND c.refresh_expires_at < statement_timestamp() + interval '7 days'"
	"  WHERE n.status <> 'dropped' GROUP BY 2"
	" UNION ALL SELECT 'oauth_vault_due', jsonb_build_object('connector', connector), n::float8,"
	"  'Connections that should have been renewed by now' FROM d"
	" UNION ALL SELECT 'oauth_vault_due_age_seconds', jsonb_build_object('connector', connector), coalesce(late, 0)::float8,"
	"  'How long the first of them has been due' FROM d"
	" UNION ALL SELECT 'oauth_vault_next_due_timestamp_seconds', jsonb_build_object('connector', connector),"
	"  extract(epoch FROM next)::float8, 'When the next refresh is due' FROM d WHERE next IS NOT NULL"
	" UNION ALL SELECT 'oauth_vault_intents', jsonb_build_object('state', s.state), count(i.connection_id)::float8,"
	"  'Claimed refreshes: under way, or left open by a crash' FROM (VALUES ('in_flight', false), ('in_doubt', true)) s (state, doubt)"
	"  LEFT JOIN oauth_vault.intent i ON i.in_doubt = s.doubt GROUP BY s.state"
	" UNION ALL SELECT 'oauth_vault_inbox', '{}', count(*)::float8, 'Answers that wait for a locked row' FROM oauth_vault.grant_inbox"
	" UNION ALL SELECT 'oauth_vault_revocations', jsonb_build_object('state', s.state), count(r.revocation_id)::float8,"
	"  'Revocations by what the provider has been told' FROM (VALUES ('queued'), ('confirmed'), ('unsupported'), ('failed'), ('superseded')) s (state)"
	"  LEFT JOIN oauth_vault.revocation r USING (state) GROUP BY s.state"
	" UNION ALL SELECT 'oauth_vault_flows_pending', '{}', count(*)::float8, 'Consents under way'"
	"  FROM oauth_vault.flow WHERE consumed_at IS NULL AND expires_at > clock_timestamp()"
	" ORDER BY 1, 2", ""
};

static void
put_gauges(FunctionCallInfo fcinfo)
{
	uint64		n = ov_query(&gauges, OV_READ, NULL, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		values[5] = {
			ov_datum(i, 1, &isnull), ov_text_datum("gauge"), ov_datum(i, 2, &isnull), ov_datum(i, 3, &isnull), ov_datum(i, 4, &isnull)
		};
		bool		nulls[5] = {false};

		ov_put_row(fcinfo, values, nulls);
	}
}

static void
put_workers(FunctionCallInfo fcinfo)
{
	static const struct
	{
		OvWorkerKind kind;
		const char *name;
		bool		of_database;
	}			workers[] = {
		{OV_WORKER_LAUNCHER, "launcher", false}, {OV_WORKER_KEY, "key", false},
		{OV_WORKER_NETWORK, "network", true}, {OV_WORKER_AUDIT, "audit", true}
	};
	int64		beat = (int64) ov_figure(OV_FIG_BEAT);

	for (int i = 0; i < lengthof(workers); i++)
	{
		bool		up = ov_worker_alive(workers[i].kind, workers[i].of_database ? MyDatabaseId : InvalidOid);

		put_metric(fcinfo, "oauth_vault_worker_up", "gauge", psprintf("{\"worker\": \"%s\"}", workers[i].name),
				   up ? 1 : 0, "Is this worker there?");
	}
	if (beat != 0)
		put_metric(fcinfo, "oauth_vault_worker_heartbeat_age_seconds", "gauge", NULL,
				   (double) (ov_monotonic() - beat) / USECS_PER_SEC,
				   "Since the network worker last went round its loop; it does so once a minute at least");
	put_metric(fcinfo, "oauth_vault_jobs", "gauge", NULL, (double) ov_figure(OV_FIG_JOBS),
			   "Jobs of the network worker: on the wire, waiting for their host, or waiting to be stored");
	put_metric(fcinfo, "oauth_vault_requests_on_the_wire", "gauge", NULL, (double) ov_figure(OV_FIG_ON_THE_WIRE),
			   "Requests that providers have not answered yet");
	put_metric(fcinfo, "oauth_vault_answers_not_stored", "gauge", NULL, (double) ov_figure(OV_FIG_STUCK),
			   "Answers of providers that could not be stored and are tried again");
	for (int i = 0; i < 2; i++)
	{
		const char *name = i == 0 ? "key" : "network";
		int			waiting,
					taken,
					all;

		ov_slots_in_use(i == 0 ? OV_WORKER_KEY : OV_WORKER_NETWORK, &waiting, &taken, &all);
		put_metric(fcinfo, "oauth_vault_request_slots", "gauge",
				   psprintf("{\"state\": \"waiting\", \"worker\": \"%s\"}", name), waiting,
				   "Requests of sessions to workers, of all databases");
		put_metric(fcinfo, "oauth_vault_request_slots", "gauge",
				   psprintf("{\"state\": \"taken\", \"worker\": \"%s\"}", name), taken,
				   "Requests of sessions to workers, of all databases");
		put_metric(fcinfo, "oauth_vault_request_slots_limit", "gauge", psprintf("{\"worker\": \"%s\"}", name), all,
				   "oauth_vault.request_slots");
	}
	put_metric(fcinfo, "oauth_vault_audit_backlog_bytes", "gauge", NULL, (double) ov_audit_backlog(),
			   "Audit rows that are not committed yet");
}

/* ---- hosts ---- */

static const char *
state_of(const OvHostFigure *h)
{
	return h->pause_us == 0 ? "ok" : h->paused_until > ov_monotonic() ? "paused" : "probing";
}

/* By the server's clock; 0: it is not paused */
static TimestampTz
pause_ends(const OvHostFigure *h)
{
	return h->pause_us == 0 ? 0 : GetCurrentTimestamp() + h->paused_until - ov_monotonic();
}

static OvHostFigure *
hosts_now(int *n)
{
	OvHostFigure *hosts = palloc(sizeof(OvHostFigure) * OV_HOST_FIGURES);

	*n = ov_hosts_figures(hosts);
	return hosts;
}

Datum
ov_vault_hosts(PG_FUNCTION_ARGS)
{
	OvCall		call;
	OvHostFigure *hosts;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	hosts = hosts_now(&n);
	for (int i = 0; i < n; i++)
	{
		const OvHostFigure *h = &hosts[i];
		Datum		values[11] = {
			ov_text_datum(h->name), ov_text_datum(state_of(h)), Int32GetDatum(h->active), Int32GetDatum(h->waiting),
			Int32GetDatum(h->pause_us == 0 ? h->window : 1), Int32GetDatum(h->failures), TimestampTzGetDatum(pause_ends(h)),
			Int32GetDatum(h->requests), Int32GetDatum(h->seconds), Int64GetDatum((int64) h->pauses), Int64GetDatum(h->clock_off)
		};
		bool		nulls[11] = {false};

		nulls[6] = h->pause_us == 0;
		nulls[7] = nulls[8] = h->requests == 0;
		nulls[10] = !h->told_time;
		ov_put_row(fcinfo, values, nulls);
	}
	ov_call_end(&call);
	return (Datum) 0;
}

static void
put_hosts(FunctionCallInfo fcinfo)
{
	int			n;
	OvHostFigure *hosts = hosts_now(&n);

	for (int i = 0; i < n; i++)
	{
		const OvHostFigure *h = &hosts[i];
		const char *labels = ov_detail("host", h->name, NULL);

		put_metric(fcinfo, "oauth_vault_host_paused", "gauge", labels, h->pause_us > 0 ? 1 : 0,
				   "Is this provider's host out of order, so that at most one request goes there to try it?");
		put_metric(fcinfo, "oauth_vault_host_pause_left_seconds", "gauge", labels,
				   h->pause_us == 0 ? 0 : Max(h->paused_until - ov_monotonic(), 0) / (double) USECS_PER_SEC,
				   "Until it is tried again");
		put_metric(fcinfo, "oauth_vault_host_failures", "gauge", labels, h->failures,
				   "Requests in a row that it has not answered, or with 429 or 5xx");
		put_metric(fcinfo, "oauth_vault_host_requests_on_the_wire", "gauge", labels, h->active,
				   "Requests that it has not answered yet");
		put_metric(fcinfo, "oauth_vault_host_requests_waiting", "gauge", labels, h->waiting,
				   "Requests that wait for room at this host, or for its budget");
		put_metric(fcinfo, "oauth_vault_host_requests_limit", "gauge", labels, h->pause_us == 0 ? h->window : 1,
				   "So many requests it gets at a time, now");
		if (h->requests > 0)
			put_metric(fcinfo, "oauth_vault_host_budget_per_second", "gauge", labels, (double) h->requests / h->seconds,
					   "Requests a second that the provider's rules allow");
		put_metric(fcinfo, "oauth_vault_host_pauses_total", "counter", labels, (double) h->pauses,
				   "Pauses since the network worker's start");
		if (h->told_time)
			put_metric(fcinfo, "oauth_vault_host_clock_offset_seconds", "gauge", labels, (double) h->clock_off,
					   "How far this server's clock is ahead of what the host's last answer said");
	}
}

static void
put_counters(FunctionCallInfo fcinfo)
{
	OvEventCount *events = palloc(sizeof(OvEventCount) * OV_EVENT_KINDS);
	int			n = ov_event_counts(events);
	uint64		requests = ov_figure(OV_FIG_REQUESTS);
	uint64		unanswered = Min(ov_figure(OV_FIG_UNANSWERED), requests);

	for (int i = 0; i < n; i++)
		put_metric(fcinfo, "oauth_vault_events_total", "counter",
				   psprintf("{\"event\": \"%s\", \"outcome\": \"%s\"}", events[i].event, events[i].outcome),
				   (double) events[i].n, "Audit rows by event and outcome, since the server's start");
	put_metric(fcinfo, "oauth_vault_provider_requests_total", "counter", "{\"result\": \"answered\"}",
			   (double) (requests - unanswered), "Requests to providers, since the server's start");
	put_metric(fcinfo, "oauth_vault_provider_requests_total", "counter", "{\"result\": \"unanswered\"}",
			   (double) unanswered, "Requests to providers, since the server's start");
	put_metric(fcinfo, "oauth_vault_network_worker_starts_total", "counter", NULL,
			   (double) ov_figure(OV_FIG_WORKER_STARTS), "Starts of the network worker, since the server's start");
}

Datum
ov_vault_metrics(PG_FUNCTION_ARGS)
{
	OvCall		call;
	OvHome		home;

	InitMaterializedSRF(fcinfo, 0);
	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	put_metric(fcinfo, "oauth_vault_held", "gauge", NULL, ov_home(&home) && home.held ? 1 : 0,
			   "Is this database a copy that nobody has claimed?");
	put_workers(fcinfo);
	put_gauges(fcinfo);
	put_hosts(fcinfo);
	put_counters(fcinfo);
	ov_call_end(&call);
	return (Datum) 0;
}

/* ---- one connection ---- */

/*
 * $2: why the whole database is held, or NULL; $3: does the network worker run;
 * $4: after how many days a connection counts as unused; $5: the provider's host,
 * $6: its state, $7: when it is tried again, $8: how far our clock is ahead of
 * its: all NULL while nothing has been asked of it; $9: failures in a row, $10:
 * requests that wait.
 */
static OvQuery explain = {
	"SELECT x.item, x.value FROM oauth_vault.connection c"
	" JOIN oauth_vault.connector n USING (connector_id)"
	" LEFT JOIN oauth_vault.intent i USING (connection_id)"
	" LEFT JOIN LATERAL (SELECT count(*) AS n, min(received_at) AS since FROM oauth_vault.grant_inbox g"
	"  WHERE g.connection_id = c.connection_id) g ON true"
	" LEFT JOIN LATERAL (SELECT * FROM oauth_vault.revocation v WHERE v.connection_id = c.connection_id"
	"  ORDER BY v.revocation_id DESC LIMIT 1) v ON true"
	" CROSS JOIN LATERAL (SELECT coalesce(c.last_used_at, c.consented_at) < clock_timestamp() - $4 * interval '1 day' AS unused) u"
	" CROSS JOIN LATERAL (VALUES"
	" (1, 'summary', CASE"
	"  WHEN c.status = 'revoked' THEN 'ended on ' || c.status_since || '; the provider: ' || coalesce(v.state, 'not told')"
	"  WHEN c.status = 'revoking' THEN 'revoked here; the provider is told at the next attempt'"
	"  WHEN $2 IS NOT NULL THEN 'held: ' || $2 || '; nothing is sent until oauth_claim()'"
	"  WHEN c.status = 'held' THEN 'held: nothing is sent until oauth_claim()'"
	"  WHEN c.status = 'reauth_required' THEN 'the person has to consent again: ' || coalesce(c.status_reason, 'unknown')"
	"  WHEN n.status <> 'active' THEN 'rests until an administrator puts the connector right: ' || coalesce(n.status_reason, n.status)"
	"  WHEN NOT $3 THEN 'nothing happens: the network worker is not running'"
	"  WHEN g.n > 0 THEN 'renewed; the answer waits since ' || g.since || ' for somebody''s lock on the row'"
	"  WHEN i.in_doubt THEN 'a refresh was under way when the server or the worker ended; its outcome is unknown'"
	"  WHEN i.connection_id IS NOT NULL THEN 'a refresh is under way since ' || i.started_at"
	"  WHEN $7 IS NOT NULL THEN 'the provider''s host ' || $5 || ' is out of order: ' || $9 || ' failures in a row'"
	"   || CASE WHEN c.last_error IS NULL THEN '' ELSE ', the last one here: ' || c.last_error END || '; tried again at ' || $7"
	"  WHEN c.attempts > 0 THEN 'the last ' || c.attempts || ' attempts have failed: ' || coalesce(c.last_error, 'unknown')"
	"   || coalesce('; tried again at ' || c.refresh_at, '')"
	"  WHEN c.refresh_token IS NULL AND c.expires_at <= clock_timestamp() THEN 'expired, and there is no refresh token'"
	"  WHEN c.refresh_token IS NULL THEN 'live, and cannot be renewed: there is no refresh token'"
	"  WHEN c.refresh_at <= clock_timestamp() THEN 'due, and its turn has not come yet'"
	"  WHEN c.refresh_at IS NOT NULL THEN 'live; renewed at ' || c.refresh_at"
	"  WHEN c.refresh_at IS NULL AND c.refresh_fixed AND c.refresh_expires_at < statement_timestamp() + interval '7 days'"
	"   THEN 'live, until ' || c.refresh_expires_at || ': then its refresh token ends, which use does not prolong'"
	"  WHEN n.refresh_policy = 'lazy' THEN 'live; renewed when somebody asks: the connector''s refresh policy is lazy'"
	"  WHEN n.refresh_policy = 'recent' AND u.unused THEN 'live; renewed when somebody asks: unused for ' || $4 || ' days'"
	"  WHEN c.expires_at = 'infinity' THEN 'live, and never expires'"
	"  ELSE 'live; renewed when somebody asks: when it expires is not known' END"
	"  || CASE WHEN abs($8) > 60 THEN '; but this server''s clock is ' || abs($8) || ' seconds '"
	"   || CASE WHEN $8 > 0 THEN 'ahead of' ELSE 'behind' END || ' that of ' || $5 ELSE '' END),"
	" (2, 'person', c.tenant || CASE WHEN c.tenant = '' THEN '' ELSE '/' END || c.user_id),"
	" (3, 'connector', split_part(n.name, ':', 1)), (4, 'account', nullif(c.account, '')),"
	" (5, 'status', c.status), (6, 'status_reason', c.status_reason), (7, 'status_since', c.status_since::text),"
	" (8, 'status_detail', c.status_detail::text),"
	" (9, 'issued_at', c.issued_at::text), (10, 'expires_at', coalesce(c.expires_at::text, 'unknown')),"
	" (11, 'refresh_expires_at', c.refresh_expires_at::text), (12, 'has_refresh_token', (c.refresh_token IS NOT NULL)::text),"
	" (13, 'next_attempt_at', c.refresh_at::text), (14, 'failed_attempts', nullif(c.attempts, 0)::text), (15, 'last_error', c.last_error),"
	" (16, 'last_used_at', c.last_used_at::text), (17, 'consented_at', c.consented_at::text),"
	" (18, 'refresh_policy', n.refresh_policy), (19, 'token_generation', c.token_generation::text),"
	" (20, 'decision_epoch', c.decision_epoch::text),"
	" (21, 'intent', CASE WHEN i.connection_id IS NOT NULL THEN CASE WHEN i.in_doubt THEN 'in doubt, ' ELSE 'in flight, ' END"
	"  || 'try ' || i.tries || ', since ' || i.started_at END),"
	" (22, 'inbox', CASE WHEN g.n > 0 THEN g.n || ' since ' || g.since END),"
	" (23, 'revocation', CASE WHEN v.revocation_id IS NOT NULL THEN v.state || ' after ' || v.attempts || ' attempts'"
	"  || coalesce(': ' || v.outcome, '') || CASE WHEN v.state = 'queued' THEN '; next at ' || v.next_attempt_at ELSE '' END END),"
	" (24, 'connector_status', n.status || coalesce(': ' || n.status_reason, '')),"
	" (25, 'connector_since', CASE WHEN n.status <> 'active' THEN n.status_since::text END),"
	" (26, 'network_worker', CASE WHEN $3 THEN 'running' ELSE 'not running' END),"
	" (27, 'held', $2), (28, 'host', $5 || ': ' || $6 || coalesce(' until ' || $7, '') || ', ' || $10 || ' waiting'),"
	" (29, 'clock', CASE WHEN $8 IS NOT NULL THEN $8 || ' seconds ahead of ' || $5 END),"
	" (30, 'who_must_act', CASE"
	"  WHEN c.status = 'revoked' THEN 'nobody'"
	"  WHEN $2 IS NOT NULL OR c.status = 'held' OR NOT $3 THEN 'administrator'"
	"  WHEN c.status = 'reauth_required' THEN 'person'"
	"  WHEN n.status <> 'active' OR abs($8) > 60 THEN 'administrator'"
	"  WHEN c.refresh_token IS NULL AND c.expires_at <= clock_timestamp() THEN 'person'"
	"  WHEN $7 IS NOT NULL OR c.attempts > 0 THEN 'provider'"
	"  WHEN c.refresh_fixed AND c.refresh_expires_at < statement_timestamp() + interval '7 days' THEN 'person'"
	"  ELSE 'nobody' END),"
	" (31, 'what_to_do', CASE"
	"  WHEN c.status = 'revoked' THEN NULL"
	"  WHEN $2 IS NOT NULL OR c.status = 'held' THEN 'if this is the only copy in use: oauth_claim()'"
	"  WHEN NOT $3 THEN 'look for oauth_vault in the server''s log; are max_worker_processes enough?'"
	"  WHEN c.status = 'reauth_required' THEN 'let the person consent again: oauth_begin; others are not affected'"
	"  WHEN n.status <> 'active' AND n.paused_by IS NULL THEN 'replace what the provider refuses: oauth_set_client_secret,'"
	"   || ' or oauth_alter_connector(client_id, status => ''active'')'"
	"  WHEN n.status <> 'active' THEN 'ask ' || n.paused_by || ', who has paused the connector'"
	"  WHEN abs($8) > 60 THEN 'compare this server''s clock with others; what was scheduled comes right by itself'"
	"  WHEN $7 IS NOT NULL OR c.attempts > 0 THEN 'wait: it is tried again by itself; if that takes long, look at the provider''s'"
	"   || ' status page and at the way there (DNS, firewall, certificates)' END)"
	" ) x (n, item, value) WHERE c.connection_id = $1 AND x.value IS NOT NULL ORDER BY x.n", "utoittzlii"
};

/* Which of the hosts that we know of does this connection's grant go to?  One that is out of order first. */
static const OvHostFigure *
host_of(OvCall *call, Datum connection_id)
{
	static OvQuery read = {
		"SELECT connector_id, metadata::text FROM oauth_vault.connection WHERE connection_id = $1", "u"
	};
	int			n;
	OvHostFigure *known = hosts_now(&n);
	const OvHostFigure *found = NULL;
	OvConnector *c;
	char	   *metadata;
	const OvProvider *provider;
	const char *const *hosts;
	int			nhosts;
	unsigned char id[16];
	unsigned char digest[32];

	if (ov_query(&read, OV_READ, &connection_id, NULL) == 0)
		return NULL;
	memcpy(id, ov_uuid(0, 1), 16);
	metadata = ov_text(0, 2);
	c = ov_connector_by_id(id);
	if (c == NULL || ov_connector_provider(ov_call_arena(call), c, metadata, &provider, NULL) != OV_OK ||
		ov_provider_hosts(ov_call_arena(call), provider, &hosts, &nhosts, digest, NULL) != OV_OK)
		return NULL;
	for (int i = 0; i < nhosts; i++)
	{
		const char *name = strchr(hosts[i], ':') != NULL ? hosts[i] : psprintf("%s:443", hosts[i]);

		for (int k = 0; k < n; k++)
			if (strcmp(known[k].name, name) == 0 && (found == NULL || (found->pause_us == 0 && known[k].pause_us > 0)))
				found = &known[k];
	}
	return found;
}

static const pg_uuid_t *
connection_arg(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"connection_id\" must not be null", NULL, NULL);
	return PG_GETARG_UUID_P(0);
}

Datum
ov_explain(PG_FUNCTION_ARGS)
{
	OvCall		call;
	OvHome		home;
	Datum		args[10];
	char		nulls[] = "          ";
	const OvHostFigure *host;
	uint64		n;
	bool		found;

	InitMaterializedSRF(fcinfo, 0);
	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	args[0] = UUIDPGetDatum(connection_arg(fcinfo));
	found = ov_home(&home);
	if (found && !home.held)
		nulls[1] = 'n';
	args[1] = ov_text_datum(!found ? "the database has no home row" : home.why);
	args[2] = BoolGetDatum(ov_worker_alive(OV_WORKER_NETWORK, MyDatabaseId));
	args[3] = Int32GetDatum(ov_guc_recent_days);
	host = host_of(&call, args[0]);
	args[4] = ov_text_datum(host ? host->name : NULL);
	args[5] = ov_text_datum(host ? state_of(host) : NULL);
	args[6] = TimestampTzGetDatum(host ? pause_ends(host) : 0);
	args[7] = Int64GetDatum(host ? host->clock_off : 0);
	args[8] = Int32GetDatum(host ? host->failures : 0);
	args[9] = Int32GetDatum(host ? host->waiting : 0);
	if (host == NULL)
		memset(nulls + 4, 'n', 6);
	else
	{
		nulls[6] = host->pause_us == 0 ? 'n' : ' ';
		nulls[7] = host->told_time ? ' ' : 'n';
	}
	n = ov_query(&explain, OV_READ, args, nulls);
	if (n == 0)
		ov_no_connection("no_connection");
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull[2];
		Datum		values[2];

		values[0] = ov_datum(i, 1, &isnull[0]);
		values[1] = ov_datum(i, 2, &isnull[1]);
		ov_put_row(fcinfo, values, isnull);
	}
	ov_call_end(&call);
	return (Datum) 0;
}

/* ---- now ---- */

/* What the worker has to say against it, in one line */
static char *
refusal(const OvMsg *answer)
{
	char	   *state = ov_msg_str(answer, OV_TAG_SQLSTATE);
	char	   *message = ov_msg_str(answer, OV_TAG_MESSAGE);
	char	   *detail = ov_msg_str(answer, OV_TAG_DETAIL);

	return psprintf("%s: %s%s%s", state ? state : "OV020", message ? message : "a worker does not answer",
					detail ? " " : "", detail ? detail : "");
}

static int
state_of_refusal(const OvMsg *answer)
{
	const char *s = ov_msg_str(answer, OV_TAG_SQLSTATE);

	return s != NULL && strlen(s) == 5 ? MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4]) : ERRCODE_OV_PROVIDER_UNAVAILABLE;
}

/*
 * As if the person had asked, so that it counts as nothing else.  The network
 * worker's row is about the grant, and is not this caller's if a refresh was
 * under way already; that the caller has asked is told by a row of its own.
 */
static Datum
refresh_now(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	static OvQuery read = {
		"SELECT c.tenant, c.user_id, c.token_generation, split_part(n.name, ':', 1), c.account FROM oauth_vault.connection c"
		" JOIN oauth_vault.connector n USING (connector_id) WHERE c.connection_id = $1", "u"
	};
	OvMsg		m,
				answer;
	const pg_uuid_t *id = connection_arg(fcinfo);
	Datum		arg = UUIDPGetDatum(id);
	volatile bool refreshed = false;

	event->connection_id = id->data;
	if (ov_query(&read, OV_READ, &arg, NULL) == 0)
		ov_no_connection("no_connection");
	event->tenant = ov_text(0, 1);
	event->user_id = ov_text(0, 2);
	event->connector = ov_text(0, 4);
	event->account = ov_text(0, 5);
	ov_msg_init(&m, palloc(OV_MESSAGE_MAX), OV_MESSAGE_MAX);
	ov_msg_init(&answer, palloc(OV_MESSAGE_MAX), OV_MESSAGE_MAX);
	ov_request_person(&m, call);
	ov_msg_put_str(&m, OV_TAG_TENANT, event->tenant);
	ov_msg_put_str(&m, OV_TAG_USER, event->user_id);
	ov_msg_put(&m, OV_TAG_CONNECTION_ID, id->data, UUID_LEN);
	ov_msg_put_i64(&m, OV_TAG_GENERATION, ov_int8(0, 3));
	ov_msg_put_i64(&m, OV_TAG_FORCE, 1);
	PG_TRY();
	{
		refreshed = ov_ask_quietly(OV_WORKER_NETWORK, OV_OP_REFRESH, &m, &answer, ov_guc_wait_timeout);
	}
	PG_CATCH();
	{
		/* also one who cancels has asked */
		ov_audit_failure(call, event, geterrcode());
		event->event = NULL;
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (refreshed)
	{
		ov_audit(call, event);
		return ov_copy_text(call, "refreshed");
	}
	ov_audit_failure(call, event, state_of_refusal(&answer));
	return ov_copy_text(call, refusal(&answer));
}

Datum
ov_refresh_now(PG_FUNCTION_ARGS)
{
	return ov_admin_call(fcinfo, "refresh_requested", refresh_now);
}
