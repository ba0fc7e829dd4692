/*
 * message.c
 *	  Tagged fields in a flat buffer; see message.h.
 *
 * A put that does not fit sets overflow and writes nothing; readers check every
 * length against what is left, so a torn buffer yields "absent", never a read
 * past the end.  No PostgreSQL headers, no allocation.
 */
#include "worker/message.h"

#include <string.h>

#define FIELD_HEADER (1 + sizeof(uint32_t))

void
ov_msg_init(OvMsg *m, void *buf, size_t cap)
{
	m->data = buf;
	m->len = 0;
	m->cap = cap;
	m->overflow = false;
}

void
ov_msg_read(OvMsg *m, const void *buf, size_t len)
{
	m->data = (unsigned char *) buf;
	m->len = len;
	m->cap = 0;
	m->overflow = false;
}

void
ov_msg_put(OvMsg *m, OvTag tag, const void *data, size_t len)
{
	uint32_t	n = (uint32_t) len;

	if (m->overflow || len > OV_MESSAGE_MAX || m->cap - m->len < FIELD_HEADER + len)
	{
		m->overflow = true;
		return;
	}
	m->data[m->len] = (unsigned char) tag;
	memcpy(m->data + m->len + 1, &n, sizeof(n));
	if (len > 0)
		memcpy(m->data + m->len + FIELD_HEADER, data, len);
	m->len += FIELD_HEADER + len;
}

void
ov_msg_put_str(OvMsg *m, OvTag tag, const char *s)
{
	if (s != NULL)
		ov_msg_put(m, tag, s, strlen(s));
}

void
ov_msg_put_i64(OvMsg *m, OvTag tag, int64_t v)
{
	ov_msg_put(m, tag, &v, sizeof(v));
}

bool
ov_msg_next(const OvMsg *m, size_t *at, OvTag tag, const void **data, size_t *len)
{
	while (m->len - *at >= FIELD_HEADER)
	{
		size_t		here = *at;
		uint32_t	size;

		memcpy(&size, m->data + here + 1, sizeof(size));
		if (size > m->len - here - FIELD_HEADER)
			return false;
		*at = here + FIELD_HEADER + size;
		if (m->data[here] == (unsigned char) tag)
		{
			*data = m->data + here + FIELD_HEADER;
			*len = size;
			return true;
		}
	}
	return false;
}

bool
ov_msg_get_nth(const OvMsg *m, OvTag tag, int n, const void **data, size_t *len)
{
	size_t		at = 0;

	while (ov_msg_next(m, &at, tag, data, len))
		if (n-- == 0)
			return true;
	return false;
}

bool
ov_msg_get(const OvMsg *m, OvTag tag, const void **data, size_t *len)
{
	return ov_msg_get_nth(m, tag, 0, data, len);
}

int64_t
ov_msg_get_i64(const OvMsg *m, OvTag tag, int64_t missing)
{
	const void *data;
	size_t		len;
	int64_t		v;

	if (!ov_msg_get(m, tag, &data, &len) || len != sizeof(v))
		return missing;
	memcpy(&v, data, sizeof(v));
	return v;
}

bool
ov_msg_has(const OvMsg *m, OvTag tag)
{
	const void *data;
	size_t		len;

	return ov_msg_get(m, tag, &data, &len);
}
