/*
 * audit.c
 *	  A session's audit rows: who, for whom, from where.
 *
 * Rows are built here and committed by the audit writer, so that the caller's
 * rollback does not take them away.  With "durable" nothing is given out
 * before the commit; with "batched" rows follow within milliseconds.
 */
#include "vault/vault.h"

#include "guc.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"

/* A row is a message of its own; an actor chain may be long. */
#define ROW_MAX (32 * 1024)
#define NOTE_WAIT_MS 2000
#define NOTE_STEP_MS 20

static void
build(OvMsg *m, void *buf, size_t size, OvCall *call, const OvEvent *e)
{
	ov_msg_init(m, buf, size);
	ov_msg_put_i64(m, OV_TAG_AT, GetCurrentTimestamp());
	ov_msg_put_str(m, OV_TAG_EVENT, e->event);
	ov_msg_put_str(m, OV_TAG_OUTCOME, e->outcome);
	ov_request_person(m, call);
	if (call->person == NULL)
	{
		ov_msg_put_str(m, OV_TAG_TENANT, e->tenant);
		ov_msg_put_str(m, OV_TAG_USER, e->user_id);
	}
	ov_msg_put_str(m, OV_TAG_PURPOSE, e->purpose);
	ov_msg_put_str(m, OV_TAG_CONNECTOR, e->connector);
	if (e->connection_id)
		ov_msg_put(m, OV_TAG_CONNECTION_ID, e->connection_id, 16);
	ov_msg_put_str(m, OV_TAG_ACCOUNT, e->account);
	for (int i = 0; i < e->nscopes; i++)
		ov_msg_put_str(m, OV_TAG_SCOPE, e->scopes[i]);
	if (e->fingerprint)
		ov_msg_put(m, OV_TAG_TOKEN_FINGERPRINT, e->fingerprint, 16);
	ov_msg_put_str(m, OV_TAG_REASON, e->reason);
	ov_msg_put_str(m, OV_TAG_DETAIL_JSON, e->detail);
}

void
ov_audit(OvCall *call, const OvEvent *event)
{
	unsigned char buf[ROW_MAX];
	OvMsg		m;
	uint64		position;

#ifdef OV_BENCH_NO_AUDIT
	return;
#endif
	build(&m, buf, sizeof(buf), call, event);
	position = ov_audit_append(&m);
	if (ov_guc_audit == OV_AUDIT_DURABLE)
		ov_audit_wait(position);
}

void
ov_audit_append_event(OvCall *call, const OvEvent *event)
{
	unsigned char buf[ROW_MAX];
	OvMsg		m;

	build(&m, buf, sizeof(buf), call, event);
	(void) ov_audit_append(&m);
}

void
ov_audit_settle(void)
{
	if (ov_guc_audit == OV_AUDIT_DURABLE)
		ov_audit_wait(ov_audit_head());
}

static bool
ours(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == MAKE_SQLSTATE('O', 'V', '0', '0', '0');
}

/* Somebody may not, as against: something did not work */
static bool
refusal(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_OV_PROVIDER_UNAVAILABLE:
		case ERRCODE_OV_REFRESH_TIMEOUT:
		case ERRCODE_OV_CONNECTOR_MISCONFIGURED:
		case ERRCODE_OV_INVALID_RESPONSE:
		case ERRCODE_OV_VAULT_SEALED:
		case ERRCODE_OV_DECRYPTION_FAILED:
		case ERRCODE_OV_AUDIT_UNAVAILABLE:
		case ERRCODE_OV_QUEUE_FULL:
			return false;
	}
	return ours(sqlstate) || sqlstate == ERRCODE_INSUFFICIENT_PRIVILEGE ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION);
}

/*
 * An answer is on its way and must arrive: wait a little for room, and no
 * longer than that; then the server log has at least a line.
 */
static void
append_somehow(const OvMsg *m)
{
	for (int waited = 0; !ov_audit_try_append(m); waited += NOTE_STEP_MS)
	{
		if (waited >= NOTE_WAIT_MS || m->overflow || QueryCancelPending || ProcDiePending)
		{
			ov_audit_tell_log(m);
			return;
		}
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, NOTE_STEP_MS, PG_WAIT_EXTENSION);
	}
}

void
ov_audit_note(OvCall *call, const OvEvent *event)
{
	unsigned char buf[ROW_MAX];
	OvMsg		m;

	build(&m, buf, sizeof(buf), call, event);
	append_somehow(&m);
}

void
ov_audit_denial(OvCall *call, const OvEvent *event, int sqlstate)
{
	if (ours(sqlstate))
		ov_audit_failure(call, event, sqlstate);
}

void
ov_audit_failure(OvCall *call, const OvEvent *event, int sqlstate)
{
	unsigned char buf[ROW_MAX];
	OvMsg		m;
	OvEvent		denial = *event;

	denial.outcome = refusal(sqlstate) ? "denied" : "failed";
	denial.fingerprint = NULL;
	denial.reason = unpack_sql_state(sqlstate);
	build(&m, buf, sizeof(buf), call, &denial);
	append_somehow(&m);
}
