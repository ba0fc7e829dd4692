/*
 * test_keyring.c
 *	  oauth-vault-keyring: what it writes is what core reads.
 *
 * Runs the tool built beside this test.
 */
#include "core/codec.h"
#include "core/keysource.h"
#include "core/vaultfile.h"
#include "tap.h"

#include <dirent.h>
#include <libgen.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static OvArena *arena;
static char dir[] = "/tmp/ov_unit_XXXXXX";
static const char *tool;
static char *file,
		   *signing_key;
static char out[16384];			/* what the last run said, on either stream */

/* Run the tool with these arguments; its exit code, or -1 */
static int
run(const char *first,...)
{
	const char *args[32] = {tool, first};
	int			n = 2,
				fds[2],
				status = 0;
	size_t		len = 0;
	ssize_t		got;
	va_list		more;
	pid_t		child;

	va_start(more, first);
	while (n < 31 && (args[n] = va_arg(more, const char *)) != NULL)
		n++;
	va_end(more);
	args[n] = NULL;
	if (pipe(fds) != 0 || (child = fork()) < 0)
		return -1;
	if (child == 0)
	{
		dup2(fds[1], 1);
		dup2(fds[1], 2);
		close(fds[0]);
		execv(tool, (char *const *) args);
		_exit(127);
	}
	close(fds[1]);
	while ((got = read(fds[0], out + len, sizeof(out) - 1 - len)) > 0)
		len += (size_t) got;
	out[len] = '\0';
	close(fds[0]);
	waitpid(child, &status, 0);
	if (len > 0 && out[len - 1] == '\n')
		out[len - 1] = '\0';
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *
slurp(const char *path)
{
	char	   *text = ov_arena_alloc(arena, 65536);
	FILE	   *f = fopen(path, "r");

	if (f == NULL)
		return NULL;
	text[fread(text, 1, 65535, f)] = '\0';
	fclose(f);
	return text;
}

static const OvJson *
parsed(const char *text)
{
	const OvJson *v;

	return text != NULL && ov_json_parse(arena, text, strlen(text), &v, NULL) == OV_OK ? v : NULL;
}

static OvVaultFile *
loaded(void)
{
	OvVaultFile *vf;
	OvError		err;

	if (ov_vaultfile_load(file, NULL, &vf, &err) != OV_OK)
		diag("%s", err.message);
	return vf;
}

static int
mode(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (int) (st.st_mode & 07777) : -1;
}

static int
count_beside(void)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	int			n = 0;

	while (d != NULL && (e = readdir(d)) != NULL)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void
write_script(const char *path, const char *text)
{
	FILE	   *f = fopen(path, "w");

	if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0 || chmod(path, 0755) != 0)
		diag("could not write %s", path);
}

static OvCode
run_command(const OvJson *argv, int timeout_ms, unsigned char key[OV_KEY_LEN], OvError *err)
{
	return ov_key_from_command(argv, timeout_ms, NULL, key, err);
}

static void
forget(void)
{
	unlink(file);
	unlink(signing_key);
}

