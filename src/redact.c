/*
 * redact.c
 *	  Keeps what callers pass to our functions out of the server log.
 *
 * A log record concerns us if the running statement, or any text of the record,
 * names a function of ours that takes a secret; if the statement executes a
 * prepared one that does; or if such a function has been called in it already
 * (by a wrapper, say).  From a record that concerns us go
 *	 the statement, unless its text can hold no value (see harmless())
 *	 parameters, context, detail, hint, internal query
 *	 the message, as far as values are in it: what is logged is its format
 * Our own errors (ov_raise) keep message, detail and hint: they hold no secret.
 *
 * The client gets everything: it sent it.  As the hook's record is the one that
 * goes to the client too, a record for both is logged as a record of its own
 * and the client's left alone.
 *
 * Names are looked for as text, whatever the case, in the middle of anything:
 * quoted, qualified, in a DO block, in a comment.  An identifier with Unicode
 * escapes (U&"...") counts as one of ours.  What nobody can see in a text, a
 * name put together at run time, concerns us from our call on, not before.
 *
 * The statement's text in pg_stat_activity is replaced as well: when it has been
 * parsed and names ours, when it could not be, and when ours is called.
 *
 * Hook order: hooks installed after ours have seen the record as it was.
 */
#include "postgres.h"

#include "redact.h"

#include <ctype.h>

#include "access/parallel.h"
#include "access/xact.h"
#include "commands/prepare.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "parser/scansup.h"
#include "pgstat.h"
#include "tcop/tcopprot.h"
#include "utils/elog.h"
#include "utils/plancache.h"

#define STAND_IN "oauth_vault: a redacted record"
#define LONGEST_WORD 26			/* in a harmless text; secrets are longer */

/* Functions that take a secret, without the prefix oauth_ that all have. */
static const char *const takers[] = {
	"identify", "whoami", "begin", "complete", "callback", "fresh_token", "credential", "report_rejected",
	"revoke", "set_my_limit", "create_connector", "set_client_secret", "import_connection"
};

/* Messages of the server's own whose values are worth more than they tell. */
static const char *const plain_messages[] = {"temporary file: ", "process %d ", "no room for an audit row: "};

static emit_log_hook_type previous_log_hook;
static post_parse_analyze_hook_type previous_analyze_hook;
static ErrorData *said_instead; /* the record that a stand-in is logged for */
static const char *said_why;

static TimestampTz called_in;	/* start of the last statement that called us with a secret */
static TimestampTz hidden_in;	/* of the last one taken out of pg_stat_activity */

/* ---- reading a statement ---- */

/* request.headers: PostgREST's setting, which oauth_identify_request reads */
static bool
is_request_headers(const char *s)
{
	s += strlen("request");
	s += strspn(s, "\" \t\n\r");
	if (*s++ != '.')
		return false;
	s += strspn(s, "\" \t\n\r");
	return pg_strncasecmp(s, "headers", strlen("headers")) == 0;
}

/* What the text calls that takes a secret, or NULL */
static const char *
names_ours(const char *text)
{
	static char found[NAMEDATALEN];

	for (const char *p = text; p != NULL && *p != '\0'; p++)
	{
		if ((*p | 0x20) == 'o' && pg_strncasecmp(p, "oauth_", 6) == 0)
		{
			for (int i = 0; i < lengthof(takers); i++)
				if (pg_strncasecmp(p + 6, takers[i], strlen(takers[i])) == 0)
				{
					snprintf(found, sizeof(found), "oauth_%s", takers[i]);
					return found;
				}
		}
		else if ((*p | 0x20) == 'r' && pg_strncasecmp(p, "request", 7) == 0 && is_request_headers(p))
			return "oauth_identify_request";
		else if ((*p | 0x20) == 'u' && p[1] == '&' && p[2] == '"')
			return "oauth_vault, perhaps";
	}
	return NULL;
}

static bool
word_char(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
}

/*
 * Can the text hold no value?  So it is when all values are parameters: then it
 * is worth reading, and is logged.
 */
static bool
harmless(const char *text)
{
	int			word = 0;

	for (const char *p = text; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '"' || (p[0] == '-' && p[1] == '-') || (p[0] == '/' && p[1] == '*') ||
			(*p == '$' && !isdigit((unsigned char) p[1])))
			return false;
		word = word_char(*p) || (strchr("-+/~", *p) != NULL && word > 0) ? word + 1 : 0;
		if (word > LONGEST_WORD)
			return false;
	}
	return true;
}

/* Behind white space and comments */
static const char *
skip_space(const char *p)
{
	for (;;)
	{
		if (isspace((unsigned char) *p))
			p++;
		else if (p[0] == '-' && p[1] == '-')
			p += strcspn(p, "\n\r");
		else if (p[0] == '/' && p[1] == '*')
		{
			p = strstr(p + 2, "*/");
			if (p == NULL)
				return "";
			p += 2;
		}
		else
			return p;
	}
}

