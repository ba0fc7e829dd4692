/*
 * message.h
 *	  What travels through a request slot: tagged fields in a flat buffer.
 *
 * A message is a sequence of (tag u8 | length u32 | bytes), native order: it
 * never leaves shared memory.  Absent tag = NULL.  Lists repeat a tag.
 * Buffers that held a message are cleansed by their owner.
 */
#ifndef OV_MESSAGE_H
#define OV_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OV_MESSAGE_MAX (64 * 1024)

typedef enum OvOp
{
	/* to the key worker */
	OV_OP_VERIFY = 1,			/* ASSERTION -> TENANT USER ACTOR ISSUER JTI EXPIRES GOOD_UNTIL SINGLE_USE */
	OV_OP_KEY_NEW,				/* KIND TENANT USER KEY_ID VAULT_ID CONNECTOR_ID -> WRAPPED VERSION KEY_FINGERPRINT
								 * (+ KEY or ACCESS_KEY and REFRESH_KEY for a network worker) */
	OV_OP_KEY_OPEN,				/* + WRAPPED -> KEY or ACCESS_KEY and REFRESH_KEY; network workers only */
	OV_OP_KEYS_OPEN,			/* ITEM*, each a request as for KEY_OPEN -> ITEM*, in the same order, each an
								 * answer, or empty: then ask for it alone to learn why */
	OV_OP_RELEASE,				/* ASSERTION (absent for role/authenticated) SOURCE TENANT USER KEY_ID
								 * VAULT_ID WRAPPED -> ACCESS_KEY */
	OV_OP_SEAL,					/* KIND TENANT USER KEY_ID VAULT_ID CONNECTOR_ID CONNECTION_ID WRAPPED PURPOSE
								 * HOSTS_DIGEST GENERATION PLAIN -> RECORD; the key never leaves */
	OV_OP_REWRAP,				/* as KEY_OPEN -> WRAPPED VERSION KEY_FINGERPRINT, by the active version; network
								 * workers only, and the key never leaves */
	OV_OP_MAC,					/* KEY_ID VAULT_ID WRAPPED PLAIN -> MAC, of an audit head; audit writers only */
	OV_OP_MAC_CHECK,			/* KEY_ID VAULT_ID WRAPPED ITEM*, each MAC and head -> RESULT, a byte for each, 1: it
								 * is good */

	/* to the network worker of this database */
	OV_OP_BEGIN = 32,			/* TENANT USER ACTOR CONNECTOR SCOPE* ACCOUNT REDIRECT_URI LOGIN_HINT RETURN_TO
								 * PARAMS -> URL STATE EXPIRES(us since 2000, as timestamptz) */
	OV_OP_COMPLETE,				/* TENANT USER ACTOR STATE CODE ISS ERROR ERROR_DESCRIPTION PARAMS(JSON object)
								 * QUERY(raw callback query, when there was one) -> CONNECTION_ID RETURN_TO */
	OV_OP_REFRESH,				/* TENANT USER CONNECTION_ID GENERATION FORCE -> GENERATION;
								 * FORCE: without waiting for the next attempt */
	OV_OP_DISCOVER,				/* ISSUER -> METADATA(JSON) */
	OV_OP_REJECTED				/* TENANT USER CONNECTION_ID GENERATION HTTP_STATUS ERROR -> RESULT GENERATION:
								 * an API refused the access token of this generation */
} OvOp;

typedef enum OvTag
{
	OV_TAG_ASSERTION = 1, OV_TAG_TENANT, OV_TAG_USER, OV_TAG_ACTOR, OV_TAG_ISSUER, OV_TAG_JTI,
	OV_TAG_EXPIRES, OV_TAG_SINGLE_USE, OV_TAG_KIND, OV_TAG_KEY_ID, OV_TAG_VAULT_ID,
	OV_TAG_CONNECTOR_ID, OV_TAG_CONNECTION_ID, OV_TAG_WRAPPED, OV_TAG_VERSION, OV_TAG_KEY,
	OV_TAG_ACCESS_KEY, OV_TAG_REFRESH_KEY, OV_TAG_SOURCE, OV_TAG_PURPOSE, OV_TAG_HOSTS_DIGEST,
	OV_TAG_GENERATION, OV_TAG_PLAIN, OV_TAG_RECORD, OV_TAG_MAC, OV_TAG_PUBLIC,
	OV_TAG_CONNECTOR, OV_TAG_SCOPE, OV_TAG_ACCOUNT, OV_TAG_REDIRECT_URI, OV_TAG_LOGIN_HINT,
	OV_TAG_RETURN_TO, OV_TAG_PARAMS, OV_TAG_URL, OV_TAG_STATE, OV_TAG_CODE, OV_TAG_ISS,
	OV_TAG_ERROR, OV_TAG_ERROR_DESCRIPTION, OV_TAG_QUERY, OV_TAG_FORCE, OV_TAG_HTTP_STATUS,
	OV_TAG_RESULT, OV_TAG_METADATA, OV_TAG_GOOD_UNTIL, OV_TAG_KEY_FINGERPRINT, OV_TAG_ITEM,
	/* audit rows */
	OV_TAG_EVENT, OV_TAG_OUTCOME, OV_TAG_REASON, OV_TAG_ROLE, OV_TAG_SESSION_USER, OV_TAG_ADDRESS,
	OV_TAG_APPLICATION, OV_TAG_TOKEN_FINGERPRINT, OV_TAG_AT, OV_TAG_DETAIL_JSON,
	/* every error answer */
	OV_TAG_SQLSTATE = 240, OV_TAG_MESSAGE, OV_TAG_DETAIL, OV_TAG_HINT
} OvTag;

/* values of OV_TAG_KIND */
#define OV_KIND_USER "user"
#define OV_KIND_CONNECTOR "connector"
#define OV_KIND_AUDIT "audit"

typedef struct OvMsg
{
	unsigned char *data;
	size_t		len;
	size_t		cap;			/* 0 when reading */
	bool		overflow;		/* a put did not fit: the message is useless */
} OvMsg;

extern void ov_msg_init(OvMsg *m, void *buf, size_t cap);
extern void ov_msg_read(OvMsg *m, const void *buf, size_t len);
extern void ov_msg_put(OvMsg *m, OvTag tag, const void *data, size_t len);
extern void ov_msg_put_str(OvMsg *m, OvTag tag, const char *s);	/* NULL: nothing */
extern void ov_msg_put_i64(OvMsg *m, OvTag tag, int64_t v);
/* false: absent.  The pointer is into the buffer. */
extern bool ov_msg_get(const OvMsg *m, OvTag tag, const void **data, size_t *len);
/* n-th occurrence */
extern bool ov_msg_get_nth(const OvMsg *m, OvTag tag, int n, const void **data, size_t *len);
/* One after the other: *at is 0 at first, and then where to go on */
extern bool ov_msg_next(const OvMsg *m, size_t *at, OvTag tag, const void **data, size_t *len);
extern int64_t ov_msg_get_i64(const OvMsg *m, OvTag tag, int64_t missing);
extern bool ov_msg_has(const OvMsg *m, OvTag tag);

#endif							/* OV_MESSAGE_H */
