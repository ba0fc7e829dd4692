/*
 * audit_partition.c
 *	  Partitions of the audit trail: made days ahead, taken away after retention.
 *
 * A partition is a plain table that is made with everything it needs and then
 * attached: that asks for a lock on the trail which neither readers nor inserts
 * mind.  There is no default partition, in which rows would pile up that a new
 * partition could then not be made for.  Bounds are whole days or months, UTC;
 * where partitions are in the way already, a new one fills the room between.
 *
 * What retention takes away leaves a signed head behind ("retired"), with which
 * the trail begins from then on.  That needs the trail for itself for a moment:
 * the lock is taken if it is free, and asked for again later if it is not, so
 * that nobody queues behind us.  A partition whose heads are not all there is
 * left alone, because nothing could be said of it afterwards.
 *
 * Nothing is made ahead while there is no home row: that is a vault nobody uses
 * yet, or one that is being restored, whose partitions are still to come.
 */
#include "worker/audit_trail.h"
#include "worker/slots.h"
#include "worker/worker.h"

#include "access/table.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "executor/spi.h"
#include "guc.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "sql_call.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define AHEAD_DAYS 7
#define LOOK_AGAIN_MS (10 * 60 * 1000)
#define LOCKED_PAUSE_MS 2000	/* somebody is in the way */
#define SIGN_MS 2000

static TimestampTz covered_from;	/* what we know to be covered: [from, to) */
static TimestampTz covered_to;
static Oid	covering;			/* the partition */

bool
ov_partition_covers(TimestampTz t)
{
	return t >= covered_from && t < covered_to;
}

Oid
ov_partition_current(void)
{
	return covering;
}

void
ov_partition_forget(void)
{
	covered_from = covered_to = 0;
}

static TimestampTz
bound(const PartitionBoundInfoData *b, int i)
{
	if (i < 0)
		return DT_NOBEGIN;
	if (i >= b->ndatums)
		return DT_NOEND;
	switch (b->kind[i][0])
	{
		case PARTITION_RANGE_DATUM_MINVALUE:
			return DT_NOBEGIN;
		case PARTITION_RANGE_DATUM_MAXVALUE:
			return DT_NOEND;
		case PARTITION_RANGE_DATUM_VALUE:
			break;
	}
	return DatumGetTimestampTz(b->datums[i][0]);
}

