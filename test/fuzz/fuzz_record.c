/*
 * fuzz_record.c
 *	  Sealed records: whatever is not exactly what was sealed does not open.
 *
 * Input: a mode byte; o: a record as it is; otherwise: where to alter (2 bytes)
 * and with what (1 byte), then a plaintext that is sealed, altered and opened.
 */
#include "core/record.h"
#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const unsigned char subkey[OV_KEY_LEN] = {1, 2, 3, 4, 5};
	OvAad		aad = {.tenant = "t",.user_id = "ada",.purpose = OV_PURPOSE_REFRESH_TOKEN,.key_id = 0x0102030405060708,.token_generation = 3};
	OvError		err = {0};
	unsigned char *out,
			   *sealed;
	size_t		n,
				m;
	uint64_t	key_id;
	OvCode		rc;

	if (size < 4)
		return 0;
	if (data[0] == 'o')
	{
		data++;
		size--;
		/* The documented size of out, and not a byte more */
		out = malloc(size > OV_RECORD_OVERHEAD ? size - OV_RECORD_OVERHEAD + 1 : 1);
		if (ov_record_key_id(data, size, &key_id))
			aad.key_id = key_id;	/* so that more than the key's number is looked at */
		rc = ov_record_open(subkey, &aad, data, size, out, &n, &err);
		REQUIRE(rc != OV_OK && n == 0);
		require_reason(rc, &err);
		free(out);
		return 0;
	}
	sealed = malloc(size - 4 + OV_RECORD_OVERHEAD);
	REQUIRE(ov_record_seal(subkey, &aad, data + 4, size - 4, sealed, &n, &err) == OV_OK && n == size - 4 + OV_RECORD_OVERHEAD);
	out = malloc(size - 4 + 1);
	REQUIRE(ov_record_open(subkey, &aad, sealed, n, out, &m, &err) == OV_OK);
	REQUIRE(m == size - 4 && memcmp(out, data + 4, m) == 0 && out[m] == '\0');
	sealed[(data[1] << 8 | data[2]) % n] ^= data[3] | 1;
	REQUIRE(ov_record_open(subkey, &aad, sealed, n, out, &m, &err) != OV_OK && m == 0);
	sealed[(data[1] << 8 | data[2]) % n] ^= data[3] | 1;
	/* cut, and moved to another person */
	n--;
	if (n >= OV_RECORD_OVERHEAD)
		REQUIRE(ov_record_open(subkey, &aad, sealed, n, out, &m, &err) != OV_OK);
	aad.user_id = "eve";
	REQUIRE(ov_record_open(subkey, &aad, sealed, n + 1, out, &m, &err) != OV_OK);
	free(sealed);
	free(out);
	return 0;
}
