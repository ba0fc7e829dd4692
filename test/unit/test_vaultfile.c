/*
 * test_vaultfile.c
 *	  The vault file: whom it is read from, what it holds, whom it lets in.
 *
 * As root the test also takes the part of another user, by its effective id.
 */
#include "core/codec.h"
#include "core/vaultfile.h"
#include "tap.h"

#include <sys/stat.h>
#include <unistd.h>

#define NOW 1800000000
#define KEY_1 "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"
#define KEY_2 "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI"
#define KEYRING "\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "\"}]}"
#define NAMES "\"vault\":\"v\",\"instance\":\"i\""
#define ROLE "\"identity\":{\"source\":\"role\"}"
#define NOBODY 65534

static OvArena *arena;
static char dir[] = "/tmp/ov_unit_XXXXXX";
static const char *path;
static char *private_a,
		   *public_a,
		   *private_b,
		   *public_b;

static void
write_file(const char *text, mode_t mode)
{
	FILE	   *f;

	unlink(path);
	f = fopen(path, "w");
	if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0 || chmod(path, mode) != 0)
		diag("could not write %s", path);
}

static OvCode
load(const char *text, OvVaultFile **vf, OvError *err)
{
	write_file(text, 0600);
	return ov_vaultfile_load(path, NULL, vf, err);
}

/* A vault file with this identity section */
static OvVaultFile *
vault(const char *identity)
{
	OvVaultFile *vf;
	OvError		err;

	if (load(ov_arena_printf(arena, "{" NAMES "," KEYRING ",\"identity\":%s}", identity), &vf, &err) != OV_OK)
		diag("%s", err.message);
	return vf;
}

static bool
loads_from(const char *p, const char *forbidden)
{
	OvVaultFile *vf;
	bool		loaded = ov_vaultfile_load(p, forbidden, &vf, NULL) == OV_OK;

	ov_vaultfile_free(vf);
	return loaded;
}

static void
modes(void)
{
	static const mode_t own_bad[] = {0604, 0602, 0601, 0620, 0610, 0644, 0660, 0666, 0777, 0606};
	bool		root = geteuid() == 0;
	OvVaultFile *vf;
	OvError		err;

	write_file("{" NAMES "," KEYRING "," ROLE "}", 0600);
	ok(loads_from(path, NULL), "mode 0600 is accepted");
	chmod(path, 0400);
	ok(loads_from(path, NULL), "mode 0400 is accepted");
	for (size_t i = 0; i < sizeof(own_bad) / sizeof(own_bad[0]); i++)
	{
		chmod(path, own_bad[i]);
		is_int(ov_vaultfile_load(path, NULL, &vf, &err), OV_E_CONFIG, "mode 0%o is refused", (unsigned) own_bad[i]);
	}
	ok(strstr(err.message, "has group or world access") != NULL && strstr(err.detail, "0600") != NULL, "with a hint what to do");
	chmod(path, 0640);
	is_int(loads_from(path, NULL), root, "mode 0640 is accepted from root only");
	if (root)
	{
		/* Another user's server: the group of a file of root's is the server's. */
		ok(chown(path, 0, NOBODY) == 0 && setegid(NOBODY) == 0 && seteuid(NOBODY) == 0, "as another user");
		ok(loads_from(path, NULL), "root's file with mode 0640 is accepted");
		ok(seteuid(0) == 0 && chmod(path, 0644) == 0 && seteuid(NOBODY) == 0, "once more");
		ok(!loads_from(path, NULL), "root's file with mode 0644 is refused");
		ok(seteuid(0) == 0 && chmod(path, 0660) == 0 && seteuid(NOBODY) == 0, "once more");
		ok(!loads_from(path, NULL), "root's file with mode 0660 is refused");
		ok(seteuid(0) == 0 && chown(path, NOBODY, NOBODY) == 0 && chmod(path, 0640) == 0 && seteuid(NOBODY) == 0, "once more");
		ok(!loads_from(path, NULL), "one's own file with mode 0640 is refused");
		ok(seteuid(0) == 0 && chmod(path, 0600) == 0 && seteuid(NOBODY) == 0, "once more");
		ok(loads_from(path, NULL), "one's own file with mode 0600 is accepted");
		ok(seteuid(0) == 0 && chown(path, NOBODY - 1, NOBODY) == 0 && chmod(path, 0644) == 0 && seteuid(NOBODY) == 0, "once more");
		is_int(ov_vaultfile_load(path, NULL, &vf, &err), OV_E_CONFIG, "a third user's file is refused");
		ok(strstr(err.message, "must be owned by") != NULL, "because of its owner");
		ok(seteuid(0) == 0 && setegid(0) == 0, "back");
	}
}

