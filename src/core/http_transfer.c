/*
 * http_transfer.c
 *	  One HTTP transfer: is the request fit to send, how libcurl is told to send
 *	  it, what its callbacks take from the answer, and words for a failure.
 *
 * http.c says when these are called and what its invariants are.
 */
#include "core/http_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* Called right before a request is sent, on a pooled connection too */
#define HAVE_PREREQ (LIBCURL_VERSION_NUM >= 0x075000)

#define MAX_BODY (256 * 1024)
#define MAX_HEADERS (64 * 1024) /* of an answer, with its interim ones */
#define MAX_URL_LEN 8192
#define UPLOAD_BUFFER 16384		/* the least that libcurl takes; longer bodies leave in pieces */
#define RECEIVE_BUFFER 8192
#define MAX_IDLE_SECONDS 60L	/* of a pooled connection; few servers close sooner */
#define MAX_CA_CACHE_SECONDS 3600

/* ---- addresses ---- */

static bool
is_loopback_address(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *) sa)->sin_addr.s_addr) >> 24 == 127;
	if (sa->sa_family == AF_INET6)
	{
		const struct in6_addr *a = &((const struct sockaddr_in6 *) sa)->sin6_addr;

		return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
	}
	return false;
}

static bool
may_connect(const Transfer *t, const struct sockaddr *sa)
{
	const Config *c = t->http->config;

	if (is_loopback_address(sa) && c->loopback)
		return true;
	return !t->plain && ov_address_allowed(sa, (const char *const *) c->networks, c->nnetworks);
}

/* CURLOPT_OPENSOCKETFUNCTION: the last moment before an address is connected to */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	Transfer   *t = arg;

	if (purpose != CURLSOCKTYPE_IPCXN || !may_connect(t, &address->addr))
	{
		t->denied = true;
		return CURL_SOCKET_BAD;
	}
	t->tried = true;
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

#if HAVE_PREREQ
/* CURLOPT_PREREQFUNCTION: the last moment before the request is sent */
static int
before_request(void *arg, char *peer, char *local, int peer_port, int local_port)
{
	Transfer   *t = arg;
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	const struct sockaddr *sa = NULL;

	(void) local;
	(void) peer_port;
	(void) local_port;
	if (peer != NULL && inet_pton(AF_INET, peer, &v4.sin_addr) == 1)
		sa = (const struct sockaddr *) &v4;
	else if (peer != NULL && inet_pton(AF_INET6, peer, &v6.sin6_addr) == 1)
		sa = (const struct sockaddr *) &v6;
	if (sa == NULL || !may_connect(t, sa))
	{
		t->denied = true;
		t->tried = false;
		return CURL_PREREQFUNC_ABORT;
	}
	if (t->sent && !t->repeatable)
	{
		t->repeated = true;
		return CURL_PREREQFUNC_ABORT;
	}
	t->sent = true;
	return CURL_PREREQFUNC_OK;
}
#endif

/* ---- the answer ---- */

static bool
body_reserve(Transfer *t, size_t need)
{
	size_t		cap = t->body_cap ? t->body_cap : 4096;
	char	   *p;

	while (cap < need)
		cap *= 2;
	if (cap == t->body_cap)
		return true;
	p = malloc(cap);
	if (p == NULL)
		return false;
	if (t->body != NULL)
	{
		memcpy(p, t->body, t->body_len);
		OPENSSL_cleanse(t->body, t->body_cap);
		free(t->body);
	}
	t->body = p;
	t->body_cap = cap;
	return true;
}

/*
 * CURLOPT_WRITEFUNCTION.  The buffer is libcurl's, for this once; newer ones keep
 * it for as long as the multi handle lives, with the last answer in it.
 */
