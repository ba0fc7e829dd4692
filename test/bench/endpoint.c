/*
 * endpoint.c
 *	  A token endpoint that is faster than any client of this machine: HTTP/1.1
 *	  with keep-alive over TLS 1.3, one thread, one epoll set, a fixed latency.
 *
 * endpoint PORT PLAIN_PORT DELAY_MS CERT KEY [BUDGET_REQUESTS BUDGET_SECONDS]
 *
 * The same on PLAIN_PORT without TLS, for clients that cannot be given a CA.
 * Loopback only.  Prints "ready" when it listens; ends when stdin closes.
 *
 * POST /token    tokens, a new refresh token each time; after DELAY_MS if one was
 *                presented; they last a day, those of client "tick" three seconds,
 *                those of client "lives<n>" n seconds
 *                With a budget, a refresh that would be one too many in any span of
 *                BUDGET_SECONDS gets 429 instead
 * POST /reset    forgets the counts
 * GET  /counts   {"requests": n, "connections": n, "peak": n, "rejected": n}: token
 *                requests and connections since the reset, the most that were under way
 *                at once, and those that got 429
 *
 * A benchmark's server: requests of up to 8 kB that end with their body, one at a
 * time per connection; whatever else comes closes the connection.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_MAX 8192
#define ANSWER_MAX 4096
#define ACCESS_LEN 1180			/* plus a counter of 20 digits */
#define REFRESH_LEN 480

typedef struct Conn
{
	int			fd;
	SSL		   *ssl;			/* NULL: plain */
	size_t		in_len;
	size_t		out_len;
	size_t		out_done;
	int64_t		due;			/* when the answer may leave */
	bool		waiting;		/* for that */
	bool		closed;			/* while it waited: freed when its turn comes */
	struct Conn *next;			/* among the waiting, in order */
	char		in[REQUEST_MAX + 1];
	char		out[ANSWER_MAX];
} Conn;

static int	epoll_fd;
static SSL_CTX *tls;
static int64_t delay_us;
static Conn *first,
		  **last = &first;
static uint64_t serial;
static uint64_t requests;
static uint64_t connections;
static uint64_t under_way;
static uint64_t peak;
static uint64_t rejected;
static int64_t *granted;			/* when the last `budget` refreshes came, a ring; NULL: no budget */
static size_t budget;
static size_t next_granted;
static int64_t budget_us;
static char filler[ACCESS_LEN + 1];

static void
die(const char *what)
{
	perror(what);
	exit(2);
}

static int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * (int64_t) 1000000 + ts.tv_nsec / 1000;
}

static void
watch(Conn *c, uint32_t events, int op)
{
	struct epoll_event ev = {.events = events, .data.ptr = c};

	if (epoll_ctl(epoll_fd, op, c->fd, &ev) != 0)
		die("epoll_ctl");
}

static void
hang_up(Conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	if (c->ssl != NULL)
		SSL_free(c->ssl);
	c->ssl = NULL;
	if (c->waiting)
		c->closed = true;
	else
		free(c);
}

/* > 0: bytes; 0: later; -1: gone */
static int
transfer(Conn *c, bool writing)
{
	int			n;

	if (c->ssl == NULL)
	{
		n = writing ? send(c->fd, c->out + c->out_done, c->out_len - c->out_done, MSG_NOSIGNAL) :
			recv(c->fd, c->in + c->in_len, REQUEST_MAX - c->in_len, 0);
		if (n > 0)
			return n;
		return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
	}
	ERR_clear_error();
	n = writing ? SSL_write(c->ssl, c->out + c->out_done, (int) (c->out_len - c->out_done)) :
		SSL_read(c->ssl, c->in + c->in_len, (int) (REQUEST_MAX - c->in_len));
	if (n > 0)
		return n;
	switch (SSL_get_error(c->ssl, n))
	{
		case SSL_ERROR_WANT_READ:
		case SSL_ERROR_WANT_WRITE:
			return 0;
		default:
			return -1;
	}
}

