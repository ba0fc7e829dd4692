/*
 * conceal.h
 *	  Processes that hold secrets: not dumpable, not traced, not swapped out.
 */
#ifndef OV_CONCEAL_H
#define OV_CONCEAL_H

#include <stddef.h>

/* Static memory for secrets; before ov_conceal_worker, which says what was refused */
extern void ov_conceal_pages(void *start, size_t len);
/* At a worker's start, before its first arena */
extern void ov_conceal_worker(const char *who);
/* In a session, before it holds its first secret; cheap after that */
extern void ov_conceal_session(void);

#endif							/* OV_CONCEAL_H */
