/*
 * oauth-vault-keyring.c
 *	  Creates and rotates the vault file, and mints assertions for trying out.
 *
 * Every change writes a new file beside the old one, flushes it, renames it
 * over the old one and flushes the directory: a crash leaves one or the other.
 * A change begins with a lock on the file that is there, so that of two at a
 * time the second one starts from what the first has written.
 *
 * Secrets are read and written in files only, never on the command line, and
 * nothing prints one.  Retiring takes two steps: a retired version is out of
 * the server's ring, but its key stays in the file until it is destroyed.
 */
#include "core/codec.h"
#include "core/keysource.h"
#include "core/vaultfile.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
"oauth-vault-keyring creates and rotates an oauth_vault vault file.\n"
"\n"
"  oauth-vault-keyring init --file PATH [--vault NAME] [--instance ID]\n"
"        [--source assertion|authenticated|role] [--issuer URL] [--audience AUD]\n"
"        [--tenant T] [--allow-host HOST[:PORT]]... [--allow-network CIDR]...\n"
"        [--signing-key PATH]\n"
"  oauth-vault-keyring show     --file PATH\n"
"  oauth-vault-keyring add      --file PATH [--key-file KEYFILE]\n"
"        [--key-command PROGRAM [--key-arg ARG]...]      a new version, not yet active\n"
"  oauth-vault-keyring activate --file PATH --version N\n"
"  oauth-vault-keyring retire   --file PATH --version N [--undo | --destroy]\n"
"  oauth-vault-keyring sign     --file PATH --user USER [--tenant T] [--actor AGENT]\n"
"        [--ttl SECONDS] [--issuer URL] [--audience AUD] [--claim NAME=VALUE]...\n"
"        [--signing-key PATH]\n"
"\n"
"The key of a new version is random and written into the vault file, or into\n"
"KEYFILE, which is read instead if it is there; or it is what PROGRAM prints:\n"
"32 bytes in base64url.\n"
"\n"
"retire takes a version out of the server's ring and keeps its key; --undo puts\n"
"it back, --destroy removes a retired version for ever. Before: activate another\n"
"one, reload, SELECT oauth_vault.oauth_rotate_keys('rewrap') in every database,\n"
"and wait until oauth_vault.oauth_key_rotation says done.\n"
"\n"
"init also writes a development signing key (PATH.signing-key.json) whose public\n"
"half the vault file pins; sign uses it, and puts --tenant into the claim \"tenant\".\n"
"In production pin the keys of your own identity service instead.\n";

#define MAX_LIST 32

typedef struct Options
{
	const char *file,
			   *vault,
			   *instance,
			   *source,
			   *issuer,
			   *audience,
			   *tenant,
			   *signing_key,
			   *user,
			   *actor,
			   *key_file;
	long		ttl;
	long		version;
	bool		undo,
				destroy;
	const char *hosts[MAX_LIST],
			   *networks[MAX_LIST],
			   *claims[MAX_LIST],
			   *command[OV_KEY_COMMAND_ARGS];
	int			nhosts,
				nnetworks,
				nclaims,
				ncommand;
} Options;

static OvArena *arena;

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt,...)
{
	va_list		args;

	fputs("oauth-vault-keyring: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	ov_arena_free(arena);
	exit(1);
}

static char *
read_all(const char *path, size_t *len)
{
	FILE	   *f = fopen(path, "re");
	char	   *buf = ov_arena_alloc(arena, 1024 * 1024);

	if (f == NULL)
		die("could not open \"%s\": %s", path, strerror(errno));
	setvbuf(f, NULL, _IONBF, 0);
	*len = fread(buf, 1, 1024 * 1024 - 1, f);
	if (ferror(f))
		die("could not read \"%s\": %s", path, strerror(errno));
	fclose(f);
	return buf;
}

static const OvJson *
read_json(const char *path)
{
	size_t		len;
	char	   *text = read_all(path, &len);
	const OvJson *doc;
	OvError		err;

	if (ov_json_parse(arena, text, len, &doc, &err) != OV_OK)
		die("\"%s\": %s", path, err.message);
	return doc;
}

static void
sync_directory(const char *path)
{
	char	   *dir = dirname(ov_arena_strdup(arena, path));
	int			fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) != 0)
		die("could not flush directory \"%s\": %s", dir, strerror(errno));
	close(fd);
}

