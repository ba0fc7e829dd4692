/*
 * host_queue.h
 *	  Between the queue of requests and the loop that owns the engine.
 */
#ifndef OV_HOST_QUEUE_H
#define OV_HOST_QUEUE_H

#include "worker/network.h"

/* the loop's (network_worker.c) */
extern void ov_engine_send(OvJob *job, const OvHttpRequest *req);
/* An answer that says that nothing was sent */
extern void ov_engine_fail(OvJob *job, const char *why);

/* the queue's */
/* A request has ended: there is room.  No ereport, no palloc. */
extern void ov_host_answered(OvJob *job, const OvHttpResponse *resp);
/* Gives the place back. */
extern void ov_host_release(OvJob *job);
/* Takes what has waited and has room now; returns how many. */
#define OV_DEPART_MAX 100
extern int	ov_hosts_take(OvJob **ready);
/* Sends them, if that they leave has been committed; otherwise they wait again. */
extern void ov_hosts_send(OvJob **ready, int n, bool departed);
/* Does both, with the commit in between; with interrupts held. */
extern void ov_hosts_dispatch(void);
/* Forgets who has been silent: the configuration has changed. */
extern void ov_hosts_forgive(void);
/* All begin small again: the clock has jumped, and much may be due at once. */
extern void ov_hosts_start_slowly(void);
/* What sessions are shown, when it has changed; seldom enough to cost nothing. */
extern void ov_hosts_publish(void);
/* The process ends: its successor goes on from here. */
extern void ov_hosts_leave(void);

#endif							/* OV_HOST_QUEUE_H */
