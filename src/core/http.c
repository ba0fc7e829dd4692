/*
 * http.c
 *	  HTTP engine: curl_multi behind one epoll fd, for the network worker.
 *
 * The epoll fd carries every libcurl socket, a timerfd for libcurl's one timer
 * and an eventfd for transfers that ended before they began.  ov_http_service()
 * tells libcurl what happened to its sockets, takes finished transfers off it
 * and only then, outside libcurl, calls their callbacks, which may send again.
 *
 * What one transfer is made of, and libcurl's callbacks for it, are in
 * http_transfer.c.
 *
 * Lifecycle of a Transfer: ov_http_send() checks and copies the request; it is
 * on http->active while libcurl has it, on http->finished from its end until its
 * callback, and cleansed and freed right after that.  ov_http_free() takes the
 * short way.  What the response points to is in the Transfer.
 *
 * Invariants:
 *	- libcurl is called between enter() and leave() only: all signals blocked,
 *	  because resolver threads inherit the mask, and OpenSSL's error queue left
 *	  empty.
 *	- Callbacks from libcurl allocate with malloc, record what happened in the
 *	  Transfer and return; nothing longjmps through libcurl.
 *	- Request bodies, headers and answers are cleansed on every path.  libcurl's
 *	  own copies are cleansed by the allocator it is given, unless someone else
 *	  in the process has initialized it first.
 *	- transfer->sent is set before the first byte of the request can leave.  A
 *	  request other than GET and HEAD leaves at most once: libcurl would repeat
 *	  it by itself when a reused connection dies before the answer, and a second
 *	  use of a refresh token can end a grant.  Such a transfer fails instead.
 *	- Every connection's address has been judged by ov_address_allowed() or, for
 *	  tests, is a loopback address; also a pooled connection's, for each request,
 *	  as the configuration may have changed.  Plain http goes to a loopback host
 *	  name on a loopback address only.
 */
#include "core/http_internal.h"

#include <errno.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_EVENTS 128
#define NEVER INT64_MAX

/* ---- around libcurl ---- */

static void
enter(sigset_t *old)
{
	sigset_t	all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, old);
}

static void
leave(const sigset_t *old)
{
	ERR_clear_error();
	pthread_sigmask(SIG_SETMASK, old, NULL);
}

static void
cleansing_free(void *p)
{
	if (p != NULL)
		OPENSSL_cleanse(p, malloc_usable_size(p));
	free(p);
}

static void *
cleansing_realloc(void *p, size_t size)
{
	size_t		old = p == NULL ? 0 : malloc_usable_size(p);
	void	   *q;

	if (p != NULL && size <= old)
		return p;
	q = malloc(size);
	if (q == NULL)
		return NULL;
	if (p != NULL)
		memcpy(q, p, old);
	cleansing_free(p);
	return q;
}

/* Once per process and never undone: other code may use libcurl as well. */
static OvCode
initialize_libcurl(OvError *err)
{
	static bool initialized = false;
	CURLcode	rc;

	if (initialized)
		return OV_OK;
	/* libcurl would write the session keys of every connection there */
	unsetenv("SSLKEYLOGFILE");
	rc = curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, cleansing_free, cleansing_realloc,
							  strdup, calloc);
	if (rc != CURLE_OK)
		return ov_fail(err, OV_E_CONFIG, "could not initialize libcurl: %s", curl_easy_strerror(rc));
	initialized = true;
	return OV_OK;
}

static int64_t
monotonic_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

/* ---- configuration ---- */

static void
config_free(Config *c)
{
	if (c == NULL)
		return;
	free(c->ca_file);
	free(c->user_agent);
	for (int i = 0; i < c->nnetworks; i++)
		free(c->networks[i]);
	free(c->networks);
	free(c);
}

static const char *
default_ca_file(void)
{
	static const char *const usual[] = {
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"
	};
	const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);

	if (v->age >= CURLVERSION_SEVENTH && v->cainfo != NULL)
		return v->cainfo;
	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		if (access(usual[i], R_OK) == 0)
			return usual[i];
	return NULL;
}

