/*
 * audit_ring.h
 *	  The audit writer's side of the ring; the appenders' side is in slots.h.
 */
#ifndef OV_AUDIT_RING_H
#define OV_AUDIT_RING_H

#include "postgres.h"

/* Copies the row at *at (0: the first uncommitted one) to buf, which holds
 * OV_MESSAGE_MAX, and moves *at past it; returns its length, 0 if there is none. */
extern uint32 ov_audit_peek(uint64 *at, void *buf);
/* Everything before position is committed: wake whoever waits for it. */
extern void ov_audit_committed(uint64 position);

/* What keeps rows from being written (a SQLSTATE), or 0: callers need not wait long then. */
extern void ov_audit_trouble(int state);

/*
 * How the trail ends, kept while the server runs: a writer that follows another
 * compares with the table, and so does oauth_audit_verify.  trail: the table's
 * OID, so that one made anew is not taken for it.
 */
extern void ov_audit_end_publish(Oid trail, int64 id, const unsigned char hash[32]);
extern void ov_audit_sealed_publish(int64 id);
/* sealed: NULL, or the last row under a head */
extern bool ov_audit_end_known(Oid trail, int64 *id, unsigned char hash[32], int64 *sealed);

#endif							/* OV_AUDIT_RING_H */
