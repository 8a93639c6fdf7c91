/*
 * wal_tail.c
 *		Reads WAL and collects the addresses of rows inserted into mapped files.
 *
 * Every record is read once, from read_lsn on.  Three resource managers matter: heap and
 * heap2 say where rows were inserted and by which (sub-)transaction, xact says what
 * became of it.  Block and offset stand in the record whatever else does: full-page
 * images, compression and full_page_writes make no difference.
 *
 * A speculative insertion (ON CONFLICT) counts at its confirmation; one that lost has none.
 *
 * The reader looks only at WAL that has been written (see worker/cycle.c).  It is
 * made anew after an error, whose moment is unknown; the capture goes on at read_lsn.
 * Only an error in the middle of a record's entries (no memory) makes it unusable.
 * The file is kept open meanwhile: on a busy server every read ends within a record,
 * and the reader forgets which file it has.
 *
 * Private to one process, no locks; a crash leaves nothing.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/heapam_xlog.h"
#include "access/rmgr.h"
#include "access/timeline.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogrecovery.h"
#include "access/xlogutils.h"
#include "miscadmin.h"
#include "storage/sinval.h"
#include "utils/memutils.h"

#include "capture/position.h"
#include "capture/wal_tail.h"
#include "testing/stop_points.h"

/* a read that may stop early does so with this many ids in `finished` */
#define MAX_FINISHED	(1024 * 1024)

typedef struct SxWalTail
{
	ReadLocalXLogPageNoWaitPrivate end; /* first: the reader's private data */
	XLogReaderState *reader;	/* NULL: made at the next read */
	bool		reading;		/* still set when the last read ended in an error */
	bool		applying;		/* ... in the middle of a record */
	/* the file that was opened last */
	int			file;			/* -1: none */
	XLogSegNo	segno;
	TimeLineID	tli;
	MemoryContextCallback cleanup;
} SxWalTail;

static int	read_page(XLogReaderState *reader, XLogRecPtr page, int needed, XLogRecPtr record, char *buffer);
static void open_segment(XLogReaderState *reader, XLogSegNo segno, TimeLineID *tli);
static void leave_segment(XLogReaderState *reader);
static void close_file(void *arg);
static void open_reader(SxCapture *c);
static void apply_record(SxCapture *c, XLogReaderState *reader);
static void apply_heap(SxCapture *c, XLogReaderState *reader);
static void apply_multi_insert(SxCapture *c, XLogReaderState *reader);
static void apply_xact(SxCapture *c, XLogReaderState *reader);
static void note_finished(SxCapture *c, TransactionId top, int nsubxacts, const TransactionId *subxacts);
static void note_changed(SxCapture *c, TransactionId xid, const xl_xact_parsed_commit *parsed);
static SxFileEntry *record_file(SxCapture *c, XLogReaderState *reader, BlockNumber *block);

SxCapture *
sx_capture_create(MemoryContext parent, XLogRecPtr start)
{
	MemoryContext context;
	SxCapture  *c;

	Assert(!XLogRecPtrIsInvalid(start));
	context = AllocSetContextCreate(parent, "streamext capture", ALLOCSET_DEFAULT_SIZES);
	c = MemoryContextAllocZero(context, sizeof(SxCapture));
	c->context = context;
	c->map = sx_file_map_create(context);
	c->pending = sx_pending_create(context);
	c->read_lsn = start;
	c->tail = MemoryContextAllocZero(context, sizeof(SxWalTail));
	c->tail->file = -1;
	c->tail->cleanup.func = close_file;
	c->tail->cleanup.arg = c->tail;
	MemoryContextRegisterResetCallback(context, &c->tail->cleanup);
	return c;
}

void
sx_capture_destroy(SxCapture *c)
{
	MemoryContextDelete(c->context);
}

