/*
 * test_record.c
 *	  Sealed records: known answers, and everything that must not open.
 */
#include "core/codec.h"
#include "core/json.h"
#include "core/record.h"
#include "tap.h"

#define PLAIN "a token of 27 bytes, sealed"
#define PLAIN_LEN (sizeof(PLAIN) - 1)
#define SEALED_LEN (PLAIN_LEN + OV_RECORD_OVERHEAD)

static OvArena *arena;
static unsigned char subkey[OV_KEY_LEN];
static OvAad aad;
static unsigned char sealed[SEALED_LEN];

static size_t
unhex(const char *s, unsigned char *out, size_t max)
{
	size_t		n = strlen(s) / 2;

	for (size_t i = 0; i < n && i < max; i++)
	{
		char		pair[3] = {s[2 * i], s[2 * i + 1], '\0'};

		out[i] = (unsigned char) strtoul(pair, NULL, 16);
	}
	return n;
}

static const OvJson *
read_vectors(void)
{
	char	   *path = ov_arena_printf(arena, "%s/test/unit/vectors/record.json", getenv("OV_TREE") ? getenv("OV_TREE") : ".");
	char	   *text = ov_arena_alloc(arena, 1024 * 1024);
	FILE	   *f = fopen(path, "r");
	const OvJson *doc = NULL;
	size_t		len;

	if (f == NULL)
		return NULL;
	len = fread(text, 1, 1024 * 1024, f);
	fclose(f);
	return ov_json_parse(arena, text, len, &doc, NULL) == OV_OK ? doc : NULL;
}

static void
bytes_member(const OvJson *v, const char *name, unsigned char *out, size_t want)
{
	if (unhex(ov_json_get_string(v, name), out, want) != want)
		diag("%s is not %zu bytes", name, want);
}

static void
known_answer(const OvJson *v)
{
	const char *name = ov_json_get_string(v, "name");
	OvAad		a = {0};
	unsigned char key[32],
				salt[32],
				iv[12];
	size_t		len = strlen(ov_json_get_string(v, "plaintext")) / 2,
				n;
	unsigned char *plain = malloc(len + 1),
			   *record = malloc(len + OV_RECORD_OVERHEAD);
	uint64_t	key_id = 0;

	bytes_member(v, "subkey", key, 32);
	bytes_member(v, "vault_id", a.vault_id, 16);
	a.tenant = ov_json_get_string(v, "tenant");
	a.user_id = ov_json_get_string(v, "user_id");
	bytes_member(v, "connector_id", a.connector_id, 16);
	bytes_member(v, "connection_id", a.connection_id, 16);
	ok(ov_purpose_parse(ov_json_get_string(v, "purpose"), &a.purpose), "%s: the purpose is known", name);
	bytes_member(v, "hosts_digest", a.hosts_digest, 32);
	a.key_id = strtoull(ov_json_get_string(v, "key_id"), NULL, 10);
	a.token_generation = strtoull(ov_json_get_string(v, "token_generation"), NULL, 10);
	bytes_member(v, "salt", salt, 32);
	bytes_member(v, "iv", iv, 12);
	bytes_member(v, "plaintext", plain, len);
	is_int(ov_record_seal_with(key, &a, salt, iv, plain, len, record, &n, NULL), OV_OK, "%s: seals", name);
	is_str(ov_hex(arena, record, n), ov_json_get_string(v, "record"), "%s: to the known record", name);
	memset(plain, 0xee, len + 1);
	ok(ov_record_open(key, &a, record, n, plain, &n, NULL) == OV_OK && n == len && plain[len] == '\0',
	   "%s: which opens", name);
	is_str(ov_hex(arena, plain, len), ov_json_get_string(v, "plaintext"), "%s: to what went in", name);
	ok(ov_record_key_id(record, len + OV_RECORD_OVERHEAD, &key_id) && key_id == a.key_id, "%s: and names its key", name);
	free(plain);
	free(record);
}

static void
known_answers(void)
{
	const OvJson *doc = read_vectors();

	if (!ok(doc != NULL, "the vectors are there"))
		return;
	for (const OvJson *v = ov_json_get(doc, "records")->child; v != NULL; v = v->next)
		known_answer(v);
	for (const OvJson *v = ov_json_get(doc, "subkeys")->child; v != NULL; v = v->next)
	{
		const char *label = ov_json_get_string(v, "label");
		unsigned char key[32],
					out[32];

		bytes_member(v, "key", key, 32);
		ov_subkey(key, label, out);
		is_str(ov_hex(arena, out, 32), ov_json_get_string(v, "subkey"), "%s", label);
		ok(strcmp(label, OV_LABEL_ACCESS) == 0 || strcmp(label, OV_LABEL_REFRESH) == 0, "is one of the labels in use");
	}
}

