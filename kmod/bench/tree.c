// SPDX-License-Identifier: GPL-2.0
/*
 * Trees of small files, in famfs and in tmpfs. For famfs, OFFSET is where the
 * files' pages begin on the device; a file gets as many as it needs.
 *
 * make: time for NAMES names in directories of 100, as a log is played: of ten
 * names eight are files without contents, one is a link and one is symbolic.
 * memory: bytes of kernel memory for one of them.
 * keep: makes the same names, with a byte in each file, and prints how many.
 * fill: makes FILES files of 1 to 4,096 bytes, and prints how many bytes.
 * read: time to open, read and close each of the files that fill made.
 * copy: copies a tree with its times into a directory, and prints how many
 * files it has.
 */
#include <ftw.h>
#include <sys/stat.h>

#include "../tests/map.h"
#include "bench.h"

#define PASSES 2
#define PAGE 4096ULL
#define IN_DIRECTORY 100

/* The next free page of the device; 0 in tmpfs */
static uint64_t offset;
static char buffer[1 << 20];

static void make_pieces(int fd, uint64_t size)
{
	struct famfs_ioc_piece piece = {
		.offset = offset, .len = (size + PAGE - 1) / PAGE * PAGE,
	};

	if (map_pieces(fd, size, !!size, &piece))
		die("MAP_PIECES of %llu bytes", (unsigned long long)size);
	offset += piece.len;
}

/* An open directory, which makes this process an editor of a famfs */
static void enter(const char *path)
{
	int dir;

	if (chdir(path))
		die("chdir %s", path);
	dir = open_file(".", O_RDONLY | O_DIRECTORY);
	if (offset && ioctl(dir, FAMFSIOC_EDIT))
		die("become an editor of %s", path);
}

static const char *directory_of(uint64_t i)
{
	static char name[24];

	snprintf(name, sizeof(name), "%llu",
		 (unsigned long long)(i / IN_DIRECTORY));
	return name;
}

static const char *name_of(uint64_t i)
{
	static char names[2][48];
	static int next;
	char *name = names[next++ % 2];

	snprintf(name, sizeof(names[0]), "%llu/%llu",
		 (unsigned long long)(i / IN_DIRECTORY),
		 (unsigned long long)i);
	return name;
}

static int create(const char *name)
{
	int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0644);

	if (fd < 0)
		die("create %s", name);
	return fd;
}

static void make_name(uint64_t i)
{
	static const struct timespec times[2] = {
		{ 1600000000, 1 }, { 1600000000, 1 },
	};
	const char *name = name_of(i);
	int fd;

	if (!(i % IN_DIRECTORY) && mkdir(directory_of(i), 0755))
		die("mkdir %s", directory_of(i));
	if (i % 10 == 8) {
		if (link(name_of(i - 1), name))
			die("link %s", name);
		return;
	}
	if (i % 10 == 9) {
		if (symlink("target", name))
			die("symlink %s", name);
	} else {
		fd = create(name);
		if (offset)
			make_pieces(fd, PAGE);
		close(fd);
	}
	if (utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW))
		die("utimensat %s", name);
}

static void remove_names(uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		if (unlink(name_of(i)))
			die("unlink %s", name_of(i));
	for (uint64_t i = 0; i < count; i += IN_DIRECTORY)
		if (rmdir(directory_of(i)))
			die("rmdir %s", directory_of(i));
}

static void make_names(uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		make_name(i);
}

static void measure_make(uint64_t count)
{
	uint64_t first = offset, best = 0;

	for (int pass = 0; pass < PASSES; pass++) {
		uint64_t start = now();

		offset = first;
		make_names(count);
		keep_best(&best, start);
		remove_names(count);
	}
	report(best);
}

/* What was freed and can be given back is not counted */
static uint64_t slab_bytes(void)
{
	unsigned long long kib = 0;
	char line[128];
	FILE *file;
	int fd = open_file("/proc/sys/vm/drop_caches", O_WRONLY);

	if (write(fd, "2", 1) != 1)
		die("drop_caches");
	close(fd);
	file = fopen("/proc/meminfo", "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Slab: %llu", &kib) == 1)
			break;
	if (!kib)
		die("no Slab in /proc/meminfo");
	fclose(file);
	return kib << 10;
}

