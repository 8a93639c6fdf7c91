/*
 * state_type.c
 *		The type streamext.state: what the serialization function of an aggregate returned, or the elements of an array
 *		that is its state, and whose it is.
 *
 * A value is
 *
 *	 1 byte		the major version of the server whose functions wrote it; with STATE_PACKED, what follows is packed
 *	 2 bytes	the aggregate's OID; 0: 4 bytes with the OID and 4 with the signature follow
 *	 4 bytes	of what is not packed, its length
 *	 the bytes	packed, or as they are
 *
 * as there is one in each row for each aggregate, and most states are small numbers in wide fields.  Packed are eight bytes
 * at a time: one whose bits say which of them are not zero, and these.  The highest bit in the last such byte stands for the
 * end.  States that are longer are kept as they are.
 *
 * All of it is checked before a deserialization function sees the bytes.  The
 * signature covers what the aggregate's OID does not: the types that a polymorphic
 * aggregate was used with and the functions that wrote the bytes; it is 0 where the OID says that.  A value that came in as
 * text or by the binary protocol is marked STATE_FOREIGN, whatever its bytes say, and kept
 * only to be dumped again.
 */
#include "postgres.h"

#include "fmgr.h"
#include "libpq/pqformat.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/regproc.h"

#include "compat.h"
#include "query/state_type.h"

/* Values of the first byte, or flags there beside the major version */
#define STATE_PACKED	0x80
#define STATE_FOREIGN	0xff	/* came from outside: only this byte is ours, any bytes follow */
#define STATE_MAJOR		0x3f

/* the longest bytes that are packed, and what they become at most: with a byte for each eight of them, and one for the end */
#define PACK_MAX		128
#define PACKED_MAX		(PACK_MAX + PACK_MAX / 8 + 1)

typedef struct StateHeader
{
	uint8		format;
	Oid			aggregate;
	uint32		signature;
	uint32		length;			/* of what follows, if it is not packed */
} StateHeader;

#define HEADER_MAX		(1 + sizeof(uint16) + sizeof(Oid) + 2 * sizeof(uint32))

static Size put_header(char *to, const StateHeader *header);
static Size get_header(const char *from, Size len, StateHeader *header);
static Size pack(char *to, const char *from, Size len);
static inline char *pack_some(char *to, const char *from, int n, uint8 bits);
static bool unpack(char *to, Size *len, const char *from, Size packed);
pg_noreturn static void report_damaged(Oid aggregate, int format, Size len);
static struct varlena *make_foreign(const char *data, Size len);
static const char *state_image(struct varlena *state, Size *len);

StaticAssertDecl(SX_SERVER_MAJOR <= STATE_MAJOR, "the major version has a place in the first byte of a state");

PG_FUNCTION_INFO_V1(sx_state_in);
PG_FUNCTION_INFO_V1(sx_state_out);
PG_FUNCTION_INFO_V1(sx_state_recv);
PG_FUNCTION_INFO_V1(sx_state_send);

struct varlena *
sx_state_wrap(Oid aggregate, uint32 signature, const char *bytes, Size len)
{
	bool		packed = len <= PACK_MAX;
	struct varlena *out = palloc(VARHDRSZ + HEADER_MAX + (packed ? PACKED_MAX : len));
	StateHeader header = {SX_SERVER_MAJOR | (packed ? STATE_PACKED : 0), aggregate, signature, (uint32) len};
	Size		size = VARHDRSZ;

	size += put_header((char *) out + size, &header);
	if (packed)
		size += pack((char *) out + size, bytes, len);
	else
	{
		memcpy((char *) out + size, bytes, len);
		size += len;
	}
	SET_VARSIZE(out, size);
	return out;
}

char *
sx_state_unwrap(Oid aggregate, uint32 signature, Datum state, Size before, Size *len)
{
	struct varlena *in = PG_DETOAST_DATUM_PACKED(state);
	const char *data = VARDATA_ANY(in);
	Size		size = VARSIZE_ANY_EXHDR(in);
	StateHeader header = {0};
	Size		at;
	char	   *bytes;

	if (size > 0 && (uint8) data[0] == STATE_FOREIGN)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("state was restored from a dump and cannot be used"),
				 errdetail("Partial states of aggregate %s are only valid in the database that wrote them.",
						   format_procedure(aggregate)),
				 errhint("Drop the continuous view and create it again.")));
	at = get_header(data, size, &header);
	if (at == 0)
		report_damaged(aggregate, header.format, size);
	if ((header.format & STATE_MAJOR) != SX_SERVER_MAJOR)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("state was written by PostgreSQL %d and cannot be used by PostgreSQL %d",
						header.format & STATE_MAJOR, SX_SERVER_MAJOR),
				 errhint("Drop the continuous view and create it again.")));
	if (header.aggregate != aggregate || header.signature != signature)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("state does not belong to aggregate %s", format_procedure(aggregate)),
				 header.aggregate != aggregate ?
				 errdetail("It was written for the aggregate with OID %u.", header.aggregate) :
				 errdetail("It was written for other argument types or by other functions.")));

	if (header.format & STATE_PACKED)
	{
		bytes = palloc(before + PACK_MAX + 8);
		if (!unpack(bytes + before, len, data + at, size - at))
			report_damaged(aggregate, header.format, size);
	}
	else
	{
		*len = header.length;
		bytes = palloc(before + header.length);
		memcpy(bytes + before, data + at, header.length);
	}
	if ((Pointer) in != DatumGetPointer(state))
		pfree(in);
	return bytes;
}

static void
report_damaged(Oid aggregate, int format, Size len)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("state of aggregate %s is damaged", format_procedure(aggregate)),
			 errdetail("It has format %x and %zu bytes.", format, len),
			 errhint("Drop the continuous view and create it again.")));
}

