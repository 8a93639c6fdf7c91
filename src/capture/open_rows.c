/*
 * open_rows.c
 *		Addresses of open transactions, stored with the positions of views.
 *
 * The rows of a transaction that stays open lie behind its first record: without more, an idle
 * session that has inserted one row would hold all WAL written since.  So when that has
 * become much, the addresses collected so far are written down: once for every 64 MB of WAL at
 * most, all that is pending, up to one LSN.  Each view stores those of its stream in the
 * transaction that stores its position; its start LSN then lies behind them.  Whoever
 * begins at a stored position loads them before he reads WAL, and passes over records of these
 * transactions below that LSN.
 *
 * Of what happens to the transactions later nothing needs to be written: a commit record lies
 * behind the start LSN until the position contains the transaction, and one that was rolled
 * back, or crashed, has none, so that it is dropped when all snapshots have passed it.
 *
 * Rows are named by the leaf's OID and file number, as in the position.  A file that is no
 * longer the leaf's has been replaced after the transaction ended, and the scan of its
 * successor finds the rows; or by the transaction itself, and the rows do not count.
 *
 * The form, native byte order, as it never leaves the cluster:
 *	 uint8		version
 *	 uint64		LSN up to which WAL was read
 *	 uint32		number of files, then for each: Oid leaf, uint32 file number
 *	 PackedRun	..., to the end
 */
#include "postgres.h"

#include "access/xlogdefs.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

#include "capture/open_rows.h"
#include "testing/stop_points.h"

#define OPEN_ROWS_VERSION	1
/* WAL that an open transaction may hold before its addresses are stored, and between two times */
#define STORE_BYTES			(UINT64CONST(64) * 1024 * 1024)
/* it must be this many times what is stored */
#define STORE_FACTOR		8

typedef struct PackedRun
{
	TransactionId xid;
	uint32		file;			/* index in the list of files */
	BlockNumber block;
	OffsetNumber first;
	uint16		count;
} PackedRun;

typedef struct Packing
{
	StringInfoData runs;
	SxFileMap  *map;
	Oid			stream;
	uint32		nfiles;
	uint32	   *index;			/* by file number in the map: index in the list, PG_UINT32_MAX: none */
	uint32	   *files;			/* the other way */
} Packing;

static void pack_run(void *arg, const SxRun *run);
static bool take(const char **data, const char *end, void *into, Size size);
pg_noreturn static void damaged(void);

bytea *
sx_open_rows_pack(SxCapture *c, Oid stream)
{
	Packing		p;
	StringInfoData buf;
	XLogRecPtr	upto = sx_pending_stored_upto(c->pending);
	uint32		nfiles = sx_file_map_count(c->map);

	if (sx_pending_stored_version(c->pending) == 0)
		return NULL;
	p.map = c->map;
	p.stream = stream;
	p.nfiles = 0;
	p.index = palloc(sizeof(uint32) * (nfiles + 1));
	p.files = palloc(sizeof(uint32) * (nfiles + 1));
	for (uint32 i = 0; i < nfiles; i++)
		p.index[i] = PG_UINT32_MAX;
	initStringInfo(&p.runs);
	sx_pending_stored(c->pending, pack_run, &p);
	if (p.nfiles == 0)
		return NULL;

	initStringInfo(&buf);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	appendStringInfoChar(&buf, OPEN_ROWS_VERSION);
	appendBinaryStringInfo(&buf, (char *) &upto, sizeof(upto));
	appendBinaryStringInfo(&buf, (char *) &p.nfiles, sizeof(p.nfiles));
	for (uint32 i = 0; i < p.nfiles; i++)
	{
		SxFileEntry *e = sx_file_map_entry(c->map, p.files[i]);
		uint32		number = SxFileNumber(e->file);

		appendBinaryStringInfo(&buf, (char *) &e->leaf, sizeof(Oid));
		appendBinaryStringInfo(&buf, (char *) &number, sizeof(number));
	}
	appendBinaryStringInfo(&buf, p.runs.data, p.runs.len);
	pfree(p.runs.data);
	pfree(p.index);
	pfree(p.files);
	SET_VARSIZE(buf.data, buf.len);
	SX_STOP_POINT(open_rows_packed);
	return (bytea *) buf.data;
}

