/*
 * read.c
 *	  Statements compared on this machine: one process, all sessions open and
 *	  prepared, short slices of each in turn, forwards and backwards.
 *
 * read CLIENTS SLICE_MS CYCLES < SPECIFICATION
 *
 * A line of the specification has five fields, separated by tabs: name, conninfo,
 * set-up (SQL with %d for the client's number, or empty), query, parameter.
 * Parameter: empty, "int LOW HIGH" (a random integer), or "file PATH" (a random
 * line of those that client n may have: every CLIENTS-th).  Each slice begins with
 * all clients sending and ends when those under way have answered; the time
 * counts to the last answer.  Prints "NAME CYCLE RATE P50_US P99_US" for each
 * slice.  An error, or no row, ends the run: slow answers are counted, wrong
 * ones are not.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_CLIENTS 64
#define MAX_VARIANTS 32
#define MAX_SAMPLES 400000

typedef struct Variant
{
	char	   *name;
	char	   *conninfo;
	char	   *setup;
	char	   *query;
	long		low,
				high;
	char	  **lines;
	long		nlines;
	PGconn	   *conn[MAX_CLIENTS];
} Variant;

static int	clients;
static Variant variants[MAX_VARIANTS];
static int	nvariants;
static double samples[MAX_SAMPLES];

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "read: %s: %s\n", what, why);
	exit(1);
}

static void
read_lines(Variant *v, const char *path)
{
	FILE	   *f = fopen(path, "r");
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		n;

	if (f == NULL)
		fail(path, "cannot be opened");
	while ((n = getline(&line, &size, f)) > 0)
	{
		if (line[n - 1] == '\n')
			line[n - 1] = '\0';
		v->lines = realloc(v->lines, sizeof(char *) * (size_t) (v->nlines + 1));
		v->lines[v->nlines++] = strdup(line);
	}
	free(line);
	fclose(f);
	if (v->nlines < clients)
		fail(path, "has fewer lines than there are clients");
}

static void
read_specification(void)
{
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		n;

	while ((n = getline(&line, &size, stdin)) > 0)
	{
		Variant    *v = &variants[nvariants];
		char	   *rest = line;
		char	   *parameter;

		if (nvariants == MAX_VARIANTS)
			fail("specification", "too many lines");
		if (line[n - 1] == '\n')
			line[n - 1] = '\0';
		v->name = strdup(strsep(&rest, "\t"));
		if (rest == NULL)
			fail(v->name, "has no conninfo");
		v->conninfo = strdup(strsep(&rest, "\t"));
		v->setup = rest ? strdup(strsep(&rest, "\t")) : NULL;
		v->query = rest ? strdup(strsep(&rest, "\t")) : NULL;
		if (rest == NULL)
			fail(v->name, "has too few fields");
		parameter = strsep(&rest, "\t");
		if (strncmp(parameter, "int ", 4) == 0)
		{
			if (sscanf(parameter + 4, "%ld %ld", &v->low, &v->high) != 2)
				fail(v->name, "needs two integers");
		}
		else if (strncmp(parameter, "file ", 5) == 0)
			read_lines(v, parameter + 5);
		nvariants++;
	}
	free(line);
}

static void
check(PGconn *conn, PGresult *result, const char *name)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		fail(name, PQerrorMessage(conn));
	if (status == PGRES_TUPLES_OK && (PQntuples(result) == 0 || PQgetisnull(result, 0, 0)))
		fail(name, "no row, or NULL");
	PQclear(result);
}

static void
connect_variant(Variant *v)
{
	for (int i = 0; i < clients; i++)
	{
		char	   *setup;

		v->conn[i] = PQconnectdb(v->conninfo);
		if (PQstatus(v->conn[i]) != CONNECTION_OK)
			fail(v->name, PQerrorMessage(v->conn[i]));
		if (v->setup[0] != '\0')
		{
			if (asprintf(&setup, v->setup, i) < 0)
				fail(v->name, "out of memory");
			check(v->conn[i], PQexec(v->conn[i], setup), v->name);
			free(setup);
		}
		check(v->conn[i], PQprepare(v->conn[i], "q", v->query, 0, NULL), v->name);
	}
}

static void
send_one(Variant *v, int client)
{
	char		number[32];
	const char *value = number;

	if (v->nlines > 0)
		value = v->lines[client + clients * (random() % (v->nlines / clients))];
	else if (v->high > 0)
		snprintf(number, sizeof(number), "%ld", v->low + random() % (v->high - v->low + 1));
	if (!PQsendQueryPrepared(v->conn[client], "q", v->nlines > 0 || v->high > 0 ? 1 : 0, &value, NULL, NULL, 0))
		fail(v->name, PQerrorMessage(v->conn[client]));
}

static int
by_value(const void *a, const void *b)
{
	double		x = *(const double *) a,
				y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static void
slice(Variant *v, double seconds, int cycle)
{
	struct pollfd fds[MAX_CLIENTS];
	double		sent[MAX_CLIENTS];
	double		start = now(),
				end = start;
	long		n = 0;
	int			under_way = clients;

	for (int i = 0; i < clients; i++)
	{
		fds[i] = (struct pollfd) {.fd = PQsocket(v->conn[i]), .events = POLLIN};
		sent[i] = now();
		send_one(v, i);
	}
	while (under_way > 0)
	{
		if (poll(fds, (nfds_t) clients, 10000) <= 0)
			fail(v->name, "no answer in ten seconds");
		for (int i = 0; i < clients; i++)
		{
			PGresult   *result;

			if (fds[i].fd < 0 || !(fds[i].revents & (POLLIN | POLLHUP | POLLERR)))
				continue;
			if (!PQconsumeInput(v->conn[i]))
				fail(v->name, PQerrorMessage(v->conn[i]));
			if (PQisBusy(v->conn[i]))
				continue;
			while ((result = PQgetResult(v->conn[i])) != NULL)
				check(v->conn[i], result, v->name);
			end = now();
			if (n < MAX_SAMPLES)
				samples[n] = end - sent[i];
			n++;
			if (end - start >= seconds)
			{
				fds[i].fd = -1;
				under_way--;
				continue;
			}
			sent[i] = end;
			send_one(v, i);
		}
	}
	if (cycle < 0)
		return;
	if (n > MAX_SAMPLES)
		n = MAX_SAMPLES;
	qsort(samples, (size_t) n, sizeof(double), by_value);
	printf("%s %d %.1f %.1f %.1f\n", v->name, cycle, (double) n / (end - start), samples[n / 2] * 1e6,
		   samples[(long) ((double) n * 0.99)] * 1e6);
}

int
main(int argc, char **argv)
{
	double		seconds;
	int			cycles;

	if (argc != 4)
		fail("usage", "read CLIENTS SLICE_MS CYCLES");
	clients = atoi(argv[1]);
	seconds = atof(argv[2]) / 1000;
	cycles = atoi(argv[3]);
	if (clients < 1 || clients > MAX_CLIENTS)
		fail("usage", "1 to 64 clients");
	srandom(1);
	read_specification();
	for (int i = 0; i < nvariants; i++)
		connect_variant(&variants[i]);
	for (int i = 0; i < nvariants; i++)
		slice(&variants[i], seconds * 4, -1);	/* caches and plans */
	for (int cycle = 0; cycle < cycles; cycle++)
		for (int i = 0; i < nvariants; i++)
			slice(&variants[cycle % 2 == 0 ? i : nvariants - 1 - i], seconds, cycle);
	return 0;
}
