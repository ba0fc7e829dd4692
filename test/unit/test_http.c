/*
 * test_http.c
 *	  Address policy, and the HTTP engine against a small real server.
 *
 * The server is a forked child with a thread per connection; what to do is in
 * the path of the request, and what it saw is in shared memory.  Everything
 * runs with proxies in the environment that must never be asked.
 */
#include "core/http.h"
#include "tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BODY_CAP (256 * 1024)

const char *__asan_default_options(void);
const char *
__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

/* ---- addresses ---- */

static bool
allowed(const char *text, const char *const *networks, int n)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		return ov_address_allowed((struct sockaddr *) &v4, networks, n);
	if (inet_pton(AF_INET6, text, &v6.sin6_addr) != 1)
		abort();
	return ov_address_allowed((struct sockaddr *) &v6, networks, n);
}

static void
addresses(void)
{
	static const char *const public[] = {
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
		"128.0.0.1", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.1",
		"192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "203.0.112.255", "223.255.255.255",
		"168.63.129.15", "2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "3ffe::1",
		"::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2001:0:808:808::f7f7:f7f7"
	};
	static const char *const refused[] = {
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255",
		"127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1",
		"172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1",
		"198.19.255.255", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.255", "240.0.0.1",
		"255.255.255.255", "::", "::1", "::2", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
		"::ffff:10.0.0.1", "::ffff:0.0.0.0", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8",
		"100::1", "1::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1", "3fff:fff:ffff::1",
		"2002:7f00:1::1", "2002:a9fe:a9fe::1", "2001:0:808:808::80ff:fffe", "2001:0:7f00:1::f7f7:f7f7", "4000::1",
		"5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "febf::1", "fec0::1", "ff02::1", "ff0e::1"
	};
	static const struct
	{
		const char *address,
				   *network;
		bool		want;
	}			exempt[] = {
		{"10.1.2.3", "10.1.2.3/32", true},
		{"10.1.2.3", "10.1.2.3", true},
		{"10.1.2.4", "10.1.2.3/32", false},
		{"10.1.2.3", "10.9.9.9/8", true},
		{"10.1.2.3", "0.0.0.0/0", true},
		{"10.1.3.255", "10.1.2.0/23", true},
		{"10.1.4.0", "10.1.2.0/23", false},
		{"::ffff:10.1.2.3", "10.1.2.0/24", true},
		{"::ffff:10.1.3.3", "10.1.2.0/24", false},
		{"64:ff9b::10.1.2.3", "10.1.2.0/24", false},
		{"fd00:1::5", "fd00:1::/32", true},
		{"fd00:1::5", "fd00:1::5/128", true},
		{"fd00:1::6", "fd00:1::5/128", false},
		{"fd00:2::5", "fd00:1::/32", false},
		{"fd00:1::5", "fd00:1::/31", true},
		{"127.0.0.1", "::ffff:127.0.0.1/128", false},
		{"127.0.0.1", "127.0.0.1/33", false},
		{"127.0.0.1", "127.0.0.1/", false},
		{"127.0.0.1", "127.0.0.1/-1", false},
		{"127.0.0.1", "127.0.0.1/0x8", false},
		{"127.0.0.1", "/0", false},
		{"127.0.0.1", "", false},
		{"127.0.0.1", "localhost", false},
		{"::1", "::1/129", false},
		{"::1", "::/0", true},
	};
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	for (size_t i = 0; i < sizeof(public) / sizeof(public[0]); i++)
		ok(allowed(public[i], NULL, 0), "%s is public", public[i]);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		ok(!allowed(refused[i], NULL, 0), "%s is refused", refused[i]);
	for (size_t i = 0; i < sizeof(exempt) / sizeof(exempt[0]); i++)
	{
		const char *networks[] = {"192.168.7.0/24", exempt[i].network};

		ok(allowed(exempt[i].address, networks, 2) == exempt[i].want, "%s is %s by \"%s\"", exempt[i].address,
		   exempt[i].want ? "allowed" : "not allowed", exempt[i].network);
	}
	ok(!ov_address_allowed((struct sockaddr *) &un, (const char *[]) {"0.0.0.0/0", "::/0"}, 2),
	   "a UNIX socket is refused whatever is allowed");
	ok(!ov_address_allowed(NULL, NULL, 0), "no address is refused");
}

