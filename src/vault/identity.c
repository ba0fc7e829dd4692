/*
 * identity.c
 *	  Who the session's user is: proofs, what they bind, how long.
 *
 * One binding per session.  It ends with its transaction, or, bound with
 * session => true, with DISCARD ALL; rolling back the (sub)transaction in
 * which it was made ends it; PREPARE ends it; a failed oauth_identify ends it,
 * so that a session never goes on as somebody it was before.
 *
 * Verified assertions are cached by SHA-256 until they expire; exp is looked
 * at in every call.  Single-use assertions are never cached.  An assertion
 * passed in a call stands for that call alone and never falls back.
 */
#include "vault/vault.h"

#include <openssl/crypto.h>
#include <time.h>

#include "access/xact.h"
#include "compat.h"
#include "conceal.h"
#include "core/codec.h"
#include "core/json.h"
#include "executor/execdesc.h"
#include "funcapi.h"
#include "libpq/libpq-be.h"
#include "nodes/plannodes.h"
#include "redact.h"
#include "storage/ipc.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#define CACHE_SIZE 32
#define MAX_ASSERTION 8192		/* jwt.c says so again */

typedef struct Verified
{
	bool		used;
	unsigned char digest[32];
	OvPerson	person;
	uint64		last_use;
} Verified;

static Verified cache[CACHE_SIZE];
static uint64 cache_clock;
static uint32 cache_settings;	/* generation of the settings the cache was filled under */

static OvPerson bound;
static bool is_bound;
static bool bound_to_session;
static SubTransactionId bound_in;	/* InvalidSubTransactionId: its transaction has committed */

static OvPerson for_call;		/* a role's or authenticated person, or a single-use assertion */

PG_FUNCTION_INFO_V1(ov_identify);
PG_FUNCTION_INFO_V1(ov_identify_request);
PG_FUNCTION_INFO_V1(ov_whoami);
PG_FUNCTION_INFO_V1(ov_row_visible);
PG_FUNCTION_INFO_V1(ov_session_tenant);
PG_FUNCTION_INFO_V1(ov_session_user_id);

static void
forget_person(OvPerson *p)
{
	if (p->assertion)
	{
		OPENSSL_cleanse(p->assertion, strlen(p->assertion));
		pfree(p->assertion);
	}
	if (p->actor)
		pfree(p->actor);
	if (p->issuer)
		pfree(p->issuer);
	if (p->jti)
		pfree(p->jti);
	OPENSSL_cleanse(p, sizeof(*p));
}

static char *
keep(const char *s)
{
	return s ? MemoryContextStrdup(TopMemoryContext, s) : NULL;
}

static void
copy_person(OvPerson *to, const OvPerson *from)
{
	OvPerson	copy = *from;

	copy.actor = keep(from->actor);
	copy.issuer = keep(from->issuer);
	copy.jti = keep(from->jti);
	copy.assertion = keep(from->assertion);
	forget_person(to);
	*to = copy;
}

static void
unbind(void)
{
	if (is_bound)
		forget_person(&bound);
	is_bound = false;
	bound_to_session = false;
}

void
ov_session_reset(void)
{
	unbind();
	for (int i = 0; i < CACHE_SIZE; i++)
	{
		if (cache[i].used)
			forget_person(&cache[i].person);
		memset(&cache[i], 0, sizeof(cache[i]));
	}
	forget_person(&for_call);
	ov_forget_subkeys();
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			forget_person(&for_call);
			if (is_bound && bound_to_session)
				bound_in = InvalidSubTransactionId;
			else
				unbind();
			ov_call_unwind(0);
			break;
		case XACT_EVENT_ABORT:
			forget_person(&for_call);
			if (is_bound && (!bound_to_session || bound_in != InvalidSubTransactionId))
				unbind();
			ov_call_unwind(0);
			break;
		case XACT_EVENT_PREPARE:
			forget_person(&for_call);
			unbind();
			ov_call_unwind(0);
			break;
		default:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		ov_call_unwind(GetCurrentTransactionNestLevel());
	if (!is_bound || bound_in != mine)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		bound_in = parent;
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		unbind();
}

static void
forget_at_exit(int code, Datum arg)
{
	ov_session_reset();
}

void
ov_session_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}

static void
register_exit(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(forget_at_exit, (Datum) 0);
	registered = true;
}

