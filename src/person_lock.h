/*
 * person_lock.h
 *	  Who offboards a person, and who stores what that person has consented to,
 *	  exclude each other.
 */
#ifndef OV_PERSON_LOCK_H
#define OV_PERSON_LOCK_H

#include "postgres.h"

/*
 * Until the transaction ends.  user_id NULL: the tenant itself, which
 * ov_person_share() takes too.  Offboarding waits; workers must not, and get
 * false.
 */
extern void ov_person_exclude(const char *tenant, const char *user_id);
extern bool ov_person_share(const char *tenant, const char *user_id);

#endif							/* OV_PERSON_LOCK_H */