/* ---- the server ---- */

static struct Seen
{
	atomic_int	requests;
	atomic_int	target;			/* what /redirect points to */
	atomic_int	fatal;			/* /die */
	atomic_int	proxied;
}		   *seen;

static int	http_listen,
			tls_listen,
			proxy_listen;
static int	http_port,
			tls_port,
			proxy_port,
			closed_port;
static char cert_file[] = "/tmp/ov_test_http_cert_XXXXXX";
static char other_file[] = "/tmp/ov_test_http_other_XXXXXX";
static char keylog_file[] = "/tmp/ov_test_http_keys_XXXXXX";
static SSL_CTX *tls_context;
static pid_t server;

static int
listen_on(int *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	len = sizeof(a);
	int			fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(fd, (struct sockaddr *) &a, sizeof(a)) != 0 || listen(fd, 512) != 0 ||
		getsockname(fd, (struct sockaddr *) &a, &len) != 0)
		abort();
	*port = ntohs(a.sin_port);
	return fd;
}

typedef struct Peer
{
	int			fd;
	SSL		   *ssl;
} Peer;

static ssize_t
peer_read(Peer *p, char *to, size_t len)
{
	return p->ssl ? SSL_read(p->ssl, to, (int) len) : read(p->fd, to, len);
}

static bool
peer_write(Peer *p, const char *data, size_t len)
{
	while (len > 0)
	{
		ssize_t		n = p->ssl ? SSL_write(p->ssl, data, (int) len) : send(p->fd, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t) n;
	}
	return true;
}

static bool
peer_puts(Peer *p, const char *text)
{
	return peer_write(p, text, strlen(text));
}

static bool
send_big(Peer *p, int size, bool with_length)
{
	char		block[4096];
	char		head[128];

	snprintf(head, sizeof(head), with_length ? "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" : "HTTP/1.1 200 OK\r\n\r\n", size);
	memset(block, 'x', sizeof(block));
	if (!peer_puts(p, head))
		return false;
	for (int left = size; left > 0; left -= (int) sizeof(block))
		if (!peer_write(p, block, left < (int) sizeof(block) ? (size_t) left : sizeof(block)))
			return false;
	return with_length;
}