static void
init(void)
{
	const OvJson *public,
			   *key;
	const char *text;

	umask(0);
	is_int(run("init", "--file", file, "--vault", "demo", "--allow-host", "localhost:8443", "--allow-host", "as.example",
			   "--allow-network", "127.0.0.0/8", NULL), 0, "init");
	ok(strstr(out, file) != NULL, "says what it wrote");
	is_int(mode(file), 0600, "the vault file is its owner's only, whatever the umask");
	is_int(mode(signing_key), 0600, "so is the signing key");
	text = slurp(file);
	is_int(run("show", "--file", file, NULL), 0, "show");
	public = parsed(out);
	ok(public != NULL, "prints JSON");
	is_str(ov_json_get_string(public, "vault"), "demo", "with the vault's name");
	is_str(ov_json_get_string(public, "identity_source"), "assertion", "assertions unless told otherwise");
	is_str(ov_json_string(ov_json_at(public, "/allowed_hosts/1")), "as.example", "the hosts");
	is_str(ov_json_string(ov_json_at(public, "/allowed_networks/0")), "127.0.0.0/8", "the networks");
	ok(strstr(out, ov_json_string(ov_json_at(parsed(text), "/keyring/versions/0/key"))) == NULL, "and no key");
	key = parsed(slurp(signing_key));
	is_str(ov_json_get_string(key, "audience"), "demo", "the audience is the vault's name");
	is_str(ov_json_get_string(key, "issuer"), ov_json_string(ov_json_at(public, "/issuers/0/issuer")), "the issuer is the pinned one");
	ok(ov_json_string(ov_json_at(key, "/jwk/d")) != NULL, "the signing key is private");
	ok(strstr(text, ov_json_string(ov_json_at(key, "/jwk/d"))) == NULL, "and not in the vault file");
	is_str(ov_json_string(ov_json_at(key, "/jwk/kid")), ov_json_string(ov_json_at(parsed(text), "/identity/issuers/0/jwks/keys/0/kid")),
		   "its public half is");

	is_int(run("init", "--file", file, NULL), 1, "init does not overwrite");
	is_str(slurp(file), text, "and leaves what is there");
	unlink(file);
	is_int(run("init", "--file", file, NULL), 1, "init does not overwrite a signing key either");
	ok(access(file, F_OK) != 0, "and writes nothing");
	forget();
	is_int(run("init", "--file", file, "--source", "trust", NULL), 1, "init refuses an unknown identity source");
	ok(access(file, F_OK) != 0 && access(signing_key, F_OK) != 0, "and leaves nothing behind");
	for (int i = 0; i < 2; i++)
	{
		const char *source = i == 0 ? "role" : "authenticated";
		OvVaultFile *vf;

		is_int(run("init", "--file", file, "--source", source, NULL), 0, "init with identity source %s", source);
		ok(access(signing_key, F_OK) != 0, "writes no signing key");
		vf = loaded();
		is_int(ov_vaultfile_source(vf), i == 0 ? OV_ID_ROLE : OV_ID_AUTHENTICATED, "and has that source");
		ov_vaultfile_free(vf);
		forget();
	}
	is_int(run("init", "--file", file, "--vault", "a\"b\\c", "--allow-host", "x\ny", NULL), 0, "init quotes what it is given");
	is_str(ov_json_get_string(parsed(slurp(file)), "vault"), "a\"b\\c", "and it comes back");
	forget();
}

