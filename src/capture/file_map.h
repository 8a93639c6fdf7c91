/*
 * file_map.h
 *		Which relation files belong to which streams.
 *
 * A partition, its parents and its root may each be a stream, so a file maps to a
 * list of them.  Entries are never removed during the map's life, only marked dead,
 * so that runs can name a file by index.
 */
#ifndef SX_FILE_MAP_H
#define SX_FILE_MAP_H

#include "compat.h"

#include "nodes/pg_list.h"

typedef struct SxFileEntry
{
	SxFile		file;
	uint32		index;
	Oid			leaf;			/* the relation that has this file */
	List	   *streams;		/* of Oid: streams of the map it belongs to */
	List	   *gained;			/* of Oid: those whose views must look for themselves what it holds, as
								 * the owner or a refresh found out; the owner clears it */
	bool		dead;			/* no longer the file of a member */
	bool		fresh;			/* new to the map since sx_file_map_refresh said so; the
								 * owner clears it after the scan */
	bool		member_before;	/* fresh: the leaf was a member under another file */
	bool		passed;			/* dead: the leaf had it for a while that we have not seen */
	bool		scanned;		/* what the scan found may not be consumed yet */
	uint32		died;			/* dead: number of the refresh that found it gone */
} SxFileEntry;

typedef struct SxFileMap SxFileMap;

extern SxFileMap *sx_file_map_create(MemoryContext parent);
extern void sx_file_map_destroy(SxFileMap *map);
/*
 * Sets the streams and reads their files from the catalogs (in a transaction).  Members
 * unknown before are entered; with mark_fresh they are marked fresh.  Returns true if any
 * is fresh.  Takes no lock that could wait: a relation whose AccessShareLock is not free is
 * read from the catalog (pg_class) only.
 */
extern bool sx_file_map_refresh(SxFileMap *map, List *streams, bool mark_fresh);
/* for restart: says which file each leaf had when the position was stored; members with
 * another file, or not in the list, become fresh */
extern bool sx_file_map_compare(SxFileMap *map, int nfiles, const Oid *rels, const Oid *nodes);
/* a file that this leaf had before: its rows in WAL still to be read are the leaf's; known: we had seen it there */
extern void sx_file_map_add_former(SxFileMap *map, Oid leaf, SxFile file, bool known);
/* a file as somebody else's map has it, instead of a refresh */
extern void sx_file_map_enter(SxFileMap *map, Oid leaf, SxFile file, List *streams);
/* NULL: not ours; a file replaced lately may have a dead entry */
extern SxFileEntry *sx_file_map_lookup(SxFileMap *map, SxFile file);
extern SxFileEntry *sx_file_map_entry(SxFileMap *map, uint32 index);
extern uint32 sx_file_map_count(SxFileMap *map);
/* also where the owner knows of it: this file is new to these streams only */
extern void sx_file_map_gain(SxFileMap *map, SxFileEntry *entry, List *streams);
extern bool sx_file_map_any_gained(SxFileMap *map);
extern void sx_file_map_clear_gained(SxFileMap *map);
/* is this relation a member, or a parent of members? (for invalidation callbacks: no catalog access) */
extern bool sx_file_map_concerns(SxFileMap *map, Oid relid);
/* live files of one stream, for the stored position */
extern int	sx_file_map_files_of(SxFileMap *map, Oid stream, Oid **rels, Oid **nodes);

#endif							/* SX_FILE_MAP_H */
