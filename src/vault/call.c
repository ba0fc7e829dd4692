/*
 * call.c
 *	  The frame of every SQL function: checks, identity, owner's rights, SPI.
 *
 * Inside the frame the user is oauth_vault_owner, search_path is pg_catalog
 * and row_security is on, whatever the caller has set; an error anywhere
 * restores all of it through the transaction system.  ov_current_call is what
 * the row security policy looks at; transaction callbacks clear it.
 *
 * The request and answer buffers are static, one exchange at a time, cleansed
 * after each: requests by ov_ask, answers by ov_done_with_answer or the next
 * exchange.
 */
#include "vault/vault.h"

#include <openssl/crypto.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "core/json.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "guc.h"
#include "libpq/libpq-be.h"
#include "access/parallel.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

OvCall	   *ov_current_call;

static unsigned char request_buf[OV_MESSAGE_MAX];
static unsigned char answer_buf[OV_MESSAGE_MAX];
static OvMsg request;
static OvMsg reply;

/* Set by fmgr when our function runs inside another function: see identity.c */
bool
ov_in_function_call(void)
{
	return SPI_result_code_string != NULL && GetCurrentTransactionNestLevel() > 1;
}

static void
check_context(void)
{
	if (!ov_shmem_ready())
		ov_raise(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "oauth_vault is not loaded",
				 NULL, "Add oauth_vault to \"shared_preload_libraries\" and restart the server.");
	if (RecoveryInProgress())
		ov_raise(ERRCODE_READ_ONLY_SQL_TRANSACTION, "oauth_vault does not work on a standby",
				 ov_detail("reason", "recovery in progress", NULL), "Connect to the primary.");
	if (IsInParallelMode())
		ov_raise(ERRCODE_INVALID_TRANSACTION_STATE, "oauth_vault functions cannot run in a parallel operation",
				 NULL, NULL);
	if (InSecurityRestrictedOperation())
		ov_raise(ERRCODE_INSUFFICIENT_PRIVILEGE,
				 "oauth_vault functions cannot run inside a security-restricted operation", NULL, NULL);
}

void
ov_call_begin(OvCall *call, OvAccess access, FunctionCallInfo fcinfo, int assertion_arg)
{
	char	   *assertion = NULL;
	Oid			owner;
	int			context = SECURITY_LOCAL_USERID_CHANGE;

	check_context();
	memset(call, 0, sizeof(*call));
	call->caller = CurrentMemoryContext;
	call->outer = ov_current_call;
	GetUserIdAndSecContext(&call->save_user, &call->save_context);
	call->role = GetUserNameFromId(call->save_user, false);
	if (access == OV_AS_PERSON)
	{
		if (assertion_arg >= 0)
			assertion = ov_arg_text(fcinfo, assertion_arg, "assertion", false);
		if (assertion != NULL && assertion[0] == '\0')
			ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"assertion\" must not be empty", NULL, NULL);
		call->person = ov_person(assertion);
	}
	else
		context |= SECURITY_NOFORCE_RLS;

	owner = get_role_oid("oauth_vault_owner", true);
	if (!OidIsValid(owner))
		ov_raise(ERRCODE_UNDEFINED_OBJECT, "role \"oauth_vault_owner\" does not exist",
				 NULL, "Restore the role (pg_dumpall -g) or create the extension again.");
	call->save_nest = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("row_security", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(owner, call->save_context | context);
	ov_current_call = call;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
ov_call_end(OvCall *call)
{
	SPI_finish();
	ov_current_call = call->outer;
	SetUserIdAndSecContext(call->save_user, call->save_context);
	AtEOXact_GUC(true, call->save_nest);
	MemoryContextSwitchTo(call->caller);
}

/* ---- parameters ---- */

char *
ov_arg_text(FunctionCallInfo fcinfo, int n, const char *name, bool required)
{
	char	   *s;

	if (PG_ARGISNULL(n))
	{
		if (required)
			ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED,
					 psprintf("parameter \"%s\" must not be null", name), NULL, NULL);
		return NULL;
	}
	s = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (required && s[0] == '\0')
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE,
				 psprintf("parameter \"%s\" must not be empty", name), NULL, NULL);
	return s;
}

