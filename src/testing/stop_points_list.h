/*
 * stop_points_list.h
 *		The names of all stop points: see stop_points.h.
 *
 * SX_POINT(name, actions): SX_ANY allows every action.  SX_NO_ERROR is for places where nothing
 * may raise (under the publish lock, or where an error would be a lie because the change is
 * already committed): only a crash, or an uninterruptible wait.
 *
 * test/t/014_stop_points.pl fails when a point here stands nowhere in the sources, or is not
 * reached by its workload.
 */

/* reading WAL: worker/cycle.c, capture/ (consumer and builder) */
SX_POINT(capture_snapshot, SX_ANY)		/* S is taken, L is not */
SX_POINT(capture_flushed, SX_ANY)		/* WAL is flushed to L */
SX_POINT(capture_mapped, SX_ANY)		/* the file map is complete for L */
SX_POINT(capture_record, SX_ANY)		/* a record was read and not applied */
SX_POINT(capture_read, SX_ANY)			/* all below L is read */
SX_POINT(open_rows_packed, SX_ANY)		/* addresses of open transactions are ready to be stored */
SX_POINT(open_rows_loaded, SX_ANY)		/* and were read again */

/* computing and publishing: worker/process.c, worker/consumer.c */
SX_POINT(consume_taken, SX_ANY)			/* transactions are chosen */
SX_POINT(compute_slice, SX_ANY)			/* before a view's plan runs over a slice */
SX_POINT(compute_applied, SX_ANY)		/* results are prepared, the slice's transaction is open */
SX_POINT(compute_done, SX_ANY)			/* all views are prepared, nothing is published */
SX_POINT(publish_half, SX_NO_ERROR)		/* under the lock: some views are published */
SX_POINT(publish_locked, SX_NO_ERROR)	/* under the lock: all are */
SX_POINT(published, SX_NO_ERROR)		/* the lock is released, what was replaced is not freed */
SX_POINT(consumed, SX_ANY)				/* the transactions are forgotten */

/* large transactions: worker/helper.c, worker/consumer_helper.c */
SX_POINT(helper_started, SX_ANY)		/* it takes jobs */
SX_POINT(helper_given, SX_ANY)			/* a job is given, its rows are not marked */
SX_POINT(helper_computed, SX_ANY)		/* a job is computed, the consumer is not told */
SX_POINT(helper_collected, SX_ANY)		/* its results are known, nothing of them is published */

/* flushing: worker/consumer_flush.c, worker/flusher.c, live/merge.c, live/live_generation.c */
SX_POINT(seal_begin, SX_ANY)			/* before a generation is sealed */
SX_POINT(seal_locked, SX_NO_ERROR)		/* under the lock: sealed, the next is open */
SX_POINT(sealed, SX_ANY)				/* sealed, not noted by the consumer */
SX_POINT(flush_claimed, SX_ANY)			/* the flusher has chosen a view */
SX_POINT(flush_checked, SX_ANY)			/* the stored position is the one that the state continues */
SX_POINT(merge_deleted, SX_ANY)			/* sessions are deleted that others have taken up */
SX_POINT(merge_written, SX_ANY)			/* rows are upserted */
SX_POINT(flush_merged, SX_ANY)			/* all rows are, dead letters and position are not */
SX_POINT(flush_stored, SX_ANY)			/* the position is written */
SX_POINT(flush_appended, SX_ANY)		/* closed windows are appended to the sinks */
SX_POINT(windows_removed, SX_ANY)		/* a batch of old windows is deleted, not committed */
SX_POINT(flush_noted, SX_ANY)			/* readers know the flush's id, it is not committed */
SX_POINT(flush_committed, SX_NO_ERROR)	/* committed, the generation is not marked */
SX_POINT(flush_protected, SX_NO_ERROR)	/* the slot may move, the generation is not marked */
SX_POINT(flush_marked, SX_NO_ERROR)		/* marked, the view is still claimed */
SX_POINT(flush_requested, SX_ANY)		/* a flush request is done, the waiter is not told */
SX_POINT(generation_detached, SX_NO_ERROR)	/* a flushed generation left the ring, its memory is not free */

/* the slot: capture/slot.c, worker/consumer_slot.c */
SX_POINT(slot_created, SX_ANY)			/* ephemeral, nothing reserved */
SX_POINT(slot_reserved, SX_ANY)			/* saved, not persistent */
SX_POINT(slot_persisted, SX_ANY)
SX_POINT(slot_advance, SX_ANY)			/* the new place is known */
SX_POINT(slot_advanced, SX_ANY)			/* moved in memory */
SX_POINT(slot_drop, SX_ANY)				/* before it is dropped */

/* joining and leaving: worker/consumer_join.c, consumer_leave.c, consumer_views.c */
SX_POINT(join_position, SX_ANY)			/* the view's position is read */
SX_POINT(join_read, SX_ANY)				/* its own capture has read WAL */
SX_POINT(join_computed, SX_ANY)			/* what it lacks is prepared */
SX_POINT(join_published, SX_ANY)		/* it is live, the capture does not follow its files */
SX_POINT(join_done, SX_ANY)				/* its open transactions are handed over */
SX_POINT(left, SX_ANY)					/* a view has left for a lock or a new file */
SX_POINT(detached, SX_ANY)				/* a live view has left the shared position */
SX_POINT(detached_dropped, SX_ANY)		/* its live state is freed */
SX_POINT(views_loaded, SX_ANY)			/* the catalog was read */