static const char *being_written;	/* a file to be removed if we cannot go on */

static void __attribute__((noreturn))
give_up(const char *what)
{
	int			error = errno;

	unlink(being_written);
	die("could not %s \"%s\": %s", what, being_written, strerror(error));
}

/* A new file beside path, flushed; like: whose owner and mode it takes, or NULL. */
static char *
write_beside(const char *path, const char *text, const struct stat *like)
{
	char	   *temp = ov_arena_printf(arena, "%s.new.%ld", path, (long) getpid());
	size_t		len = strlen(text);
	int			fd;

	unlink(temp);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		die("could not create \"%s\": %s", temp, strerror(errno));
	being_written = temp;
	if (like != NULL && (fchown(fd, like->st_uid, like->st_gid) != 0 || fchmod(fd, like->st_mode & 0640) != 0))
		give_up("set the owner of");
	while (len > 0)
	{
		ssize_t		n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			give_up("write");
		text += n;
		len -= (size_t) n;
	}
	if (fsync(fd) != 0 || close(fd) != 0)
		give_up("flush");
	return temp;
}

/* What is put in place must be what the server will accept. */
static void
check_vault_file(const char *temp, const char *consequence)
{
	OvVaultFile *vf;
	OvError		err;

	if (ov_vaultfile_load(temp, NULL, &vf, &err) != OV_OK)
	{
		unlink(temp);
		die("%s: %s", consequence, err.message);
	}
	ov_vaultfile_free(vf);
}

/* Appears whole or not at all, and never in place of another. */
static void
create_file(const char *path, const char *text, bool vault_file)
{
	char	   *temp = write_beside(path, text, NULL);
	int			failed;

	if (vault_file)
		check_vault_file(temp, "nothing was written");
	failed = link(temp, path) == 0 ? 0 : errno;
	unlink(temp);
	if (failed != 0)
		die("could not create \"%s\": %s", path, strerror(failed));
	sync_directory(path);
}

static void
replace_file(const char *path, const char *text)
{
	struct stat st;
	char	   *temp;

	if (stat(path, &st) != 0)
		die("could not stat \"%s\": %s", path, strerror(errno));
	temp = write_beside(path, text, &st);
	check_vault_file(temp, "left as it was");
	if (rename(temp, path) != 0)
		give_up("rename");
	sync_directory(path);
}

/*
 * Held until the process ends.  The lock is on the file itself, which a change
 * replaces: whoever has waited looks whether it still is the one in place.
 */
static void
lock_file(const char *path)
{
	for (;;)
	{
		struct stat locked,
					there;
		int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

		if (fd < 0)
			die("could not open \"%s\": %s", path, strerror(errno));
		while (flock(fd, LOCK_EX) != 0)
			if (errno != EINTR)
				die("could not lock \"%s\": %s", path, strerror(errno));
		if (fstat(fd, &locked) == 0 && stat(path, &there) == 0 &&
			locked.st_dev == there.st_dev && locked.st_ino == there.st_ino)
			return;
		close(fd);
	}
}

static char *
new_key(void)
{
	char	   *key = ov_random_token(arena, OV_KEY_LEN);

	if (key == NULL)
		die("no random bytes");
	return key;
}

static char *
today(void)
{
	time_t		now = time(NULL);
	struct tm	tm;
	char		buf[32];

	gmtime_r(&now, &tm);
	strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return ov_arena_strdup(arena, buf);
}

static void
put_member(OvStr *s, const char *name, const char *value)
{
	ov_json_quote(s, name, strlen(name));
	ov_str_puts(s, ": ");
	ov_json_quote(s, value, strlen(value));
}

static void
put_list(OvStr *s, const char *name, const char *const *values, int n)
{
	ov_str_printf(s, ",\n  \"%s\": [", name);
	for (int i = 0; i < n; i++)
	{
		ov_str_puts(s, i ? ", " : "");
		ov_json_quote(s, values[i], strlen(values[i]));
	}
	ov_str_puts(s, "]");
}

