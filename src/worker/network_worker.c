/*
 * network_worker.c
 *	  The network worker: one per database, the only process that talks to
 *	  providers and that writes token columns.
 *
 * The loop, and nothing in it blocks:
 *	 1 interrupts, configuration, extension still there
 *	 2 requests from slots, and ticks that are due (claims, inbox, outbox)
 *	 3 the HTTP engine: what arrived is read and sealed, in memory
 *	 4 answers are stored, in one transaction for a batch of a few milliseconds;
 *	   then waiters are told
 *	 5 wait for latch, postmaster death, the engine's fd or the next tick
 *
 * Steps 1 and 2 are left out while an answer waits for step 4, and step 4 runs
 * with interrupts held: a terminated worker has stored what has arrived.  Its
 * requests still in flight are found by its successor as open intents.
 *
 * An answer that cannot be stored (tables locked, disk full) stays in memory
 * and is tried again; it no longer keeps interrupts away, but has one more try
 * before the process ends.
 *
 * Process-local state only; the engine lives as long as the process.  It is not
 * torn down at exit: libcurl might wait for a resolver there.
 */
#include "worker/host_queue.h"
#include "worker/figures.h"
#include "worker/network.h"
#include "worker/worker.h"

#include <openssl/crypto.h>
#include <sys/resource.h>

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "compat.h"
#include "debug_point.h"
#include "conceal.h"
#include "errors.h"
#include "guc.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define BATCH_MS 5				/* answers are collected for this long */
#define BATCH_MAX 100
#define WAKE_PAUSE_MS 100		/* between looks at the tables that wake-ups cause */
#define STUCK_MIN_MS 100
#define STUCK_MAX_MS 5000
#define MAX_WAIT_MS 60000
#define GRACE_MS 300			/* for answers on their way, when we are to end */

MemoryContext ov_round;
static WaitEventSet *events;
static unsigned char request_buf[OV_MESSAGE_MAX];

static OvHttp *http;
static char http_error[512];	/* why there is no engine */
static TimestampTz http_tried;
static uint32 http_settings;

static Oid	extension;
static TimestampTz ticks[OV_NTICKS];
static TimestampTz looked_at;	/* when wake-ups last made us look at the tables */
static TimestampTz leaving_since;	/* when we have been told to end */

static OvJob *arrived;			/* not stored yet, in order */
static OvJob **arrived_end = &arrived;
static int	narrived;
static TimestampTz arrived_since;
static OvJob *stuck;			/* could not be stored: tried again */

/* ---- the extension ---- */

static Oid
find_extension(void)
{
	Oid			oid;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	oid = get_extension_oid("oauth_vault", true);
	CommitTransactionCommand();
	MemoryContextSwitchTo(ov_round);
	return oid;
}

/* Leaves when the extension has gone; a new one gets a new worker. */
static void
look_at_extension(void)
{
	bool		present;

	if (!ov_tables_missed && !ov_database_unknown())
		return;
	ov_tables_missed = false;
	present = ov_extension_present();
	MemoryContextSwitchTo(ov_round);
	if (!present)
		proc_exit(0);
	if (find_extension() != extension)
	{
		ov_launcher_poke();
		proc_exit(0);
	}
}

bool
ov_hosts_check(OvArena *arena, const OvConnector *c, const char *extra, const OvProvider *p,
			   unsigned char digest[32], OvFailure *f)
{
	const char *const *hosts;
	int			nhosts;
	OvError		err = {0};
	OvCode		code;

	code = ov_provider_hosts(arena, p, &hosts, &nhosts, digest, &err);
	if (code == OV_OK)
		code = ov_hosts_permitted(arena, c, extra, p, &err);
	if (code == OV_OK)
		return true;
	if (code == OV_E_DENIED)
		return ov_refuse(f, "OV014", err.message, ov_detail("reason", "host", "host", err.detail, "connector", c->name, NULL),
						 "Hosts come from the built-in catalogue, or from \"allowed_hosts\" in the vault file.");
	return ov_refuse(f, "OV022", psprintf("the rules of connector \"%s\" cannot be used: %s", c->name, err.message),
					 ov_detail("reason", err.message, "connector", c->name, NULL),
					 "An administrator must correct the connector or its provider's rules.");
}

/* ---- the HTTP engine ---- */