bool
sx_capture_read(SxCapture *c, XLogRecPtr upto, uint32 max_ready)
{
	SxWalTail  *tail = c->tail;
	MemoryContext old;
	bool		stopped = false;

	if (c->read_lsn >= upto)
		return false;
	if (tail->applying)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("reading WAL cannot go on after an error within a record")));

	/* the reader allocates its buffers, and records too long for them, when it reads */
	old = MemoryContextSwitchTo(c->context);
	if (tail->reading || tail->reader == NULL)
		open_reader(c);
	tail->reading = true;

	while (c->read_lsn < upto)
	{
		char	   *message = NULL;

		if (max_ready > 0 && (sx_pending_nready(c->pending) >= max_ready || c->nfinished >= MAX_FINISHED))
		{
			stopped = true;
			break;
		}

		CHECK_FOR_INTERRUPTS();

		tail->end.end_of_wal = false;
		if (XLogReadRecord(tail->reader, &message) == NULL)
		{
			/*
			 * A record that starts below upto, but ends above what is written: when upto is only
			 * what others have written, nobody may write its rest for long.  The next read begins
			 * with it.
			 */
			if (tail->end.end_of_wal)
			{
				XLogBeginRead(tail->reader, c->read_lsn);
				tail->reading = false;
				MemoryContextSwitchTo(old);
				return false;
			}

			/* a segment that was recycled while we had it open holds other pages now */
			if (!sx_wal_available(c->read_lsn))
				ereport(ERROR,
						(errcode(ERRCODE_UNDEFINED_FILE),
						 errmsg("WAL at %X/%X has already been removed",
								LSN_FORMAT_ARGS(c->read_lsn))));
			c->unreadable = true;
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("could not read WAL at %X/%X", LSN_FORMAT_ARGS(c->read_lsn)),
					 message != NULL ? errdetail_internal("%s", message) : 0));
		}

		SX_STOP_POINT(capture_record);
		tail->applying = true;
		apply_record(c, tail->reader);
		c->records++;
		c->read_lsn = tail->reader->EndRecPtr;
		tail->applying = false;
	}

	tail->reading = false;
	MemoryContextSwitchTo(old);
	return stopped;
}

bool
sx_capture_is_unreadable(SxCapture *c, const ErrorData *error)
{
	return c->unreadable || (c->tail->reading && error->sqlerrcode == ERRCODE_UNDEFINED_FILE);
}

/*
 * After a record that fills its page, the insert position lies behind the next page's
 * header, where nothing has been written yet and XLogFlush would not find it.
 */
XLogRecPtr
sx_wal_end(void)
{
	XLogRecPtr	end;

	if (RecoveryInProgress())
		return GetXLogReplayRecPtr(NULL);

	end = GetXLogInsertRecPtr();
	if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD)
		end -= SizeOfXLogLongPHD;
	else if (XLogSegmentOffset(end, wal_segment_size) > XLOG_BLCKSZ &&
			 end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		end -= SizeOfXLogShortPHD;
	return end;
}

XLogRecPtr
sx_wal_flush_to_end(void)
{
	XLogRecPtr	end = sx_wal_end();

	if (!RecoveryInProgress())
		XLogFlush(end);
	return end;
}

/*
 * The file is looked for where the reader will: on the timeline to which the end of the
 * segment belongs.
 */
bool
sx_wal_available(XLogRecPtr lsn)
{
	TimeLineID	tli;
	XLogRecPtr	end;
	XLogSegNo	segno;
	XLogSegNo	removed = XLogGetLastRemovedSegno();
	char		path[MAXPGPATH];
	struct stat st;

	end = RecoveryInProgress() ? GetXLogReplayRecPtr(&tli) : GetFlushRecPtr(&tli);
	if (XLogRecPtrIsInvalid(lsn))
		return false;
	if (lsn >= end)
		return true;			/* nothing to read yet */

	XLByteToSeg(lsn, segno, wal_segment_size);
	if (removed != 0 && segno <= removed)
		return false;

	if (tli > 1)
	{
		XLogRecPtr	last;
		List	   *history = readTimeLineHistory(tli);

		XLogSegNoOffsetToRecPtr(segno, wal_segment_size - 1, wal_segment_size, last);
		tli = tliOfPointInHistory(last, history);
		list_free_deep(history);
	}
	XLogFilePath(path, tli, segno, wal_segment_size);
	return stat(path, &st) == 0;
}

/* core's function reads what is flushed; what is only written is on the timeline on which the server writes */
static int
read_page(XLogReaderState *reader, XLogRecPtr page, int needed, XLogRecPtr record, char *buffer)
{
	SxWalTail  *tail = reader->private_data;
	WALReadError error;
	TimeLineID	tli;
	XLogRecPtr	end;
	int			count;

	if (RecoveryInProgress() || page + needed <= GetFlushRecPtr(&tli))
		return read_local_xlog_page_no_wait(reader, page, needed, record, buffer);
	end = GetXLogWriteRecPtr();
	if (page + needed > end)
	{
		tail->end.end_of_wal = true;
		return -1;
	}
	count = (int) Min((XLogRecPtr) XLOG_BLCKSZ, end - page);
	if (!WALRead(reader, buffer, page, count, tli, &error))
		WALReadRaiseError(&error);
	return count;
}