static const char *
signing_key_path(const Options *o)
{
	return o->signing_key ? o->signing_key : ov_arena_printf(arena, "%s.signing-key.json", o->file);
}

static void
command_init(const Options *o)
{
	const char *vault = o->vault ? o->vault : "oauth_vault",
			   *source = o->source ? o->source : "assertion",
			   *issuer = o->issuer ? o->issuer : "https://app.example",
			   *audience = o->audience ? o->audience : vault,
			   *key_path = signing_key_path(o);
	char	   *private_jwk,
			   *public_jwk;
	OvStr		s,
				k;
	OvError		err;
	bool		assertion = strcmp(source, "assertion") == 0;

	if (access(o->file, F_OK) == 0)
		die("\"%s\" exists already", o->file);
	if (assertion && access(key_path, F_OK) == 0)
		die("\"%s\" exists already", key_path);
	ov_str_init(&s, arena);
	ov_str_puts(&s, "{\n  ");
	put_member(&s, "vault", vault);
	ov_str_puts(&s, ",\n  ");
	put_member(&s, "instance", o->instance ? o->instance : ov_random_token(arena, 9));
	ov_str_printf(&s, ",\n  \"peers\": [],\n  \"keyring\": {\"active\": 1, \"versions\": [\n"
				  "    {\"version\": 1, \"created\": \"%s\", \"key\": \"%s\"}\n  ]},\n  \"identity\": {",
				  today(), new_key());
	put_member(&s, "source", source);
	if (assertion)
	{
		if (ov_jwk_generate(arena, &private_jwk, &public_jwk, &err) != OV_OK)
			die("%s", err.message);
		ov_str_puts(&s, ", \"issuers\": [\n    {");
		put_member(&s, "issuer", issuer);
		ov_str_puts(&s, ", ");
		put_member(&s, "audience", audience);
		ov_str_puts(&s, ", ");
		put_member(&s, "tenant", o->tenant ? o->tenant : "");
		ov_str_printf(&s, ",\n     \"jwks\": {\"keys\": [%s]}}\n  ]", public_jwk);
	}
	ov_str_puts(&s, "}");
	put_list(&s, "allowed_hosts", o->hosts, o->nhosts);
	put_list(&s, "allowed_networks", o->networks, o->nnetworks);
	ov_str_puts(&s, "\n}\n");
	create_file(o->file, s.data, true);
	if (assertion)
	{
		ov_str_init(&k, arena);
		ov_str_puts(&k, "{");
		put_member(&k, "issuer", issuer);
		ov_str_puts(&k, ", ");
		put_member(&k, "audience", audience);
		ov_str_printf(&k, ", \"jwk\": %s}\n", private_jwk);
		create_file(key_path, k.data, false);
	}
	printf("wrote %s\n", o->file);
	if (assertion)
		printf("wrote %s (development signing key)\n", key_path);
}

static void
command_show(const Options *o)
{
	OvVaultFile *vf;
	OvError		err;

	if (ov_vaultfile_load(o->file, NULL, &vf, &err) != OV_OK)
		die("%s", err.message);
	printf("%s\n", ov_vaultfile_public(arena, vf));
	ov_vaultfile_free(vf);
}

/* ---- changes of the keyring ---- */

typedef enum Change
{
	ADD, ACTIVATE, RETIRE, UNDO, DESTROY
} Change;

/* The member that holds, or tells, the key of a new version */
static void
put_new_key(OvStr *s, const Options *o)
{
	unsigned char key[OV_KEY_LEN];
	OvError		err;

	if (o->ncommand > 0)
	{
		ov_str_puts(s, "\"key_command\": [");
		for (int i = 0; i < o->ncommand; i++)
		{
			ov_str_puts(s, i ? ", " : "");
			ov_json_quote(s, o->command[i], strlen(o->command[i]));
		}
		ov_str_puts(s, "]");
		return;
	}
	if (o->key_file == NULL)
	{
		put_member(s, "key", new_key());
		return;
	}
	if (o->key_file[0] != '/')
		die("--key-file needs an absolute path");
	if (access(o->key_file, F_OK) != 0)
	{
		create_file(o->key_file, ov_arena_printf(arena, "%s\n", new_key()), false);
		printf("wrote %s\n", o->key_file);
	}
	else if (ov_key_from_file(o->key_file, NULL, key, &err) != OV_OK)
		die("%s", err.message);
	OPENSSL_cleanse(key, sizeof(key));
	put_member(s, "key_file", o->key_file);
}

