/*
 * errors.h
 *	  Raising errors that carry nothing secret into the log.
 *
 * Every error of ours hides the statement and the context: both may hold
 * assertions, codes or tokens that the caller wrote as literals.
 */
#ifndef OV_ERRORS_H
#define OV_ERRORS_H

#include "compat.h"
#include "core/arena.h"
#include "datatype/timestamp.h"
#include "sqlstate.h"
#include "worker/message.h"

/* detail: one line of JSON from ov_detail, or NULL; hint: a sentence, or NULL */
pg_noreturn extern void ov_raise(int sqlstate, const char *message, const char *detail,
								 const char *hint);
/* An error answer of a worker */
pg_noreturn extern void ov_raise_answer(const OvMsg *answer);

/* {"key":"value",...} from pairs of strings ended by NULL; a NULL value leaves its
 * pair out; a value that is a JSON array or object stands as it is. */
extern char *ov_detail(const char *key, const char *value,...);

/* RFC 3339, for DETAIL: what every language's JSON reader makes a date of; 0: NULL */
extern char *ov_time_text(TimestampTz t);

/* Copy of a message field as a C string; NULL if absent.  In CurrentMemoryContext. */
extern char *ov_msg_str(const OvMsg *m, OvTag tag);

#endif							/* OV_ERRORS_H */