static void
rotation(void)
{
	unsigned char key[OV_KEY_LEN] = {1},
				again[OV_KEY_LEN],
				wrapped[2][OV_KEY_LEN + OV_RECORD_OVERHEAD];
	size_t		n;
	OvAad		aad = {0};
	OvVaultFile *vf;
	const char *before;
	int			added = 0;

	aad.purpose = OV_PURPOSE_USER_KEY;
	run("init", "--file", file, "--vault", "demo", NULL);
	vf = loaded();
	is_int(ov_vaultfile_wrap(vf, 1, &aad, key, wrapped[0], &n, NULL), OV_OK, "a key wrapped under version 1");
	ov_vaultfile_free(vf);

	is_int(run("add", "--file", file, NULL), 0, "add");
	is_str(out, "added version 2", "says which");
	vf = loaded();
	is_int(ov_vaultfile_active_version(vf), 1, "a new version is not active yet");
	is_int(ov_vaultfile_wrap(vf, 2, &aad, key, wrapped[1], &n, NULL), OV_OK, "but it is there");
	ov_vaultfile_free(vf);
	is_int(mode(file), 0600, "the file keeps its mode");

	is_int(run("activate", "--file", file, "--version", "2", NULL), 0, "activate");
	vf = loaded();
	is_int(ov_vaultfile_active_version(vf), 2, "the new version is active");
	ok(ov_vaultfile_unwrap(vf, &aad, wrapped[0], n, again, NULL) == OV_OK && memcmp(key, again, OV_KEY_LEN) == 0, "the old one still opens");
	ov_vaultfile_free(vf);

	before = slurp(file);
	is_int(run("retire", "--file", file, "--version", "2", NULL), 1, "the active version cannot be retired");
	is_int(run("retire", "--file", file, "--version", "9", NULL), 1, "nor one that is not there");
	is_int(run("activate", "--file", file, "--version", "9", NULL), 1, "nor can it be activated");
	is_int(run("activate", "--file", file, NULL), 1, "nor can none");
	is_int(run("activate", "--file", file, "--version", "2x", NULL), 1, "nor what is no number");
	is_str(slurp(file), before, "all of which leaves the file as it was");

	is_int(run("retire", "--file", file, "--version", "1", "--destroy", NULL), 1, "a version that is not retired is not destroyed");
	is_int(run("retire", "--file", file, "--version", "1", "--undo", NULL), 1, "nor put back");
	is_str(slurp(file), before, "and the file is as it was");
	is_int(run("retire", "--file", file, "--version", "1", NULL), 0, "retire");
	vf = loaded();
	is_int(ov_vaultfile_unwrap(vf, &aad, wrapped[0], n, again, NULL), OV_E_NOTFOUND, "the old version is out of the ring");
	is_int(ov_vaultfile_unwrap(vf, &aad, wrapped[1], n, again, NULL), OV_OK, "the new one opens");
	ok(strstr(ov_vaultfile_public(arena, vf), "{\"version\":1,\"retired\":true}") != NULL, "and show says so");
	ov_vaultfile_free(vf);
	is_int(run("activate", "--file", file, "--version", "1", NULL), 1, "a retired version is not activated");
	is_int(run("retire", "--file", file, "--version", "1", NULL), 1, "nor retired twice");
	is_int(run("retire", "--file", file, "--version", "1", "--undo", "--destroy", NULL), 1, "nor put back and destroyed");
	is_int(run("retire", "--file", file, "--version", "1", "--undo", NULL), 0, "but it can be put back");
	vf = loaded();
	ok(ov_vaultfile_unwrap(vf, &aad, wrapped[0], n, again, NULL) == OV_OK && memcmp(key, again, OV_KEY_LEN) == 0,
	   "with the key it had");
	ov_vaultfile_free(vf);
	is_str(slurp(file), before, "as if nothing had been");
	run("retire", "--file", file, "--version", "1", NULL);
	is_int(run("retire", "--file", file, "--version", "1", "--destroy", NULL), 0, "a retired version can be destroyed");
	ok(ov_json_at(parsed(slurp(file)), "/keyring/versions")->count == 1 && strstr(slurp(file), "\"version\": 1") == NULL,
	   "and is gone");
	is_int(run("retire", "--file", file, "--version", "1", "--undo", NULL), 1, "for ever");
	run("add", "--file", file, NULL);
	run("retire", "--file", file, "--version", "3", NULL);
	run("retire", "--file", file, "--version", "3", "--destroy", NULL);
	run("add", "--file", file, NULL);
	is_str(out, "added version 4", "a retired version's number is not given again");
	is_int(run("sign", "--file", file, "--user", "ada", NULL), 0, "the issuers are still there");

	chmod(file, 0400);
	is_int(run("add", "--file", file, NULL), 0, "add to a file with mode 0400");
	is_int(mode(file), 0400, "which it keeps");
	while (added < 80 && run("add", "--file", file, NULL) == 0)
		added++;
	ok(added > 50 && added < 64, "there is a limit to how many versions may be held");
	vf = loaded();
	ok(vf != NULL, "and the file that is left is one that loads");
	ov_vaultfile_free(vf);
	is_int(count_beside(), 2, "with nothing beside it and the signing key");
	forget();
}