static void
pack_run(void *arg, const SxRun *run)
{
	Packing    *p = arg;
	uint32		file = SxRunFile(run);
	SxFileEntry *e = sx_file_map_entry(p->map, file);
	PackedRun	packed;

	if (e->dead || !list_member_oid(e->streams, p->stream))
		return;
	if (p->index[file] == PG_UINT32_MAX)
	{
		p->index[file] = p->nfiles;
		p->files[p->nfiles++] = file;
	}
	packed.xid = run->xid;
	packed.file = p->index[file];
	packed.block = run->block;
	packed.first = run->first;
	packed.count = run->count;
	appendBinaryStringInfo(&p->runs, (char *) &packed, sizeof(packed));
}

void
sx_open_rows_load(SxCapture *c, const bytea *packed)
{
	const char *data;
	const char *end;
	uint8		version;
	XLogRecPtr	upto;
	uint32		nfiles;
	uint32	   *files;

	if (packed == NULL)
		return;
	data = VARDATA_ANY(packed);
	end = data + VARSIZE_ANY_EXHDR(packed);
	if (!take(&data, end, &version, sizeof(version)) || version != OPEN_ROWS_VERSION ||
		!take(&data, end, &upto, sizeof(upto)) || !take(&data, end, &nfiles, sizeof(nfiles)) ||
		nfiles > (Size) (end - data) / (2 * sizeof(uint32)))
		damaged();

	files = palloc(sizeof(uint32) * (nfiles + 1));
	for (uint32 i = 0; i < nfiles; i++)
	{
		Oid			leaf;
		uint32		number;

		if (!take(&data, end, &leaf, sizeof(leaf)) || !take(&data, end, &number, sizeof(number)))
			damaged();
		files[i] = PG_UINT32_MAX;
		for (uint32 j = 0; j < sx_file_map_count(c->map); j++)
		{
			SxFileEntry *e = sx_file_map_entry(c->map, j);

			if (!e->dead && e->leaf == leaf && SxFileNumber(e->file) == number)
				files[i] = j;
		}
	}
	while (data < end)
	{
		PackedRun	packed_run;
		SxRun		run;

		if (!take(&data, end, &packed_run, sizeof(packed_run)) || packed_run.file >= nfiles ||
			!TransactionIdIsNormal(packed_run.xid) || packed_run.count == 0)
			damaged();
		if (files[packed_run.file] == PG_UINT32_MAX)
			continue;
		run.file = files[packed_run.file];
		run.block = packed_run.block;
		run.xid = packed_run.xid;
		run.first = packed_run.first;
		run.count = packed_run.count;
		sx_pending_load(c->pending, &run);
	}
	sx_pending_loaded(c->pending, upto);
	pfree(files);
	SX_STOP_POINT(open_rows_loaded);
}

static bool
take(const char **data, const char *end, void *into, Size size)
{
	if ((Size) (end - *data) < size)
		return false;
	memcpy(into, *data, size);
	*data += size;
	return true;
}

static void
damaged(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("stored addresses of open transactions have an unknown form"),
			 errhint("Drop and create the continuous view.")));
}

void
sx_open_rows_relieve(SxCapture *c, Size max_bytes)
{
	XLogRecPtr	first = sx_pending_first_lsn(c->pending);
	uint64		lag;

	if (first == InvalidXLogRecPtr || first + STORE_BYTES > c->read_lsn ||
		c->store_tried + STORE_BYTES > c->read_lsn)
		return;
	lag = c->read_lsn - first;
	c->store_tried = c->read_lsn;
	(void) sx_pending_store(c->pending, c->read_lsn,
							Min(max_bytes, lag / STORE_FACTOR) / sizeof(PackedRun));
}
