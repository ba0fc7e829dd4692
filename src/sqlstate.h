/*
 * sqlstate.h
 *	  The error class OV: stable, documented in doc/manual.md.
 */
#ifndef OV_SQLSTATE_H
#define OV_SQLSTATE_H

#include "utils/elog.h"

#define OV_STATE(a, b, c) MAKE_SQLSTATE('O', 'V', a, b, c)

#define ERRCODE_OV_IDENTITY_REQUIRED		OV_STATE('0', '0', '1')
#define ERRCODE_OV_IDENTITY_INVALID			OV_STATE('0', '0', '2')
#define ERRCODE_OV_REAUTHORIZATION_REQUIRED	OV_STATE('0', '1', '0')
#define ERRCODE_OV_INSUFFICIENT_SCOPE		OV_STATE('0', '1', '1')
#define ERRCODE_OV_NO_CONNECTION			OV_STATE('0', '1', '2')
#define ERRCODE_OV_AMBIGUOUS_ACCOUNT		OV_STATE('0', '1', '3')
#define ERRCODE_OV_POLICY_DENIED			OV_STATE('0', '1', '4')
#define ERRCODE_OV_PROVIDER_UNAVAILABLE		OV_STATE('0', '2', '0')
#define ERRCODE_OV_REFRESH_TIMEOUT			OV_STATE('0', '2', '1')
#define ERRCODE_OV_CONNECTOR_MISCONFIGURED	OV_STATE('0', '2', '2')
#define ERRCODE_OV_FLOW_INVALID				OV_STATE('0', '3', '0')
#define ERRCODE_OV_AUTHORIZATION_DENIED		OV_STATE('0', '3', '1')
#define ERRCODE_OV_ISSUER_MISMATCH			OV_STATE('0', '3', '2')
#define ERRCODE_OV_SUBJECT_CHANGED			OV_STATE('0', '3', '3')
#define ERRCODE_OV_INVALID_RESPONSE			OV_STATE('0', '3', '4')
#define ERRCODE_OV_VAULT_SEALED				OV_STATE('0', '4', '0')
#define ERRCODE_OV_DECRYPTION_FAILED		OV_STATE('0', '4', '1')
#define ERRCODE_OV_AUDIT_UNAVAILABLE		OV_STATE('0', '4', '2')
#define ERRCODE_OV_QUEUE_FULL				OV_STATE('0', '5', '0')
#define ERRCODE_OV_VAULT_HELD				OV_STATE('0', '6', '0')
#define ERRCODE_OV_USER_OFFBOARDED			OV_STATE('0', '7', '0')

#endif							/* OV_SQLSTATE_H */