static void
sources(void)
{
	char	   *key_file = ov_arena_printf(arena, "%s/platform.key", dir),
			   *script = ov_arena_printf(arena, "%s/print-key", dir);
	const char *key;
	OvVaultFile *vf;
	char		fp[4][OV_KEY_FINGERPRINT_LEN + 1];
	OvError		err;

	run("init", "--file", file, "--source", "role", NULL);
	is_int(run("add", "--file", file, "--key-file", "platform.key", NULL), 1, "a key file needs an absolute path");
	is_int(run("add", "--file", file, "--key-file", key_file, NULL), 0, "add with a key file");
	ok(strstr(out, key_file) != NULL && strstr(out, "added version 2") != NULL, "says what it wrote");
	is_int(mode(key_file), 0600, "the key file is its owner's only");
	key = slurp(key_file);
	ok(strlen(key) == 44 && strstr(slurp(file), ov_arena_strndup(arena, key, 43)) == NULL, "with a key that is not in the vault file");
	is_int(run("add", "--file", file, "--key-file", key_file, NULL), 0, "add with a key file that is there");
	is_str(slurp(key_file), key, "leaves it as it is");
	ok(strstr(out, "wrote") == NULL, "and says so");

	write_script(script, ov_arena_printf(arena, "#!/bin/sh\n[ \"$1\" = give ] && printf '%%s\\n' '%.43s'\n", key));
	is_int(run("add", "--file", file, "--key-command", script, "--key-arg", "give", NULL), 0, "add with a key command");
	is_int(run("add", "--file", file, "--key-command", script, "--key-arg", "keep", NULL), 1, "not with one that fails");
	ok(strstr(out, "exit status 1") != NULL, "and the reason is told");
	is_int(run("add", "--file", file, "--key-command", "print-key", NULL), 1, "nor by a relative path");
	is_int(run("add", "--file", file, "--key-arg", "x", NULL), 1, "an argument needs its command");
	is_int(run("add", "--file", file, "--key-file", key_file, "--key-command", script, NULL), 1, "a key has one source");
	is_int(run("show", "--file", file, NULL), 0, "show runs the command");
	ok(strstr(out, ov_arena_strndup(arena, key, 43)) == NULL, "and prints no key");
	ok(ov_vaultfile_load(file, NULL, &vf, &err) == OV_E_DENIED && strstr(err.message, "not run here") != NULL,
	   "who has not said how runs no command");
	ov_vaultfile_command = run_command;
	vf = loaded();
	for (int i = 0; i < 4; i++)
		ok(ov_vaultfile_fingerprint(vf, i + 1, fp[i]), "version %d has a key", i + 1);
	ok(strcmp(fp[0], fp[1]) != 0 && strcmp(fp[1], fp[2]) == 0 && strcmp(fp[1], fp[3]) == 0, "file and command give the same one");
	ok(ov_vaultfile_has(vf, 2, fp[1]) && ov_vaultfile_has(vf, 2, "") && !ov_vaultfile_has(vf, 2, fp[0]) && !ov_vaultfile_has(vf, 9, ""),
	   "which a fingerprint tells from another");
	ov_vaultfile_free(vf);

	write_script(script, "#!/bin/sh\nexit 3\n");
	is_int(ov_vaultfile_load(file, NULL, &vf, &err), OV_E_IO, "a command that fails later makes the file unusable");
	run("retire", "--file", file, "--version", "4", NULL);
	ok(strstr(out, "exit status 3") != NULL, "and the tool needs it to know what it keeps");
	write_script(script, ov_arena_printf(arena, "#!/bin/sh\nprintf '%%s\\n' '%.43s'\n", key));
	is_int(run("retire", "--file", file, "--version", "4", NULL), 0, "once retired");
	write_script(script, "#!/bin/sh\nexit 3\n");
	vf = loaded();
	ok(vf != NULL, "it is not run any more");
	ov_vaultfile_free(vf);
	chmod(key_file, 0644);
	is_int(ov_vaultfile_load(file, NULL, &vf, &err), OV_E_CONFIG, "a key file that others can read is refused");
	ok(strstr(err.message, key_file) != NULL, "by its name");
	ov_vaultfile_command = NULL;
	unlink(script);
	unlink(key_file);
	forget();
}

