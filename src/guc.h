/*
 * guc.h
 *	  Settings: names, limits and paths only, never a key or a secret.
 */
#ifndef OV_GUC_H
#define OV_GUC_H

#include "postgres.h"

typedef enum OvAuditMode
{
	OV_AUDIT_DURABLE, OV_AUDIT_BATCHED
} OvAuditMode;

typedef enum OvPartitionUnit
{
	OV_PARTITION_DAY, OV_PARTITION_MONTH
} OvPartitionUnit;

typedef enum OvExpired
{
	OV_EXPIRED_DROP, OV_EXPIRED_DETACH
} OvExpired;

extern char *ov_guc_vault_file;
extern char *ov_guc_state_dir;
extern char *ov_guc_ca_file;
extern int	ov_guc_http_timeout;	/* ms */
extern int	ov_guc_connect_timeout; /* ms */
extern int	ov_guc_wait_timeout;	/* ms */
extern int	ov_guc_refresh_lead;	/* s */
extern int	ov_guc_recent_days;
extern int	ov_guc_max_concurrency;
extern int	ov_guc_max_host_connections;
extern int	ov_guc_rotation_rate;	/* keys per second */
extern int	ov_guc_event_retention_days;
extern int	ov_guc_audit;			/* OvAuditMode */
extern int	ov_guc_audit_partition; /* OvPartitionUnit */
extern int	ov_guc_audit_retention; /* days; 0: for ever */
extern int	ov_guc_audit_expired;	/* OvExpired */
extern int	ov_guc_audit_log_heads; /* s */
extern bool ov_guc_allow_insecure_loopback;
extern bool ov_guc_allow_core_dumps;
extern int	ov_guc_request_slots;
extern int	ov_guc_max_databases;
extern int	ov_guc_max_actors;
extern int	ov_guc_actor_freeze;	/* s */
extern int	ov_guc_audit_ring_size; /* kB per database */

extern void ov_guc_define(void);

#endif							/* OV_GUC_H */