static void
places(void)
{
	char	   *data = ov_arena_printf(arena, "%s/data", dir),
			   *beside = ov_arena_printf(arena, "%s/data2", dir),
			   *inside = ov_arena_printf(arena, "%s/data/vault.json", dir),
			   *other = ov_arena_printf(arena, "%s/data2/vault.json", dir),
			   *link_in = ov_arena_printf(arena, "%s/link.json", dir),
			   *fifo = ov_arena_printf(arena, "%s/fifo", dir);
	OvVaultFile *vf;
	OvError		err;

	mkdir(data, 0700);
	mkdir(beside, 0700);
	write_file("{" NAMES "," KEYRING "," ROLE "}", 0600);
	ok(link(path, inside) == 0 && symlink(inside, link_in) == 0 && mkfifo(fifo, 0600) == 0, "files to try");
	ok(loads_from(path, data), "a file beside the data directory is accepted");
	is_int(ov_vaultfile_load(inside, data, &vf, &err), OV_E_CONFIG, "a file below the data directory is refused");
	ok(strstr(err.message, "is below the data directory") != NULL, "and told why");
	ok(!loads_from(ov_arena_printf(arena, "%s/data2/../data/vault.json", dir), data), "also by another spelling");
	ok(!loads_from(link_in, data), "also through a symbolic link");
	ok(!loads_from(inside, ov_arena_printf(arena, "%s/data2/../data/", dir)), "also by another spelling of the directory");
	ok(!loads_from(path, dir), "also further down");
	ok(link(path, other) == 0 && loads_from(other, data), "a directory whose name only begins the same is another");
	ok(loads_from(link_in, NULL), "a symbolic link is followed");
	ok(!loads_from(path, ov_arena_printf(arena, "%s/none", dir)), "a data directory that is not there hides nothing");
	is_int(ov_vaultfile_load(ov_arena_printf(arena, "%s/none", dir), NULL, &vf, &err), OV_E_IO, "no file is an error");
	is_int(ov_vaultfile_load(data, NULL, &vf, &err), OV_E_CONFIG, "a directory is refused");
	alarm(5);
	is_int(ov_vaultfile_load(fifo, NULL, &vf, &err), OV_E_CONFIG, "a FIFO is refused and not waited for");
	alarm(0);
	unlink(inside);
	unlink(other);
	unlink(link_in);
	unlink(fifo);
	rmdir(data);
	rmdir(beside);
}