/* builders: worker/builder*.c, history_scan.c, full_scan.c */
SX_POINT(builder_started, SX_ANY)
SX_POINT(history_begin, SX_ANY)			/* L0 is noted, open writers are not awaited */
SX_POINT(history_snapshot, SX_ANY)		/* S is taken */
SX_POINT(history_computed, SX_ANY)		/* results are collected, nothing is written */
SX_POINT(history_stored, SX_ANY)		/* in chunks: S and the beginning are committed */
SX_POINT(history_chunk_computed, SX_ANY)
SX_POINT(history_chunk_committed, SX_ANY)
SX_POINT(history_scanned, SX_ANY)		/* a chunk row by row: addresses are collected */
SX_POINT(results_emptied, SX_ANY)		/* history: old rows are deleted */
SX_POINT(results_merged, SX_ANY)		/* rows are written, the position is not */
SX_POINT(results_stored, SX_ANY)		/* both are, the transaction is open */
SX_POINT(history_committed, SX_ANY)		/* history is committed */
SX_POINT(scan_stored, SX_ANY)			/* full scan: S and its beginning are committed */
SX_POINT(scan_found, SX_ANY)			/* a part's addresses are collected */
SX_POINT(scan_part_committed, SX_ANY)
SX_POINT(scan_finished, SX_ANY)			/* S is the position */
SX_POINT(catch_up_computed, SX_ANY)		/* a turn of catching up is computed */
SX_POINT(catch_up_committed, SX_ANY)	/* and written */
SX_POINT(builder_done, SX_ANY)			/* before the consumer is told */

/* processes: worker/launcher.c, worker/consumer.c */
SX_POINT(launcher_start_worker, SX_ANY)
SX_POINT(scout_looked, SX_ANY)			/* the scout knows, nobody else does */
SX_POINT(consumer_started, SX_ANY)		/* registered, no slot */
SX_POINT(consumer_protected, SX_ANY)	/* the slot is held, a predecessor's state is there */
SX_POINT(consumer_cleared, SX_ANY)		/* memory is new */
SX_POINT(consumer_leaves, SX_ANY)		/* no view is left, the slot is there */

/* commands: query/view_def.c, catalog/sx_catalog.c, ddl/ */
SX_POINT(create_required, SX_ANY)		/* workers run and the slot protects */
SX_POINT(create_query, SX_ANY)			/* the query view is made */
SX_POINT(create_table, SX_ANY)			/* the materialized table is made */
SX_POINT(create_view, SX_ANY)			/* the user's view is made */
SX_POINT(create_registered, SX_ANY)		/* its catalog rows are written */
SX_POINT(drop_begin, SX_ANY)
SX_POINT(drop_done, SX_ANY)				/* dropped, not committed */
SX_POINT(pause_stored, SX_ANY)
SX_POINT(resume_stored, SX_ANY)
SX_POINT(settle_wait, SX_ANY)			/* DDL on a stream, before it waits for the flush */
SX_POINT(settled, SX_ANY)				/* and after */
SX_POINT(file_noted, SX_ANY)			/* a table has a new file with its rows, which is noted */
SX_POINT(truncate_noted, SX_ANY)		/* or an empty one */
SX_POINT(mark_stored, SX_ANY)			/* attached or detached partitions are noted */
SX_POINT(expire_flushed, SX_ANY)		/* all views have what is to be removed, nothing is noted */
SX_POINT(expire_noted, SX_ANY)			/* that raw rows will be missing is committed */
SX_POINT(expire_deleted, SX_ANY)		/* a batch is deleted, not committed */
SX_POINT(expire_dropped, SX_ANY)		/* a partition is dropped or detached, not committed */
SX_POINT(job_started, SX_ANY)			/* a run is noted, its work has not begun */
SX_POINT(job_finished, SX_ANY)			/* its end is noted, not committed */

/* alerts: ddl/alert_functions.c, worker/alerter*.c */
SX_POINT(alert_condition, SX_ANY)		/* the internal view is made */
SX_POINT(alert_created, SX_ANY)			/* all is written, not committed */
SX_POINT(alert_dropped, SX_ANY)
SX_POINT(alerter_started, SX_ANY)		/* registered, nothing is known */
SX_POINT(alerter_tracked, SX_ANY)		/* the consumer lists changes from now on */
SX_POINT(alerter_collected, SX_ANY)		/* the rows of changed groups are put together */
SX_POINT(alert_evaluated, SX_ANY)		/* which groups satisfy a condition is known, nothing is written */
SX_POINT(alert_written, SX_ANY)			/* reports are written and queued, not committed */
SX_POINT(alert_committed, SX_ANY)		/* committed, the changes are not taken as read */
SX_POINT(alert_failed, SX_ANY)			/* a failure is noted, its transaction is open */
SX_POINT(alerter_leaves, SX_ANY)		/* no alert is left */

/* replacements: batch/replace.c, batch/swap.c, worker/consumer_views.c */
SX_POINT(replace_begun, SX_ANY)			/* the hidden view is made, not committed */
SX_POINT(swap_locked, SX_ANY)			/* all relations are locked */
SX_POINT(swap_rewritten, SX_ANY)		/* the visible view reads the new table */
SX_POINT(swap_done, SX_ANY)				/* swapped, not committed */
SX_POINT(swap_committed, SX_ANY)		/* committed, the consumer does not know it */
SX_POINT(place_taken, SX_ANY)			/* the consumer has given the live state its new name */

/* windows computed anew: batch/recompute.c */
SX_POINT(recompute_computed, SX_ANY)	/* the result is known, nothing is written */
SX_POINT(recompute_written, SX_ANY)		/* written, not committed */
SX_POINT(recompute_committed, SX_ANY)	/* a part is committed */

/* readers: live/live_read_statement.c, live/live_copy.c */
SX_POINT(read_begin, SX_ANY)			/* the statement has its snapshot and no copy */
SX_POINT(read_locked, SX_NO_ERROR)		/* under the shared lock: rows are copied */
SX_POINT(read_copied, SX_ANY)