/* False: the connection is over. */
static bool
answer(Peer *p, const char *request, size_t len)
{
	const char *path = strchr(request, ' ') + 1;
	char		head[128];

#define AT(name) (strncmp(path, name " ", sizeof(name)) == 0)
	seen->requests++;
	if (AT("/ok"))
		return peer_puts(p, "HTTP/1.1 200 Fine\r\nContent-Type: application/json; charset=utf-8\r\n"
						 "date:  Tue, 15 Nov 1994 08:12:31 GMT \r\nContent-Length: 11\r\n\r\n{\"ok\":true}");
	if (AT("/echo"))
	{
		snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
		return peer_puts(p, head) && peer_write(p, request, len);
	}
	if (AT("/redirect"))
		return peer_puts(p, "HTTP/1.1 302 Found\r\nLocation: /target\r\nContent-Length: 0\r\n\r\n");
	if (AT("/target"))
		seen->target++;
	if (AT("/busy"))
		return peer_puts(p, "HTTP/1.1 429 Slow Down\r\nRetry-After: 120\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
	if (AT("/two-types"))
		return peer_puts(p, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n{}");
	if (AT("/interim"))
		return peer_puts(p, "HTTP/1.1 103 Early Hints\r\nRetry-After: 7\r\nContent-Type: text/early\r\n\r\n"
						 "HTTP/1.1 200 OK\r\nContent-Type: text/final\r\nTransfer-Encoding: chunked\r\n\r\n"
						 "3\r\nabc\r\n2\r\nde\r\n0\r\nRetry-After: 9\r\n\r\n");
	if (AT("/exact"))
		return send_big(p, BODY_CAP, true);
	if (AT("/exact-stream"))
		return send_big(p, BODY_CAP, false);
	if (AT("/big"))
		return send_big(p, BODY_CAP + 1, true);
	if (AT("/big-stream"))
		return send_big(p, BODY_CAP + 1, false);
	if (AT("/flood"))
	{
		if (!peer_puts(p, "HTTP/1.1 200 OK\r\n"))
			return false;
		for (int i = 0; i < 4000; i++)
			if (!peer_puts(p, "X-Filler: filler filler filler filler\r\n"))
				return false;
		return peer_puts(p, "Content-Length: 0\r\n\r\n");
	}
	if (AT("/short"))
		return peer_puts(p, "HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\n{\"error\":") && false;
	if (AT("/junk"))
		return peer_puts(p, "SSH-2.0-OpenSSH_9.2\r\n") && false;
	if (AT("/hang"))
		sleep(30);
	if (AT("/die"))
		seen->fatal++;
	return false;
}

static void *
serve_peer(void *arg)
{
	Peer		p = *(Peer *) arg;
	char		request[64 * 1024];
	size_t		len = 0;
	ssize_t		n;

	free(arg);
	if (p.ssl != NULL && SSL_accept(p.ssl) != 1)
		goto over;
	while ((n = peer_read(&p, request + len, sizeof(request) - len - 1)) > 0)
	{
		char	   *end;
		char	   *length;
		size_t		total;

		if (p.ssl == NULL && request[0] == 0x16)	/* a TLS handshake */
		{
			peer_puts(&p, "HTTP/1.1 400 Plain Here\r\n\r\n");
			break;
		}
		len += (size_t) n;
		request[len] = '\0';
		end = strstr(request, "\r\n\r\n");
		if (end == NULL)
			continue;
		length = strstr(request, "Content-Length: ");
		total = (size_t) (end - request) + 4 + (length && length < end ? (size_t) atoi(length + 16) : 0);
		if (len < total)
			continue;
		if (!answer(&p, request, total))
			break;
		len = 0;
	}
over:
	if (p.ssl != NULL)
		SSL_free(p.ssl);
	shutdown(p.fd, SHUT_WR);
	while (read(p.fd, request, sizeof(request)) > 0)	/* so that closing does not reset */
		;
	close(p.fd);
	return NULL;
}

static void
serve(void)
{
	struct pollfd fds[] = {{http_listen, POLLIN, 0}, {tls_listen, POLLIN, 0}, {proxy_listen, POLLIN, 0}};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	for (;;)
	{
		poll(fds, 3, -1);
		for (int i = 0; i < 3; i++)
			if (fds[i].revents & POLLIN)
			{
				Peer	   *p = calloc(1, sizeof(Peer));
				pthread_t	thread;

				p->fd = accept(fds[i].fd, NULL, NULL);
				if (fds[i].fd == proxy_listen)
					seen->proxied++;
				if (fds[i].fd == tls_listen)
				{
					p->ssl = SSL_new(tls_context);
					SSL_set_fd(p->ssl, p->fd);
				}
				if (pthread_create(&thread, NULL, serve_peer, p) != 0)
					abort();
				pthread_detach(thread);
			}
	}
}

/* A certificate that signs itself, for 127.0.0.1 only */
static X509 *
make_certificate(EVP_PKEY *key, char *file)
{
	X509	   *x = X509_new();
	X509_NAME  *name = X509_get_subject_name(x);
	X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
	FILE	   *f = fdopen(mkstemp(file), "w");

	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *) file, -1, -1, 0);
	X509_set_issuer_name(x, name);
	X509_set_pubkey(x, key);
	X509_add_ext(x, san, -1);
	X509_EXTENSION_free(san);
	X509_sign(x, key, EVP_sha256());
	PEM_write_X509(f, x);
	fclose(f);
	return x;
}

static void
start_server(void)
{
	EVP_PKEY   *key = EVP_EC_gen("P-256");
	X509	   *cert = make_certificate(key, cert_file);

	X509_free(make_certificate(key, other_file));
	tls_context = SSL_CTX_new(TLS_server_method());
	SSL_CTX_use_certificate(tls_context, cert);
	SSL_CTX_use_PrivateKey(tls_context, key);
	X509_free(cert);
	EVP_PKEY_free(key);
	close(mkstemp(keylog_file));
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	close(listen_on(&closed_port));
	http_listen = listen_on(&http_port);
	tls_listen = listen_on(&tls_port);
	proxy_listen = listen_on(&proxy_port);
	server = fork();
	if (server == 0)
		serve();
	SSL_CTX_free(tls_context);
}

/* ---- the client ---- */

