/*
 * sql_call.c
 *	  See sql_call.h.
 *
 * Reading with GetLatestSnapshot() shows what a worker has just committed to
 * callers in REPEATABLE READ and SERIALIZABLE too; it is what makes these
 * functions PARALLEL UNSAFE.  For the same reason writes do not raise 40001.
 */
#include "sql_call.h"

#include "catalog/pg_type.h"
#include "core/codec.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

static Oid
type_of(char letter)
{
	switch (letter)
	{
		case 't':
			return TEXTOID;
		case 'b':
			return BYTEAOID;
		case 'u':
			return UUIDOID;
		case 'l':
			return INT8OID;
		case 'i':
			return INT4OID;
		case 'z':
			return TIMESTAMPTZOID;
		case 'j':
			return JSONBOID;
		case 'a':
			return TEXTARRAYOID;
		case 'o':
			return BOOLOID;
		case 'f':
			return FLOAT8OID;
		case 'O':
			return OIDOID;
		case 'U':
			return UUIDARRAYOID;
		case 'B':
			return BYTEAARRAYOID;
		case 'L':
			return INT8ARRAYOID;
		case 'Z':
			return TIMESTAMPTZARRAYOID;
		case 'J':
			return JSONBARRAYOID;
		case 'n':
			return INETOID;
	}
	elog(ERROR, "unknown argument type \"%c\"", letter);
}

/* The kept plan, made if there is none yet */
static SPIPlanPtr
plan_of(OvQuery *q)
{
	SPIPlanPtr *kept = &q->plan[InNoForceRLSOperation() ? 1 : 0];

	if (*kept == NULL)
	{
		Oid			types[OV_MAX_ARGS];
		int			n = strlen(q->types);
		SPIPlanPtr	plan;

		Assert(n <= OV_MAX_ARGS);
		for (int i = 0; i < n; i++)
			types[i] = type_of(q->types[i]);
		plan = SPI_prepare(q->sql, n, types);
		if (plan == NULL)
			elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		*kept = plan;
	}
	return *kept;
}

