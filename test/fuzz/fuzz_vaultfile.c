/*
 * fuzz_vaultfile.c
 *	  Vault files: what loads wraps keys, and shows no key.
 */
#include "core/vaultfile.h"
#include "fuzz.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int	fd = -1;
	static char path[64];
	OvVaultFile *vf;
	OvError		err = {0};
	OvCode		rc;

	if (fd < 0)
	{
		fd = memfd_create("vault", MFD_CLOEXEC);
		REQUIRE(fd >= 0 && fchmod(fd, 0600) == 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	REQUIRE(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t) size);
	rc = ov_vaultfile_load(path, NULL, &vf, &err);
	if (rc != OV_OK)
	{
		require_reason(rc, &err);
		REQUIRE(vf == NULL);
	}
	else
	{
		OvArena    *arena = ov_arena_new();
		char	   *public = ov_vaultfile_public(arena, vf);
		const OvJson *v;
		OvAad		aad = {.purpose = OV_PURPOSE_USER_KEY,.tenant = "t",.user_id = "u",.token_generation = 7};
		unsigned char key[OV_KEY_LEN] = {1, 2, 3},
					back[OV_KEY_LEN],
					wrapped[OV_KEY_LEN + OV_RECORD_OVERHEAD];
		size_t		n;
		OvIdentity	identity;
		int			active = ov_vaultfile_active_version(vf);

		REQUIRE(ov_json_parse(arena, public, strlen(public), &v, &err) == OV_OK);
		REQUIRE(ov_json_get(v, "keyring") == NULL && active > 0);
		REQUIRE(ov_vaultfile_wrap(vf, active, &aad, key, wrapped, &n, &err) == OV_OK && n == sizeof(wrapped));
		REQUIRE(ov_vaultfile_unwrap(vf, &aad, wrapped, n, back, &err) == OV_OK && memcmp(key, back, sizeof(key)) == 0);
		aad.user_id = "v";
		REQUIRE(ov_vaultfile_unwrap(vf, &aad, wrapped, n, back, &err) != OV_OK);
		/* Nobody signed this. */
		REQUIRE(ov_vaultfile_verify(arena, vf, "e30.e30.AA", 10, NOW, &identity, &err) != OV_OK);
		ov_arena_free(arena);
	}
	ov_vaultfile_free(vf);
	return 0;
}