static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	Transfer   *t = arg;
	size_t		len = size * n;

	if (len > MAX_BODY - t->body_len)
	{
		t->too_large = true;
		return 0;
	}
	if (len == 0)
		return 0;
	if (!body_reserve(t, t->body_len + len + 1))
		return 0;
	memcpy(t->body + t->body_len, data, len);
	t->body_len += len;
	t->body[t->body_len] = '\0';
	OPENSSL_cleanse(data, len);
	return len;
}

/* The first header of a name counts; one too long to be true does not. */
static void
take_value(char *to, const char *value, size_t len)
{
	while (len > 0 && (*value == ' ' || *value == '\t'))
		value++, len--;
	while (len > 0 && strchr(" \t\r\n", value[len - 1]) != NULL)
		len--;
	if (*to != '\0' || len >= OV_HTTP_HEADER_VALUE || memchr(value, '\0', len) != NULL)
		return;
	memcpy(to, value, len);
	to[len] = '\0';
}

/* "HTTP/1.1 200 OK", "HTTP/2 200" */
static int
read_status(const char *line, size_t len)
{
	const char *p = memchr(line, ' ', len);
	int			status = 0;

	if (p == NULL || line + len - p < 4)
		return 0;
	for (int i = 1; i <= 3; i++)
	{
		if (p[i] < '0' || p[i] > '9')
			return 0;
		status = status * 10 + (p[i] - '0');
	}
	return status;
}

/* CURLOPT_HEADERFUNCTION: one line a call, also of interim answers and trailers */
static size_t
take_header(char *data, size_t size, size_t n, void *arg)
{
	Transfer   *t = arg;
	size_t		len = size * n;
	const char *colon;
	size_t		name;

	t->header_bytes += len;
	if (t->header_bytes > MAX_HEADERS)
	{
		t->too_large = true;
		return 0;
	}
	if (t->headers_done || len == 0)
		return len;
	if (len >= 5 && strncmp(data, "HTTP/", 5) == 0)
	{
		t->status = read_status(data, len);
		t->content_type[0] = t->retry_after[0] = t->date[0] = '\0';
		return len;
	}
	if (*data == '\r' || *data == '\n')
	{
		t->headers_done = t->status >= 200;
		return len;
	}
	colon = memchr(data, ':', len);
	if (colon == NULL)
		return len;
	name = (size_t) (colon - data);
	colon++;
	if (name == 12 && strncasecmp(data, "Content-Type", name) == 0)
	{
		/* RFC 9110 section 5.3: there is one; of two that may differ neither is believed */
		if (t->content_type[0] != '\0')
			memcpy(t->content_type, ",", 2);
		else
			take_value(t->content_type, colon, len - name - 1);
	}
	else if (name == 11 && strncasecmp(data, "Retry-After", name) == 0)
		take_value(t->retry_after, colon, len - name - 1);
	else if (name == 4 && strncasecmp(data, "Date", name) == 0)
		take_value(t->date, colon, len - name - 1);
	return len;
}

/* ---- the end of a transfer ---- */

static void
describe_verify_failure(Transfer *t)
{
	long		verify = 0;
	const char *why = "name does not match the host";
	const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);

	/*
	 * The number means something else in another TLS library.  In this one it is
	 * left unspecified when the chain is good and the name is not.
	 */
	curl_easy_getinfo(t->easy, CURLINFO_SSL_VERIFYRESULT, &verify);
	if (v->ssl_version == NULL || strncmp(v->ssl_version, "OpenSSL", 7) != 0)
		why = "not trusted";
	else if (verify != X509_V_OK && verify != X509_V_ERR_UNSPECIFIED && verify != X509_V_ERR_HOSTNAME_MISMATCH &&
			 verify != X509_V_ERR_IP_ADDRESS_MISMATCH)
		why = X509_verify_cert_error_string(verify);
	snprintf(t->error, sizeof(t->error), "TLS: certificate verify failed (CA file %s): %s",
			 t->http->config->ca_file, why);
}

