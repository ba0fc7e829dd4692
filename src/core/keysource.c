/*
 * keysource.c
 *	  See keysource.h.
 *
 * What was read is cleansed with the arena it was read into; the command's
 * output never has another copy.  The command is started with posix_spawn,
 * which copies no memory: a forked child would have the whole keyring until it
 * executes.
 */
#include "core/keysource.h"
#include "core/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_KEY_TEXT 256
#define SLICE_MS 200			/* between looks at stop() */

/* ---- files ---- */

/* PostgreSQL's rule for ssl_key_file, and never where a base backup takes it along */
static OvCode
check_path(const char *path, const char *forbidden_dir, const char *what, size_t max, int *fd, OvError *err)
{
	struct stat st;
	char		real[PATH_MAX],
				dir[PATH_MAX];
	size_t		n;

	/* A FIFO must be refused below, not waited for. */
	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (*fd < 0)
		return ov_fail(err, OV_E_IO, "could not open %s \"%s\": %s", what, path, strerror(errno));
	if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode))
		return ov_fail(err, OV_E_CONFIG, "%s \"%s\" is not a regular file", what, path);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return ov_fail(err, OV_E_CONFIG, "%s \"%s\" must be owned by the server's user or root", what, path);
	if ((st.st_uid == geteuid() && (st.st_mode & 077) != 0 && !(st.st_uid == 0 && (st.st_mode & 037) == 0)) ||
		(st.st_uid == 0 && (st.st_mode & 037) != 0))
	{
		ov_fail(err, OV_E_CONFIG, "%s \"%s\" has group or world access", what, path);
		if (err != NULL)
			snprintf(err->detail, sizeof(err->detail), "Permissions should be u=rw (0600) or less if owned by the server's user, or u=rw,g=r (0640) or less if owned by root.");
		return OV_E_CONFIG;
	}
	if (forbidden_dir != NULL)
	{
		if (realpath(path, real) == NULL || realpath(forbidden_dir, dir) == NULL)
			return ov_fail(err, OV_E_IO, "could not resolve the path of %s \"%s\": %s", what, path, strerror(errno));
		n = strlen(dir);
		if (strncmp(real, dir, n) == 0 && (real[n] == '/' || real[n] == '\0'))
			return ov_fail(err, OV_E_CONFIG, "%s \"%s\" is below the data directory", what, path);
	}
	if (st.st_size > (off_t) max)
		return ov_fail(err, OV_E_LIMIT, "%s \"%s\" is too large", what, path);
	return OV_OK;
}

static OvCode
read_all(int fd, const char *what, size_t max, char *buf, size_t *len, OvError *err)
{
	size_t		n = 0;

	for (;;)
	{
		ssize_t		got = read(fd, buf + n, max + 1 - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return ov_fail(err, OV_E_IO, "could not read %s: %s", what, strerror(errno));
		if (got == 0)
			break;
		n += (size_t) got;
		if (n > max)
			return ov_fail(err, OV_E_LIMIT, "%s is too large", what);
	}
	*len = n;
	return OV_OK;
}

OvCode
ov_secret_file_read(const char *path, const char *forbidden_dir, const char *what, size_t max,
					OvArena *arena, char **text, size_t *len, OvError *err)
{
	int			fd = -1;
	OvCode		rc = check_path(path, forbidden_dir, what, max, &fd, err);

	if (rc == OV_OK)
	{
		*text = ov_arena_alloc(arena, max + 1);
		rc = ov_arena_failed(arena) ? ov_fail(err, OV_E_NOMEM, "out of memory") :
			read_all(fd, what, max, *text, len, err);
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

OvCode
ov_key_from_text(OvArena *arena, const char *text, size_t len, unsigned char key[OV_KEY_LEN], OvError *err)
{
	unsigned char *raw;
	size_t		n;

	while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL && text[len - 1] != '\0')
		len--;
	if (ov_b64url_decode(arena, text, len, &raw, &n) != OV_OK || n != OV_KEY_LEN)
		return ov_fail(err, OV_E_CONFIG, "not a key: 32 bytes in base64url are wanted");
	memcpy(key, raw, OV_KEY_LEN);
	return OV_OK;
}

OvCode
ov_key_from_file(const char *path, const char *forbidden_dir, unsigned char key[OV_KEY_LEN], OvError *err)
{
	OvArena    *arena = ov_arena_new();
	char	   *text;
	size_t		len;
	OvCode		rc = ov_secret_file_read(path, forbidden_dir, "key file", MAX_KEY_TEXT, arena, &text, &len, err);

	if (rc == OV_OK && (rc = ov_key_from_text(arena, text, len, key, NULL)) != OV_OK)
		ov_fail(err, rc, "key file \"%s\" does not hold 32 bytes in base64url", path);
	ov_arena_free(arena);
	return rc;
}

/* ---- commands ---- */

bool
ov_key_command_ok(const OvJson *argv)
{
	if (argv == NULL || argv->type != OV_JSON_ARRAY || argv->count < 1 || argv->count > OV_KEY_COMMAND_ARGS ||
		ov_json_string(argv->child) == NULL || argv->child->str[0] != '/')
		return false;
	for (const OvJson *a = argv->child; a != NULL; a = a->next)
		if (a->type != OV_JSON_STRING)
			return false;
	return true;
}

static int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* 0, or the errno of what went wrong */
static int
start(const OvJson *argv, int out, pid_t *child)
{
	static char *const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", NULL};
	char	   *args[OV_KEY_COMMAND_ARGS + 1];
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t	none,
				all;
	int			n = 0,
				rc;

	for (const OvJson *a = argv->child; a != NULL; a = a->next)
		args[n++] = (char *) a->str;
	args[n] = NULL;
	sigemptyset(&none);
	sigfillset(&all);
	if ((rc = posix_spawn_file_actions_init(&files)) != 0)
		return rc;
	if ((rc = posix_spawnattr_init(&attr)) != 0)
	{
		posix_spawn_file_actions_destroy(&files);
		return rc;
	}
	if ((rc = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0)) == 0 &&
		(rc = posix_spawn_file_actions_adddup2(&files, out, 1)) == 0 &&
		(rc = posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0)) == 0 &&
		(rc = posix_spawn_file_actions_addclosefrom_np(&files, 3)) == 0 &&
		(rc = posix_spawn_file_actions_addchdir_np(&files, "/")) == 0 &&
		(rc = posix_spawnattr_setsigmask(&attr, &none)) == 0 &&
		(rc = posix_spawnattr_setsigdefault(&attr, &all)) == 0 &&
		(rc = posix_spawnattr_setpgroup(&attr, 0)) == 0 &&
		(rc = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP)) == 0)
		rc = posix_spawn(child, args[0], &files, &attr, args, environment);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	return rc;
}