static void
put_version(OvStr *s, const OvJson *v, const char *left_out, const char *retired)
{
	bool		first = true;

	ov_str_puts(s, "{");
	for (const OvJson *m = v->child; m != NULL; m = m->next)
	{
		if (left_out != NULL && strcmp(m->key, left_out) == 0)
			continue;
		ov_str_puts(s, first ? "" : ", ");
		first = false;
		ov_json_quote(s, m->key, strlen(m->key));
		ov_str_puts(s, ": ");
		ov_json_write(s, m);
	}
	if (retired != NULL)
	{
		ov_str_puts(s, ", ");
		put_member(s, "retired", retired);
	}
	ov_str_puts(s, "}");
}

/* "last" keeps the highest version ever given, so that none is given twice; it is returned. */
static long
put_keyring(OvStr *s, const OvJson *keyring, long active, const Options *o, Change change)
{
	int64_t		version,
				last = 0;
	bool		first = true;

	(void) ov_json_int64(ov_json_get(keyring, "last"), false, &last);
	ov_str_printf(s, "{\"active\": %ld, \"versions\": [", active);
	for (const OvJson *v = ov_json_get(keyring, "versions")->child; v != NULL; v = v->next)
	{
		bool		meant;

		if (!ov_json_int64(ov_json_get(v, "version"), false, &version))
			die("a key version is malformed");
		if (version > last)
			last = version;
		meant = version == o->version;
		if (change == DESTROY && meant)
			continue;
		ov_str_puts(s, first ? "\n    " : ",\n    ");
		first = false;
		put_version(s, v, change == UNDO && meant ? "retired" : NULL, change == RETIRE && meant ? today() : NULL);
	}
	if (change == ADD)
	{
		ov_str_printf(s, "%s{\"version\": %ld, \"created\": \"%s\", ", first ? "\n    " : ",\n    ",
					  (long) ++last, today());
		put_new_key(s, o);
		ov_str_puts(s, "}");
	}
	ov_str_printf(s, "\n  ], \"last\": %ld}", (long) last);
	return (long) last;
}

/* Is this version there, and in the state that the change needs? */
static void
check_change(const OvJson *keyring, long version, long active, Change change)
{
	const OvJson *found = NULL;
	bool		retired;

	if (change == ADD)
		return;
	for (const OvJson *v = ov_json_get(keyring, "versions")->child; v != NULL; v = v->next)
	{
		int64_t		number;

		if (ov_json_int64(ov_json_get(v, "version"), false, &number) && number == version)
			found = v;
	}
	if (found == NULL)
		die("there is no version %ld", version);
	retired = ov_json_get(found, "retired") != NULL;
	if (change == RETIRE && version == active)
		die("version %ld is the active one: activate another first", version);
	if ((change == RETIRE || change == ACTIVATE) && retired)
		die("version %ld is retired: retire --undo puts it back", version);
	if ((change == UNDO || change == DESTROY) && !retired)
		die("version %ld is not retired", version);
}

