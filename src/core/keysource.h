/*
 * keysource.h
 *	  Where a platform key comes from: a file that only its owner reads, or a
 *	  command's output.
 */
#ifndef OV_KEYSOURCE_H
#define OV_KEYSOURCE_H

#include "json.h"
#include "record.h"

/*
 * The text of a file that holds secrets, into the arena.  what: "vault file"
 * and the like, for errors.  Refused: what is no regular file, what others than
 * the server's user (0600) or root with its group (0640) may read, and what is
 * below forbidden_dir (may be NULL).
 */
extern OvCode ov_secret_file_read(const char *path, const char *forbidden_dir, const char *what, size_t max,
								  OvArena *arena, char **text, size_t *len, OvError *err);

/* One key, 32 bytes as base64url, and white space after it */
extern OvCode ov_key_from_text(OvArena *arena, const char *text, size_t len,
							   unsigned char key[OV_KEY_LEN], OvError *err);
extern OvCode ov_key_from_file(const char *path, const char *forbidden_dir,
							   unsigned char key[OV_KEY_LEN], OvError *err);

/* Is it an array of strings that begins with an absolute path? */
#define OV_KEY_COMMAND_ARGS 32
extern bool ov_key_command_ok(const OvJson *argv);

/*
 * Runs argv, an array that is ov_key_command_ok(), and takes the key from its
 * standard output.  No shell; directory "/", an environment of PATH and LC_ALL,
 * no input, errors discarded, no other descriptor, default signals, a process
 * group of its own that is killed when the time is up.  stop (may be NULL) is
 * asked a few times a second whether to give up.
 */
extern OvCode ov_key_from_command(const OvJson *argv, int timeout_ms, bool (*stop) (void),
								  unsigned char key[OV_KEY_LEN], OvError *err);

#endif							/* OV_KEYSOURCE_H */
