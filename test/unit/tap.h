/*
 * tap.h
 *	  The Test Anything Protocol for a C test: count, report, plan at the end.
 *
 * A test file includes this once, makes its claims and returns done_testing().
 * A failed claim says where it stands and, for is_int and is_str, what was got.
 */
#ifndef OV_TAP_H
#define OV_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int	tap_count;
static int	tap_failed;

#define ok(cond, ...) tap_ok((cond), __FILE__, __LINE__, __VA_ARGS__)
#define is_int(got, want, ...) tap_is_int((got), (want), __FILE__, __LINE__, __VA_ARGS__)
#define is_str(got, want, ...) tap_is_str((got), (want), __FILE__, __LINE__, __VA_ARGS__)
#define diag(...) (fputs("# ", stderr), fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))

/* "#" would start a directive, a line break would end the line */
static inline bool
tap_report(bool cond, const char *file, int line, const char *name)
{
	printf("%sok %d - ", cond ? "" : "not ", ++tap_count);
	for (; *name != '\0'; name++)
		putchar(*name == '#' || (unsigned char) *name < 0x20 ? '?' : *name);
	putchar('\n');
	fflush(stdout);
	if (!cond)
	{
		tap_failed++;
		diag("failed at %s:%d", file, line);
	}
	return cond;
}

#define TAP_NAME(name) \
	do { \
		va_list		tap_args; \
		va_start(tap_args, fmt); \
		vsnprintf(name, sizeof(name), fmt, tap_args); \
		va_end(tap_args); \
	} while (0)

static inline bool __attribute__((unused, format(printf, 4, 5)))
tap_ok(bool cond, const char *file, int line, const char *fmt,...)
{
	char		name[512];

	TAP_NAME(name);
	return tap_report(cond, file, line, name);
}

static inline bool __attribute__((unused, format(printf, 5, 6)))
tap_is_int(long long got, long long want, const char *file, int line, const char *fmt,...)
{
	char		name[512];

	TAP_NAME(name);
	if (!tap_report(got == want, file, line, name))
		diag("got %lld, wanted %lld", got, want);
	return got == want;
}

static inline bool __attribute__((unused, format(printf, 5, 6)))
tap_is_str(const char *got, const char *want, const char *file, int line, const char *fmt,...)
{
	char		name[512];
	bool		same = got == NULL || want == NULL ? got == want : strcmp(got, want) == 0;

	TAP_NAME(name);
	if (!tap_report(same, file, line, name))
		diag("got \"%s\", wanted \"%s\"", got ? got : "(null)", want ? want : "(null)");
	return same;
}

/* The plan, and what the process exits with */
static inline int
done_testing(void)
{
	printf("1..%d\n", tap_count);
	if (tap_failed > 0)
		diag("%d of %d failed", tap_failed, tap_count);
	return tap_failed == 0 && tap_count > 0 ? 0 : 1;
}

#endif							/* OV_TAP_H */