typedef struct Result
{
	int			calls;
	bool		in_send;		/* was done called from there? */
	int			status;
	bool		sent;
	char		error[512];
	char		content_type[300],
				retry_after[300],
				date[300];
	char	   *body;
	size_t		len;
	OvHttp	   *chain;			/* send another request from the callback */
	struct Result *next;
} Result;

static OvHttp *http;
static bool sending;
static int	done_count;

static OvHttpRequest
request_for(const char *method, const char *url, const char *body)
{
	OvHttpRequest req = {.method = method, .url = url, .body = body, .body_len = body ? strlen(body) : 0};

	return req;
}

static const char *
url_of(const char *scheme, int port, const char *path)
{
	static char url[4][256];
	static int	i;

	i = (i + 1) % 4;
	snprintf(url[i], sizeof(url[i]), "%s://127.0.0.1:%d%s", scheme, port, path);
	return url[i];
}

#define HTTP(path) url_of("http", http_port, path)
#define HTTPS(path) url_of("https", tls_port, path)

static void
copy(char *to, const char *from)
{
	snprintf(to, 300, "%s", from ? from : "(none)");
}

static void
on_done(void *arg, const OvHttpResponse *resp)
{
	Result	   *r = arg;

	done_count++;
	r->calls++;
	r->in_send = sending;
	r->status = resp->status;
	r->sent = resp->sent;
	snprintf(r->error, sizeof(r->error), "%s", resp->transport_error ? resp->transport_error : "");
	copy(r->content_type, resp->content_type);
	copy(r->retry_after, resp->retry_after);
	copy(r->date, resp->date);
	free(r->body);
	r->body = malloc(resp->body_len + 1);
	memcpy(r->body, resp->body, resp->body_len + 1);	/* with its NUL */
	r->len = resp->body_len;
	if (r->chain != NULL)
	{
		OvHttpRequest req = request_for("GET", HTTP("/ok"), NULL);

		ov_http_send(r->chain, &req, on_done, r->next, NULL);
	}
}

static void
run_until(int count)
{
	struct pollfd p = {ov_http_fd(http), POLLIN, 0};
	time_t		start = time(NULL);

	while (done_count < count && time(NULL) - start < 20)
	{
		poll(&p, 1, 1000);
		ov_http_service(http);
	}
}

static OvCode
start_request(Result *r, const OvHttpRequest *req, OvError *err)
{
	OvCode		code;

	memset(r, 0, sizeof(*r));
	sending = true;
	code = ov_http_send(http, req, on_done, r, err);
	sending = false;
	return code;
}

static Result result;

/* One request from beginning to end */
static Result *
call(const char *method, const char *url, const char *body)
{
	OvHttpRequest req = request_for(method, url, body);
	int			before = done_count;

	free(result.body);
	if (start_request(&result, &req, NULL) != OV_OK)
		snprintf(result.error, sizeof(result.error), "refused");
	else
		run_until(before + 1);
	return &result;
}

static OvHttpConfig config = {
	.allow_insecure_loopback = true,
	.connect_timeout_ms = 2000,
	.total_timeout_ms = 4000,
	.max_connections = 32,
	.max_host_connections = 16,
	.user_agent = "ov-test/1",
};

