/*
 * file_map.c
 *		Which relation files belong to which streams.
 *
 * A refresh walks the partition tree of each stream in pg_inherits, reads the file of
 * every leaf from pg_class, and only then changes the map, so that an error or an
 * invalidation in between leaves the old one whole.  No relation is opened or locked: a
 * leaf may be renamed, truncated or dropped meanwhile, which its invalidation tells us.
 *
 * Entries are allocated one by one and never freed, so that their addresses and numbers
 * hold for the life of the map.  One dead entry per TRUNCATE is the price.
 *
 * Lookups by file happen for every heap record in the WAL, nearly always for the file
 * of the record before: the last answer, also a negative one, is kept.
 *
 * Private to one process; a crash leaves nothing.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "capture/file_map.h"

/* a file that was replaced is mapped, to its dead entry, for this many refreshes */
#define KEEP_REFRESHES		3

typedef struct FileSlot
{
	SxFile		file;
	char		status;
	SxFileEntry *entry;
} FileSlot;

static inline uint32
hash_file(SxFile file)
{
	return murmurhash32((uint32) SxFileNumber(file) ^ ((uint32) SxFileDb(file) << 16) ^
						((uint32) SxFileTablespace(file) << 8));
}

#define SH_PREFIX files
#define SH_ELEMENT_TYPE FileSlot
#define SH_KEY_TYPE SxFile
#define SH_KEY file
#define SH_HASH_KEY(tb, key) hash_file(key)
#define SH_EQUAL(tb, a, b) SxFileEquals(a, b)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct RelSlot
{
	Oid			relid;
	char		status;
	Oid			node;			/* its file number, where that is of interest */
} RelSlot;

#define SH_PREFIX rels
#define SH_ELEMENT_TYPE RelSlot
#define SH_KEY_TYPE Oid
#define SH_KEY relid
#define SH_HASH_KEY(tb, key) murmurhash32(key)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct SxFileMap
{
	MemoryContext context;
	SxFileEntry **entries;
	uint32		nentries;
	uint32		maxentries;
	files_hash *by_file;		/* live entries */
	rels_hash  *concerned;		/* members, their parents and roots, of the last refresh */
	rels_hash  *leaves;			/* every leaf that ever had an entry */
	uint32		refreshes;
	bool		any_gained;		/* some entry has joined another stream */
	SxFile		last_file;
	SxFileEntry *last_entry;	/* of last_file; NULL: not ours */
	bool		last_valid;
};

/* What a refresh finds in the catalogs */
typedef struct Found
{
	Oid			leaf;			/* hash key */
	SxFile		file;
	List	   *streams;
} Found;

static void read_member(HTAB *found, List **members, Oid relid, Oid stream);
static SxFileEntry *add_entry(SxFileMap *map, Oid leaf, SxFile file, bool mark_fresh);
static bool any_fresh(SxFileMap *map);

SxFileMap *
sx_file_map_create(MemoryContext parent)
{
	MemoryContext context;
	SxFileMap  *map;

	context = AllocSetContextCreate(parent, "streamext file map", ALLOCSET_SMALL_SIZES);
	map = MemoryContextAllocZero(context, sizeof(SxFileMap));
	map->context = context;
	map->maxentries = 16;
	map->entries = MemoryContextAlloc(context, sizeof(SxFileEntry *) * map->maxentries);
	map->by_file = files_create(context, 16, NULL);
	map->concerned = rels_create(context, 16, NULL);
	map->leaves = rels_create(context, 16, NULL);
	return map;
}

void
sx_file_map_destroy(SxFileMap *map)
{
	MemoryContextDelete(map->context);
}

