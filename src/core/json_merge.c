/*
 * json_merge.c
 *	  JSON Merge Patch (RFC 7396).
 *
 * What did not change is shared with target and patch, which must live as long
 * as the result.  Depth is bounded by the parser, so this may recurse.
 */
#include "core/json.h"

#include <string.h>

static const OvJson *
member(const OvJson *object, const char *key)
{
	return object != NULL ? ov_json_get(object, key) : NULL;
}

static void
append(OvArena *arena, OvJson *object, OvJson **last, const OvJson *value, const char *key)
{
	OvJson	   *copy = ov_arena_alloc(arena, sizeof(OvJson));

	*copy = *value;
	copy->key = key;
	copy->next = NULL;
	if (*last == NULL)
		object->child = copy;
	else
		(*last)->next = copy;
	*last = copy;
	object->count++;
}

/* RFC 7396 section 2: null removes, objects merge, everything else replaces */
const OvJson *
ov_json_merge_patch(OvArena *arena, const OvJson *target, const OvJson *patch)
{
	OvJson	   *result;
	OvJson	   *last = NULL;

	if (patch->type != OV_JSON_OBJECT)
		return patch;
	if (target != NULL && target->type != OV_JSON_OBJECT)
		target = NULL;
	result = ov_arena_alloc(arena, sizeof(OvJson));
	result->type = OV_JSON_OBJECT;
	for (const OvJson *m = target != NULL ? target->child : NULL; m != NULL; m = m->next)
	{
		const OvJson *p = ov_json_get(patch, m->key);

		if (p == NULL)
			append(arena, result, &last, m, m->key);
		else if (p->type != OV_JSON_NULL)
			append(arena, result, &last, ov_json_merge_patch(arena, m, p), m->key);
	}
	for (const OvJson *p = patch->child; p != NULL; p = p->next)
		if (p->type != OV_JSON_NULL && member(target, p->key) == NULL)
			append(arena, result, &last, ov_json_merge_patch(arena, NULL, p), p->key);
	return result;
}