/* Twelve tools at a time add a version each: none is lost, none given twice. */
static void
at_a_time(void)
{
	pid_t		children[12];
	int			done = 0,
				status;
	OvVaultFile *vf;
	char		fp[OV_KEY_FINGERPRINT_LEN + 1];
	bool		all = true;

	run("init", "--file", file, "--source", "role", NULL);
	for (int i = 0; i < 12; i++)
		if ((children[i] = fork()) == 0)
			_exit(run("add", "--file", file, NULL));
	for (int i = 0; i < 12; i++)
		if (waitpid(children[i], &status, 0) == children[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0)
			done++;
	is_int(done, 12, "twelve additions at a time succeed");
	vf = loaded();
	for (int v = 1; v <= 13; v++)
		all &= ov_vaultfile_fingerprint(vf, v, fp);
	ok(all, "and all twelve are there");
	ov_vaultfile_free(vf);
	is_int(count_beside(), 1, "with nothing beside the file");
	forget();
	for (int i = 0; i < 12; i++)
		if ((children[i] = fork()) == 0)
			_exit(run("init", "--file", file, "--source", "role", NULL));
	for (int i = done = 0; i < 12; i++)
		if (waitpid(children[i], &status, 0) == children[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0)
			done++;
	is_int(done, 1, "of twelve that make the file one succeeds");
	is_int(count_beside(), 1, "and leaves one file");
	forget();
}

static void
signing(void)
{
	OvVaultFile *vf;
	OvIdentity	id;
	OvError		err;
	const OvJson *header,
			   *claims;
	int64_t		now = time(NULL);
	char	   *first;

	run("init", "--file", file, "--vault", "demo", "--tenant", "acme", NULL);
	vf = loaded();
	is_int(run("sign", "--file", file, "--user", "ada \"the\" \xc3\xa9", "--actor", "bot", "--ttl", "60", "--claim", "x=y=z", NULL), 0, "sign");
	is_int(ov_vaultfile_verify(arena, vf, out, strlen(out), now, &id, &err), OV_OK, "what it signs verifies against the vault file");
	is_str(id.user_id, "ada \"the\" \xc3\xa9", "for that user");
	is_str(id.tenant, "acme", "in the issuer's tenant");
	is_str(id.actor, "{\"sub\":\"bot\"}", "by that actor");
	ok(id.jti != NULL && id.expires_at >= now + 60 && id.expires_at <= now + 62, "for as long as asked");
	ov_jwt_peek(arena, out, strlen(out), &header, &claims, NULL);
	is_str(ov_json_get_string(claims, "x"), "y=z", "with the claim asked for");
	ok(ov_json_get_string(header, "kid") != NULL, "and names its key");
	first = ov_arena_strdup(arena, id.jti);
	run("sign", "--file", file, "--user", "ada", NULL);
	ov_vaultfile_verify(arena, vf, out, strlen(out), now, &id, &err);
	ok(strcmp(first, id.jti) != 0 && id.actor == NULL, "the next one has another jti, and no actor unless told");
	run("sign", "--file", file, "--user", "ada", "--ttl", "-100", NULL);
	is_int(ov_vaultfile_verify(arena, vf, out, strlen(out), now, &id, &err), OV_E_EXPIRED, "one that has expired can be had");
	run("sign", "--file", file, "--user", "ada", "--audience", "other", NULL);
	is_int(ov_vaultfile_verify(arena, vf, out, strlen(out), now, &id, &err), OV_E_DENIED, "and one for another audience");
	run("sign", "--file", file, "--user", "ada", "--issuer", "https://evil.example", NULL);
	is_int(ov_vaultfile_verify(arena, vf, out, strlen(out), now, &id, &err), OV_E_DENIED, "and one from another issuer");
	run("sign", "--file", file, "--user", "ada", "--tenant", "other", NULL);
	is_int(ov_vaultfile_verify(arena, vf, out, strlen(out), now, &id, &err), OV_OK, "a tenant in the assertion");
	is_str(id.tenant, "acme", "does not change the issuer's");
	ov_jwt_peek(arena, out, strlen(out), &header, &claims, NULL);
	is_str(ov_json_get_string(claims, "tenant"), "other", "though it is there to be read by one with a tenant claim");
	is_int(run("sign", "--file", file, NULL), 1, "sign needs a user");
	is_int(run("sign", "--file", file, "--user", "ada", "--ttl", "soon", NULL), 1, "a lifetime is a number");
	is_int(run("sign", "--file", file, "--user", "ada", "--claim", "x", NULL), 1, "a claim has a value");
	ov_vaultfile_free(vf);
	forget();
	is_int(run("sign", "--file", file, "--user", "ada", NULL), 1, "sign needs its key");
}

static void
usage(void)
{
	is_int(run("--help", NULL), 0, "--help");
	ok(strstr(out, "init --file PATH") != NULL, "shows how it is used");
	is_int(run(NULL, NULL), 2, "no command is a mistake");
	is_int(run("show", NULL), 1, "a command needs a file");
	is_int(run("show", "--file", file, NULL), 1, "one that is there");
	is_int(run("burn", "--file", file, NULL), 1, "an unknown command");
	is_int(run("show", "--file", file, "--what", NULL), 2, "an unknown option");
	is_int(run("show", "--file", file, "that", NULL), 1, "an argument too many");
}

int
main(int argc, char **argv)
{
	(void) argc;
	arena = ov_arena_new();
	tool = ov_arena_printf(arena, "%s/oauth-vault-keyring", dirname(ov_arena_strdup(arena, argv[0])));
	if (mkdtemp(dir) == NULL)
		return 1;
	file = ov_arena_printf(arena, "%s/vault.json", dir);
	signing_key = ov_arena_printf(arena, "%s.signing-key.json", file);
	init();
	rotation();
	sources();
	at_a_time();
	signing();
	usage();
	rmdir(dir);
	ov_arena_free(arena);
	return done_testing();
}
