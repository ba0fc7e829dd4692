/*
 * report.c
 *	  What the auditor's reports are made of (28-reports.sql, 29-review.sql):
 *	  everybody's rows without anything sealed, and facts that only the server
 *	  knows.
 *
 * Auditors have no right on any table but the trail.  What a report shows of
 * the others is one of the statements below, run inside the frame of a call
 * with the owner's rights; what it makes of it is SQL, with the auditor's own.
 * Rows go straight into the result's tuplestore, which spills to disk: there
 * may be a million of them.  The vault file is not opened here, only asked for
 * its mode.
 */
#include "vault/vault.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/codec.h"
#include "core/json.h"
#include "funcapi.h"
#include "guc.h"
#include "utils/guc.h"

PG_FUNCTION_INFO_V1(ov_report_connections);
PG_FUNCTION_INFO_V1(ov_report_connectors);
PG_FUNCTION_INFO_V1(ov_report_revocations);
PG_FUNCTION_INFO_V1(ov_report_policies);
PG_FUNCTION_INFO_V1(ov_report_keys);
PG_FUNCTION_INFO_V1(ov_report_sealed);
PG_FUNCTION_INFO_V1(ov_report_vault);

/* A dropped connector's name has a suffix. */
#define CONNECTOR_NAME "split_part(n.name, ':', 1)"

static OvQuery connections = {
	"SELECT c.connection_id, c.tenant::text, c.user_id::text, " CONNECTOR_NAME ", n.provider::text, c.account::text, c.status,"
	" c.status_reason, c.status_since, c.requested_scopes, c.scopes, c.provider_subject, c.consented_at, c.created_at,"
	" c.last_used_at, c.expires_at, c.key_id"
	" FROM oauth_vault.connection c JOIN oauth_vault.connector n USING (connector_id)", ""
};

static OvQuery connectors = {
	"SELECT n.connector_id, " CONNECTOR_NAME ", n.provider::text, n.status, n.status_reason, n.status_since, n.default_scopes,"
	" n.max_scopes, n.params, n.issuer, n.metadata ->> 'authorization_endpoint', n.client_secret IS NOT NULL, n.created_at,"
	" n.created_by, CASE WHEN b.name IS NULL THEN s.rules WHEN s.name IS NULL THEN b.rules"
	"  ELSE oauth_vault.merge_patch(b.rules, s.rules) END,"
	" s.name IS NOT NULL, s.changed_at, s.changed_by"
	" FROM oauth_vault.connector n LEFT JOIN oauth_vault.provider_builtin b ON b.name = n.provider"
	" LEFT JOIN oauth_vault.provider_site s ON s.name = n.provider WHERE n.status <> 'dropped'", ""
};

static OvQuery revocations = {
	"SELECT v.revocation_id, v.connection_id, v.tenant::text, v.user_id::text, " CONNECTOR_NAME ", c.account::text, v.state,"
	" v.attempts, v.outcome, v.requested_at, v.settled_at, v.residual_until"
	" FROM oauth_vault.revocation v LEFT JOIN oauth_vault.connector n USING (connector_id)"
	" LEFT JOIN oauth_vault.connection c USING (connection_id)", ""
};

static OvQuery policies = {
	"SELECT " CONNECTOR_NAME ", p.tenant::text, p.user_id::text, p.own_limit, p.allowed, p.default_scopes, p.changed_at"
	" FROM oauth_vault.scope_policy p JOIN oauth_vault.connector n USING (connector_id) WHERE n.status <> 'dropped'", ""
};

static OvQuery keys = {
	"SELECT kind, platform_version, nullif(platform_fingerprint, '')::text, count(*) FILTER (WHERE destroyed_at IS NULL),"
	" count(*) FILTER (WHERE destroyed_at IS NOT NULL), min(created_at) FILTER (WHERE destroyed_at IS NULL),"
	" max(created_at) FILTER (WHERE destroyed_at IS NULL)"
	" FROM oauth_vault.vault_key GROUP BY 1, 2, 3", ""
};

