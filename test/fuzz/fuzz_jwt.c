/*
 * fuzz_jwt.c
 *	  Assertions: only what a pinned key signed is believed, and judged.
 *
 * Input: a mode byte, then
 *	  r: the token as it is
 *	  c: header, line feed, claims, line feed, signature, encoded here
 *	  e, p, s: members to add to the header, line feed, claims, signed here
 *		 with the pinned Ed25519, the pinned P-256 or a strange key
 *
 * Keys are those of RFC 8037 appendix A.1 and RFC 7515 appendix A.3.
 */
#include "core/vaultfile.h"
#include "fuzz.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ED_X "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\""
#define EC_XY "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\""

static const char vault[] =
"{\"vault\":\"v\",\"instance\":\"i\","
"\"keyring\":{\"active\":1,\"versions\":[{\"version\":1,\"key\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\"}]},"
"\"identity\":{\"source\":\"assertion\",\"issuers\":["
"{\"issuer\":\"https://app.example\",\"audience\":\"vault\",\"tenant\":\"t\",\"jwks\":{\"keys\":["
"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"a\"," ED_X "},"
"{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "}]}},"
"{\"issuer\":\"https://multi.example\",\"audience\":\"vault\",\"tenant_claim\":\"tid\",\"tenants\":[\"a\",\"b\"],"
"\"subject_claim\":\"oid\",\"single_use\":true,\"jwks\":{\"keys\":["
"{\"kty\":\"OKP\",\"crv\":\"Ed25519\"," ED_X "}]}}]}}";

static const char jwks_text[] = "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\"," ED_X "},{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY "}]}";

static const char *const private_text[] = {
	"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\"," ED_X "}",
	"{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_XY ",\"d\":\"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI\"}",
	/* RFC 8032 section 7.1, test 2 */
	"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"d\":\"TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs\",\"x\":\"PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw\"}",
};

static OvVaultFile *vf;
static OvJwks *keys;
static const OvJson *private_keys[3];

static void
set_up(void)
{
	static OvArena *arena;		/* never freed: lives as long as the process */
	const OvJson *v;
	OvError		err;
	char		path[64];
	int			fd = memfd_create("vault", MFD_CLOEXEC);

	arena = ov_arena_new();
	REQUIRE(fd >= 0 && fchmod(fd, 0600) == 0 && write(fd, vault, strlen(vault)) == (ssize_t) strlen(vault));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	REQUIRE(ov_vaultfile_load(path, NULL, &vf, &err) == OV_OK);
	close(fd);
	REQUIRE(ov_json_parse(arena, jwks_text, strlen(jwks_text), &v, &err) == OV_OK);
	REQUIRE(ov_jwks_parse(v, &keys, &err) == OV_OK);
	for (int i = 0; i < 3; i++)
		REQUIRE(ov_json_parse(arena, private_text[i], strlen(private_text[i]), &private_keys[i], &err) == OV_OK);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	OvArena    *arena;
	char		mode,
			   *jwt;
	size_t		len;
	const OvJson *header,
			   *claims;
	OvIdentity	identity;
	OvError		err = {0};
	OvCode		verified,
				rc;
	bool		ours = false;

	if (vf == NULL)
		set_up();
	if (size < 1)
		return 0;
	mode = (char) data[0];
	data++;
	size--;
	arena = ov_arena_new();
	if (mode == 'c')
	{
		char	   *h = take(arena, &data, &size, '\n'),
				   *c = take(arena, &data, &size, '\n');

		jwt = ov_arena_printf(arena, "%s.%s.%s", ov_b64url(arena, h, strlen(h)), ov_b64url(arena, c, strlen(c)),
							  ov_b64url(arena, data, size));
		len = strlen(jwt);
	}
	else if (mode == 'e' || mode == 'p' || mode == 's')
	{
		char	   *h = take(arena, &data, &size, '\n'),
				   *c = take(arena, &data, &size, '\n');

		ours = mode != 's';
		REQUIRE(ov_jwt_sign(arena, private_keys[mode == 'e' ? 0 : mode == 'p' ? 1 : 2], h[0] != '\0' ? h : NULL, c, &jwt, &err) == OV_OK);
		len = strlen(jwt);
	}
	else
	{
		jwt = (char *) data;
		len = size;
	}

	rc = ov_jwt_peek(arena, jwt, len, &header, &claims, &err);
	verified = ov_jwt_verify(arena, jwt, len, keys, &header, &claims, &err);
	if (verified != OV_OK)
		require_reason(verified, &err);
	else
	{
		/* Nothing but what the pinned keys signed */
		REQUIRE(ours && rc == OV_OK && header->type == OV_JSON_OBJECT && claims->type == OV_JSON_OBJECT);
		REQUIRE(len <= 8192 && ov_json_get(header, "crit") == NULL && ov_json_get(header, "jwk") == NULL);
	}

	rc = ov_vaultfile_verify(arena, vf, jwt, len, NOW, &identity, &err);
	if (rc != OV_OK)
		require_reason(rc, &err);
	else
	{
		size_t		n = strlen(identity.user_id);

		REQUIRE(verified == OV_OK);
		REQUIRE(n >= 1 && n <= 255 && ov_utf8_ok(identity.user_id, n));
		REQUIRE(strcmp(identity.tenant, "t") == 0 || strcmp(identity.tenant, "a") == 0 || strcmp(identity.tenant, "b") == 0);
		REQUIRE(identity.expires_at > NOW - 30 && identity.expires_at <= NOW + 3600 + 60);
		REQUIRE(identity.single_use == (strcmp(identity.tenant, "t") != 0) && (!identity.single_use || identity.jti != NULL));
	}
	ov_arena_free(arena);
	return 0;
}