/* false: hung up */
static bool
flush(Conn *c)
{
	while (c->out_done < c->out_len)
	{
		int			n = transfer(c, true);

		if (n < 0)
		{
			hang_up(c);
			return false;
		}
		if (n == 0)
		{
			watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
			return true;
		}
		c->out_done += (size_t) n;
	}
	c->out_len = c->out_done = 0;
	return true;
}

static void
respond(Conn *c, const char *body)
{
	c->out_len = (size_t) snprintf(c->out, sizeof(c->out),
								   "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
								   "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
}

static void
issue(Conn *c)
{
	char		body[ANSWER_MAX - 256];
	const char *lives = strstr(c->in, "client_id=lives");
	int			life = lives ? atoi(lives + strlen("client_id=lives")) : strstr(c->in, "client_id=tick") ? 3 : 86400;

	requests++;
	serial++;
	snprintf(body, sizeof(body),
			 "{\"access_token\":\"%s%020llu\",\"token_type\":\"Bearer\",\"expires_in\":%d,"
			 "\"refresh_token\":\"%.*s%020llu\",\"scope\":\"read\"}",
			 filler, (unsigned long long) serial, life, REFRESH_LEN, filler + 100, (unsigned long long) serial);
	respond(c, body);
}

/* As a limiter with a sliding window counts: what it has rejected does not count. */
static bool
is_within_budget(void)
{
	int64_t		now = now_us();

	if (granted == NULL)
		return true;
	if (granted[next_granted] != 0 && now - granted[next_granted] < budget_us)
		return false;
	granted[next_granted] = now;
	next_granted = (next_granted + 1) % budget;
	return true;
}

static void
reject(Conn *c)
{
	rejected++;
	c->out_len = (size_t) snprintf(c->out, sizeof(c->out), "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n"
								   "Content-Length: 0\r\n\r\n");
}

/* A whole request is in c->in.  false: hung up */
static bool
handle(Conn *c)
{
	if (strncmp(c->in, "POST /token", 11) == 0)
	{
		if (strstr(c->in, "refresh_token") != NULL && !is_within_budget())
		{
			reject(c);
			return flush(c);
		}
		issue(c);
		if (++under_way > peak)
			peak = under_way;
		/* seeding connections by their codes need not take long */
		if (delay_us > 0 && strstr(c->in, "refresh_token") != NULL)
		{
			c->due = now_us() + delay_us;
			c->waiting = true;
			c->next = NULL;
			*last = c;
			last = &c->next;
			return true;
		}
		under_way--;
		return flush(c);
	}
	if (strncmp(c->in, "POST /reset", 11) == 0)
	{
		requests = connections = rejected = 0;
		peak = under_way;
		respond(c, "{}");
		return flush(c);
	}
	if (strncmp(c->in, "GET /counts", 11) == 0)
	{
		char		body[200];

		snprintf(body, sizeof(body), "{\"requests\": %llu, \"connections\": %llu, \"peak\": %llu, \"rejected\": %llu}",
				 (unsigned long long) requests, (unsigned long long) connections, (unsigned long long) peak,
				 (unsigned long long) rejected);
		respond(c, body);
		return flush(c);
	}
	hang_up(c);
	return false;
}

/* Is there a whole request?  -1: no HTTP that we understand */
static int
is_whole(Conn *c)
{
	char	   *end;
	char	   *length;
	size_t		body;

	c->in[c->in_len] = '\0';
	end = strstr(c->in, "\r\n\r\n");
	if (end == NULL)
		return c->in_len < REQUEST_MAX ? 0 : -1;
	length = strcasestr(c->in, "\r\nContent-Length:");
	body = length != NULL && length < end ? strtoul(length + 17, NULL, 10) : 0;
	if ((size_t) (end + 4 - c->in) + body > REQUEST_MAX)
		return -1;
	return c->in_len >= (size_t) (end + 4 - c->in) + body;
}

static void
readable(Conn *c)
{
	for (;;)
	{
		int			n = transfer(c, false);
		int			whole;

		if (n == 0)
			return;
		if (n < 0)
		{
			hang_up(c);
			return;
		}
		c->in_len += (size_t) n;
		whole = is_whole(c);
		if (whole < 0)
		{
			hang_up(c);
			return;
		}
		if (whole > 0)
		{
			if (!handle(c))
				return;
			c->in_len = 0;
		}
	}
}

static void
send_due(void)
{
	int64_t		now = now_us();

	while (first != NULL && first->due <= now)
	{
		Conn	   *c = first;

		first = c->next;
		if (first == NULL)
			last = &first;
		c->waiting = false;
		under_way--;
		if (c->closed)
			free(c);
		else
			(void) flush(c);
	}
}

static void
accept_all(int listener, bool plain)
{
	int			fd;
	int			on = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
	{
		Conn	   *c = calloc(1, sizeof(Conn));

		if (c == NULL)
			die("calloc");
		connections++;
		c->fd = fd;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (!plain)
		{
			c->ssl = SSL_new(tls);
			SSL_set_fd(c->ssl, fd);
			SSL_set_accept_state(c->ssl);
		}
		watch(c, EPOLLIN, EPOLL_CTL_ADD);
	}
}

static int
listen_on(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port),
	.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int			on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *) &a, sizeof(a)) != 0 || listen(fd, 4096) != 0)
		die("listen");
	return fd;
}

