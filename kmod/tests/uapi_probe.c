// SPDX-License-Identifier: GPL-2.0
/*
 * Prints the interface as this compiler sees it, one "name value" a line, to
 * be compared with its description in another language.
 */
#include <stddef.h>
#include <stdio.h>

#include "../uapi/famfs_ioctl.h"

static void print(const char *name, unsigned long long value)
{
	printf("%s %llu\n", name, value);
}

#define VALUE(name) print(#name, name)
#define SIZE(type) print("sizeof." #type, sizeof(struct type))
#define OFFSET(type, field) \
	print("offsetof." #type "." #field, offsetof(struct type, field))

int main(void)
{
	VALUE(FAMFS_STATFS_MAGIC);
	VALUE(FAMFS_PAGE);
	VALUE(FAMFS_ALIGN);
	VALUE(FAMFS_V42_MAX_EXTENTS);
	VALUE(FAMFS_MAX_EXTENTS);
	VALUE(FAMFS_MAX_STRIPS);
	VALUE(FAMFS_MAX_PIECES);
	VALUE(FAMFS_FILE_REGULAR);
	VALUE(FAMFS_FILE_SUPERBLOCK);
	VALUE(FAMFS_FILE_LOG);
	VALUE(FAMFS_EXTENT_SIMPLE);
	VALUE(FAMFS_EXTENT_INTERLEAVED);

	SIZE(famfs_extent);
	OFFSET(famfs_extent, offset);
	OFFSET(famfs_extent, len);

	SIZE(famfs_ioc_map);
	OFFSET(famfs_ioc_map, extent_type);
	OFFSET(famfs_ioc_map, file_type);
	OFFSET(famfs_ioc_map, file_size);
	OFFSET(famfs_ioc_map, ext_list_count);
	OFFSET(famfs_ioc_map, ext_list);

	SIZE(famfs_ioc_simple_extent);
	OFFSET(famfs_ioc_simple_extent, devindex);
	OFFSET(famfs_ioc_simple_extent, offset);
	OFFSET(famfs_ioc_simple_extent, len);

	SIZE(famfs_ioc_interleaved_extent);
	OFFSET(famfs_ioc_interleaved_extent, nstrips);
	OFFSET(famfs_ioc_interleaved_extent, chunk_size);
	OFFSET(famfs_ioc_interleaved_extent, nbytes);
	OFFSET(famfs_ioc_interleaved_extent, strips);

	SIZE(famfs_ioc_fmap);
	OFFSET(famfs_ioc_fmap, file_size);
	OFFSET(famfs_ioc_fmap, file_type);
	OFFSET(famfs_ioc_fmap, ext_type);
	OFFSET(famfs_ioc_fmap, nextents);
	OFFSET(famfs_ioc_fmap, reserved);
	OFFSET(famfs_ioc_fmap, extents);

	SIZE(famfs_ioc_get_fmap);
	OFFSET(famfs_ioc_get_fmap, fmap);
	OFFSET(famfs_ioc_get_fmap, simple);
	OFFSET(famfs_ioc_get_fmap, interleaved);
	OFFSET(famfs_ioc_get_fmap, strips);

	SIZE(famfs_ioc_piece);
	OFFSET(famfs_ioc_piece, file_offset);
	OFFSET(famfs_ioc_piece, offset);
	OFFSET(famfs_ioc_piece, len);

	SIZE(famfs_ioc_pieces);
	OFFSET(famfs_ioc_pieces, file_size);
	OFFSET(famfs_ioc_pieces, count);
	OFFSET(famfs_ioc_pieces, reserved);
	OFFSET(famfs_ioc_pieces, pieces);

	VALUE(FAMFSIOC_MAP_CREATE);
	VALUE(FAMFSIOC_MAP_GET);
	VALUE(FAMFSIOC_MAP_GETEXT);
	VALUE(FAMFSIOC_NOP);
	VALUE(FAMFSIOC_MAP_CREATE_V2);
	VALUE(FAMFSIOC_MAP_GET_V2);
	VALUE(FAMFSIOC_EDIT);
	VALUE(FAMFSIOC_MAP_PIECES);
	VALUE(FAMFSIOC_GET_PIECES);
	return 0;
}
