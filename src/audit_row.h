/*
 * audit_row.h
 *	  Columns of oauth_vault.audit, and a row's place in the chain: what the
 *	  audit writer hashes and what oauth_audit_verify hashes again.
 */
#ifndef OV_AUDIT_ROW_H
#define OV_AUDIT_ROW_H

#include "postgres.h"
#include "core/chain.h"

/* In the order in which they are hashed; the hash itself is not among them. */
typedef enum OvAuditColumn
{
	OV_COL_AUDIT_ID, OV_COL_AT, OV_COL_EVENT, OV_COL_OUTCOME, OV_COL_TENANT, OV_COL_USER_ID, OV_COL_ACTOR,
	OV_COL_PURPOSE, OV_COL_CONNECTOR, OV_COL_CONNECTION_ID, OV_COL_ACCOUNT, OV_COL_SCOPES, OV_COL_DATABASE_ROLE,
	OV_COL_SESSION_USER, OV_COL_CLIENT_ADDRESS, OV_COL_APPLICATION, OV_COL_ASSERTION_JTI, OV_COL_FINGERPRINT,
	OV_COL_REASON, OV_COL_DETAIL, OV_COL_RECORDED_AT,
	OV_AUDIT_COLUMNS
} OvAuditColumn;

typedef struct OvAuditColumnDef
{
	const char *name;
	Oid			type;
} OvAuditColumnDef;

extern const OvAuditColumnDef ov_audit_columns[OV_AUDIT_COLUMNS];

/* The hash of a row that follows one with hash previous.  Memory of the caller's context. */
extern void ov_audit_row_hash(const Datum *values, const bool *nulls, const unsigned char previous[OV_HASH_LEN],
							  unsigned char hash[OV_HASH_LEN]);

/* A head, as in oauth_vault.audit_head */
typedef struct OvAuditHead
{
	const char *kind;			/* batch, retired */
	int64		first_id;
	int64		last_id;
	unsigned char previous[OV_HASH_LEN];	/* of the row before first_id */
	unsigned char hash[OV_HASH_LEN];		/* of the row last_id */
	int64		made_at;		/* timestamptz */
	int64		system_identifier;
	int64		timeline;
	int64		database_oid;
	const char *partition;		/* of a retired one; or NULL */
	int64		key_id;
} OvAuditHead;

#define OV_HEAD_BATCH "batch"
#define OV_HEAD_RETIRED "retired"
#define OV_HEAD_BYTES_MAX 512

/* What is MACed; returns its length, 0 if it does not fit (a name too long: not ours). */
extern size_t ov_audit_head_bytes(const OvAuditHead *head, const unsigned char vault_id[16],
								  unsigned char out[OV_HEAD_BYTES_MAX]);

#endif							/* OV_AUDIT_ROW_H */