/* add, activate, retire: the document again, with another keyring */
static void
command_change(const Options *o, Change change)
{
	const OvJson *doc,
			   *keyring;
	long		active,
				last = 0;
	OvVaultFile *vf;
	OvError		err;
	OvStr		s;

	lock_file(o->file);
	if (ov_vaultfile_load(o->file, NULL, &vf, &err) != OV_OK)
		die("%s", err.message);
	active = ov_vaultfile_active_version(vf);
	ov_vaultfile_free(vf);
	doc = read_json(o->file);
	keyring = ov_json_get(doc, "keyring");
	check_change(keyring, o->version, active, change);
	if (change == ACTIVATE)
		active = o->version;
	ov_str_init(&s, arena);
	ov_str_puts(&s, "{");
	for (const OvJson *v = doc->child; v != NULL; v = v->next)
	{
		ov_str_puts(&s, v == doc->child ? "\n  " : ",\n  ");
		ov_json_quote(&s, v->key, strlen(v->key));
		ov_str_puts(&s, ": ");
		if (strcmp(v->key, "keyring") == 0)
			last = put_keyring(&s, v, active, o, change);
		else
			ov_json_write(&s, v);
	}
	ov_str_puts(&s, "\n}\n");
	replace_file(o->file, s.data);
	switch (change)
	{
		case ADD:
			printf("added version %ld\n", last);
			break;
		case ACTIVATE:
			printf("version %ld is active: reload the server\n", active);
			break;
		case RETIRE:
			printf("retired version %ld; its key is still in the file\n"
				   "Reload the server. If a database still needs the version, the server says so in\n"
				   "its log and goes on with the keyring it has: then retire --undo, and rotate first.\n",
				   o->version);
			break;
		case UNDO:
			printf("version %ld is back: reload the server\n", o->version);
			break;
		case DESTROY:
			printf("destroyed version %ld: no backup that needs it can be opened any more\n", o->version);
			break;
	}
}

static void
command_sign(const Options *o)
{
	const OvJson *key = read_json(signing_key_path(o));
	const char *issuer = o->issuer ? o->issuer : ov_json_get_string(key, "issuer"),
			   *audience = o->audience ? o->audience : ov_json_get_string(key, "audience");
	char	   *jwt,
			   *jti = ov_random_token(arena, 16);
	long		now = (long) time(NULL);
	OvStr		s;
	OvError		err;

	if (o->user == NULL)
		die("sign needs --user");
	if (issuer == NULL || audience == NULL || ov_json_get(key, "jwk") == NULL || jti == NULL)
		die("the signing key file needs \"jwk\", \"issuer\" and \"audience\"");
	ov_str_init(&s, arena);
	ov_str_puts(&s, "{");
	put_member(&s, "iss", issuer);
	ov_str_puts(&s, ",");
	put_member(&s, "aud", audience);
	ov_str_puts(&s, ",");
	put_member(&s, "sub", o->user);
	ov_str_printf(&s, ",\"iat\":%ld,\"exp\":%ld,\"jti\":\"%s\"", now, now + o->ttl, jti);
	if (o->tenant != NULL)
	{
		ov_str_puts(&s, ",");
		put_member(&s, "tenant", o->tenant);
	}
	if (o->actor != NULL)
	{
		ov_str_puts(&s, ",\"act\":{");
		put_member(&s, "sub", o->actor);
		ov_str_puts(&s, "}");
	}
	for (int i = 0; i < o->nclaims; i++)
	{
		const char *eq = strchr(o->claims[i], '=');

		if (eq == NULL)
			die("--claim needs NAME=VALUE");
		ov_str_puts(&s, ",");
		put_member(&s, ov_arena_strndup(arena, o->claims[i], (size_t) (eq - o->claims[i])), eq + 1);
	}
	ov_str_puts(&s, "}");
	if (ov_jwt_sign(arena, ov_json_get(key, "jwk"), "\"typ\":\"JWT\"", s.data, &jwt, &err) != OV_OK)
		die("%s", err.message);
	puts(jwt);
}

static void
add_to(const char **list, int *n, const char *value)
{
	if (*n == MAX_LIST)
		die("too many values");
	list[(*n)++] = value;
}

static long
number(const char *option, const char *value)
{
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(value, &end, 10);
	if (end == value || *end != '\0' || errno != 0 || labs(n) > INT32_MAX)
		die("%s needs a number", option);
	return n;
}

