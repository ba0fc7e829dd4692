/*
 * seal.c
 *	  What an administrator hands in is sealed by the key worker.
 *
 * The secret goes from the parameter to the key worker and comes back as a
 * record; a new key comes back wrapped.  Neither opens anything here, and both
 * leave nothing behind when the transaction is rolled back.  Before a key is
 * used or made its table is locked against a rotation that would not see it:
 * see ov_have_new_key, and FOR KEY SHARE in ov_person_key.
 */
#include "vault/vault.h"

#include "worker/references.h"

static void
put_owner(OvMsg *m, const OvHome *home, const OvSealOwner *owner, int64 key_id)
{
	ov_msg_put_str(m, OV_TAG_KIND, owner->kind);
	ov_msg_put(m, OV_TAG_VAULT_ID, home->vault_id, 16);
	if (owner->connector_id != NULL)
		ov_msg_put(m, OV_TAG_CONNECTOR_ID, owner->connector_id, 16);
	ov_msg_put_str(m, OV_TAG_TENANT, owner->tenant);
	ov_msg_put_str(m, OV_TAG_USER, owner->user_id);
	ov_msg_put_i64(m, OV_TAG_KEY_ID, key_id);
}

Datum
ov_have_sealed(const OvHome *home, const OvSeal *s, OvPurpose purpose, const char *secret)
{
	OvMsg	   *m = ov_request();
	const void *record;
	size_t		len;
	Datum		result;

	put_owner(m, home, &s->owner, s->key_id);
	if (s->owner.connector_id == NULL)
		ov_msg_put(m, OV_TAG_CONNECTOR_ID, s->connector_id, 16);
	ov_msg_put(m, OV_TAG_CONNECTION_ID, s->connection_id, 16);
	ov_msg_put(m, OV_TAG_HOSTS_DIGEST, s->hosts_digest, 32);
	ov_msg_put(m, OV_TAG_WRAPPED, s->wrapped, s->wrapped_len);
	ov_msg_put_str(m, OV_TAG_PURPOSE, ov_purpose_name(purpose));
	ov_msg_put_i64(m, OV_TAG_GENERATION, s->generation);
	ov_msg_put_str(m, OV_TAG_PLAIN, secret);
	if (!ov_msg_get(ov_send(OV_WORKER_KEY, OV_OP_SEAL), OV_TAG_RECORD, &record, &len))
		elog(ERROR, "the key worker sent no record");
	result = ov_bytea_datum(record, len);
	ov_done_with_answer();
	return result;
}

int64
ov_have_new_key(const OvHome *home, const OvSealOwner *owner, const unsigned char **wrapped, size_t *wrapped_len)
{
	static OvQuery next_id = {"SELECT nextval('oauth_vault.vault_key_id')", ""};
	static OvQuery insert = {
		"INSERT INTO oauth_vault.vault_key (key_id, kind, connector_id, tenant, user_id, platform_version, wrapped,"
		" platform_fingerprint, version) SELECT $1, $2, $3, $4, $5, $6, $7, $8, coalesce(max(version), 0) + 1"
		" FROM oauth_vault.vault_key WHERE kind = $2 AND tenant = $4 AND user_id = $5"
		" AND connector_id IS NOT DISTINCT FROM $3"
		" ON CONFLICT (tenant, user_id, version) WHERE kind = 'user' DO NOTHING", "ltuttibt"
	};
	/* From before the key is wrapped: a rotation that sees nobody at this table has seen all keys. */
	static OvQuery announce = {"LOCK TABLE oauth_vault.vault_key IN ROW EXCLUSIVE MODE", ""};
	OvMsg	   *m;
	const void *data;
	char	   *fingerprint;
	int64		key_id;
	Datum		args[8];
	char		nulls[9] = "        ";

	(void) ov_query(&announce, OV_WRITE, NULL, NULL);
	(void) ov_query(&next_id, OV_WRITE, NULL, NULL);
	key_id = ov_int8(0, 1);
	m = ov_request();
	put_owner(m, home, owner, key_id);
	m = ov_send(OV_WORKER_KEY, OV_OP_KEY_NEW);
	if (!ov_msg_get(m, OV_TAG_WRAPPED, &data, wrapped_len))
		elog(ERROR, "the key worker sent no key");
	*wrapped = memcpy(palloc(*wrapped_len), data, *wrapped_len);
	args[0] = Int64GetDatum(key_id);
	args[1] = ov_text_datum(owner->kind);
	nulls[2] = owner->connector_id == NULL ? 'n' : ' ';
	args[2] = owner->connector_id == NULL ? OV_NULL : ov_uuid_datum(owner->connector_id);
	args[3] = ov_text_datum(owner->tenant ? owner->tenant : "");
	args[4] = ov_text_datum(owner->user_id ? owner->user_id : "");
	args[5] = Int32GetDatum((int32) ov_msg_get_i64(m, OV_TAG_VERSION, 0));
	args[6] = ov_bytea_datum(*wrapped, *wrapped_len);
	fingerprint = ov_msg_str(m, OV_TAG_KEY_FINGERPRINT);
	args[7] = ov_text_datum(fingerprint);
	ov_reference_note((int) ov_msg_get_i64(m, OV_TAG_VERSION, 0), fingerprint);
	ov_done_with_answer();
	return ov_query(&insert, OV_WRITE, args, nulls) == 0 ? 0 : key_id;
}

int64
ov_person_key(const OvHome *home, const char *tenant, const char *user_id, const unsigned char **wrapped,
			  size_t *wrapped_len)
{
	/* A rotation of keys destroys only what nobody holds. */
	static OvQuery newest = {
		"SELECT key_id, wrapped FROM oauth_vault.vault_key WHERE kind = 'user' AND tenant = $1 AND user_id = $2"
		" AND destroyed_at IS NULL ORDER BY version DESC LIMIT 1 FOR KEY SHARE", "tt"
	};
	OvSealOwner	owner = {.kind = OV_KIND_USER, .tenant = tenant, .user_id = user_id};
	Datum		args[2];

	args[0] = ov_text_datum(tenant);
	args[1] = ov_text_datum(user_id);
	for (int attempt = 0; attempt < 3; attempt++)
	{
		int64		key_id;

		if (ov_query(&newest, OV_WRITE, args, NULL) > 0)
		{
			const unsigned char *data = ov_bytea(0, 2, wrapped_len);

			*wrapped = memcpy(palloc(*wrapped_len), data, *wrapped_len);
			return ov_int8(0, 1);
		}
		/* 0: somebody else has just made one */
		if ((key_id = ov_have_new_key(home, &owner, wrapped, wrapped_len)) != 0)
			return key_id;
	}
	elog(ERROR, "the person's key could not be made");
}
