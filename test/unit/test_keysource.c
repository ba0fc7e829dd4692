/*
 * test_keysource.c
 *	  Keys from files and from commands: what a command is given, and what
 *	  becomes of one that misbehaves.
 */
#include "core/keysource.h"
#include "tap.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEY "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"

static OvArena *arena;
static char dir[] = "/tmp/ov_unit_XXXXXX";
static char *script,
		   *trace;
static OvError err;
static unsigned char key[OV_KEY_LEN];

static void
put_file(const char *path, const char *text, mode_t mode)
{
	FILE	   *f;

	unlink(path);
	f = fopen(path, "w");
	if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0 || chmod(path, mode) != 0)
		diag("could not write %s", path);
}

static char *
slurp(const char *path)
{
	char	   *text = ov_arena_alloc(arena, 65536);
	FILE	   *f = fopen(path, "r");

	if (f == NULL)
		return text;
	text[fread(text, 1, 65535, f)] = '\0';
	fclose(f);
	return text;
}

static const OvJson *
json(const char *text)
{
	const OvJson *v = NULL;

	(void) ov_json_parse(arena, text, strlen(text), &v, NULL);
	return v;
}

static int
command_argv(const char *argv, int timeout_ms, bool (*stop) (void))
{
	memset(&err, 0, sizeof(err));
	memset(key, 0, sizeof(key));
	return ov_key_from_command(json(argv), timeout_ms, stop, key, &err);
}

/* A shell script as key command */
static int
command(const char *body, int timeout_ms)
{
	put_file(script, ov_arena_printf(arena, "#!/bin/sh\n%s\n", body), 0755);
	return command_argv(ov_arena_printf(arena, "[\"%s\", \"a b\", \"$HOME;`x`\"]", script), timeout_ms, NULL);
}

static int64_t
seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

static bool
stop_now(void)
{
	return true;
}

static bool
is_key(void)
{
	for (int i = 0; i < OV_KEY_LEN; i++)
		if (key[i] != 1)
			return false;
	return true;
}

