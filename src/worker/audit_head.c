/*
 * audit_head.c
 *	  Heads of the audit trail: a MAC over what hash the chain has reached.
 *
 * Rows are chained by a hash that anybody can compute; what nobody else can is
 * the MAC, because the audit key never leaves the key worker.  A head is made
 * after its rows have been committed, SEAL_MS later at most: rows in between
 * are in the chain and not yet under a MAC, also after a crash, and the next
 * writer seals them.  Rows never wait for a head, nor for the key worker.
 *
 * A head never reaches over a partition's end, so that a partition with its
 * heads can be verified by itself.
 *
 * Heads go to the server log from time to time: rows and heads that somebody
 * has cut off together are told by a line that he could not reach.
 *
 * No head is made in a database that is held, or has no home row: its trail
 * may be on its way in from a dump, key rows and all.
 */
#include "worker/audit_ring.h"
#include "worker/audit_trail.h"
#include "worker/shmem.h"
#include "worker/worker.h"

#include <openssl/crypto.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog.h"
#include "commands/dbcommands.h"
#include "debug_point.h"
#include "errors.h"
#include "guc.h"
#include "miscadmin.h"
#include "sql_call.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define SEAL_MS 500
#define SEAL_ROWS 4096			/* or so many: then at once */
#define RETRY_MS 3000
#define ASK_MS 2000
#define LEAVE_ASK_MS 300
#define MAX_ENDS 16
#define WRAPPED_MAX 256

static OvTrailEnd sealed;		/* up to here */
static OvTrailEnd ends[MAX_ENDS];	/* of partitions, between sealed and the trail's end */
static int	nends;
static TimestampTz unsealed_since;	/* 0: nothing is unsealed */
static TimestampTz not_before;	/* after a failure */
static bool told;				/* it has been logged */
static int64 logged_id;
static TimestampTz logged_at;

/* The audit key, as it lies in vault_key */
static struct
{
	bool		known;
	int64		id;
	unsigned char vault_id[16];
	unsigned char wrapped[WRAPPED_MAX];
	size_t		wrapped_len;
}			key;

static unsigned char ask_buf[2048];
static unsigned char reply_buf[OV_MESSAGE_MAX];

static OvQuery last_head = {
	"SELECT last_id, hash FROM oauth_vault.audit_head ORDER BY last_id DESC LIMIT 1", ""
};
static OvQuery unsealed_ends = {
	"SELECT a.audit_id, a.hash FROM oauth_vault.audit a JOIN (SELECT max(audit_id) AS audit_id, tableoid AS p"
	"  FROM oauth_vault.audit WHERE audit_id > $1 GROUP BY tableoid) e ON a.audit_id = e.audit_id AND a.tableoid = e.p"
	" ORDER BY a.audit_id LIMIT $2", "ll"
};
static OvQuery read_key = {
	"SELECT k.key_id, k.wrapped FROM oauth_vault.vault_key k WHERE k.kind = 'audit' AND k.destroyed_at IS NULL"
	" ORDER BY k.key_id DESC LIMIT 1", ""
};
static OvQuery any_head = {"SELECT FROM oauth_vault.audit_head LIMIT 1", ""};
/* Whoever looks whether all key rows are there waits for this transaction (ov_keys_settled). */
static OvQuery announce = {"LOCK TABLE oauth_vault.vault_key IN ROW EXCLUSIVE MODE", ""};
static OvQuery next_key_id = {"SELECT nextval('oauth_vault.vault_key_id')", ""};
static OvQuery insert_key = {
	"INSERT INTO oauth_vault.vault_key (key_id, kind, platform_version, platform_fingerprint, wrapped)"
	" VALUES ($1, 'audit', $2, $3, $4)", "litb"
};
static OvQuery insert_head = {
	"INSERT INTO oauth_vault.audit_head (kind, first_id, last_id, previous_hash, hash, made_at, system_identifier,"
	" timeline, database_oid, partition, key_id, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
	"tllbbzliOtlb"
};

static void
take_end(OvTrailEnd *end, uint64 row)
{
	size_t		len;
	const unsigned char *hash = ov_bytea(row, 2, &len);

	memset(end, 0, sizeof(*end));
	end->id = ov_int8(row, 1);
	if (len == OV_HASH_LEN)
		memcpy(end->hash, hash, OV_HASH_LEN);
}

