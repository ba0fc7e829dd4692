/*
 * test_arena.c
 *	  Arenas: alignment, zeroing, cleansing, and running out of memory.
 *
 * Linked with --wrap=calloc and --wrap=free, so that a test chooses which
 * allocation fails and sees what is given back.
 */
#include "core/arena.h"
#include "tap.h"

#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern void *__real_calloc(size_t n, size_t size);
extern void *__wrap_calloc(size_t n, size_t size);

extern void __real_free(void *p);
extern void __wrap_free(void *p);

static bool calloc_fails;
static bool watch_free;
static int	freed_blocks;
static int	freed_secrets;

static const char secret[] = "the-secret-to-look-for";

void *
__wrap_calloc(size_t n, size_t size)
{
	return calloc_fails ? NULL : __real_calloc(n, size);
}

void
__wrap_free(void *p)
{
	if (watch_free && p != NULL)
	{
		freed_blocks++;
		if (memmem(p, malloc_usable_size(p), secret, sizeof(secret) - 1) != NULL)
			freed_secrets++;
	}
	__real_free(p);
}

static void
allocations(void)
{
	OvArena    *arena = ov_arena_new();
	bool		aligned = true,
				zeroed = true,
				apart = true;
	unsigned char *before = NULL;

	for (size_t size = 0; size < 6000; size += 7)
	{
		unsigned char *p = ov_arena_alloc(arena, size);

		aligned = aligned && (uintptr_t) p % 16 == 0;
		for (size_t i = 0; i < size; i++)
			zeroed = zeroed && p[i] == 0;
		memset(p, 0xaa, size);
		apart = apart && p != before;
		before = p;
	}
	ok(aligned, "every allocation is 16-aligned");
	ok(zeroed, "every allocation is zeroed");
	ok(apart, "no allocation is handed out twice, not even one of no bytes");
	ok(ov_arena_alloc(arena, 3 * 1024 * 1024) != NULL, "an allocation larger than a block has a block of its own");
	ok(!ov_arena_failed(arena), "an arena with memory has not failed");
	ov_arena_free(arena);
	ov_arena_free(NULL);
	ok(true, "freeing no arena is fine");
}

static void
strings(void)
{
	OvArena    *arena = ov_arena_new();
	OvStr		s;
	char		block[1000];
	bool		same = true;

	is_str(ov_arena_strdup(arena, "abc"), "abc", "strdup copies");
	ok(ov_arena_strdup(arena, NULL) == NULL, "strdup of NULL is NULL");
	is_str(ov_arena_strndup(arena, "abcdef", 3), "abc", "strndup stops at its length");
	is_str(ov_arena_strndup(arena, NULL, 0), "", "strndup of nothing is an empty string");
	is_str(ov_arena_printf(arena, "%d-%s", 5, "x"), "5-x", "printf formats");
	is_int(strlen(ov_arena_printf(arena, "%20000d", 5)), 20000, "printf has no longest text");

	ov_str_init(&s, arena);
	is_str(s.data, "", "a new string is empty and terminated");
	ov_str_puts(&s, "one");
	ov_str_putc(&s, ' ');
	ov_str_printf(&s, "%s", "two");
	ov_str_add(&s, "", 0);
	is_str(s.data, "one two", "a string grows by each of its functions");
	is_int(s.len, 7, "and counts its bytes");
	memset(block, 'x', sizeof(block));
	ov_str_init(&s, arena);
	for (int i = 0; i < 300; i++)
		ov_str_add(&s, block, (size_t) i);
	for (size_t i = 0; i < s.len; i++)
		same = same && s.data[i] == 'x';
	ok(s.len == 299 * 300 / 2 && same && s.data[s.len] == '\0', "a string keeps its bytes over many growths");
	for (size_t n = 126; n < 130; n++)
	{
		ov_str_init(&s, arena);
		ov_str_add(&s, block, n);
		ok(s.len == n && s.data[n] == '\0' && s.cap > n, "%zu bytes at once leave room for the terminator", n);
	}
	ov_arena_free(arena);
}

static void
cleansing(void)
{
	OvArena    *arena = ov_arena_new();
	OvStr		s;

	ov_str_init(&s, arena);
	for (int i = 0; i < 3000; i++)
		ov_str_puts(&s, secret);
	ov_arena_strdup(arena, secret);
	watch_free = true;
	ov_arena_free(arena);
	watch_free = false;
	ok(freed_blocks > 5, "freeing an arena frees its blocks");
	is_int(freed_secrets, 0, "and not one of them still holds the secret, nor a string's old copies");
}