static void
documents(void)
{
	static const struct
	{
		const char *name,
				   *text;
	}			refused[] = {
		{"nothing", ""},
		{"an array", "[]"},
		{"trailing text", "{" NAMES "," KEYRING "," ROLE "} x"},
		{"no keyring", "{" NAMES "," ROLE "}"},
		{"no identity", "{" NAMES "," KEYRING "}"},
		{"no vault", "{\"instance\":\"i\"," KEYRING "," ROLE "}"},
		{"no instance", "{\"vault\":\"v\"," KEYRING "," ROLE "}"},
		{"a member twice", "{" NAMES "," KEYRING "," ROLE "," ROLE "}"},
		{"two keyrings", "{" NAMES "," KEYRING "," KEYRING "," ROLE "}"},
		{"an empty keyring", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[]}," ROLE "}"},
		{"no active version", "{" NAMES ",\"keyring\":{\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "\"}]}," ROLE "}"},
		{"an active version that is not there", "{" NAMES ",\"keyring\":{\"active\":2,\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "\"}]}," ROLE "}"},
		{"version 0", "{" NAMES ",\"keyring\":{\"active\":0,\"versions\":[{\"version\":0,\"key\":\"" KEY_1 "\"}]}," ROLE "}"},
		{"a version twice", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "\"},{\"version\":1,\"key\":\"" KEY_2 "\"}]}," ROLE "}"},
		{"a version that is a string", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":\"1\",\"key\":\"" KEY_1 "\"}]}," ROLE "}"},
		{"a version over 32 bits", "{" NAMES ",\"keyring\":{\"active\":4294967297,\"versions\":[{\"version\":4294967297,\"key\":\"" KEY_1 "\"}]}," ROLE "}"},
		{"a key of 31 bytes", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ\"}]}," ROLE "}"},
		{"a key with padding", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "=\"}]}," ROLE "}"},
		{"a key that is missing", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1}]}," ROLE "}"},
		{"a key and a key file", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "\",\"key_file\":\"/k\"}]}," ROLE "}"},
		{"a key file by a relative path", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key_file\":\"k\"}]}," ROLE "}"},
		{"a key file that is a number", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key_file\":1}]}," ROLE "}"},
		{"a key command that is a string", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key_command\":\"/bin/true\"}]}," ROLE "}"},
		{"a key command by a relative path", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key_command\":[\"true\"]}]}," ROLE "}"},
		{"a key command with a timeout of an hour", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key_command\":[\"/bin/true\"],\"timeout\":3600}]}," ROLE "}"},
		{"a key command where none is run", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key_command\":[\"/bin/true\"]}]}," ROLE "}"},
		{"an active version that is retired", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "\",\"retired\":\"2026\"}]}," ROLE "}"},
		{"a version retired by a boolean", "{" NAMES ",\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "\"},{\"version\":2,\"key\":\"" KEY_2 "\",\"retired\":true}]}," ROLE "}"},
		{"hosts that are a string", "{" NAMES "," KEYRING "," ROLE ",\"allowed_hosts\":\"as.example\"}"},
		{"hosts that are numbers", "{" NAMES "," KEYRING "," ROLE ",\"allowed_hosts\":[1]}"},
		{"networks that are an object", "{" NAMES "," KEYRING "," ROLE ",\"allowed_networks\":{}}"},
		{"peers that are null", "{" NAMES "," KEYRING "," ROLE ",\"peers\":null}"},
		{"an unknown identity source", "{" NAMES "," KEYRING ",\"identity\":{\"source\":\"trust\"}}"},
		{"assertions without an issuer", "{" NAMES "," KEYRING ",\"identity\":{\"source\":\"assertion\"}}"},
		{"assertions with no issuers", "{" NAMES "," KEYRING ",\"identity\":{\"source\":\"assertion\",\"issuers\":[]}}"},
		{"issuers that are an object", "{" NAMES "," KEYRING ",\"identity\":{\"source\":\"assertion\",\"issuers\":{}}}"},
		{"a negative leeway", "{" NAMES "," KEYRING ",\"identity\":{\"source\":\"role\",\"leeway\":-1}}"},
		{"a leeway of an hour", "{" NAMES "," KEYRING ",\"identity\":{\"source\":\"role\",\"leeway\":3600}}"},
	};
	OvVaultFile *vf;
	OvError		err;
	char	   *big;

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
	{
		memset(&err, 0, sizeof(err));
		ok(load(refused[i].text, &vf, &err) != OV_OK && vf == NULL && err.message[0] != '\0' && strstr(err.message, "AQEB") == NULL,
		   "vault file refused: %s", refused[i].name);
	}
	big = ov_arena_alloc(arena, 1024 * 1024 + 2);
	memset(big, ' ', 1024 * 1024 + 1);
	is_int(load(big, &vf, &err), OV_E_LIMIT, "vault file refused: more than 1 MiB");
}

