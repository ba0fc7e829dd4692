/*
 * http_internal.h
 *	  What http.c and http_transfer.c share; nobody else includes this.
 */
#ifndef OV_HTTP_INTERNAL_H
#define OV_HTTP_INTERNAL_H

#include "core/http.h"

#include <curl/curl.h>
#include <time.h>

#if LIBCURL_VERSION_NUM < 0x074c00
#error libcurl 7.76 or later is required
#endif

#define OV_HTTP_HEADER_VALUE 256

typedef struct Transfer Transfer;

struct Transfer
{
	Transfer   *prev;			/* on http->active */
	Transfer   *next;			/* there, or on http->finished */
	OvHttp	   *http;
	CURL	   *easy;
	struct curl_slist *headers;
	char	   *request;			/* body; NULL if none */
	size_t		request_len;
	OvHttpDone	done;
	void	   *arg;
	bool		repeatable;		/* GET or HEAD */
	bool		plain;			/* http, to loopback only */
	char		host[OV_HTTP_HEADER_VALUE];	/* whom the certificate must be for */

	/* what the callbacks saw */
	bool		sent;
	bool		tried;			/* an address was acceptable */
	bool		denied;			/* an address was not */
	bool		repeated;		/* libcurl wanted to send it a second time */
	bool		too_large;
	size_t		header_bytes;
	int			status;			/* of the last status line */
	bool		headers_done;	/* what follows are trailers */
	char		content_type[OV_HTTP_HEADER_VALUE];
	char		retry_after[OV_HTTP_HEADER_VALUE];
	char		date[OV_HTTP_HEADER_VALUE];
	char	   *body;			/* NUL-terminated; NULL if none */
	size_t		body_len;
	size_t		body_cap;
	char		error[512];		/* "" if an answer arrived whole */
};

typedef struct Config
{
	char	   *ca_file;
	char	   *user_agent;		/* NULL: none */
	char	  **networks;
	int			nnetworks;
	bool		loopback;
	long		connect_timeout_ms;
	long		total_timeout_ms;
	long		max_connections;
	long		max_host_connections;
	time_t		since;			/* CLOCK_MONOTONIC */
} Config;

struct OvHttp
{
	CURLM	   *multi;
	int			epoll_fd;
	int			timer_fd;
	int			wake_fd;
	int64_t		timer_due;		/* when libcurl wants to be called, CLOCK_MONOTONIC us; INT64_MAX: never */
	int64_t		timer_armed;	/* when timer_fd fires; the same */
	Config	   *config;			/* also judges running transfers' connections */
	Transfer   *active;
	Transfer   *finished;		/* first in, first out */
	Transfer  **finished_tail;
	int			in_flight;		/* active, finished, and those at their callback */
};

/* May this request be sent?  Also says whether it is plain http. */
extern OvCode ov_transfer_check(const Config *config, const OvHttpRequest *req, bool *plain, OvError *err);
/* These call libcurl: between http.c's enter() and leave() only. */
extern bool ov_transfer_prepare(Transfer *t, const OvHttpRequest *req);
extern void ov_transfer_end(Transfer *t, CURLcode rc);
extern void ov_transfer_release_request(Transfer *t);

extern void ov_transfer_free(Transfer *t);	/* outside too, once the request is released */

#endif							/* OV_HTTP_INTERNAL_H */
