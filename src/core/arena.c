/*
 * arena.c
 *	  Bump allocation with cleansing, growing strings, error records.
 *
 * An arena is a chain of malloc'd blocks.  Nothing is freed or moved before
 * ov_arena_free(), which cleanses every block: a string that grows leaves its
 * old copy behind in the arena, where it is cleansed with the rest.
 *
 * In a process that has called ov_arena_guard() (a worker, from its start, with
 * one thread that allocates) blocks are pages of their own: locked as far as
 * the limit allows and kept out of core dumps.  Cleansed blocks of the usual
 * size are kept for the next arena, up to POOL_MAX.
 */
#include "core/arena.h"

#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK_SIZE (16 * 1024)
#define POOL_FIRST 16			/* blocks that a guarded process has from its start */
#define POOL_MAX 1024
#define ALIGN(n) (((n) + 15) & ~(size_t) 15)

typedef struct Block
{
	struct Block *next;
	size_t		size;			/* of data */
	size_t		used;
	bool		mapped;			/* else malloced, before the process was guarded */
	_Alignas(16) unsigned char data[];
} Block;

struct OvArena
{
	Block	   *blocks;
	bool		failed;
};

/* Handed out when memory is gone, so that callers need no check at each step. */
static _Thread_local _Alignas(16) unsigned char scratch[4096];

/* ---- blocks ---- */

static bool guarded;
static Block *pool;				/* of BLOCK_SIZE of data, cleansed */
static int	npool;

bool
ov_guard_pages(void *start, size_t len)
{
	uintptr_t	page = (uintptr_t) sysconf(_SC_PAGESIZE);
	uintptr_t	from = (uintptr_t) start & ~(page - 1);
	uintptr_t	to = ((uintptr_t) start + len + page - 1) & ~(page - 1);

#ifdef MADV_DONTDUMP
	(void) madvise((void *) from, to - from, MADV_DONTDUMP);
#endif
	return mlock((void *) from, to - from) == 0;
}

static size_t
mapped_size(size_t size)
{
	size_t		page = (size_t) sysconf(_SC_PAGESIZE);

	return (sizeof(Block) + size + page - 1) & ~(page - 1);
}