static void
issuers(void)
{
	static const struct
	{
		const char *name,
				   *members;	/* beside the key set */
		bool		good;
	}			cases[] = {
		{"one tenant", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"\"", true},
		{"a tenant claim", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant_claim\":\"tid\",\"tenants\":[\"a\"]", true},
		{"no issuer", "\"audience\":\"A\",\"tenant\":\"\"", false},
		{"no audience", "\"issuer\":\"I\",\"tenant\":\"\"", false},
		{"no tenant", "\"issuer\":\"I\",\"audience\":\"A\"", false},
		{"tenant and claim", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"\",\"tenant_claim\":\"tid\",\"tenants\":[\"a\"]", false},
		{"a claim without tenants", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant_claim\":\"tid\"", false},
		{"a claim with no tenants", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant_claim\":\"tid\",\"tenants\":[]", false},
		{"a claim with a number for a tenant", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant_claim\":\"tid\",\"tenants\":[1]", false},
		{"a tenant that is a number", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":1,\"tenant_claim\":\"tid\",\"tenants\":[\"a\"]", false},
		{"a subject claim that is no string", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"\",\"subject_claim\":null", false},
		{"single use as a string", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"\",\"single_use\":\"true\"", false},
		{"a maximal age as a string", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"\",\"max_age\":\"60\"", false},
		{"a maximal age of nothing", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"\",\"max_age\":0", false},
		{"a maximal age beyond all time", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"\",\"max_age\":9223372036854775799", false},
	};
	static const struct
	{
		const char *name,
				   *one,
				   *two;
		bool		good;
	}			pairs[] = {
		{"of two tenants", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"a\"", "\"issuer\":\"J\",\"audience\":\"A\",\"tenant\":\"b\"", true},
		{"of one tenant", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"a\"", "\"issuer\":\"J\",\"audience\":\"A\",\"tenant\":\"a\"", false},
		{"of a tenant and a list with it", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"a\"",
		"\"issuer\":\"J\",\"audience\":\"A\",\"tenant_claim\":\"t\",\"tenants\":[\"b\",\"a\"]", false},
		{"of a list and a tenant in it", "\"issuer\":\"J\",\"audience\":\"A\",\"tenant_claim\":\"t\",\"tenants\":[\"b\",\"a\"]",
		"\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"a\"", false},
		{"of lists that meet", "\"issuer\":\"J\",\"audience\":\"A\",\"tenant_claim\":\"t\",\"tenants\":[\"b\",\"a\"]",
		"\"issuer\":\"I\",\"audience\":\"A\",\"tenant_claim\":\"t\",\"tenants\":[\"c\",\"b\"]", false},
		{"of lists that do not meet", "\"issuer\":\"J\",\"audience\":\"A\",\"tenant_claim\":\"t\",\"tenants\":[\"b\",\"a\"]",
		"\"issuer\":\"I\",\"audience\":\"A\",\"tenant_claim\":\"t\",\"tenants\":[\"c\",\"d\"]", true},
		{"of one name and audience", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"a\"", "\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"b\"", false},
	};
	OvVaultFile *vf;
	OvError		err;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		OvCode		rc = load(ov_arena_printf(arena, "{" NAMES "," KEYRING ",\"identity\":{\"source\":\"assertion\",\"issuers\":[{%s,\"jwks\":{\"keys\":[%s]}}]}}",
											  cases[i].members, public_a), &vf, &err);

		ok((rc == OV_OK) == cases[i].good, "an issuer %s: %s", cases[i].good ? "accepted" : "refused", cases[i].name);
		ov_vaultfile_free(vf);
	}
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		OvCode		rc = load(ov_arena_printf(arena, "{" NAMES "," KEYRING ",\"identity\":{\"source\":\"assertion\",\"issuers\":"
											  "[{%s,\"jwks\":{\"keys\":[%s]}},{%s,\"jwks\":{\"keys\":[%s]}}]}}",
											  pairs[i].one, public_a, pairs[i].two, public_b), &vf, &err);

		ok((rc == OV_OK) == pairs[i].good, "two issuers %s: %s", pairs[i].good ? "accepted" : "refused", pairs[i].name);
		ov_vaultfile_free(vf);
	}
	is_int(load(ov_arena_printf(arena, "{" NAMES "," KEYRING ",\"identity\":{\"source\":\"assertion\",\"issuers\":"
								"[{\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"\",\"jwks\":{\"keys\":[%s]}}]}}", private_a), &vf, &err),
		   OV_E_DENIED, "an issuer refused: its private key is pinned");
}

static void
public_part(void)
{
	OvVaultFile *vf;
	OvError		err;
	const OvJson *doc;
	const char *text;

	is_int(load("{" NAMES ",\"peers\":[\"j\"],\"keyring\":{\"active\":2,\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "\"},"
				"{\"version\":2,\"key\":\"" KEY_2 "\"}]},\"identity\":{\"source\":\"authenticated\"},"
				"\"allowed_hosts\":[\"as.example:8443\"],\"allowed_networks\":[\"127.0.0.0/8\"]}", &vf, &err), OV_OK, "a vault file with all it may have");
	is_int(ov_vaultfile_source(vf), OV_ID_AUTHENTICATED, "its identity source");
	is_int(ov_vaultfile_active_version(vf), 2, "its active version");
	text = ov_vaultfile_public(arena, vf);
	ok(ov_json_parse(arena, text, strlen(text), &doc, NULL) == OV_OK, "its public part is JSON");
	is_str(ov_json_string(ov_json_at(doc, "/allowed_hosts/0")), "as.example:8443", "with the hosts");
	is_str(ov_json_string(ov_json_at(doc, "/allowed_networks/0")), "127.0.0.0/8", "the networks");
	is_str(ov_json_string(ov_json_at(doc, "/peers/0")), "j", "the peers");
	is_str(ov_json_get_string(doc, "identity_source"), "authenticated", "the identity source");
	is_int(ov_json_at(doc, "/versions")->count, 2, "and the versions");
	ok(ov_json_is_true(ov_json_at(doc, "/versions/1/active")) && !ov_json_is_true(ov_json_at(doc, "/versions/0/active")), "of which one is active");
	is_int(strlen(ov_json_string(ov_json_at(doc, "/versions/0/fingerprint"))), 16, "each with a fingerprint");
	ok(strcmp(ov_json_string(ov_json_at(doc, "/versions/0/fingerprint")), ov_json_string(ov_json_at(doc, "/versions/1/fingerprint"))) != 0, "of its own");
	ok(strstr(text, KEY_1) == NULL && strstr(text, KEY_2) == NULL && strstr(text, "0101010101") == NULL, "and without a key");
	ov_vaultfile_free(vf);
	ov_vaultfile_free(NULL);
}

