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

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "debug_point.h"
#include "errors.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "sql_call.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inet.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "worker/audit_ring.h"
#include "worker/audit_trail.h"
#include "worker/network.h"

#define BATCH 256
#define PAUSE_MS 500			/* after a failure that was not a row's */
#define UNSETTLED_MS 2000
#define CLOCK_TOLERANCE_US 1000000	/* a clock that goes back by less is not worth a word */

OvTrailEnd	ov_trail_end;

static TimestampTz last_recorded;
static Oid	trail;				/* oauth_vault.audit */
static bool settled;			/* the database is in use: nobody else writes the trail */
static bool clock_is_back;		/* and has been told */
static unsigned char row_buf[OV_MESSAGE_MAX];

/*
 * The last row; or the last head, when retention has taken all rows, and when
 * somebody else has taken the last ones: the gap shall be seen.
 */
static OvQuery read_end = {
	"SELECT id, hash, recorded_at FROM ("
	" (SELECT audit_id AS id, hash, recorded_at, 2 FROM oauth_vault.audit ORDER BY audit_id DESC LIMIT 1)"
	" UNION ALL (SELECT last_id, hash, made_at, 1 FROM oauth_vault.audit_head ORDER BY last_id DESC LIMIT 1))"
	" e (id, hash, recorded_at, preference) ORDER BY id DESC, preference LIMIT 1", ""
};
static OvQuery last_recorded_at = {"SELECT max(recorded_at) FROM oauth_vault.audit", ""};
static OvQuery touch = {
	"UPDATE oauth_vault.connection c SET last_used_at = now() FROM (SELECT connection_id FROM oauth_vault.connection"
	" WHERE connection_id = ANY ($1) AND (last_used_at IS NULL OR last_used_at < now() - interval '1 hour')"
	" FOR UPDATE SKIP LOCKED) free WHERE c.connection_id = free.connection_id",
	"U"
};

/* ---- one row ---- */

typedef struct Row
{
	Datum		value[OV_AUDIT_COLUMNS + 1];	/* and the hash */
	bool		null[OV_AUDIT_COLUMNS + 1];
} Row;

static void
set(Row *r, OvAuditColumn column, Datum value)
{
	r->value[column] = value;
	r->null[column] = false;
}

static char *
checked(const void *data, size_t len)
{
	/* raises an error of class 22 */
	(void) pg_verifymbstr(data, (int) len, false);
	return pnstrdup(data, len);
}

static void
set_text(Row *r, OvAuditColumn column, const OvMsg *m, OvTag tag)
{
	const void *data;
	size_t		len;

	if (ov_msg_get(m, tag, &data, &len))
		set(r, column, CStringGetTextDatum(checked(data, len)));
}

static void
set_json(Row *r, OvAuditColumn column, const OvMsg *m, OvTag tag)
{
	const void *data;
	size_t		len;

	if (ov_msg_get(m, tag, &data, &len))
		set(r, column, ov_jsonb_datum(checked(data, len)));
}

static void
set_all(Row *r, const OvMsg *m)
{
	const void *data;
	size_t		len;
	size_t		at = 0;
	int			nscopes = 0;
	const char **scopes;

	set_text(r, OV_COL_TENANT, m, OV_TAG_TENANT);
	set_text(r, OV_COL_USER_ID, m, OV_TAG_USER);
	set_json(r, OV_COL_ACTOR, m, OV_TAG_ACTOR);
	set_text(r, OV_COL_PURPOSE, m, OV_TAG_PURPOSE);
	set_text(r, OV_COL_CONNECTOR, m, OV_TAG_CONNECTOR);
	if (ov_msg_get(m, OV_TAG_CONNECTION_ID, &data, &len) && len == UUID_LEN)
		set(r, OV_COL_CONNECTION_ID, ov_uuid_datum(data));
	set_text(r, OV_COL_ACCOUNT, m, OV_TAG_ACCOUNT);
	while (ov_msg_next(m, &at, OV_TAG_SCOPE, &data, &len))
		nscopes++;
	if (nscopes > 0)
	{
		scopes = palloc(sizeof(char *) * nscopes);
		at = 0;
		for (int i = 0; i < nscopes && ov_msg_next(m, &at, OV_TAG_SCOPE, &data, &len); i++)
			scopes[i] = checked(data, len);
		set(r, OV_COL_SCOPES, ov_text_array_datum(scopes, nscopes));
	}
	set_text(r, OV_COL_DATABASE_ROLE, m, OV_TAG_ROLE);
	set_text(r, OV_COL_SESSION_USER, m, OV_TAG_SESSION_USER);
	if (ov_msg_get(m, OV_TAG_ADDRESS, &data, &len))
		set(r, OV_COL_CLIENT_ADDRESS, DirectFunctionCall1(inet_in, CStringGetDatum(checked(data, len))));
	set_text(r, OV_COL_APPLICATION, m, OV_TAG_APPLICATION);
	set_text(r, OV_COL_ASSERTION_JTI, m, OV_TAG_JTI);
	if (ov_msg_get(m, OV_TAG_TOKEN_FINGERPRINT, &data, &len))
		set(r, OV_COL_FINGERPRINT, ov_bytea_datum(data, len));
	set_text(r, OV_COL_REASON, m, OV_TAG_REASON);
	set_json(r, OV_COL_DETAIL, m, OV_TAG_DETAIL_JSON);
}

