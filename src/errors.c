/*
 * errors.c
 *	  See errors.h.
 */
#include "errors.h"

#include <stdarg.h>

#include "catalog/pg_type.h"
#include "core/json.h"
#include "lib/stringinfo.h"
#include "utils/datetime.h"
#include "utils/json.h"

void
ov_raise(int sqlstate, const char *message, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("%s", message),
			 detail ? errdetail("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 errhidestmt(true),
			 errhidecontext(true)));
	pg_unreachable();
}

char *
ov_msg_str(const OvMsg *m, OvTag tag)
{
	const void *data;
	size_t		len;

	return ov_msg_get(m, tag, &data, &len) ? pnstrdup(data, len) : NULL;
}

void
ov_raise_answer(const OvMsg *answer)
{
	char	   *state = ov_msg_str(answer, OV_TAG_SQLSTATE);
	char	   *message = ov_msg_str(answer, OV_TAG_MESSAGE);

	if (state == NULL || strlen(state) != 5)
		state = "XX000";
	ov_raise(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]),
			 message ? message : "a worker reported an error",
			 ov_msg_str(answer, OV_TAG_DETAIL), ov_msg_str(answer, OV_TAG_HINT));
}

/* Text of a provider's or a caller's may begin like JSON: only what is, passes. */
static bool
is_json(const char *value)
{
	OvArena    *arena;
	const OvJson *json;
	bool		ok;

	if (value[0] != '[' && value[0] != '{')
		return false;
	arena = ov_arena_new();
	ok = ov_json_parse(arena, value, strlen(value), &json, NULL) == OV_OK;
	ov_arena_free(arena);
	return ok;
}

char *
ov_detail(const char *key, const char *value,...)
{
	StringInfoData s;
	va_list		args;

	initStringInfo(&s);
	appendStringInfoChar(&s, '{');
	va_start(args, value);
	while (key != NULL)
	{
		if (value != NULL)
		{
			if (s.len > 1)
				appendStringInfoChar(&s, ',');
			escape_json(&s, key);
			appendStringInfoChar(&s, ':');
			if (is_json(value))
				appendStringInfoString(&s, value);
			else
				escape_json(&s, value);
		}
		key = va_arg(args, const char *);
		if (key != NULL)
			value = va_arg(args, const char *);
	}
	va_end(args);
	appendStringInfoChar(&s, '}');
	return s.data;
}

char *
ov_time_text(TimestampTz t)
{
	char		buf[MAXDATELEN + 1];

	/* RFC 3339: what every language's JSON reader makes a date of */
	return t == 0 ? NULL : pstrdup(JsonEncodeDateTime(buf, TimestampTzGetDatum(t), TIMESTAMPTZOID, NULL));
}