static void
wrapping(void)
{
	OvVaultFile *both,
			   *second;
	OvError		err;
	OvAad		aad = {0},
				other;
	unsigned char key[OV_KEY_LEN],
				again[OV_KEY_LEN],
				wrapped[OV_KEY_LEN + OV_RECORD_OVERHEAD],
				short_record[5 + OV_RECORD_OVERHEAD];
	uint64_t	version = 0;
	size_t		n;

	load("{" NAMES ",\"keyring\":{\"active\":2,\"versions\":[{\"version\":1,\"key\":\"" KEY_1 "\"},{\"version\":2,\"key\":\"" KEY_2 "\"}]}," ROLE "}", &both, &err);
	load("{" NAMES ",\"keyring\":{\"active\":2,\"versions\":[{\"version\":2,\"key\":\"" KEY_1 "\"}]}," ROLE "}", &second, &err);
	memset(key, 0x77, sizeof(key));
	aad.tenant = "t";
	aad.user_id = "ada";
	aad.purpose = OV_PURPOSE_USER_KEY;
	aad.token_generation = 5;
	is_int(ov_vaultfile_wrap(both, 1, &aad, key, wrapped, &n, &err), OV_OK, "a key is wrapped");
	is_int(n, sizeof(wrapped), "to its length");
	ok(ov_record_key_id(wrapped, n, &version) && version == 1, "and says under which version");
	ok(ov_vaultfile_unwrap(both, &aad, wrapped, n, again, &err) == OV_OK && memcmp(key, again, sizeof(key)) == 0, "it unwraps");
	memset(again, 0, sizeof(again));
	is_int(ov_vaultfile_unwrap(second, &aad, wrapped, n, again, &err), OV_E_NOTFOUND, "not without its version");
	other = aad;
	other.user_id = "eve";
	is_int(ov_vaultfile_unwrap(both, &other, wrapped, n, again, &err), OV_E_AUTH, "not for another user");
	other = aad;
	other.token_generation = 6;
	is_int(ov_vaultfile_unwrap(both, &other, wrapped, n, again, &err), OV_E_AUTH, "not as another row");
	other = aad;
	other.purpose = OV_PURPOSE_AUDIT_KEY;
	is_int(ov_vaultfile_unwrap(both, &other, wrapped, n, again, &err), OV_E_AUTH, "not for another purpose");
	is_int(ov_vaultfile_unwrap(both, &aad, wrapped, n - 1, again, &err), OV_E_SYNTAX, "not cut short");
	ov_vaultfile_wrap(both, 2, &aad, key, wrapped, &n, &err);
	is_int(ov_vaultfile_unwrap(second, &aad, wrapped, n, again, &err), OV_E_AUTH, "not with another key of the same version");
	ok(again[0] == 0, "and nothing was handed out");
	is_int(ov_vaultfile_wrap(both, 3, &aad, key, wrapped, &n, &err), OV_E_NOTFOUND, "no wrapping under a version that is not there");
	ov_record_seal(key, &aad, "short", 5, short_record, &n, NULL);
	is_int(ov_vaultfile_unwrap(both, &aad, short_record, n, again, &err), OV_E_SYNTAX, "another record is no wrapped key");
	ov_vaultfile_free(both);
	ov_vaultfile_free(second);
}

static OvCode
verify(OvVaultFile *vf, const char *private_jwk, const char *claims, OvIdentity *id)
{
	const OvJson *jwk;
	char	   *jwt;
	OvError		err = {0};
	OvCode		rc;

	ov_json_parse(arena, private_jwk, strlen(private_jwk), &jwk, NULL);
	ov_jwt_sign(arena, jwk, NULL, claims, &jwt, NULL);
	rc = ov_vaultfile_verify(arena, vf, jwt, strlen(jwt), NOW, id, &err);
	if ((rc == OV_OK) != (err.message[0] == '\0'))
		diag("code %d with message \"%s\"", (int) rc, err.message);
	return rc;
}

