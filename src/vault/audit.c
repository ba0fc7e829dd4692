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

/* A row is a message of its own; an actor chain may be long. */
#define ROW_MAX (32 * 1024)

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
	return true;
}

void
ov_audit_denial(OvCall *call, const OvEvent *event, int sqlstate)
{
	unsigned char buf[ROW_MAX];
	OvMsg		m;
	OvEvent		denial = *event;

	if (!ours(sqlstate))
		return;
	denial.outcome = refusal(sqlstate) ? "denied" : "failed";
	denial.fingerprint = NULL;
	denial.reason = unpack_sql_state(sqlstate);
	build(&m, buf, sizeof(buf), call, &denial);
	(void) ov_audit_try_append(&m);
}
