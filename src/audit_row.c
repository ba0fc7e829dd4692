/*
 * audit_row.c
 *	  See audit_row.h.
 *
 * A value's bytes must be the same wherever the row is: after a dump and a
 * restore, in another encoding, under another major version.  So text goes in
 * as UTF-8, JSON and addresses as the text that the server makes of them, and
 * nothing as it lies in the table.
 */
#include "audit_row.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inet.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

const OvAuditColumnDef ov_audit_columns[OV_AUDIT_COLUMNS] = {
	[OV_COL_AUDIT_ID] = {"audit_id", INT8OID},
	[OV_COL_AT] = {"at", TIMESTAMPTZOID},
	[OV_COL_EVENT] = {"event", TEXTOID},
	[OV_COL_OUTCOME] = {"outcome", TEXTOID},
	[OV_COL_TENANT] = {"tenant", TEXTOID},
	[OV_COL_USER_ID] = {"user_id", TEXTOID},
	[OV_COL_ACTOR] = {"actor", JSONBOID},
	[OV_COL_PURPOSE] = {"purpose", TEXTOID},
	[OV_COL_CONNECTOR] = {"connector", TEXTOID},
	[OV_COL_CONNECTION_ID] = {"connection_id", UUIDOID},
	[OV_COL_ACCOUNT] = {"account", TEXTOID},
	[OV_COL_SCOPES] = {"scopes", TEXTARRAYOID},
	[OV_COL_DATABASE_ROLE] = {"database_role", TEXTOID},
	[OV_COL_SESSION_USER] = {"session_user_name", TEXTOID},
	[OV_COL_CLIENT_ADDRESS] = {"client_address", INETOID},
	[OV_COL_APPLICATION] = {"application_name", TEXTOID},
	[OV_COL_ASSERTION_JTI] = {"assertion_jti", TEXTOID},
	[OV_COL_FINGERPRINT] = {"token_fingerprint", BYTEAOID},
	[OV_COL_REASON] = {"reason", TEXTOID},
	[OV_COL_DETAIL] = {"detail", JSONBOID},
	[OV_COL_RECORDED_AT] = {"recorded_at", TIMESTAMPTZOID},
};

static OvCanon canon;			/* of this process, grown to its largest row */

static void
put_text(const char *s, int len)
{
	char	   *utf8;

	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
	{
		ov_canon_bytes(&canon, s, len);
		return;
	}
	utf8 = pg_server_to_any(s, len, PG_UTF8);
	ov_canon_bytes(&canon, utf8, utf8 == s ? (size_t) len : strlen(utf8));
}

static void
put_array(Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *items;
	bool	   *nulls;
	int			n;

	/* '[2:3]={a,b}' is another value than '{a,b}', though its items are the same */
	if (ARR_NDIM(array) > 1 || (ARR_NDIM(array) == 1 && ARR_LBOUND(array)[0] != 1))
	{
		char	   *text = OidOutputFunctionCall(F_ARRAY_OUT, value);

		ov_canon_odd(&canon, text, strlen(text));
		return;
	}
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &items, &nulls, &n);
	ov_canon_list(&canon, n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ov_canon_null(&canon);
		else
		{
			text	   *t = DatumGetTextPP(items[i]);

			put_text(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
		}
	}
}

static void
put_value(Oid type, Datum value)
{
	switch (type)
	{
		case INT8OID:
			ov_canon_int(&canon, DatumGetInt64(value));
			break;
		case TIMESTAMPTZOID:
			ov_canon_int(&canon, DatumGetTimestampTz(value));
			break;
		case UUIDOID:
			ov_canon_bytes(&canon, DatumGetUUIDP(value)->data, UUID_LEN);
			break;
		case TEXTOID:
			{
				text	   *t = DatumGetTextPP(value);

				put_text(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
				break;
			}
		case BYTEAOID:
			{
				bytea	   *b = DatumGetByteaPP(value);

				ov_canon_bytes(&canon, VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b));
				break;
			}
		case JSONBOID:
			{
				Jsonb	   *j = DatumGetJsonbP(value);
				char	   *s = JsonbToCString(NULL, &j->root, VARSIZE(j));

				put_text(s, strlen(s));
				break;
			}
		case INETOID:
			{
				char	   *s = DatumGetCString(DirectFunctionCall1(inet_out, value));

				ov_canon_bytes(&canon, s, strlen(s));
				break;
			}
		case TEXTARRAYOID:
			put_array(value);
			break;
		default:
			elog(ERROR, "no canonical form for type %u", type);
	}
}

void
ov_audit_row_hash(const Datum *values, const bool *nulls, const unsigned char previous[OV_HASH_LEN],
				  unsigned char hash[OV_HASH_LEN])
{
	ov_canon_row(&canon, previous);
	for (int i = 0; i < OV_AUDIT_COLUMNS; i++)
	{
		if (nulls[i])
			ov_canon_null(&canon);
		else
			put_value(ov_audit_columns[i].type, values[i]);
	}
	if (!ov_canon_hash(&canon, hash))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

size_t
ov_audit_head_bytes(const OvAuditHead *head, const unsigned char vault_id[16], unsigned char out[OV_HEAD_BYTES_MAX])
{
	ov_canon_head(&canon);
	ov_canon_bytes(&canon, vault_id, 16);
	ov_canon_bytes(&canon, head->kind, strlen(head->kind));
	ov_canon_int(&canon, head->first_id);
	ov_canon_int(&canon, head->last_id);
	ov_canon_bytes(&canon, head->previous, OV_HASH_LEN);
	ov_canon_bytes(&canon, head->hash, OV_HASH_LEN);
	ov_canon_int(&canon, head->made_at);
	ov_canon_int(&canon, head->system_identifier);
	ov_canon_int(&canon, head->timeline);
	ov_canon_int(&canon, head->database_oid);
	if (head->partition == NULL)
		ov_canon_null(&canon);
	else
		ov_canon_bytes(&canon, head->partition, strlen(head->partition));
	ov_canon_int(&canon, head->key_id);
	if (canon.failed || canon.len > OV_HEAD_BYTES_MAX)
		return 0;
	memcpy(out, canon.data, canon.len);
	return canon.len;
}
