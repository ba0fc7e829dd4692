/*
 * test_chain.c
 *	  The canonical form of audit rows and heads: known answers, and that two
 *	  rows that differ never have the same bytes.
 */
#include "core/chain.h"
#include "core/codec.h"

#include <string.h>

#include "tap.h"

static OvCanon c;
static unsigned char zeros[OV_HASH_LEN];

static const char *
hex(const unsigned char *data, size_t len)
{
	static char out[1024];

	for (size_t i = 0; i < len; i++)
		snprintf(out + 2 * i, 3, "%02x", data[i]);
	return out;
}

static void
known_answers(void)
{
	unsigned char hash[OV_HASH_LEN];
	unsigned char mac[OV_HASH_LEN];
	unsigned char key[32];

	ov_canon_row(&c, zeros);
	ov_canon_int(&c, 1);
	ov_canon_null(&c);
	ov_canon_bytes(&c, "ada", 3);
	ov_canon_list(&c, 2);
	ov_canon_bytes(&c, "read", 4);
	ov_canon_null(&c);
	ov_canon_odd(&c, "[2:2]={a}", 9);
	is_str(hex(c.data, c.len),
	   "4f56410100000000000000000000000000000000000000000000000000000000000000000100000008000000000000000100"
	   "010000000361646102000000020100000004726561640003000000095b323a325d3d7b617d", "the bytes of a row");
	ok(ov_canon_hash(&c, hash), "which are hashed");
	is_str(hex(hash, sizeof(hash)), "a5f80a64e3c5c27dbf27031ef68edb0ee0b5595647d16f108f866ab56fcfc885", "to SHA-256");
	ov_canon_row(&c, hash);
	ov_canon_int(&c, -1);
	is_str(hex(c.data + 36, c.len - 36), "0100000008ffffffffffffffff", "a negative integer is eight bytes");
	ok(memcmp(c.data + 4, hash, sizeof(hash)) == 0, "the next row begins with the hash of the one before");

	for (int i = 0; i < 32; i++)
		key[i] = (unsigned char) i;
	ov_canon_head(&c);
	ov_canon_int(&c, 7);
	is_str(hex(c.data, c.len), "4f564801" "01000000080000000000000007", "the bytes of a head");
	ov_chain_mac(key, sizeof(key), c.data, c.len, mac);
	is_str(hex(mac, sizeof(mac)), "df553c16b066a059af912a999f14cf0e9e36ab2c629b59a04aa79a7012ef52e7", "and its MAC");
}

/* One thing each time; whatever two of these have in common, their hashes are different. */
static void
row(int which)
{
	ov_canon_row(&c, zeros);
	switch (which)
	{
		case 0:
			ov_canon_null(&c);
			ov_canon_bytes(&c, "", 0);
			break;
		case 1:
			ov_canon_bytes(&c, "", 0);
			ov_canon_null(&c);
			break;
		case 2:
			ov_canon_bytes(&c, "ab", 2);
			ov_canon_bytes(&c, "c", 1);
			break;
		case 3:
			ov_canon_bytes(&c, "a", 1);
			ov_canon_bytes(&c, "bc", 2);
			break;
		case 4:
			ov_canon_list(&c, 2);
			ov_canon_bytes(&c, "a", 1);
			ov_canon_bytes(&c, "b", 1);
			break;
		case 5:
			ov_canon_list(&c, 1);
			ov_canon_bytes(&c, "a", 1);
			ov_canon_bytes(&c, "b", 1);
			break;
		case 6:
			ov_canon_list(&c, 0);
			ov_canon_null(&c);
			break;
		case 7:
			ov_canon_null(&c);
			ov_canon_list(&c, 0);
			break;
		case 8:
			ov_canon_odd(&c, "ab", 2);
			ov_canon_bytes(&c, "c", 1);
			break;
		case 9:
			ov_canon_null(&c);
			ov_canon_null(&c);
			break;
		case 10:
			ov_canon_bytes(&c, "\0\0\0\0\0\0\0\1x", 9);
			break;
		case 11:
			ov_canon_int(&c, 1);
			ov_canon_bytes(&c, "x", 1);
			break;
	}
}

static void
no_two_alike(void)
{
	static unsigned char hashes[12][OV_HASH_LEN];
	int			alike = 0;

	for (int i = 0; i < 12; i++)
	{
		unsigned char hash[OV_HASH_LEN];

		row(i);
		ok(ov_canon_hash(&c, hash), "row %d has a hash", i);
		memcpy(hashes[i], hash, sizeof(hash));
		for (int k = 0; k < i; k++)
			alike += memcmp(hashes[i], hashes[k], OV_HASH_LEN) == 0;
	}
	is_int(alike, 0, "no two of them have the same");
}

static void
large(void)
{
	static char big[1 << 20];
	unsigned char hash[OV_HASH_LEN],
				again[OV_HASH_LEN];

	memset(big, 'x', sizeof(big));
	for (int i = 0; i < 2; i++)
	{
		ov_canon_row(&c, zeros);
		ov_canon_bytes(&c, big, sizeof(big));
		ok(ov_canon_hash(&c, i == 0 ? hash : again), "a value of a megabyte");
		big[sizeof(big) - 1] = 'y';
	}
	ok(memcmp(hash, again, sizeof(hash)) != 0, "whose last byte matters");
	ov_canon_free(&c);
	is_int(c.cap, 0, "the buffer is given back");
}

int
main(void)
{
	known_answers();
	no_two_alike();
	large();
	return done_testing();
}
