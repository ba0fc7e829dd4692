/*
 * rotate.c
 *	  oauth_rotate_keys, and what oauth_platform_keys shows.
 *
 * Asking for a rotation is a decision of the caller's transaction: a row of
 * key_rotation.  The network worker begins when it is committed (rotation.c).
 */
#include "vault/vault.h"

#include "funcapi.h"
#include "miscadmin.h"

PG_FUNCTION_INFO_V1(ov_rotate_keys);
PG_FUNCTION_INFO_V1(ov_platform_keys);

static OvQuery running = {
	"SELECT rotation_id, mode, state, keys_total FROM oauth_vault.key_rotation WHERE state = 'running'", ""
};
static OvQuery begin_rotation = {
	"INSERT INTO oauth_vault.key_rotation (mode, requested_by, below_key_id, keys_total)"
	" SELECT $1, $2, nextval('oauth_vault.vault_key_id'), (SELECT count(*) FROM oauth_vault.vault_key"
	"  WHERE destroyed_at IS NULL AND CASE $1 WHEN 'rewrap' THEN platform_version <> $3 OR platform_fingerprint <> $4"
	"   ELSE kind IN ('user', 'connector') END)"
	" ON CONFLICT ((true)) WHERE state = 'running' DO NOTHING RETURNING rotation_id, mode, state, keys_total", "ttit"
};

Datum
ov_rotate_keys(PG_FUNCTION_ARGS)
{
	OvCall		call;
	OvEvent		event = {.event = "key_rotation_requested", .outcome = "ok"};
	const OvSettings *settings;
	char	   *mode;
	Datum		args[4];
	Datum		values[3];
	bool		nulls[3] = {false};
	bool		begun;
	Datum		row;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	mode = ov_arg_text(fcinfo, 0, "mode", true);
	if (strcmp(mode, "rewrap") != 0 && strcmp(mode, "rekey") != 0)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"mode\" must be rewrap or rekey", NULL,
				 "rewrap wraps the keys anew with the active platform key; rekey replaces them and seals every record anew.");
	PreventCommandIfReadOnly("oauth_rotate_keys()");
	settings = ov_current_settings();
	args[0] = ov_text_datum(mode);
	args[1] = ov_text_datum(call.role);
	args[2] = Int32GetDatum(settings->active_version);
	args[3] = ov_text_datum(settings->active_fingerprint);
	begun = ov_query(&begin_rotation, OV_WRITE, args, NULL) > 0;
	if (!begun && ov_query(&running, OV_READ, NULL, NULL) == 0)
		ov_raise(ERRCODE_OBJECT_IN_USE, "another rotation of keys has just ended", NULL, "Try again.");
	if (strcmp(ov_text(0, 2), mode) != 0)
		ov_raise(ERRCODE_OBJECT_IN_USE, psprintf("another rotation of keys (%s) is under way", ov_text(0, 2)),
				 ov_detail("rotation_id", ov_text(0, 1), "mode", ov_text(0, 2), NULL),
				 "oauth_vault.oauth_key_rotation shows how far it has come.");
	values[0] = Int64GetDatum(ov_int8(0, 1));
	values[1] = ov_text_datum(ov_text(0, 3));
	values[2] = Int64GetDatum(ov_int8(0, 4));
	if (begun)
	{
		event.reason = mode;
		ov_audit(&call, &event);
	}
	else
		ereport(NOTICE,
				(errmsg("this rotation of keys is under way already"), errhidestmt(true), errhidecontext(true)));
	ov_wake_after_commit();
	row = ov_row(&call, fcinfo, values, nulls);
	ov_call_end(&call);
	PG_RETURN_DATUM(row);
}

/* The platform keys of the ring, and those that our keys are wrapped with. */
Datum
ov_platform_keys(PG_FUNCTION_ARGS)
{
	static OvQuery keys = {
		"WITH ring AS (SELECT v::integer AS version, f AS fingerprint FROM unnest($1, $2) AS r (v, f)),"
		" used AS (SELECT platform_version AS version, platform_fingerprint AS fingerprint,"
		"  count(*) FILTER (WHERE kind = 'user') AS users, count(*) FILTER (WHERE kind = 'connector') AS connectors,"
		"  count(*) FILTER (WHERE kind = 'audit') AS audits"
		"  FROM oauth_vault.vault_key WHERE destroyed_at IS NULL GROUP BY 1, 2)"
		" SELECT u.version, nullif(u.fingerprint, ''), u.users, u.connectors, u.audits, r.version IS NOT NULL,"
		"  coalesce(r.version = $3, false)"
		"  FROM used u LEFT JOIN ring r ON r.version = u.version AND u.fingerprint IN ('', r.fingerprint)"
		" UNION ALL SELECT r.version, r.fingerprint, 0, 0, 0, true, r.version = $3 FROM ring r WHERE NOT EXISTS"
		"  (SELECT FROM used u WHERE u.version = r.version AND u.fingerprint IN ('', r.fingerprint)) ORDER BY 1, 2", "aai"
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const OvSettings *settings = ov_shmem_ready() ? ov_settings_or_null() : NULL;
	OvCall		call;
	const char **versions;
	Datum		args[3];
	uint64		n;

	InitMaterializedSRF(fcinfo, 0);
	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	versions = palloc0(sizeof(char *) * (settings ? settings->nversions + 1 : 1));
	for (int i = 0; settings != NULL && i < settings->nversions; i++)
		versions[i] = psprintf("%d", settings->versions[i]);
	args[0] = ov_text_array_datum(versions, settings ? settings->nversions : 0);
	args[1] = ov_text_array_datum(settings ? settings->fingerprints : versions, settings ? settings->nversions : 0);
	args[2] = Int32GetDatum(settings ? settings->active_version : 0);
	n = ov_query(&keys, OV_READ, args, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Datum		values[7];
		bool		nulls[7];

		for (int k = 0; k < 7; k++)
			values[k] = ov_datum(i, k + 1, &nulls[k]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	ov_call_end(&call);
	return (Datum) 0;
}