/* A connection is an open file, and the soft limit is often 1024. */
static void
allow_files(rlim_t n)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= n)
		return;
	limit.rlim_cur = Min(n, limit.rlim_max);
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < n)
		ereport(LOG,
				(errmsg("the network worker may open only %llu files: it may need %llu",
						(unsigned long long) limit.rlim_cur, (unsigned long long) n),
				 errhint("Raise the server's limit of open files, or lower \"oauth_vault.max_concurrency\".")));
}

/* What it waits on; rebuilt when the engine appears. */
static void
build_events(void)
{
	if (events != NULL)
		FreeWaitEventSet(events);
	events = ov_create_wait_event_set(3);
	AddWaitEventToSet(events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	if (http != NULL)
		AddWaitEventToSet(events, WL_SOCKET_READABLE, ov_http_fd(http), NULL, NULL);
}

static void
configure_engine(void)
{
	const OvSettings *s = ov_settings_or_null();
	OvHttpConfig config = {0};
	OvError		err = {0};
	OvCode		code;

	ov_tick_at(OV_TICK_KEYS, 0);	/* another keyring, perhaps, or one that was not taken over */
	ov_tick_at(OV_TICK_ROTATE, 0);
	http_settings = ov_settings_generation();
	http_tried = GetCurrentTimestamp();
	config.ca_file = ov_guc_ca_file != NULL && ov_guc_ca_file[0] != '\0' ? ov_guc_ca_file : NULL;
	config.allow_insecure_loopback = ov_guc_allow_insecure_loopback;
	config.allowed_networks = s ? s->allowed_networks : NULL;
	config.nallowed_networks = s ? s->nnetworks : 0;
	config.connect_timeout_ms = ov_guc_connect_timeout;
	config.total_timeout_ms = ov_guc_http_timeout;
	config.max_connections = ov_guc_max_concurrency;
	config.max_host_connections = ov_guc_max_host_connections;
	config.user_agent = "oauth_vault/1.0";
	allow_files((rlim_t) ov_guc_max_concurrency + max_files_per_process);
	if (http == NULL)
	{
		code = ov_http_new(&config, &http, &err);
		if (code == OV_OK)
			build_events();
	}
	else
		code = ov_http_reconfigure(http, &config, &err);
	ov_hosts_forgive();
	if (code == OV_OK)
	{
		http_error[0] = '\0';
		return;
	}
	if (strcmp(http_error, err.message) != 0)
		ereport(LOG,
				(errmsg("oauth_vault cannot reach providers: %s", err.message),
				 http ? errhint("The configuration read before stays in force.") :
				 errhint("Set \"oauth_vault.ca_file\" to a readable file of CA certificates and reload.")));
	strlcpy(http_error, err.message, sizeof(http_error));
}

bool
ov_engine_ready(OvFailure *f)
{
	if (http == NULL && TimestampDifferenceExceeds(http_tried, GetCurrentTimestamp(), 1000))
		configure_engine();
	if (http != NULL)
		return true;
	return ov_refuse(f, "OV020", "providers cannot be reached: the CA certificates cannot be read",
					 ov_detail("reason", http_error, NULL),
					 "Set \"oauth_vault.ca_file\" to a file of CA certificates that the server can read, and reload.");
}

/* ---- requests of jobs ---- */

static void
job_arrived(OvJob *job)
{
	job->next = NULL;
	*arrived_end = job;
	arrived_end = &job->next;
	if (narrived++ == 0)
		arrived_since = GetCurrentTimestamp();
}

/* The engine's callback: no error may leave it. */
static void
request_done(void *arg, const OvHttpResponse *resp)
{
	OvJob	   *job = arg;
	OvHttpResponse answer = *resp;

	OV_POINT("answer arrived");
	memcpy(answer.secrets, job->secrets, sizeof(answer.secrets));
	ov_figure_add(OV_FIG_REQUESTS, 1);
	if (resp->transport_error != NULL || resp->status == 0)
		ov_figure_add(OV_FIG_UNANSWERED, 1);
	ov_host_answered(job, resp);
	job->read(job, &answer);
	job_arrived(job);
	OV_POINT("answer read");
}

void
ov_engine_fail(OvJob *job, const char *why)
{
	OvHttpResponse failed = {.transport_error = why, .body = ""};

	request_done(job, &failed);
}

void
ov_engine_send(OvJob *job, const OvHttpRequest *req)
{
	OvError		err = {0};

	if (http == NULL)
		ov_engine_fail(job, http_error);
	else if (ov_http_send(http, req, request_done, job, &err) != OV_OK)
		ov_engine_fail(job, err.message);
	OV_POINT("request queued");
}

/* ---- storing what has arrived ---- */

/* Takes up to BATCH_MAX jobs off the list. */
static int
take(OvJob **list, OvJob **batch)
{
	int			n = 0;

	while (*list != NULL && n < BATCH_MAX)
	{
		batch[n] = *list;
		*list = batch[n]->next;
		batch[n++]->next = NULL;
	}
	return n;
}

/* Stores a batch of answers; what cannot be stored goes to the stuck. */
static void
store_batch(OvJob **batch, int n)
{
	OvJob	   *refreshes[BATCH_MAX];
	OvJob	   *revocations[BATCH_MAX];
	int			nrefreshes = 0;
	int			nrevocations = 0;

	for (int i = 0; i < n; i++)
	{
		switch (batch[i]->kind)
		{
			case OV_JOB_REFRESH:
				refreshes[nrefreshes++] = batch[i];
				break;
			case OV_JOB_EXCHANGE:
				ov_flow_apply(batch[i]);
				break;
			case OV_JOB_REVOKE:
				revocations[nrevocations++] = batch[i];
				break;
			case OV_JOB_DISCOVER:
				ov_discovery_apply(batch[i]);
				break;
		}
	}
	if (nrefreshes > 0)
	{
		/* Their places are free: others may leave with the same commit, unless we are to end. */
		OvJob	   *leaving[OV_DEPART_MAX];
		int			nleaving = ProcDiePending ? 0 : ov_hosts_take(leaving);
		bool		departed = ov_refresh_apply(refreshes, nrefreshes, leaving, nleaving);

		if (nleaving > 0)
			ov_hosts_send(leaving, nleaving, departed || ov_refresh_depart(leaving, nleaving));
	}
	if (nrevocations > 0)
		ov_revocation_apply(revocations, nrevocations);
	for (int i = 0; i < n; i++)
	{
		OvJob	   *job = batch[i];

		if (job->done)
			ov_job_free(job);
		else if (job->failures > 0)
		{
			int			pause = STUCK_MIN_MS << Min(job->failures - 1, 6);

			job->next = stuck;
			stuck = job;
			ov_tick_at(OV_TICK_STUCK,
					   TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Min(pause, STUCK_MAX_MS)));
		}
		/* else it has sent another request */
	}
}

