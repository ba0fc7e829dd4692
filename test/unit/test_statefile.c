/*
 * test_statefile.c
 *	  The state file: where it may lie, that it comes back whole, what it allows.
 */
#include "core/statefile.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tap.h"

static char dir[PATH_MAX];
static char path[PATH_MAX + 32];
static OvState me;
static char why[256];

static void
put(const char *text)
{
	FILE	   *f = fopen(path, "w");

	fputs(text, f);
	fclose(f);
}

static void
comes_back(void)
{
	OvState		got;
	OvError		err = {0};
	struct stat st;
	mode_t		mask = umask(0);

	is_int(ov_state_load(path, &got, &err), OV_E_NOTFOUND, "no file is told from a bad one");
	is_int(ov_state_save(path, &me, &err), OV_OK, "saved");
	umask(mask);
	is_int(ov_state_load(path, &got, &err), OV_OK, "loaded");
	ok(memcmp(&got, &me, sizeof(me)) == 0, "every member comes back");
	ok(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600, "mode 0600 under any umask");
	me.counter++;
	is_int(ov_state_save(path, &me, &err), OV_OK, "replaced");
	is_int(ov_state_load(path, &got, &err), OV_OK, "loaded again");
	is_int(got.counter, me.counter, "with what is new");
	ok(access(strcat(strcpy(why, path), ".new"), F_OK) != 0, "nothing is left beside it");
}

static void
bad_files(void)
{
	static const char *const texts[] = {
		"", "{}", "[]", "{\"vault_id\":\"AAAAAAAAAAAAAAAAAAAAAA\"}", "not json",
		/* a counter that is no number; a vault id of 15 bytes; a member given twice; cut off */
		"{\"vault_id\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"since\":\"1\",\"counter\":\"x\",\"system_identifier\":\"1\",\"timeline\":1,\"database\":1,\"directory\":\"/d\",\"writer\":\"w\"}",
		"{\"vault_id\":\"AAAAAAAAAAAAAAAAAAAA\",\"since\":\"1\",\"counter\":\"1\",\"system_identifier\":\"1\",\"timeline\":1,\"database\":1,\"directory\":\"/d\",\"writer\":\"w\"}",
		"{\"vault_id\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"since\":\"1\",\"since\":\"2\",\"counter\":\"1\",\"system_identifier\":\"1\",\"timeline\":1,\"database\":1,\"directory\":\"/d\",\"writer\":\"w\"}",
		"{\"vault_id\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"since\":\"1\",\"counter\":\"1\",\"system_identifier\":\"1\",\"timeline\":1,\"database\":1,\"directory\":\"/d\"",
		"{\"vault_id\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"since\":\"1\",\"counter\":\"1\",\"system_identifier\":\"1\",\"timeline\":4294967296,\"database\":1,\"directory\":\"/d\",\"writer\":\"w\"}",
	};
	OvState		got;
	OvError		err = {0};
	char		target[PATH_MAX + 32];

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		put(texts[i]);
		is_int(ov_state_load(path, &got, &err), OV_E_SYNTAX, "malformed: %.40s", texts[i]);
	}
	put("{\"vault_id\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"since\":\"1\",\"counter\":\"1\",\"system_identifier\":\"1\",\"timeline\":1,\"database\":1,\"directory\":\"/d\",\"writer\":\"w\"}");
	is_int(ov_state_load(path, &got, &err), OV_OK, "the same without the fault is taken");
	snprintf(target, sizeof(target), "%s/elsewhere", dir);
	ok(rename(path, target) == 0 && symlink(target, path) == 0, "a link in its place");
	is_int(ov_state_load(path, &got, &err), OV_E_IO, "is not followed");
	unlink(path);
	unlink(target);
	ok(mkfifo(path, 0600) == 0, "a FIFO in its place");
	is_int(ov_state_load(path, &got, &err), OV_E_CONFIG, "is refused and not waited for");
	unlink(path);
	snprintf(target, sizeof(target), "%s/missing/file", dir);
	is_int(ov_state_save(target, &me, &err), OV_E_IO, "a directory that is not there");
}