/*
 * Records by what they say they are in their first five bytes (record.h);
 * whatever does not begin like one has format NULL.
 */
static OvQuery sealed = {
	"SELECT s.place, CASE WHEN s.ours THEN get_byte(s.head, 3) END, CASE WHEN s.ours THEN get_byte(s.head, 4) END, count(*)"
	" FROM (SELECT r.place, r.head, length(r.head) = 5 AND substring(r.head FROM 1 FOR 3) = 'OVR'::bytea AS ours FROM ("
	"  SELECT x.place, x.head FROM oauth_vault.connection c, LATERAL (VALUES"
	"   ('connection.access_token', substring(c.access_token FROM 1 FOR 5)),"
	"   ('connection.refresh_token', substring(c.refresh_token FROM 1 FOR 5)),"
	"   ('connection.id_token', substring(c.id_token FROM 1 FOR 5))) x (place, head)"
	"  UNION ALL SELECT x.place, x.head FROM oauth_vault.connector c, LATERAL (VALUES"
	"   ('connector.client_secret', substring(c.client_secret FROM 1 FOR 5)),"
	"   ('connector.previous_secret', substring(c.previous_secret FROM 1 FOR 5))) x (place, head)"
	"  UNION ALL SELECT x.place, x.head FROM oauth_vault.revocation c, LATERAL (VALUES"
	"   ('revocation.access_token', substring(c.access_token FROM 1 FOR 5)),"
	"   ('revocation.refresh_token', substring(c.refresh_token FROM 1 FOR 5))) x (place, head)"
	"  UNION ALL SELECT x.place, x.head FROM oauth_vault.grant_inbox c, LATERAL (VALUES"
	"   ('grant_inbox.access_token', substring(c.access_token FROM 1 FOR 5)),"
	"   ('grant_inbox.refresh_token', substring(c.refresh_token FROM 1 FOR 5)),"
	"   ('grant_inbox.id_token', substring(c.id_token FROM 1 FOR 5))) x (place, head)"
	"  UNION ALL SELECT 'flow.verifier', substring(f.verifier FROM 1 FOR 5) FROM oauth_vault.flow f"
	"  UNION ALL SELECT 'vault_key.wrapped', substring(k.wrapped FROM 1 FOR 5) FROM oauth_vault.vault_key k"
	"   WHERE k.destroyed_at IS NULL) r WHERE r.head IS NOT NULL) s GROUP BY 1, 2, 3", ""
};

static Datum
rows(FunctionCallInfo fcinfo, OvQuery *q)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	OvCall		call;

	InitMaterializedSRF(fcinfo, 0);
	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	ov_query_into(q, rsinfo->setResult, rsinfo->setDesc);
	ov_call_end(&call);
	return (Datum) 0;
}

Datum
ov_report_connections(PG_FUNCTION_ARGS)
{
	return rows(fcinfo, &connections);
}

Datum
ov_report_connectors(PG_FUNCTION_ARGS)
{
	return rows(fcinfo, &connectors);
}

Datum
ov_report_revocations(PG_FUNCTION_ARGS)
{
	return rows(fcinfo, &revocations);
}

Datum
ov_report_policies(PG_FUNCTION_ARGS)
{
	return rows(fcinfo, &policies);
}

Datum
ov_report_keys(PG_FUNCTION_ARGS)
{
	return rows(fcinfo, &keys);
}

Datum
ov_report_sealed(PG_FUNCTION_ARGS)
{
	return rows(fcinfo, &sealed);
}

/* ---- the vault as a whole ---- */

/* $1: the published settings; $2: why there are none; $3: what the server knows; $4: held, $5: why */
static OvQuery whole = {
	"SELECT jsonb_build_object("
	" 'settings', $1, 'sealed_because', $2, 'held', $4, 'held_because', $5,"
	" 'home', (SELECT jsonb_build_object('vault_id', h.vault_id, 'instance', h.instance, 'claimed_at', h.claimed_at)"
	"  FROM oauth_vault.home h),"
	" 'last_rotation', (SELECT jsonb_build_object('rotation_id', r.rotation_id, 'mode', r.mode, 'state', r.state,"
	"   'requested_at', r.requested_at, 'requested_by', r.requested_by, 'finished_at', r.finished_at, 'failed', r.failed)"
	"  FROM oauth_vault.key_rotation r ORDER BY r.rotation_id DESC LIMIT 1)"
	") || $3", "jtjot"
};