static void
parse_options(int argc, char **argv, Options *o)
{
	static const struct option options[] = {
		{"file", required_argument, NULL, 'f'}, {"vault", required_argument, NULL, 'v'},
		{"instance", required_argument, NULL, 'i'}, {"source", required_argument, NULL, 's'},
		{"issuer", required_argument, NULL, 'I'}, {"audience", required_argument, NULL, 'A'},
		{"tenant", required_argument, NULL, 't'}, {"allow-host", required_argument, NULL, 'H'},
		{"allow-network", required_argument, NULL, 'N'}, {"signing-key", required_argument, NULL, 'k'},
		{"user", required_argument, NULL, 'u'}, {"actor", required_argument, NULL, 'a'},
		{"ttl", required_argument, NULL, 'T'}, {"claim", required_argument, NULL, 'c'},
		{"version", required_argument, NULL, 'n'}, {"help", no_argument, NULL, 'h'},
		{"key-file", required_argument, NULL, 'K'}, {"key-command", required_argument, NULL, 'C'},
		{"key-arg", required_argument, NULL, 'G'}, {"undo", no_argument, NULL, 'U'},
		{"destroy", no_argument, NULL, 'D'},
		{NULL, 0, NULL, 0}
	};
	int			c;

	o->ttl = 300;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
	{
		switch (c)
		{
			case 'f':
				o->file = optarg;
				break;
			case 'v':
				o->vault = optarg;
				break;
			case 'i':
				o->instance = optarg;
				break;
			case 's':
				o->source = optarg;
				break;
			case 'I':
				o->issuer = optarg;
				break;
			case 'A':
				o->audience = optarg;
				break;
			case 't':
				o->tenant = optarg;
				break;
			case 'k':
				o->signing_key = optarg;
				break;
			case 'u':
				o->user = optarg;
				break;
			case 'a':
				o->actor = optarg;
				break;
			case 'T':
				o->ttl = number("--ttl", optarg);
				break;
			case 'n':
				o->version = number("--version", optarg);
				break;
			case 'H':
				add_to(o->hosts, &o->nhosts, optarg);
				break;
			case 'N':
				add_to(o->networks, &o->nnetworks, optarg);
				break;
			case 'c':
				add_to(o->claims, &o->nclaims, optarg);
				break;
			case 'K':
				o->key_file = optarg;
				break;
			case 'C':
				if (o->ncommand > 0)
					die("--key-command is given twice");
				o->command[o->ncommand++] = optarg;
				break;
			case 'G':
				if (o->ncommand == 0 || o->ncommand == OV_KEY_COMMAND_ARGS)
					die(o->ncommand == 0 ? "--key-arg follows --key-command" : "too many values");
				o->command[o->ncommand++] = optarg;
				break;
			case 'U':
				o->undo = true;
				break;
			case 'D':
				o->destroy = true;
				break;
			case 'h':
				fputs(usage, stdout);
				exit(0);
			default:
				fputs(usage, stderr);
				exit(2);
		}
	}
	if (optind < argc)
		die("unexpected argument \"%s\"", argv[optind]);
	if (o->undo && o->destroy)
		die("--undo and --destroy exclude each other");
	if (o->key_file != NULL && o->ncommand > 0)
		die("--key-file and --key-command exclude each other");
}

static OvCode
run_key_command(const OvJson *argv, int timeout_ms, unsigned char key[OV_KEY_LEN], OvError *err)
{
	return ov_key_from_command(argv, timeout_ms, NULL, key, err);
}

int
main(int argc, char **argv)
{
	Options		o = {0};
	const char *command = argc > 1 ? argv[1] : "--help";

	if (strcmp(command, "--help") == 0 || strcmp(command, "help") == 0)
	{
		fputs(usage, argc > 1 ? stdout : stderr);
		return argc > 1 ? 0 : 2;
	}
	arena = ov_arena_new();
	ov_vaultfile_command = run_key_command;
	parse_options(argc - 1, argv + 1, &o);
	if (o.file == NULL)
		die("%s needs --file", command);
	if (strcmp(command, "init") == 0)
		command_init(&o);
	else if (strcmp(command, "show") == 0)
		command_show(&o);
	else if (strcmp(command, "add") == 0)
		command_change(&o, ADD);
	else if (strcmp(command, "activate") == 0)
		command_change(&o, ACTIVATE);
	else if (strcmp(command, "retire") == 0)
		command_change(&o, o.undo ? UNDO : o.destroy ? DESTROY : RETIRE);
	else if (strcmp(command, "sign") == 0)
		command_sign(&o);
	else
		die("unknown command \"%s\"", command);
	ov_arena_free(arena);
	return 0;
}
