/*
 * address.c
 *	  Address policy: which socket addresses the network worker may connect to.
 *
 * The judge sees the address that a connection is about to be made to, after
 * resolution, so spellings of a host do not matter here.  Default is the public
 * internet: what the IANA special-purpose registries (RFC 6890) call not
 * globally reachable is refused, and in IPv6 everything outside 2000::/3.  An
 * IPv4 address inside an IPv6 one is judged by the same rule.  Networks that the
 * administrator allows are looked at first; one that cannot be read allows
 * nothing.
 *
 * Pure functions: no state, no allocation.
 */
#include "core/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef struct Net4
{
	uint32_t	net;
	int			bits;
} Net4;

typedef struct Net6
{
	unsigned char net[16];
	int			bits;
} Net6;

#define V4(a, b, c, d) (((uint32_t) (a) << 24) | ((uint32_t) (b) << 16) | ((uint32_t) (c) << 8) | (uint32_t) (d))

static const Net4 refused4[] = {
	{V4(0, 0, 0, 0), 8},		/* this network, unspecified */
	{V4(10, 0, 0, 0), 8},		/* private, RFC 1918 */
	{V4(100, 64, 0, 0), 10},	/* carrier-grade NAT, RFC 6598; one cloud's metadata */
	{V4(127, 0, 0, 0), 8},		/* loopback */
	{V4(168, 63, 129, 16), 32}, /* a cloud's host agent, though in public space */
	{V4(169, 254, 0, 0), 16},	/* link-local, RFC 3927; metadata */
	{V4(172, 16, 0, 0), 12},	/* private, RFC 1918 */
	{V4(192, 0, 0, 0), 24},		/* protocol assignments; one cloud's metadata */
	{V4(192, 0, 2, 0), 24},		/* documentation, RFC 5737 */
	{V4(192, 88, 99, 0), 24},	/* 6to4 relay anycast, RFC 7526 */
	{V4(192, 168, 0, 0), 16},	/* private, RFC 1918 */
	{V4(198, 18, 0, 0), 15},	/* benchmarks, RFC 2544 */
	{V4(198, 51, 100, 0), 24},	/* documentation, RFC 5737 */
	{V4(203, 0, 113, 0), 24},	/* documentation, RFC 5737 */
	{V4(224, 0, 0, 0), 4},		/* multicast */
	{V4(240, 0, 0, 0), 4},		/* reserved, broadcast */
};

/* Inside 2000::/3; the rest needs no list. */
static const Net6 refused6[] = {
	{{0x20, 0x01, 0x00}, 23},	/* protocol assignments; Teredo is judged before */
	{{0x20, 0x01, 0x0d, 0xb8}, 32}, /* documentation, RFC 3849 */
	{{0x3f, 0xff, 0x00}, 20},	/* documentation, RFC 9637 */
};

static const Net6 global_unicast = {{0x20}, 3};
static const Net6 mapped = {{[10] = 0xff, [11] = 0xff}, 96};	/* RFC 4291 section 2.5.5.2 */
static const Net6 compatible = {{0}, 96};	/* RFC 4291 section 2.5.5.1 */
static const Net6 nat64 = {{0x00, 0x64, 0xff, 0x9b}, 96};	/* RFC 6052 section 2.1 */
static const Net6 six_to_four = {{0x20, 0x02}, 16}; /* RFC 3056 section 2 */
static const Net6 teredo = {{0x20, 0x01, 0x00, 0x00}, 32};	/* RFC 4380 section 4 */

/* Do the first bits agree? */
static bool
same_prefix(const unsigned char *a, const unsigned char *b, int bits)
{
	int			bytes = bits / 8;
	int			rest = bits % 8;

	if (memcmp(a, b, (size_t) bytes) != 0)
		return false;
	return rest == 0 || ((a[bytes] ^ b[bytes]) >> (8 - rest)) == 0;
}

static bool
within6(const unsigned char *addr, const Net6 *net)
{
	return same_prefix(addr, net->net, net->bits);
}

static bool
public4(const unsigned char *addr)
{
	uint32_t	a = V4(addr[0], addr[1], addr[2], addr[3]);

	for (size_t i = 0; i < sizeof(refused4) / sizeof(refused4[0]); i++)
		if ((a ^ refused4[i].net) >> (32 - refused4[i].bits) == 0)
			return false;
	return true;
}

static bool
public6(const unsigned char *addr)
{
	static const unsigned char none[16] = {0};

	if (memcmp(addr, none, 15) == 0 && addr[15] <= 1)	/* :: and ::1 */
		return false;
	if (within6(addr, &mapped) || within6(addr, &compatible) || within6(addr, &nat64))
		return public4(addr + 12);
	if (within6(addr, &six_to_four))
		return public4(addr + 2);
	if (within6(addr, &teredo))
	{
		/* the server as it is, the client with its bits flipped */
		unsigned char client[4];

		for (int i = 0; i < 4; i++)
			client[i] = addr[12 + i] ^ 0xff;
		return public4(addr + 4) && public4(client);
	}
	if (!within6(addr, &global_unicast))
		return false;
	for (size_t i = 0; i < sizeof(refused6) / sizeof(refused6[0]); i++)
		if (within6(addr, &refused6[i]))
			return false;
	return true;
}

/* Reads "address" or "address/bits"; host bits may be set and do not count. */
static bool
read_network(const char *text, int *family, unsigned char net[16], int *bits)
{
	char		address[INET6_ADDRSTRLEN];
	size_t		len = strcspn(text, "/");
	int			max;

	if (len >= sizeof(address))
		return false;
	memcpy(address, text, len);
	address[len] = '\0';
	if (inet_pton(AF_INET, address, net) == 1)
	{
		*family = AF_INET;
		max = 32;
	}
	else if (inet_pton(AF_INET6, address, net) == 1)
	{
		*family = AF_INET6;
		max = 128;
	}
	else
		return false;
	*bits = max;
	if (text[len] == '/')
	{
		const char *d = text + len + 1;

		if (*d == '\0' || strlen(d) > 3)
			return false;
		*bits = 0;
		for (; *d != '\0'; d++)
		{
			if (*d < '0' || *d > '9')
				return false;
			*bits = *bits * 10 + (*d - '0');
		}
	}
	return *bits <= max;
}

/* An IPv4 network also holds the v4-mapped spelling of its addresses. */
static bool
in_network(const char *text, int family, const unsigned char *addr)
{
	unsigned char net[16];
	int			net_family;
	int			bits;

	if (text == NULL || !read_network(text, &net_family, net, &bits))
		return false;
	if (family == AF_INET6 && net_family == AF_INET && within6(addr, &mapped))
		return same_prefix(addr + 12, net, bits);
	return family == net_family && same_prefix(addr, net, bits);
}

bool
ov_address_allowed(const struct sockaddr *sa, const char *const *allowed_networks, int nallowed)
{
	unsigned char addr[16];
	int			family;

	if (sa == NULL)
		return false;
	family = sa->sa_family;
	if (family == AF_INET)
		memcpy(addr, &((const struct sockaddr_in *) sa)->sin_addr, 4);
	else if (family == AF_INET6)
		memcpy(addr, &((const struct sockaddr_in6 *) sa)->sin6_addr, 16);
	else
		return false;
	for (int i = 0; i < nallowed; i++)
		if (in_network(allowed_networks[i], family, addr))
			return true;
	return family == AF_INET ? public4(addr) : public6(addr);
}
