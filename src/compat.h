/*
 * compat.h
 *	  What differs between PostgreSQL 15, 16, 17 and 18, in one place.
 *
 * The newest name is used throughout; older servers get it here.
 */
#ifndef OV_COMPAT_H
#define OV_COMPAT_H

#include "postgres.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/resowner.h"

#if PG_VERSION_NUM < 150000
#error "oauth_vault needs PostgreSQL 15 or later"
#endif

/* 17: CreateWaitEventSet takes a resource owner instead of a memory context */
#if PG_VERSION_NUM < 170000
#define ov_create_wait_event_set(n) CreateWaitEventSet(TopMemoryContext, (n))
#else
#define ov_create_wait_event_set(n) CreateWaitEventSet(NULL, (n))
#endif

/* 18: wait event sets have a header of their own */
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

/* 17: PGPROC numbers are the handle for "some process" */
#if PG_VERSION_NUM < 170000
#define OV_MY_PROC_NUMBER (MyProc->pgprocno)
#else
#define OV_MY_PROC_NUMBER MyProcNumber
#endif
#define OV_PROC_LATCH(number) (&ProcGlobal->allProcs[number].procLatch)

/* 18 turned PG_MODULE_MAGIC into PG_MODULE_MAGIC_EXT */
#if PG_VERSION_NUM >= 180000
#define OV_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "oauth_vault", .version = "1.0")
#else
#define OV_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 16: one ownership check for every kind of object */
#include "catalog/pg_database.h"
#include "utils/acl.h"
#if PG_VERSION_NUM < 160000
#define ov_owns_database(database, role) pg_database_ownercheck(database, role)
#else
#define ov_owns_database(database, role) object_ownercheck(DatabaseRelationId, database, role)
#endif

/* 16: the identity proven when the connection was authenticated moved out of Port */
#if PG_VERSION_NUM < 160000
#define ov_authn_id() (MyProcPort != NULL ? MyProcPort->authn_id : NULL)
#else
#define ov_authn_id() (MyClientConnectionInfo.authn_id)
#endif

/* 18: pg_noreturn, in front of the declaration, replaced pg_attribute_noreturn() */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 16: VARDATA_ANY and friends have a header of their own */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 17: transaction_timeout ends a session with its transaction, even in the commit */
#define OV_HAS_TRANSACTION_TIMEOUT (PG_VERSION_NUM >= 170000)

/* 18: an index scan counts its searches */
#if PG_VERSION_NUM < 180000
#define ov_index_beginscan(table, index, snapshot, nkeys) index_beginscan(table, index, snapshot, nkeys, 0)
#else
#define ov_index_beginscan(table, index, snapshot, nkeys) index_beginscan(table, index, snapshot, NULL, nkeys, 0)
#endif

#endif							/* OV_COMPAT_H */