/* ---- the partition ---- */

/*
 * Rows go straight into their partition, as a subscription's apply worker does
 * it: with its constraints, triggers and indexes, and without planning and
 * routing each of them anew.
 */
typedef struct Target
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *info;
	TupleTableSlot *slot;
	AttrNumber	attnum[OV_AUDIT_COLUMNS + 1];
} Target;

static void
open_target(Target *t)
{
	Oid			oid;

	/* a partition is detached under a lock that conflicts with this one */
	LockRelationOid(trail, RowExclusiveLock);
	oid = ov_partition_current();
	t->rel = try_relation_open(oid, RowExclusiveLock);
	if (t->rel == NULL || !t->rel->rd_rel->relispartition)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("the partition of the audit trail for this moment is not there any more")));
	for (int i = 0; i <= OV_AUDIT_COLUMNS; i++)
	{
		const char *name = i < OV_AUDIT_COLUMNS ? ov_audit_columns[i].name : "hash";
		Oid			type = i < OV_AUDIT_COLUMNS ? ov_audit_columns[i].type : BYTEAOID;

		t->attnum[i] = get_attnum(oid, name);
		if (t->attnum[i] <= 0 || get_atttype(oid, t->attnum[i]) != type)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table \"%s\" has no column \"%s\" of its type", RelationGetRelationName(t->rel), name)));
	}
	t->estate = CreateExecutorState();
	t->info = makeNode(ResultRelInfo);
	InitResultRelInfo(t->info, t->rel, 0, NULL, 0);
	t->estate->es_output_cid = GetCurrentCommandId(true);
	AfterTriggerBeginQuery();
	ExecOpenIndices(t->info, false);
	t->slot = table_slot_create(t->rel, &t->estate->es_tupleTable);
}

static void
insert_values(Target *t, const Row *r)
{
	ResetPerTupleExprContext(t->estate);
	ExecClearTuple(t->slot);
	memset(t->slot->tts_isnull, true, sizeof(bool) * t->slot->tts_tupleDescriptor->natts);
	for (int i = 0; i <= OV_AUDIT_COLUMNS; i++)
	{
		t->slot->tts_values[t->attnum[i] - 1] = r->value[i];
		t->slot->tts_isnull[t->attnum[i] - 1] = r->null[i];
	}
	ExecStoreVirtualTuple(t->slot);
	ExecSimpleRelationInsert(t->info, t->estate, t->slot);
}

static void
close_target(Target *t)
{
	AfterTriggerEndQuery(t->estate);
	ExecCloseIndices(t->info);
	ExecResetTupleTable(t->estate->es_tupleTable, false);
	FreeExecutorState(t->estate);
	table_close(t->rel, NoLock);
}