static void
plain_requests(void)
{
	OvHttpRequest req = request_for("POST", HTTP("/echo"), "grant_type=refresh_token&refresh_token=s");
	Result	   *r = call("GET", HTTP("/ok"), NULL);

	is_int(r->status, 200, "200 arrives");
	is_str(r->error, "", "without a transport error");
	ok(r->sent, "and was sent");
	is_str(r->body, "{\"ok\":true}", "with its body");
	is_int(r->len, 11, "and length");
	is_str(r->content_type, "application/json; charset=utf-8", "its content type");
	is_str(r->date, "Tue, 15 Nov 1994 08:12:31 GMT", "its date, trimmed");
	is_str(r->retry_after, "(none)", "and no other header");
	ok(r->calls == 1 && !r->in_send, "done is called once, not from ov_http_send");
	is_int(ov_http_in_flight(http), 0, "nothing is left in flight");

	req.headers[req.nheaders++] = "Authorization: Basic c2VjcmV0";
	req.headers[req.nheaders++] = "Accept: application/json";
	free(result.body);
	start_request(&result, &req, NULL);
	is_int(ov_http_in_flight(http), 1, "a request is in flight");
	run_until(done_count + 1);
	ok(strncmp(r->body, "POST /echo HTTP/1.1\r\n", 21) == 0, "POST is what the server sees");
	ok(strstr(r->body, "\r\nAuthorization: Basic c2VjcmV0\r\n") && strstr(r->body, "\r\nAccept: application/json\r\n"), "the headers");
	ok(strstr(r->body, "\r\n\r\ngrant_type=refresh_token&refresh_token=s"), "the body");
	ok(strstr(r->body, "User-Agent: ov-test/1\r\n"), "the user agent");
	ok(!strstr(r->body, "Expect") && !strstr(r->body, "Accept-Encoding") && !strstr(r->body, "Cookie"), "and nothing unasked");
	ok(strstr(call("DELETE", HTTP("/echo"), NULL)->body, "DELETE /echo"), "another method without a body");
	ok(strstr(call("PATCH", HTTP("/echo"), "{}")->body, "\r\n\r\n{}"), "and with one");
	ok(strstr(call("POST", HTTP("/echo"), NULL)->body, "Content-Length: 0\r\n"), "POST without a body is empty");

	r = call("GET", HTTP("/redirect"), NULL);
	is_int(r->status, 302, "a redirect is an answer");
	is_int(seen->target, 0, "and is not followed");
	is_str(call("GET", HTTP("/busy"), NULL)->retry_after, "120", "the first Retry-After counts");
	is_str(call("GET", HTTP("/two-types"), NULL)->content_type, ",", "of two content types neither");
	r = call("GET", HTTP("/interim"), NULL);
	ok(r->status == 200 && r->len == 5 && strcmp(r->body, "abcde") == 0, "an interim answer is not the answer");
	ok(strcmp(r->content_type, "text/final") == 0 && strcmp(r->retry_after, "(none)") == 0, "nor are its headers, nor trailers");
}

static void
limits(void)
{
	static const char *const fits[] = {"/exact", "/exact-stream"};
	static const char *const over[] = {"/big", "/big-stream", "/flood"};
	Result	   *r;

	for (int i = 0; i < 2; i++)
	{
		r = call("GET", HTTP(fits[i]), NULL);
		ok(r->error[0] == '\0' && r->len == BODY_CAP, "256 KiB are accepted: %s", fits[i]);
	}
	for (int i = 0; i < 3; i++)
	{
		r = call("GET", HTTP(over[i]), NULL);
		is_str(r->error, "response too large", "more is not: %s", over[i]);
		ok(r->len == 0 && r->sent, "and none of it is given");
	}
}

static void
failures(void)
{
	OvHttpRequest huge = request_for("POST", HTTP("/ok"), "x");
	struct pollfd p = {ov_http_fd(http), POLLIN, 0};
	sigset_t	mask;
	int			blocked = 0;
	Result	   *r = call("POST", url_of("http", closed_port, "/"), "a=b");

	is_str(r->error, "connection refused", "nobody listens");
	ok(!r->sent && r->status == 0, "so nothing was sent");
	r = call("POST", HTTP("/die"), "a=b");
	is_str(r->error, "connection closed without an answer", "the server reads and closes");
	ok(r->sent && r->status == 0, "so it may have acted");
	r = call("POST", HTTP("/hang"), "a=b");
	is_str(r->error, "timeout", "the server never answers");
	ok(r->sent, "so it may have acted");
	r = call("POST", HTTP("/short"), "a=b");
	is_str(r->error, "answer cut short", "half an answer");
	ok(r->sent && r->status == 400 && r->len == 0, "is not given as one");
	is_str(call("GET", HTTP("/junk"), NULL)->error, "answer is not HTTP", "another protocol");
	r = call("POST", url_of("https", http_port, "/ok"), "a=b");
	ok(strncmp(r->error, "TLS: ", 5) == 0 && !r->sent, "https to a plain port: %s", r->error);
	r = call("GET", "https://host.invalid/", NULL);
	ok((strcmp(r->error, "could not resolve host") == 0 || strcmp(r->error, "timeout") == 0) && !r->sent,
	   "an unknown host: %s", r->error);
	is_str(call("GET", "https://10.255.255.1/", NULL)->error, "address not allowed", "a private address");
	is_str(call("GET", "https://[::ffff:169.254.169.254]/", NULL)->error, "address not allowed", "metadata in disguise");
	is_str(call("GET", "https://0/", NULL)->error, "address not allowed", "the unspecified address");

	/* a pooled connection that dies before the answer: libcurl would repeat */
	seen->fatal = 0;
	call("GET", HTTP("/ok"), NULL);
	r = call("POST", HTTP("/die"), "refresh_token=once");
	is_int(seen->fatal, 1, "a POST is never sent twice");
	ok(r->error[0] != '\0' && r->sent, "but fails: %s", r->error);

	huge.body_len = SIZE_MAX / 4;
	free(result.body);
	is_int(start_request(&result, &huge, NULL), OV_OK, "a request that cannot start is accepted");
	is_int(ov_http_in_flight(http), 1, "and in flight");
	is_int(poll(&p, 1, 1000), 1, "the fd asks for service");
	ov_http_service(http);
	ok(result.calls == 1 && !result.in_send && !result.sent, "and the end is told: %s", result.error);
	is_int(poll(&p, 1, 0), 0, "then the fd is quiet");
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	for (int i = 1; i <= 64; i++)
		blocked += sigismember(&mask, i) == 1;
	is_int(blocked, 0, "no signal is left blocked");
}