char **
ov_arg_text_array(FunctionCallInfo fcinfo, int n, const char *name, int *count)
{
	Datum	   *items;
	bool	   *nulls;
	char	  **list;

	*count = 0;
	if (PG_ARGISNULL(n))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false, TYPALIGN_INT, &items, &nulls, count);
	list = palloc0(sizeof(char *) * (*count + 1));
	for (int i = 0; i < *count; i++)
	{
		if (nulls[i])
			ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED,
					 psprintf("elements of parameter \"%s\" must not be null", name), NULL, NULL);
		list[i] = TextDatumGetCString(items[i]);
		if (list[i][0] == '\0')
			ov_raise(ERRCODE_INVALID_PARAMETER_VALUE,
					 psprintf("elements of parameter \"%s\" must not be empty", name), NULL, NULL);
	}
	return list;
}

char *
ov_arg_json_object(FunctionCallInfo fcinfo, int n, const char *name)
{
	Jsonb	   *j;

	if (PG_ARGISNULL(n))
		return pstrdup("{}");
	j = PG_GETARG_JSONB_P(n);
	if (!JB_ROOT_IS_OBJECT(j))
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE,
				 psprintf("parameter \"%s\" must be a JSON object", name), NULL, NULL);
	return JsonbToCString(NULL, &j->root, VARSIZE(j));
}

/* ---- results ---- */

Datum
ov_row(OvCall *call, FunctionCallInfo fcinfo, const Datum *values, const bool *nulls)
{
	MemoryContext old = MemoryContextSwitchTo(call->caller);
	TupleDesc	desc;
	HeapTuple	tuple;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	tuple = heap_form_tuple(BlessTupleDesc(desc), unconstify(Datum *, values), unconstify(bool *, nulls));
	MemoryContextSwitchTo(old);
	return HeapTupleGetDatum(tuple);
}

Datum
ov_copy_text(OvCall *call, const char *s)
{
	MemoryContext old = MemoryContextSwitchTo(call->caller);
	Datum		d = ov_text_datum(s);

	MemoryContextSwitchTo(old);
	return d;
}

Datum
ov_copy_array(OvCall *call, char **items, int n)
{
	MemoryContext old = MemoryContextSwitchTo(call->caller);
	Datum		d = ov_text_array_datum((const char *const *) items, n);

	MemoryContextSwitchTo(old);
	return d;
}

bool
ov_array_has(char **items, int n, const char *item)
{
	for (int i = 0; i < n; i++)
		if (strcmp(items[i], item) == 0)
			return true;
	return false;
}

char *
ov_array_json(char **items, int n)
{
	OvArena    *arena = ov_arena_new();
	OvStr		s;
	char	   *result;

	ov_str_init(&s, arena);
	ov_str_putc(&s, '[');
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			ov_str_putc(&s, ',');
		ov_json_quote(&s, items[i], strlen(items[i]));
	}
	ov_str_putc(&s, ']');
	result = pstrdup(s.data);
	ov_arena_free(arena);
	return result;
}

char *
ov_time_text(TimestampTz t)
{
	return t == 0 ? NULL : pstrdup(timestamptz_to_str(t));
}

/* ---- exchanges with workers ---- */

OvMsg *
ov_request(void)
{
	if (request.data == NULL)
		ov_msg_init(&request, request_buf, sizeof(request_buf));
	return &request;
}

void
ov_request_person(OvMsg *m, OvCall *call)
{
	if (call->person)
	{
		ov_msg_put_str(m, OV_TAG_TENANT, call->person->tenant);
		ov_msg_put_str(m, OV_TAG_USER, call->person->user_id);
		ov_msg_put_str(m, OV_TAG_ACTOR, call->person->actor);
		ov_msg_put_str(m, OV_TAG_JTI, call->person->jti);
	}
	ov_msg_put_str(m, OV_TAG_ROLE, call->role);
	ov_msg_put_str(m, OV_TAG_SESSION_USER, GetUserNameFromId(GetSessionUserId(), true));
	if (MyProcPort != NULL && MyProcPort->remote_host != NULL && strcmp(MyProcPort->remote_host, "[local]") != 0)
		ov_msg_put_str(m, OV_TAG_ADDRESS, MyProcPort->remote_host);
	ov_msg_put_str(m, OV_TAG_APPLICATION, application_name);
}

OvMsg *
ov_send(OvWorkerKind kind, OvOp op)
{
	OvMsg		sent = request;

	/* ready for the next one, however this ends */
	request.data = NULL;
	if (reply.data != NULL)
		ov_done_with_answer();
	ov_msg_init(&reply, answer_buf, sizeof(answer_buf));
	ov_ask(kind, op, &sent, &reply, kind == OV_WORKER_KEY ? 10000 : ov_guc_wait_timeout);
	return &reply;
}

void
ov_done_with_answer(void)
{
	OPENSSL_cleanse(answer_buf, reply.len);
	reply.len = 0;
}