static bool
copy_id(char *to, const char *from)
{
	return from != NULL && strlcpy(to, from, 256) < 256;
}

/* ---- the three sources ---- */

static const OvPerson *
person_of_role(void)
{
	char	   *name = GetUserNameFromId(ov_current_call ? ov_current_call->save_user : GetUserId(), false);

	forget_person(&for_call);
	for_call.source = OV_SOURCE_ROLE;
	for_call.expires_at = for_call.good_until = PG_INT64_MAX;
	(void) copy_id(for_call.user_id, name);
	return &for_call;
}

static const OvPerson *
authenticated_person(void)
{
	const char *id = ov_authn_id();

	if (id == NULL)
		return NULL;
	forget_person(&for_call);
	for_call.source = OV_SOURCE_AUTHENTICATED;
	for_call.expires_at = for_call.good_until = PG_INT64_MAX;
	return copy_id(for_call.user_id, id) ? &for_call : NULL;
}

/* The person verified before by this assertion; or NULL, and the slot to use next. */
static const OvPerson *
search(const unsigned char digest[32], int *vacant)
{
	uint32		settings = ov_settings_generation();
	int64		now = time(NULL);
	int			slot = 0;

	if (cache_settings != settings)
	{
		/* a key or an issuer may have been withdrawn */
		for (int i = 0; i < CACHE_SIZE; i++)
			if (cache[i].used)
				forget_person(&cache[i].person);
		memset(cache, 0, sizeof(cache));
		cache_settings = settings;
	}
	for (int i = 0; i < CACHE_SIZE; i++)
	{
		/* none is kept longer than it is good for, once anybody looks */
		if (cache[i].used && cache[i].person.good_until <= now)
		{
			forget_person(&cache[i].person);
			memset(&cache[i], 0, sizeof(cache[i]));
		}
		if (!cache[i].used)
			slot = i;
		else if (CRYPTO_memcmp(cache[i].digest, digest, 32) == 0)
		{
			cache[i].last_use = ++cache_clock;
			return &cache[i].person;
		}
		else if (cache[slot].used && cache[i].last_use < cache[slot].last_use)
			slot = i;
	}
	*vacant = slot;
	return NULL;
}

static const OvPerson *
verify(const char *assertion)
{
	unsigned char digest[32];
	int			slot = 0;
	OvPerson	person = {.source = OV_SOURCE_ASSERTION};
	OvMsg	   *answer;
	uint32		settings = ov_settings_generation();
	const OvPerson *cached;
	char	   *tenant,
			   *user;

	if (strlen(assertion) > MAX_ASSERTION)
		ov_raise(ERRCODE_OV_IDENTITY_INVALID, "the assertion is not valid",
				 ov_detail("reason", "assertion is longer than 8192 bytes", NULL),
				 "Mint a smaller assertion: carry fewer claims.");
	ov_sha256(assertion, strlen(assertion), digest);
	if ((cached = search(digest, &slot)) != NULL)
		return cached;

	ov_msg_put_str(ov_request(), OV_TAG_ASSERTION, assertion);
	answer = ov_send(OV_WORKER_KEY, OV_OP_VERIFY);
	tenant = ov_msg_str(answer, OV_TAG_TENANT);
	user = ov_msg_str(answer, OV_TAG_USER);
	if (!copy_id(person.tenant, tenant ? tenant : "") || !copy_id(person.user_id, user))
		ov_raise(ERRCODE_OV_IDENTITY_INVALID, "the assertion is not valid",
				 ov_detail("reason", "sub or tenant too long", NULL),
				 "Identify people and tenants by at most 255 bytes.");
	person.actor = ov_msg_str(answer, OV_TAG_ACTOR);
	person.issuer = ov_msg_str(answer, OV_TAG_ISSUER);
	person.jti = ov_msg_str(answer, OV_TAG_JTI);
	person.assertion = unconstify(char *, assertion);
	person.expires_at = ov_msg_get_i64(answer, OV_TAG_EXPIRES, 0);
	person.good_until = ov_msg_get_i64(answer, OV_TAG_GOOD_UNTIL, 0);
	person.single_use = ov_msg_get_i64(answer, OV_TAG_SINGLE_USE, 0) != 0;
	person.settings = settings;
	ov_done_with_answer();
	register_exit();
	if (person.single_use)
	{
		copy_person(&for_call, &person);
		return &for_call;
	}
	if (cache[slot].used)
		forget_person(&cache[slot].person);
	memset(&cache[slot], 0, sizeof(cache[slot]));
	copy_person(&cache[slot].person, &person);
	memcpy(cache[slot].digest, digest, 32);
	cache[slot].last_use = ++cache_clock;
	cache[slot].used = true;
	return &cache[slot].person;
}

