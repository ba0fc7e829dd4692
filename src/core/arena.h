/*
 * arena.h
 *	  Memory for core code: bump allocation, freed as a whole, cleansed on free.
 *
 * Everything that may hold a secret (request bodies, responses, parsed JSON,
 * opened records) lives in an arena.  ov_arena_free() cleanses every byte
 * before returning it.  Allocation never returns NULL: running out of memory
 * sets arena->failed and hands out a shared scratch page, so callers check
 * ov_arena_failed() once at the end of a step.  A request that the scratch
 * page cannot hold aborts the process instead; a growing OvStr never does.
 */
#ifndef OV_ARENA_H
#define OV_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct OvArena OvArena;

extern OvArena *ov_arena_new(void);
extern void *ov_arena_alloc(OvArena *arena, size_t size);	/* zeroed, 16-aligned */
extern char *ov_arena_strdup(OvArena *arena, const char *s);
extern char *ov_arena_strndup(OvArena *arena, const char *s, size_t len);
extern char *ov_arena_printf(OvArena *arena, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));
extern bool ov_arena_failed(const OvArena *arena);
extern void ov_arena_free(OvArena *arena);	/* NULL is fine */

/*
 * From now on this process's arenas are in locked pages that no core dump has.
 * Before the first arena, and with one thread that uses arenas.  False, with
 * errno, if the pages could not be locked: they are used all the same.
 */
extern bool ov_arena_guard(void);
/* The same for the pages that something static is in */
extern bool ov_guard_pages(void *start, size_t len);

/* A growing string in an arena; data is always NUL-terminated. */
typedef struct OvStr
{
	OvArena    *arena;
	char	   *data;
	size_t		len;
	size_t		cap;
} OvStr;

extern void ov_str_init(OvStr *s, OvArena *arena);
extern void ov_str_add(OvStr *s, const char *data, size_t len);
extern void ov_str_puts(OvStr *s, const char *z);
extern void ov_str_putc(OvStr *s, char c);
extern void ov_str_printf(OvStr *s, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));

/* What went wrong, for people: one clean line each, never a secret. */
typedef enum OvCode
{
	OV_OK = 0,
	OV_E_NOMEM,
	OV_E_SYNTAX,				/* malformed input */
	OV_E_LIMIT,					/* over a size, depth or count limit */
	OV_E_CRYPTO,				/* OpenSSL failed */
	OV_E_AUTH,					/* a MAC, tag, commitment or signature did not match */
	OV_E_EXPIRED,
	OV_E_DENIED,				/* refused by policy (host, address, algorithm, claim) */
	OV_E_NOTFOUND,
	OV_E_IO,
	OV_E_CONFIG
} OvCode;

typedef struct OvError
{
	OvCode		code;
	char		message[256];	/* PostgreSQL style: lower case, no period */
	char		detail[512];
} OvError;

/* Fills *err (may be NULL) and returns code, so: return ov_fail(err, ...); */
extern OvCode ov_fail(OvError *err, OvCode code, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));

#endif							/* OV_ARENA_H */
