/*
 * state_type.c
 *		The type streamext.state: what the serialization function of an aggregate returned, and whose it is.
 *
 * A value is a StateHeader, then what the serialization function
 * returned.  All of it is checked before a deserialization function sees the bytes.  The
 * signature covers what the aggregate's OID does not: the types that a polymorphic
 * aggregate was used with and the functions that wrote the bytes.  A value that came in as
 * text or by the binary protocol is marked STATE_FOREIGN, whatever its bytes say, and kept
 * only to be dumped again.
 */
#include "postgres.h"

#include "fmgr.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/regproc.h"

#include "compat.h"
#include "query/state_type.h"

/* Values of StateHeader.format; the low byte is the format's version */
#define STATE_FORMAT	0x5301
#define STATE_FOREIGN	0x53ff	/* came from outside: only `format` is ours, any bytes follow */

typedef struct StateHeader
{
	uint16		format;
	uint16		major;			/* of the server whose functions wrote it */
	Oid			aggregate;
	uint32		signature;
	uint32		length;			/* of what follows */
} StateHeader;

static struct varlena *make_foreign(const char *data, Size len);
static const char *state_image(struct varlena *state, Size *len);

PG_FUNCTION_INFO_V1(sx_state_in);
PG_FUNCTION_INFO_V1(sx_state_out);
PG_FUNCTION_INFO_V1(sx_state_recv);
PG_FUNCTION_INFO_V1(sx_state_send);

struct varlena *
sx_state_wrap(Oid aggregate, uint32 signature, Datum bytes)
{
	struct varlena *in = PG_DETOAST_DATUM_PACKED(bytes);
	Size		len = VARSIZE_ANY_EXHDR(in);
	struct varlena *out = palloc(VARHDRSZ + sizeof(StateHeader) + len);
	StateHeader header;

	header.format = STATE_FORMAT;
	header.major = SX_SERVER_MAJOR;
	header.aggregate = aggregate;
	header.signature = signature;
	header.length = (uint32) len;
	SET_VARSIZE(out, VARHDRSZ + sizeof(StateHeader) + len);
	memcpy(VARDATA(out), &header, sizeof(StateHeader));
	memcpy(VARDATA(out) + sizeof(StateHeader), VARDATA_ANY(in), len);
	if ((Pointer) in != DatumGetPointer(bytes))
		pfree(in);
	return out;
}

bytea *
sx_state_unwrap(Oid aggregate, uint32 signature, Datum state)
{
	struct varlena *in = PG_DETOAST_DATUM_PACKED(state);
	Size		len = VARSIZE_ANY_EXHDR(in);
	StateHeader header;
	bytea	   *bytes;

	memset(&header, 0, sizeof(header));
	memcpy(&header, VARDATA_ANY(in), Min(len, sizeof(header)));

	if (len >= sizeof(header.format) && header.format == STATE_FOREIGN)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("state was restored from a dump and cannot be used"),
				 errdetail("Partial states of aggregate %s are only valid in the database that wrote them.",
						   format_procedure(aggregate)),
				 errhint("Drop the continuous view and create it again.")));
	if (len < sizeof(header) || header.format != STATE_FORMAT || header.length != len - sizeof(header))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("state of aggregate %s is damaged", format_procedure(aggregate)),
				 errdetail("It has format %x and %zu bytes.", header.format, len),
				 errhint("Drop the continuous view and create it again.")));
	if (header.major != SX_SERVER_MAJOR)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("state was written by PostgreSQL %u and cannot be used by PostgreSQL %u",
						header.major, SX_SERVER_MAJOR),
				 errhint("Drop the continuous view and create it again.")));
	if (header.aggregate != aggregate || header.signature != signature)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("state does not belong to aggregate %s", format_procedure(aggregate)),
				 header.aggregate != aggregate ?
				 errdetail("It was written for the aggregate with OID %u.", header.aggregate) :
				 errdetail("It was written for other argument types or by other functions.")));

	bytes = palloc(VARHDRSZ + header.length);
	SET_VARSIZE(bytes, VARHDRSZ + header.length);
	memcpy(VARDATA(bytes), VARDATA_ANY(in) + sizeof(header), header.length);
	if ((Pointer) in != DatumGetPointer(state))
		pfree(in);
	return bytes;
}

/* what came from outside, marked so that it is never used */
static struct varlena *
make_foreign(const char *data, Size len)
{
	const uint16 format = STATE_FOREIGN;
	struct varlena *out = palloc(VARHDRSZ + sizeof(format) + len);

	SET_VARSIZE(out, VARHDRSZ + sizeof(format) + len);
	memcpy(VARDATA(out), &format, sizeof(format));
	memcpy(VARDATA(out) + sizeof(format), data, len);
	return out;
}

/* the bytes to show: a foreign value as it came in, so that a dump of a restored dump is the same */
static const char *
state_image(struct varlena *state, Size *len)
{
	const char *data = VARDATA_ANY(state);
	uint16		format;

	*len = VARSIZE_ANY_EXHDR(state);
	if (*len >= sizeof(format))
	{
		memcpy(&format, data, sizeof(format));
		if (format == STATE_FOREIGN)
		{
			*len -= sizeof(format);
			data += sizeof(format);
		}
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