static void
no_identity(void)
{
	ov_raise(ERRCODE_OV_IDENTITY_REQUIRED, "no identity is established in this session",
			 ov_detail("reason", "no assertion", NULL),
			 "Call oauth_identify(assertion) in this transaction, or pass assertion => ... in the call.");
}

/*
 * The person that is bound, or an error and nobody.  Between the vault file's
 * reading and now a key or an issuer may have been withdrawn: then what was
 * verified under the settings before has to be verified again, once.  A
 * single-use assertion cannot be.
 */
static const OvPerson *
bound_person(void)
{
	if (bound.good_until <= time(NULL))
	{
		unbind();
		ov_raise(ERRCODE_OV_IDENTITY_INVALID, "the assertion has expired",
				 ov_detail("reason", "expired", NULL), "Mint a new assertion and call oauth_identify again.");
	}
	if (bound.settings == ov_settings_generation())
		return &bound;
	if (bound.single_use)
	{
		unbind();
		ov_raise(ERRCODE_OV_IDENTITY_INVALID, "the assertion was verified under settings that have changed",
				 ov_detail("reason", "vault file reloaded", NULL), "Mint a new assertion and call oauth_identify again.");
	}
	PG_TRY();
	{
		bound.settings = verify(bound.assertion)->settings;
	}
	PG_CATCH();
	{
		/* a key worker that is away says nothing about the person */
		if (geterrcode() == ERRCODE_OV_IDENTITY_INVALID)
			unbind();
		PG_RE_THROW();
	}
	PG_END_TRY();
	return &bound;
}

const OvPerson *
ov_person(const char *assertion)
{
	const OvPerson *p;

	if (assertion != NULL)
	{
		ov_secret_in_statement();
		ov_conceal_session();
	}
	switch (ov_current_settings()->source)
	{
		case OV_SOURCE_ROLE:
		case OV_SOURCE_AUTHENTICATED:
			if (assertion != NULL)
				ov_raise(ERRCODE_OV_IDENTITY_INVALID, "this vault does not take assertions",
						 ov_detail("reason", "identity source is not assertion", NULL),
						 "The identity is the role's or the connection's own: leave the parameter out.");
			p = ov_current_settings()->source == OV_SOURCE_ROLE ? person_of_role() : authenticated_person();
			if (p == NULL)
				ov_raise(ERRCODE_OV_IDENTITY_REQUIRED, "this connection was not authenticated as anybody",
						 ov_detail("reason", "no authenticated identity", NULL),
						 "Use an authentication method that proves who connects: certificate, GSSAPI, LDAP, SCRAM.");
			return p;
		case OV_SOURCE_ASSERTION:
			break;
	}
	if (assertion != NULL)
		return verify(assertion);
	if (!is_bound)
		no_identity();
	return bound_person();
}

const OvPerson *
ov_person_at_hand(const void *assertion, size_t len)
{
	const OvSettings *s = ov_settings_or_null();
	unsigned char digest[32];
	int			slot;

	if (s == NULL || s->source != OV_SOURCE_ASSERTION)
		return s == NULL || assertion != NULL ? NULL :
			s->source == OV_SOURCE_ROLE ? person_of_role() : authenticated_person();
	if (assertion == NULL)
		return is_bound && bound.good_until > time(NULL) && bound.settings == ov_settings_generation() ? &bound : NULL;
	ov_sha256(assertion, len, digest);
	return search(digest, &slot);
}

/* ---- SQL ---- */

/*
 * Is this call all that the client's own statement does, outside a transaction
 * block?  Then what it binds is gone before anything can use it.  Anything
 * more (another column, a surrounding expression, a function or DO block that
 * goes on after it) may use the identity in the same transaction, and is not
 * warned about: a warning that is sometimes wrong would be read by nobody.
 *
 * The planner's node for this call, which fmgr keeps, is looked for where such
 * a statement has it: as the one column of a SELECT, or as its FROM item.
 */
