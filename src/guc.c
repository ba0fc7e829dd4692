/*
 * guc.c
 *	  Definitions of the settings; see guc.h.
 *
 * Defined whether or not the library is preloaded, so that ALTER ROLE ... SET
 * restores and pg_upgrade find them.  Sizes of shared memory are PGC_POSTMASTER;
 * a library that is loaded later, and so has no shared memory, cannot say that.
 */
#include "postgres.h"

#include <limits.h>

#include "guc.h"
#include "miscadmin.h"
#include "utils/guc.h"

char	   *ov_guc_vault_file;
char	   *ov_guc_state_dir;
char	   *ov_guc_ca_file;
int			ov_guc_http_timeout;
int			ov_guc_connect_timeout;
int			ov_guc_wait_timeout;
int			ov_guc_refresh_lead;
int			ov_guc_recent_days;
int			ov_guc_max_concurrency;
int			ov_guc_max_host_connections;
int			ov_guc_rotation_rate;
int			ov_guc_event_retention_days;
int			ov_guc_audit;
int			ov_guc_audit_partition;
int			ov_guc_audit_retention;
int			ov_guc_audit_expired;
int			ov_guc_audit_log_heads;
bool		ov_guc_allow_insecure_loopback;
bool		ov_guc_allow_core_dumps;
int			ov_guc_request_slots;
int			ov_guc_max_databases;
int			ov_guc_max_actors;
int			ov_guc_actor_freeze;
int			ov_guc_audit_ring_size;

static const struct config_enum_entry audit_modes[] = {
	{"durable", OV_AUDIT_DURABLE, false},
	{"batched", OV_AUDIT_BATCHED, false},
	{NULL, 0, false}
};

static const struct config_enum_entry partition_units[] = {
	{"day", OV_PARTITION_DAY, false},
	{"month", OV_PARTITION_MONTH, false},
	{NULL, 0, false}
};

static const struct config_enum_entry expired_fates[] = {
	{"drop", OV_EXPIRED_DROP, false},
	{"detach", OV_EXPIRED_DETACH, false},
	{NULL, 0, false}
};

static void
define_int(const char *name, const char *what, int *variable, int boot, int min, int max,
		   GucContext context, int flags)
{
	DefineCustomIntVariable(name, what, NULL, variable, boot, min, max, context, flags, NULL, NULL, NULL);
}

void
ov_guc_define(void)
{
	GucContext	at_start = process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP;

	DefineCustomStringVariable("oauth_vault.vault_file",
							   "Path of the vault file, outside the data directory.", NULL,
							   &ov_guc_vault_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("oauth_vault.state_dir",
							   "Directory of state files, outside the data directory.",
							   "Empty: the directory of the vault file.",
							   &ov_guc_state_dir, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("oauth_vault.ca_file",
							   "CA certificates for connections to providers.",
							   "Empty: the system's bundle.",
							   &ov_guc_ca_file, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_int("oauth_vault.http_timeout", "Total time of one request to a provider.",
			   &ov_guc_http_timeout, 10000, 100, 300000, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("oauth_vault.connect_timeout", "Time for connecting to a provider.",
			   &ov_guc_connect_timeout, 5000, 100, 300000, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("oauth_vault.wait_timeout", "How long a caller waits for a worker.",
			   &ov_guc_wait_timeout, 15000, 100, 300000, PGC_USERSET, GUC_UNIT_MS);
	define_int("oauth_vault.refresh_lead", "Renew tokens at most this long before they expire.",
			   &ov_guc_refresh_lead, 300, 0, 86400, PGC_SIGHUP, GUC_UNIT_S);
	define_int("oauth_vault.recent_days",
			   "Connections unused for this many days are no longer renewed ahead of expiry (refresh policy \"recent\").",
			   &ov_guc_recent_days, 30, 1, 3650, PGC_SIGHUP, 0);
	define_int("oauth_vault.max_concurrency", "Requests to providers in flight per database.",
			   &ov_guc_max_concurrency, 200, 1, 10000, PGC_SIGHUP, 0);
	define_int("oauth_vault.max_host_connections", "Connections to one provider host per database.",
			   &ov_guc_max_host_connections, 8, 1, 10000, PGC_SIGHUP, 0);
	define_int("oauth_vault.rotation_rate", "Keys per second that a rotation of keys works on.",
			   &ov_guc_rotation_rate, 500, 1, 10000, PGC_SIGHUP, 0);
	define_int("oauth_vault.actor_freeze", "How long an actor that reads too often gets no tokens.",
			   &ov_guc_actor_freeze, 900, 1, 604800, PGC_SIGHUP, GUC_UNIT_S);
	define_int("oauth_vault.event_retention_days", "Events are kept for this many days, and for consumers seen since then.",
			   &ov_guc_event_retention_days, 30, 1, 3650, PGC_SIGHUP, 0);
	DefineCustomEnumVariable("oauth_vault.audit",
							 "Whether an audit row is flushed to disk before a token is returned.", NULL,
							 &ov_guc_audit, OV_AUDIT_DURABLE, audit_modes, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("oauth_vault.audit_partition",
							 "How much time a partition of the audit trail holds.",
							 "For partitions to be made; those there are stay as they are.",
							 &ov_guc_audit_partition, OV_PARTITION_MONTH, partition_units, PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_int("oauth_vault.audit_retention", "Days for which audit rows are kept; 0: for ever.",
			   &ov_guc_audit_retention, 0, 0, 36500, PGC_SIGHUP, 0);
	DefineCustomEnumVariable("oauth_vault.audit_expired",
							 "What becomes of a partition of the audit trail that is past retention.", NULL,
							 &ov_guc_audit_expired, OV_EXPIRED_DROP, expired_fates, PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_int("oauth_vault.audit_log_heads", "How often the audit trail's head goes to the server log, while rows are added.",
			   &ov_guc_audit_log_heads, 60, 1, 86400, PGC_SIGHUP, GUC_UNIT_S);
	DefineCustomBoolVariable("oauth_vault.allow_core_dumps",
							 "Let processes that hold secrets dump core and be traced, for debugging.", NULL,
							 &ov_guc_allow_core_dumps, false, at_start, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("oauth_vault.allow_insecure_loopback",
							 "Permit plain http to loopback addresses, for tests.", NULL,
							 &ov_guc_allow_insecure_loopback, false, at_start, 0, NULL, NULL, NULL);
	define_int("oauth_vault.request_slots", "Requests to workers at a time.",
			   &ov_guc_request_slots, 128, 8, 4096, at_start, 0);
	define_int("oauth_vault.max_databases", "Databases that use the extension.",
			   &ov_guc_max_databases, 16, 1, 1024, at_start, 0);
	define_int("oauth_vault.max_actors", "Actors whose reads are counted at a time (\"max_reads_per_actor\" of connectors).",
			   &ov_guc_max_actors, 1024, 16, 65536, at_start, 0);
	define_int("oauth_vault.audit_ring_size", "Shared memory for audit rows under way, per database.",
			   &ov_guc_audit_ring_size, 256, 64, 65536, at_start, GUC_UNIT_KB);
	MarkGUCPrefixReserved("oauth_vault");
}