static void
claims(void)
{
#define ACT(inner) "{\"sub\":\"a\",\"act\":" inner "}"
#define WHO "\"iss\":\"https://app.example\",\"aud\":\"vault\",\"sub\":\"ada\""
	static const struct
	{
		const char *name,
				   *claims;
		OvCode		code;
	}			cases[] = {
		{"all as it should be", "{" WHO ",\"iat\":1800000000,\"exp\":1800000060}", OV_OK},
		{"without iat", "{" WHO ",\"exp\":1800000060}", OV_OK},
		{"exp with a fraction", "{" WHO ",\"exp\":1800000060.5}", OV_OK},
		{"audience in an array", "{\"iss\":\"https://app.example\",\"aud\":[\"x\",\"vault\"],\"sub\":\"ada\",\"exp\":1800000060}", OV_OK},
		{"claims nobody knows", "{" WHO ",\"exp\":1800000060,\"x\":{\"y\":[]}}", OV_OK},
		{"exp within the leeway", "{" WHO ",\"exp\":1799999971}", OV_OK},
		{"exp where the leeway ends", "{" WHO ",\"exp\":1799999970}", OV_E_EXPIRED},
		{"exp past", "{" WHO ",\"exp\":1799999000}", OV_E_EXPIRED},
		{"exp 0", "{" WHO ",\"exp\":0}", OV_E_EXPIRED},
		{"no exp", "{" WHO "}", OV_E_DENIED},
		{"exp null", "{" WHO ",\"exp\":null}", OV_E_DENIED},
		{"exp as a string", "{" WHO ",\"exp\":\"1800000060\"}", OV_E_DENIED},
		{"exp negative", "{" WHO ",\"exp\":-1}", OV_E_DENIED},
		{"exp with an exponent", "{" WHO ",\"exp\":1.80000006e9}", OV_E_DENIED},
		{"exp beyond all time", "{" WHO ",\"exp\":9223372036854775799}", OV_E_DENIED},
		{"exp beyond all numbers", "{" WHO ",\"exp\":1e400}", OV_E_DENIED},
		{"exp far, iat far below", "{" WHO ",\"exp\":9223372036854775799,\"iat\":-9223372036854775799}", OV_E_DENIED},
		{"as long as allowed", "{" WHO ",\"iat\":1800000000,\"exp\":1800000630}", OV_OK},
		{"longer than allowed", "{" WHO ",\"iat\":1800000000,\"exp\":1800000631}", OV_E_DENIED},
		{"longer than allowed without iat", "{" WHO ",\"exp\":1800000631}", OV_E_DENIED},
		{"longer than allowed, issued long ago", "{" WHO ",\"iat\":1799990000,\"exp\":1800000060}", OV_E_DENIED},
		{"iat within the leeway", "{" WHO ",\"iat\":1800000030,\"exp\":1800000060}", OV_OK},
		{"iat in the future", "{" WHO ",\"iat\":1800000031,\"exp\":1800000060}", OV_E_DENIED},
		{"iat as a string", "{" WHO ",\"iat\":\"1800000000\",\"exp\":1800000060}", OV_E_DENIED},
		{"nbf past", "{" WHO ",\"nbf\":1799999999,\"exp\":1800000060}", OV_OK},
		{"nbf within the leeway", "{" WHO ",\"nbf\":1800000030,\"exp\":1800000060}", OV_OK},
		{"nbf in the future", "{" WHO ",\"nbf\":1800000031,\"exp\":1800000060}", OV_E_DENIED},
		{"nbf null", "{" WHO ",\"nbf\":null,\"exp\":1800000060}", OV_E_DENIED},
		{"another audience", "{\"iss\":\"https://app.example\",\"aud\":\"other\",\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"an audience in capitals", "{\"iss\":\"https://app.example\",\"aud\":\"Vault\",\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"an audience that begins the same", "{\"iss\":\"https://app.example\",\"aud\":\"vault2\",\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"no audience", "{\"iss\":\"https://app.example\",\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"an empty array of audiences", "{\"iss\":\"https://app.example\",\"aud\":[],\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"an array of audiences with a number", "{\"iss\":\"https://app.example\",\"aud\":[1,\"vault\"],\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"an audience that is an object", "{\"iss\":\"https://app.example\",\"aud\":{\"vault\":1},\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"another issuer", "{\"iss\":\"https://evil.example\",\"aud\":\"vault\",\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"an issuer with a slash", "{\"iss\":\"https://app.example/\",\"aud\":\"vault\",\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"an issuer in capitals", "{\"iss\":\"https://APP.example\",\"aud\":\"vault\",\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"no issuer", "{\"aud\":\"vault\",\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"an issuer in an array", "{\"iss\":[\"https://app.example\"],\"aud\":\"vault\",\"sub\":\"ada\",\"exp\":1800000060}", OV_E_DENIED},
		{"another issuer's name under this key", "{\"iss\":\"https://other.example\",\"aud\":\"vault\",\"sub\":\"ada\",\"tid\":\"a\",\"exp\":1800000060}", OV_E_AUTH},
		{"no subject", "{\"iss\":\"https://app.example\",\"aud\":\"vault\",\"exp\":1800000060}", OV_E_DENIED},
		{"an empty subject", "{\"iss\":\"https://app.example\",\"aud\":\"vault\",\"sub\":\"\",\"exp\":1800000060}", OV_E_DENIED},
		{"a subject that is a number", "{\"iss\":\"https://app.example\",\"aud\":\"vault\",\"sub\":5,\"exp\":1800000060}", OV_E_DENIED},
		{"a jti that is a number", "{" WHO ",\"jti\":5,\"exp\":1800000060}", OV_E_DENIED},
		{"an empty jti", "{" WHO ",\"jti\":\"\",\"exp\":1800000060}", OV_E_DENIED},
		{"an actor that is a string", "{" WHO ",\"act\":\"bot\",\"exp\":1800000060}", OV_E_DENIED},
		{"an actor that is null", "{" WHO ",\"act\":null,\"exp\":1800000060}", OV_E_DENIED},
		{"an actor", "{" WHO ",\"act\":{\"sub\":\"bot\"},\"exp\":1800000060}", OV_OK},
		{"an actor without a name", "{" WHO ",\"act\":{\"client_id\":\"bot\"},\"exp\":1800000060}", OV_E_DENIED},
		{"an actor with an empty name", "{" WHO ",\"act\":{\"sub\":\"\"},\"exp\":1800000060}", OV_E_DENIED},
		{"an actor with a number for a name", "{" WHO ",\"act\":{\"sub\":7},\"exp\":1800000060}", OV_E_DENIED},
		{"an actor of an actor without a name", "{" WHO ",\"act\":{\"sub\":\"a\",\"act\":{}},\"exp\":1800000060}", OV_E_DENIED},
		{"an actor of an actor that is a string", "{" WHO ",\"act\":{\"sub\":\"a\",\"act\":\"b\"},\"exp\":1800000060}", OV_E_DENIED},
		{"eight actors", "{" WHO ",\"act\":" ACT(ACT(ACT(ACT(ACT(ACT(ACT("{\"sub\":\"a\"}"))))))) ",\"exp\":1800000060}", OV_OK},
		{"nine actors", "{" WHO ",\"act\":" ACT(ACT(ACT(ACT(ACT(ACT(ACT(ACT("{\"sub\":\"a\"}")))))))) ",\"exp\":1800000060}", OV_E_DENIED},
		{"a tenant claim where the tenant is fixed", "{" WHO ",\"tenant\":\"b\",\"exp\":1800000060}", OV_OK},
	};
	OvVaultFile *vf = vault(ov_arena_printf(arena, "{\"source\":\"assertion\",\"issuers\":["
											"{\"issuer\":\"https://app.example\",\"audience\":\"vault\",\"tenant\":\"\",\"max_age\":600,\"jwks\":{\"keys\":[%s]}},"
											"{\"issuer\":\"https://other.example\",\"audience\":\"vault\",\"tenant_claim\":\"tid\",\"tenants\":[\"a\",\"b\"],"
											"\"subject_claim\":\"oid\",\"single_use\":true,\"jwks\":{\"keys\":[%s]}}]}", public_a, public_b));
	OvIdentity	id;
	char		user[257];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		is_int(verify(vf, private_a, cases[i].claims, &id), cases[i].code, "an assertion %s: %s",
			   cases[i].code == OV_OK ? "accepted" : "refused", cases[i].name);
		if (cases[i].code == OV_OK && (strcmp(id.user_id, "ada") != 0 || strcmp(id.tenant, "") != 0))
			ok(false, "and is ada's");
	}
	memset(user, 'u', sizeof(user));
	user[256] = '\0';
	is_int(verify(vf, private_a, ov_arena_printf(arena, "{\"iss\":\"https://app.example\",\"aud\":\"vault\",\"sub\":\"%s\",\"exp\":1800000060}", user), &id),
		   OV_E_DENIED, "a subject of 256 bytes is refused");
	is_int(verify(vf, private_a, ov_arena_printf(arena, "{\"iss\":\"https://app.example\",\"aud\":\"vault\",\"sub\":\"%s\",\"exp\":1800000060}", user + 1), &id),
		   OV_OK, "one of 255 is accepted");
	is_int(verify(vf, private_b, "{" WHO ",\"exp\":1800000060}", &id), OV_E_AUTH, "another issuer's key is refused");

	is_int(verify(vf, private_a, ov_arena_printf(arena, "{" WHO ",\"exp\":1800000060,\"act\":{\"sub\":\"a\",\"x\":\"%2030s\"}}", ""), &id),
		   OV_OK, "an actor of 2 kB");
	is_int(verify(vf, private_a, ov_arena_printf(arena, "{" WHO ",\"exp\":1800000060,\"act\":{\"sub\":\"a\",\"x\":\"%2031s\"}}", ""), &id),
		   OV_E_LIMIT, "but no longer one");
	verify(vf, private_a, "{" WHO ",\"exp\":1800000060,\"jti\":\"j1\",\"act\":{\"sub\":\"bot\",\"act\":{\"sub\":\"parent\"}}}", &id);
	is_str(id.actor, "{\"sub\":\"bot\",\"act\":{\"sub\":\"parent\"}}", "the chain of actors is handed out");
	is_str(id.jti, "j1", "with the jti");
	is_str(id.issuer, "https://app.example", "the issuer");
	is_int(id.good_until, 1800000090, "until when it is good");
	ok(id.expires_at == 1800000060 && !id.single_use, "the expiry, and how often it may be used");
	verify(vf, private_a, "{\"iss\":\"https://app.example\",\"aud\":\"vault\",\"sub\":\"A\xcc\x8a|x\",\"exp\":1800000060}", &id);
	is_str(id.user_id, "A\xcc\x8a|x", "the subject is taken byte for byte");
	ok(id.actor == NULL && id.jti == NULL, "what is absent is NULL");

#define OTHER "\"iss\":\"https://other.example\",\"aud\":\"vault\",\"exp\":1800000060"
	is_int(verify(vf, private_b, "{" OTHER ",\"oid\":\"eve\",\"sub\":\"ada\",\"jti\":\"j\",\"tid\":\"b\"}", &id), OV_OK, "a tenant by claim");
	ok(strcmp(id.tenant, "b") == 0 && strcmp(id.user_id, "eve") == 0 && id.single_use, "with a subject by claim, for one use");
	is_int(verify(vf, private_b, "{" OTHER ",\"oid\":\"eve\",\"jti\":\"j\",\"tid\":\"c\"}", &id), OV_E_DENIED, "a tenant that is not listed is refused");
	is_int(verify(vf, private_b, "{" OTHER ",\"oid\":\"eve\",\"jti\":\"j\",\"tid\":\"\"}", &id), OV_E_DENIED, "so is another issuer's tenant");
	is_int(verify(vf, private_b, "{" OTHER ",\"oid\":\"eve\",\"jti\":\"j\"}", &id), OV_E_DENIED, "no tenant");
	is_int(verify(vf, private_b, "{" OTHER ",\"oid\":\"eve\",\"jti\":\"j\",\"tid\":[\"a\"]}", &id), OV_E_DENIED, "a tenant in an array");
	is_int(verify(vf, private_b, "{" OTHER ",\"oid\":\"eve\",\"jti\":\"j\",\"tid\":\"a\",\"tid\":\"b\"}", &id), OV_E_SYNTAX, "two tenants");
	is_int(verify(vf, private_b, "{" OTHER ",\"oid\":\"eve\",\"tid\":\"a\"}", &id), OV_E_DENIED, "no jti, where it may be used once");
	is_int(verify(vf, private_b, "{" OTHER ",\"sub\":\"eve\",\"jti\":\"j\",\"tid\":\"a\"}", &id), OV_E_DENIED, "the subject in a claim that is not the one");
	ov_vaultfile_free(vf);

	vf = vault(ov_arena_printf(arena, "{\"source\":\"assertion\",\"issuers\":["
							   "{\"issuer\":\"I\",\"audience\":\"A\",\"tenant\":\"a\",\"jwks\":{\"keys\":[%s]}},"
							   "{\"issuer\":\"I\",\"audience\":\"B\",\"tenant\":\"b\",\"jwks\":{\"keys\":[%s]}}]}", public_a, public_a));
	ok(verify(vf, private_a, "{\"iss\":\"I\",\"aud\":\"B\",\"sub\":\"ada\",\"exp\":1800000060}", &id) == OV_OK && strcmp(id.tenant, "b") == 0,
	   "one issuer, its audiences two tenants");
	is_int(verify(vf, private_a, "{\"iss\":\"I\",\"aud\":[\"A\",\"B\"],\"sub\":\"ada\",\"exp\":1800000060}", &id), OV_E_DENIED,
		   "an assertion for both is refused");
	ov_vaultfile_free(vf);

	vf = vault("{\"source\":\"role\"}");
	is_int(verify(vf, private_a, "{" WHO ",\"exp\":1800000060}", &id), OV_E_DENIED, "no assertion counts where the source is the role");
	ov_vaultfile_free(vf);
}

int
main(void)
{
	arena = ov_arena_new();
	if (mkdtemp(dir) == NULL || chmod(dir, 0755) != 0)
		return 1;
	path = ov_arena_printf(arena, "%s/vault.json", dir);
	ov_jwk_generate(arena, &private_a, &public_a, NULL);
	ov_jwk_generate(arena, &private_b, &public_b, NULL);
	modes();
	places();
	documents();
	issuers();
	public_part();
	wrapping();
	claims();
	unlink(path);
	rmdir(dir);
	ov_arena_free(arena);
	return done_testing();
}