static void
open_segment(XLogReaderState *reader, XLogSegNo segno, TimeLineID *tli)
{
	SxWalTail  *tail = reader->private_data;

	if (tail->file < 0 || tail->segno != segno || tail->tli != *tli)
	{
		close_file(tail);
		wal_segment_open(reader, segno, tli);
		tail->file = reader->seg.ws_file;
		tail->segno = segno;
		tail->tli = *tli;
	}
	reader->seg.ws_file = tail->file;
}

static void
leave_segment(XLogReaderState *reader)
{
	reader->seg.ws_file = -1;
}

/* The descriptor belongs to no resource owner */
static void
close_file(void *arg)
{
	SxWalTail  *tail = arg;

	if (tail->file >= 0)
		close(tail->file);
	tail->file = -1;
}

/* After an error the reader's page buffer may be half written: never go on with it */
static void
open_reader(SxCapture *c)
{
	SxWalTail  *tail = c->tail;

	close_file(tail);
	if (tail->reader != NULL)
	{
		XLogReaderState *reader = tail->reader;

		tail->reader = NULL;
		XLogReaderFree(reader);
	}
	tail->reader = XLogReaderAllocate(wal_segment_size, NULL,
									  XL_ROUTINE(.page_read = &read_page,
												 .segment_open = &open_segment,
												 .segment_close = &leave_segment),
									  tail);
	if (tail->reader == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed while allocating a WAL reading processor.")));
	XLogBeginRead(tail->reader, c->read_lsn);
}

static void
apply_record(SxCapture *c, XLogReaderState *reader)
{
	uint8		info = XLogRecGetInfo(reader);

	switch (XLogRecGetRmid(reader))
	{
		case RM_HEAP_ID:
			apply_heap(c, reader);
			break;
		case RM_HEAP2_ID:
			if ((info & XLOG_HEAP_OPMASK) == XLOG_HEAP2_MULTI_INSERT)
				apply_multi_insert(c, reader);
			break;
		case RM_XACT_ID:
			apply_xact(c, reader);
			break;
		default:
			break;
	}
}

static void
apply_heap(SxCapture *c, XLogReaderState *reader)
{
	OffsetNumber off;
	BlockNumber block;
	SxFileEntry *entry;

	switch (XLogRecGetInfo(reader) & XLOG_HEAP_OPMASK)
	{
		case XLOG_HEAP_INSERT:
			{
				xl_heap_insert *rec = (xl_heap_insert *) XLogRecGetData(reader);

				if (rec->flags & XLH_INSERT_IS_SPECULATIVE)
					return;
				off = rec->offnum;
			}
			break;
		case XLOG_HEAP_CONFIRM:
			off = ((xl_heap_confirm *) XLogRecGetData(reader))->offnum;
			break;
		case XLOG_HEAP_DELETE:
			if ((((xl_heap_delete *) XLogRecGetData(reader))->flags & XLH_DELETE_IS_PARTITION_MOVE) &&
				record_file(c, reader, &block) != NULL)
				c->partition_moves++;
			return;
		default:
			return;
	}

	entry = record_file(c, reader, &block);
	if (entry == NULL)
		return;
	sx_pending_add(c->pending, XLogRecGetXid(reader), reader->ReadRecPtr, entry->index,
				   block, off, 1);
	c->rows++;
}

static void
apply_multi_insert(SxCapture *c, XLogReaderState *reader)
{
	xl_heap_multi_insert *rec = (xl_heap_multi_insert *) XLogRecGetData(reader);
	TransactionId xid = XLogRecGetXid(reader);
	BlockNumber block;
	SxFileEntry *entry = record_file(c, reader, &block);

	if (entry == NULL || rec->ntuples == 0)
		return;
	c->rows += rec->ntuples;

	/* a page that was empty before needs no list of offsets */
	if (XLogRecGetInfo(reader) & XLOG_HEAP_INIT_PAGE)
	{
		sx_pending_add(c->pending, xid, reader->ReadRecPtr, entry->index, block,
					   FirstOffsetNumber, rec->ntuples);
		return;
	}
	for (int i = 0; i < rec->ntuples;)
	{
		int			n = 1;

		while (i + n < rec->ntuples && rec->offsets[i + n] == rec->offsets[i] + n)
			n++;
		sx_pending_add(c->pending, xid, reader->ReadRecPtr, entry->index, block,
					   rec->offsets[i], n);
		i += n;
	}
}

/* The end of a prepared transaction is logged by whoever ends it: its own id is inside */
static void
apply_xact(SxCapture *c, XLogReaderState *reader)
{
	uint8		op = XLogRecGetInfo(reader) & XLOG_XACT_OPMASK;

	if (op == XLOG_XACT_COMMIT || op == XLOG_XACT_COMMIT_PREPARED)
	{
		xl_xact_parsed_commit parsed;
		TransactionId xid;

		ParseCommitRecord(XLogRecGetInfo(reader), (xl_xact_commit *) XLogRecGetData(reader), &parsed);
		xid = op == XLOG_XACT_COMMIT ? XLogRecGetXid(reader) : parsed.twophase_xid;
		sx_pending_commit(c->pending, xid, parsed.nsubxacts, parsed.subxacts, reader->ReadRecPtr,
						  parsed.xact_time);
		note_finished(c, xid, parsed.nsubxacts, parsed.subxacts);
		if (parsed.nmsgs > 0)
			note_changed(c, xid, &parsed);
	}
	else if (op == XLOG_XACT_ABORT || op == XLOG_XACT_ABORT_PREPARED)
	{
		xl_xact_parsed_abort parsed;

		ParseAbortRecord(XLogRecGetInfo(reader), (xl_xact_abort *) XLogRecGetData(reader), &parsed);
		sx_pending_abort(c->pending,
						 op == XLOG_XACT_ABORT ? XLogRecGetXid(reader) : parsed.twophase_xid,
						 parsed.nsubxacts, parsed.subxacts);
		note_finished(c, op == XLOG_XACT_ABORT ? XLogRecGetXid(reader) : parsed.twophase_xid,
					  parsed.nsubxacts, parsed.subxacts);
	}
}

/* of every transaction, with rows of ours or not: a position that WAL leads to lists those that run */
static void
note_finished(SxCapture *c, TransactionId top, int nsubxacts, const TransactionId *subxacts)
{
	if (c->near_xid == 0)
		return;
	if (c->nfinished + nsubxacts >= c->maxfinished)
	{
		int			size = Max(c->maxfinished * 2, c->nfinished + nsubxacts + 64);

		c->finished = c->finished ? repalloc_huge(c->finished, sizeof(uint64) * size) :
			MemoryContextAllocHuge(c->context, sizeof(uint64) * size);
		c->maxfinished = size;
	}
	c->finished[c->nfinished++] = sx_widen_xid_near(c->near_xid, top);
	for (int i = 0; i < nsubxacts; i++)
		c->finished[c->nfinished++] = sx_widen_xid_near(c->near_xid, subxacts[i]);
}

/*
 * A transaction leaves the list of running ones before it sends its invalidations: a snapshot
 * may see it while our map does not know yet what it did to a stream's files.  Its commit
 * record knows.
 */
static void
note_changed(SxCapture *c, TransactionId xid, const xl_xact_parsed_commit *parsed)
{
	if (parsed->dbId != MyDatabaseId)
		return;
	for (int i = 0; i < parsed->nmsgs; i++)
	{
		const SharedInvalidationMessage *msg = &parsed->msgs[i];

		if (msg->id == SHAREDINVALRELCACHE_ID && msg->rc.dbId == MyDatabaseId &&
			OidIsValid(msg->rc.relId) && sx_file_map_concerns(c->map, msg->rc.relId))
		{
			MemoryContext old = MemoryContextSwitchTo(c->context);

			c->changed = list_append_unique_oid(c->changed, xid);
			MemoryContextSwitchTo(old);
		}
	}
}

/* The mapped file that the record's heap page belongs to, or NULL */
static SxFileEntry *
record_file(SxCapture *c, XLogReaderState *reader, BlockNumber *block)
{
	SxFile		file;
	ForkNumber	fork;

	XLogRecGetBlockTag(reader, 0, &file, &fork, block);
	if (fork != MAIN_FORKNUM)
		return NULL;
	return sx_file_map_lookup(c->map, file);
}