/* A connection is an open file. */
static void
allow_files(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int
main(int argc, char **argv)
{
	static Conn listeners[2];
	static Conn input;
	struct epoll_event ready[256];

	if (argc != 6 && argc != 8)
	{
		fprintf(stderr, "usage: endpoint PORT PLAIN_PORT DELAY_MS CERT KEY [BUDGET_REQUESTS BUDGET_SECONDS]\n");
		return 2;
	}
	if (argc == 8)
	{
		budget = strtoul(argv[6], NULL, 10);
		budget_us = atol(argv[7]) * 1000000;
		granted = calloc(budget, sizeof(int64_t));
	}
	signal(SIGPIPE, SIG_IGN);
	allow_files();
	for (int i = 0; i < ACCESS_LEN; i++)
		filler[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[random() & 63];
	delay_us = atol(argv[3]) * 1000;
	tls = SSL_CTX_new(TLS_server_method());
	if (SSL_CTX_use_certificate_chain_file(tls, argv[4]) != 1 ||
		SSL_CTX_use_PrivateKey_file(tls, argv[5], SSL_FILETYPE_PEM) != 1)
	{
		ERR_print_errors_fp(stderr);
		return 2;
	}
	SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	input.fd = STDIN_FILENO;
	watch(&input, EPOLLIN, EPOLL_CTL_ADD);
	for (int i = 0; i < 2; i++)
	{
		listeners[i].fd = listen_on(atoi(argv[1 + i]));
		watch(&listeners[i], EPOLLIN, EPOLL_CTL_ADD);
	}
	printf("ready\n");
	fflush(stdout);
	for (;;)
	{
		int64_t		wait = first != NULL ? (first->due - now_us() + 999) / 1000 : -1;
		int			n = epoll_wait(epoll_fd, ready, 256, first != NULL && wait < 0 ? 0 : (int) wait);

		for (int i = 0; i < n; i++)
		{
			Conn	   *c = ready[i].data.ptr;

			if (c == &input)
			{
				char		byte;

				if (read(STDIN_FILENO, &byte, 1) <= 0)
					return 0;
			}
			else if (c == &listeners[0] || c == &listeners[1])
				accept_all(c->fd, c == &listeners[1]);
			else if (c->out_len == 0 || c->waiting)
				readable(c);
			else if (flush(c) && c->out_len == 0)
			{
				watch(c, EPOLLIN, EPOLL_CTL_MOD);
				readable(c);
			}
		}
		send_due();
	}
}
