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
	" d AS (SELECT count(*) AS n, extract(epoch FROM clock_timestamp() - min(refresh_at)) AS late"
	"  FROM oauth_vault.connection WHERE status = 'active' AND refresh_at <= clock_timestamp())"
	" SELECT 'oauth_vault_connections', jsonb_build_object('connector', connector, 'status', status), n::float8,"
	"  'Connections' FROM c"
	" UNION ALL SELECT 'oauth_vault_connections_failing', jsonb_build_object('connector', connector), sum(failing)::float8,"
	"  'Live connections whose last attempts to renew have failed' FROM c GROUP BY connector"
	" UNION ALL SELECT 'oauth_vault_connectors', jsonb_build_object('status', s.status), count(n.connector_id)::float8,"
	"  'Connectors' FROM (VALUES ('active'), ('paused'), ('retired')) s (status) LEFT JOIN oauth_vault.connector n USING (status) GROUP BY s.status"
	" UNION ALL SELECT 'oauth_vault_due', '{}', n::float8, 'Connections that should have been renewed by now' FROM d"
	" UNION ALL SELECT 'oauth_vault_due_age_seconds', '{}', coalesce(late, 0)::float8,"
	"  'How long the first of them has been due' FROM d"
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
	TimestampTz beat = (TimestampTz) ov_figure(OV_FIG_BEAT);

	for (int i = 0; i < lengthof(workers); i++)
	{
		bool		up = ov_worker_alive(workers[i].kind, workers[i].of_database ? MyDatabaseId : InvalidOid);

		put_metric(fcinfo, "oauth_vault_worker_up", "gauge", psprintf("{\"worker\": \"%s\"}", workers[i].name),
				   up ? 1 : 0, "Is this worker there?");
	}
	if (beat != 0)
		put_metric(fcinfo, "oauth_vault_worker_heartbeat_age_seconds", "gauge", NULL,
				   (double) (GetCurrentTimestamp() - beat) / USECS_PER_SEC,
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
	put_counters(fcinfo);
	ov_call_end(&call);
	return (Datum) 0;
}

/* ---- one connection ---- */

/*
 * $2: why the whole database is held, or NULL; $3: does the network worker run;
 * $4: after how many days a connection counts as unused.
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
	"  WHEN c.attempts > 0 THEN 'the last ' || c.attempts || ' attempts have failed: ' || coalesce(c.last_error, 'unknown')"
	"   || coalesce('; tried again at ' || c.refresh_at, '')"
	"  WHEN c.refresh_token IS NULL AND c.expires_at <= clock_timestamp() THEN 'expired, and there is no refresh token'"
	"  WHEN c.refresh_token IS NULL THEN 'live, and cannot be renewed: there is no refresh token'"
	"  WHEN c.refresh_at <= clock_timestamp() THEN 'due, and its turn has not come yet'"
	"  WHEN c.refresh_at IS NOT NULL THEN 'live; renewed at ' || c.refresh_at"
	"  WHEN n.refresh_policy = 'lazy' THEN 'live; renewed when somebody asks: the connector''s refresh policy is lazy'"
	"  WHEN n.refresh_policy = 'recent' AND u.unused THEN 'live; renewed when somebody asks: unused for ' || $4 || ' days'"
	"  WHEN c.expires_at = 'infinity' THEN 'live, and never expires'"
	"  ELSE 'live; renewed when somebody asks: when it expires is not known' END),"
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
	" (27, 'held', $2)"
	" ) x (n, item, value) WHERE c.connection_id = $1 AND x.value IS NOT NULL ORDER BY x.n", "utoi"
};

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
	Datum		args[4];
	char		nulls[] = "    ";
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

/*
 * As if the person had asked, so that it counts as nothing else; the audit row
 * says which role it was.
 */
Datum
ov_refresh_now(PG_FUNCTION_ARGS)
{
	static OvQuery read = {
		"SELECT tenant, user_id, token_generation FROM oauth_vault.connection WHERE connection_id = $1", "u"
	};
	OvCall		call;
	OvMsg		m,
				answer;
	const pg_uuid_t *id;
	Datum		arg;
	Datum		result;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	id = connection_arg(fcinfo);
	arg = UUIDPGetDatum(id);
	if (ov_query(&read, OV_READ, &arg, NULL) == 0)
		ov_no_connection("no_connection");
	ov_msg_init(&m, palloc(OV_MESSAGE_MAX), OV_MESSAGE_MAX);
	ov_msg_init(&answer, palloc(OV_MESSAGE_MAX), OV_MESSAGE_MAX);
	ov_request_person(&m, &call);
	ov_msg_put_str(&m, OV_TAG_TENANT, ov_text(0, 1));
	ov_msg_put_str(&m, OV_TAG_USER, ov_text(0, 2));
	ov_msg_put(&m, OV_TAG_CONNECTION_ID, id->data, UUID_LEN);
	ov_msg_put_i64(&m, OV_TAG_GENERATION, ov_int8(0, 3));
	ov_msg_put_i64(&m, OV_TAG_FORCE, 1);
	if (ov_ask_quietly(OV_WORKER_NETWORK, OV_OP_REFRESH, &m, &answer, ov_guc_wait_timeout))
		result = ov_copy_text(&call, "refreshed");
	else
		result = ov_copy_text(&call, refusal(&answer));
	ov_call_end(&call);
	PG_RETURN_DATUM(result);
}