static void
store(OvJob *list)
{
	OvJob	   *batch[BATCH_MAX];
	int			n;

	HOLD_INTERRUPTS();
	while ((n = take(&list, batch)) > 0)
		store_batch(batch, n);
	RESUME_INTERRUPTS();
}

static void
store_arrived(void)
{
	OvJob	   *list = arrived;

	OV_POINT("answers to be stored");
	arrived = NULL;
	arrived_end = &arrived;
	narrived = 0;
	store(list);
}

static void
store_stuck(void)
{
	OvJob	   *list = stuck;

	stuck = NULL;
	store(list);
}

/* ---- requests ---- */

static void
serve(const OvTicket *ticket, const OvMsg *m)
{
	switch (ticket->op)
	{
		case OV_OP_BEGIN:
			ov_flow_begin(ticket, m);
			break;
		case OV_OP_COMPLETE:
			ov_flow_complete(ticket, m);
			break;
		case OV_OP_REFRESH:
		case OV_OP_REJECTED:
			ov_refresh_request_add(ticket, m);
			break;
		case OV_OP_DISCOVER:
			ov_discovery_start(ticket, m);
			break;
		default:
			ov_slot_answer_error(ticket, "XX000", "the network worker does not know this request", NULL, NULL);
	}
}

static void
serve_requests(void)
{
	int			room = ov_jobs_room(false);
	OvTicket	ticket;
	OvMsg		m;

	while (room-- > 0 && ov_slot_take(OV_WORKER_NETWORK, &ticket, &m, request_buf))
	{
		serve(&ticket, &m);
		OPENSSL_cleanse(request_buf, m.len);
	}
	ov_refresh_requests_run();
}

/* ---- ticks ---- */

void
ov_tick_at(OvTick tick, TimestampTz at)
{
	ticks[tick] = Min(ticks[tick], at);
}

