/*
 * call.c
 *	  The frame of every SQL function: checks, identity, owner's rights, SPI.
 *
 * Inside the frame the user is oauth_vault_owner, search_path is pg_catalog
 * (and pg_temp, named so that it comes last: a temporary type of the caller's
 * would otherwise run its checks as the owner) and row_security is on, whatever the caller has set; an error anywhere
 * restores all of it through the transaction system.  ov_current_call is what
 * the row security policy looks at; ov_call_unwind, called when a
 * (sub)transaction ends, takes away calls that an error has jumped over.
 *
 * The request and answer buffers are static, one exchange at a time, cleansed
 * after each: requests by ov_ask, answers by ov_done_with_answer, the next
 * exchange or ov_call_unwind.
 */
#include "vault/vault.h"

#include <openssl/crypto.h>

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "conceal.h"
#include "core/json.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "guc.h"
#include "common/ip.h"
#include "libpq/libpq-be.h"
#include "redact.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"

OvCall	   *ov_current_call;

static unsigned char request_buf[OV_MESSAGE_MAX];
static unsigned char answer_buf[OV_MESSAGE_MAX];
static OvMsg request;
static OvMsg reply;

/*
 * Calls in progress and the transaction nest level each began at.  An OvCall
 * is on the C stack of its function: when an error jumps over it, the abort of
 * its (sub)transaction takes it from here, before anybody can look.  More than
 * one happens only if a function of ours calls SQL that calls another.
 */
#define MAX_FRAMES 8
static struct
{
	OvCall	   *call;
	int			level;
}			frames[MAX_FRAMES];
static int	nframes;

static int	wake_level;			/* outermost nest level with something for the worker; 0: nothing */
static int	recall_level;		/* the same: subkeys are to be forgotten everywhere */

bool
ov_call_possible(void)
{
	return ov_shmem_ready() && !RecoveryInProgress() && !IsInParallelMode() && !InSecurityRestrictedOperation();
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

/* The assertion of this call, verified; its copy is cleansed whatever happens. */
static const OvPerson *
person_of(FunctionCallInfo fcinfo, int assertion_arg)
{
	char	   *assertion = NULL;
	const OvPerson *volatile person = NULL;

	if (assertion_arg < 0 || PG_ARGISNULL(assertion_arg))
		return ov_person(NULL);
	ov_secret_in_statement();
	assertion = text_to_cstring(PG_GETARG_TEXT_PP(assertion_arg));
	if (assertion[0] == '\0')
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"assertion\" must not be empty", NULL, NULL);
	PG_TRY();
	{
		person = ov_person(assertion);
	}
	PG_FINALLY();
	{
		OPENSSL_cleanse(assertion, strlen(assertion));
	}
	PG_END_TRY();
	return person;
}

const OvPerson *
ov_call_person_at_hand(FunctionCallInfo fcinfo, int assertion_arg)
{
	text	   *assertion;

	if (PG_ARGISNULL(assertion_arg))
		return ov_person_at_hand(NULL, 0);
	ov_secret_in_statement();
	assertion = PG_GETARG_TEXT_PP(assertion_arg);
	return ov_person_at_hand(VARDATA_ANY(assertion), VARSIZE_ANY_EXHDR(assertion));
}

