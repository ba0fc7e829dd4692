/*
 * provider_pattern.c
 *	  Patterns of rule variables: a small regular expression, always anchored.
 *
 * Literals, . for any printable character, [a-z0-9-] and [^...], groups, |,
 * ?, *, + and {m,n}; \ makes the next character literal.  Nothing else: no
 * classes by name, no back references.  Whatever a pattern says, only printable
 * ASCII matches.
 *
 * Not regcomp(): its ranges follow the process's locale, and its memory follows
 * the pattern.  A pattern here is compiled to at most MAX_PROGRAM steps and run
 * in lockstep over the value, so time is bounded by their product.
 */
#include "core/provider_internal.h"

#include <string.h>

#define MAX_PROGRAM 2048
#define MAX_NESTING 16

typedef enum Op
{
	OP_CHAR, OP_ANY, OP_CLASS, OP_SPLIT, OP_JUMP, OP_MATCH
} Op;

typedef struct Step
{
	uint8_t		op;
	char		c;
	uint16_t	x;				/* SPLIT, JUMP: target; CLASS: offset of its text */
	uint16_t	y;				/* SPLIT: other target; CLASS: length of its text */
} Step;

typedef struct Compiler
{
	const char *pattern;
	const char *p;
	Step		program[MAX_PROGRAM];
	int			n;
	int			depth;
	OvError    *err;
} Compiler;

static OvCode compile_alternatives(Compiler *c);

static OvCode
bad(Compiler *c, const char *why)
{
	return ov_fail(c->err, OV_E_SYNTAX, "invalid pattern: %s", why);
}

static OvCode
emit(Compiler *c, Op op, char ch, int x, int y)
{
	if (c->n == MAX_PROGRAM)
		return ov_fail(c->err, OV_E_LIMIT, "invalid pattern: too long");
	c->program[c->n++] = (Step) {(uint8_t) op, ch, (uint16_t) x, (uint16_t) y};
	return OV_OK;
}

static bool
printable(char c)
{
	return c >= 0x20 && c <= 0x7e;
}

/* [abc], [a-z], [^...]; a - at either end and \ before anything are literal */
static OvCode
compile_class(Compiler *c)
{
	const char *start = c->p;
	const char *q = start;

	if (*q == '^')
		q++;
	if (*q == ']')
		return bad(c, "empty class");
	while (*q != ']')
	{
		if (*q == '\\')
			q++;
		if (!printable(*q))
			return bad(c, "unterminated class");
		q++;
	}
	c->p = q + 1;
	return emit(c, OP_CLASS, 0, (int) (start - c->pattern), (int) (q - start));
}

static bool
class_matches(const char *text, int len, char v)
{
	const char *end = text + len;
	bool		negated = len > 0 && *text == '^';
	bool		found = false;

	if (negated)
		text++;
	while (text < end)
	{
		char		lo,
					hi;

		if (*text == '\\')
			text++;
		lo = hi = *text++;
		if (end - text >= 2 && *text == '-')
		{
			text++;
			if (*text == '\\')
				text++;
			hi = *text++;
		}
		if (v >= lo && v <= hi)
			found = true;
	}
	return found != negated;
}

static OvCode
compile_atom(Compiler *c)
{
	char		ch = *c->p++;
	OvCode		code;

	switch (ch)
	{
		case '.':
			return emit(c, OP_ANY, 0, 0, 0);
		case '[':
			return compile_class(c);
		case '(':
			if (++c->depth > MAX_NESTING)
				return bad(c, "nested too deeply");
			if ((code = compile_alternatives(c)) != OV_OK)
				return code;
			if (*c->p != ')')
				return bad(c, "unterminated group");
			c->p++;
			c->depth--;
			return OV_OK;
		case '\\':
			ch = *c->p;
			if (!printable(ch))
				return bad(c, "nothing after a backslash");
			/* \d and friends would silently mean a letter */
			if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9'))
				return bad(c, "only punctuation can be escaped");
			c->p++;
			return emit(c, OP_CHAR, ch, 0, 0);
		case '*':
		case '+':
		case '?':
		case '{':
		case '}':
		case ']':
		case '^':
		case '$':
			return bad(c, "misplaced operator");
		default:
			if (!printable(ch))
				return bad(c, "not printable ASCII");
			return emit(c, OP_CHAR, ch, 0, 0);
	}
}

/* {m}, {m,}, {m,n} */
static OvCode
parse_counts(Compiler *c, int *min, int *max)
{
	int			n[2] = {0, 0};
	bool		digits[2] = {false, false};
	int			i = 0;

	for (;; c->p++)
	{
		if (*c->p >= '0' && *c->p <= '9')
		{
			n[i] = n[i] * 10 + (*c->p - '0');
			digits[i] = true;
			if (n[i] > OV_MAX_VARIABLE)
				return bad(c, "repeat count over 255");
		}
		else if (*c->p == ',' && i == 0)
			i = 1;
		else
			break;
	}
	if (*c->p != '}' || !digits[0])
		return bad(c, "malformed repeat count");
	c->p++;
	*min = n[0];
	*max = i == 0 ? n[0] : digits[1] ? n[1] : -1;
	if (*max != -1 && (*max < *min || *max == 0))
		return bad(c, "malformed repeat count");
	return OV_OK;
}

