/*
 * audit_writer.c
 *	  Commits audit rows in batches; the only process that writes oauth_vault.audit.
 *
 * Rows leave the ring only after their commit.  Commit and the move of the
 * ring's tail happen with interrupts held, so that a terminated writer neither
 * repeats nor loses a row.  A batch that fails is tried row by row; a row that
 * cannot be stored as it is (a value the database refuses) is replaced by one
 * that says so, because a gap would be worse.
 *
 * Never waits for a lock while rows are queued: audit is insert-only, and
 * last_used_at is brought up to date with SKIP LOCKED afterwards.
 */
#include "worker/shmem.h"
#include "worker/worker.h"

#include "access/xact.h"
#include "debug_point.h"
#include "errors.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "sql_call.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "worker/audit_ring.h"

#define BATCH 256
#define PAUSE_MS 500			/* after a failure that was not a row's */

static int64 next_id;
static unsigned char row_buf[OV_MESSAGE_MAX];

static OvQuery last_id = {
	"SELECT coalesce(max(audit_id), 0) FROM oauth_vault.audit", ""
};
static OvQuery insert = {
	"INSERT INTO oauth_vault.audit (audit_id, at, event, outcome, tenant, user_id, actor, purpose, connector,"
	" connection_id, account, scopes, database_role, session_user_name, client_address, application_name,"
	" assertion_jti, token_fingerprint, reason, detail)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11, $12, $13, $14, $15::inet, $16, $17, $18, $19, $20::jsonb)",
	"lzttttttt" "utattttt" "btt"
};
static OvQuery touch = {
	"UPDATE oauth_vault.connection c SET last_used_at = now() FROM (SELECT connection_id FROM oauth_vault.connection"
	" WHERE connection_id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 hour')"
	" FOR UPDATE SKIP LOCKED) free WHERE c.connection_id = free.connection_id",
	"u"
};

static Datum
text_field(const OvMsg *row, OvTag tag, char *null)
{
	char	   *s = ov_msg_str(row, tag);

	*null = s ? ' ' : 'n';
	return ov_text_datum(s);
}

/* Inserts one row; `refused` replaces what the database would not take. */
static void
insert_row(const OvMsg *row, int refused)
{
	Datum		args[20];
	char		nulls[21];
	const void *data;
	size_t		len;
	int			nscopes = 0;
	const char *scopes[64];

	memset(nulls, 'n', 20);
	nulls[20] = '\0';
	memset(args, 0, sizeof(args));
	args[0] = Int64GetDatum(next_id);
	args[1] = TimestampTzGetDatum(ov_msg_get_i64(row, OV_TAG_AT, 0));
	nulls[0] = nulls[1] = ' ';
	args[2] = text_field(row, OV_TAG_EVENT, &nulls[2]);
	args[3] = text_field(row, OV_TAG_OUTCOME, &nulls[3]);
	if (refused)
	{
		args[18] = ov_text_datum(psprintf("the database refused the row: %s", unpack_sql_state(refused)));
		nulls[18] = ' ';
		(void) ov_query(&insert, OV_WRITE, args, nulls);
		next_id++;
		return;
	}
	args[4] = text_field(row, OV_TAG_TENANT, &nulls[4]);
	args[5] = text_field(row, OV_TAG_USER, &nulls[5]);
	args[6] = text_field(row, OV_TAG_ACTOR, &nulls[6]);
	args[7] = text_field(row, OV_TAG_PURPOSE, &nulls[7]);
	args[8] = text_field(row, OV_TAG_CONNECTOR, &nulls[8]);
	if (ov_msg_get(row, OV_TAG_CONNECTION_ID, &data, &len) && len == UUID_LEN)
	{
		args[9] = ov_uuid_datum(data);
		nulls[9] = ' ';
	}
	args[10] = text_field(row, OV_TAG_ACCOUNT, &nulls[10]);
	while (nscopes < 64 && ov_msg_get_nth(row, OV_TAG_SCOPE, nscopes, &data, &len))
		scopes[nscopes++] = pnstrdup(data, len);
	if (nscopes > 0)
	{
		args[11] = ov_text_array_datum(scopes, nscopes);
		nulls[11] = ' ';
	}
	args[12] = text_field(row, OV_TAG_ROLE, &nulls[12]);
	args[13] = text_field(row, OV_TAG_SESSION_USER, &nulls[13]);
	args[14] = text_field(row, OV_TAG_ADDRESS, &nulls[14]);
	args[15] = text_field(row, OV_TAG_APPLICATION, &nulls[15]);
	args[16] = text_field(row, OV_TAG_JTI, &nulls[16]);
	if (ov_msg_get(row, OV_TAG_TOKEN_FINGERPRINT, &data, &len))
	{
		args[17] = ov_bytea_datum(data, len);
		nulls[17] = ' ';
	}
	args[18] = text_field(row, OV_TAG_REASON, &nulls[18]);
	args[19] = text_field(row, OV_TAG_DETAIL_JSON, &nulls[19]);
	(void) ov_query(&insert, OV_WRITE, args, nulls);
	next_id++;
}

