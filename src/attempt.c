/*
 * attempt.c
 *		Runs something that may fail, in a subtransaction.
 *
 * Who is the current user, and in what context of security, is restored by core when it fails.
 */
#include "attempt.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

ErrorData *
sx_attempt(void (*run) (void *arg), void *arg, bool with_cancel)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		run(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	/* being told to stop is no fault of what was running */
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED && !with_cancel)
		ReThrowError(error);
	return error;
}