/* Inserts one row behind *end; `refused` replaces what the database would not take. */
static void
insert_row(Target *t, const OvMsg *m, int refused, TimestampTz recorded, OvTrailEnd *end)
{
	Row			r;
	unsigned char hash[OV_HASH_LEN];

	memset(r.value, 0, sizeof(r.value));
	memset(r.null, true, sizeof(r.null));
	set(&r, OV_COL_AUDIT_ID, Int64GetDatum(end->id + 1));
	set(&r, OV_COL_AT, TimestampTzGetDatum(ov_msg_get_i64(m, OV_TAG_AT, 0)));
	set_text(&r, OV_COL_EVENT, m, OV_TAG_EVENT);
	set_text(&r, OV_COL_OUTCOME, m, OV_TAG_OUTCOME);
	set(&r, OV_COL_RECORDED_AT, TimestampTzGetDatum(recorded));
	if (refused)
		set(&r, OV_COL_REASON, CStringGetTextDatum(psprintf("the database refused the row: %s",
															 unpack_sql_state(refused))));
	else
		set_all(&r, m);
	ov_audit_row_hash(r.value, r.null, end->hash, hash);
	r.value[OV_AUDIT_COLUMNS] = ov_bytea_datum(hash, OV_HASH_LEN);
	r.null[OV_AUDIT_COLUMNS] = false;
	insert_values(t, &r);
	end->id++;
	memcpy(end->hash, hash, OV_HASH_LEN);
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
 * The time of a batch: never before the one before it, so that the trail's
 * order is that of its partitions.  Events keep what their process's clock said.
 */
static TimestampTz
record_time(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now >= last_recorded)
	{
		clock_is_back = false;
		return now;
	}
	if (last_recorded - now > CLOCK_TOLERANCE_US && !clock_is_back)
	{
		clock_is_back = true;
		ereport(LOG,
				(errmsg("the server's clock has gone back: it is %s, and audit rows were recorded until %s",
						pstrdup(timestamptz_to_str(now)), timestamptz_to_str(last_recorded)),
				 errdetail("Rows are recorded under the later time until the clock has caught up.")));
	}
	return last_recorded;
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
	OvTrailEnd	end = ov_trail_end;
	TimestampTz recorded = record_time();
	int			state;

	used->n = 0;
	*done = 0;
	if (!ov_partition_covers(recorded))
	{
		if ((state = ov_partition_ensure(recorded)) != 0)
			return state;
		if (!ov_partition_covers(last_recorded))
			ov_heads_note_partition();
	}
	PG_TRY();
	{
		Target		target;
		uint64		position = 0;
		uint32		len;

		ov_xact_begin();
		open_target(&target);
		while (n < limit && (len = ov_audit_peek(&position, row_buf)) > 0)
		{
			OvMsg		row;

			ov_msg_read(&row, row_buf, len);
			insert_row(&target, &row, refused, recorded, &end);
			note_use(used, &row);
			at = position;
			n++;
		}
		close_target(&target);
		HOLD_INTERRUPTS();
		OV_POINT("before commit of audit rows");
		ov_xact_commit();
		OV_POINT("after commit of audit rows");
		if (n > 0)
		{
			ov_trail_end = end;
			last_recorded = recorded;
			ov_audit_end_publish(trail, end.id, end.hash);
			ov_audit_committed(at);
		}
		RESUME_INTERRUPTS();
	}
	PG_CATCH();
	{
		state = ov_xact_fail("write audit rows");
		/* no partition, or a constraint of somebody's */
		if (state == ERRCODE_CHECK_VIOLATION)
			ov_partition_forget();
		return state;
	}
	PG_END_TRY();
	*done = n;
	ov_heads_note_rows();
	return 0;
}

/* Not those that were brought up a moment ago: a busy caller comes in every batch. */
static bool
lately(const unsigned char id[UUID_LEN], TimestampTz now)
{
	static struct
	{
		unsigned char id[UUID_LEN];
		TimestampTz at;
	}			seen[512], *s;

	s = &seen[(id[0] << 8 | id[1]) % lengthof(seen)];
	if (memcmp(s->id, id, UUID_LEN) == 0 && s->at <= now && now - s->at < USECS_PER_SEC)
		return true;
	memcpy(s->id, id, UUID_LEN);
	s->at = now;
	return false;
}

/*
 * To the hour, and nothing is lost with it: committed without a flush, so that
 * the rows are held for no longer than the UPDATE takes.  A refresh that is
 * being stored does not wait for a row.
 */
