/*
 * home.c
 *	  May this database act?  The network worker's judgement of copies.
 *
 * The home row is compared with this server (catalog.c), then with the state
 * file, which does not travel with the database.  Both are looked at in the
 * transaction that lets a request leave, and at start.
 *
 * While the database is in use its counter in the home row goes up, at most
 * every BUMP_MS, in one of the transactions that claim something to send; once
 * that is committed, and before the request leaves, the state file follows.
 * So the file is never ahead of a database that has not been restored, however
 * either of them crashes.  After the last use the counter goes up once more,
 * so that a backup made in between is behind as well.
 *
 * A counter above zero says that there was a file: then its absence means
 * that the database has come to another machine.  A claim, the first use and a
 * takeover start a new count at zero, and there the file is written first.
 *
 * The file is read and written by this process alone.  Sessions learn the
 * verdict through shared memory (ov_hold_publish).
 */
#include "worker/network.h"

#include <limits.h>
#include <openssl/crypto.h>

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "core/codec.h"
#include "core/statefile.h"
#include "errors.h"
#include "guc.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#define BUMP_MS 5000			/* also how long a verdict stands */
#define HELD_LOOK_MS 10000

static struct
{
	bool		valid;
	TimestampTz at;
	TimestampTz claim;			/* of the row that was looked at */
	int64		counter;		/* the highest that was committed */
	bool		held;
	char		why[256];
	unsigned char vault_id[16];
	bool		kept;			/* our state file is in place, at path */
	char		path[PATH_MAX];
}			verdict;

static char database_name[NAMEDATALEN];	/* for messages, also outside transactions */
static char writer[48];			/* this process, for the state file */
static bool used;				/* since the counter last went up */
static TimestampTz bumped_at;
static char file_error[256];	/* the last one said */
static char said[256];			/* why the log was last told that nothing leaves */

/* Of the transaction under way */
static int64 bumped;			/* 0: not */
static char *taken_over_from;	/* the peer's instance; in ov_round */

static OvQuery bump_row = {
	"UPDATE oauth_vault.home SET counter = counter + 1 WHERE singleton IN"
	" (SELECT singleton FROM oauth_vault.home FOR UPDATE SKIP LOCKED) RETURNING counter", ""
};
static OvQuery take_over_row = {
	"UPDATE oauth_vault.home SET instance = $1, timeline = $2,"
	" claimed_at = greatest(clock_timestamp(), claimed_at + interval '1 microsecond'), counter = 0"
	" WHERE singleton IN (SELECT singleton FROM oauth_vault.home FOR UPDATE SKIP LOCKED)", "tl"
};
static OvQuery doubt_intents = {"UPDATE oauth_vault.intent SET in_doubt = true WHERE NOT in_doubt", ""};

/* ---- the state file ---- */

static OvCode
state_path(const unsigned char vault_id[16], char path[PATH_MAX], OvError *err)
{
	char		dir[PATH_MAX];
	char		real[PATH_MAX];
	char	   *slash;
	OvCode		code;

	if (ov_guc_state_dir != NULL && ov_guc_state_dir[0] != '\0')
		strlcpy(dir, ov_guc_state_dir, sizeof(dir));
	else
	{
		strlcpy(dir, ov_guc_vault_file ? ov_guc_vault_file : "", sizeof(dir));
		slash = strrchr(dir, '/');
		if (slash != NULL)
			slash[slash == dir ? 1 : 0] = '\0';
	}
	code = ov_state_dir(dir, DataDir, real, err);
	if (code != OV_OK)
		return code;
	if (snprintf(path, PATH_MAX, "%s/oauth_vault-%s.state", real, ov_uuid_text(vault_id)) >= PATH_MAX)
		return ov_fail(err, OV_E_LIMIT, "the path of the state file is too long");
	return OV_OK;
}

static void
describe(const unsigned char vault_id[16], TimestampTz claim, int64 counter, OvState *me)
{
	char		real[PATH_MAX];

	memset(me, 0, sizeof(*me));
	memcpy(me->vault_id, vault_id, 16);
	me->since = claim;
	me->counter = counter;
	me->system_identifier = GetSystemIdentifier();
	me->timeline = GetWALInsertionTimeLine();
	me->database = MyDatabaseId;
	strlcpy(me->directory, realpath(DataDir, real) != NULL ? real : DataDir, sizeof(me->directory));
	strlcpy(me->writer, writer, sizeof(me->writer));
}