static void
refusals(void)
{
	static const char *const headers[] = {
		"X-A: b\r\nX-Injected: c", "X-A: b\nc", "X-A: b\rc", "X-A\r\nB: c", "X-A: \x7f", "no colon", ": value", "X A: b", "X-A:",
		"X-A:  ", "X-A;", "", "Host: evil.example", "content-length: 5", "Transfer-Encoding: chunked", "Connection: close",
		"Proxy-Authorization: x"
	};
	static const char *const bad_urls[] = {
		"", "http", "https://", "https://a b/", "https://a/\r\nX: y", "https://u:p@a/", "https://a\\b/", "https://a:99999/"
	};
	static const char *const denied[] = {
		"http://example.com/", "ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "http://127.0.0.1.example/",
		"http://10.0.0.1/", "http://[::2]/"
	};
	OvError		err;
	OvHttpRequest req;
	Result		r;
	int			before = seen->requests;

	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
	{
		req = request_for("GET", HTTP("/ok"), NULL);
		req.headers[req.nheaders++] = headers[i];
		is_int(start_request(&r, &req, &err), OV_E_SYNTAX, "refused as a header: case %zu: %s", i, err.message);
	}
	for (size_t i = 0; i < sizeof(bad_urls) / sizeof(bad_urls[0]); i++)
	{
		req = request_for("GET", bad_urls[i], NULL);
		is_int(start_request(&r, &req, &err), OV_E_SYNTAX, "refused as a URL: case %zu", i);
	}
	for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++)
	{
		req = request_for("GET", denied[i], NULL);
		is_int(start_request(&r, &req, &err), OV_E_DENIED, "not allowed: %s", denied[i]);
	}
	req = request_for("GET /x HTTP/1.1\r\nX:", HTTP("/ok"), NULL);
	is_int(start_request(&r, &req, &err), OV_E_SYNTAX, "refused as a method");
	is_int(ov_http_in_flight(http), 0, "nothing of that is in flight");
	is_int(seen->requests, before, "or was sent");
}

static void
many(void)
{
	enum
	{
		N = 100
	};
	Result	   *r = calloc(N + 2, sizeof(Result));
	OvHttpRequest req = request_for("POST", HTTP("/ok"), "a=b");
	int			before = done_count;
	int			good = 0;

	for (int i = 0; i < N; i++)
		start_request(&r[i], &req, NULL);
	is_int(ov_http_in_flight(http), N, "100 requests are in flight");
	run_until(before + N);
	for (int i = 0; i < N; i++)
		good += r[i].calls == 1 && r[i].status == 200 && r[i].len == 11;
	is_int(good, N, "and all are answered, once each");

	start_request(&r[N], &req, NULL);
	r[N].chain = http;
	r[N].next = &r[N + 1];
	run_until(before + N + 2);
	is_int(r[N + 1].status, 200, "a callback may send the next request");
	for (int i = 0; i < N + 2; i++)
		free(r[i].body);
	free(r);
}

