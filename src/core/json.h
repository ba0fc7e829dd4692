/*
 * json.h
 *	  Strict JSON (RFC 8259) read into an arena, and writing helpers.
 *
 * Refused: depth over the limit, duplicate keys in the objects that
 * ov_json_unique() and ov_json_no_duplicates() are asked about, NUL (raw or \u0000), invalid UTF-8, lone
 * surrogates, control characters in strings, BOM, trailing bytes.  Parsing
 * does not recurse on the C stack.
 */
#ifndef OV_JSON_H
#define OV_JSON_H

#include "arena.h"

typedef enum OvJsonType
{
	OV_JSON_NULL, OV_JSON_FALSE, OV_JSON_TRUE, OV_JSON_NUMBER,
	OV_JSON_STRING, OV_JSON_ARRAY, OV_JSON_OBJECT
} OvJsonType;

typedef struct OvJson
{
	OvJsonType	type;
	const char *key;			/* member name inside an object, else NULL */
	const char *str;			/* string: decoded; number: its text */
	size_t		len;
	struct OvJson *child;		/* first element or member, in order */
	struct OvJson *next;
	int			count;			/* elements or members */
} OvJson;

#define OV_JSON_MAX_DEPTH 16

extern OvCode ov_json_parse(OvArena *arena, const char *text, size_t len,
							const OvJson **root, OvError *err);
extern const OvJson *ov_json_get(const OvJson *object, const char *key);
/* RFC 6901 pointer, "" is the root; "/a/0/b" */
extern const OvJson *ov_json_at(const OvJson *root, const char *pointer);
/* Is none of these keys given twice in this object? (RFC 7493 section 2.3) */
extern bool ov_json_unique(const OvJson *object, const char *const *keys, int nkeys);
/* Is no key given twice in any object here?  No also for an object of more than
 * OV_JSON_MAX_MEMBERS, so that the answer stays cheap. */
#define OV_JSON_MAX_MEMBERS 256
extern bool ov_json_no_duplicates(const OvJson *v);
extern const char *ov_json_string(const OvJson *v);		/* NULL unless a string */
extern const char *ov_json_get_string(const OvJson *object, const char *key);
extern bool ov_json_is_true(const OvJson *v);
/* Integer (fraction floored), from a number or, if allowed, a digit string;
 * false for an exponent and for what does not fit. */
extern bool ov_json_int64(const OvJson *v, bool allow_string, int64_t *out);
/* RFC 7396; shares nodes with both, target may be NULL */
extern const OvJson *ov_json_merge_patch(OvArena *arena, const OvJson *target, const OvJson *patch);
extern void ov_json_quote(OvStr *out, const char *s, size_t len);	/* with quotes */
extern void ov_json_write(OvStr *out, const OvJson *v);	/* compact */

#endif							/* OV_JSON_H */