static void
places(void)
{
	char		real[PATH_MAX],
				data[PATH_MAX + 8],
				inside[PATH_MAX + 64],
				space[PATH_MAX + 32],
				link[PATH_MAX + 128];
	OvError		err = {0};

	snprintf(data, sizeof(data), "%s/data", dir);
	snprintf(inside, sizeof(inside), "%s/pg_tblspc", data);
	snprintf(space, sizeof(space), "%s/space", dir);
	snprintf(link, sizeof(link), "%s/16400", inside);
	ok(mkdir(data, 0700) == 0 && mkdir(inside, 0700) == 0 && mkdir(space, 0700) == 0 && symlink(space, link) == 0,
	   "a data directory with a tablespace");
	is_int(ov_state_dir(dir, data, real, &err), OV_OK, "a directory above is a place");
	is_str(real, dir, "and is resolved");
	is_int(ov_state_dir(data, data, real, &err), OV_E_CONFIG, "the data directory is none");
	is_int(ov_state_dir(inside, data, real, &err), OV_E_CONFIG, "nor one below it");
	is_int(ov_state_dir(space, data, real, &err), OV_E_CONFIG, "nor a tablespace");
	is_int(ov_state_dir("data", data, real, &err), OV_E_CONFIG, "nor a relative path");
	is_int(ov_state_dir("", data, real, &err), OV_E_CONFIG, "nor none");
	snprintf(link, sizeof(link), "%s/way-in", dir);
	ok(symlink(inside, link) == 0, "a link");
	is_int(ov_state_dir(link, data, real, &err), OV_E_CONFIG, "is judged by where it leads");
	snprintf(link, sizeof(link), "%s/data2", dir);
	ok(mkdir(link, 0700) == 0, "a name that begins alike");
	is_int(ov_state_dir(link, data, real, &err), OV_OK, "is another directory");
}

static void
verdicts(void)
{
	OvState		file = me;

	me.writer[0] = '\0';
	ok(ov_state_allows(&file, &me, why, sizeof(why)), "what was written is allowed to go on");
	me.counter++;
	ok(ov_state_allows(&file, &me, why, sizeof(why)), "so is a database that is ahead: the file was not written in time");
	me.counter -= 2;
	ok(!ov_state_allows(&file, &me, why, sizeof(why)) && strstr(why, "restored"), "one that is behind is not");
	me.since++;
	ok(ov_state_allows(&file, &me, why, sizeof(why)), "unless it has been claimed since");
	me.since -= 2;
	me.counter = file.counter + 10;
	ok(!ov_state_allows(&file, &me, why, sizeof(why)) && strstr(why, "before it was claimed"),
	   "an earlier claim is behind, whatever its counter");
	me = file;
	strcpy(me.directory, "/elsewhere");
	ok(!ov_state_allows(&file, &me, why, sizeof(why)) && strstr(why, "held elsewhere"), "another data directory is a copy");
	me.since++;
	ok(ov_state_allows(&file, &me, why, sizeof(why)), "until it is claimed");
	ok(!ov_state_allows(&me, &file, why, sizeof(why)) && strstr(why, "claimed elsewhere"), "which ends the first one's hold");
	me = file;
	me.database++;
	ok(!ov_state_allows(&file, &me, why, sizeof(why)), "another database is a copy");
	me = file;
	me.system_identifier++;
	ok(!ov_state_allows(&file, &me, why, sizeof(why)), "another cluster is a copy");
	me = file;
	me.timeline--;
	ok(!ov_state_allows(&file, &me, why, sizeof(why)), "an earlier timeline is behind");
	me = file;
	strcpy(me.writer, "me");
	ok(!ov_state_allows(&file, &me, why, sizeof(why)) && strstr(why, "another server"),
	   "somebody else who writes the same is noticed");
	me = file;
	me.vault_id[0]++;
	ok(!ov_state_allows(&file, &me, why, sizeof(why)), "a file of another vault allows nothing");
}

int
main(void)
{
	char		template[] = "/tmp/ov_state.XXXXXX";
	char		command[PATH_MAX + 16];

	if (mkdtemp(template) == NULL || realpath(template, dir) == NULL)
		return 1;
	snprintf(path, sizeof(path), "%s/vault.state", dir);
	memset(me.vault_id, 0x5a, sizeof(me.vault_id));
	me.since = 818131200000000;
	me.counter = 41;
	me.system_identifier = UINT64_MAX - 5;
	me.timeline = 3;
	me.database = UINT32_MAX;
	strcpy(me.directory, "/srv/\"odd\" place");
	strcpy(me.writer, "abcdef");
	comes_back();
	bad_files();
	places();
	verdicts();
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	if (system(command) != 0)
		diag("could not remove %s", dir);
	return done_testing();
}