static void
run_tick(OvTick tick, TimestampTz now)
{
	switch (tick)
	{
		case OV_TICK_HOME:
			ov_home_tick(now);
			break;
		case OV_TICK_CLOCK:
			ov_clock_tick(now);
			break;
		case OV_TICK_RECOVER:
			ov_refresh_recover_tick(now);
			break;
		case OV_TICK_DUE:
			ov_refresh_due_tick(now);
			break;
		case OV_TICK_INBOX:
			ov_inbox_tick(now);
			break;
		case OV_TICK_OUTBOX:
			ov_outbox_tick(now);
			break;
		case OV_TICK_OFFBOARD:
			ov_offboarding_tick(now);
			break;
		case OV_TICK_STUCK:
			store_stuck();
			break;
		case OV_TICK_SWEEP:
			ov_flow_sweep_tick(now);
			break;
		case OV_TICK_TRACE:
			ov_trace_flush();
			break;
		case OV_TICK_EVENTS:
			ov_events_tick(now);
			break;
		case OV_TICK_DISPATCH:
			break;				/* each round does */
		case OV_TICK_WAITERS:
			ov_refresh_waiters_tick(now);
			break;
		case OV_TICK_KEYS:
			ov_key_check_tick(now);
			break;
		case OV_TICK_ROTATE:
			ov_rotation_tick(now);
			break;
		case OV_NTICKS:
			break;
	}
}

static void
run_ticks(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (OvTick tick = 0; tick < OV_NTICKS; tick++)
	{
		if (ticks[tick] > now)
			continue;
		ticks[tick] = DT_NOEND;
		run_tick(tick, now);
	}
}

/* The server's clock has been set: what we wait for comes no later, and no earlier, than before. */
static void
look_at_clock(void)
{
	int64		moved = ov_clock_moved();

	if (moved == 0)
		return;
	for (OvTick tick = 0; tick < OV_NTICKS; tick++)
		if (ticks[tick] != DT_NOEND)
			ticks[tick] += moved;
	arrived_since += moved;
	looked_at += moved;
	http_tried += moved;
	leaving_since += leaving_since != 0 ? moved : 0;
	ov_hosts_start_slowly();
	ov_refresh_look_anew();
	ov_tick_at(OV_TICK_CLOCK, GetCurrentTimestamp());
	ov_tick_at(OV_TICK_OUTBOX, GetCurrentTimestamp());
}

static long
wait_ms(void)
{
	TimestampTz next = DT_NOEND;
	TimestampTz now = GetCurrentTimestamp();

	if (arrived != NULL)
		next = TimestampTzPlusMilliseconds(arrived_since, BATCH_MS);
	else
		for (OvTick tick = 0; tick < OV_NTICKS; tick++)
			next = Min(next, ticks[tick]);
	if (next <= now)
		return 0;
	if (next == DT_NOEND)
		return MAX_WAIT_MS;
	return Min(TimestampDifferenceMilliseconds(now, next), MAX_WAIT_MS);
}

/*
 * Somebody set our latch.  A request in a slot is seen anyway; a committed
 * decision (a revocation, a connector put right) is in the tables.
 */
static void
look_at_tables_soon(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz at = looked_at;

	/* A look that is still to come serves: many wake-ups must not push it away. */
	if (at <= now)
		at = Max(now, TimestampTzPlusMilliseconds(looked_at, WAKE_PAUSE_MS));
	ov_tick_at(OV_TICK_OUTBOX, at);
	ov_tick_at(OV_TICK_OFFBOARD, at);
	ov_home_look_again(at);
	ov_tick_at(OV_TICK_ROTATE, at);
	ov_tick_at(OV_TICK_DUE, at);
	ov_tick_at(OV_TICK_EVENTS, at);
	looked_at = at;
}

/* ---- the process ---- */

static void
leave(int code, Datum arg)
{
	ov_trace_leave();
	ov_hosts_leave();
	ov_keys_forget();
	OPENSSL_cleanse(request_buf, sizeof(request_buf));
	ov_jobs_leave();
}

/* Terminated, with requests under way: those that are answered in a moment are
 * not in doubt. */
static bool
wait_for_answers(void)
{
	if (!ProcDiePending || http == NULL || ov_http_in_flight(http) == 0)
		return false;
	if (leaving_since == 0)
		leaving_since = GetCurrentTimestamp();
	return !TimestampDifferenceExceeds(leaving_since, GetCurrentTimestamp(), GRACE_MS);
}

static bool
batch_is_ripe(void)
{
	if (arrived == NULL)
		return false;
	return InterruptPending || narrived >= BATCH_MAX || http == NULL || ov_http_in_flight(http) == 0 ||
		TimestampDifferenceExceeds(arrived_since, GetCurrentTimestamp(), BATCH_MS);
}

