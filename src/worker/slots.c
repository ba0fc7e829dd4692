/*
 * slots.c
 *	  The request slots' state machine; see slots.h for who owns what when.
 *
 * No lock: each transition is a compare-and-swap on the state, which is also
 * the memory barrier for the payload.  A requester holds one slot at a time
 * (my_slot); errors and process exit abandon it.
 */
#include "worker/shmem.h"

#include <openssl/crypto.h>

#include "debug_point.h"
#include "guc.h"
#include "pgstat.h"
#include "sqlstate.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"
#include "errors.h"

/* How long to wait for a free slot, and for a worker that is not there yet. */
#define SLOT_WAIT_MS 2000
#define WORKER_WAIT_MS 8000

static int	my_slot = -1;
static bool exit_registered;

static unsigned char *
payload(int slot)
{
	return ov_payloads + (Size) slot * OV_MESSAGE_MAX;
}

/* First slot of a kind's half. */
static int
base(OvWorkerKind kind)
{
	return kind == OV_WORKER_KEY ? 0 : ov_shared->nslots;
}

static bool
move(OvSlot *s, uint32 from, uint32 to)
{
	return pg_atomic_compare_exchange_u32(&s->state, &from, to);
}

static void
release_slot(OvSlot *s, int slot)
{
	OPENSSL_cleanse(payload(slot), s->len);
	s->len = 0;
	pg_write_barrier();
	pg_atomic_write_u32(&s->state, OV_SLOT_FREE);
}

/* For whoever had taken a slot whose requester has left: only one of them frees it. */
static void
release_abandoned(OvSlot *s, int slot)
{
	if (move(s, OV_SLOT_ABANDONED, OV_SLOT_CLAIMED))
		release_slot(s, slot);
}

/* Leave the slot we hold, wherever it is. */
static void
leave_slot(void)
{
	OvSlot	   *s;

	if (my_slot < 0)
		return;
	s = &ov_slots[my_slot];
	for (;;)
	{
		uint32		state = pg_atomic_read_u32(&s->state);

		if (state == OV_SLOT_CLAIMED || state == OV_SLOT_DONE)
		{
			release_slot(s, my_slot);
			break;
		}
		/* not taken yet: it is ours again */
		if (state == OV_SLOT_POSTED && move(s, OV_SLOT_POSTED, OV_SLOT_CLAIMED))
			continue;
		if (state == OV_SLOT_TAKEN && move(s, OV_SLOT_TAKEN, OV_SLOT_ABANDONED))
			break;
		if (state != OV_SLOT_POSTED && state != OV_SLOT_TAKEN)
			break;
	}
	my_slot = -1;
}

static void
leave_slot_at_exit(int code, Datum arg)
{
	leave_slot();
}

/* A free slot made ours, or -1; starts looking at a place of this process's own. */
static int
try_claim(OvWorkerKind kind)
{
	for (int i = 0; i < ov_shared->nslots; i++)
	{
		int			slot = base(kind) + (MyProcPid + i) % ov_shared->nslots;

		if (move(&ov_slots[slot], OV_SLOT_FREE, OV_SLOT_CLAIMED))
			return slot;
	}
	return -1;
}

static int
claim(OvWorkerKind kind)
{
	TimestampTz start = GetCurrentTimestamp();

	if (!exit_registered)
	{
		before_shmem_exit(leave_slot_at_exit, (Datum) 0);
		exit_registered = true;
	}
	for (;;)
	{
		int			slot = try_claim(kind);

		if (slot >= 0)
			return slot;
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), SLOT_WAIT_MS))
			return -1;
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

typedef enum AskResult
{
	ASK_ANSWERED, ASK_FAILED, ASK_NO_SLOT, ASK_TIMEOUT, ASK_NO_WORKER, ASK_OVERFLOW
} AskResult;

/* Fills the claimed slot and hands it to the worker. */
static void
post(int slot, OvWorkerKind kind, OvOp op, const OvMsg *request, bool detached)
{
	OvSlot	   *s = &ov_slots[slot];

	s->generation++;
	s->kind = kind;
	s->op = op;
	s->database = kind == OV_WORKER_KEY ? InvalidOid : MyDatabaseId;
	s->requester_pid = MyProcPid;
	s->requester_procno = OV_MY_PROC_NUMBER;
	s->detached = detached;
	s->failed = false;
	s->len = request->len;
	memcpy(payload(slot), request->data, request->len);
	pg_write_barrier();
	pg_atomic_write_u32(&s->state, OV_SLOT_POSTED);
	ov_worker_wake(kind, s->database);
}