/* The output up to its end; OV_E_EXPIRED: time is up, or somebody says stop. */
static OvCode
read_output(int fd, int64_t until, bool (*stop) (void), char *buf, size_t *len)
{
	*len = 0;
	for (;;)
	{
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t		left = until - now_ms();
		ssize_t		got;

		if (left <= 0 || (stop != NULL && stop()))
			return OV_E_EXPIRED;
		if (poll(&p, 1, (int) (left < SLICE_MS ? left : SLICE_MS)) <= 0)
			continue;
		got = read(fd, buf + *len, MAX_KEY_TEXT + 1 - *len);
		if (got == 0)
			return OV_OK;
		if (got < 0 && errno != EINTR && errno != EAGAIN)
			return OV_E_IO;
		*len += got > 0 ? (size_t) got : 0;
		if (*len > MAX_KEY_TEXT)
			return OV_E_LIMIT;
	}
}

/* Waits for the child's end, in its time; kills what is left of its group. */
static int
finish(pid_t child, int64_t until, bool (*stop) (void))
{
	int			status = -1;
	pid_t		done;

	while ((done = waitpid(child, &status, WNOHANG)) == 0 || (done < 0 && errno == EINTR))
	{
		struct timespec pause = {.tv_nsec = 5 * 1000 * 1000};

		if (now_ms() >= until || (stop != NULL && stop()))
		{
			(void) kill(-child, SIGKILL);
			while (waitpid(child, &status, 0) < 0 && errno == EINTR)
				;
			return -1;
		}
		nanosleep(&pause, NULL);
	}
	(void) kill(-child, SIGKILL);
	return done == child ? status : -1;
}

OvCode
ov_key_from_command(const OvJson *argv, int timeout_ms, bool (*stop) (void), unsigned char key[OV_KEY_LEN],
					OvError *err)
{
	const char *program = argv->child->str;
	OvArena    *arena = ov_arena_new();
	char	   *buf = ov_arena_alloc(arena, MAX_KEY_TEXT + 1);
	int64_t		until = now_ms() + timeout_ms;
	int			fds[2];
	int			status;
	int			failed;
	pid_t		child;
	size_t		len;
	OvCode		rc;

	if (ov_arena_failed(arena) || pipe2(fds, O_CLOEXEC) != 0)
	{
		ov_arena_free(arena);
		return ov_fail(err, OV_E_IO, "could not make a pipe for key command \"%s\"", program);
	}
	failed = start(argv, fds[1], &child);
	close(fds[1]);
	if (failed != 0)
	{
		close(fds[0]);
		ov_arena_free(arena);
		return ov_fail(err, OV_E_IO, "could not run key command \"%s\": %s", program, strerror(failed));
	}
	rc = read_output(fds[0], until, stop, buf, &len);
	close(fds[0]);
	status = finish(child, rc == OV_OK ? until : 0, stop);
	if (rc == OV_E_EXPIRED || (rc == OV_OK && status == -1))
		rc = ov_fail(err, OV_E_EXPIRED, "key command \"%s\" did not end in %d s", program, timeout_ms / 1000);
	else if (rc == OV_E_LIMIT)
		ov_fail(err, rc, "key command \"%s\" printed more than a key", program);
	else if (rc != OV_OK)
		ov_fail(err, rc, "could not read the output of key command \"%s\"", program);
	else if (WIFSIGNALED(status))
		rc = ov_fail(err, OV_E_IO, "key command \"%s\" was ended by signal %d", program, WTERMSIG(status));
	else if (WEXITSTATUS(status) != 0)
		rc = ov_fail(err, OV_E_IO, "key command \"%s\" failed with exit status %d", program, WEXITSTATUS(status));
	else if ((rc = ov_key_from_text(arena, buf, len, key, NULL)) != OV_OK)
		ov_fail(err, rc, "key command \"%s\" did not print 32 bytes in base64url", program);
	ov_arena_free(arena);
	return rc;
}