/* Says once what keeps the file from being written: the vault works without it. */
static void
say_file_error(const char *message)
{
	if (strcmp(file_error, message) != 0)
		ereport(LOG,
				(errmsg("oauth_vault keeps no state file for database \"%s\": %s",
						database_name, message),
				 errdetail("A restore in place and a clone that has the same vault file may not be recognised as copies."),
				 errhint("Set \"oauth_vault.state_dir\" to a directory outside the data directory that the server's user can write.")));
	strlcpy(file_error, message, sizeof(file_error));
}

static void
keep(int64 counter)
{
	OvState		me;
	OvError		err = {0};

	describe(verdict.vault_id, verdict.claim, counter, &me);
	verdict.kept = ov_state_save(verdict.path, &me, &err) == OV_OK;
	if (verdict.kept)
		file_error[0] = '\0';
	else
		say_file_error(err.message);
}

/* ---- judging ---- */

static bool
read_file(const OvHome *home, OvState *file, char path[PATH_MAX], OvCode *code, OvError *err)
{
	path[0] = '\0';
	*code = state_path(home->vault_id, path, err);
	if (*code == OV_OK)
		*code = ov_state_load(path, file, err);
	return *code == OV_OK;
}

static bool
wrote_it(const OvState *file, const OvState *me)
{
	return file->since == me->since && file->counter == me->counter && strcmp(file->writer, writer) == 0;
}

/* The verdict about a row that fits this server; writes the file if it is good. */
static void
judge(const OvHome *home)
{
	char		path[PATH_MAX];
	OvState		file,
				me;
	OvError		err = {0};
	OvCode		code;
	TimestampTz floor = 0;
	bool		in_place;		/* the file is where this process wrote it */
	bool		good;

	if (writer[0] == '\0')
	{
		unsigned char id[16];

		ov_new_uuid(id);
		strlcpy(writer, ov_uuid_text(id), sizeof(writer));
	}
	describe(home->vault_id, home->claimed_at, home->counter, &me);
	good = read_file(home, &file, path, &code, &err);
	in_place = verdict.valid && verdict.kept && verdict.claim == home->claimed_at;
	if (!in_place || strcmp(path, verdict.path) != 0)
		me.writer[0] = '\0';	/* not written yet, here */
	verdict.why[0] = '\0';
	if (good)
	{
		verdict.held = !ov_state_allows(&file, &me, verdict.why, sizeof(verdict.why));
		if (file.since > me.since)
			floor = file.since;
	}
	else
	{
		/* deleted or moved under a server that runs: written again.  A new count has no file yet. */
		verdict.held = home->counter > 0 && !(in_place && code == OV_E_NOTFOUND);
		if (verdict.held && code == OV_E_NOTFOUND)
			snprintf(verdict.why, sizeof(verdict.why), "the state file is missing here: \"%.200s\"", path);
		else if (verdict.held)
			strlcpy(verdict.why, err.message, sizeof(verdict.why));
	}
	verdict.valid = true;
	verdict.at = GetCurrentTimestamp();
	memcpy(verdict.vault_id, home->vault_id, 16);
	verdict.claim = home->claimed_at;
	verdict.counter = home->counter;
	strlcpy(verdict.path, path, sizeof(verdict.path));
	ov_hold_publish(verdict.held, home->claimed_at, floor, verdict.why);
	if (verdict.held)
		verdict.kept = false;
	else if (path[0] == '\0')
	{
		verdict.kept = false;
		say_file_error(err.message);
	}
	else if (good && wrote_it(&file, &me))
		verdict.kept = true;
	else
		keep(home->counter);
}

static bool
verdict_stands(const OvHome *home)
{
	return verdict.valid && !verdict.held && verdict.claim == home->claimed_at &&
		home->counter >= verdict.counter &&
		!TimestampDifferenceExceeds(verdict.at, GetCurrentTimestamp(), BUMP_MS);
}

/*
 * This server was a standby of the one in the home row, and was promoted.
 * What that one had under way is in doubt before anything else happens.
 */
static void
take_over(OvHome *home)
{
	char		path[PATH_MAX];
	OvState		file;
	OvError		err = {0};
	OvCode		code;
	Datum		args[2];

	if (read_file(home, &file, path, &code, &err) && memcmp(file.vault_id, home->vault_id, 16) == 0 &&
		file.since > home->claimed_at)
	{
		home->held = true;
		strlcpy(home->why, "the database was restored to a time before it was claimed", sizeof(home->why));
		ov_hold_publish(true, home->claimed_at, file.since, home->why);
		return;
	}
	args[0] = ov_text_datum(ov_current_settings()->instance);
	args[1] = Int64GetDatum(GetWALInsertionTimeLine());
	if (ov_query(&take_over_row, OV_WRITE, args, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("the home row is locked by another transaction")));
	(void) ov_query(&doubt_intents, OV_WRITE, NULL, NULL);
	taken_over_from = MemoryContextStrdup(ov_round, home->instance);
}