/* The exchange itself; interrupts may throw out of it, with my_slot held. */
static AskResult
exchange(OvWorkerKind kind, OvOp op, const OvMsg *request, OvMsg *reply, int timeout_ms)
{
	TimestampTz start = GetCurrentTimestamp();
	Oid			database = kind == OV_WORKER_KEY ? InvalidOid : MyDatabaseId;
	OvSlot	   *s;

	if (request->overflow)
		return ASK_OVERFLOW;
	my_slot = claim(kind);
	if (my_slot < 0)
		return ASK_NO_SLOT;
	s = &ov_slots[my_slot];
	post(my_slot, kind, op, request, false);
	for (;;)
	{
		uint32		state = pg_atomic_read_u32(&s->state);
		long		left;

		if (state == OV_SLOT_DONE)
		{
			bool		failed = s->failed;

			pg_read_barrier();
			memcpy(reply->data, payload(my_slot), s->len);
			reply->len = s->len;
			reply->cap = 0;
			reply->overflow = false;
			leave_slot();
			return failed ? ASK_FAILED : ASK_ANSWERED;
		}
		left = timeout_ms - TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
		if (left <= 0)
		{
			leave_slot();
			return ASK_TIMEOUT;
		}
		if (state == OV_SLOT_POSTED && !ov_worker_alive(kind, database))
		{
			/* a server that stops starts no worker, and may be waiting for us */
			if (ProcDiePending || TimestampDifferenceExceeds(start, GetCurrentTimestamp(), WORKER_WAIT_MS))
			{
				leave_slot();
				return ASK_NO_WORKER;
			}
			left = Min(left, 100);	/* it wakes nobody when it starts */
			ov_launcher_poke();
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left, 1000), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (state == OV_SLOT_POSTED)
			ov_worker_wake(kind, database);
	}
}

static AskResult
ask(OvWorkerKind kind, OvOp op, OvMsg *request, OvMsg *reply, int timeout_ms)
{
	volatile AskResult result = ASK_TIMEOUT;

	Assert(my_slot < 0);
	PG_TRY();
	{
		result = exchange(kind, op, request, reply, timeout_ms);
	}
	PG_FINALLY();
	{
		leave_slot();
		OPENSSL_cleanse(request->data, request->len);
		request->len = 0;
		/* Waiting has used up wake-ups that were for the worker's own loop. */
		if (ov_i_am_worker)
			SetLatch(MyLatch);
	}
	PG_END_TRY();
	return result;
}

static const char *
who(OvWorkerKind kind)
{
	return kind == OV_WORKER_KEY ? "key worker" : "network worker of this database";
}

bool
ov_post(OvWorkerKind kind, OvOp op, OvMsg *request)
{
	int			slot = request->overflow ? -1 : try_claim(kind);

	if (slot >= 0)
		post(slot, kind, op, request, true);
	OPENSSL_cleanse(request->data, request->len);
	request->len = 0;
	return slot >= 0;
}

bool
ov_ask_quietly(OvWorkerKind kind, OvOp op, OvMsg *request, OvMsg *reply, int timeout_ms)
{
	AskResult	result = ask(kind, op, request, reply, timeout_ms);

	if (result == ASK_ANSWERED)
		return true;
	if (result != ASK_FAILED)
	{
		/* the reply's buffer is OV_MESSAGE_MAX by contract */
		ov_msg_init(reply, reply->data, OV_MESSAGE_MAX);
		ov_msg_put_str(reply, OV_TAG_SQLSTATE, kind == OV_WORKER_KEY ? "OV040" : "OV020");
		ov_msg_put_str(reply, OV_TAG_MESSAGE,
					   result == ASK_OVERFLOW ? "the request exceeds 64 kB" : "a worker does not answer");
	}
	return false;
}

void
ov_ask(OvWorkerKind kind, OvOp op, OvMsg *request, OvMsg *reply, int timeout_ms)
{
	switch (ask(kind, op, request, reply, timeout_ms))
	{
		case ASK_ANSWERED:
			return;
		case ASK_FAILED:
			ov_raise_answer(reply);
		case ASK_OVERFLOW:
			ov_raise(ERRCODE_PROGRAM_LIMIT_EXCEEDED, "the request exceeds 64 kB", NULL,
					 "Shorten the parameters.");
		case ASK_NO_SLOT:
			ov_raise(ERRCODE_OV_QUEUE_FULL, "all request slots are in use",
					 ov_detail("reason", "no free slot", NULL),
					 "Try again, or raise \"oauth_vault.request_slots\".");
		case ASK_TIMEOUT:
			ov_raise(ERRCODE_OV_REFRESH_TIMEOUT, "the request is still being worked on",
					 ov_detail("reason", "timeout", NULL),
					 "Try again: the work goes on in the background. \"oauth_vault.wait_timeout\" says how long a call waits.");
		case ASK_NO_WORKER:
			ov_raise(kind == OV_WORKER_KEY ? ERRCODE_OV_VAULT_SEALED : ERRCODE_OV_PROVIDER_UNAVAILABLE,
					 psprintf("the %s is not running", who(kind)),
					 ov_detail("reason", "worker not running", NULL),
					 "See the server log; \"max_worker_processes\" must hold 2 workers, and 2 more for each database.");
	}
}