/* Behind the quoted thing that begins at p; doubled quotes are part of it */
static const char *
skip_quoted(const char *p, bool backslashes)
{
	char		quote = *p++;

	for (; *p != '\0'; p++)
	{
		if (backslashes && *p == '\\' && p[1] != '\0')
			p++;
		else if (*p == quote && p[1] == quote)
			p++;
		else if (*p == quote)
			return p + 1;
	}
	return p;
}

/* Behind a dollar-quoted string, or one character further if it is none */
static const char *
skip_dollars(const char *p)
{
	const char *tag = p + 1;
	const char *end;
	char	   *mark;

	while (word_char(*tag) && *tag != '$')
		tag++;
	if (*tag != '$' || isdigit((unsigned char) p[1]))
		return p + 1;
	mark = pnstrdup(p, tag + 1 - p);
	end = strstr(tag + 1, mark);
	end = end ? end + strlen(mark) : p + strlen(p);
	pfree(mark);
	return end;
}

/*
 * Is what follows EXECUTE a prepared statement that names ours, or one that is
 * not there to be looked at?
 */
static bool
prepared_names_ours(const char *p)
{
	PreparedStatement *prepared;
	char		name[NAMEDATALEN] = "";
	int			len = 0;

	if (*p == '"')
		for (p++; *p != '\0' && !(p[0] == '"' && p[1] != '"') && len < NAMEDATALEN - 1; p++)
		{
			if (*p == '"')
				p++;
			name[len++] = *p;
		}
	else if (word_char(*p) && !isdigit((unsigned char) *p))
	{
		const char *start = p;
		char	   *folded;

		while (word_char(*p))
			p++;
		folded = downcase_truncate_identifier(start, p - start, false);
		/* GRANT EXECUTE ON, CREATE TRIGGER ... EXECUTE FUNCTION */
		if (strcmp(folded, "on") == 0 || strcmp(folded, "function") == 0 || strcmp(folded, "procedure") == 0)
			return false;
		strlcpy(name, folded, sizeof(name));
		pfree(folded);
	}
	else
		return false;
	prepared = FetchPreparedStatement(name, false);
	return prepared == NULL || names_ours(prepared->plansource->query_string) != NULL;
}

static bool
executes_ours(const char *text)
{
	const char *p = text;
	char		before = ' ';

	while (*(p = skip_space(p)) != '\0')
	{
		const char *start = p;

		if (*p == '\'')
			p = skip_quoted(p, (before | 0x20) == 'e');
		else if (*p == '"')
			p = skip_quoted(p, false);
		else if (*p == '$')
			p = skip_dollars(p);
		else if (word_char(*p))
		{
			while (word_char(*p))
				p++;
			if (p - start == 7 && pg_strncasecmp(start, "execute", 7) == 0 && prepared_names_ours(skip_space(p)))
				return true;
		}
		else
			p++;
		before = p - start == 1 ? *start : ' ';
	}
	return false;
}

/* Is the word somewhere in it?  Cheaper than reading it. */
static bool
has_execute(const char *text)
{
	for (const char *p = text; *p != '\0'; p++)
		if ((*p | 0x20) == 'e' && pg_strncasecmp(p, "execute", 7) == 0)
			return true;
	return false;
}

/* ---- the running statement ---- */

/* Why the statement that this process works on concerns us, or NULL */
static const char *
statement_names_ours(void)
{
	const char *what;

	/* A portal's end is reported when its transaction ends, without its text. */
	if (called_in != 0 && called_in == GetCurrentStatementStartTimestamp() &&
		(debug_query_string != NULL || IsTransactionState()))
		return (what = names_ours(debug_query_string)) != NULL ? what : "oauth_vault";
	if (debug_query_string == NULL)
		return NULL;
	if ((what = names_ours(debug_query_string)) != NULL)
		return what;
	if (has_execute(debug_query_string) && executes_ours(debug_query_string))
		return "oauth_vault, prepared";
	return NULL;
}

/*
 * Others of the same role, and pg_read_all_stats, read it there.  What is
 * longer than the new text would stay in shared memory: it is overwritten first.
 */
static void
hide_activity(const char *what)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	char		text[128];
	char	   *blank;
	int			len;

	if (hidden_in == now || debug_query_string == NULL || harmless(debug_query_string) || IsParallelWorker())
		return;
	hidden_in = now;
	len = Min(strlen(debug_query_string), pgstat_track_activity_query_size);
	blank = palloc(len + 1);
	memset(blank, ' ', len);
	blank[len] = '\0';
	pgstat_report_activity(STATE_RUNNING, blank);
	pfree(blank);
	snprintf(text, sizeof(text), "<hidden: calls %s with values in its text>", what);
	pgstat_report_activity(STATE_RUNNING, text);
}

void
ov_secret_in_statement(void)
{
	const char *what = debug_query_string ? names_ours(debug_query_string) : NULL;

	called_in = GetCurrentStatementStartTimestamp();
	hide_activity(what ? what : "oauth_vault");
}

