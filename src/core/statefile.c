/*
 * statefile.c
 *	  See statefile.h.
 *
 * Written beside itself and renamed, with the file and then its directory
 * flushed: after a crash there is the old one or the new one.
 */
#include "core/statefile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/codec.h"
#include "core/json.h"

#define MAX_FILE 8192

/* ---- place ---- */

static bool
is_below(const char *path, const char *dir)
{
	size_t		n = strlen(dir);

	return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0' || n == 1);
}

static OvCode
check_tablespaces(const char *real, const char *data_directory, OvError *err)
{
	char		links[PATH_MAX];
	char		link[PATH_MAX];
	char		target[PATH_MAX];
	DIR		   *d;
	struct dirent *e;
	OvCode		code = OV_OK;

	if (snprintf(links, sizeof(links), "%s/pg_tblspc", data_directory) >= (int) sizeof(links) ||
		(d = opendir(links)) == NULL)
		return OV_OK;			/* a server without it does not run */
	while (code == OV_OK && (e = readdir(d)) != NULL)
	{
		if (e->d_name[0] == '.' ||
			snprintf(link, sizeof(link), "%s/%s", links, e->d_name) >= (int) sizeof(link) ||
			realpath(link, target) == NULL)
			continue;
		if (is_below(real, target))
			code = ov_fail(err, OV_E_CONFIG, "directory \"%s\" is below a tablespace", real);
	}
	closedir(d);
	return code;
}

OvCode
ov_state_dir(const char *dir, const char *data_directory, char *real, OvError *err)
{
	char		data[PATH_MAX];

	if (dir == NULL || dir[0] != '/')
		return ov_fail(err, OV_E_CONFIG, "the directory of state files is not an absolute path");
	if (realpath(dir, real) == NULL || realpath(data_directory, data) == NULL)
		return ov_fail(err, OV_E_IO, "could not resolve directory \"%s\": %s", dir, strerror(errno));
	if (is_below(real, data))
		return ov_fail(err, OV_E_CONFIG, "directory \"%s\" is below the data directory", real);
	return check_tablespaces(real, data, err);
}

/* ---- reading ---- */

static bool
get_int(const OvJson *doc, const char *name, int64_t *out)
{
	return ov_json_int64(ov_json_get(doc, name), true, out);
}

static bool
get_text(const OvJson *doc, const char *name, char *out, size_t size)
{
	const char *s = ov_json_get_string(doc, name);

	return s != NULL && snprintf(out, size, "%s", s) < (int) size;
}

static bool
get_bytes(OvArena *arena, const OvJson *doc, const char *name, unsigned char *out, size_t size)
{
	const char *s = ov_json_get_string(doc, name);
	unsigned char *raw;
	size_t		len;

	if (s == NULL || ov_b64url_decode(arena, s, strlen(s), &raw, &len) != OV_OK || len != size)
		return false;
	memcpy(out, raw, size);
	return true;
}

static bool
parse(OvArena *arena, const char *text, size_t len, OvState *state)
{
	const OvJson *doc;
	char		number[24];
	char	   *end = number;
	int64_t		timeline,
				database;

	if (ov_json_parse(arena, text, len, &doc, NULL) != OV_OK || doc->type != OV_JSON_OBJECT ||
		!ov_json_no_duplicates(doc) ||
		!get_bytes(arena, doc, "vault_id", state->vault_id, sizeof(state->vault_id)) ||
		!get_int(doc, "since", &state->since) || !get_int(doc, "counter", &state->counter) ||
		!get_text(doc, "system_identifier", number, sizeof(number)) ||
		!get_int(doc, "timeline", &timeline) || timeline < 0 || timeline > UINT32_MAX ||
		!get_int(doc, "database", &database) || database < 0 || database > UINT32_MAX ||
		!get_text(doc, "directory", state->directory, sizeof(state->directory)) ||
		!get_text(doc, "writer", state->writer, sizeof(state->writer)))
		return false;
	/* beyond INT64_MAX from the year 2038 on */
	state->system_identifier = strtoull(number, &end, 10);
	if (end == number || *end != '\0')
		return false;
	state->timeline = (uint32_t) timeline;
	state->database = (uint32_t) database;
	return true;
}

OvCode
ov_state_load(const char *path, OvState *state, OvError *err)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW);
	char		text[MAX_FILE + 1];
	struct stat st;
	ssize_t		got;
	size_t		len = 0;
	OvArena    *arena;
	bool		good;

	memset(state, 0, sizeof(*state));
	if (fd < 0)
		return ov_fail(err, errno == ENOENT ? OV_E_NOTFOUND : OV_E_IO, "could not open state file \"%s\": %s",
					   path, strerror(errno));
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
	{
		close(fd);
		return ov_fail(err, OV_E_CONFIG, "state file \"%s\" is not a regular file of the server's user", path);
	}
	while (len < sizeof(text))
	{
		got = read(fd, text + len, sizeof(text) - len);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
		{
			int			save = errno;

			close(fd);
			return ov_fail(err, OV_E_IO, "could not read state file \"%s\": %s", path, strerror(save));
		}
		if (got == 0)
			break;
		len += (size_t) got;
	}
	close(fd);
	arena = ov_arena_new();
	good = len <= MAX_FILE && parse(arena, text, len, state) && !ov_arena_failed(arena);
	ov_arena_free(arena);
	if (good)
		return OV_OK;
	return ov_fail(err, OV_E_SYNTAX, "state file \"%s\" is malformed", path);
}

