/*
 * figures.h
 *	  Figures about a database's workers, for oauth_metrics and oauth_explain.
 *
 * Kept in shared memory from the server's start, or from when the database got
 * its entry; they survive workers.
 */
#ifndef OV_FIGURES_H
#define OV_FIGURES_H

#include "worker/slots.h"

typedef enum OvFigure
{
	/* counters */
	OV_FIG_REQUESTS,			/* requests to providers that have ended */
	OV_FIG_UNANSWERED,			/* those of them without an answer */
	OV_FIG_WORKER_STARTS,		/* of the network worker */
	/* as the network worker last said */
	OV_FIG_BEAT,				/* ov_monotonic() of the last round of its loop */
	OV_FIG_JOBS,				/* under way, or waiting for their host */
	OV_FIG_ON_THE_WIRE,
	OV_FIG_STUCK,				/* answers that could not be stored yet */
	OV_NFIGURES
} OvFigure;

/* Of this process' database; nothing happens without an entry. */
extern void ov_figure_add(OvFigure f, uint64 n);
extern void ov_figure_set(OvFigure f, uint64 n);
extern uint64 ov_figure(OvFigure f);

/* Hosts of providers, as the network worker last said.  Times are of ov_monotonic(). */
#define OV_HOST_NAME 264		/* host:port */
#define OV_HOST_FIGURES 48
typedef struct OvHostFigure
{
	char		name[OV_HOST_NAME];
	int			active;			/* requests on the wire */
	int			waiting;		/* for room, or for the budget */
	int			window;			/* so many at a time, now */
	int			failures;		/* in a row */
	int64		pause_us;		/* 0: it is in order */
	int64		paused_until;	/* and then one request goes first */
	int			requests,		/* the budget; 0: none */
				seconds;
	int64		spent_until;
	uint64		pauses;			/* since the worker's start */
	bool		told_time;
	int64		clock_off;		/* seconds that our clock is ahead of the host's */
} OvHostFigure;

extern int64 ov_monotonic(void);	/* microseconds that nobody can set */
extern void ov_hosts_figures_set(const OvHostFigure *figures, int n);
/* Copies them into out[OV_HOST_FIGURES]; returns how many. */
extern int	ov_hosts_figures(OvHostFigure *out);

/* How often each kind of audit row has been queued; "other" is what is too many. */
#define OV_EVENT_KINDS 48
typedef struct OvEventCount
{
	char		event[32];
	char		outcome[12];
	uint64		n;
} OvEventCount;

/* Copies the counts into out[OV_EVENT_KINDS]; returns how many. */
extern int	ov_event_counts(OvEventCount *out);

/* Slots of this kind of worker that ask something of it now: waiting, being worked on */
extern void ov_slots_in_use(OvWorkerKind kind, int *waiting, int *taken, int *all);
/* Bytes of audit rows that are not committed yet */
extern uint64 ov_audit_backlog(void);

#endif							/* OV_FIGURES_H */
