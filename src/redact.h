/*
 * redact.h
 *	  Statements that pass secrets to us, kept out of logs and statistics.
 */
#ifndef OV_REDACT_H
#define OV_REDACT_H

extern void ov_redact_install(void);	/* from _PG_init, under shared_preload_libraries */
/* A secret has come with the statement that is running: see redact.c. */
extern void ov_secret_in_statement(void);

#endif							/* OV_REDACT_H */