static bool
config_copy(Config *c, const char *ca_file, const OvHttpConfig *from)
{
	c->ca_file = strdup(ca_file);
	if (c->ca_file == NULL)
		return false;
	if (from->user_agent != NULL && (c->user_agent = strdup(from->user_agent)) == NULL)
		return false;
	if (from->nallowed_networks > 0)
	{
		c->networks = calloc((size_t) from->nallowed_networks, sizeof(char *));
		if (c->networks == NULL)
			return false;
		for (; c->nnetworks < from->nallowed_networks; c->nnetworks++)
		{
			c->networks[c->nnetworks] = strdup(from->allowed_networks[c->nnetworks]);
			if (c->networks[c->nnetworks] == NULL)
				return false;
		}
	}
	c->loopback = from->allow_insecure_loopback;
	c->connect_timeout_ms = from->connect_timeout_ms > 0 ? from->connect_timeout_ms : 10000;
	c->total_timeout_ms = from->total_timeout_ms > 0 ? from->total_timeout_ms : 30000;
	c->max_connections = from->max_connections > 0 ? from->max_connections : 0;
	c->max_host_connections = from->max_host_connections > 0 ? from->max_host_connections : 0;
	c->since = monotonic_us() / 1000000;
	return true;
}

static OvCode
config_new(const OvHttpConfig *from, Config **out, OvError *err)
{
	const char *ca_file = from->ca_file != NULL ? from->ca_file : default_ca_file();
	Config	   *c;

	if (ca_file == NULL)
		return ov_fail(err, OV_E_CONFIG, "no CA file found, and none is configured");
	if (access(ca_file, R_OK) != 0)
		return ov_fail(err, OV_E_CONFIG, "could not read CA file \"%s\": %s", ca_file, strerror(errno));
	for (const char *p = from->user_agent; p != NULL && *p != '\0'; p++)
		if ((unsigned char) *p < 0x20 || (unsigned char) *p >= 0x7f)
			return ov_fail(err, OV_E_CONFIG, "forbidden character in user agent");
	c = calloc(1, sizeof(Config));
	if (c == NULL || !config_copy(c, ca_file, from))
	{
		config_free(c);
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	}
	*out = c;
	return OV_OK;
}

static void
set_config(OvHttp *http, Config *c)
{
	config_free(http->config);
	http->config = c;
	curl_multi_setopt(http->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, c->max_connections);
	curl_multi_setopt(http->multi, CURLMOPT_MAX_HOST_CONNECTIONS, c->max_host_connections);
	if (c->max_connections > 0)
		curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, c->max_connections);
}

/* ---- sockets and the timer ---- */

/* CURLMOPT_SOCKETFUNCTION.  Never fails: that would end every transfer, where a
 * socket that is not watched ends its own by timeout. */
