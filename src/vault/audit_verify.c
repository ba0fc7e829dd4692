/*
 * audit_verify.c
 *	  oauth_audit_verify: is the audit trail what the audit writer wrote?
 *
 * Runs in the auditor's own session.  Rows are read in the order in which they
 * lie, which is that of the chain unless somebody has meddled, and hashed again
 * one after the other; a partition that is out of order is read once more,
 * sorted, to say what is wrong with it.  Heads are checked by the key worker,
 * many at a time, and compared with the chain where it passes them.
 *
 * Stops at the first thing that is wrong.  What can be told apart:
 *	  modified		a row's hash is not that of its columns and its predecessor's hash
 *	  missing		rows are not there, and later ones are
 *	  duplicate		a row too many
 *	  rechained		the rows agree among themselves, and not with a head or the server
 *	  truncated		rows that a head or the server knows of are not there, nor any later
 *	  head_forged	a head's MAC is not good
 *	  head_missing	heads do not follow each other, or rows have been without one for long
 *	  head_differs	the head given by hand has another hash
 *	  head_outside	the head given by hand is of no row that was looked at
 *	  damaged		the table is not what it was
 *
 * The trail is locked against retention while it is read, and against nothing
 * else.  Heads are read first, then a snapshot is taken: rows that a head has
 * are all there.
 */
#include "vault/vault.h"

#include <ctype.h>

#include "access/table.h"
#include "access/tableam.h"
#include "audit_row.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "portability/instr_time.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/audit_ring.h"

PG_FUNCTION_INFO_V1(ov_audit_verify);

#define HEADS_MAX 128			/* of a chunk: what goes to the key worker in one message */
#define WITHOUT_HEAD_US (5 * INT64CONST(60000000))	/* longer than any key worker should be away */
#define FETCH 1000

typedef struct Head
{
	OvAuditHead head;
	bool		good;
} Head;

typedef struct Given			/* a head from elsewhere: the log, or the server's memory */
{
	bool		there;
	bool		met;
	int64		id;
	unsigned char hash[OV_HASH_LEN];
} Given;

typedef struct Verify
{
	Snapshot	snapshot;
	MemoryContext row;			/* reset at each */
	unsigned char vault_id[16];

	int64		first_id;		/* where to begin; rows before it are passed over */
	int64		stop_id;		/* the last one, or PG_INT64_MAX */
	bool		whole;			/* to the trail's end */
	bool		passes_over;	/* rows before first_id are somebody else's question */
	int64		expected;		/* the next row */
	unsigned char hash[OV_HASH_LEN];	/* of the row before it */
	TimestampTz recorded;		/* of the last row */
	int64		unsealed;		/* rows after the last head */
	TimestampTz unsealed_since;

	Head	   *heads;			/* a chunk */
	int			nheads;
	int			at;				/* the one whose rows are being read */
	bool		more;			/* there may be another chunk */
	int64		heads_to;		/* last_id of the head before */
	unsigned char heads_hash[OV_HASH_LEN];
	int64		nheads_seen;
	int64		sealed_id;

	Given		hand;
	Given		server;
	int64		server_sealed;	/* the last row that the server has put under a head */

	int64		rows;
	const char *problem;
	int64		bad_id;
	char		explanation[512];
} Verify;

static bool bad(Verify *v, const char *problem, int64 id, const char *format,...) pg_attribute_printf(4, 5);

static bool
bad(Verify *v, const char *problem, int64 id, const char *format,...)
{
	va_list		args;

	if (v->problem != NULL)
		return false;
	v->problem = problem;
	v->bad_id = id;
	va_start(args, format);
	vsnprintf(v->explanation, sizeof(v->explanation), format, args);
	va_end(args);
	return false;
}

/* ---- heads ---- */

static OvQuery heads_after = {
	"SELECT kind, first_id, last_id, previous_hash, hash, made_at, system_identifier, timeline, database_oid::int8,"
	" partition, key_id, mac FROM oauth_vault.audit_head WHERE kind = 'batch' AND last_id > $1 AND first_id <= $3"
	" ORDER BY last_id, first_id LIMIT $2", "lll"
};
static OvQuery head_over = {
	"SELECT first_id, last_id, previous_hash FROM oauth_vault.audit_head WHERE kind = 'batch' AND last_id >= $1"
	" AND first_id <= $1 ORDER BY last_id LIMIT 1", "l"
};
static OvQuery last_retired = {
	"SELECT kind, first_id, last_id, previous_hash, hash, made_at, system_identifier, timeline, database_oid::int8,"
	" partition, key_id, mac FROM oauth_vault.audit_head WHERE kind = 'retired' ORDER BY last_id DESC LIMIT 1", ""
};
static OvQuery wrapped_key = {
	"SELECT wrapped FROM oauth_vault.vault_key WHERE key_id = $1 AND kind = 'audit'", "l"
};