/* Our words for what went wrong; never the URL or anything that was sent. */
static void
describe_failure(Transfer *t, CURLcode rc)
{
	long		os_errno = 0;
	const char *text = NULL;

	curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os_errno);
	if (t->too_large || rc == CURLE_FILESIZE_EXCEEDED)
		text = "response too large";
	else if (t->repeated)
		text = "connection lost before the answer";
	else if (t->denied && !t->tried)
		text = "address not allowed";
	else
		switch (rc)
		{
			case CURLE_OPERATION_TIMEDOUT:
				text = "timeout";
				break;
			case CURLE_COULDNT_RESOLVE_HOST:
				text = "could not resolve host";
				break;
			case CURLE_COULDNT_CONNECT:
				text = os_errno == ECONNREFUSED ? "connection refused" : "could not connect";
				break;
			case CURLE_PEER_FAILED_VERIFICATION:
				describe_verify_failure(t);
				return;
			case CURLE_SSL_CACERT_BADFILE:
				snprintf(t->error, sizeof(t->error), "TLS: CA file %s could not be read",
						 t->http->config->ca_file);
				return;
			case CURLE_SSL_CONNECT_ERROR:
				text = "TLS: handshake failed";
				break;
			case CURLE_GOT_NOTHING:
				text = "connection closed without an answer";
				break;
			case CURLE_SEND_ERROR:
			case CURLE_RECV_ERROR:
				text = t->sent ? "connection lost before the answer" : "connection lost";
				break;
			case CURLE_PARTIAL_FILE:
				text = "answer cut short";
				break;
			case CURLE_WRITE_ERROR:
			case CURLE_OUT_OF_MEMORY:
				text = "out of memory";
				break;
			case CURLE_WEIRD_SERVER_REPLY:
			case CURLE_UNSUPPORTED_PROTOCOL:
				text = "answer is not HTTP";
				break;
			default:
				text = curl_easy_strerror(rc);
		}
	snprintf(t->error, sizeof(t->error), "%s", text);
}

static void
free_body(Transfer *t)
{
	if (t->body != NULL)
		OPENSSL_cleanse(t->body, t->body_cap);
	free(t->body);
	t->body = NULL;
	t->body_len = t->body_cap = 0;
}

void
ov_transfer_end(Transfer *t, CURLcode rc)
{
#if !HAVE_PREREQ
	/* Never a pooled connection then: sent if it stood, whatever came of it */
	curl_off_t	ready = 0;

	curl_easy_getinfo(t->easy, t->plain ? CURLINFO_CONNECT_TIME_T : CURLINFO_APPCONNECT_TIME_T, &ready);
	t->sent = rc == CURLE_OK || ready > 0;
#endif
	if (t->status < 200)
		t->status = 0;
	if (rc != CURLE_OK)
		describe_failure(t, rc);
	else if (t->status == 0)
		snprintf(t->error, sizeof(t->error), "answer is not HTTP");
	if (t->error[0] != '\0')
		free_body(t);			/* half an answer is none */
}

/* What is not needed for the callback */
void
ov_transfer_release_request(Transfer *t)
{
	if (t->easy != NULL)
		curl_easy_cleanup(t->easy);
	t->easy = NULL;
	for (struct curl_slist *h = t->headers; h != NULL; h = h->next)
		OPENSSL_cleanse(h->data, strlen(h->data));
	curl_slist_free_all(t->headers);
	t->headers = NULL;
	if (t->request != NULL)
		OPENSSL_cleanse(t->request, t->request_len);
	free(t->request);
	t->request = NULL;
}

void
ov_transfer_free(Transfer *t)
{
	ov_transfer_release_request(t);
	free_body(t);
	OPENSSL_cleanse(t, sizeof(*t));
	free(t);
}

/* ---- the beginning of a transfer ---- */

static bool
is_token(const char *s, size_t len)
{
	static const char others[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < len; i++)
	{
		char		c = s[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			  (c != '\0' && strchr(others, c) != NULL)))
			return false;
	}
	return len > 0;
}