/* Zeroed pages; *locked says whether they can be swapped out. */
static Block *
map_block(size_t size, bool *locked)
{
	void	   *p = mmap(NULL, mapped_size(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	*locked = ov_guard_pages(p, mapped_size(size));
	((Block *) p)->size = size;
	((Block *) p)->mapped = true;
	return p;
}

static Block *
new_block(size_t size)
{
	Block	   *block = pool;
	bool		locked;

	if (guarded && size == BLOCK_SIZE && block != NULL)
	{
		pool = block->next;
		npool--;
		return block;
	}
	if (guarded)
		return map_block(size, &locked);
	block = calloc(1, sizeof(Block) + size);
	if (block != NULL)
		block->size = size;
	return block;
}

static void
free_block(Block *block)
{
	OPENSSL_cleanse(block->data, block->used);
	block->used = 0;
	if (!block->mapped)
		free(block);
	else if (block->size == BLOCK_SIZE && npool < POOL_MAX)
	{
		block->next = pool;
		pool = block;
		npool++;
	}
	else
		munmap(block, mapped_size(block->size));
}

bool
ov_arena_guard(void)
{
	bool		all = true;

	guarded = true;
	while (npool < POOL_FIRST)
	{
		bool		locked = false;
		Block	   *block = map_block(BLOCK_SIZE, &locked);

		if (block == NULL)
			return false;
		all = all && locked;
		free_block(block);
	}
	return all;
}

/* ---- arenas ---- */

OvArena *
ov_arena_new(void)
{
	OvArena    *arena = calloc(1, sizeof(OvArena));

	/* The first allocation a process cannot do without is this one. */
	if (arena == NULL)
		abort();
	return arena;
}

/* Zeroed memory, or NULL with arena->failed set */
static void *
try_alloc(OvArena *arena, size_t size)
{
	size_t		need = ALIGN(size ? size : 1);
	Block	   *block = arena->blocks;
	void	   *p;

	if (need < size || need > SIZE_MAX / 2)
		arena->failed = true;
	if (arena->failed)
		return NULL;
	if (block == NULL || block->size - block->used < need)
	{
		size_t		bytes = need > BLOCK_SIZE / 4 ? need : BLOCK_SIZE;

		block = new_block(bytes);
		if (block == NULL)
		{
			arena->failed = true;
			return NULL;
		}
		block->next = arena->blocks;
		arena->blocks = block;
	}
	p = block->data + block->used;
	block->used += need;
	return p;
}

void *
ov_arena_alloc(OvArena *arena, size_t size)
{
	void	   *p = try_alloc(arena, size);

	if (p != NULL)
		return p;
	/* A caller that asked for more than scratch holds must not overrun it. */
	if (size > sizeof(scratch))
		abort();
	memset(scratch, 0, sizeof(scratch));
	return scratch;
}

char *
ov_arena_strndup(OvArena *arena, const char *s, size_t len)
{
	char	   *copy = ov_arena_alloc(arena, len + 1);

	if (len > 0)
		memcpy(copy, s, len);
	return copy;
}

char *
ov_arena_strdup(OvArena *arena, const char *s)
{
	return s == NULL ? NULL : ov_arena_strndup(arena, s, strlen(s));
}

char *
ov_arena_printf(OvArena *arena, const char *fmt,...)
{
	va_list		args;
	int			len;
	char	   *out;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len < 0)
		return ov_arena_alloc(arena, 1);
	out = ov_arena_alloc(arena, (size_t) len + 1);
	va_start(args, fmt);
	vsnprintf(out, (size_t) len + 1, fmt, args);
	va_end(args);
	return out;
}

bool
ov_arena_failed(const OvArena *arena)
{
	return arena->failed;
}

void
ov_arena_free(OvArena *arena)
{
	Block	   *block;

	if (arena == NULL)
		return;
	block = arena->blocks;
	while (block != NULL)
	{
		Block	   *next = block->next;

		free_block(block);
		block = next;
	}
	if (arena->failed)
		OPENSSL_cleanse(scratch, sizeof(scratch));
	free(arena);
}

void
ov_str_init(OvStr *s, OvArena *arena)
{
	s->arena = arena;
	s->cap = 128;
	s->data = ov_arena_alloc(arena, s->cap);
	s->len = 0;
}

void
ov_str_add(OvStr *s, const char *data, size_t len)
{
	if (s->cap - s->len <= len)
	{
		size_t		cap = s->cap;
		char	   *bigger = NULL;

		while (cap - s->len <= len && cap <= SIZE_MAX / 4)
			cap *= 2;
		if (cap - s->len > len)
			bigger = try_alloc(s->arena, cap);
		else
			s->arena->failed = true;
		if (bigger == NULL)
		{
			/* The step has failed; keep the string valid until its end. */
			memset(scratch, 0, sizeof(scratch));
			s->data = (char *) scratch;
			s->len = 0;
			s->cap = sizeof(scratch);
			if (len >= s->cap)
				return;
		}
		else
		{
			memcpy(bigger, s->data, s->len);
			s->data = bigger;
			s->cap = cap;
		}
	}
	if (len > 0)
		memcpy(s->data + s->len, data, len);
	s->len += len;
	s->data[s->len] = '\0';
}

void
ov_str_puts(OvStr *s, const char *z)
{
	ov_str_add(s, z, strlen(z));
}

void
ov_str_putc(OvStr *s, char c)
{
	ov_str_add(s, &c, 1);
}

void
ov_str_printf(OvStr *s, const char *fmt,...)
{
	va_list		args;
	int			len;
	char	   *text;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len < 0)
		return;
	text = ov_arena_alloc(s->arena, (size_t) len + 1);
	va_start(args, fmt);
	vsnprintf(text, (size_t) len + 1, fmt, args);
	va_end(args);
	ov_str_add(s, text, (size_t) len);
}

OvCode
ov_fail(OvError *err, OvCode code, const char *fmt,...)
{
	if (err != NULL)
	{
		va_list		args;

		memset(err, 0, sizeof(*err));
		err->code = code;
		va_start(args, fmt);
		vsnprintf(err->message, sizeof(err->message), fmt, args);
		va_end(args);
	}
	return code;
}
