/*
 * resolve.c: for tests alone, preloaded into a server (LD_PRELOAD) so that it
 * finds every provider at its real name on this machine.
 *
 * getaddrinfo() answers 127.0.0.1 for each name that is not an address or
 * localhost, and connect() to port 443 of a loopback address goes to SIM_PORT.
 * Nothing of the extension changes: TLS is verified for the real name, and its
 * address policy sees a loopback address, which the vault file has to allow.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*getaddrinfo_fn) (const char *, const char *, const struct addrinfo *, struct addrinfo **);
typedef int (*connect_fn) (int, const struct sockaddr *, socklen_t);

static int
is_ours(const char *node)
{
	unsigned char address[sizeof(struct in6_addr)];

	return node != NULL && strcmp(node, "localhost") != 0 && strchr(node, '.') != NULL
		&& inet_pton(AF_INET, node, address) != 1 && inet_pton(AF_INET6, node, address) != 1;
}

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res)
{
	getaddrinfo_fn real = (getaddrinfo_fn) dlsym(RTLD_NEXT, "getaddrinfo");

	return real(is_ours(node) ? "127.0.0.1" : node, service, hints, res);
}

int
connect(int fd, const struct sockaddr *address, socklen_t length)
{
	connect_fn	real = (connect_fn) dlsym(RTLD_NEXT, "connect");
	const char *port = getenv("SIM_PORT");
	struct sockaddr_in in;

	if (port != NULL && address != NULL && address->sa_family == AF_INET && length >= sizeof(in))
	{
		memcpy(&in, address, sizeof(in));
		if (in.sin_port == htons(443) && (ntohl(in.sin_addr.s_addr) >> 24) == 127)
		{
			in.sin_port = htons((unsigned short) atoi(port));
			return real(fd, (const struct sockaddr *) &in, sizeof(in));
		}
	}
	return real(fd, address, length);
}