bool
ov_slot_take(OvWorkerKind kind, OvTicket *ticket, OvMsg *request, void *buf)
{
	int			first = base(kind);
	static int	next = 0;

	for (int i = 0; i < ov_shared->nslots; i++)
	{
		int			slot = first + (next + i) % ov_shared->nslots;
		OvSlot	   *s = &ov_slots[slot];

		if (pg_atomic_read_u32(&s->state) != OV_SLOT_POSTED)
			continue;
		if (kind == OV_WORKER_NETWORK && s->database != MyDatabaseId)
			continue;
		if (!move(s, OV_SLOT_POSTED, OV_SLOT_TAKEN))
			continue;
		/* Between the look at the database and the swap the slot may have
		 * changed hands: look again, and hand it back if it is another's. */
		if (kind == OV_WORKER_NETWORK && s->database != MyDatabaseId)
		{
			Oid			other = s->database;

			if (move(s, OV_SLOT_TAKEN, OV_SLOT_POSTED))
				ov_worker_wake(kind, other);
			else
				release_abandoned(s, slot);
			continue;
		}
		/* nobody waits: the slot is ours to free once answered */
		if (s->detached)
			(void) move(s, OV_SLOT_TAKEN, OV_SLOT_ABANDONED);
		next = (next + i + 1) % ov_shared->nslots;
		memset(ticket, 0, sizeof(*ticket));
		ticket->slot = slot;
		ticket->generation = s->generation;
		ticket->kind = kind;
		ticket->op = s->op;
		ticket->database = s->database;
		ticket->requester_pid = s->requester_pid;
		memcpy(buf, payload(slot), s->len);
		ov_msg_read(request, buf, s->len);
		OPENSSL_cleanse(payload(slot), s->len);
		s->len = 0;
		OV_POINT_OF("request taken by ", kind == OV_WORKER_KEY ? "key worker" : "network worker");
		return true;
	}
	return false;
}

bool
ov_slot_wanted(const OvTicket *ticket)
{
	OvSlot	   *s = &ov_slots[ticket->slot];

	return s->generation == ticket->generation && pg_atomic_read_u32(&s->state) == OV_SLOT_TAKEN;
}

static void
answer(const OvTicket *ticket, const OvMsg *reply, bool failed)
{
	OvSlot	   *s = &ov_slots[ticket->slot];
	int			procno = s->requester_procno;

	if (s->generation != ticket->generation)
		return;
	if (pg_atomic_read_u32(&s->state) == OV_SLOT_TAKEN)
	{
		memcpy(payload(ticket->slot), reply->data, reply->len);
		s->len = reply->len;
		s->failed = failed;
		pg_write_barrier();
		if (move(s, OV_SLOT_TAKEN, OV_SLOT_DONE))
		{
			SetLatch(OV_PROC_LATCH(procno));
			return;
		}
	}
	/* The requester has left. */
	release_abandoned(s, ticket->slot);
}

void
ov_slot_answer(const OvTicket *ticket, const OvMsg *reply)
{
	if (reply->overflow)
		ov_slot_answer_error(ticket, "54000", "the answer exceeds 64 kB", NULL, NULL);
	else
		answer(ticket, reply, false);
}

void
ov_slot_answer_error(const OvTicket *ticket, const char *sqlstate, const char *message,
					 const char *detail, const char *hint)
{
	unsigned char buf[4096];
	OvMsg		m;

	ov_msg_init(&m, buf, sizeof(buf));
	ov_msg_put_str(&m, OV_TAG_SQLSTATE, sqlstate);
	ov_msg_put_str(&m, OV_TAG_MESSAGE, message);
	ov_msg_put_str(&m, OV_TAG_HINT, hint);
	ov_msg_put_str(&m, OV_TAG_DETAIL, detail);
	answer(ticket, &m, true);
}

void
ov_slot_abandon_all(OvWorkerKind kind, Oid database)
{
	int			first = base(kind);

	for (int i = 0; i < ov_shared->nslots; i++)
	{
		OvSlot	   *s = &ov_slots[first + i];
		uint32		state = pg_atomic_read_u32(&s->state);

		if (state != OV_SLOT_TAKEN && state != OV_SLOT_ABANDONED)
			continue;
		if (kind == OV_WORKER_NETWORK && s->database != database)
			continue;
		if (state == OV_SLOT_ABANDONED)
			release_abandoned(s, first + i);
		else
		{
			OvTicket	ticket = {.slot = first + i, .generation = s->generation, .kind = kind};

			ov_slot_answer_error(&ticket, "OV020", "the worker ended while it was working on this",
								 "{\"reason\":\"worker restarted\"}", "Try again.");
		}
	}
}

/* Requests that nobody waits for and nobody will take: their database, or the extension in it, is gone. */
void
ov_slot_forget_database(Oid database)
{
	int			first = base(OV_WORKER_NETWORK);

	for (int i = 0; i < ov_shared->nslots; i++)
	{
		OvSlot	   *s = &ov_slots[first + i];

		if (s->database != database || !s->detached || !move(s, OV_SLOT_POSTED, OV_SLOT_TAKEN))
			continue;
		if (s->database == database && s->detached)
			release_slot(s, first + i);
		else if (move(s, OV_SLOT_TAKEN, OV_SLOT_POSTED))
			ov_worker_wake(OV_WORKER_NETWORK, s->database);
		else
			release_abandoned(s, first + i);
	}
}
