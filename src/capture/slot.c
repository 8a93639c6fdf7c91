/*
 * slot.c
 *		The physical replication slot that holds WAL and the transaction horizon.
 *
 * Physical, although nobody streams from it: its xmin is a horizon for all tables (a
 * logical slot's only for catalogs) and it needs no plugin.  It is created
 * ephemeral and made persistent when its contents are on disk, so that an error on the
 * way leaves none behind.
 *
 * Only the process that owns a slot may change, mark or save it; others look at it
 * under ReplicationSlotControlLock and its spinlock.  Moving forward is in memory
 * only: a checkpoint saves it, and after a crash it stands further back, which is safe.
 *
 * A process that catches errors and lives on must call sx_slot_release in its error
 * path: transaction abort does not.
 */
#include "postgres.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"

#include "capture/slot.h"
#include "capture/wal_tail.h"
#include "testing/stop_points.h"

#define NAME_PREFIX			"streamext_"

static bool find_slot(const char *name, bool *physical, bool *invalidated, pid_t *owner);
static void require_free_slot(const char *name);
static bool drop_unless_taken(const char *name);
static void protect(TransactionId xmin);
static ReplicationSlot *own_slot(void);
static Oid	database_of(const char *name);

void
sx_slot_name(Oid dboid, char *buf, Size len)
{
	snprintf(buf, len, NAME_PREFIX "%u", dboid);
}

bool
sx_slot_acquire(const char **lost)
{
	char		name[NAMEDATALEN];
	TransactionId xmin;
	bool		physical;
	bool		invalidated;
	pid_t		owner;

	*lost = NULL;
	sx_slot_name(MyDatabaseId, name, sizeof(name));
	if (MyReplicationSlot != NULL && strcmp(NameStr(MyReplicationSlot->data.name), name) != 0)
		elog(ERROR, "this process already owns another replication slot");
	CheckSlotRequirements();

	/* the snapshot holds the horizon until the slot does */
	if (!ActiveSnapshotSet())
		elog(ERROR, "a replication slot of streamext needs an active snapshot");
	xmin = GetActiveSnapshot()->xmin;

	if (find_slot(name, &physical, &invalidated, &owner))
	{
		if (!physical)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("replication slot \"%s\" is not a physical slot", name),
					 errhint("Drop it with SELECT pg_drop_replication_slot('%s').", name)));
		if (!invalidated)
		{
			/* it is ours already if we kept it on a standby */
			if (MyReplicationSlot == NULL)
				SxReplicationSlotAcquire(name, true);

			/* xmin was given up at a limit, or WAL never reserved */
			if (!TransactionIdIsValid(MyReplicationSlot->data.xmin))
			{
				protect(xmin);
				*lost = "The replication slot held no transaction horizon.";
			}
			if (XLogRecPtrIsInvalid(MyReplicationSlot->data.restart_lsn))
				ReplicationSlotReserveWal();
			ReplicationSlotMarkDirty();
			ReplicationSlotSave();
			return false;
		}

		/* it protects nothing any more, and cannot be revived */
		sx_slot_release();
		ReplicationSlotDrop(name, true);
		*lost = "The replication slot was invalidated.";
	}
	else
		*lost = "The replication slot was missing.";

	require_free_slot(name);
	SxReplicationSlotCreate(name, RS_EPHEMERAL);
	SX_STOP_POINT(slot_created);
	protect(xmin);
	ReplicationSlotReserveWal();
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	SX_STOP_POINT(slot_reserved);
	ReplicationSlotPersist();
	SX_STOP_POINT(slot_persisted);
	return true;
}

void
sx_slot_release(void)
{
	if (MyReplicationSlot != NULL)
		ReplicationSlotRelease();
}

/*
 * Nothing is removed here but by replay, so the horizon may be set to what it should have been.
 */