static void
copy_hash(unsigned char out[OV_HASH_LEN], uint64 row, int col)
{
	size_t		len;
	const unsigned char *data = ov_bytea(row, col, &len);

	memset(out, 0, OV_HASH_LEN);
	if (len == OV_HASH_LEN)
		memcpy(out, data, OV_HASH_LEN);
}

/* Reads the heads of the last result, and has their MACs checked; their texts live as long as the caller's context. */
static void
take_heads(Verify *v, uint64 n, Head *heads)
{
	unsigned char (*macs)[OV_HASH_LEN] = palloc(n * sizeof(*macs));

	for (uint64 i = 0; i < n; i++)
	{
		OvAuditHead *h = &heads[i].head;

		memset(&heads[i], 0, sizeof(heads[i]));
		h->kind = ov_text(i, 1);
		h->first_id = ov_int8(i, 2);
		h->last_id = ov_int8(i, 3);
		copy_hash(h->previous, i, 4);
		copy_hash(h->hash, i, 5);
		h->made_at = ov_time(i, 6);
		h->system_identifier = ov_int8(i, 7);
		h->timeline = ov_int8(i, 8);
		h->database_oid = ov_int8(i, 9);
		h->partition = ov_text(i, 10);
		h->key_id = ov_int8(i, 11);
		copy_hash(macs[i], i, 12);
	}
	for (uint64 i = 0; i < n;)
	{
		int64		key_id = heads[i].head.key_id;
		Datum		arg = Int64GetDatum(key_id);
		uint64		first = i;
		const unsigned char *wrapped = NULL;
		size_t		len = 0;
		const void *good;
		SPITupleTable *key;
		OvMsg	   *m;

		if (ov_query(&wrapped_key, OV_READ, &arg, NULL) > 0)
			wrapped = ov_bytea(0, 1, &len);
		key = SPI_tuptable;
		if (len == 0)
		{
			/* no key, no MAC: left as not good */
			while (i < n && heads[i].head.key_id == key_id)
				i++;
			continue;
		}
		m = ov_request();
		ov_msg_put_str(m, OV_TAG_KIND, OV_KIND_AUDIT);
		ov_msg_put(m, OV_TAG_VAULT_ID, v->vault_id, 16);
		ov_msg_put_i64(m, OV_TAG_KEY_ID, key_id);
		ov_msg_put(m, OV_TAG_WRAPPED, wrapped, len);
		for (; i < n && heads[i].head.key_id == key_id; i++)
		{
			unsigned char item[OV_HASH_LEN + OV_HEAD_BYTES_MAX];

			memcpy(item, macs[i], OV_HASH_LEN);
			len = ov_audit_head_bytes(&heads[i].head, v->vault_id, item + OV_HASH_LEN);
			ov_msg_put(m, OV_TAG_ITEM, item, len == 0 ? 0 : OV_HASH_LEN + len);
		}
		m = ov_send(OV_WORKER_KEY, OV_OP_MAC_CHECK);
		if (ov_msg_get(m, OV_TAG_RESULT, &good, &len))
			for (size_t k = 0; k < len && first + k < i; k++)
				heads[first + k].good = ((const unsigned char *) good)[k] == 1;
		ov_done_with_answer();
		SPI_freetuptable(key);
	}
	pfree(macs);
}

/* The head at v->at, or NULL when there is none any more. */
static Head *
current_head(Verify *v)
{
	Datum		args[3];
	SPITupleTable *table;

	if (v->at < v->nheads)
		return &v->heads[v->at];
	if (!v->more)
		return NULL;
	args[0] = Int64GetDatum(v->heads_to);
	args[1] = Int64GetDatum(HEADS_MAX);
	args[2] = Int64GetDatum(v->stop_id);
	v->nheads = (int) ov_query(&heads_after, OV_READ, args, NULL);
	table = SPI_tuptable;
	v->at = 0;
	take_heads(v, v->nheads, v->heads);
	SPI_freetuptable(table);
	v->more = v->nheads == HEADS_MAX;
	return v->nheads > 0 ? &v->heads[0] : NULL;
}

