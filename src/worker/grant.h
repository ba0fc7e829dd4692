/*
 * grant.h
 *	  Between grant.c and inbox.c.
 */
#ifndef OV_GRANT_H
#define OV_GRANT_H

#include "worker/network.h"

/* Keeps a result whose row is locked; outcome: refreshed or consented. */
extern void ov_inbox_keep_grant(const OvGrant *g, const char *outcome);
extern void ov_inbox_keep_end(const unsigned char connection_id[16], int64 generation, int64 epoch,
							  const char *reason, const char *detail);

#endif							/* OV_GRANT_H */
