/*
 * catalog.h
 *	  What both sessions and workers read: home row, connectors, rules, keys.
 *
 * All functions need SPI and run as oauth_vault_owner; what they return lives
 * in the caller's memory context.
 */
#ifndef OV_CATALOG_H
#define OV_CATALOG_H

#include "postgres.h"
#include "core/provider.h"
#include "core/record.h"
#include "sql_call.h"

/* Published settings (vaultfile.h, ov_vaultfile_public), parsed; kept until they change. */
typedef enum OvSource
{
	OV_SOURCE_ASSERTION, OV_SOURCE_AUTHENTICATED, OV_SOURCE_ROLE
} OvSource;

typedef struct OvSettings
{
	OvSource	source;
	const char *instance;
	int			npeers;
	const char **peers;			/* instances of the same HA group */
	int			active_version;	/* of the platform keys, and its fingerprint */
	const char *active_fingerprint;
	int			nversions;		/* those in the ring */
	const int  *versions;
	const char **fingerprints;
	int			nhosts;
	const char **allowed_hosts;
	int			nnetworks;
	const char **allowed_networks;
} OvSettings;

/* Raises OV040 when there are none */
extern const OvSettings *ov_current_settings(void);
/* NULL when there are none */
extern const OvSettings *ov_settings_or_null(void);
/* The fingerprint of a platform key in the ring; NULL: the version is not there. */
extern const char *ov_ring_fingerprint(const OvSettings *s, int version);

typedef struct OvHome
{
	unsigned char vault_id[16];
	char	   *instance;
	int64		timeline;
	TimestampTz claimed_at;
	int64		counter;		/* of this claim; see worker/home.c */
	bool		held;			/* this database is a copy that nobody has claimed (OV060) */
	bool		promoted;		/* a peer's that was promoted here: the network worker takes over */
	char		why[256];
} OvHome;

/* The home row, and what the network worker found out; false when there is none. */
extern bool ov_home(OvHome *home);
/* The home row compared with this server alone. */
extern bool ov_home_row(OvHome *home);
/* There are keys and no home row: a database that is being restored, or was in part. */
extern bool ov_home_is_missing(void);
/* The home row, made if there is none: in the transaction of the first sealed secret. */
extern void ov_home_claim(OvHome *home);

typedef struct OvConnector
{
	unsigned char id[16];
	char	   *name;
	char	   *provider;
	char	   *client_id;
	const unsigned char *secret;	/* sealed; NULL for a public client */
	size_t		secret_len;
	int64		secret_generation;
	const unsigned char *previous_secret;
	size_t		previous_len;
	int64		previous_generation;
	int64		key_id;
	const unsigned char *wrapped;	/* connector key */
	size_t		wrapped_len;
	char	  **redirect_uris;
	int			nredirect_uris;
	char	  **default_scopes;
	int			ndefault_scopes;
	bool		has_max_scopes;
	char	  **max_scopes;
	int			nmax_scopes;
	char	   *params;			/* JSON */
	char	   *issuer;
	char	   *metadata;		/* JSON or NULL */
	char	   *policy;
	bool		require_actor;
	bool		require_purpose;
	int32		max_reads_per_actor;	/* in a minute; 0: no limit */
	char	   *status;
	char	   *status_reason;
	const char *paused_by;		/* NULL: not by an administrator */
	char	   *rules;			/* merged; NULL: no such provider */
	char	   *builtin_rules;	/* NULL: not in the catalogue */
} OvConnector;

/* NULL when there is no such connector */
extern OvConnector *ov_connector_by_name(const char *name);
extern OvConnector *ov_connector_by_id(const unsigned char id[16]);

/* Rules of a provider by name; false when there is none. */
extern bool ov_provider_rules(const char *name, char **rules, char **builtin_rules);

/*
 * Times of rows are of the server's clock, which may have been set since (worker/clock.c).
 * A token issued later than this from now was issued under another clock: nobody knows how
 * long it lives.  No back-off is longer than that.
 */
#define OV_FUTURE_US (60 * USECS_PER_SEC)
#define OV_BACK_OFF_MAX_US (2 * USECS_PER_HOUR)

/*
 * Rules, metadata and variables of a connector made one.  extra: a flat JSON
 * object that wins over the connector's params, or NULL.
 */
extern OvCode ov_connector_provider(OvArena *arena, const OvConnector *c, const char *extra,
									const OvProvider **provider, OvError *err);
/*
 * May secrets go to every host of this provider?  Hosts come from the built-in
 * catalogue (with the same variables) or from the vault file, never from SQL.
 * OV_E_DENIED names the first host that may not, in err->detail by itself.
 */
extern OvCode ov_hosts_permitted(OvArena *arena, const OvConnector *c, const char *extra,
								 const OvProvider *provider, OvError *err);

#endif							/* OV_CATALOG_H */