/* The head that is next must begin where the one before it ended. */
static bool
head_follows(Verify *v, const OvAuditHead *h)
{
	if (h->first_id == v->heads_to + 1 && memcmp(h->previous, v->heads_hash, OV_HASH_LEN) == 0)
		return true;
	if (h->first_id > v->heads_to + 1)
		return bad(v, "head_missing", v->heads_to + 1, "rows " INT64_FORMAT " to " INT64_FORMAT " are under no head",
				   v->heads_to + 1, h->first_id - 1);
	return bad(v, "head_forged", h->last_id, "the head of rows " INT64_FORMAT " to " INT64_FORMAT
			   " does not follow the one before it", h->first_id, h->last_id);
}

/* ---- rows ---- */

static bool
given_agrees(Verify *v, Given *g, int64 id, const char *problem, const char *whose)
{
	if (!g->there || g->id != id)
		return true;
	g->met = true;
	return memcmp(g->hash, v->hash, OV_HASH_LEN) == 0 ||
		bad(v, problem, id, "row " INT64_FORMAT " has another hash than %s", id, whose);
}

/* A row; false: it is bad, and v says how. */
static bool
check_row(Verify *v, const Datum *values, const bool *nulls, Datum stored, bool stored_null)
{
	int64		id = DatumGetInt64(values[OV_COL_AUDIT_ID]);
	unsigned char hash[OV_HASH_LEN];
	TimestampTz recorded = DatumGetTimestampTz(values[OV_COL_RECORDED_AT]);
	Head	   *h;
	bytea	   *b = stored_null ? NULL : DatumGetByteaPP(stored);

	if (id > v->expected)
		return bad(v, "missing", v->expected, id == v->expected + 1 ? "row " INT64_FORMAT " is missing" :
				   "rows " INT64_FORMAT " to " INT64_FORMAT " are missing", v->expected, id - 1);
	if (id < v->expected)
		return bad(v, "duplicate", id, "there is a second row " INT64_FORMAT ", or one from before the beginning", id);
	ov_audit_row_hash(values, nulls, v->hash, hash);
	if (b == NULL || VARSIZE_ANY_EXHDR(b) != OV_HASH_LEN || memcmp(hash, VARDATA_ANY(b), OV_HASH_LEN) != 0)
		return bad(v, "modified", id, "row " INT64_FORMAT " is not as it was written, or does not belong after row "
				   INT64_FORMAT, id, id - 1);
	if (recorded < v->recorded)
		return bad(v, "modified", id, "row " INT64_FORMAT " was recorded before the row before it", id);
	v->rows++;
	v->expected = id + 1;
	v->recorded = recorded;
	memcpy(v->hash, hash, OV_HASH_LEN);
	if (!given_agrees(v, &v->hand, id, "head_differs", "the head that was given") ||
		!given_agrees(v, &v->server, id, "rechained", "the server committed"))
		return false;

	h = current_head(v);
	if (h == NULL)
	{
		if (v->unsealed++ == 0)
			v->unsealed_since = recorded;
		return true;
	}
	if (id == h->head.first_id && !head_follows(v, &h->head))
		return false;
	if (id < h->head.last_id)
		return h->head.first_id <= id || head_follows(v, &h->head);
	if (!head_follows(v, &h->head))
		return false;
	if (!h->good)
		return bad(v, "head_forged", id, "the MAC of the head of rows " INT64_FORMAT " to " INT64_FORMAT
				   " is not good", h->head.first_id, h->head.last_id);
	if (memcmp(h->head.hash, hash, OV_HASH_LEN) != 0)
		return bad(v, "rechained", h->head.first_id, "rows " INT64_FORMAT " to " INT64_FORMAT
				   " are not those that their head was made for", h->head.first_id, h->head.last_id);
	v->heads_to = v->sealed_id = id;
	memcpy(v->heads_hash, hash, OV_HASH_LEN);
	v->nheads_seen++;
	v->at++;
	return true;
}

