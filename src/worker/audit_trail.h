/*
 * audit_trail.h
 *	  What the files of the audit writer share: where the trail ends, its
 *	  partitions, its heads.  All of it is this one process's own.
 */
#ifndef OV_AUDIT_TRAIL_H
#define OV_AUDIT_TRAIL_H

#include "postgres.h"
#include "audit_row.h"
#include "datatype/timestamp.h"

typedef struct OvTrailEnd
{
	int64		id;				/* 0: nothing yet, or ever */
	unsigned char hash[OV_HASH_LEN];
} OvTrailEnd;

/* Committed so far; changed after a commit only. */
extern OvTrailEnd ov_trail_end;

/* ---- partitions (audit_partition.c) ---- */

/* Is there, as far as we know, a partition for this moment? */
extern bool ov_partition_covers(TimestampTz t);
/* It */
extern Oid	ov_partition_current(void);
/* Finds it, or makes it; in a transaction of its own.  Returns 0 or the SQLSTATE of what went wrong. */
extern int	ov_partition_ensure(TimestampTz t);
/* Somebody has changed partitions: look again. */
extern void ov_partition_forget(void);
/* Partitions to come, and those past retention: called while no row is queued.
 * Returns after how many milliseconds it wants to be called again. */
extern long ov_partition_upkeep(TimestampTz now);
/* A row about the trail itself, after the commit of what it tells; detail is JSON. */
extern void ov_trail_note(const char *event, const char *reason, const char *detail);

/* ---- heads (audit_head.c) ---- */

/* In a transaction, after ov_trail_end has been read: what is sealed. */
extern void ov_heads_read(void);
/* Rows have been committed; a partition ends with the trail's end as it is now. */
extern void ov_heads_note_rows(void);
extern void ov_heads_note_partition(void);
/* Seals and tells the log what is due; returns after how many ms it wants to be called again. */
extern long ov_heads_work(TimestampTz now);
/* The process ends: one last try. */
extern void ov_heads_leave(void);
/* Up to where the trail is sealed */
extern const OvTrailEnd *ov_heads_sealed(void);
/* Fills in where and when, and asks for the MAC; NULL, or why there is none ("" : nothing to tell). */
extern const char *ov_head_sign(OvAuditHead *head, unsigned char mac[OV_HASH_LEN], int timeout_ms);
/* In a transaction */
extern void ov_head_insert(const OvAuditHead *head, const unsigned char mac[OV_HASH_LEN]);

#endif							/* OV_AUDIT_TRAIL_H */