void
ov_heads_read(void)
{
	Datum		args[2];
	uint64		n;

	memset(&sealed, 0, sizeof(sealed));
	nends = 0;
	key.known = false;
	unsealed_since = 0;
	not_before = 0;
	if (ov_query(&last_head, OV_READ, NULL, NULL) > 0)
		take_end(&sealed, 0);
	args[0] = Int64GetDatum(sealed.id);
	args[1] = Int64GetDatum(MAX_ENDS);
	n = ov_query(&unsealed_ends, OV_READ, args, NULL);
	/* the last of them is the trail's end itself */
	for (uint64 i = 0; i + 1 < n; i++)
		take_end(&ends[nends++], i);
	if (ov_trail_end.id > sealed.id)
		unsealed_since = GetCurrentTimestamp();
}

void
ov_heads_note_rows(void)
{
	if (unsealed_since == 0)
		unsealed_since = GetCurrentTimestamp();
}

void
ov_heads_note_partition(void)
{
	if (ov_trail_end.id <= sealed.id)
		return;
	if (nends == MAX_ENDS)
		ereport(LOG,
				(errmsg("partitions of the audit trail end before their rows could be sealed"),
				 errdetail("The key worker has not answered for a long time: a head will reach over a partition's end.")));
	else
		ends[nends++] = ov_trail_end;
}

/* ---- the key worker ---- */

/* The answer is in *reply until the next question. */
static bool
ask(OvOp op, OvMsg *m, OvMsg *reply, int timeout_ms)
{
	bool		ok;

	ov_msg_init(reply, reply_buf, sizeof(reply_buf));
	ok = ov_ask_quietly(OV_WORKER_KEY, op, m, reply, timeout_ms);
	/* the wait may have swallowed a wake-up that was meant for the loop */
	SetLatch(MyLatch);
	return ok;
}

static void
put_key(OvMsg *m)
{
	ov_msg_init(m, ask_buf, sizeof(ask_buf));
	ov_msg_put_str(m, OV_TAG_KIND, OV_KIND_AUDIT);
	ov_msg_put(m, OV_TAG_VAULT_ID, key.vault_id, 16);
	ov_msg_put_i64(m, OV_TAG_KEY_ID, key.id);
}

static bool
keep_wrapped(const void *data, size_t len)
{
	if (len == 0 || len > WRAPPED_MAX)
		return false;
	memcpy(key.wrapped, data, len);
	key.wrapped_len = len;
	return true;
}

/* In a transaction: a first audit key. */
static bool
make_key(int *platform_version)
{
	OvMsg		m,
				reply;
	const void *data;
	size_t		len;
	Datum		args[4];
	int			version;
	char	   *fingerprint;

	(void) ov_query(&announce, OV_WRITE, NULL, NULL);
	(void) ov_query(&next_key_id, OV_WRITE, NULL, NULL);
	key.id = ov_int8(0, 1);
	put_key(&m);
	if (!ask(OV_OP_KEY_NEW, &m, &reply, ASK_MS) || !ov_msg_get(&reply, OV_TAG_WRAPPED, &data, &len) ||
		!keep_wrapped(data, len))
		return false;
	version = (int) ov_msg_get_i64(&reply, OV_TAG_VERSION, 0);
	fingerprint = ov_msg_str(&reply, OV_TAG_KEY_FINGERPRINT);
	ov_reference_note(version, fingerprint);
	args[0] = Int64GetDatum(key.id);
	args[1] = Int32GetDatum(version);
	args[2] = ov_text_datum(fingerprint ? fingerprint : "");
	args[3] = ov_bytea_datum(key.wrapped, key.wrapped_len);
	(void) ov_query(&insert_key, OV_WRITE, args, NULL);
	*platform_version = version;
	return true;
}

/* The log has it too: the server may stop before the row is written. */
static void
tell_made(int platform_version)
{
	const char *event = "audit_key_created";

	ereport(LOG,
			(errmsg("made key " INT64_FORMAT ", with which the audit trail is sealed", key.id)));
	ov_trail_note(event, NULL, psprintf("{\"key_id\": " INT64_FORMAT ", \"platform_version\": %d}", key.id, platform_version));
}