void
sx_slot_keep(TransactionId xmin, XLogRecPtr restart_lsn)
{
	if (MyReplicationSlot == NULL)
	{
		char		name[NAMEDATALEN];
		bool		physical;
		bool		invalidated;
		bool		found;

		sx_slot_name(MyDatabaseId, name, sizeof(name));
		CheckSlotRequirements();
		found = find_slot(name, &physical, &invalidated, NULL);
		if (found && !physical)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("replication slot \"%s\" is not a physical slot", name),
					 errhint("Drop it with SELECT pg_drop_replication_slot('%s').", name)));
		if (found && invalidated)
			ReplicationSlotDrop(name, true);
		if (found && !invalidated)
			SxReplicationSlotAcquire(name, true);
		else
		{
			require_free_slot(name);
			SxReplicationSlotCreate(name, RS_EPHEMERAL);
			protect(xmin);
			ReplicationSlotReserveWal();
			sx_slot_reach_back(restart_lsn);
			ReplicationSlotMarkDirty();
			ReplicationSlotSave();
			ReplicationSlotPersist();
			return;
		}
	}
	sx_slot_advance(xmin, xmin, restart_lsn);
}

/* WAL is reserved from the last checkpoint on; what is there from before may be kept as well */
void
sx_slot_reach_back(XLogRecPtr restart_lsn)
{
	ReplicationSlot *slot = own_slot();

	if (XLogRecPtrIsInvalid(restart_lsn) || !sx_wal_available(restart_lsn))
		return;
	SpinLockAcquire(&slot->mutex);
	if (restart_lsn < slot->data.restart_lsn)
		slot->data.restart_lsn = restart_lsn;
	SpinLockRelease(&slot->mutex);
	ReplicationSlotMarkDirty();
	ReplicationSlotsComputeRequiredLSN();
}

/*
 * The horizon may lie ahead of xmin, which a restart will need: it is what is needed as long as the server runs, and is nowhere
 * on disk.
 */
void
sx_slot_advance(TransactionId xmin, TransactionId horizon, XLogRecPtr restart_lsn)
{
	ReplicationSlot *slot = own_slot();
	bool		xmin_moved = false;
	bool		horizon_moved = false;
	bool		lsn_moved = false;

	SpinLockAcquire(&slot->mutex);
	if (TransactionIdIsNormal(xmin) &&
		(!TransactionIdIsValid(slot->data.xmin) ||
		 TransactionIdPrecedes(slot->data.xmin, xmin)))
	{
		slot->data.xmin = xmin;
		xmin_moved = true;
	}
	if (TransactionIdIsNormal(horizon) &&
		(!TransactionIdIsValid(slot->effective_xmin) ||
		 TransactionIdPrecedes(slot->effective_xmin, horizon)))
	{
		slot->effective_xmin = horizon;
		horizon_moved = true;
	}
	/* an invalid one was taken away for good */
	if (!XLogRecPtrIsInvalid(slot->data.restart_lsn) && slot->data.restart_lsn < restart_lsn)
	{
		slot->data.restart_lsn = restart_lsn;
		lsn_moved = true;
	}
	SpinLockRelease(&slot->mutex);

	if (xmin_moved || lsn_moved)
		ReplicationSlotMarkDirty();
	if (horizon_moved)
		ReplicationSlotsComputeRequiredXmin(false);
	if (lsn_moved)
		ReplicationSlotsComputeRequiredLSN();
}

TransactionId
sx_slot_xmin(void)
{
	ReplicationSlot *slot = own_slot();
	TransactionId xmin;

	SpinLockAcquire(&slot->mutex);
	xmin = slot->data.xmin;
	SpinLockRelease(&slot->mutex);
	return xmin;
}

TransactionId
sx_slot_horizon(void)
{
	ReplicationSlot *slot = own_slot();
	TransactionId horizon;

	SpinLockAcquire(&slot->mutex);
	horizon = slot->effective_xmin;
	SpinLockRelease(&slot->mutex);
	return horizon;
}

XLogRecPtr
sx_slot_restart_lsn(void)
{
	ReplicationSlot *slot = own_slot();
	XLogRecPtr	lsn;

	/* the checkpointer may take it away */
	SpinLockAcquire(&slot->mutex);
	lsn = slot->data.restart_lsn;
	SpinLockRelease(&slot->mutex);
	return lsn;
}