static void
tls(void)
{
	static const char *const networks[] = {"127.0.0.0/8"};
	OvHttpConfig c = config;
	Result	   *r;
	char		want[256];
	OvError		err;
	struct stat st;

	r = call("POST", HTTPS("/ok"), "a=b");
	ok(strncmp(r->error, "TLS: certificate verify failed (CA file ", 40) == 0, "an unknown issuer: %s", r->error);
	ok(!r->sent, "nothing was sent to it");
	c.ca_file = other_file;
	is_int(ov_http_reconfigure(http, &c, &err), OV_OK, "another CA file");
	snprintf(want, sizeof(want), "TLS: certificate verify failed (CA file %s)", other_file);
	ok(strncmp(call("GET", HTTPS("/ok"), NULL)->error, want, strlen(want)) == 0, "is named when it does not help");
	c.ca_file = "/nonexistent/ca.pem";
	is_int(ov_http_reconfigure(http, &c, &err), OV_E_CONFIG, "a CA file that is not there is refused");
	ok(strstr(err.message, "/nonexistent/ca.pem"), "by name: %s", err.message);
	is_int(call("GET", HTTP("/ok"), NULL)->status, 200, "and the engine goes on");

	c.ca_file = cert_file;
	c.allow_insecure_loopback = false;
	c.allowed_networks = networks;
	c.nallowed_networks = 1;
	is_int(ov_http_reconfigure(http, &c, &err), OV_OK, "the right CA file, loopback as an allowed network");
	r = call("POST", HTTPS("/ok"), "a=b");
	ok(r->status == 200 && r->error[0] == '\0', "a trusted server: %s", r->error);
	snprintf(want, sizeof(want), "https://127.0.0.2:%d/ok", tls_port);
	is_str(call("GET", want, NULL)->error, "connection refused", "an allowed address nobody listens at");
	snprintf(want, sizeof(want), "https://localhost:%d/ok", tls_port);
	ok(strstr(call("GET", want, NULL)->error, "name does not match the host"), "a certificate for another name: %s", result.error);
	is_str(call("GET", HTTP("/ok"), NULL)->error, "refused", "plain http is over");
	c.nallowed_networks = 0;
	is_int(ov_http_reconfigure(http, &c, &err), OV_OK, "no network is allowed any more");
	r = call("POST", HTTPS("/ok"), "a=b");
	is_str(r->error, "address not allowed", "a connection from before is not used");
	ok(!r->sent, "not even for one request");
	ok(stat(keylog_file, &st) == 0 && st.st_size == 0, "no session keys are written");
	c.user_agent = "a\r\nb";
	is_int(ov_http_reconfigure(http, &c, &err), OV_E_CONFIG, "a user agent of two lines is refused");
	is_int(ov_http_reconfigure(http, &config, &err), OV_OK, "as in the beginning");
}

int
main(void)
{
	OvHttp	   *none;
	OvHttpConfig bad = config;
	OvError		err;
	char		proxy[64];
	Result		abandoned = {0};
	OvHttpRequest req;

	addresses();
	start_server();
	snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%d", proxy_port);
	setenv("http_proxy", proxy, 1);
	setenv("https_proxy", proxy, 1);
	setenv("HTTPS_PROXY", proxy, 1);
	setenv("ALL_PROXY", proxy, 1);
	setenv("SSLKEYLOGFILE", keylog_file, 1);
	bad.ca_file = "/nonexistent/ca.pem";
	is_int(ov_http_new(&bad, &none, &err), OV_E_CONFIG, "no engine without its CA file");
	ok(none == NULL && strstr(err.message, bad.ca_file), "and it is named: %s", err.message);
	ok(ov_http_new(&config, &http, &err) == OV_OK, "an engine");
	plain_requests();
	limits();
	failures();
	refusals();
	many();
	tls();
	is_int(seen->proxied, 0, "no proxy of the environment was asked");

	req = request_for("POST", HTTP("/hang"), "a=b");
	start_request(&abandoned, &req, NULL);
	for (int i = 0; i < 20; i++)
		ov_http_service(http);
	ov_http_free(http);
	is_int(abandoned.calls, 0, "freeing the engine abandons its transfers");
	ov_http_free(NULL);
	free(result.body);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	unlink(cert_file);
	unlink(other_file);
	unlink(keylog_file);
	return done_testing();
}