/* Whatever waited for the hold to end */
static void
wake_everything(void)
{
	TimestampTz now = GetCurrentTimestamp();

	ov_refresh_recover_again();
	ov_tick_at(OV_TICK_RECOVER, now);
	ov_tick_at(OV_TICK_DUE, now);
	ov_tick_at(OV_TICK_OUTBOX, now);
}

static bool
refuse(OvFailure *f, const char *message, const char *why, const char *hint)
{
	if (strcmp(said, why) != 0)
		ereport(LOG,
				(errmsg("oauth_vault sends nothing from database \"%s\": %s", database_name, why),
				 errhint("%s", hint)));
	strlcpy(said, why, sizeof(said));
	ov_tick_at(OV_TICK_HOME, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), HELD_LOOK_MS));
	return ov_refuse(f, "OV060", message, ov_detail("reason", why, NULL), hint);
}

static bool
check(OvHome *home, OvFailure *f)
{
	if (database_name[0] == '\0')
		strlcpy(database_name, get_database_name(MyDatabaseId), sizeof(database_name));
	if (!ov_home_row(home))
		return refuse(f, "this database has no home row: it may be a copy that is being restored", "no home row",
					  "Nothing is sent to providers until the row of oauth_vault.home has been restored.");
	if (taken_over_from != NULL)
		return true;			/* in this transaction */
	if (home->promoted)
		take_over(home);
	else if (!home->held)
	{
		if (!verdict_stands(home))
			judge(home);
		home->held = verdict.held;
		strlcpy(home->why, verdict.why, sizeof(home->why));
	}
	if (home->held)
		return refuse(f, "this copy of the database has not been claimed", home->why,
					  "An administrator calls oauth_claim() if this is the only copy in use.");
	if (said[0] != '\0')
		wake_everything();
	said[0] = '\0';
	return true;
}

/* ---- the counter ---- */

static void
bump(void)
{
	if (!verdict.kept || taken_over_from != NULL || bumped != 0)
		return;
	/* somebody is claiming: then there will be another count */
	if (ov_query(&bump_row, OV_WRITE, NULL, NULL) > 0)
		bumped = ov_int8(0, 1);
}

static bool
is_time(TimestampTz now)
{
	return TimestampDifferenceExceeds(bumped_at, now, BUMP_MS);
}

bool
ov_home_or_refuse(OvHome *home, OvFailure *f)
{
	if (!check(home, f))
		return false;
	used = true;
	if (is_time(GetCurrentTimestamp()))
		bump();
	else
		ov_tick_at(OV_TICK_HOME, TimestampTzPlusMilliseconds(bumped_at, BUMP_MS + 1));
	return true;
}

void
ov_home_transaction_ended(bool committed)
{
	if (committed && taken_over_from != NULL)
	{
		const OvSettings *s = ov_settings_or_null();
		char	   *reason = psprintf("promoted: instance \"%s\" takes over from its peer \"%s\"",
									  s ? s->instance : "", taken_over_from);
		OvTrace		t = {.event = "claimed", .outcome = "ok", .reason = reason};

		ereport(LOG,
				(errmsg("oauth_vault goes on in database \"%s\", %s", database_name, reason)));
		ov_trace(&t);
		wake_everything();
		ov_tick_at(OV_TICK_HOME, GetCurrentTimestamp());
	}
	else if (committed && bumped != 0)
	{
		bumped_at = GetCurrentTimestamp();
		used = false;
		verdict.counter = bumped;
		keep(bumped);
	}
	taken_over_from = NULL;
	bumped = 0;
}

static void
tick_work(void *arg)
{
	OvHome		home;
	OvFailure	f;

	/* a vault that has not been used yet */
	if (!ov_home_row(&home) && !ov_home_is_missing())
		return;
	if (check(&home, &f) && used && is_time(*(TimestampTz *) arg))
		bump();
}

void
ov_home_tick(TimestampTz now)
{
	if (ov_transact("look at the home row", tick_work, &now) != 0)
		ov_tick_at(OV_TICK_HOME, TimestampTzPlusMilliseconds(now, 1000));
}

/* Somebody woke the worker: has the database been claimed? */
void
ov_home_look_again(TimestampTz at)
{
	if (said[0] != '\0')
		ov_tick_at(OV_TICK_HOME, at);
}