/* ---- writing ---- */

static bool
write_all(int fd, const char *data, size_t len)
{
	while (len > 0)
	{
		ssize_t		n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		data += n;
		len -= (size_t) n;
	}
	return true;
}

static bool
flush_directory(const char *path)
{
	char		dir[PATH_MAX];
	char	   *slash;
	int			fd;
	bool		good;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash == NULL)
		return true;
	slash[slash == dir ? 1 : 0] = '\0';
	if ((fd = open(dir, O_RDONLY | O_CLOEXEC | O_DIRECTORY)) < 0)
		return false;
	/* some file systems do not flush directories, and say so */
	good = fsync(fd) == 0 || errno == EINVAL || errno == EBADF;
	close(fd);
	return good;
}

static void
compose(OvStr *s, const OvState *state)
{
	ov_str_puts(s, "{\"vault_id\":\"");
	ov_str_puts(s, ov_b64url(s->arena, state->vault_id, sizeof(state->vault_id)));
	ov_str_printf(s, "\",\"since\":\"%" PRId64 "\",\"counter\":\"%" PRId64 "\",\"system_identifier\":\"%" PRIu64
				  "\",\"timeline\":%" PRIu32 ",\"database\":%" PRIu32 ",\"directory\":",
				  state->since, state->counter, state->system_identifier, state->timeline, state->database);
	ov_json_quote(s, state->directory, strlen(state->directory));
	ov_str_puts(s, ",\"writer\":");
	ov_json_quote(s, state->writer, strlen(state->writer));
	ov_str_puts(s, "}\n");
}

OvCode
ov_state_save(const char *path, const OvState *state, OvError *err)
{
	char		new[PATH_MAX];
	OvArena    *arena;
	OvStr		s;
	OvCode		code = OV_OK;
	int			fd;

	if (snprintf(new, sizeof(new), "%s.new", path) >= (int) sizeof(new))
		return ov_fail(err, OV_E_LIMIT, "the path of the state file is too long");
	(void) unlink(new);
	/* whoever has put something else there in between is not followed */
	if ((fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)) < 0)
		return ov_fail(err, OV_E_IO, "could not create state file \"%s\": %s", new, strerror(errno));
	arena = ov_arena_new();
	ov_str_init(&s, arena);
	compose(&s, state);
	if (ov_arena_failed(arena))
		code = ov_fail(err, OV_E_NOMEM, "out of memory");
	else if (!write_all(fd, s.data, s.len) || fsync(fd) != 0)
		code = ov_fail(err, OV_E_IO, "could not write state file \"%s\": %s", new, strerror(errno));
	ov_arena_free(arena);
	if (close(fd) != 0 && code == OV_OK)
		code = ov_fail(err, OV_E_IO, "could not write state file \"%s\": %s", new, strerror(errno));
	if (code == OV_OK && (rename(new, path) != 0 || !flush_directory(path)))
		code = ov_fail(err, OV_E_IO, "could not replace state file \"%s\": %s", path, strerror(errno));
	if (code != OV_OK)
		(void) unlink(new);
	return code;
}

/* ---- judging ---- */

static bool
same_owner(const OvState *a, const OvState *b)
{
	return a->system_identifier == b->system_identifier && a->database == b->database &&
		strcmp(a->directory, b->directory) == 0;
}

bool
ov_state_allows(const OvState *file, const OvState *me, char *why, size_t size)
{
	if (memcmp(file->vault_id, me->vault_id, sizeof(me->vault_id)) != 0)
		snprintf(why, size, "the state file is of another vault");
	else if (file->since < me->since)
		return true;			/* claimed since */
	else if (file->since > me->since && same_owner(file, me))
		snprintf(why, size, "the database was restored to a time before it was claimed");
	else if (file->since > me->since)
		snprintf(why, size, "the vault has been claimed elsewhere: by database %" PRIu32 " in \"%.100s\"",
				 file->database, file->directory);
	else if (!same_owner(file, me))
		snprintf(why, size, "the vault is held elsewhere: by database %" PRIu32 " in \"%.100s\"",
				 file->database, file->directory);
	else if (file->counter > me->counter)
		snprintf(why, size, "the database was restored: its home row counts %" PRId64 ", the state file %" PRId64,
				 me->counter, file->counter);
	else if (file->timeline > me->timeline)
		snprintf(why, size, "the database was restored: it is on timeline %" PRIu32 ", the state file on %" PRIu32,
				 me->timeline, file->timeline);
	else if (me->writer[0] != '\0' && strcmp(file->writer, me->writer) != 0)
		snprintf(why, size, "another server writes the state file");
	else
		return true;
	return false;
}