void
ov_call_begin(OvCall *call, OvAccess access, FunctionCallInfo fcinfo, int assertion_arg)
{
	Oid			owner;
	int			context = SECURITY_LOCAL_USERID_CHANGE;

	check_context();
	memset(call, 0, sizeof(*call));
	call->subkeys_seen = ov_subkeys_check();
	call->caller = CurrentMemoryContext;
	GetUserIdAndSecContext(&call->save_user, &call->save_context);
	call->role = GetUserNameFromId(call->save_user, false);
	if (access == OV_AS_PERSON)
		call->person = person_of(fcinfo, assertion_arg);
	else
		context |= SECURITY_NOFORCE_RLS;

	owner = get_role_oid("oauth_vault_owner", true);
	if (!OidIsValid(owner))
		ov_raise(ERRCODE_UNDEFINED_OBJECT, "role \"oauth_vault_owner\" does not exist",
				 NULL, "Restore the role (pg_dumpall -g) or create the extension again.");
	if (nframes == MAX_FRAMES)
		elog(ERROR, "too many nested calls of oauth_vault functions");
	call->save_nest = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("row_security", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(owner, call->save_context | context);
	frames[nframes].call = call;
	frames[nframes++].level = GetCurrentTransactionNestLevel();
	ov_current_call = call;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
ov_call_end(OvCall *call)
{
	Assert(nframes > 0 && frames[nframes - 1].call == call);
	SPI_finish();
	nframes--;
	ov_current_call = nframes > 0 ? frames[nframes - 1].call : NULL;
	SetUserIdAndSecContext(call->save_user, call->save_context);
	AtEOXact_GUC(true, call->save_nest);
	MemoryContextSwitchTo(call->caller);
}

void
ov_call_unwind(int level)
{
	while (nframes > 0 && frames[nframes - 1].level >= level)
		nframes--;
	ov_current_call = nframes > 0 ? frames[nframes - 1].call : NULL;
	/* An error may have come between building a message and sending it. */
	if (request.data != NULL)
		OPENSSL_cleanse(request_buf, request.len);
	request.data = NULL;
	if (reply.data != NULL)
		ov_done_with_answer();
}

static Datum
whole_call(FunctionCallInfo fcinfo, OvAccess access, const char *name, int assertion_arg, OvBody body)
{
	OvCall		call = {0};
	OvEvent		event = {.event = name, .outcome = "ok"};
	volatile Datum result = (Datum) 0;

	PG_TRY();
	{
		ov_call_begin(&call, access, fcinfo, assertion_arg);
		result = body(&call, fcinfo, &event);
		ov_call_end(&call);
	}
	PG_CATCH();
	{
		if (event.event != NULL)
			ov_audit_denial(&call, &event, geterrcode());
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}

Datum
ov_person_call(FunctionCallInfo fcinfo, const char *name, int assertion_arg, OvBody body)
{
	return whole_call(fcinfo, OV_AS_PERSON, name, assertion_arg, body);
}

Datum
ov_admin_call(FunctionCallInfo fcinfo, const char *name, OvBody body)
{
	return whole_call(fcinfo, OV_AS_ADMIN, name, -1, body);
}

/* ---- decisions ---- */

#define DECIDE_ATTEMPTS 5

void
ov_decide(void (*step) (OvCall *call, void *arg), OvCall *call, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	for (int attempt = 1;; attempt++)
	{
		volatile bool done = false;

		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(context);
		PG_TRY();
		{
			step(call, arg);
			ReleaseCurrentSubTransaction();
			done = true;
		}
		PG_CATCH();
		{
			ErrorData  *error;

			MemoryContextSwitchTo(context);
			error = CopyErrorData();
			FlushErrorState();
			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(context);
			CurrentResourceOwner = owner;
			if (error->sqlerrcode != ERRCODE_T_R_SERIALIZATION_FAILURE || attempt == DECIDE_ATTEMPTS)
				ReThrowError(error);
			FreeErrorData(error);
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (done)
			return;
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * One level of each is enough to remember: what an outer level has for the
 * worker outlives whatever an inner one had.
 */
static void
act_on_commit(XactEvent event, void *arg)
{
	/* first nobody has a key any more, then the worker hears of it */
	if (event == XACT_EVENT_COMMIT && recall_level > 0)
		ov_subkeys_recall();
	if (event == XACT_EVENT_COMMIT && wake_level > 0)
		ov_worker_wake(OV_WORKER_NETWORK, MyDatabaseId);
	/* A prepared transaction is found by the worker's own clock, which also recalls. */
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wake_level = recall_level = 0;
}

static void
follow(int *level, SubXactEvent event)
{
	if (*level == 0 || *level < GetCurrentTransactionNestLevel())
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		(*level)--;
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		*level = 0;
}

static void
follow_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	follow(&wake_level, event);
	follow(&recall_level, event);
}

static void
note_level(int *noted)
{
	static bool registered = false;
	int			level = GetCurrentTransactionNestLevel();

	if (!registered)
	{
		RegisterXactCallback(act_on_commit, NULL);
		RegisterSubXactCallback(follow_subtransaction, NULL);
		registered = true;
	}
	if (*noted == 0 || level < *noted)
		*noted = level;
}

void
ov_wake_after_commit(void)
{
	note_level(&wake_level);
}

void
ov_recall_after_commit(void)
{
	note_level(&recall_level);
}

/* ---- memory for secrets ---- */

static void
free_arena(void *arena)
{
	ov_arena_free(arena);
}

OvArena *
ov_call_arena(OvCall *call)
{
	if (call->arena == NULL)
	{
		/* the context of this call's SPI: gone with SPI_finish or the abort */
		MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

		callback->func = free_arena;
		callback->arg = call->arena = ov_arena_new();
		MemoryContextRegisterResetCallback(GetMemoryChunkContext(callback), callback);
	}
	return call->arena;
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

char *
ov_arg_name(FunctionCallInfo fcinfo, int n, const char *name, bool required, int max)
{
	char	   *s = ov_arg_text(fcinfo, n, name, required);

	if (s != NULL && strlen(s) > max)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE,
				 psprintf("parameter \"%s\" must not be longer than %d bytes", name, max), NULL, NULL);
	return s;
}

char *
ov_arg_secret(OvCall *call, FunctionCallInfo fcinfo, int n, const char *name, bool required)
{
	text	   *t;
	char	   *s;

	if (PG_ARGISNULL(n))
		return ov_arg_text(fcinfo, n, name, required);
	ov_secret_in_statement();
	ov_conceal_session();
	t = PG_GETARG_TEXT_PP(n);
	s = ov_arena_strndup(ov_call_arena(call), VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
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
	if (ARR_NDIM(PG_GETARG_ARRAYTYPE_P(n)) > 1)
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE,
				 psprintf("parameter \"%s\" must be a one-dimensional array", name), NULL, NULL);
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

void
ov_put_row(FunctionCallInfo fcinfo, const Datum *values, const bool *nulls)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, unconstify(Datum *, values), unconstify(bool *, nulls));
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

/* ---- exchanges with workers ---- */

OvMsg *
ov_request(void)
{
	if (request.data == NULL)
		ov_msg_init(&request, request_buf, sizeof(request_buf));
	return &request;
}

/* Numeric, whatever log_hostname says: audit stores an address. */
static const char *
client_address(void)
{
	static char address[NI_MAXHOST];
	static bool known = false;

	if (!known && MyProcPort != NULL)
	{
		if (MyProcPort->raddr.addr.ss_family == AF_UNIX ||
			pg_getnameinfo_all(&MyProcPort->raddr.addr, MyProcPort->raddr.salen, address, sizeof(address),
							   NULL, 0, NI_NUMERICHOST) != 0)
			address[0] = '\0';
		known = true;
	}
	return address[0] ? address : NULL;
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
	ov_msg_put_str(m, OV_TAG_ADDRESS, client_address());
	ov_msg_put_str(m, OV_TAG_APPLICATION, application_name);
}

/* Takes the request, ready for the next one however this ends. */
static OvMsg
take_request(void)
{
	OvMsg		taken = request;

	request.data = NULL;
	if (reply.data != NULL)
		ov_done_with_answer();
	ov_msg_init(&reply, answer_buf, sizeof(answer_buf));
	return taken;
}

static int
patience(OvWorkerKind kind)
{
	return kind == OV_WORKER_KEY ? 10000 : ov_guc_wait_timeout;
}

OvMsg *
ov_send(OvWorkerKind kind, OvOp op)
{
	OvMsg		sent = take_request();

	ov_ask(kind, op, &sent, &reply, patience(kind));
	return &reply;
}

bool
ov_send_quietly(OvWorkerKind kind, OvOp op)
{
	OvMsg		sent = take_request();
	bool		answered = ov_ask_quietly(kind, op, &sent, &reply, patience(kind));

	ov_done_with_answer();
	return answered;
}

void
ov_post_request(OvWorkerKind kind, OvOp op)
{
	OvMsg		sent = take_request();

	(void) ov_post(kind, op, &sent);
}

void
ov_done_with_answer(void)
{
	OPENSSL_cleanse(answer_buf, Min(reply.len, sizeof(answer_buf)));
	reply.len = 0;
}
