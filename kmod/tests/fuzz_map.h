/* SPDX-License-Identifier: GPL-2.0 */
/* A file's map as it has to be, and whether the file tells it so. */
#ifndef _FAMFS_FUZZ_MAP_H
#define _FAMFS_FUZZ_MAP_H

#include "fixture.h"

/* More than the older generations can tell */
#define MAX_PIECES 20

/* A map as the file has it; strips all begin at 0 of the file */
struct expected_map {
	uint64_t file_size, chunk_size, nbytes;
	uint32_t file_type, ext_type, nr_spans;
	struct famfs_ioc_piece spans[MAX_PIECES];
};

/* Can the lists of the older generations tell it? */
static inline bool is_list(const struct expected_map *map)
{
	uint64_t end = 0;

	if (map->ext_type == FAMFS_EXTENT_INTERLEAVED)
		return true;
	for (uint32_t i = 0; i < map->nr_spans; i++) {
		if (map->spans[i].file_offset != end)
			return false;
		end += map->spans[i].len;
	}
	return map->nr_spans <= FAMFS_MAX_EXTENTS && end >= map->file_size;
}

static inline bool same_v42(int fd, const struct expected_map *map)
{
	struct famfs_ioc_map got, want = {
		.extent_type = map->ext_type,
		.file_type = map->file_type,
		.file_size = map->file_size,
		.ext_list_count = map->nr_spans,
	};

	for (uint32_t i = 0; i < map->nr_spans; i++) {
		if (i == FAMFS_V42_MAX_EXTENTS)
			break;
		want.ext_list[i].offset = map->spans[i].offset;
		want.ext_list[i].len = map->spans[i].len;
	}
	if (!is_list(map))
		return ioctl(fd, FAMFSIOC_MAP_GET, &got) == -1 &&
		       errno == EOVERFLOW;
	return !ioctl(fd, FAMFSIOC_MAP_GET, &got) &&
	       !memcmp(&got, &want, sizeof(want));
}

static inline bool same_list(int fd, const struct expected_map *map)
{
	struct famfs_extent got[FAMFS_MAX_EXTENTS];

	if (!is_list(map))
		return ioctl(fd, FAMFSIOC_MAP_GETEXT, got) == -1 &&
		       errno == EOVERFLOW;
	if (ioctl(fd, FAMFSIOC_MAP_GETEXT, got))
		return false;
	for (uint32_t i = 0; i < map->nr_spans; i++)
		if (got[i].offset != map->spans[i].offset ||
		    got[i].len != map->spans[i].len)
			return false;
	return true;
}

static inline bool same_v43(int fd, const struct expected_map *map)
{
	struct famfs_ioc_get_fmap got, want = {
		.fmap = {
			.file_size = map->file_size,
			.file_type = map->file_type,
			.ext_type = map->ext_type,
			.nextents = map->nr_spans,
		},
	};
	struct famfs_ioc_simple_extent *list = want.simple;

	if (!is_list(map))
		return ioctl(fd, FAMFSIOC_MAP_GET_V2, &got) == -1 &&
		       errno == EOVERFLOW;
	if (map->ext_type == FAMFS_EXTENT_INTERLEAVED) {
		want.fmap.nextents = 1;
		want.interleaved.nstrips = map->nr_spans;
		want.interleaved.chunk_size = map->chunk_size;
		want.interleaved.nbytes = map->nbytes;
		list = want.strips;
	}
	for (uint32_t i = 0; i < map->nr_spans; i++) {
		list[i].offset = map->spans[i].offset;
		list[i].len = map->spans[i].len;
	}
	return !ioctl(fd, FAMFSIOC_MAP_GET_V2, &got) &&
	       !memcmp(&got, &want, sizeof(want));
}

static inline bool same_pieces(int fd, const struct expected_map *map)
{
	struct famfs_ioc_piece list[MAX_PIECES];
	struct famfs_ioc_pieces got = {
		.count = MAX_PIECES, .pieces = (uintptr_t)list,
	};

	if (map->ext_type == FAMFS_EXTENT_INTERLEAVED)
		return ioctl(fd, FAMFSIOC_GET_PIECES, &got) == -1 &&
		       errno == EOPNOTSUPP;
	return !ioctl(fd, FAMFSIOC_GET_PIECES, &got) &&
	       got.file_size == map->file_size && got.count == map->nr_spans &&
	       !memcmp(list, map->spans, map->nr_spans * sizeof(list[0]));
}

/* Ask for the map in all four ways. NULL, or which way is not as expected. */
static inline const char *compare_map(int fd, const struct expected_map *map)
{
	if (!same_v42(fd, map))
		return "MAP_GET";
	if (!same_list(fd, map))
		return "MAP_GETEXT";
	if (!same_v43(fd, map))
		return "MAP_GET_V2";
	if (!same_pieces(fd, map))
		return "GET_PIECES";
	return NULL;
}

/* Is the byte on the device, and not in a hole? */
static inline bool has_memory(const struct expected_map *map, uint64_t pos)
{
	if (map->ext_type == FAMFS_EXTENT_INTERLEAVED)
		return true;
	for (uint32_t i = 0; i < map->nr_spans; i++)
		if (pos >= map->spans[i].file_offset &&
		    pos - map->spans[i].file_offset < map->spans[i].len)
			return true;
	return false;
}

#endif /* _FAMFS_FUZZ_MAP_H */