/*
 * RFC 9110 section 5: token ":" value without control characters.  Framing,
 * connection and host are the engine's business.  No empty value: libcurl takes
 * that as an order to drop the header.
 */
static OvCode
check_header(const char *header, OvError *err)
{
	static const char *const ours[] = {
		"Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "Upgrade", "TE",
		"Trailer", "Keep-Alive"
	};
	size_t		name = strcspn(header, ":");
	const char *value;

	if (header[name] != ':' || !is_token(header, name))
		return ov_fail(err, OV_E_SYNTAX, "malformed HTTP header name");
	value = header + name + 1;
	for (const char *p = value; *p != '\0'; p++)
		if (((unsigned char) *p < 0x20 && *p != '\t') || *p == 0x7f)
			return ov_fail(err, OV_E_SYNTAX, "control character in HTTP header \"%.*s\"",
						   (int) (name < 64 ? name : 64), header);
	if (value[strspn(value, " \t")] == '\0')
		return ov_fail(err, OV_E_SYNTAX, "HTTP header \"%.*s\" has no value",
					   (int) (name < 64 ? name : 64), header);
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (strlen(ours[i]) == name && strncasecmp(ours[i], header, name) == 0)
			return ov_fail(err, OV_E_SYNTAX, "HTTP header \"%s\" cannot be set", ours[i]);
	if (name >= 6 && strncasecmp(header, "Proxy-", 6) == 0)
		return ov_fail(err, OV_E_SYNTAX, "HTTP header \"%.*s\" cannot be set",
					   (int) (name < 64 ? name : 64), header);
	return OV_OK;
}

static bool
is_loopback_host(const char *host)
{
	union
	{
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	}			a = {0};
	char		bare[INET6_ADDRSTRLEN];
	size_t		len = strlen(host);

	if (inet_pton(AF_INET, host, &a.v4.sin_addr) == 1)
	{
		a.sa.sa_family = AF_INET;
		return is_loopback_address(&a.sa);
	}
	if (len > 2 && len - 2 < sizeof(bare) && host[0] == '[' && host[len - 1] == ']')
	{
		memcpy(bare, host + 1, len - 2);
		bare[len - 2] = '\0';
		a.sa.sa_family = AF_INET6;
		return inet_pton(AF_INET6, bare, &a.v6.sin6_addr) == 1 && is_loopback_address(&a.sa);
	}
	return strcasecmp(host, "localhost") == 0;
}

/* Judged with libcurl's own parser, so that there is one reading of it. */
static OvCode
check_url(const Config *config, const char *url, bool *plain, OvError *err)
{
	CURLU	   *u;
	char	   *scheme = NULL;
	char	   *host = NULL;
	OvCode		code = OV_OK;

	if (strlen(url) > MAX_URL_LEN)
		return ov_fail(err, OV_E_SYNTAX, "URL is too long");
	for (const char *p = url; *p != '\0'; p++)
		if ((unsigned char) *p <= 0x20 || (unsigned char) *p >= 0x7f || *p == '\\')
			return ov_fail(err, OV_E_SYNTAX, "forbidden character in URL");
	u = curl_url();
	if (u == NULL)
		return ov_fail(err, OV_E_NOMEM, "out of memory");
	if (curl_url_set(u, CURLUPART_URL, url, CURLU_DISALLOW_USER) != CURLUE_OK ||
		curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK)
		code = ov_fail(err, OV_E_SYNTAX, "malformed URL");
	else if (strcmp(scheme, "https") != 0 && (strcmp(scheme, "http") != 0 || !config->loopback))
		code = ov_fail(err, OV_E_DENIED, "only https URLs are allowed");
	else if (curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK)
		code = ov_fail(err, OV_E_SYNTAX, "malformed URL");
	else
	{
		*plain = strcmp(scheme, "http") == 0;
		if (*plain && !is_loopback_host(host))
			code = ov_fail(err, OV_E_DENIED, "only https URLs are allowed");
	}
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(u);
	return code;
}