/* Where each column is in this table; false: one is missing, or another type. */
static bool
map_columns(Verify *v, Relation rel, AttrNumber *attnum)
{
	for (int i = 0; i <= OV_AUDIT_COLUMNS; i++)
	{
		const char *name = i < OV_AUDIT_COLUMNS ? ov_audit_columns[i].name : "hash";
		Oid			type = i < OV_AUDIT_COLUMNS ? ov_audit_columns[i].type : BYTEAOID;

		attnum[i] = get_attnum(RelationGetRelid(rel), name);
		if (attnum[i] <= 0 || get_atttype(RelationGetRelid(rel), attnum[i]) != type)
			return bad(v, "damaged", v->expected, "table %s has no column %s of its type",
					   RelationGetRelationName(rel), name);
	}
	return true;
}

typedef struct Row
{
	Datum		value[OV_AUDIT_COLUMNS + 1];
	bool		null[OV_AUDIT_COLUMNS + 1];
} Row;

static bool
row_has_keys(Verify *v, const Row *r, Relation rel)
{
	return (!r->null[OV_COL_AUDIT_ID] && !r->null[OV_COL_RECORDED_AT]) ||
		bad(v, "damaged", v->expected, "table %s has a row without audit_id or recorded_at", RelationGetRelationName(rel));
}

/*
 * Rows as they lie.  Returns false when they are not in order, true when they
 * are, as far as was looked.
 */
static bool
read_as_they_lie(Verify *v, Relation rel, const AttrNumber *attnum)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan_strat(rel, v->snapshot, 0, NULL, true, false);
	MemoryContext old = MemoryContextSwitchTo(v->row);
	bool		ordered = true;

	while (v->problem == NULL && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Row			r;
		int64		id;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		for (int i = 0; i <= OV_AUDIT_COLUMNS; i++)
		{
			r.value[i] = slot->tts_values[attnum[i] - 1];
			r.null[i] = slot->tts_isnull[attnum[i] - 1];
		}
		if (!row_has_keys(v, &r, rel))
			break;
		id = DatumGetInt64(r.value[OV_COL_AUDIT_ID]);
		if (id > v->stop_id || (id < v->first_id && v->passes_over))
			continue;
		if (id < v->first_id)
			(void) bad(v, "duplicate", id, "row " INT64_FORMAT " is from before the beginning", id);
		if (id != v->expected)
		{
			ordered = false;
			break;
		}
		(void) check_row(v, r.value, r.null, r.value[OV_AUDIT_COLUMNS], r.null[OV_AUDIT_COLUMNS]);
		MemoryContextReset(v->row);
	}
	MemoryContextSwitchTo(old);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return ordered;
}

static void
read_sorted(Verify *v, Relation rel)
{
	StringInfoData sql;
	SPIPlanPtr	plan;
	Portal		portal;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < OV_AUDIT_COLUMNS; i++)
		appendStringInfo(&sql, "%s, ", quote_identifier(ov_audit_columns[i].name));
	appendStringInfo(&sql, "hash FROM ONLY %s WHERE audit_id BETWEEN " INT64_FORMAT " AND " INT64_FORMAT
					 " ORDER BY audit_id, recorded_at",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel)),
					 v->passes_over ? v->first_id : PG_INT64_MIN, v->stop_id);
	plan = SPI_prepare(sql.data, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
	PushActiveSnapshot(v->snapshot);
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	do
	{
		SPITupleTable *table;

		SPI_cursor_fetch(portal, true, FETCH);
		table = SPI_tuptable;
		for (uint64 n = 0; v->problem == NULL && n < table->numvals; n++)
		{
			Row			r;
			MemoryContext old;

			for (int i = 0; i <= OV_AUDIT_COLUMNS; i++)
				r.value[i] = SPI_getbinval(table->vals[n], table->tupdesc, i + 1, &r.null[i]);
			if (!row_has_keys(v, &r, rel))
				break;
			old = MemoryContextSwitchTo(v->row);
			(void) check_row(v, r.value, r.null, r.value[OV_AUDIT_COLUMNS], r.null[OV_AUDIT_COLUMNS]);
			MemoryContextSwitchTo(old);
			MemoryContextReset(v->row);
		}
		if (table->numvals == 0)
			break;
		SPI_freetuptable(table);
		CHECK_FOR_INTERRUPTS();
	} while (v->problem == NULL);
	SPI_cursor_close(portal);
	PopActiveSnapshot();
	SPI_freeplan(plan);
}

