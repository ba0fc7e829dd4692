/*
 * flow.h
 *	  Between flow_begin.c and flow_complete.c.
 */
#ifndef OV_FLOW_H
#define OV_FLOW_H

#include "worker/network.h"

/* A field of a request, in the arena; NULL if absent */
extern char *ov_field(OvArena *arena, const OvMsg *m, OvTag tag);
/* The connector if it is there and in service */
extern OvConnector *ov_usable_connector(OvConnector *c, OvFailure *f);
extern bool ov_provider_of(OvArena *arena, const OvConnector *c, const char *extra, const OvProvider **provider,
						   OvFailure *f);

#endif							/* OV_FLOW_H */
