/*
 * sql_call.h
 *	  Statements through SPI: prepared once per process, fully qualified.
 *
 * A statement is a static OvQuery; its plan is kept for the process's life and
 * revalidated by the plan cache.  All run with search_path pg_catalog.
 */
#ifndef OV_SQL_CALL_H
#define OV_SQL_CALL_H

#include "postgres.h"
#include "executor/spi.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/uuid.h"

#define OV_MAX_ARGS 24

typedef struct OvQuery
{
	const char *sql;
	const char *types;			/* one letter per argument: t text, b bytea, u uuid, l int8, i int4,
								 * z timestamptz, j jsonb, a text[], o bool, f float8, O oid, n inet;
								 * U B L Z J: arrays of u b l z j */
	SPIPlanPtr	plan[2];		/* planned under row security, and without: plancache sees no difference */
} OvQuery;

/* A NULL argument */
#define OV_NULL ((Datum) 0)

typedef enum OvSnapshot
{
	OV_READ,					/* latest snapshot, read only */
	OV_WRITE					/* latest snapshot, writing */
} OvSnapshot;

/*
 * Runs q with the latest snapshot, whatever the isolation level; returns the
 * number of rows, which are in SPI_tuptable.  nulls: one character per
 * argument, 'n' for NULL, or NULL when there is none.
 */
extern uint64 ov_query(OvQuery *q, OvSnapshot how, const Datum *args, const char *nulls);

/* The same for a statement without arguments that may have very many rows: they go into the tuplestore. */
extern void ov_query_into(OvQuery *q, Tuplestorestate *rows, TupleDesc desc);

/* Values of row `row`, column `col` (1-based) of the last result */
extern bool ov_null(uint64 row, int col);
extern Datum ov_datum(uint64 row, int col, bool *isnull);
extern char *ov_text(uint64 row, int col);	/* NULL if NULL; palloc'd in the caller's current context */
extern int64 ov_int8(uint64 row, int col);
extern bool ov_bool(uint64 row, int col);
extern const unsigned char *ov_uuid(uint64 row, int col);	/* NULL if NULL */
extern const unsigned char *ov_bytea(uint64 row, int col, size_t *len);
extern TimestampTz ov_time(uint64 row, int col);	/* 0 if NULL: ask ov_null */
extern char **ov_text_array(uint64 row, int col, int *n);	/* {} for NULL */

/* Making arguments */
extern Datum ov_text_datum(const char *s);
extern Datum ov_bytea_datum(const void *data, size_t len);
extern Datum ov_uuid_datum(const unsigned char uuid[16]);
extern Datum ov_jsonb_datum(const char *json);
extern Datum ov_text_array_datum(const char *const *items, int n);

/* Of the type of this letter; nulls may be NULL. */
extern Datum ov_array_datum(char letter, Datum *items, bool *nulls, int n);

extern char *ov_uuid_text(const unsigned char uuid[16]);
extern void ov_new_uuid(unsigned char uuid[16]);	/* version 4 */
extern TimestampTz ov_unix_to_timestamp(int64 seconds);	/* 0: 0, INT64_MAX: infinity */
extern int64 ov_timestamp_to_unix(TimestampTz t);

#endif							/* OV_SQL_CALL_H */