static void
set_up(void)
{
	size_t		n;

	memset(subkey, 0x51, sizeof(subkey));
	memset(&aad, 0, sizeof(aad));
	memset(aad.vault_id, 1, 16);
	aad.tenant = "acme";
	aad.user_id = "ada";
	memset(aad.connector_id, 2, 16);
	memset(aad.connection_id, 3, 16);
	aad.purpose = OV_PURPOSE_REFRESH_TOKEN;
	memset(aad.hosts_digest, 4, 32);
	aad.key_id = 7;
	aad.token_generation = 9;
	is_int(ov_record_seal(subkey, &aad, PLAIN, PLAIN_LEN, sealed, &n, NULL), OV_OK, "a record is sealed");
	is_int(n, SEALED_LEN, "to its length and the overhead");
	ok(memmem(sealed, n, "token", 5) == NULL, "without its plaintext in it");
}

/* Refused, with nothing of the plaintext handed out? */
static bool
closed(const unsigned char *key, const OvAad *a, const unsigned char *record, size_t len)
{
	size_t		room = len > OV_RECORD_OVERHEAD ? len - OV_RECORD_OVERHEAD + 1 : 1,
				n = 12345;
	unsigned char *exact = malloc(len ? len : 1),
			   *out = malloc(room);
	OvError		err = {0};
	bool		refused;

	/* Copies of just the size, so that the sanitizer sees one byte too many */
	memcpy(exact, record, len);
	memset(out, 0xee, room);
	refused = ov_record_open(key, a, exact, len, out, &n, &err) != OV_OK && n == 0 &&
		err.message[0] != '\0' && memmem(out, room, "token", 5) == NULL;
	free(exact);
	free(out);
	return refused;
}

static bool
opens(const unsigned char *key, const OvAad *a, const unsigned char *record, size_t len)
{
	unsigned char out[PLAIN_LEN + 1];
	size_t		n;

	return ov_record_open(key, a, record, len, out, &n, NULL) == OV_OK && n == PLAIN_LEN && memcmp(out, PLAIN, n) == 0;
}

static void
round_trip(void)
{
	unsigned char again[SEALED_LEN];
	size_t		n;
	OvAad		null_tenant = aad,
				empty_tenant = aad;

	ok(opens(subkey, &aad, sealed, SEALED_LEN), "it opens again");
	ov_record_seal(subkey, &aad, PLAIN, PLAIN_LEN, again, &n, NULL);
	ok(memcmp(sealed + 13, again + 13, 32) != 0, "the next record has another salt");
	ok(memcmp(sealed + 45, again + 45, 32) != 0, "another commitment");
	ok(memcmp(sealed + 77, again + 77, 12) != 0, "another IV");
	ok(memcmp(sealed + 89, again + 89, PLAIN_LEN) != 0, "and another ciphertext");
	null_tenant.tenant = NULL;
	empty_tenant.tenant = "";
	ov_record_seal(subkey, &null_tenant, PLAIN, PLAIN_LEN, again, &n, NULL);
	ok(opens(subkey, &empty_tenant, again, n), "no tenant is the empty tenant");
}

static void
changed_bits(void)
{
	static const struct
	{
		const char *name;
		size_t		from,
					to;
	}			parts[] = {
		{"the magic", 0, 3}, {"the format", 3, 4}, {"the suite", 4, 5}, {"the key id", 5, 13}, {"the salt", 13, 45},
		{"the commitment", 45, 77}, {"the IV", 77, 89}, {"the ciphertext", 89, 89 + PLAIN_LEN}, {"the tag", 89 + PLAIN_LEN, SEALED_LEN},
	};
	unsigned char copy[SEALED_LEN];

	for (size_t p = 0; p < sizeof(parts) / sizeof(parts[0]); p++)
	{
		int			opened = 0;

		for (size_t bit = parts[p].from * 8; bit < parts[p].to * 8; bit++)
		{
			memcpy(copy, sealed, SEALED_LEN);
			copy[bit / 8] ^= (unsigned char) (1 << bit % 8);
			opened += !closed(subkey, &aad, copy, SEALED_LEN);
		}
		is_int(opened, 0, "a record does not open with any bit of %s changed", parts[p].name);
	}
}

static void
changed_length(void)
{
	unsigned char longer[SEALED_LEN + 1];
	int			opened = 0;
	uint64_t	key_id;

	for (size_t n = 0; n < SEALED_LEN; n++)
		opened += !closed(subkey, &aad, sealed, n);
	is_int(opened, 0, "a record does not open cut short at any length");
	memcpy(longer, sealed, SEALED_LEN);
	longer[SEALED_LEN] = 0;
	ok(closed(subkey, &aad, longer, SEALED_LEN + 1), "nor with a byte more");
	ok(closed(subkey, &aad, sealed + 1, SEALED_LEN - 1), "nor without its first");
	ok(!ov_record_key_id(sealed, OV_RECORD_OVERHEAD - 1, &key_id), "what is too short names no key");
}