static void
bring_up_last_used(const Used *used)
{
	const unsigned char *ids[BATCH];
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;

	for (int i = 0; i < used->n; i++)
		if (!lately(used->id[i], now))
			ids[n++] = used->id[i];
	if (n == 0)
		return;
	PG_TRY();
	{
		OvArgs		a = {0};

		ov_xact_begin();
		/* not PGC_S_OVERRIDE, which would change what the transaction's end goes back to */
		(void) set_config_option("synchronous_commit", "off", PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		ov_arg_uuids(&a, ids, n);
		(void) ov_run(&touch, OV_WRITE, &a);
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

/*
 * Where the trail ends.  A database that has no home row or is held may be one
 * that a dump is being restored into: its trail can change under us, and is
 * read again before each batch.
 */
static void
read_trail(void)
{
	OvTrailEnd	end = {0};
	OvTrailEnd	known;
	TimestampTz recorded = 0;
	OvHome		home;

	ov_xact_begin();
	settled = ov_home_row(&home) && !home.held;
	trail = get_relname_relid("audit", get_namespace_oid("oauth_vault", false));
	if (ov_query(&read_end, OV_READ, NULL, NULL) > 0)
	{
		const unsigned char *hash;
		size_t		len;

		end.id = ov_int8(0, 1);
		hash = ov_bytea(0, 2, &len);
		if (len == OV_HASH_LEN)
			memcpy(end.hash, hash, OV_HASH_LEN);
		(void) ov_query(&last_recorded_at, OV_READ, NULL, NULL);
		recorded = ov_time(0, 1);
	}
	/* What our predecessor in this server committed is known better than by the table. */
	if (ov_audit_end_known(trail, &known.id, known.hash, NULL) && settled &&
		(known.id != end.id || memcmp(known.hash, end.hash, OV_HASH_LEN) != 0))
	{
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the audit trail does not end as it was written: its last row is " INT64_FORMAT ", and "
						INT64_FORMAT " was committed", end.id, known.id),
				 errhint("oauth_audit_verify() tells which rows were changed or removed.")));
		end = known;
	}
	ov_trail_end = end;
	ov_heads_read();
	ov_xact_commit();
	last_recorded = recorded;
	ov_partition_forget();
}

/* Rows that the database does not take as they are go in one by one. */
static int
write_rows(int *done, Used *used)
{
	int			state = write_batch(BATCH, 0, done, used);

	/* first of all: was it that the partition has been taken away? */
	if (state == ERRCODE_CHECK_VIOLATION)
		state = write_batch(BATCH, 0, done, used);
	if (!about_data(state))
		return state;
	state = write_batch(1, 0, done, used);
	return about_data(state) ? write_batch(1, state, done, used) : state;
}

void
ov_audit_writer_main(Datum database)
{
	MemoryContext context;
	volatile bool known = false;	/* where the trail ends */
	TimestampTz upkeep_at = 0;
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
		uint64		at = 0;
		TimestampTz now;

		if (ProcDiePending && known && settled)
		{
			HOLD_INTERRUPTS();
			ov_heads_leave();
			RESUME_INTERRUPTS();
		}
		CHECK_FOR_INTERRUPTS();
		if (ov_worker_reload())
			upkeep_at = 0;
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		if (!known)
		{
			PG_TRY();
			{
				read_trail();
				known = true;
				upkeep_at = 0;
			}
			PG_CATCH();
			{
				state = ov_xact_fail("read the audit trail's end");
			}
			PG_END_TRY();
		}
		if (known && ov_audit_peek(&at, row_buf) > 0)
		{
			state = write_rows(&done, &used);
			if (state == 0)
				bring_up_last_used(&used);
		}
		ov_audit_trouble(state);
		if (done > 0 && !settled)
			known = false;
		now = GetCurrentTimestamp();
		if (known && settled && state == 0)
			wait_ms = ov_heads_work(now);
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
			known = false;		/* the extension may have been made anew */
			if (state == 0)
				continue;
			wait_ms = PAUSE_MS;
		}
		if (known && settled)
		{
			if (now >= upkeep_at)
				upkeep_at = TimestampTzPlusMilliseconds(now, ov_partition_upkeep(now));
			wait_ms = Min(wait_ms, upkeep_at <= now ? 0 : TimestampDifferenceMilliseconds(now, upkeep_at) + 1);
		}
		else if (known)
		{
			known = false;		/* until somebody uses the database */
			wait_ms = UNSETTLED_MS;
		}
		else
			wait_ms = Min(wait_ms, PAUSE_MS);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