/* Mode and owner of the vault file; its place is for superusers (guc.c). */
static void
put_vault_file(OvStr *s)
{
	struct stat st;

	ov_str_puts(s, "\"vault_file\":");
	if (ov_guc_vault_file == NULL || ov_guc_vault_file[0] == '\0')
		ov_str_puts(s, "null");
	else if (stat(ov_guc_vault_file, &st) != 0)
		ov_str_puts(s, "{\"readable\":false}");
	else
		ov_str_printf(s, "{\"readable\":true,\"mode\":\"%04o\",\"owner\":\"%s\"}", (unsigned) st.st_mode & 07777,
					  st.st_uid == geteuid() ? "server" : st.st_uid == 0 ? "root" : "another");
}

static void
put_worker(OvStr *s, const char *name, OvWorkerKind kind, Oid database)
{
	ov_str_printf(s, "%s\"%s\":%s", kind == OV_WORKER_LAUNCHER ? "" : ",", name,
				  ov_worker_alive(kind, database) ? "true" : "false");
}

static char *
server_facts(OvCall *call)
{
	OvStr		s;
	const char *tls;

	ov_str_init(&s, ov_call_arena(call));
	ov_str_putc(&s, '{');
	put_vault_file(&s);
	ov_str_puts(&s, ",\"workers\":{");
	put_worker(&s, "launcher", OV_WORKER_LAUNCHER, InvalidOid);
	put_worker(&s, "key", OV_WORKER_KEY, InvalidOid);
	put_worker(&s, "network", OV_WORKER_NETWORK, MyDatabaseId);
	put_worker(&s, "audit", OV_WORKER_AUDIT, MyDatabaseId);
	ov_str_puts(&s, "},\"openssl\":");
	ov_json_quote(&s, OpenSSL_version(OPENSSL_VERSION), strlen(OpenSSL_version(OPENSSL_VERSION)));
	/* shown to superusers only, and no secret */
	ov_str_puts(&s, ",\"ssl_min_protocol_version\":");
	tls = GetConfigOption("ssl_min_protocol_version", false, false);
	ov_json_quote(&s, tls, strlen(tls));
	ov_str_printf(&s, ",\"fips\":%s}", EVP_default_properties_is_fips_enabled(NULL) ? "true" : "false");
	return pstrdup(s.data);
}

Datum
ov_report_vault(PG_FUNCTION_ARGS)
{
	OvCall		call;
	OvHome		home;
	char	   *settings,
			   *reason = NULL;
	Datum		args[5];
	char		nulls[] = "     ";
	bool		found,
				isnull;
	MemoryContext old;
	Datum		result;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	settings = ov_settings(&reason);
	args[0] = settings ? ov_jsonb_datum(settings) : OV_NULL;
	nulls[0] = settings ? ' ' : 'n';
	args[1] = settings ? OV_NULL : ov_text_datum(reason ? reason : "unknown");
	nulls[1] = settings ? 'n' : ' ';
	args[2] = ov_jsonb_datum(server_facts(&call));
	found = ov_home(&home);
	args[3] = BoolGetDatum(found && home.held);
	args[4] = ov_text_datum(found ? home.why : "");
	nulls[4] = found && home.held ? ' ' : 'n';
	(void) ov_query(&whole, OV_READ, args, nulls);
	old = MemoryContextSwitchTo(call.caller);
	result = PointerGetDatum(PG_DETOAST_DATUM_COPY(ov_datum(0, 1, &isnull)));
	MemoryContextSwitchTo(old);
	ov_call_end(&call);
	PG_RETURN_DATUM(result);
}