bool
sx_file_map_refresh(SxFileMap *map, List *streams, bool mark_fresh)
{
	MemoryContext scratch;
	MemoryContext old;
	HASHCTL		ctl = {0};
	HTAB	   *found;
	HASH_SEQ_STATUS seq;
	Found	   *f;
	List	   *members = NIL;
	rels_hash  *concerned;
	ListCell   *lc;
	bool		exists;

	scratch = AllocSetContextCreate(CurrentMemoryContext, "streamext file map refresh",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(scratch);

	/* read */
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Found);
	ctl.hcxt = scratch;
	found = hash_create("streamext file map refresh", 64, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	foreach(lc, streams)
	{
		Oid			stream = lfirst_oid(lc);
		List	   *tree;
		ListCell   *lc2;

		/* dropped, with its views: they are seen to be gone later */
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(stream)))
			continue;
		tree = find_all_inheritors(stream, NoLock, NULL);
		foreach(lc2, tree)
			read_member(found, &members, lfirst_oid(lc2), stream);
	}

	/* change: from here on only memory can run out, which the caller does not survive */
	MemoryContextSwitchTo(map->context);
	map->last_valid = false;
	map->refreshes++;

	for (uint32 i = 0; i < map->nentries; i++)
	{
		SxFileEntry *entry = map->entries[i];

		if (entry->dead)
		{
			FileSlot   *slot;

			if (map->refreshes - entry->died < KEEP_REFRESHES)
				continue;
			slot = files_lookup(map->by_file, entry->file);
			if (slot != NULL && slot->entry == entry)
				files_delete(map->by_file, entry->file);
			continue;
		}
		f = hash_search(found, &entry->leaf, HASH_FIND, NULL);
		if (f == NULL || !SxFileEquals(f->file, entry->file))
		{
			entry->dead = true;
			entry->died = map->refreshes;
			entry->passed = entry->fresh;
			entry->fresh = false;
			/* WAL still to be read may have rows that went to the old file before it was replaced */
			if (f == NULL)
				files_delete(map->by_file, entry->file);
		}
	}

	hash_seq_init(&seq, found);
	while ((f = hash_seq_search(&seq)) != NULL)
	{
		FileSlot   *slot = files_lookup(map->by_file, f->file);
		SxFileEntry *entry;

		if (slot != NULL && !slot->entry->dead)
		{
			/* attached to one stream while it is another, or a partition of another */
			entry = slot->entry;
			sx_file_map_gain(map, entry, list_difference_oid(f->streams, entry->streams));
		}
		else
			entry = add_entry(map, f->leaf, f->file, mark_fresh);
		list_free(entry->streams);
		entry->streams = list_copy(f->streams);
	}

	/* the callback that asks sx_file_map_concerns may come at any time: swap whole */
	concerned = rels_create(map->context, Max(list_length(members), 16), NULL);
	foreach(lc, members)
		rels_insert(concerned, lfirst_oid(lc), &exists)->node = InvalidOid;
	{
		rels_hash  *previous = map->concerned;

		map->concerned = concerned;
		rels_destroy(previous);
	}

	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return any_fresh(map);
}

bool
sx_file_map_compare(SxFileMap *map, int nfiles, const Oid *rels, const Oid *nodes)
{
	rels_hash  *stored = rels_create(CurrentMemoryContext, Max(nfiles, 16), NULL);

	for (int i = 0; i < nfiles; i++)
	{
		bool		exists;

		rels_insert(stored, rels[i], &exists)->node = nodes[i];
	}

	for (uint32 i = 0; i < map->nentries; i++)
	{
		SxFileEntry *entry = map->entries[i];
		RelSlot    *slot;

		if (entry->dead)
			continue;
		slot = rels_lookup(stored, entry->leaf);
		if (slot != NULL && slot->node == SxFileNumber(entry->file))
			continue;
		entry->fresh = true;
		entry->member_before = slot != NULL;
	}

	rels_destroy(stored);
	return any_fresh(map);
}

void
sx_file_map_gain(SxFileMap *map, SxFileEntry *entry, List *streams)
{
	MemoryContext old = MemoryContextSwitchTo(map->context);

	entry->gained = list_concat_unique_oid(entry->gained, streams);
	map->any_gained |= entry->gained != NIL;
	MemoryContextSwitchTo(old);
}

bool
sx_file_map_any_gained(SxFileMap *map)
{
	return map->any_gained;
}

void
sx_file_map_clear_gained(SxFileMap *map)
{
	map->any_gained = false;
	for (uint32 i = 0; i < map->nentries; i++)
	{
		list_free(map->entries[i]->gained);
		map->entries[i]->gained = NIL;
	}
}

void
sx_file_map_add_former(SxFileMap *map, Oid leaf, SxFile file, bool known)
{
	RelSlot    *slot = rels_lookup(map->leaves, leaf);
	MemoryContext old;
	SxFileEntry *entry;
	Oid			present;

	if (files_lookup(map->by_file, file) != NULL)
		return;
	present = slot ? slot->node : InvalidOid;
	old = MemoryContextSwitchTo(map->context);
	map->last_valid = false;
	entry = add_entry(map, leaf, file, false);
	entry->dead = true;
	entry->died = map->refreshes;
	entry->passed = !known;
	/* what the leaf has now stays its entry */
	slot = rels_lookup(map->leaves, leaf);
	slot->node = present;
	MemoryContextSwitchTo(old);
}

