/*
 * http.h
 *	  HTTP engine: curl_multi behind one epoll fd, for the network worker.
 *
 * One OvHttp per process.  ov_http_fd() becomes readable whenever a transfer
 * or timer needs service; ov_http_service() never blocks.  All signals are
 * blocked around libcurl calls (resolver threads inherit the mask).  No
 * redirects, proxy, netrc, cookies or environment; https only (http for
 * loopback when allowed); TLS >= 1.2, verification always, CAPATH off so that
 * the CA cache works; address policy in the socket callback; 256 KiB body.
 * Completion callbacks run from ov_http_service(), after libcurl has returned.
 */
#ifndef OV_HTTP_H
#define OV_HTTP_H

#include "provider.h"

typedef struct OvHttp OvHttp;

typedef struct OvHttpConfig
{
	const char *ca_file;		/* NULL: built-in default bundle */
	bool		allow_insecure_loopback;
	const char *const *allowed_networks;	/* CIDRs exempt from the address refusal */
	int			nallowed_networks;
	long		connect_timeout_ms;
	long		total_timeout_ms;
	int			max_connections;
	int			max_host_connections;
	const char *user_agent;
} OvHttpConfig;

typedef void (*OvHttpDone) (void *arg, const OvHttpResponse *resp);

extern OvCode ov_http_new(const OvHttpConfig *config, OvHttp **out, OvError *err);
extern OvCode ov_http_reconfigure(OvHttp *http, const OvHttpConfig *config, OvError *err);
extern int	ov_http_fd(const OvHttp *http);
/* Copies what it needs from req.  done is called exactly once, also on failure
 * to start, but never from inside ov_http_send. */
extern OvCode ov_http_send(OvHttp *http, const OvHttpRequest *req, OvHttpDone done, void *arg,
						   OvError *err);
extern void ov_http_service(OvHttp *http);
extern int	ov_http_in_flight(const OvHttp *http);
extern void ov_http_free(OvHttp *http);		/* abandons transfers without calling done */

/* Address policy, exposed for tests: may we connect to this sockaddr? */
struct sockaddr;
extern bool ov_address_allowed(const struct sockaddr *sa, const char *const *allowed_networks,
							   int nallowed);

#endif							/* OV_HTTP_H */
