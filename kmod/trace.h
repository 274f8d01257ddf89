/* SPDX-License-Identifier: GPL-2.0 */
/*
 * famfs: tracepoints. Faults are traced by fs/dax.c (fs_dax:dax_*_fault_done),
 * with device and inode numbers and the outcome.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM famfs

#if !defined(_FAMFS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _FAMFS_TRACE_H

#include <linux/tracepoint.h>

#include "famfs.h"

TRACE_EVENT(famfs_map_create,
	    TP_PROTO(const struct inode *inode, const struct famfs_map *map),
	    TP_ARGS(inode, map),
	    TP_STRUCT__entry(__field(dev_t, dev)
			     __field(u64, ino)
			     __field(u64, size)
			     __field(u32, file_type)
			     __field(u32, ext_type)
			     __field(u32, nr_spans)
			     __field(u64, chunk_size)),
	    TP_fast_assign(__entry->dev = inode->i_sb->s_dev;
			   __entry->ino = inode->i_ino;
			   __entry->size = map->file_size;
			   __entry->file_type = map->file_type;
			   __entry->ext_type = map->ext_type;
			   __entry->nr_spans = map->nr_spans;
			   __entry->chunk_size = map->chunk_size;),
	    TP_printk("dev %d:%d ino %llu size %llu file_type %u ext_type %u nr_spans %u chunk_size %llu",
		      MAJOR(__entry->dev), MINOR(__entry->dev), __entry->ino,
		      __entry->size, __entry->file_type, __entry->ext_type,
		      __entry->nr_spans, __entry->chunk_size)
);

TRACE_EVENT(famfs_notify_failure,
	    TP_PROTO(const struct famfs_fs_info *fsi, u64 offset, u64 len,
		     int mf_flags, int error),
	    TP_ARGS(fsi, offset, len, mf_flags, error),
	    TP_STRUCT__entry(__field(dev_t, devt)
			     __field(u64, offset)
			     __field(u64, len)
			     __field(int, mf_flags)
			     __field(int, error)),
	    TP_fast_assign(__entry->devt = fsi->devt;
			   __entry->offset = offset;
			   __entry->len = len;
			   __entry->mf_flags = mf_flags;
			   __entry->error = error;),
	    TP_printk("daxdev %d:%d offset %#llx len %#llx mf_flags %#x error %d",
		      MAJOR(__entry->devt), MINOR(__entry->devt),
		      __entry->offset, __entry->len, __entry->mf_flags,
		      __entry->error)
);

#endif /* _FAMFS_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace

#include <trace/define_trace.h>
