/*
 * worker_audit.c
 *	  The network worker's audit rows: what it did, for whom, who had asked.
 *
 * A row is appended after the commit of the fact it tells and before the
 * answer, so that a caller who waits for the ring's head has it covered.  The
 * worker never waits for room: rows that find none are kept here, in order, up
 * to BACKLOG_MAX bytes, and follow.  What does not fit there either, or is left
 * when the worker ends, is told to the server log, because a fact without any
 * trace would be worse.
 */
#include "worker/network.h"

#include "errors.h"
#include "utils/memutils.h"

#define ROW_MAX (16 * 1024)
#define BACKLOG_MAX (4 * 1024 * 1024)
#define RETRY_MS 50

typedef struct Kept
{
	struct Kept *next;
	size_t		len;
	unsigned char data[FLEXIBLE_ARRAY_MEMBER];
} Kept;

static Kept *backlog;
static Kept **backlog_end = &backlog;
static size_t backlog_size;

static char *
read_field(const OvMsg *m, OvTag tag, MemoryContext context)
{
	const void *data;
	size_t		len;
	char	   *s;

	if (!ov_msg_get(m, tag, &data, &len))
		return NULL;
	s = MemoryContextAlloc(context, len + 1);
	memcpy(s, data, len);
	s[len] = '\0';
	return s;
}

OvCaller *
ov_caller_read(const OvMsg *m, MemoryContext context)
{
	OvCaller   *c = MemoryContextAllocZero(context, sizeof(OvCaller));

	c->tenant = read_field(m, OV_TAG_TENANT, context);
	c->user_id = read_field(m, OV_TAG_USER, context);
	c->actor = read_field(m, OV_TAG_ACTOR, context);
	c->jti = read_field(m, OV_TAG_JTI, context);
	c->role = read_field(m, OV_TAG_ROLE, context);
	c->session_user = read_field(m, OV_TAG_SESSION_USER, context);
	c->address = read_field(m, OV_TAG_ADDRESS, context);
	c->application = read_field(m, OV_TAG_APPLICATION, context);
	return c;
}

static char *
copy_field(const char *s, MemoryContext context)
{
	return s ? MemoryContextStrdup(context, s) : NULL;
}

OvCaller *
ov_caller_copy(const OvCaller *c, MemoryContext context)
{
	OvCaller   *copy;

	if (c == NULL)
		return NULL;
	copy = MemoryContextAllocZero(context, sizeof(OvCaller));
	copy->tenant = copy_field(c->tenant, context);
	copy->user_id = copy_field(c->user_id, context);
	copy->actor = copy_field(c->actor, context);
	copy->jti = copy_field(c->jti, context);
	copy->role = copy_field(c->role, context);
	copy->session_user = copy_field(c->session_user, context);
	copy->address = copy_field(c->address, context);
	copy->application = copy_field(c->application, context);
	return copy;
}

static void
build(OvMsg *m, const OvTrace *t)
{
	ov_msg_put_i64(m, OV_TAG_AT, GetCurrentTimestamp());
	ov_msg_put_str(m, OV_TAG_EVENT, t->event);
	ov_msg_put_str(m, OV_TAG_OUTCOME, t->outcome);
	ov_msg_put_str(m, OV_TAG_TENANT, t->tenant);
	ov_msg_put_str(m, OV_TAG_USER, t->user_id);
	if (t->caller != NULL)
	{
		ov_msg_put_str(m, OV_TAG_ACTOR, t->caller->actor);
		ov_msg_put_str(m, OV_TAG_JTI, t->caller->jti);
		ov_msg_put_str(m, OV_TAG_ROLE, t->caller->role);
		ov_msg_put_str(m, OV_TAG_SESSION_USER, t->caller->session_user);
		ov_msg_put_str(m, OV_TAG_ADDRESS, t->caller->address);
		ov_msg_put_str(m, OV_TAG_APPLICATION, t->caller->application);
	}
	else
		ov_msg_put_str(m, OV_TAG_PURPOSE, "background");
	ov_msg_put_str(m, OV_TAG_CONNECTOR, t->connector);
	if (t->connection_id != NULL)
		ov_msg_put(m, OV_TAG_CONNECTION_ID, t->connection_id, 16);
	ov_msg_put_str(m, OV_TAG_ACCOUNT, t->account);
	ov_msg_put_str(m, OV_TAG_REASON, t->reason);
	ov_msg_put_str(m, OV_TAG_DETAIL_JSON, t->detail);
	/* last: a list too long for a row is cut, the rest is whole */
	for (int i = 0; i < t->nscopes && m->cap - m->len > strlen(t->scopes[i]) + 16; i++)
		ov_msg_put_str(m, OV_TAG_SCOPE, t->scopes[i]);
}

static void
keep(const OvMsg *m)
{
	Kept	   *k = backlog_size + m->len > BACKLOG_MAX ? NULL :
		MemoryContextAllocExtended(TopMemoryContext, offsetof(Kept, data) + m->len, MCXT_ALLOC_NO_OOM);

	if (k == NULL)
	{
		ov_audit_tell_log(m);
		return;
	}
	k->next = NULL;
	k->len = m->len;
	memcpy(k->data, m->data, m->len);
	*backlog_end = k;
	backlog_end = &k->next;
	backlog_size += m->len;
	ov_tick_at(OV_TICK_TRACE, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_MS));
}

void
ov_trace(const OvTrace *t)
{
	unsigned char buf[ROW_MAX];
	OvMsg		m;

	ov_msg_init(&m, buf, sizeof(buf));
	build(&m, t);
	if (m.overflow)
		m.overflow = false;		/* what did not fit is left out */
	ov_trace_flush();
	if (backlog != NULL || !ov_audit_try_append(&m))
		keep(&m);
}

void
ov_trace_flush(void)
{
	while (backlog != NULL)
	{
		Kept	   *k = backlog;
		OvMsg		m;

		ov_msg_init(&m, k->data, k->len);
		m.len = k->len;
		if (!ov_audit_try_append(&m))
		{
			ov_tick_at(OV_TICK_TRACE, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_MS));
			return;
		}
		backlog = k->next;
		if (backlog == NULL)
			backlog_end = &backlog;
		backlog_size -= k->len;
		pfree(k);
	}
}

void
ov_trace_leave(void)
{
	ov_trace_flush();
	for (; backlog != NULL; backlog = backlog->next)
	{
		OvMsg		m;

		ov_msg_init(&m, backlog->data, backlog->len);
		m.len = backlog->len;
		ov_audit_tell_log(&m);
	}
}