OvCode
ov_transfer_check(const Config *config, const OvHttpRequest *req, bool *plain, OvError *err)
{
	OvCode		code;

	if (req->method == NULL || req->url == NULL || !is_token(req->method, strlen(req->method)))
		return ov_fail(err, OV_E_SYNTAX, "malformed HTTP method");
	if (req->nheaders > (int) (sizeof(req->headers) / sizeof(req->headers[0])))
		return ov_fail(err, OV_E_LIMIT, "too many HTTP headers");
	for (int i = 0; i < req->nheaders; i++)
		if ((code = check_header(req->headers[i], err)) != OV_OK)
			return code;
	return check_url(config, req->url, plain, err);
}

static bool
add_header(Transfer *t, const char *header)
{
	struct curl_slist *list = curl_slist_append(t->headers, header);

	if (list != NULL)
		t->headers = list;
	return list != NULL;
}

#if LIBCURL_VERSION_NUM >= 0x075700
/*
 * The cache of CA certificates has no way to be emptied.  Letting it be no older
 * than the configuration makes a reload read a replaced CA file.
 */
static long
ca_cache_seconds(const Config *config)
{
	struct timespec now;
	time_t		age;

	clock_gettime(CLOCK_MONOTONIC, &now);
	age = now.tv_sec - config->since;
	return age < 1 ? 1 : age > MAX_CA_CACHE_SECONDS ? MAX_CA_CACHE_SECONDS : (long) age;
}
#endif

/* The URL's host as a certificate names it: without brackets, without the root's dot */
static bool
take_host(Transfer *t, const char *url)
{
	CURLU	   *u = curl_url();
	char	   *host = NULL;
	size_t		len = 0;

	if (u != NULL && curl_url_set(u, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
		curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK)
	{
		const char *from = host[0] == '[' ? host + 1 : host;

		len = strcspn(from, "]");
		if (len > 0 && from[len - 1] == '.')
			len--;
		if (len >= sizeof(t->host))
			len = 0;
		memcpy(t->host, from, len);
		t->host[len] = '\0';
	}
	curl_free(host);
	curl_url_cleanup(u);
	return len > 0;
}

/*
 * CURLOPT_SSL_CTX_FUNCTION.  OpenSSL decrypts in place, and would leave the
 * answers there.  RFC 9525 section 2: a certificate is for the names in its
 * subjectAltName; libcurl alone would believe the common name of one without.
 */
static CURLcode
harden_tls(CURL *easy, void *ctx, void *arg)
{
	Transfer   *t = arg;
	X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);

	(void) easy;
	SSL_CTX_set_options(ctx, SSL_OP_CLEANSE_PLAINTEXT);
	/* Ten thousand that wait for their answers need no buffers of 34 kB each. */
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return X509_VERIFY_PARAM_set1_ip_asc(param, t->host) == 1 ||
		X509_VERIFY_PARAM_set1_host(param, t->host, 0) == 1 ? CURLE_OK : CURLE_OUT_OF_MEMORY;
}

/* All that follows must hold: an option that libcurl refuses stops the transfer. */
#define SET(option, value) \
	do { \
		if (rc == CURLE_OK) \
			rc = curl_easy_setopt(t->easy, option, value); \
	} while (0)