static void
read_table(Verify *v, Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	AttrNumber	attnum[OV_AUDIT_COLUMNS + 1];
	Verify		before = *v;
	Head	   *chunk = palloc(sizeof(Head) * HEADS_MAX);

	memcpy(chunk, v->heads, sizeof(Head) * v->nheads);
	if (rel->rd_rel->relkind != RELKIND_RELATION)
		(void) bad(v, "damaged", v->expected, "%s is no plain table", RelationGetRelationName(rel));
	else if (map_columns(v, rel, attnum) && !read_as_they_lie(v, rel, attnum))
	{
		Head	   *heads = v->heads;

		*v = before;
		memcpy(heads, chunk, sizeof(Head) * before.nheads);
		v->heads = heads;
		read_sorted(v, rel);
	}
	pfree(chunk);
	table_close(rel, NoLock);
}

/* ---- where to begin and to end ---- */

static bool
parse_head(const char *text, Given *g)
{
	char	   *end;

	errno = 0;
	g->id = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != ':' || g->id <= 0 || strlen(end + 1) != 2 * OV_HASH_LEN)
		return false;
	for (int i = 0; i < OV_HASH_LEN; i++)
	{
		unsigned int byte;

		if (!isxdigit((unsigned char) end[1 + 2 * i]) || !isxdigit((unsigned char) end[2 + 2 * i]) ||
			sscanf(end + 1 + 2 * i, "%2x", &byte) != 1)
			return false;
		g->hash[i] = (unsigned char) byte;
	}
	return g->there = true;
}

/* Begins with the head that has this row: what comes before it is not looked at. */
static void
begin_at(Verify *v, int64 id)
{
	Datum		arg = Int64GetDatum(id);

	if (ov_query(&head_over, OV_READ, &arg, NULL) == 0)
	{
		/* rows that are not sealed yet: with the last head before them */
		static OvQuery last_before = {
			"SELECT last_id + 1, last_id, hash FROM oauth_vault.audit_head WHERE last_id < $1 ORDER BY last_id DESC LIMIT 1", "l"
		};

		if (ov_query(&last_before, OV_READ, &arg, NULL) == 0)
			return;
	}
	v->first_id = v->expected = ov_int8(0, 1);
	copy_hash(v->hash, 0, 3);
	v->heads_to = v->sealed_id = v->first_id - 1;
	memcpy(v->heads_hash, v->hash, OV_HASH_LEN);
}

static void
end_at(Verify *v, int64 id)
{
	Datum		arg = Int64GetDatum(id);

	v->whole = false;
	v->stop_id = ov_query(&head_over, OV_READ, &arg, NULL) > 0 ? ov_int8(0, 2) : id;
}

/*
 * What retention has taken away: the trail begins after it.  A partition that
 * has been attached again is the beginning, if its heads are still there.
 */
static void
begin_whole(Verify *v)
{
	static OvQuery least = {"SELECT min(audit_id) FROM oauth_vault.audit", ""};
	Head		retired;
	int64		first;

	if (ov_query(&last_retired, OV_READ, NULL, NULL) == 0)
		return;
	take_heads(v, 1, &retired);
	if (!retired.good)
		(void) bad(v, "head_forged", retired.head.last_id, "the MAC of what retention says it has taken away is not good");
	v->first_id = v->expected = retired.head.last_id + 1;
	memcpy(v->hash, retired.head.hash, OV_HASH_LEN);
	v->heads_to = v->sealed_id = retired.head.last_id;
	memcpy(v->heads_hash, retired.head.hash, OV_HASH_LEN);
	(void) ov_query(&least, OV_READ, NULL, NULL);
	first = ov_int8(0, 1);
	if (!ov_null(0, 1) && first > 0 && first < v->first_id)
		begin_at(v, first);
}

static void
finish(Verify *v, bool held)
{
	Head	   *h = v->problem == NULL ? current_head(v) : NULL;

	if (h != NULL && h->head.last_id >= v->expected)
		(void) bad(v, "truncated", v->expected, "rows from " INT64_FORMAT " to " INT64_FORMAT
				   ", which a head was made for, are not there", v->expected, h->head.last_id);
	if (v->whole && v->server.there && v->server.id >= v->expected)
		(void) bad(v, "truncated", v->expected, "the server committed rows up to " INT64_FORMAT
				   ", and there are none from " INT64_FORMAT " on", v->server.id, v->expected);
	if (v->hand.there && !v->hand.met)
	{
		if (v->whole && v->hand.id >= v->expected)
			(void) bad(v, "truncated", v->expected, "the head that was given is of row " INT64_FORMAT
					   ", and there are none from " INT64_FORMAT " on", v->hand.id, v->expected);
		else
			(void) bad(v, "head_outside", v->hand.id, "the head that was given is of row " INT64_FORMAT
					   ", which is not among those looked at", v->hand.id);
	}
	if (v->whole && v->server_sealed > v->sealed_id)
		(void) bad(v, "head_missing", v->sealed_id + 1, "rows up to " INT64_FORMAT
				   " were put under heads, and those after row " INT64_FORMAT " are not there", v->server_sealed, v->sealed_id);
	if (!held && v->unsealed > 0 && v->unsealed_since < GetCurrentTimestamp() - WITHOUT_HEAD_US)
		(void) bad(v, "head_missing", v->expected - v->unsealed,
				   "rows from " INT64_FORMAT " on have been under no head for more than five minutes",
				   v->expected - v->unsealed);
}