/* An atom is compiled again for each time that it may stand. */
static OvCode
compile_repeated(Compiler *c)
{
	const char *atom = c->p;
	const char *after;
	int			start = c->n;
	int			min = 1,
				max = 1;
	int			splits[OV_MAX_VARIABLE];
	int			nsplits = 0;
	OvCode		code;

	if ((code = compile_atom(c)) != OV_OK)
		return code;
	switch (*c->p)
	{
		case '?':
			min = 0;
			c->p++;
			break;
		case '*':
			min = 0;
			max = -1;
			c->p++;
			break;
		case '+':
			max = -1;
			c->p++;
			break;
		case '{':
			c->p++;
			if ((code = parse_counts(c, &min, &max)) != OV_OK)
				return code;
			break;
		default:
			return OV_OK;
	}
	after = c->p;
	c->n = start;
	for (int i = 0; i < (max == -1 ? (min > 0 ? min : 1) : max); i++)
	{
		if (i >= min)
		{
			splits[nsplits++] = c->n;
			if ((code = emit(c, OP_SPLIT, 0, c->n + 1, 0)) != OV_OK)
				return code;
		}
		start = c->n;
		c->p = atom;
		if ((code = compile_atom(c)) != OV_OK)
			return code;
	}
	/* Without an upper bound the last one stands again and again. */
	if (max == -1)
		code = min > 0 ? emit(c, OP_SPLIT, 0, start, c->n + 1) : emit(c, OP_JUMP, 0, splits[0], 0);
	for (int i = 0; i < nsplits; i++)
		c->program[splits[i]].y = (uint16_t) c->n;
	c->p = after;
	return code;
}

static OvCode
compile_alternatives(Compiler *c)
{
	int			jumps[64];
	int			njumps = 0;
	OvCode		code;

	for (;;)
	{
		int			start = c->n;

		/* room for the split that a further alternative needs */
		if ((code = emit(c, OP_JUMP, 0, c->n + 1, 0)) != OV_OK)
			return code;
		while (*c->p != '\0' && *c->p != '|' && *c->p != ')')
			if ((code = compile_repeated(c)) != OV_OK)
				return code;
		if (*c->p != '|')
			break;
		c->p++;
		if (njumps == (int) (sizeof(jumps) / sizeof(jumps[0])))
			return bad(c, "too many alternatives");
		jumps[njumps++] = c->n;
		if ((code = emit(c, OP_JUMP, 0, 0, 0)) != OV_OK)
			return code;
		c->program[start] = (Step) {OP_SPLIT, 0, (uint16_t) (start + 1), (uint16_t) c->n};
	}
	for (int i = 0; i < njumps; i++)
		c->program[jumps[i]].x = (uint16_t) c->n;
	return OV_OK;
}

/* Add a step, and what it leads to without consuming anything, to a list once. */
static void
follow(const Step *program, uint16_t *list, int *n, bool *on, uint16_t *stack, int at)
{
	int			top = 0;

	stack[top++] = (uint16_t) at;
	while (top > 0)
	{
		uint16_t	i = stack[--top];

		if (on[i])
			continue;
		on[i] = true;
		if (program[i].op == OP_JUMP)
			stack[top++] = program[i].x;
		else if (program[i].op == OP_SPLIT)
		{
			stack[top++] = program[i].x;
			stack[top++] = program[i].y;
		}
		else
			list[(*n)++] = i;
	}
}

OvCode
ov_pattern_match(const char *pattern, const char *value, bool *match, OvError *err)
{
	Compiler	c = {.pattern = pattern, .p = pattern, .err = err};
	uint16_t	lists[2][MAX_PROGRAM];
	uint16_t	stack[2 * MAX_PROGRAM + 1];
	bool		on[MAX_PROGRAM];
	uint16_t   *now = lists[0],
			   *next = lists[1];
	int			n = 0;
	OvCode		code;

	*match = false;
	if (*pattern == '\0')
		return bad(&c, "empty");
	if (strlen(pattern) > 1024)
		return ov_fail(err, OV_E_LIMIT, "invalid pattern: too long");
	if ((code = compile_alternatives(&c)) != OV_OK)
		return code;
	if (*c.p != '\0')
		return bad(&c, "unmatched parenthesis");
	if ((code = emit(&c, OP_MATCH, 0, 0, 0)) != OV_OK)
		return code;
	if (value == NULL)
		return OV_OK;			/* only the pattern was in question */

	memset(on, 0, sizeof(on));
	follow(c.program, now, &n, on, stack, 0);
	for (; *value != '\0'; value++)
	{
		int			m = 0;
		uint16_t   *swap;

		if (!printable(*value))
			return OV_OK;
		memset(on, 0, sizeof(on));
		for (int i = 0; i < n; i++)
		{
			const Step *s = &c.program[now[i]];

			if (s->op == OP_ANY || (s->op == OP_CHAR && s->c == *value) ||
				(s->op == OP_CLASS && class_matches(pattern + s->x, s->y, *value)))
				follow(c.program, next, &m, on, stack, now[i] + 1);
		}
		swap = now;
		now = next;
		next = swap;
		n = m;
	}
	for (int i = 0; i < n; i++)
		if (c.program[now[i]].op == OP_MATCH)
			*match = true;
	return OV_OK;
}
