/*
 * peek.c
 *	  What code in the server's processes can do: looks for bytes in its own
 *	  process's memory, and opens another's.  For test/t/039_redteam_more.pl.
 */
#define _GNU_SOURCE
#include "postgres.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fmgr.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(peek);
PG_FUNCTION_INFO_V1(peek_at);

/*
 * peek(backwards text): how often the text stands, forwards, in this process's
 * memory, apart from our copy of it.
 */
Datum
peek(PG_FUNCTION_ARGS)
{
	char	   *backwards = text_to_cstring(PG_GETARG_TEXT_PP(0));
	size_t		len = strlen(backwards);
	char	   *needle = palloc(len);
	FILE	   *maps = fopen("/proc/self/maps", "r");
	char		line[512];
	int64		found = 0;

	for (size_t i = 0; i < len; i++)
		needle[i] = backwards[len - 1 - i];
	/* by address: in a process that conceals its memory not even itself opens /proc/self/mem */
	while (maps != NULL && fgets(line, sizeof(line), maps) != NULL)
	{
		unsigned long from,
					to;
		char		mode[5];

		if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) != 3 || mode[0] != 'r' || mode[1] != 'w' || mode[3] != 'p')
			continue;
		for (char *p = (char *) from; (p = memmem(p, (char *) to - p, needle, len)) != NULL; p++)
			if (p != needle)
				found++;
	}
	if (maps != NULL)
		fclose(maps);
	PG_RETURN_INT64(found);
}

/* peek_at(pid int): can another process's memory be opened? NULL, or why not */
Datum
peek_at(PG_FUNCTION_ARGS)
{
	char		path[64];
	int			fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", PG_GETARG_INT32(0));
	fd = open(path, O_RDONLY);
	if (fd < 0)
		PG_RETURN_TEXT_P(cstring_to_text(strerror(errno)));
	close(fd);
	PG_RETURN_NULL();
}