static void
out_of_memory(void)
{
	OvArena    *arena = ov_arena_new();
	char	   *kept = ov_arena_strdup(arena, "kept"),
			   *p;
	char		big[10000];
	OvStr		s;

	ov_str_init(&s, arena);
	ov_str_puts(&s, "text");
	calloc_fails = true;
	memset(big, 'x', sizeof(big));
	for (int i = 0; i < 20; i++)
		ov_arena_alloc(arena, 1024);
	ok(ov_arena_failed(arena), "an arena that ran out of memory says so");
	is_str(kept, "kept", "and keeps what it handed out before");
	p = ov_arena_alloc(arena, 4096);
	memset(p, 1, 4096);
	p = ov_arena_alloc(arena, 4096);
	ok(p != NULL && p[0] == 0 && p[4095] == 0, "it goes on to hand out zeroed scratch");
	for (int i = 0; i < 50; i++)
		ov_str_add(&s, big, 300);
	ok(s.len < s.cap && s.data[s.len] == '\0', "a string that grows past all memory stays a string");
	ov_str_add(&s, big, sizeof(big));
	ok(s.len < s.cap && s.data[s.len] == '\0', "also when one addition is larger than scratch");
	calloc_fails = false;
	ok(ov_arena_failed(arena), "failure is for good, also when there is memory again");
	ov_arena_free(arena);
}

/* Does a request of this size end the process, rather than hand out too little? */
static bool
aborts(size_t size)
{
	int			status = 0;
	pid_t		child = fork();

	if (child == 0)
	{
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		calloc_fails = size < SIZE_MAX / 2;
		ov_arena_alloc(ov_arena_new(), size);
		_exit(0);
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void
too_large(void)
{
	ok(aborts(SIZE_MAX), "a size that overflows when rounded up ends the process");
	ok(aborts(SIZE_MAX - 20), "a size that overflows with the block's header ends the process");
	ok(aborts(SIZE_MAX / 2 + 1), "half the address space ends the process");
}

static void
errors(void)
{
	OvError		err;
	char		text[600];

	memset(&err, 'x', sizeof(err));
	is_int(ov_fail(&err, OV_E_LIMIT, "no more than %d", 5), OV_E_LIMIT, "ov_fail returns its code");
	is_str(err.message, "no more than 5", "and formats the message");
	ok(err.code == OV_E_LIMIT && err.detail[0] == '\0', "and clears the detail");
	is_int(ov_fail(NULL, OV_E_IO, "x"), OV_E_IO, "a caller need not want the error");
	memset(text, 'y', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	ov_fail(&err, OV_E_IO, "%s", text);
	is_int(strlen(err.message), sizeof(err.message) - 1, "a long message is cut");
}

/* Is the page that p is in marked as kept out of core dumps ("dd")? */
static bool
not_dumped(const void *p)
{
	FILE	   *f = fopen("/proc/self/smaps", "r");
	char		line[512];
	bool		here = false;
	bool		found = false;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
	{
		unsigned long from,
					to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = (unsigned long) p >= from && (unsigned long) p < to;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			found = strstr(line, " dd") != NULL;
	}
	if (f != NULL)
		fclose(f);
	return found;
}

/* Comes last: the process is guarded from here on. */
static void
guarded(void)
{
	OvArena    *before = ov_arena_new();
	OvArena    *arena;
	char	   *first,
			   *again,
			   *large;

	strcpy(ov_arena_alloc(before, 64), secret);
	(void) ov_arena_guard();	/* the limit on locked memory is the machine's */
	arena = ov_arena_new();
	first = ov_arena_strdup(arena, secret);
	large = ov_arena_alloc(arena, 300 * 1024);
	memcpy(large + 200 * 1024, secret, sizeof(secret));
	ok(not_dumped(first) && not_dumped(large), "a guarded arena's pages are kept out of core dumps");
	ok(!not_dumped(before), "others are not");
	ov_arena_free(arena);
	is_int(memcmp(first, "\0\0\0\0\0\0\0\0", 8), 0, "a block that is kept has been cleansed");
	arena = ov_arena_new();
	again = ov_arena_alloc(arena, 64);
	ok(again == first && again[0] == '\0' && again[30] == '\0', "and serves the next arena, zeroed");
	for (int i = 0; i < 1000; i++)
		memset(ov_arena_alloc(arena, 4000), 'x', 4000);
	ok(!ov_arena_failed(arena), "many blocks");
	ov_arena_free(arena);
	ov_arena_free(before);
	ok(true, "a block from before is freed as it was made");
}

int
main(void)
{
	allocations();
	strings();
	cleansing();
	out_of_memory();
	too_large();
	errors();
	guarded();
	return done_testing();
}