static void
analyze_hook(ParseState *pstate, Query *query, JumbleState *jumble)
{
	static TimestampTz looked_in;	/* at the text of the statement begun then: once is enough */
	const char *what;

	if (previous_analyze_hook)
		previous_analyze_hook(pstate, query, jumble);
	if (looked_in == GetCurrentStatementStartTimestamp())
		return;
	looked_in = GetCurrentStatementStartTimestamp();
	if ((what = statement_names_ours()) != NULL)
		hide_activity(what);
}

/* ---- redacting a record ---- */

static const char *
concerns_us(const ErrorData *e)
{
	const char *texts[] = {e->message, e->detail, e->detail_log, e->hint, e->context, e->internalquery};
	const char *what = statement_names_ours();

	for (int i = 0; what == NULL && i < lengthof(texts); i++)
		what = names_ours(texts[i]);
	return what;
}

static bool
raised_by_us(const ErrorData *e)
{
	const char *file = e->filename ? last_dir_separator(e->filename) : NULL;

	file = file ? file + 1 : e->filename;
	return file != NULL && e->funcname != NULL && strcmp(e->funcname, "ov_raise") == 0 && strcmp(file, "errors.c") == 0;
}

static bool
starts_with(const char *s, const char *start)
{
	return strncmp(s, start, strlen(start)) == 0;
}

/* A message without the values that were put into it */
static char *
message_without_values(const ErrorData *e, const char *what, bool statement_harmless)
{
	const char *format = e->message_id ? e->message_id : "%s";
	size_t		len = strlen(e->message);
	size_t		digits;

	if (strchr(format, '%') == NULL)
		return e->message;
	for (int i = 0; i < lengthof(plain_messages); i++)
		if (starts_with(format, plain_messages[i]))
			return e->message;
	/* log_statement and the like: the statement is all that is in it */
	if (statement_harmless && debug_query_string != NULL && e->elevel <= LOG_SERVER_ONLY &&
		len >= strlen(debug_query_string) &&
		strcmp(e->message + len - strlen(debug_query_string), debug_query_string) == 0)
		return e->message;
	digits = starts_with(e->message, "duration: ") ? strspn(e->message + 10, "0123456789.") : 0;
	if (digits > 0)
		return psprintf("duration: %.*s ms  <statement hidden: calls %s>", (int) digits, e->message + 10, what);
	if (starts_with(format, "statement: ") || starts_with(format, "execute ") || starts_with(format, "%s %s%s%s: "))
		return psprintf("statement: <hidden: calls %s>", what);
	return psprintf("%s <values hidden: the statement calls %s>", format, what);
}

static void
redact(ErrorData *e, const char *what)
{
	bool		statement_harmless = debug_query_string == NULL || harmless(debug_query_string);

	if (!statement_harmless)
		e->hide_stmt = true;
	e->hide_ctx = true;
	e->internalquery = NULL;
	e->internalpos = 0;
	if (raised_by_us(e))
		return;
	if (e->message != NULL)
		e->message = message_without_values(e, what, statement_harmless);
	e->detail = e->detail_log = e->hint = NULL;
}

static char *
copy(const char *s)
{
	return s ? pstrdup(s) : NULL;
}

/* The stand-in becomes the record it stands for, redacted. */
static void
stand_in(ErrorData *e)
{
	const ErrorData *from = said_instead;

	said_instead = NULL;
	e->elevel = from->elevel;
	e->sqlerrcode = from->sqlerrcode;
	e->message = copy(from->message);
	e->message_id = from->message_id;
	e->detail = copy(from->detail);
	e->detail_log = copy(from->detail_log);
	e->hint = copy(from->hint);
	e->filename = from->filename;
	e->lineno = from->lineno;
	e->funcname = from->funcname;
	e->cursorpos = from->cursorpos;
	e->hide_stmt = from->hide_stmt;
	redact(e, said_why);
}

static void
log_redacted(ErrorData *e, const char *what)
{
	ErrorContextCallback *callers = error_context_stack;
	int			saved_errno = errno;

	said_instead = e;
	said_why = what;
	error_context_stack = NULL;
	/* errfinish has its own copy of the level: an ERROR is not thrown from here */
	ereport(LOG_SERVER_ONLY, (errmsg_internal(STAND_IN)));
	error_context_stack = callers;
	said_instead = NULL;
	errno = saved_errno;
}

static void
log_hook(ErrorData *e)
{
	const char *what;

	if (said_instead != NULL && e->elevel == LOG_SERVER_ONLY && e->message != NULL && strcmp(e->message, STAND_IN) == 0)
		stand_in(e);
	else if ((what = concerns_us(e)) != NULL)
	{
		if (e->elevel >= WARNING)
			hide_activity(what);
		/* log_min_messages may let a FATAL pass and no LOG */
		if (e->output_to_client && e->elevel < FATAL)
		{
			e->output_to_server = false;
			log_redacted(e, what);
			return;
		}
		redact(e, what);
	}
	if (previous_log_hook)
		previous_log_hook(e);
}

void
ov_redact_install(void)
{
	previous_log_hook = emit_log_hook;
	emit_log_hook = log_hook;
	previous_analyze_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = analyze_hook;
}