void
sx_file_map_enter(SxFileMap *map, Oid leaf, SxFile file, List *streams)
{
	MemoryContext old = MemoryContextSwitchTo(map->context);

	map->last_valid = false;
	add_entry(map, leaf, file, false)->streams = list_copy(streams);
	MemoryContextSwitchTo(old);
}

SxFileEntry *
sx_file_map_lookup(SxFileMap *map, SxFile file)
{
	FileSlot   *slot;

	if (map->last_valid && SxFileEquals(map->last_file, file))
		return map->last_entry;

	slot = files_lookup(map->by_file, file);
	map->last_file = file;
	map->last_entry = slot != NULL ? slot->entry : NULL;
	map->last_valid = true;
	return map->last_entry;
}

SxFileEntry *
sx_file_map_entry(SxFileMap *map, uint32 index)
{
	if (index >= map->nentries)
		elog(ERROR, "file number %u is not in the map of %u", index, map->nentries);
	return map->entries[index];
}

uint32
sx_file_map_count(SxFileMap *map)
{
	return map->nentries;
}

/* InvalidOid is how a callback says "any relation" */
bool
sx_file_map_concerns(SxFileMap *map, Oid relid)
{
	if (!OidIsValid(relid))
		return true;
	return rels_lookup(map->concerned, relid) != NULL;
}

int
sx_file_map_files_of(SxFileMap *map, Oid stream, Oid **rels, Oid **nodes)
{
	int			n = 0;

	*rels = palloc(sizeof(Oid) * Max(map->nentries, 1));
	*nodes = palloc(sizeof(Oid) * Max(map->nentries, 1));
	for (uint32 i = 0; i < map->nentries; i++)
	{
		SxFileEntry *entry = map->entries[i];

		if (entry->dead || !list_member_oid(entry->streams, stream))
			continue;
		(*rels)[n] = entry->leaf;
		(*nodes)[n] = SxFileNumber(entry->file);
		n++;
	}
	return n;
}

/*
 * Takes down a relation of the stream's tree, and its file if it has one that we can
 * follow.  What cannot be a member (temporary, unlogged, foreign, not heap) is refused
 * where streams are declared; here it has no file.
 */
static void
read_member(HTAB *found, List **members, Oid relid, Oid stream)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;
	bool		exists;
	Found	   *f;

	if (!HeapTupleIsValid(tuple))
		return;					/* dropped meanwhile */
	form = (Form_pg_class) GETSTRUCT(tuple);
	*members = lappend_oid(*members, relid);

	/* a mapped relation, always a system catalog, has no file number in pg_class */
	if (form->relkind == RELKIND_RELATION &&
		form->relpersistence == RELPERSISTENCE_PERMANENT &&
		form->relam == HEAP_TABLE_AM_OID &&
		OidIsValid(form->relfilenode))
	{
		f = hash_search(found, &relid, HASH_ENTER, &exists);
		if (!exists)
		{
			memset(&f->file, 0, sizeof(SxFile));
			SxFileTablespace(f->file) = OidIsValid(form->reltablespace) ?
				form->reltablespace : MyDatabaseTableSpace;
			SxFileDb(f->file) = MyDatabaseId;
			SxFileNumber(f->file) = form->relfilenode;
			f->streams = NIL;
		}
		f->streams = list_append_unique_oid(f->streams, stream);
	}
	ReleaseSysCache(tuple);
}

static SxFileEntry *
add_entry(SxFileMap *map, Oid leaf, SxFile file, bool mark_fresh)
{
	SxFileEntry *entry = MemoryContextAllocZero(map->context, sizeof(SxFileEntry));
	bool		exists;
	RelSlot    *slot;

	if (map->nentries == map->maxentries)
	{
		map->maxentries *= 2;
		map->entries = repalloc_huge(map->entries,
									 sizeof(SxFileEntry *) * (Size) map->maxentries);
	}

	entry->file = file;
	entry->index = map->nentries;
	entry->leaf = leaf;
	map->entries[map->nentries++] = entry;
	files_insert(map->by_file, file, &exists)->entry = entry;

	slot = rels_insert(map->leaves, leaf, &exists);
	if (mark_fresh)
	{
		/* one that was detached and comes back is new, although it has been here */
		entry->fresh = true;
		entry->member_before = exists && map->entries[slot->node]->dead &&
			map->entries[slot->node]->died == map->refreshes;
	}
	slot->node = entry->index;
	return entry;
}

static bool
any_fresh(SxFileMap *map)
{
	for (uint32 i = 0; i < map->nentries; i++)
	{
		if (map->entries[i]->fresh)
			return true;
	}
	return false;
}