static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	OvHttp	   *http = arg;
	struct epoll_event ev = {.data.fd = fd};

	(void) easy;
	(void) socket_arg;
	if (what == CURL_POLL_REMOVE)
	{
		epoll_ctl(http->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		ev.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		ev.events |= EPOLLOUT;
	if (epoll_ctl(http->epoll_fd, EPOLL_CTL_MOD, fd, &ev) != 0)
		epoll_ctl(http->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
	return 0;
}

/* CURLMOPT_TIMERFUNCTION: only noted, because libcurl changes its mind at each step of each transfer */
static int
set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	OvHttp	   *http = arg;

	(void) multi;
	http->timer_due = timeout_ms < 0 ? NEVER : monotonic_us() + timeout_ms * INT64_C(1000);
	return 0;
}

/*
 * Once libcurl is done for now: the timer is made to fire no later than when it
 * wants to be called.  One that fires early costs less than setting it each time.
 */
static void
arm_timer(OvHttp *http)
{
	struct itimerspec when = {0};

	if (http->timer_due >= http->timer_armed)
		return;
	/* 0 would disarm */
	when.it_value.tv_sec = http->timer_due / 1000000;
	when.it_value.tv_nsec = http->timer_due % 1000000 * 1000 + 1;
	timerfd_settime(http->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
	http->timer_armed = http->timer_due;
}

static bool
watch_own(OvHttp *http, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(http->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0;
}

static bool
drain(int fd)
{
	uint64_t	count;

	return read(fd, &count, sizeof(count)) == (ssize_t) sizeof(count);
}

/* ---- lists ---- */

static void
link_active(Transfer *t)
{
	t->next = t->http->active;
	if (t->next != NULL)
		t->next->prev = t;
	t->http->active = t;
}

static void
unlink_active(Transfer *t)
{
	if (t->prev != NULL)
		t->prev->next = t->next;
	else
		t->http->active = t->next;
	if (t->next != NULL)
		t->next->prev = t->prev;
	t->prev = t->next = NULL;
}

static void
append_finished(Transfer *t)
{
	t->next = NULL;
	*t->http->finished_tail = t;
	t->http->finished_tail = &t->next;
}

static void
collect_finished(OvHttp *http)
{
	CURLMsg    *msg;
	int			left;

	while ((msg = curl_multi_info_read(http->multi, &left)) != NULL)
	{
		Transfer   *t = NULL;
		CURL	   *easy = msg->easy_handle;
		CURLcode	rc = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &t);
		ov_transfer_end(t, rc);
		curl_multi_remove_handle(http->multi, easy);	/* msg is gone with it */
		ov_transfer_release_request(t);
		unlink_active(t);
		append_finished(t);
	}
}

/* ---- the interface ---- */

static OvCode
new_engine(const OvHttpConfig *config, OvHttp **out, OvError *err)
{
	OvCode		code = initialize_libcurl(err);
	Config	   *c;
	OvHttp	   *http;

	if (code != OV_OK || (code = config_new(config, &c, err)) != OV_OK)
		return code;
	http = calloc(1, sizeof(OvHttp));
	if (http == NULL)
	{
		config_free(c);
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	}
	http->epoll_fd = http->timer_fd = http->wake_fd = -1;
	http->timer_due = http->timer_armed = NEVER;
	http->finished_tail = &http->finished;
	http->multi = curl_multi_init();
	if (http->multi == NULL)
	{
		config_free(c);
		ov_http_free(http);
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	}
	set_config(http, c);
	http->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	http->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	http->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (http->epoll_fd < 0 || http->timer_fd < 0 || http->wake_fd < 0 ||
		!watch_own(http, http->timer_fd) || !watch_own(http, http->wake_fd))
	{
		code = ov_fail(err, OV_E_IO, "could not set up epoll: %s", strerror(errno));
		ov_http_free(http);
		return code;
	}
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	*out = http;
	return OV_OK;
}

OvCode
ov_http_new(const OvHttpConfig *config, OvHttp **out, OvError *err)
{
	OvCode		code;
	sigset_t	old;

	*out = NULL;
	enter(&old);
	code = new_engine(config, out, err);
	leave(&old);
	return code;
}

/* For transfers to come; on failure all stays as it was. */
OvCode
ov_http_reconfigure(OvHttp *http, const OvHttpConfig *config, OvError *err)
{
	Config	   *c;
	OvCode		code;
	sigset_t	old;

	enter(&old);
	code = config_new(config, &c, err);
	if (code == OV_OK)
		set_config(http, c);
	leave(&old);
	return code;
}

int
ov_http_fd(const OvHttp *http)
{
	return http->epoll_fd;
}

/*
 * A request that must not be sent, or no memory to note it: the code says so
 * and done is not called.  Any later failure is a completion.
 */
OvCode
ov_http_send(OvHttp *http, const OvHttpRequest *req, OvHttpDone done, void *arg, OvError *err)
{
	Transfer   *t;
	OvCode		code;
	sigset_t	old;
	bool		plain = false;

	enter(&old);
	code = ov_transfer_check(http->config, req, &plain, err);
	if (code != OV_OK)
	{
		leave(&old);
		return code;
	}
	t = calloc(1, sizeof(Transfer));
	if (t == NULL)
	{
		leave(&old);
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	}
	t->http = http;
	t->done = done;
	t->arg = arg;
	t->plain = plain;
	http->in_flight++;
	if (ov_transfer_prepare(t, req) && curl_multi_add_handle(http->multi, t->easy) == CURLM_OK)
		link_active(t);
	else
	{
		if (t->error[0] == '\0')
			snprintf(t->error, sizeof(t->error), "could not start");
		ov_transfer_release_request(t);
		append_finished(t);
		eventfd_write(http->wake_fd, 1);
	}
	arm_timer(http);
	leave(&old);
	return OV_OK;
}

static const char *
or_null(const char *s)
{
	return *s != '\0' ? s : NULL;
}

static void
deliver(Transfer *t)
{
	OvHttpResponse resp = {0};

	resp.status = t->status;
	resp.transport_error = or_null(t->error);
	resp.sent = t->sent;
	resp.content_type = or_null(t->content_type);
	resp.retry_after = or_null(t->retry_after);
	resp.date = or_null(t->date);
	resp.body = t->body != NULL ? t->body : "";
	resp.body_len = t->body_len;
	t->http->in_flight--;
	t->done(t->arg, &resp);
}

/* One round: what is ready now.  What becomes ready meanwhile keeps the fd readable. */
void
ov_http_service(OvHttp *http)
{
	struct epoll_event events[MAX_EVENTS];
	Transfer   *finished;
	sigset_t	old;
	int			n;
	int			running;

	enter(&old);
	n = epoll_wait(http->epoll_fd, events, MAX_EVENTS, 0);
	for (int i = 0; i < n; i++)
	{
		int			fd = events[i].data.fd;
		int			bits = 0;

		if (fd == http->wake_fd)
			drain(fd);
		else if (fd == http->timer_fd)
		{
			if (drain(fd))
				http->timer_armed = NEVER;
		}
		else
		{
			if (events[i].events & EPOLLIN)
				bits |= CURL_CSELECT_IN;
			if (events[i].events & EPOLLOUT)
				bits |= CURL_CSELECT_OUT;
			if (events[i].events & (EPOLLERR | EPOLLHUP))
				bits |= CURL_CSELECT_ERR;
			curl_multi_socket_action(http->multi, fd, bits, &running);
		}
	}
	if (http->timer_due <= monotonic_us())
	{
		http->timer_due = NEVER;	/* before libcurl sets it anew */
		curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	collect_finished(http);
	arm_timer(http);
	leave(&old);

	/* What callbacks add is for the next round. */
	finished = http->finished;
	http->finished = NULL;
	http->finished_tail = &http->finished;
	while (finished != NULL)
	{
		Transfer   *t = finished;

		finished = t->next;
		deliver(t);
		ov_transfer_free(t);
	}
}

int
ov_http_in_flight(const OvHttp *http)
{
	return http->in_flight;
}

void
ov_http_free(OvHttp *http)
{
	sigset_t	old;

	if (http == NULL)
		return;
	enter(&old);
	while (http->active != NULL)
	{
		Transfer   *t = http->active;

		curl_multi_remove_handle(http->multi, t->easy);
		unlink_active(t);
		ov_transfer_free(t);
	}
	while (http->finished != NULL)
	{
		Transfer   *t = http->finished;

		http->finished = t->next;
		ov_transfer_free(t);
	}
	if (http->multi != NULL)
		curl_multi_cleanup(http->multi);
	leave(&old);
	if (http->epoll_fd >= 0)
		close(http->epoll_fd);
	if (http->timer_fd >= 0)
		close(http->timer_fd);
	if (http->wake_fd >= 0)
		close(http->wake_fd);
	config_free(http->config);
	free(http);
}