static bool
alone_in_statement(FunctionCallInfo fcinfo)
{
	Node	   *me = fcinfo->flinfo->fn_expr;
	Plan	   *plan;

	if (IsTransactionBlock() || GetCurrentTransactionNestLevel() > 1 || me == NULL ||
		ActivePortal == NULL || ActivePortal->queryDesc == NULL)
		return false;
	plan = ActivePortal->queryDesc->plannedstmt->planTree;
	if (plan == NULL)
		return false;
	if (IsA(plan, FunctionScan))
	{
		List	   *functions = ((FunctionScan *) plan)->functions;

		return list_length(functions) == 1 && ((RangeTblFunction *) linitial(functions))->funcexpr == me;
	}
	return IsA(plan, Result) && plan->lefttree == NULL && list_length(plan->targetlist) == 1 &&
		(Node *) linitial_node(TargetEntry, plan->targetlist)->expr == me;
}

static void
identify(FunctionCallInfo fcinfo, const char *assertion, bool session)
{
	const OvPerson *p;

	if (assertion == NULL)
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"assertion\" must not be null", NULL, NULL);
	if (assertion[0] == '\0')
		ov_raise(ERRCODE_INVALID_PARAMETER_VALUE, "parameter \"assertion\" must not be empty", NULL, NULL);
	p = ov_person(assertion);
	if (!session && alone_in_statement(fcinfo))
		ereport(WARNING,
				(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
				 errmsg("oauth_identify has no effect outside a transaction block"),
				 errhint("Pass session => true, or assertion => ... in each call."),
				 errhidestmt(true), errhidecontext(true)));
	copy_person(&bound, p);
	is_bound = true;
	bound_to_session = session;
	bound_in = GetCurrentSubTransactionId();
	register_exit();
}

static void
need_preload(void)
{
	if (!ov_shmem_ready())
		ov_raise(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "oauth_vault is not loaded",
				 NULL, "Add oauth_vault to \"shared_preload_libraries\" and restart the server.");
}

static void
note_refusal(int sqlstate)
{
	static const OvEvent event = {.event = "identified", .outcome = "denied"};
	OvCall		call = {.role = GetUserNameFromId(GetUserId(), true)};

	ov_audit_failure(&call, &event, sqlstate);
}

/*
 * Whatever happens, the person before is gone first.  token may be NULL; its
 * copy is cleansed on every path, and a refusal is audited.
 */
static void
identify_and_cleanse(FunctionCallInfo fcinfo, char *token, bool session)
{
	PG_TRY();
	{
		identify(fcinfo, token, session);
	}
	PG_CATCH();
	{
		if (token != NULL)
			OPENSSL_cleanse(token, strlen(token));
		note_refusal(geterrcode());
		PG_RE_THROW();
	}
	PG_END_TRY();
	OPENSSL_cleanse(token, strlen(token));
}

/*
 * A security-restricted operation runs somebody's index expression or view
 * inside another's maintenance command: it must not decide who that is.
 */
static void
may_bind(void)
{
	need_preload();
	if (InSecurityRestrictedOperation() || IsInParallelMode())
	{
		note_refusal(ERRCODE_INSUFFICIENT_PRIVILEGE);
		ov_raise(ERRCODE_INSUFFICIENT_PRIVILEGE,
				 "an identity cannot be bound inside a security-restricted or parallel operation", NULL, NULL);
	}
}