static void
files(void)
{
	static const struct
	{
		const char *name,
				   *text;
		bool		good;
	}			cases[] = {
		{"a key", KEY, true},
		{"a key and a newline", KEY "\n", true},
		{"a key and white space", KEY " \r\n\n", true},
		{"nothing", "", false},
		{"white space", "\n", false},
		{"31 bytes", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ", false},
		{"padding", KEY "=", false},
		{"two keys", KEY "\n" KEY, false},
		{"white space before it", " " KEY, false},
	};
	char	   *path = ov_arena_printf(arena, "%s/key", dir);
	char		long_text[400];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		put_file(path, cases[i].text, 0600);
		memset(key, 0, sizeof(key));
		ok((ov_key_from_file(path, NULL, key, &err) == OV_OK) == cases[i].good && is_key() == cases[i].good,
		   "a key file with %s is %s", cases[i].name, cases[i].good ? "read" : "refused");
	}
	ok(strstr(err.message, path) != NULL && strstr(err.message, "AQEB") == NULL, "by its name, and not with what is in it");
	memset(long_text, 'A', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	put_file(path, long_text, 0600);
	is_int(ov_key_from_file(path, NULL, key, &err), OV_E_LIMIT, "one that is too long is refused");
	put_file(path, KEY, 0644);
	is_int(ov_key_from_file(path, NULL, key, &err), OV_E_CONFIG, "one that others may read is refused");
	put_file(path, KEY, 0600);
	is_int(ov_key_from_file(path, dir, key, &err), OV_E_CONFIG, "one below the data directory is refused");
	unlink(path);
	is_int(ov_key_from_file(path, NULL, key, &err), OV_E_IO, "one that is not there is an error");
}

static void
what_a_command_gets(void)
{
	char	   *seen;
	int			open_file = open("/dev/null", O_RDONLY);	/* not close-on-exec: the child must not have it */
	sigset_t	blocked;

	setenv("OV_SECRET", "environment", 1);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	signal(SIGUSR1, SIG_IGN);
	is_int(command(ov_arena_printf(arena, "{ env; pwd; printf 'args:%%s|%%s|%%s\\n' \"$#\" \"$1\" \"$2\"; ls -l /proc/self/fd; cat; "
								   "grep -E 'Sig(Blk|Ign)' /proc/self/status; } >%s; echo noise >&2; echo %s", trace, KEY), 5000), OV_OK,
		   "a command gives the key");
	ok(is_key(), "which is the one it printed");
	signal(SIGUSR1, SIG_DFL);
	sigprocmask(SIG_UNBLOCK, &blocked, NULL);
	close(open_file);
	seen = slurp(trace);
	ok(strstr(seen, "OV_SECRET") == NULL && strstr(seen, "HOME=") == NULL, "nothing of our environment");
	ok(strstr(seen, "PATH=/usr/local/bin:/usr/bin:/bin\n") != NULL, "a path");
	ok(strstr(seen, "\n/\n") != NULL, "the root as directory");
	ok(strstr(seen, "args:2|a b|$HOME;`x`\n") != NULL, "its arguments as they stand: no shell reads them");
	ok(strstr(seen, " 0 -> /dev/null") != NULL && strstr(seen, " 2 -> /dev/null") != NULL, "no input, and nobody for its errors");
	ok(strstr(seen, " 4 -> ") == NULL, "no other descriptor");
	/* glibc keeps signals 32 and 33 to itself */
	seen = strstr(seen, "SigIgn:\t");
	ok(strstr(slurp(trace), "SigBlk:\t0000000000000000") != NULL && seen != NULL && (strtoull(seen + 8, NULL, 16) & 0x7fffffff) == 0,
	   "its signals as usual");
}

/* Has this process been killed?  A signal takes its time on a busy machine. */
static bool
ends(int pid)
{
	double		until = seconds() + 20;

	if (pid <= 0)
		return false;
	while (kill(pid, 0) == 0 && strstr(slurp(ov_arena_printf(arena, "/proc/%d/status", pid)), "State:\tZ") == NULL)
	{
		if (seconds() > until)
			return false;
		sched_yield();
	}
	return true;
}

static void
misbehaving(void)
{
	int64_t		before;

	is_int(command("exit 7", 5000), OV_E_IO, "a command that fails");
	ok(strstr(err.message, "exit status 7") != NULL && strstr(err.message, script) != NULL, "is told with its status");
	is_int(command("echo " KEY "; exit 1", 5000), OV_E_IO, "one that fails after it has printed a key");
	ok(!is_key() && strstr(err.message, "AQEB") == NULL, "gives none, and shows none");
	is_int(command("kill -9 $$", 5000), OV_E_IO, "one that is killed");
	ok(strstr(err.message, "signal 9") != NULL, "is told with its signal");
	is_int(command("echo hunter2", 5000), OV_E_CONFIG, "one that prints something else");
	ok(strstr(err.message, "hunter2") == NULL, "is refused without it");
	is_int(command("true", 5000), OV_E_CONFIG, "one that prints nothing");
	is_int(command("yes", 5000), OV_E_LIMIT, "one that prints without end");
	before = seconds();
	is_int(command(ov_arena_printf(arena, "echo " KEY "; sleep 60 & echo $! >%s; sleep 60", trace), 2000), OV_E_EXPIRED, "one that does not end");
	ok(seconds() - before < 30, "is not waited for");
	ok(ends(atoi(slurp(trace))), "and its children go with it");
	is_int(command("exec >&-; sleep 60", 500), OV_E_EXPIRED, "nor is one that has closed its output");
	before = seconds();
	is_int(command_argv(ov_arena_printf(arena, "[\"%s\"]", script), 60000, stop_now), OV_E_EXPIRED, "one that we are told to leave");
	ok(seconds() - before < 5, "is left at once");
	is_int(command_argv(ov_arena_printf(arena, "[\"%s/none\"]", dir), 5000, NULL), OV_E_IO, "one that is not there");
	is_int(command_argv("[\"/etc/passwd\"]", 5000, NULL), OV_E_IO, "one that is no program");
}

static void
forms(void)
{
	ok(ov_key_command_ok(json("[\"/bin/true\"]")) && ov_key_command_ok(json("[\"/bin/echo\", \"\"]")), "commands are arrays of strings");
	ok(!ov_key_command_ok(NULL) && !ov_key_command_ok(json("\"/bin/true\"")) && !ov_key_command_ok(json("{}")), "and nothing else");
	ok(!ov_key_command_ok(json("[]")), "with a program");
	ok(!ov_key_command_ok(json("[\"true\"]")) && !ov_key_command_ok(json("[1]")), "by its absolute path");
	ok(!ov_key_command_ok(json("[\"/bin/echo\", 1]")), "and strings for arguments");
}

int
main(void)
{
	arena = ov_arena_new();
	if (mkdtemp(dir) == NULL)
		return 1;
	script = ov_arena_printf(arena, "%s/command", dir);
	trace = ov_arena_printf(arena, "%s/trace", dir);
	files();
	what_a_command_gets();
	misbehaving();
	forms();
	unlink(script);
	unlink(trace);
	rmdir(dir);
	ov_arena_free(arena);
	return done_testing();
}
