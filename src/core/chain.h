/*
 * chain.h
 *	  The audit chain: canonical bytes of rows and of batch heads.
 *
 * A row is hashed as SHA-256 of
 *	  "OVA" | version u8 = 1 | hash of the row before [32] | fields
 * and a field is one of
 *	  00								NULL
 *	  01 | length u32 | bytes			a value; integers and times are 8 bytes
 *	  02 | count u32 | fields			a list of values
 *	  03 | length u32 | bytes			an array that is no plain list, as text
 * Everything big-endian.  The first row's predecessor has the hash of zeros.
 * Two rows that differ in anything have different bytes: no field can be taken
 * for a part of its neighbour.
 *
 * A head says of a range of rows what hash comes before it and what hash it
 * ends with; what is MACed is
 *	  "OVH" | version u8 = 1 | fields
 * Which columns there are, and in which order, is the caller's (audit_row.c).
 */
#ifndef OV_CHAIN_H
#define OV_CHAIN_H

#include "arena.h"

#define OV_HASH_LEN 32
#define OV_CHAIN_VERSION 1

/* A buffer that grows and is used again and again; zero-initialised. */
typedef struct OvCanon
{
	unsigned char *data;
	size_t		len;
	size_t		cap;
	bool		failed;			/* out of memory: what is in it is useless */
} OvCanon;

extern void ov_canon_row(OvCanon *c, const unsigned char previous[OV_HASH_LEN]);	/* begins a row */
extern void ov_canon_head(OvCanon *c);												/* begins a head */
extern void ov_canon_null(OvCanon *c);
extern void ov_canon_bytes(OvCanon *c, const void *data, size_t len);
extern void ov_canon_int(OvCanon *c, int64_t v);
extern void ov_canon_list(OvCanon *c, uint32_t count);	/* its items follow */
extern void ov_canon_odd(OvCanon *c, const void *data, size_t len);
/* false: out of memory */
extern bool ov_canon_hash(const OvCanon *c, unsigned char out[OV_HASH_LEN]);
extern void ov_canon_free(OvCanon *c);

/*
 * MAC of a head under an audit key.  The label keeps these apart from whatever
 * else might be computed with the key.
 */
#define OV_LABEL_HEAD "ov1 audit head"
extern void ov_chain_mac(const unsigned char *key, size_t keylen, const void *data, size_t len,
						 unsigned char out[OV_HASH_LEN]);

#endif							/* OV_CHAIN_H */