/* The first time is for nothing: what is kept for the next time is there then */
static void measure_memory(uint64_t count)
{
	uint64_t first = offset, before = 0, after = 0;

	for (int pass = 0; pass < 2; pass++) {
		before = slab_bytes();
		offset = first;
		make_names(count);
		after = slab_bytes();
		remove_names(count);
	}
	if (after <= before)
		die("%llu names took no memory", (unsigned long long)count);
	report((after - before) / count);
}

static void keep_names(uint64_t count)
{
	make_names(count);
	for (uint64_t i = 0; i < count; i++) {
		int fd;

		if (i % 10 >= 8)
			continue;
		fd = open_file(name_of(i), O_WRONLY);
		if (write(fd, "x", 1) != 1)
			die("write %s", name_of(i));
		close(fd);
	}
	report(count);
}

static void fill(uint64_t count)
{
	uint64_t state = 88172645463325252ULL, bytes = 0;

	memset(buffer, 'x', PAGE);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t size = 1 + random_next(&state) % PAGE;
		int fd;

		if (!(i % IN_DIRECTORY) && mkdir(directory_of(i), 0755))
			die("mkdir %s", directory_of(i));
		fd = create(name_of(i));
		if (offset)
			make_pieces(fd, size);
		if (write(fd, buffer, size) != (ssize_t)size)
			die("write %s", name_of(i));
		close(fd);
		bytes += size;
	}
	report(bytes);
}

static void measure_read(uint64_t count)
{
	uint64_t best = 0;

	for (int pass = 0; pass < PASSES + 1; pass++) {
		uint64_t start = now();

		for (uint64_t i = 0; i < count; i++) {
			int fd = open_file(name_of(i), O_RDONLY);

			if (read(fd, buffer, sizeof(buffer)) <= 0)
				die("read %s", name_of(i));
			close(fd);
		}
		/* The first pass is the one in which caches are cold */
		if (pass)
			keep_best(&best, start);
	}
	report(best);
}

static const char *target;
static size_t source_length;
static uint64_t copied;

static void copy_file(const char *from, const char *to, const struct stat *st)
{
	int source = open_file(from, O_RDONLY), fd = create(to);
	ssize_t got;

	if (offset)
		make_pieces(fd, st->st_size);
	while ((got = read(source, buffer, sizeof(buffer))) > 0)
		if (write(fd, buffer, got) != got)
			die("write %s", to);
	if (got < 0)
		die("read %s", from);
	close(source);
	close(fd);
	copied++;
}

static int copy_one(const char *from, const struct stat *st, int type,
		    struct FTW *ftw)
{
	struct timespec times[2] = { st->st_atim, st->st_mtim };
	char to[4096];

	(void)ftw;
	snprintf(to, sizeof(to), "%s%s", target, from + source_length);
	if (type == FTW_D) {
		if (mkdir(to, 0755) && errno != EEXIST)
			die("mkdir %s", to);
		return 0;
	}
	if (type != FTW_F || !S_ISREG(st->st_mode))
		return 0;
	copy_file(from, to, st);
	if (utimensat(AT_FDCWD, to, times, 0))
		die("utimensat %s", to);
	return 0;
}

static void copy(const char *from, const char *to)
{
	enter(to);
	target = to;
	source_length = strrchr(from, '/') - from;
	if (nftw(from, copy_one, 16, FTW_PHYS))
		die("copy %s", from);
	report(copied);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (argc != 4 && argc != 5)
		usage("make|memory|keep|fill|read DIRECTORY COUNT [OFFSET], or copy FROM TO [OFFSET]");
	offset = argc == 5 ? number(argv[4]) : 0;
	if (!strcmp(what, "copy")) {
		copy(argv[2], argv[3]);
		return 0;
	}
	enter(argv[2]);
	if (!strcmp(what, "make"))
		measure_make(number(argv[3]));
	else if (!strcmp(what, "memory"))
		measure_memory(number(argv[3]));
	else if (!strcmp(what, "keep"))
		keep_names(number(argv[3]));
	else if (!strcmp(what, "fill"))
		fill(number(argv[3]));
	else if (!strcmp(what, "read"))
		measure_read(number(argv[3]));
	else
		usage("what to do is make, memory, keep, fill, read or copy");
	return 0;
}