/* NULL, or why there is no key to seal with. */
static const char *
find_key(void)
{
	const char *volatile problem = NULL;
	volatile bool made = false;
	int			platform_version = 0;

	PG_TRY();
	{
		OvHome		home;

		ov_xact_begin();
		if (!ov_home_row(&home) || home.held)
			problem = "";
		else if (memcpy(key.vault_id, home.vault_id, 16), ov_query(&read_key, OV_READ, NULL, NULL) > 0)
		{
			size_t		len;
			const unsigned char *wrapped = ov_bytea(0, 2, &len);

			key.id = ov_int8(0, 1);
			key.known = keep_wrapped(wrapped, len);
			if (!key.known)
				problem = "the audit key in oauth_vault.vault_key is damaged";
		}
		else if (ov_query(&any_head, OV_READ, NULL, NULL) > 0)
			problem = "there are heads in oauth_vault.audit_head, and no audit key in oauth_vault.vault_key";
		else if (make_key(&platform_version))
			made = key.known = true;
		else
			problem = "the key worker makes no audit key";
		ov_xact_commit();
	}
	PG_CATCH();
	{
		key.known = made = false;
		(void) ov_xact_fail("find the audit key");
		problem = "";
	}
	PG_END_TRY();
	if (made)
		tell_made(platform_version);
	if (problem != NULL)
		key.known = false;
	return problem;
}

static const char *
mac(const OvAuditHead *head, unsigned char out[OV_HASH_LEN], int timeout_ms)
{
	unsigned char bytes[OV_HEAD_BYTES_MAX];
	size_t		len = ov_audit_head_bytes(head, key.vault_id, bytes);
	OvMsg		m,
				reply;
	const void *data;
	size_t		n;

	if (len == 0)
		return "a head that is too long";
	put_key(&m);
	ov_msg_put(&m, OV_TAG_WRAPPED, key.wrapped, key.wrapped_len);
	ov_msg_put(&m, OV_TAG_PLAIN, bytes, len);
	if (!ask(OV_OP_MAC, &m, &reply, timeout_ms))
	{
		char	   *message = ov_msg_str(&reply, OV_TAG_MESSAGE);

		key.known = false;		/* it may have been wrapped anew */
		return message ? message : "the key worker does not answer";
	}
	if (!ov_msg_get(&reply, OV_TAG_MAC, &data, &n) || n != OV_HASH_LEN)
		return "the key worker sent no MAC";
	memcpy(out, data, OV_HASH_LEN);
	return NULL;
}

/* ---- sealing ---- */

const char *
ov_head_sign(OvAuditHead *head, unsigned char out[OV_HASH_LEN], int timeout_ms)
{
	const char *problem = key.known ? NULL : find_key();

	if (problem != NULL)
		return problem;
	head->made_at = GetCurrentTimestamp();
	head->system_identifier = (int64) GetSystemIdentifier();
	head->timeline = GetWALInsertionTimeLine();
	head->database_oid = MyDatabaseId;
	head->key_id = key.id;
	return mac(head, out, timeout_ms);
}

void
ov_head_insert(const OvAuditHead *head, const unsigned char signature[OV_HASH_LEN])
{
	Datum		args[12];
	char		nulls[13] = "            ";

	args[0] = ov_text_datum(head->kind);
	args[1] = Int64GetDatum(head->first_id);
	args[2] = Int64GetDatum(head->last_id);
	args[3] = ov_bytea_datum(head->previous, OV_HASH_LEN);
	args[4] = ov_bytea_datum(head->hash, OV_HASH_LEN);
	args[5] = TimestampTzGetDatum(head->made_at);
	args[6] = Int64GetDatum(head->system_identifier);
	args[7] = Int32GetDatum((int32) head->timeline);
	args[8] = ObjectIdGetDatum((Oid) head->database_oid);
	args[9] = ov_text_datum(head->partition);
	nulls[9] = head->partition == NULL ? 'n' : ' ';
	args[10] = Int64GetDatum(head->key_id);
	args[11] = ov_bytea_datum(signature, OV_HASH_LEN);
	(void) ov_query(&insert_head, OV_WRITE, args, nulls);
}

