// SPDX-License-Identifier: GPL-2.0
/*
 * Kernel memory of a small file, with name and map, against that of an empty
 * file in tmpfs: memory DEVICE MOUNTPOINT.
 */
#include "fixture.h"

#define FILES 20000
#define BASE (16 * MIB)
#define TMPFS "/tmp/famfs_memory_test"
/* In hundredths */
#define MOST 150

static uint64_t slab_bytes(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	unsigned long long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Slab: %llu", &kib) == 1)
			break;
	if (!kib)
		bail("no Slab in /proc/meminfo");
	fclose(file);
	return kib * KIB;
}

/* What was freed and can be given back must not be counted as new */
static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	if (fd < 0 || write(fd, "2", 1) != 1)
		bail("drop_caches");
	close(fd);
}

/*
 * Memory of a file system that was unmounted is freed later, in the background:
 * wait until the figure stands still.
 */
static uint64_t settled_slab_bytes(void)
{
	uint64_t before, after;

	drop_caches();
	after = slab_bytes();
	for (int i = 0; i < 100; i++) {
		before = after;
		usleep(50 * 1000);
		drop_caches();
		after = slab_bytes();
		if (before < after + 64 * KIB && after < before + 64 * KIB)
			break;
	}
	return after;
}

static uint64_t measure(const char *where, bool mapped)
{
	uint64_t before, after;

	before = settled_slab_bytes();
	for (unsigned int i = 0; i < FILES; i++) {
		struct famfs_ioc_piece piece = {
			.offset = BASE + i * PAGE, .len = PAGE,
		};
		char path[4096];
		int fd;

		snprintf(path, sizeof(path), "%s/%u", where, i);
		fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || (mapped && map_pieces(fd, PAGE, 1, &piece)))
			bail("make %s", path);
		close(fd);
	}
	after = settled_slab_bytes();
	return after > before ? (after - before) / FILES : 0;
}

int main(int argc, char **argv)
{
	uint64_t famfs, tmpfs;

	set_up(argc, argv);
	mkdir(TMPFS, 0700);
	works(mount("none", TMPFS, "tmpfs", 0, ""), "mount a tmpfs");
	/* Once for nothing, so that what is kept for the next time is there */
	measure(TMPFS, false);
	works(umount(TMPFS), "unmount it");
	works(mount("none", TMPFS, "tmpfs", 0, ""), "mount a new one");
	tmpfs = measure(TMPFS, false);
	famfs = measure(mnt, true);
	note("%llu bytes for a file of one extent, %llu in tmpfs",
	     (unsigned long long)famfs, (unsigned long long)tmpfs);
	ok(tmpfs && famfs * 100 < tmpfs * MOST,
	   "less than 1.5 times as much as tmpfs");
	works(umount(TMPFS), "unmount tmpfs");
	rmdir(TMPFS);
	return tear_down();
}