typedef struct Used
{
	int			n;
	unsigned char id[BATCH][UUID_LEN];
} Used;

/* Was a token handed out? */
static void
note_use(Used *used, const OvMsg *row)
{
	static const char event[] = "token_access";
	const void *data;
	size_t		len;

	if (!ov_msg_get(row, OV_TAG_EVENT, &data, &len) || len != sizeof(event) - 1 || memcmp(data, event, len) != 0)
		return;
	if (used->n < BATCH && ov_msg_has(row, OV_TAG_TOKEN_FINGERPRINT) &&
		ov_msg_get(row, OV_TAG_CONNECTION_ID, &data, &len) && len == UUID_LEN)
		memcpy(used->id[used->n++], data, UUID_LEN);
}

/*
 * Commits up to `limit` rows from the ring's tail on.  Returns the SQLSTATE of
 * a failure, 0 if all went well; *done tells how many rows were committed.
 */
static int
write_batch(int limit, int refused, int *done, Used *used)
{
	volatile uint64 at = 0;
	volatile int n = 0;
	int64		first_id = next_id;

	used->n = 0;
	*done = 0;
	PG_TRY();
	{
		uint64		position = 0;
		uint32		len;

		ov_xact_begin();
		while (n < limit && (len = ov_audit_peek(&position, row_buf)) > 0)
		{
			OvMsg		row;

			ov_msg_read(&row, row_buf, len);
			insert_row(&row, refused);
			note_use(used, &row);
			at = position;
			n++;
		}
		HOLD_INTERRUPTS();
		OV_POINT("before commit of audit rows");
		ov_xact_commit();
		OV_POINT("after commit of audit rows");
		if (n > 0)
			ov_audit_committed(at);
		RESUME_INTERRUPTS();
	}
	PG_CATCH();
	{
		next_id = first_id;
		return ov_xact_fail("write audit rows");
	}
	PG_END_TRY();
	*done = n;
	return 0;
}

static void
bring_up_last_used(const Used *used)
{
	if (used->n == 0)
		return;
	PG_TRY();
	{
		ov_xact_begin();
		for (int i = 0; i < used->n; i++)
		{
			Datum		arg = ov_uuid_datum(used->id[i]);

			if (i == 0 || memcmp(used->id[i], used->id[i - 1], UUID_LEN) != 0)
				(void) ov_query(&touch, OV_WRITE, &arg, NULL);
		}
		ov_xact_commit();
	}
	PG_CATCH();
	{
		(void) ov_xact_fail("note when connections were used");
	}
	PG_END_TRY();
}

/* Is the failure the row's own fault? Class 22 and 23: data, constraints. */
static bool
about_data(int state)
{
	int			class = ERRCODE_TO_CATEGORY(state);

	return class == ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION) ||
		class == ERRCODE_TO_CATEGORY(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION);
}

static void
read_last_id(void)
{
	ov_xact_begin();
	(void) ov_query(&last_id, OV_READ, NULL, NULL);
	next_id = ov_int8(0, 1) + 1;
	ov_xact_commit();
}

void
ov_audit_writer_main(Datum database)
{
	MemoryContext context;
	volatile bool id_known = false;
	static Used used;

	ov_worker_signals();
	if (!ov_worker_connect(DatumGetObjectId(database)))
		proc_exit(0);
	ov_worker_register(OV_WORKER_AUDIT, MyDatabaseId);
	ConfigReloadPending = true;
	context = AllocSetContextCreate(TopMemoryContext, "oauth_vault audit writer", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		int			done = 0;
		int			state = 0;
		long		wait_ms = 60000;

		CHECK_FOR_INTERRUPTS();
		(void) ov_worker_reload();
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		if (!id_known)
		{
			PG_TRY();
			{
				read_last_id();
				id_known = true;
			}
			PG_CATCH();
			{
				state = ov_xact_fail("read the audit trail's end");
			}
			PG_END_TRY();
		}
		else
		{
			uint64		at = 0;

			if (ov_audit_peek(&at, row_buf) > 0)
			{
				state = write_batch(BATCH, 0, &done, &used);
				if (about_data(state))
				{
					state = write_batch(1, 0, &done, &used);
					if (about_data(state))
						state = write_batch(1, state, &done, &used);
				}
				if (state == 0)
					bring_up_last_used(&used);
			}
		}
		if (done > 0)
			continue;
		if (state != 0 || ov_database_unknown())
		{
			if (!ov_extension_present())
			{
				/* nobody will read these rows, and nobody may wait for them */
				ov_audit_committed(ov_audit_head());
				proc_exit(0);
			}
			id_known = false;	/* the extension may have been made anew */
			if (state == 0)
				continue;
			wait_ms = PAUSE_MS;
		}
		if (!id_known)
			wait_ms = Min(wait_ms, PAUSE_MS);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
