/*
 * clock.c
 *	  What to do when the server's clock is set, by a day say.
 *
 * Whatever the worker waits for within its own life is kept apart from that: the
 * loop moves its ticks along with the clock, and pauses and budgets of hosts are
 * of the monotonic clock.  What is in the tables is not:
 *
 *	 forward	much is due at once.  It leaves as fast as the hosts' windows and
 *				budgets let it, and the windows begin small.
 *	 back		rows written before are of the future: nobody knows how long their
 *				tokens still live, and they would not come up until the clock is
 *				there again.  They are renewed soon, spread over SPREAD_S or a third
 *				of the token's life; who asks for such a token meanwhile waits for a
 *				new one (ov_from_the_future()).  Attempts that would wait longer than
 *				any back-off are due, too.
 *
 * Rows of the future are looked for when the running worker sees the clock jump,
 * and at its start if the audit trail says that the clock was later once: it may
 * have been set while nobody was there to see it.  By the primary key, a page at
 * a time: the whole table is read once, between whatever else there is to do.
 */
#include "worker/network.h"

#include "worker/figures.h"

#define JUMP_US (5 * USECS_PER_SEC)	/* less is the clock being disciplined, or we were late */
#define NEXT_PAGE_MS 20
#define SPREAD_S 600
#define AGAIN_MS 1000

static bool searching;
static bool started;			/* has the audit trail been looked at? */
static unsigned char after[16];	/* the last connection of the page before */

static OvQuery was_later = {
	"SELECT 1 FROM (SELECT at FROM oauth_vault.audit ORDER BY at DESC LIMIT 1) a WHERE a.at > $1", "z"
};
/* $2: now, $3: rows are of the future from here on, $4: no back-off ends later, $5: the spread */
static OvQuery reschedule_page = {
	"WITH page AS MATERIALIZED (SELECT connection_id FROM oauth_vault.connection WHERE connection_id > $1"
	"  ORDER BY connection_id LIMIT 1000),"
	" wrong AS (SELECT connection_id FROM oauth_vault.connection WHERE connection_id IN (SELECT connection_id FROM page)"
	"  AND status = 'active' AND refresh_at > $2 AND (issued_at > $3 OR (attempts > 0 AND refresh_at > $4))"
	"  FOR UPDATE SKIP LOCKED),"
	" moved AS (UPDATE oauth_vault.connection c SET refresh_at = least(refresh_at, $2 + random() * least($5 * interval '1 second',"
	"   coalesce(CASE WHEN expires_at <> 'infinity' AND expires_at > issued_at THEN expires_at - issued_at END, interval '1 hour') / 3))"
	"  FROM wrong w WHERE w.connection_id = c.connection_id RETURNING 1)"
	" SELECT (SELECT connection_id FROM page ORDER BY connection_id DESC LIMIT 1), (SELECT count(*) FROM moved)", "uzzzi"
};

int64
ov_clock_moved(void)
{
	static int64 apart;			/* of the two clocks */
	static bool known;
	int64		now = (int64) GetCurrentTimestamp() - ov_monotonic();
	int64		moved = now - apart;

	apart = now;
	if (!known || (moved < JUMP_US && moved > -JUMP_US))
	{
		known = true;
		return 0;
	}
	ereport(LOG,
			(errmsg("oauth_vault: the server's clock has been set %s by %lld seconds",
					moved > 0 ? "forward" : "back", (long long) ((moved > 0 ? moved : -moved) / USECS_PER_SEC)),
			 moved > 0 ? errdetail("What is due now is renewed at the hosts' pace.") :
			 errdetail("What was scheduled before is renewed soon.")));
	if (moved < 0)
	{
		searching = true;
		memset(after, 0, sizeof(after));
	}
	return moved;
}

typedef struct Leaf
{
	TimestampTz now;
	bool		last;
	int64		moved;
} Leaf;

static void
look_at_trail(void *arg)
{
	OvArgs		a = {0};

	ov_arg_time(&a, *(TimestampTz *) arg + OV_FUTURE_US);
	searching = ov_run(&was_later, OV_READ, &a) > 0;
}

static void
page_work(void *arg)
{
	Leaf	   *p = arg;
	OvArgs		a = {0};
	const unsigned char *id;

	ov_arg_uuid(&a, after);
	ov_arg_time(&a, p->now);
	ov_arg_time(&a, p->now + OV_FUTURE_US);
	ov_arg_time(&a, p->now + OV_BACK_OFF_MAX_US);
	ov_arg(&a, Int32GetDatum(SPREAD_S), false);
	(void) ov_run(&reschedule_page, OV_WRITE, &a);
	p->last = ov_null(0, 1);
	if (p->last)
		return;
	id = ov_uuid(0, 1);
	memcpy(after, id, 16);
	p->moved = ov_int8(0, 2);
}

void
ov_clock_tick(TimestampTz now)
{
	Leaf		p = {.now = now};
	unsigned char before[16];

	if (!started)
	{
		if (ov_transact("look for a clock that was later", look_at_trail, &now) != 0)
		{
			ov_tick_at(OV_TICK_CLOCK, TimestampTzPlusMilliseconds(now, AGAIN_MS));
			return;
		}
		started = true;
		if (searching)
			ereport(LOG,
					(errmsg("oauth_vault: the audit trail has rows of the future: the server's clock has been set back"),
					 errdetail("What was scheduled under the later clock is renewed soon.")));
	}
	if (!searching)
		return;
	memcpy(before, after, sizeof(before));
	if (ov_transact("look for rows written under another clock", page_work, &p) != 0)
	{
		memcpy(after, before, sizeof(after));
		ov_tick_at(OV_TICK_CLOCK, TimestampTzPlusMilliseconds(now, AGAIN_MS));
		return;
	}
	if (p.moved > 0)
		ov_refresh_look_anew();
	if (p.last)
		searching = false;
	else
		ov_tick_at(OV_TICK_CLOCK, TimestampTzPlusMilliseconds(now, NEXT_PAGE_MS));
}