/* an OID without signature is one of the server's own, most of which have two bytes */
static Size
put_header(char *to, const StateHeader *header)
{
	uint16		brief = header->signature == 0 && header->aggregate <= PG_UINT16_MAX ? header->aggregate : 0;
	Size		size = 0;

	to[size++] = header->format;
	memcpy(to + size, &brief, sizeof(brief));
	size += sizeof(brief);
	if (brief == 0)
	{
		memcpy(to + size, &header->aggregate, sizeof(Oid));
		memcpy(to + size + sizeof(Oid), &header->signature, sizeof(uint32));
		size += sizeof(Oid) + sizeof(uint32);
	}
	if ((header->format & STATE_PACKED) == 0)
	{
		memcpy(to + size, &header->length, sizeof(uint32));
		size += sizeof(uint32);
	}
	return size;
}

/* its length; 0: damaged */
static Size
get_header(const char *from, Size len, StateHeader *header)
{
	uint16		brief;
	Size		size = 1 + sizeof(brief);

	if (len > 0)
		header->format = from[0];
	if (len < size)
		return 0;
	memcpy(&brief, from + 1, sizeof(brief));
	header->aggregate = brief;
	if (brief == 0)
	{
		if (len < size + sizeof(Oid) + sizeof(uint32))
			return 0;
		memcpy(&header->aggregate, from + size, sizeof(Oid));
		memcpy(&header->signature, from + size + sizeof(Oid), sizeof(uint32));
		size += sizeof(Oid) + sizeof(uint32);
	}
	if ((header->format & STATE_PACKED) == 0)
	{
		if (len < size + sizeof(uint32))
			return 0;
		memcpy(&header->length, from + size, sizeof(uint32));
		size += sizeof(uint32);
		if (header->length != len - size)
			return 0;
	}
	return size;
}

static Size
pack(char *to, const char *from, Size len)
{
	char	   *out = to;
	Size		at;

	for (at = 0; at + 8 <= len; at += 8)
	{
		uint64		word;

		memcpy(&word, from + at, sizeof(word));
		if (word == 0)
			*out++ = 0;
		else
			out = pack_some(out, from + at, 8, 0);
	}
	return pack_some(out, from + at, len - at, 1 << (len - at)) - to;
}

/* at most eight; returns the end */
static inline char *
pack_some(char *to, const char *from, int n, uint8 bits)
{
	char	   *out = to + 1;

	for (int i = 0; i < n; i++)
	{
		*out = from[i];
		out += from[i] != 0;
		bits |= (from[i] != 0) << i;
	}
	*to = bits;
	return out;
}

/* to: room for PACK_MAX bytes and those of the last eight that are past them; false: damaged */
static bool
unpack(char *to, Size *len, const char *from, Size packed)
{
	const char *end = from + packed;

	for (Size at = 0; from < end && at <= PACK_MAX; at += 8)
	{
		uint32		bits = (uint8) *from++;
		int			n = pg_number_of_ones[bits];
		bool		last = end - from < n;

		memset(to + at, 0, 8);
		if (last)
		{
			int			past = pg_leftmost_one_pos32(bits);

			if (end - from != n - 1)
				return false;
			*len = at + past;
			bits -= 1 << past;
		}
		for (; bits != 0; bits &= bits - 1)
			to[at + pg_rightmost_one_pos32(bits)] = *from++;
		if (last)
			return true;
	}
	return false;
}

/* what came from outside, marked so that it is never used */
static struct varlena *
make_foreign(const char *data, Size len)
{
	struct varlena *out = palloc(VARHDRSZ + 1 + len);

	SET_VARSIZE(out, VARHDRSZ + 1 + len);
	*(uint8 *) VARDATA(out) = STATE_FOREIGN;
	memcpy(VARDATA(out) + 1, data, len);
	return out;
}

/* the bytes to show: a foreign value as it came in, so that a dump of a restored dump is the same */
static const char *
state_image(struct varlena *state, Size *len)
{
	const char *data = VARDATA_ANY(state);

	*len = VARSIZE_ANY_EXHDR(state);
	if (*len > 0 && (uint8) data[0] == STATE_FOREIGN)
	{
		(*len)--;
		data++;
	}
	return data;
}

Datum
sx_state_in(PG_FUNCTION_ARGS)
{
	struct varlena *bytes = (struct varlena *) DatumGetPointer(DirectFunctionCall1(byteain, PG_GETARG_DATUM(0)));

	PG_RETURN_POINTER(make_foreign(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)));
}

/* always hexadecimal, whatever bytea_output says */
Datum
sx_state_out(PG_FUNCTION_ARGS)
{
	struct varlena *state = PG_GETARG_VARLENA_PP(0);
	Size		len;
	const char *image = state_image(state, &len);
	char	   *result;

	/* hex_encode doubles the length */
	if (len > (MaxAllocSize - 3) / 2)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("state of %zu bytes is too long to be shown", len)));
	result = palloc(len * 2 + 3);
	result[0] = '\\';
	result[1] = 'x';
	result[2 + hex_encode(image, len, result + 2)] = '\0';
	PG_RETURN_CSTRING(result);
}

Datum
sx_state_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			len = buf->len - buf->cursor;

	PG_RETURN_POINTER(make_foreign(pq_getmsgbytes(buf, len), len));
}

Datum
sx_state_send(PG_FUNCTION_ARGS)
{
	struct varlena *state = PG_GETARG_VARLENA_PP(0);
	Size		len;
	const char *image = state_image(state, &len);
	StringInfoData buf;

	pq_begintypsend(&buf);
	pq_sendbytes(&buf, image, len);
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}
