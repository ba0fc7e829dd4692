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

#endif							/* OV_AUDIT_RING_H */