/* Where we connect, and whom we believe */
static CURLcode
set_connection(Transfer *t)
{
	const Config *c = t->http->config;
	CURLcode	rc = CURLE_OK;

#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, t->plain ? "http" : "https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (t->plain ? CURLPROTO_HTTP : CURLPROTO_HTTPS));
#endif
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");		/* and none from the environment */
	SET(CURLOPT_NOPROXY, "*");
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, t);
#if HAVE_PREREQ
	SET(CURLOPT_PREREQFUNCTION, before_request);
	SET(CURLOPT_PREREQDATA, t);
	SET(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
#else
	/* Nobody would judge a pooled connection or stop a second sending. */
	SET(CURLOPT_FRESH_CONNECT, 1L);
	SET(CURLOPT_FORBID_REUSE, 1L);
#endif
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_CONNECTTIMEOUT_MS, c->connect_timeout_ms);
	SET(CURLOPT_TIMEOUT_MS, c->total_timeout_ms);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_CAINFO, c->ca_file);
	SET(CURLOPT_CAPATH, NULL);	/* or the cache would be off */
	SET(CURLOPT_HTTP09_ALLOWED, 0L);
	SET(CURLOPT_SSL_CTX_FUNCTION, harden_tls);
	SET(CURLOPT_SSL_CTX_DATA, t);

	/* Good to have: what libcurl allocates for each request is cleansed after it */
	curl_easy_setopt(t->easy, CURLOPT_UPLOAD_BUFFERSIZE, (long) UPLOAD_BUFFER);
	curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, (long) RECEIVE_BUFFER);
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(t->easy, CURLOPT_CA_CACHE_TIMEOUT, ca_cache_seconds(c));
	curl_easy_setopt(t->easy, CURLOPT_QUICK_EXIT, 1L);	/* never wait for a resolver thread */
#endif
	curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(t->easy, CURLOPT_PIPEWAIT, 1L);
	return rc;
}

static CURLcode
set_request(Transfer *t, const OvHttpRequest *req)
{
	bool		head = strcmp(req->method, "HEAD") == 0;
	bool		post = strcmp(req->method, "POST") == 0;
	CURLcode	rc = CURLE_OK;

	SET(CURLOPT_URL, req->url);
	if (t->request != NULL || post)
	{
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDS, t->request != NULL ? t->request : "");
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) t->request_len);
		if (!post)
			SET(CURLOPT_CUSTOMREQUEST, req->method);
	}
	else if (head)
		SET(CURLOPT_NOBODY, 1L);
	else
	{
		SET(CURLOPT_HTTPGET, 1L);
		if (strcmp(req->method, "GET") != 0)
			SET(CURLOPT_CUSTOMREQUEST, req->method);
	}
	SET(CURLOPT_HTTPHEADER, t->headers);
	SET(CURLOPT_ACCEPT_ENCODING, NULL);
	if (t->http->config->user_agent != NULL)
		SET(CURLOPT_USERAGENT, t->http->config->user_agent);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) MAX_BODY);
	SET(CURLOPT_PRIVATE, t);
	return rc;
}

/* Everything up to the start.  False: t->error says why. */
bool
ov_transfer_prepare(Transfer *t, const OvHttpRequest *req)
{
	bool		copied = true;
	CURLcode	rc;

	t->repeatable = strcmp(req->method, "GET") == 0 || strcmp(req->method, "HEAD") == 0;
	if (req->body != NULL)
	{
		t->request = malloc(req->body_len + 1);
		copied = t->request != NULL;
		if (copied)
		{
			memcpy(t->request, req->body, req->body_len);
			t->request[req->body_len] = '\0';
			t->request_len = req->body_len;
		}
	}
	for (int i = 0; copied && i < req->nheaders; i++)
		copied = add_header(t, req->headers[i]);
	copied = copied && add_header(t, "Expect:");	/* do not wait for 100 */
	t->easy = copied && take_host(t, req->url) ? curl_easy_init() : NULL;
	if (t->easy == NULL)
	{
		snprintf(t->error, sizeof(t->error), "out of memory");
		return false;
	}
	rc = set_connection(t);
	if (rc == CURLE_OK)
		rc = set_request(t, req);
	if (rc != CURLE_OK)
		snprintf(t->error, sizeof(t->error), "could not start: %s", curl_easy_strerror(rc));
	return rc == CURLE_OK;
}