/* A partition that has been detached: by its own heads. */
static void
verify_alone(Verify *v, Oid relid)
{
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
	int64		first,
				last;
	Datum		args[2];
	static OvQuery retired_as = {
		"SELECT first_id, last_id FROM oauth_vault.audit_head WHERE kind = 'retired' AND first_id <= $2 AND last_id >= $1"
		" ORDER BY last_id LIMIT 1", "ll"
	};

	if (SPI_execute(psprintf("SELECT min(audit_id), max(audit_id) FROM ONLY %s", table), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read table %s", table);
	if (ov_null(0, 1))
	{
		(void) bad(v, "missing", 0, "the table has no rows");
		return;
	}
	first = ov_int8(0, 1);
	last = ov_int8(0, 2);
	args[0] = Int64GetDatum(first);
	args[1] = Int64GetDatum(last);
	if (ov_query(&retired_as, OV_READ, args, NULL) > 0)
	{
		if (first != ov_int8(0, 1))
			(void) bad(v, "missing", ov_int8(0, 1), "the partition had rows from " INT64_FORMAT " on", ov_int8(0, 1));
		if (last != ov_int8(0, 2))
			(void) bad(v, "truncated", last + 1, "the partition had rows up to " INT64_FORMAT, ov_int8(0, 2));
	}
	begin_at(v, first);
	v->whole = false;
	v->stop_id = last;
	if (v->first_id != first)
		(void) bad(v, "missing", v->first_id, "the first row is " INT64_FORMAT ", and its head begins with "
				   INT64_FORMAT, first, v->first_id);
	read_table(v, relid);
}

static void
verify_trail(Verify *v, Oid trail)
{
	Relation	rel = table_open(trail, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(rel, true);
	Oid		   *oids = palloc(sizeof(Oid) * (desc->nparts + 1));
	int			n = desc->nparts;

	/* in the order of their bounds; a default partition is none of ours, and comes last */
	memcpy(oids, desc->oids, sizeof(Oid) * n);
	for (int i = 0; i < n && v->problem == NULL; i++)
		read_table(v, oids[i]);
	table_close(rel, NoLock);
}

/* The row that the range begins or ends with; false: there is none. */
static bool
range_row(OvQuery *q, TimestampTz t, int64 *id)
{
	Datum		arg = TimestampTzGetDatum(t);

	(void) ov_query(q, OV_READ, &arg, NULL);
	*id = ov_int8(0, 1);
	return !ov_null(0, 1);
}

static bool
is_ours(Oid relid)
{
	static OvQuery owned = {
		"SELECT FROM pg_catalog.pg_class WHERE oid = $1 AND relowner = 'oauth_vault_owner'::regrole", "O"
	};
	Datum		arg = ObjectIdGetDatum(relid);

	return ov_query(&owned, OV_READ, &arg, NULL) > 0;
}

Datum
ov_audit_verify(PG_FUNCTION_ARGS)
{
	static OvQuery since_row = {"SELECT min(audit_id) FROM oauth_vault.audit WHERE recorded_at >= $1", "z"};
	static OvQuery until_row = {"SELECT max(audit_id) FROM oauth_vault.audit WHERE recorded_at < $1", "z"};
	Oid			caller = GetUserId();
	OvCall		call;
	OvHome		home;
	OvEvent		event = {.event = "audit_verified", .outcome = "ok"};
	Verify	   *v;
	char	   *hand;
	Oid			trail;
	Datum		values[11];
	bool		nulls[11] = {false};
	instr_time	start,
				took;
	bool		held;
	bool		nothing = false;
	int64		id;
	Datum		row;

	ov_call_begin(&call, OV_AS_ADMIN, fcinfo, -1);
	INSTR_TIME_SET_CURRENT(start);
	v = palloc0(sizeof(Verify));
	v->row = AllocSetContextCreate(CurrentMemoryContext, "oauth_vault audit row", ALLOCSET_DEFAULT_SIZES);
	v->first_id = v->expected = 1;
	v->stop_id = PG_INT64_MAX;
	v->recorded = DT_NOBEGIN;
	v->heads = palloc(sizeof(Head) * HEADS_MAX);
	v->more = true;
	v->whole = true;
	hand = ov_arg_text(fcinfo, 2, "head", false);
	if (hand != NULL && !parse_head(hand, &v->hand))
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"head\" is not a head of the audit trail", NULL,
				 "A head is a row's audit_id, a colon and its hash in hex, as in the server log and in oauth_audit_heads.");
	trail = get_relname_relid("audit", get_namespace_oid("oauth_vault", false));
	LockRelationOid(trail, AccessShareLock);
	if (ov_home(&home))
		memcpy(v->vault_id, home.vault_id, 16);
	held = home.held;

	if (!PG_ARGISNULL(3) && PG_GETARG_OID(3) != trail)
	{
		Oid			relid = PG_GETARG_OID(3);

		if (!PG_ARGISNULL(0) || !PG_ARGISNULL(1))
			ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "a table of its own is verified as a whole", NULL,
					 "Leave out \"since\" and \"until\", or \"relation\".");
		if (get_rel_relkind(relid) != RELKIND_RELATION ||
			(pg_class_aclcheck(relid, caller, ACL_SELECT) != ACLCHECK_OK && !is_ours(relid)))
			ov_raise(ERRCODE_INSUFFICIENT_PRIVILEGE, "parameter \"relation\" is no table that you may read", NULL,
					 "Name a partition of oauth_vault.audit, attached or detached.");
		LockRelationOid(relid, AccessShareLock);
		v->snapshot = RegisterSnapshot(GetLatestSnapshot());
		verify_alone(v, relid);
	}
	else
	{
		/* before the snapshot: it has these rows, and maybe more */
		v->server.there = ov_audit_end_known(trail, &v->server.id, v->server.hash, &v->server_sealed);
		begin_whole(v);
		if (!PG_ARGISNULL(0))
		{
			v->passes_over = true;
			if (range_row(&since_row, PG_GETARG_TIMESTAMPTZ(0), &id))
				begin_at(v, id);
			else
				nothing = true;
		}
		if (!PG_ARGISNULL(1))
		{
			if (range_row(&until_row, PG_GETARG_TIMESTAMPTZ(1), &id))
				end_at(v, id);
			else
				nothing = true;
		}
		v->snapshot = RegisterSnapshot(GetLatestSnapshot());
		if (!nothing && v->problem == NULL)
			verify_trail(v, trail);
	}
	if (!nothing)
		finish(v, held);
	UnregisterSnapshot(v->snapshot);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);

	values[0] = BoolGetDatum(v->problem == NULL);
	nulls[1] = nulls[2] = nulls[3] = v->problem == NULL;
	values[1] = ov_text_datum(v->problem);
	values[2] = Int64GetDatum(v->bad_id);
	values[3] = ov_text_datum(v->explanation);
	values[4] = Int64GetDatum(v->rows);
	nulls[5] = nulls[6] = v->rows == 0;
	values[5] = Int64GetDatum(v->first_id);
	values[6] = Int64GetDatum(v->expected - 1);
	values[7] = Int64GetDatum(v->nheads_seen);
	values[8] = Int64GetDatum(v->sealed_id);
	nulls[8] = v->nheads_seen == 0;
	values[9] = Int64GetDatum(v->unsealed);
	values[10] = Float8GetDatum(INSTR_TIME_GET_DOUBLE(took) > 0 ? v->rows / INSTR_TIME_GET_DOUBLE(took) : 0);
	if (v->problem != NULL)
		event.outcome = "failed";
	event.reason = v->problem != NULL ? psprintf("%s: %s", v->problem, v->explanation) :
		psprintf("rows " INT64_FORMAT " to " INT64_FORMAT, v->first_id, v->expected - 1);
	/* what is wrong must be told even when no row can be written */
	ov_audit_note(&call, &event);
	row = ov_row(&call, fcinfo, values, nulls);
	ov_call_end(&call);
	PG_RETURN_DATUM(row);
}
