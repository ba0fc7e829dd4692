/*
 * refresh_load.c
 *	  Reading connections for their claims: one, or those of a batch in one
 *	  statement.
 *
 * Nothing is locked.  What is read belongs to the transaction.
 */
#include "worker/refresh.h"

#define COLUMNS \
	"SELECT tenant, user_id, account, status, status_reason, metadata::text, last_error, connector_id, hosts_digest," \
	" status_since, expires_at, refresh_at, issued_at, forced_at, key_id, token_generation, decision_epoch, attempts," \
	" scopes, access_token, refresh_token, connection_id, provider_subject FROM oauth_vault.connection c"

static OvQuery one = {COLUMNS " WHERE connection_id = $1", "u"};
static OvQuery many = {
	COLUMNS " WHERE connection_id = ANY ($1)"
	" AND NOT EXISTS (SELECT FROM oauth_vault.intent i WHERE i.connection_id = c.connection_id)"
	" AND connection_id NOT IN (SELECT g.connection_id FROM oauth_vault.grant_inbox g)", "U"
};

static void
read_row(uint64 n, OvRefreshRow *row)
{
	const unsigned char *digest;
	size_t		len;

	memset(row, 0, sizeof(*row));
	row->tenant = ov_text(n, 1);
	row->user_id = ov_text(n, 2);
	row->account = ov_text(n, 3);
	row->status = ov_text(n, 4);
	row->reason = ov_text(n, 5);
	row->metadata = ov_text(n, 6);
	row->last_error = ov_text(n, 7);
	memcpy(row->connector_id, ov_uuid(n, 8), 16);
	digest = ov_bytea(n, 9, &len);
	if (len == 32)
		memcpy(row->hosts_digest, digest, 32);
	row->since = ov_time(n, 10);
	row->expires_at = ov_time(n, 11);
	row->refresh_at = ov_time(n, 12);
	row->issued_at = ov_time(n, 13);
	row->forced_at = ov_time(n, 14);
	row->key_id = ov_int8(n, 15);
	row->generation = ov_int8(n, 16);
	row->epoch = ov_int8(n, 17);
	row->attempts = (int) ov_int8(n, 18);
	row->scopes = ov_text_array(n, 19, &row->nscopes);
	row->access = ov_bytea(n, 20, &row->access_len);
	row->refresh = ov_bytea(n, 21, &row->refresh_len);
	row->subject = ov_text(n, 23);
}

bool
ov_refresh_load(const unsigned char id[16], OvRefreshRow *row)
{
	Datum		arg = ov_uuid_datum(id);

	if (ov_query(&one, OV_READ, &arg, NULL) == 0)
		return false;
	read_row(0, row);
	return true;
}

OvLoadedRow *
ov_refresh_load_many(const unsigned char *const *ids, int n, int *nrows)
{
	OvLoadedRow *rows;
	OvArgs		a = {0};

	ov_arg_uuids(&a, ids, n);
	*nrows = (int) ov_run(&many, OV_READ, &a);
	rows = palloc0(sizeof(OvLoadedRow) * (*nrows + 1));
	for (int i = 0; i < *nrows; i++)
	{
		memcpy(rows[i].id, ov_uuid(i, 22), 16);
		read_row(i, &rows[i].row);
	}
	return rows;
}

bool
ov_loaded_take(OvLoadedRow *rows, int n, const unsigned char id[16], OvRefreshRow *row)
{
	for (int i = 0; i < n; i++)
		if (!rows[i].taken && memcmp(rows[i].id, id, 16) == 0)
		{
			rows[i].taken = true;
			*row = rows[i].row;
			return true;
		}
	return false;
}
