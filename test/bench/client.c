/*
 * client.c
 *	  What the extension's refreshes are compared with: one curl_multi thread
 *	  that posts refresh requests and does nothing with the answers.
 *
 * client URL CA_FILE IN_FLIGHT REQUESTS
 *
 * The engine's options (core/http_transfer.c) as far as they cost anything, and
 * easy handles used again.  A round before the clock starts opens the
 * connections.  Prints "REQUESTS SECONDS CPU_SECONDS"; fails if any answer is not
 * a 200.
 */
#include <curl/curl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

typedef struct Slot
{
	CURL	   *easy;
	char		body[1024];
	char		answer[8192];
	size_t		len;
} Slot;

static CURLM *multi;
static int	epoll_fd,
			timer_fd;
static long done,
			started,
			bad;

static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct epoll_event ev = {.data.fd = fd};

	(void) easy;
	(void) arg;
	(void) socket_arg;
	if (what == CURL_POLL_REMOVE)
	{
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	ev.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &ev) != 0)
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
	return 0;
}

static int
set_timer(CURLM *m, long ms, void *arg)
{
	struct itimerspec when = {0};

	(void) m;
	(void) arg;
	if (ms == 0)
		when.it_value.tv_nsec = 1;
	else if (ms > 0)
	{
		when.it_value.tv_sec = ms / 1000;
		when.it_value.tv_nsec = ms % 1000 * 1000000;
	}
	timerfd_settime(timer_fd, 0, &when, NULL);
	return 0;
}

static size_t
take(char *data, size_t size, size_t n, void *arg)
{
	Slot	   *s = arg;

	(void) size;
	if (s->len + n > sizeof(s->answer))
		return 0;
	memcpy(s->answer + s->len, data, n);
	s->len += n;
	return n;
}

static void
start(Slot *s)
{
	long		n = started++;
	int			len = snprintf(s->body, sizeof(s->body),
							   "grant_type=refresh_token&refresh_token=%0500ld&client_id=bare&client_secret=a-secret-of-some-length", n);

	s->len = 0;
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, s->body);
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE, (long) len);
	curl_multi_add_handle(multi, s->easy);
}

static void
prepare(Slot *s, const char *url, const char *ca, struct curl_slist *headers)
{
	CURL	   *e = s->easy = curl_easy_init();

	curl_easy_setopt(e, CURLOPT_URL, url);
	curl_easy_setopt(e, CURLOPT_POST, 1L);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, 30000L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
	curl_easy_setopt(e, CURLOPT_CAINFO, ca);
	curl_easy_setopt(e, CURLOPT_CAPATH, NULL);	/* or libcurl reads the CA file for each connection */
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(e, CURLOPT_PIPEWAIT, 1L);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(e, CURLOPT_PRIVATE, s);
}

static void
run_until(long requests)
{
	struct epoll_event ready[128];
	int			running,
				left;
	CURLMsg    *msg;

	while (done < requests)
	{
		int			n = epoll_wait(epoll_fd, ready, 128, 5000);

		if (n == 0)
		{
			fprintf(stderr, "client: nothing for five seconds\n");
			exit(1);
		}
		for (int i = 0; i < n; i++)
		{
			int			fd = ready[i].data.fd;
			unsigned long expirations;

			if (fd != timer_fd)
				curl_multi_socket_action(multi, fd,
										 (ready[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
										 (ready[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
										 (ready[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0), &running);
			else if (read(timer_fd, &expirations, sizeof(expirations)) > 0)
				curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
		}
		while ((msg = curl_multi_info_read(multi, &left)) != NULL)
		{
			CURL	   *e = msg->easy_handle;
			CURLcode	rc = msg->data.result;
			Slot	   *s;
			long		status = 0;

			curl_easy_getinfo(e, CURLINFO_PRIVATE, (char **) &s);
			curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
			curl_multi_remove_handle(multi, e);
			done++;
			if (rc != CURLE_OK || status != 200)
				bad++;
			if (started < requests)
				start(s);
		}
	}
}

static double
seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static double
cpu(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
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
	long		in_flight,
				requests;
	struct curl_slist *headers = NULL;
	struct epoll_event ev = {.events = EPOLLIN};
	Slot	   *slots;
	double		at,
				used;

	if (argc != 5)
	{
		fprintf(stderr, "usage: client URL CA_FILE IN_FLIGHT REQUESTS\n");
		return 2;
	}
	in_flight = atol(argv[3]);
	requests = atol(argv[4]);
	allow_files();
	curl_global_init(CURL_GLOBAL_DEFAULT);
	multi = curl_multi_init();
	epoll_fd = epoll_create1(0);
	ev.data.fd = timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &ev);
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, in_flight);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, in_flight);
	headers = curl_slist_append(headers, "Accept: application/json");
	headers = curl_slist_append(headers, "Expect:");
	slots = calloc((size_t) in_flight, sizeof(Slot));
	for (long i = 0; i < in_flight; i++)
	{
		prepare(&slots[i], argv[1], argv[2], headers);
		start(&slots[i]);
	}
	run_until(in_flight);
	done = started = 0;
	at = seconds();
	used = cpu();
	for (long i = 0; i < in_flight && i < requests; i++)
		start(&slots[i]);
	run_until(requests);
	printf("%ld %.6f %.6f\n", requests, seconds() - at, cpu() - used);
	return bad == 0 ? 0 : 1;
}