/* Seals the rows up to `to`.  NULL, or why not ("": told already, or nothing to tell). */
static const char *
seal(const OvTrailEnd *to, int timeout_ms)
{
	OvAuditHead head = {.kind = OV_HEAD_BATCH, .first_id = sealed.id + 1, .last_id = to->id};
	unsigned char signature[OV_HASH_LEN];
	const char *problem;

	memcpy(head.previous, sealed.hash, OV_HASH_LEN);
	memcpy(head.hash, to->hash, OV_HASH_LEN);
	problem = ov_head_sign(&head, signature, timeout_ms);
	if (problem != NULL)
		return problem;
	OV_POINT("before commit of an audit head");
	PG_TRY();
	{
		ov_xact_begin();
		ov_head_insert(&head, signature);
		HOLD_INTERRUPTS();
		ov_xact_commit();
		sealed = *to;
		ov_audit_sealed_publish(sealed.id);
		RESUME_INTERRUPTS();
	}
	PG_CATCH();
	{
		(void) ov_xact_fail("write a head of the audit trail");
		return "";
	}
	PG_END_TRY();
	OV_POINT("after commit of an audit head");
	return NULL;
}

static const char *
seal_all(int timeout_ms)
{
	const char *problem = NULL;

	while (problem == NULL && nends > 0)
	{
		if (ends[0].id > sealed.id && (problem = seal(&ends[0], timeout_ms)) != NULL)
			break;
		memmove(&ends[0], &ends[1], sizeof(ends[0]) * --nends);
	}
	if (problem == NULL && ov_trail_end.id > sealed.id)
		problem = seal(&ov_trail_end, timeout_ms);
	return problem;
}

static void
tell(void)
{
	char		hex[2 * OV_HASH_LEN + 1];

	for (int i = 0; i < OV_HASH_LEN; i++)
		snprintf(hex + 2 * i, 3, "%02x", sealed.hash[i]);
	ereport(LOG,
			(errmsg("audit trail head " INT64_FORMAT ":%s", sealed.id, hex),
			 errdetail("Sealed with key " INT64_FORMAT " in database OID %u on timeline %u.",
					   key.id, MyDatabaseId, GetWALInsertionTimeLine())));
	logged_id = sealed.id;
	logged_at = GetCurrentTimestamp();
}

/* Milliseconds from now to t, 0 if it has passed */
static long
until(TimestampTz now, TimestampTz t)
{
	return t <= now ? 0 : TimestampDifferenceMilliseconds(now, t) + 1;
}

long
ov_heads_work(TimestampTz now)
{
	long		wait_ms = 60000;

	if (unsealed_since != 0 && ov_trail_end.id > sealed.id)
	{
		TimestampTz due = TimestampTzPlusMilliseconds(unsealed_since, SEAL_MS);

		if (nends > 0 || ov_trail_end.id - sealed.id >= SEAL_ROWS || due < unsealed_since)
			due = now;
		due = Max(due, not_before);
		if (now >= due)
		{
			const char *problem = seal_all(ASK_MS);

			now = GetCurrentTimestamp();
			if (problem == NULL)
			{
				unsealed_since = 0;
				told = false;
				not_before = 0;
			}
			else
			{
				if (problem[0] != '\0' && !told)
				{
					told = true;
					ereport(LOG,
							(errmsg("could not seal the audit trail: %s", problem),
							 errhint("Rows are being written; they are put under a MAC when the key worker answers again.")));
				}
				not_before = TimestampTzPlusMilliseconds(now, RETRY_MS);
				wait_ms = RETRY_MS;
			}
		}
		else
			wait_ms = until(now, due);
	}
	if (sealed.id > logged_id && key.known)
	{
		TimestampTz due = TimestampTzPlusMilliseconds(logged_at, (int64) ov_guc_audit_log_heads * 1000);

		if (logged_at == 0 || now >= due)
			tell();
		else
			wait_ms = Min(wait_ms, until(now, due));
	}
	return wait_ms;
}

void
ov_heads_leave(void)
{
	if (ov_trail_end.id > sealed.id)
		(void) seal_all(LEAVE_ASK_MS);
	if (sealed.id > logged_id && key.known)
		tell();
}

const OvTrailEnd *
ov_heads_sealed(void)
{
	return &sealed;
}