uint64
ov_query(OvQuery *q, OvSnapshot how, const Datum *args, const char *nulls)
{
	SPIPlanPtr	plan = plan_of(q);
	Snapshot	snapshot;
	int			rc;

	/*
	 * A snapshot taken before our own changes does not show them: the latest
	 * one does, once they have a command id of their own.
	 */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	rc = SPI_execute_snapshot(plan, unconstify(Datum *, args), nulls, snapshot, InvalidSnapshot,
							  how == OV_READ, how == OV_WRITE, 0);
	UnregisterSnapshot(snapshot);
	if (rc < 0)
		elog(ERROR, "could not execute a statement: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

void
ov_query_into(OvQuery *q, Tuplestorestate *rows, TupleDesc desc)
{
	SPIPlanPtr	plan = plan_of(q);
	DestReceiver *dest = CreateTuplestoreDestReceiver();
	SPIExecuteOptions options = {.read_only = true, .dest = dest};
	int			rc;

	SetTuplestoreDestReceiverParams(dest, rows, CurrentMemoryContext, false, desc,
									"a report does not have the columns that it declares");
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	rc = SPI_execute_plan_extended(plan, &options);
	PopActiveSnapshot();
	dest->rDestroy(dest);
	if (rc < 0)
		elog(ERROR, "could not execute a statement: %s", SPI_result_code_string(rc));
}

Datum
ov_datum(uint64 row, int col, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col, isnull);
}

bool
ov_null(uint64 row, int col)
{
	bool		isnull;

	(void) ov_datum(row, col, &isnull);
	return isnull;
}

char *
ov_text(uint64 row, int col)
{
	bool		isnull;
	Datum		d = ov_datum(row, col, &isnull);
	Oid			out;
	bool		varlena;

	if (isnull)
		return NULL;
	if (SPI_gettypeid(SPI_tuptable->tupdesc, col) == TEXTOID)
		return TextDatumGetCString(d);
	getTypeOutputInfo(SPI_gettypeid(SPI_tuptable->tupdesc, col), &out, &varlena);
	return OidOutputFunctionCall(out, d);
}

int64
ov_int8(uint64 row, int col)
{
	bool		isnull;
	Datum		d = ov_datum(row, col, &isnull);

	if (isnull)
		return 0;
	return SPI_gettypeid(SPI_tuptable->tupdesc, col) == INT8OID ? DatumGetInt64(d) : DatumGetInt32(d);
}

bool
ov_bool(uint64 row, int col)
{
	bool		isnull;
	Datum		d = ov_datum(row, col, &isnull);

	return !isnull && DatumGetBool(d);
}

const unsigned char *
ov_uuid(uint64 row, int col)
{
	bool		isnull;
	Datum		d = ov_datum(row, col, &isnull);

	return isnull ? NULL : DatumGetUUIDP(d)->data;
}

const unsigned char *
ov_bytea(uint64 row, int col, size_t *len)
{
	bool		isnull;
	Datum		d = ov_datum(row, col, &isnull);
	bytea	   *b;

	*len = 0;
	if (isnull)
		return NULL;
	b = DatumGetByteaPP(d);
	*len = VARSIZE_ANY_EXHDR(b);
	return (const unsigned char *) VARDATA_ANY(b);
}

TimestampTz
ov_time(uint64 row, int col)
{
	bool		isnull;
	Datum		d = ov_datum(row, col, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(d);
}

char **
ov_text_array(uint64 row, int col, int *n)
{
	bool		isnull;
	Datum		d = ov_datum(row, col, &isnull);
	Datum	   *items;
	bool	   *nulls;
	char	  **result;

	*n = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(d), TEXTOID, -1, false, TYPALIGN_INT, &items, &nulls, n);
	result = palloc0(sizeof(char *) * (*n + 1));
	for (int i = 0; i < *n; i++)
		result[i] = nulls[i] ? pstrdup("") : TextDatumGetCString(items[i]);
	return result;
}

Datum
ov_text_datum(const char *s)
{
	return s ? CStringGetTextDatum(s) : OV_NULL;
}

Datum
ov_bytea_datum(const void *data, size_t len)
{
	bytea	   *b;

	if (data == NULL)
		return OV_NULL;
	b = palloc(VARHDRSZ + len);
	SET_VARSIZE(b, VARHDRSZ + len);
	memcpy(VARDATA(b), data, len);
	return PointerGetDatum(b);
}

Datum
ov_uuid_datum(const unsigned char uuid[16])
{
	pg_uuid_t  *u = palloc(sizeof(pg_uuid_t));

	memcpy(u->data, uuid, UUID_LEN);
	return UUIDPGetDatum(u);
}

Datum
ov_jsonb_datum(const char *json)
{
	return json ? DirectFunctionCall1(jsonb_in, CStringGetDatum(json)) : OV_NULL;
}

Datum
ov_text_array_datum(const char *const *items, int n)
{
	Datum	   *d = palloc(sizeof(Datum) * (n + 1));

	for (int i = 0; i < n; i++)
		d[i] = CStringGetTextDatum(items[i]);
	return PointerGetDatum(construct_array(d, n, TEXTOID, -1, false, TYPALIGN_INT));
}

Datum
ov_array_datum(char letter, Datum *items, bool *nulls, int n)
{
	Oid			type = type_of(letter);
	int			dims[1] = {n};
	int			lower[1] = {1};
	int16		len;
	bool		byval;
	char		align;

	if (n == 0)
		return PointerGetDatum(construct_empty_array(type));
	get_typlenbyvalalign(type, &len, &byval, &align);
	return PointerGetDatum(construct_md_array(items, nulls, 1, dims, lower, type, len, byval, align));
}

char *
ov_uuid_text(const unsigned char uuid[16])
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, ov_uuid_datum(uuid)));
}

void
ov_new_uuid(unsigned char uuid[16])
{
	if (ov_random(uuid, 16) != OV_OK)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random bytes")));
	uuid[6] = (uuid[6] & 0x0f) | 0x40;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

TimestampTz
ov_unix_to_timestamp(int64 seconds)
{
	const int64 epoch = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;

	if (seconds == 0)
		return 0;
	if (seconds == PG_INT64_MAX || seconds > (int64) 253402300799)	/* past year 9999 */
		return DT_NOEND;
	return (seconds - epoch) * USECS_PER_SEC;
}

int64
ov_timestamp_to_unix(TimestampTz t)
{
	const int64 epoch = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;

	if (t == DT_NOEND)
		return PG_INT64_MAX;
	return t / USECS_PER_SEC + epoch;
}