static void
changed_place(void)
{
	OvAad		a;
	int			opened;

#define MOVED(name, change) \
	(a = aad, change, ok(closed(subkey, &a, sealed, SEALED_LEN), "a record does not open as that of another %s", name))
#define FLIPPED(name, field) \
	do { \
		opened = 0; \
		for (size_t bit = 0; bit < sizeof(a.field) * 8; bit++) \
		{ \
			a = aad; \
			((unsigned char *) &a.field)[bit / 8] ^= (unsigned char) (1 << bit % 8); \
			opened += !closed(subkey, &a, sealed, SEALED_LEN); \
		} \
		is_int(opened, 0, "a record does not open as that of another %s, whichever bit differs", name); \
	} while (0)

	FLIPPED("vault", vault_id);
	FLIPPED("connector", connector_id);
	FLIPPED("connection", connection_id);
	FLIPPED("set of hosts", hosts_digest);
	FLIPPED("key", key_id);
	FLIPPED("token generation", token_generation);
	MOVED("tenant", a.tenant = "acmf");
	MOVED("tenant: none", a.tenant = NULL);
	MOVED("tenant: longer", a.tenant = "acme ");
	MOVED("tenant: in capitals", a.tenant = "Acme");
	MOVED("user", a.user_id = "adb");
	MOVED("user: none", a.user_id = NULL);
	MOVED("user: in capitals", a.user_id = "Ada");
	MOVED("tenant and user, the boundary moved", (a.tenant = "acm", a.user_id = "eada"));
	MOVED("tenant and user, exchanged", (a.tenant = "ada", a.user_id = "acme"));
	for (OvPurpose p = OV_PURPOSE_ACCESS_TOKEN; p <= OV_PURPOSE_AUDIT_KEY; p++)
		if (p != aad.purpose)
			MOVED(ov_purpose_name(p), a.purpose = p);
}

static void
other_keys(void)
{
	unsigned char key[OV_KEY_LEN],
				access[OV_KEY_LEN],
				refresh[OV_KEY_LEN];
	int			opened = 0;
	OvError		err;
	unsigned char out[PLAIN_LEN + 1];
	size_t		n;

	for (size_t bit = 0; bit < OV_KEY_LEN * 8; bit++)
	{
		memcpy(key, subkey, OV_KEY_LEN);
		key[bit / 8] ^= (unsigned char) (1 << bit % 8);
		opened += !closed(key, &aad, sealed, SEALED_LEN);
	}
	is_int(opened, 0, "a record does not open under a subkey with any bit changed");
	ov_subkey(subkey, OV_LABEL_ACCESS, access);
	ov_subkey(subkey, OV_LABEL_REFRESH, refresh);
	ok(memcmp(access, refresh, OV_KEY_LEN) != 0, "the subkeys of a key differ");
	ok(closed(access, &aad, sealed, SEALED_LEN) && closed(refresh, &aad, sealed, SEALED_LEN), "and are not the key");
	is_int(ov_record_open(access, &aad, sealed, SEALED_LEN, out, &n, &err), OV_E_AUTH, "the wrong key is told apart");
	is_str(err.message, "record does not belong to this key", "by the commitment, before anything is decrypted");
}

static void
limits(void)
{
	OvAad		a = aad;
	char		longest[256],
				longer[1100];
	unsigned char record[SEALED_LEN];
	unsigned char *big = malloc(300000),
			   *big_sealed = malloc(300000 + OV_RECORD_OVERHEAD);
	size_t		n;
	OvPurpose	purpose;
	OvError		err;

	memset(longest, 'x', 255);
	longest[255] = '\0';
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	a.tenant = a.user_id = longest;
	ok(ov_record_seal(subkey, &a, PLAIN, PLAIN_LEN, record, &n, NULL) == OV_OK && opens(subkey, &a, record, n),
	   "tenant and user of 255 bytes each fit");
	a.user_id = longer;
	is_int(ov_record_seal(subkey, &a, PLAIN, PLAIN_LEN, record, &n, &err), OV_E_LIMIT, "a user id that does not fit is refused");
	is_int(n, 0, "and nothing sealed");
	ok(closed(subkey, &a, sealed, SEALED_LEN), "nor is anything opened for it");
	memset(big, 'x', 300000);
	ok(ov_record_seal(subkey, &aad, big, 300000, big_sealed, &n, NULL) == OV_OK &&
	   ov_record_open(subkey, &aad, big_sealed, n, big_sealed + OV_RECORD_HEADER, &n, NULL) == OV_OK && n == 300000 &&
	   memcmp(big, big_sealed + OV_RECORD_HEADER, n) == 0, "a long token, opened in place");
	free(big);
	free(big_sealed);
	for (OvPurpose p = OV_PURPOSE_ACCESS_TOKEN; p <= OV_PURPOSE_AUDIT_KEY; p++)
		ok(ov_purpose_parse(ov_purpose_name(p), &purpose) && purpose == p, "purpose %s has its name", ov_purpose_name(p));
	ok(!ov_purpose_parse("Access_Token", &purpose) && !ov_purpose_parse("", &purpose), "no other name is a purpose");
}

int
main(void)
{
	arena = ov_arena_new();
	known_answers();
	set_up();
	round_trip();
	changed_bits();
	changed_length();
	changed_place();
	other_keys();
	limits();
	ov_arena_free(arena);
	return done_testing();
}