static void
start(Oid database)
{
	ov_worker_signals();
	ov_keys_conceal();
	ov_conceal_pages(request_buf, sizeof(request_buf));
	ov_conceal_worker("network worker");
	if (!ov_worker_connect(database))
		proc_exit(0);
	/*
	 * What its statements look for has an index.  Tables that have just grown, or
	 * are full of rows deleted a moment ago, look small to the planner.
	 */
	SetConfigOption("enable_seqscan", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("plan_cache_mode", "force_generic_plan", PGC_SUSET, PGC_S_OVERRIDE);
	ov_worker_register(OV_WORKER_NETWORK, MyDatabaseId);
	before_shmem_exit(leave, (Datum) 0);
	ov_figure_add(OV_FIG_WORKER_STARTS, 1);
	pgstat_report_appname("oauth_vault network worker");
	ov_round = AllocSetContextCreate(TopMemoryContext, "oauth_vault network worker", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(ov_round);
	pgstat_report_activity(STATE_IDLE, NULL);
	extension = find_extension();
	ConfigReloadPending = true; /* one SIGHUP may have been lost before */
	build_events();
	for (OvTick tick = 0; tick < OV_NTICKS; tick++)
		ticks[tick] = 0;
	ticks[OV_TICK_STUCK] = ticks[OV_TICK_TRACE] = DT_NOEND;
	ticks[OV_TICK_WAITERS] = ticks[OV_TICK_DISPATCH] = DT_NOEND;
}

/* For whoever looks at oauth_metrics */
static void
publish_figures(void)
{
	uint64		nstuck = 0;

	for (OvJob *job = stuck; job != NULL; job = job->next)
		nstuck++;
	ov_figure_set(OV_FIG_BEAT, (uint64) ov_monotonic());
	ov_figure_set(OV_FIG_JOBS, ov_jobs_under_way());
	ov_figure_set(OV_FIG_ON_THE_WIRE, http != NULL ? ov_http_in_flight(http) : 0);
	ov_figure_set(OV_FIG_STUCK, nstuck);
	ov_hosts_publish();
}

void
ov_network_worker_main(Datum database)
{
	bool		passed_over = false;	/* steps 1 and 2 were left out */

	start(DatumGetObjectId(database));
	for (;;)
	{
		WaitEvent	happened[3];
		bool		held = false;
		bool		leaving;
		long		timeout;
		int			n;

		ResetLatch(MyLatch);
		look_at_clock();
		leaving = wait_for_answers();
		MemoryContextSwitchTo(ov_round);
		MemoryContextReset(ov_round);
		if (arrived != NULL || leaving)
			passed_over = true;
		else
		{
			passed_over = false;
			QueryCancelPending = false; /* there is no query to cancel */
			if (ProcDiePending && stuck != NULL)
				store_stuck();
			CHECK_FOR_INTERRUPTS();
			if (ov_worker_reload() || http_settings != ov_settings_generation())
			{
				configure_engine();
				ov_home_look_again(GetCurrentTimestamp());
			}
			look_at_extension();
			/* What is stuck would be lost with us in the middle of a transaction. */
			if (stuck != NULL)
			{
				HOLD_INTERRUPTS();
				held = true;
			}
			serve_requests();
			run_ticks();
			if (held)
				RESUME_INTERRUPTS();
		}
		if (http != NULL)
		{
			ov_http_service(http);
			if (ov_http_in_flight(http) > 0)
				OV_POINT("requests sent");
		}
		if (batch_is_ripe())
		{
			store_arrived();
			passed_over = true;
		}
		if (arrived == NULL && !leaving)
		{
			HOLD_INTERRUPTS();
			ov_hosts_dispatch();
			RESUME_INTERRUPTS();
		}
		if (ov_events_written)
		{
			ov_events_written = false;
			ov_tick_at(OV_TICK_EVENTS, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WAKE_PAUSE_MS));
		}
		publish_figures();
		timeout = leaving && arrived == NULL ? GRACE_MS / 10 : passed_over && arrived == NULL ? 0 : wait_ms();
		n = WaitEventSetWait(events, timeout, happened, 3, PG_WAIT_EXTENSION);
		for (int i = 0; i < n; i++)
			if (happened[i].events & WL_LATCH_SET)
				look_at_tables_soon();
	}
}