Datum
ov_identify(PG_FUNCTION_ARGS)
{
	may_bind();
	unbind();
	if (PG_ARGISNULL(1))
		ov_raise(ERRCODE_NULL_VALUE_NOT_ALLOWED, "parameter \"session\" must not be null", NULL, NULL);
	identify_and_cleanse(fcinfo, PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}

/*
 * PostgREST and Supabase put the request's headers into a setting, as JSON.
 * Only a proof is taken from it: a setting can be forged, a signature not.
 */
Datum
ov_identify_request(PG_FUNCTION_ARGS)
{
	const char *headers = GetConfigOption("request.headers", true, false);
	OvArena    *arena;
	const OvJson *json;
	const char *value = NULL;
	char	   *token = NULL;

	may_bind();
	unbind();
	arena = ov_arena_new();
	if (headers != NULL && ov_json_parse(arena, headers, strlen(headers), &json, NULL) == OV_OK)
		value = ov_json_get_string(json, "authorization");
	if (value != NULL && pg_strncasecmp(value, "bearer ", 7) == 0)
		token = MemoryContextAllocExtended(CurrentMemoryContext, strlen(value + 7) + 1, MCXT_ALLOC_NO_OOM);
	if (token != NULL)
		memcpy(token, value + 7, strlen(value + 7) + 1);
	ov_arena_free(arena);
	if (token == NULL)
	{
		note_refusal(ERRCODE_OV_IDENTITY_REQUIRED);
		ov_raise(ERRCODE_OV_IDENTITY_REQUIRED, "the request carries no bearer token",
				 ov_detail("reason", "no authorization header in request.headers", NULL),
				 "The caller must send Authorization: Bearer <assertion>.");
	}
	identify_and_cleanse(fcinfo, token, false);
	PG_RETURN_VOID();
}

static Datum
whoami(OvCall *call, FunctionCallInfo fcinfo, OvEvent *event)
{
	static OvQuery prompts = {
		"SELECT count(*) FROM oauth_vault.oauth_reauth_prompts WHERE who_must_act = 'person'", ""
	};
	static const char *const sources[] = {"assertion", "authenticated", "role"};
	const OvPerson *p = call->person;
	Datum		values[6];
	bool		nulls[6] = {false};

	(void) ov_query(&prompts, OV_READ, NULL, NULL);
	values[0] = ov_text_datum(p->tenant);
	values[1] = ov_text_datum(p->user_id);
	nulls[2] = p->actor == NULL;
	values[2] = ov_jsonb_datum(p->actor);
	values[3] = ov_text_datum(sources[p->source]);
	values[4] = TimestampTzGetDatum(ov_unix_to_timestamp(p->expires_at));
	values[5] = Int32GetDatum((int32) ov_int8(0, 1));
	return ov_row(call, fcinfo, values, nulls);
}

Datum
ov_whoami(PG_FUNCTION_ARGS)
{
	return ov_person_call(fcinfo, "identified", 0, whoami);
}

/*
 * Policy of row security: does this row belong to the session's user?  Never
 * raises, because it runs for every row of anybody's query: without identity
 * there are simply no rows.  Inside a call the call's own identity counts.
 */
static const OvPerson *
visible_person(void)
{
	const OvSettings *s;

	/* Somebody's index expression inside another's maintenance command sees nobody's rows. */
	if (InSecurityRestrictedOperation())
		return NULL;
	if (ov_current_call != NULL)
		return ov_current_call->person;
	if ((s = ov_settings_or_null()) == NULL)
		return NULL;
	switch (s->source)
	{
		case OV_SOURCE_ROLE:
			return person_of_role();
		case OV_SOURCE_AUTHENTICATED:
			return authenticated_person();
		case OV_SOURCE_ASSERTION:
			break;
	}
	return is_bound && bound.good_until > time(NULL) && bound.settings == ov_settings_generation() ? &bound : NULL;
}

Datum
ov_row_visible(PG_FUNCTION_ARGS)
{
	const OvPerson *p;
	text	   *tenant,
			   *user;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || !ov_shmem_ready() || (p = visible_person()) == NULL)
		PG_RETURN_BOOL(false);
	tenant = PG_GETARG_TEXT_PP(0);
	user = PG_GETARG_TEXT_PP(1);
	PG_RETURN_BOOL(VARSIZE_ANY_EXHDR(tenant) == strlen(p->tenant) &&
				   memcmp(VARDATA_ANY(tenant), p->tenant, strlen(p->tenant)) == 0 &&
				   VARSIZE_ANY_EXHDR(user) == strlen(p->user_id) &&
				   memcmp(VARDATA_ANY(user), p->user_id, strlen(p->user_id)) == 0);
}

/*
 * The same person as a value, so that the views' filters can use an index.
 * Without identity NULL and so no rows; but a server that could not know
 * anybody says so.
 */
static const OvPerson *
known_person(void)
{
	need_preload();
	if (ov_current_settings()->source == OV_SOURCE_ASSERTION && ov_current_call == NULL && is_bound &&
		!InSecurityRestrictedOperation() &&
		bound.good_until > time(NULL))
		return bound_person();
	return visible_person();
}

Datum
ov_session_tenant(PG_FUNCTION_ARGS)
{
	const OvPerson *p = known_person();

	if (p == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(ov_text_datum(p->tenant));
}

Datum
ov_session_user_id(PG_FUNCTION_ARGS)
{
	const OvPerson *p = known_person();

	if (p == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(ov_text_datum(p->user_id));
}