/* Between the look and the drop somebody may take the slot or drop it: the next look settles it */
bool
sx_slot_drop(Oid dboid)
{
	char		name[NAMEDATALEN];
	pid_t		owner;

	sx_slot_name(dboid, name, sizeof(name));
	if (MyReplicationSlot != NULL)
	{
		if (strcmp(NameStr(MyReplicationSlot->data.name), name) != 0)
			return false;
		ReplicationSlotRelease();
	}
	if (!find_slot(name, NULL, NULL, &owner))
		return true;
	if (owner != 0)
		return false;
	SX_STOP_POINT(slot_drop);
	return drop_unless_taken(name);
}

/* Outside a transaction, where nothing but an error state is left behind */
static bool
drop_unless_taken(const char *name)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool dropped = false;

	PG_TRY();
	{
		ReplicationSlotDrop(name, true);
		dropped = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_OBJECT_IN_USE && error->sqlerrcode != ERRCODE_UNDEFINED_OBJECT)
			PG_RE_THROW();
		FlushErrorState();
		LWLockReleaseAll();
		dropped = error->sqlerrcode == ERRCODE_UNDEFINED_OBJECT;
		FreeErrorData(error);
	}
	PG_END_TRY();
	return dropped;
}

int
sx_slot_databases(Oid *dboids, int max)
{
	int			n = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && n < max; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		Oid			dboid;

		/* name and kind of a slot in use do not change */
		if (!slot->in_use || !SlotIsPhysical(slot))
			continue;
		dboid = database_of(NameStr(slot->data.name));
		if (OidIsValid(dboid))
			dboids[n++] = dboid;
	}
	LWLockRelease(ReplicationSlotControlLock);
	return n;
}

/* Each of the answers may be NULL */
static bool
find_slot(const char *name, bool *physical, bool *invalidated, pid_t *owner)
{
	bool		found = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !found; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (!slot->in_use || strcmp(NameStr(slot->data.name), name) != 0)
			continue;
		found = true;
		SpinLockAcquire(&slot->mutex);
		if (physical != NULL)
			*physical = SlotIsPhysical(slot);
		if (invalidated != NULL)
			*invalidated = SxSlotInvalidated(slot);
		if (owner != NULL)
			*owner = slot->active_pid;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return found;
}

/* Core would say so too, but not which slot or why it is wanted */
static void
require_free_slot(const char *name)
{
	int			used = 0;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		if (ReplicationSlotCtl->replication_slots[i].in_use)
			used++;
	}
	LWLockRelease(ReplicationSlotControlLock);

	if (used >= max_replication_slots)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("all replication slots are in use"),
				 errdetail("Continuous views need replication slot \"%s\".", name),
				 errhint("Set max_replication_slots to %d or more and restart the server.",
						 max_replication_slots + 1)));
}

static void
protect(TransactionId xmin)
{
	ReplicationSlot *slot = own_slot();

	SpinLockAcquire(&slot->mutex);
	slot->data.xmin = xmin;
	slot->effective_xmin = xmin;
	SpinLockRelease(&slot->mutex);
	ReplicationSlotMarkDirty();
	ReplicationSlotsComputeRequiredXmin(false);
}

static ReplicationSlot *
own_slot(void)
{
	if (MyReplicationSlot == NULL)
		elog(ERROR, "this process does not own a replication slot");
	return MyReplicationSlot;
}

/* InvalidOid: not a name of ours */
static Oid
database_of(const char *name)
{
	const char *digits;
	char	   *end;
	unsigned long value;

	if (strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX)) != 0)
		return InvalidOid;
	digits = name + strlen(NAME_PREFIX);
	if (*digits < '1' || *digits > '9')
		return InvalidOid;
	errno = 0;
	value = strtoul(digits, &end, 10);
	if (errno != 0 || *end != '\0' || value > OID_MAX)
		return InvalidOid;
	return (Oid) value;
}