/* The partition for t and its bounds; InvalidOid: there is none, and the bounds are those of the gap. */
static Oid
find(Oid trail, TimestampTz t, TimestampTz *from, TimestampTz *to)
{
	Relation	rel = table_open(trail, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(rel, true);
	PartitionBoundInfo b = desc->boundinfo;
	Oid			found = InvalidOid;

	*from = DT_NOBEGIN;
	*to = DT_NOEND;
	for (int i = 0; desc->nparts > 0 && i <= b->ndatums; i++)
	{
		*from = bound(b, i - 1);
		*to = bound(b, i);
		if (t >= *from && t < *to)
		{
			if (b->indexes[i] >= 0)
				found = desc->oids[b->indexes[i]];
			break;
		}
	}
	table_close(rel, NoLock);
	return found;
}

/* ---- the calendar, UTC ---- */

static TimestampTz
month(int year, int month)
{
	/* date2j and back count from 4713 BC: months may run over */
	year += (month - 1) / 12;
	month = (month - 1) % 12 + 1;
	return ((TimestampTz) date2j(year, month, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
}

static void
unit_of(TimestampTz t, TimestampTz *from, TimestampTz *to)
{
	int64		day = t / USECS_PER_DAY - (t % USECS_PER_DAY < 0);
	int			y,
				m,
				d;

	if (ov_guc_audit_partition == OV_PARTITION_DAY)
	{
		*from = day * USECS_PER_DAY;
		*to = *from + USECS_PER_DAY;
		return;
	}
	j2date((int) day + POSTGRES_EPOCH_JDATE, &y, &m, &d);
	*from = month(y, m);
	*to = month(y, m + 1);
}

static char *
literal(TimestampTz t)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(t, NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "timestamp out of range");
	return psprintf("'%04d-%02d-%02d %02d:%02d:%02d.%06d+00'", tm.tm_year, tm.tm_mon, tm.tm_mday,
					tm.tm_hour, tm.tm_min, tm.tm_sec, (int) fsec);
}

/* ---- making one ---- */

static void
run(const char *statement)
{
	int			rc = SPI_execute(statement, false, 0);

	if (rc < 0)
		elog(ERROR, "could not execute \"%s\": %s", statement, SPI_result_code_string(rc));
	CommandCounterIncrement();
}

/* A name that is free: a detached partition keeps its own. */
static char *
name_for(Oid namespace, TimestampTz from)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char	   *base;
	char	   *name;

	if (timestamp2tm(from, NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "timestamp out of range");
	name = base = psprintf("audit_%04d%02d%02d", tm.tm_year, tm.tm_mon, tm.tm_mday);
	for (int i = 2; OidIsValid(get_relname_relid(name, namespace)); i++)
		name = psprintf("%s_%d", base, i);
	return name;
}

/*
 * Rights: none but the owner's, whatever ALTER DEFAULT PRIVILEGES says, and row
 * security without a policy: readers come through the trail, whose policies
 * bind them there; whoever may write all tables finds no row here.
 */
static void
secure(const char *table)
{
	static OvQuery others = {
		"SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END"
		" FROM pg_catalog.pg_class c, LATERAL aclexplode(c.relacl) a WHERE c.oid = $1::regclass AND a.grantee <> c.relowner", "t"
	};
	Datum		arg = ov_text_datum(table);
	uint64		n = ov_query(&others, OV_READ, &arg, NULL);
	char	  **grantee = palloc(sizeof(char *) * (n + 1));

	for (uint64 i = 0; i < n; i++)
		grantee[i] = ov_text(i, 1);
	for (uint64 i = 0; i < n; i++)
		run(psprintf("REVOKE ALL ON %s FROM %s", table, grantee[i]));
	run(psprintf("ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", table));
}

static void
make(Oid trail, TimestampTz t, TimestampTz gap_from, TimestampTz gap_to, TimestampTz *from, TimestampTz *to)
{
	char	   *name;
	char	   *table;
	char	   *lower;
	char	   *upper;

	unit_of(t, from, to);
	*from = Max(*from, gap_from);
	*to = Min(*to, gap_to);
	name = name_for(get_rel_namespace(trail), *from);
	table = psprintf("oauth_vault.%s", name);
	lower = literal(*from);
	upper = literal(*to);
	run(psprintf("CREATE TABLE %s (LIKE oauth_vault.audit INCLUDING STORAGE INCLUDING COMPRESSION,"
				 " CONSTRAINT within CHECK (recorded_at >= %s AND recorded_at < %s))", table, lower, upper));
	run(psprintf("COMMENT ON TABLE %s IS 'A piece of the audit trail'", table));
	secure(table);
	run(psprintf("CREATE INDEX %s_id ON %s (audit_id)", name, table));
	run(psprintf("CREATE INDEX %s_at ON %s (at)", name, table));
	run(psprintf("CREATE INDEX %s_person ON %s (tenant, user_id, at)", name, table));
	run(psprintf("CREATE INDEX %s_connection ON %s (connection_id, at)", name, table));
	run(psprintf("ALTER TABLE oauth_vault.audit ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)",
				 table, lower, upper));
}

static Oid
trail_relation(void)
{
	Oid			oid = get_relname_relid("audit", get_namespace_oid("oauth_vault", false));

	if (!OidIsValid(oid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation \"oauth_vault.audit\" does not exist")));
	return oid;
}

int
ov_partition_ensure(TimestampTz t)
{
	PG_TRY();
	{
		Oid			trail;
		Oid			partition;
		TimestampTz from,
					to;

		ov_xact_begin();
		trail = trail_relation();
		partition = find(trail, t, &from, &to);
		if (!OidIsValid(partition))
		{
			make(trail, t, from, to, &from, &to);
			partition = find(trail, t, &from, &to);
		}
		ov_xact_commit();
		covering = partition;
		covered_from = from;
		covered_to = to;
	}
	PG_CATCH();
	{
		return ov_xact_fail("make a partition of the audit trail");
	}
	PG_END_TRY();
	return 0;
}

/* ---- ahead ---- */

/* Makes the first partition that is missing in the days to come; false: none is. */
static bool
make_ahead(TimestampTz now)
{
	static OvQuery in_use = {"SELECT FROM oauth_vault.home", ""};
	TimestampTz until = now + AHEAD_DAYS * USECS_PER_DAY;
	bool		made = false;

	ov_xact_begin();
	if (ov_query(&in_use, OV_READ, NULL, NULL) > 0)
	{
		Oid			trail = trail_relation();
		TimestampTz t = now;

		while (!made && t <= until)
		{
			TimestampTz from,
						to;

			if (!OidIsValid(find(trail, t, &from, &to)))
			{
				make(trail, t, from, to, &from, &to);
				made = true;
			}
			t = to;
		}
	}
	ov_xact_commit();
	return made;
}

/* ---- retention ---- */

typedef struct Expired
{
	Oid			oid;			/* InvalidOid: there is none */
	char		name[NAMEDATALEN];
	bool		empty;
	OvAuditHead head;
} Expired;

/* The heads that a partition begins and ends with say what comes before it and how it ends. */
static OvQuery first_head = {
	"SELECT previous_hash FROM oauth_vault.audit_head WHERE kind = 'batch' AND first_id = $1", "l"
};
static OvQuery final_head = {
	"SELECT hash FROM oauth_vault.audit_head WHERE kind = 'batch' AND last_id = $1", "l"
};
static OvQuery drop_heads = {
	"DELETE FROM oauth_vault.audit_head WHERE kind = 'batch' AND last_id BETWEEN $1 AND $2", "ll"
};

static bool
hash_of(OvQuery *q, int64 id, unsigned char out[OV_HASH_LEN])
{
	Datum		arg = Int64GetDatum(id);
	const unsigned char *data;
	size_t		len;

	if (ov_query(q, OV_READ, &arg, NULL) == 0)
		return false;
	data = ov_bytea(0, 1, &len);
	if (len != OV_HASH_LEN)
		return false;
	memcpy(out, data, OV_HASH_LEN);
	return true;
}

/* The oldest partition, if all of it is older than t and sealed. */
static void
find_expired(TimestampTz t, Expired *e)
{
	static int64 complained;	/* about the partition with this row */
	Relation	rel = table_open(trail_relation(), AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(rel, true);
	PartitionBoundInfo b = desc->boundinfo;

	memset(e, 0, sizeof(*e));
	for (int i = 0; desc->nparts > 0 && i < b->ndatums && !OidIsValid(e->oid); i++)
		if (b->indexes[i] >= 0 && bound(b, i) <= t)
			e->oid = desc->oids[b->indexes[i]];
		else if (b->indexes[i] >= 0)
			break;
	table_close(rel, NoLock);
	if (!OidIsValid(e->oid))
		return;
	strlcpy(e->name, get_rel_name(e->oid), sizeof(e->name));
	if (SPI_execute(psprintf("SELECT min(audit_id), max(audit_id) FROM ONLY oauth_vault.%s", quote_identifier(e->name)),
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read partition \"%s\"", e->name);
	e->empty = ov_null(0, 1);
	if (e->empty)
		return;
	e->head.kind = OV_HEAD_RETIRED;
	e->head.partition = e->name;
	e->head.first_id = ov_int8(0, 1);
	e->head.last_id = ov_int8(0, 2);
	if (e->head.last_id <= ov_heads_sealed()->id &&
		hash_of(&first_head, e->head.first_id, e->head.previous) &&
		hash_of(&final_head, e->head.last_id, e->head.hash))
		return;
	if (complained != e->head.first_id)
		ereport(LOG,
				(errmsg("partition \"%s\" of the audit trail is past retention and stays: its rows are not all under heads that begin and end with it",
						e->name),
				 errhint("oauth_audit_verify() tells what is wrong; detach the partition by hand if it shall go.")));
	complained = e->head.first_id;
	e->oid = InvalidOid;
}

void
ov_trail_note(const char *event, const char *reason, const char *detail)
{
	unsigned char buf[1024];
	OvMsg		m;

	ov_msg_init(&m, buf, sizeof(buf));
	ov_msg_put_i64(&m, OV_TAG_AT, GetCurrentTimestamp());
	ov_msg_put_str(&m, OV_TAG_EVENT, event);
	ov_msg_put_str(&m, OV_TAG_OUTCOME, "ok");
	ov_msg_put_str(&m, OV_TAG_PURPOSE, "background");
	ov_msg_put_str(&m, OV_TAG_REASON, reason);
	ov_msg_put_str(&m, OV_TAG_DETAIL_JSON, detail);
	if (!ov_audit_try_append(&m))
		ov_audit_tell_log(&m);
}

static void
leave_trace(const Expired *e)
{
	const char *event = "audit_retired";

	ov_trail_note(event, ov_guc_audit_expired == OV_EXPIRED_DROP ? "dropped" : "detached",
				  psprintf("{\"partition\": \"%s\", \"first_id\": " INT64_FORMAT ", \"last_id\": " INT64_FORMAT "}",
						   e->name, e->head.first_id, e->head.last_id));
}

/* Takes the partition away; false: somebody reads the trail now. */
static bool
take_away(const Expired *e, const unsigned char signature[OV_HASH_LEN])
{
	Oid			trail;
	bool		locked;
	char	   *table = psprintf("oauth_vault.%s", quote_identifier(e->name));

	ov_xact_begin();
	trail = trail_relation();
	locked = ConditionalLockRelationOid(trail, AccessExclusiveLock) &&
		ConditionalLockRelationOid(e->oid, AccessExclusiveLock);
	if (locked)
	{
		/* one without rows is nothing to archive */
		bool		drop = e->empty || ov_guc_audit_expired == OV_EXPIRED_DROP;
		Datum		args[2];

		if (!e->empty)
			ov_head_insert(&e->head, signature);
		run(psprintf("ALTER TABLE oauth_vault.audit DETACH PARTITION %s", table));
		if (drop)
		{
			run(psprintf("DROP TABLE %s", table));
			args[0] = Int64GetDatum(e->head.first_id);
			args[1] = Int64GetDatum(e->head.last_id);
			(void) ov_query(&drop_heads, OV_WRITE, args, NULL);
		}
	}
	ov_xact_commit();
	return locked;
}

/* 0: one has been retired, or else after how many milliseconds to look again. */
static long
retire(TimestampTz now)
{
	Expired		e;
	unsigned char signature[OV_HASH_LEN];
	const char *problem;

	if (ov_guc_audit_retention == 0)
		return LOOK_AGAIN_MS;
	ov_xact_begin();
	find_expired(now - ov_guc_audit_retention * USECS_PER_DAY, &e);
	ov_xact_commit();
	if (!OidIsValid(e.oid))
		return LOOK_AGAIN_MS;
	if (!e.empty && (problem = ov_head_sign(&e.head, signature, SIGN_MS)) != NULL)
	{
		if (problem[0] != '\0')
			ereport(LOG, (errmsg("could not retire partition \"%s\" of the audit trail: %s", e.name, problem)));
		return LOCKED_PAUSE_MS;
	}
	if (!take_away(&e, signature))
		return LOCKED_PAUSE_MS;
	ereport(LOG,
			(errmsg("partition \"%s\" of the audit trail has been %s: it is past retention", e.name,
					e.empty || ov_guc_audit_expired == OV_EXPIRED_DROP ? "dropped" : "detached")));
	if (!e.empty)
		leave_trace(&e);
	ov_partition_forget();
	return 0;
}

long
ov_partition_upkeep(TimestampTz now)
{
	volatile bool made = false;
	volatile long again = 0;

	PG_TRY();
	{
		made = make_ahead(now);
		if (!made)
			again = retire(now);
	}
	PG_CATCH();
	{
		(void) ov_xact_fail("keep up the partitions of the audit trail");
		return LOCKED_PAUSE_MS;
	}
	PG_END_TRY();
	return again;
}
