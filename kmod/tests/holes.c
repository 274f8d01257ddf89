// SPDX-License-Identifier: GPL-2.0
/*
 * Files of several pieces with holes, and empty ones: what is refused, what
 * holes read as, and that nothing can be stored in them.
 */
#include "faults.h"

#define BASE (96 * MIB)
#define MAX_SIZE (INT64_MAX / PMD * PMD)
#define MANY 5000

/* Pieces in pages: at, where on the device from BASE on, how many */
#define PIECE(at, on, n) { (at) * PAGE, BASE + (on) * PAGE, (n) * PAGE }

static const struct {
	const char *what;
	int error;
	uint64_t size;
	uint32_t count;
	struct famfs_ioc_piece pieces[2];
} bad[] = {
	{ "a file offset within a page", EINVAL, PMD, 1,
	  { { 512, BASE, PAGE } } },
	{ "a device offset within a page", EINVAL, PMD, 1,
	  { { 0, BASE + 512, PAGE } } },
	{ "a length within a page", EINVAL, PMD, 1, { { 0, BASE, 512 } } },
	{ "a length of 0", EINVAL, PMD, 1, { { 0, BASE, 0 } } },
	{ "device offset 0", EINVAL, PMD, 1, { { 0, 0, PAGE } } },
	{ "pieces out of order", EINVAL, PMD, 2,
	  { PIECE(4, 4, 1), PIECE(0, 0, 1) } },
	{ "pieces that overlap in the file", EINVAL, PMD, 2,
	  { PIECE(0, 0, 2), PIECE(1, 8, 2) } },
	{ "pieces that overlap on the device", EBUSY, PMD, 2,
	  { PIECE(0, 0, 2), PIECE(2, 1, 2) } },
	{ "a piece at the end of the file", EINVAL, PAGE, 2,
	  { PIECE(0, 0, 1), PIECE(1, 1, 1) } },
	{ "a piece of an empty file", EINVAL, 0, 1, { PIECE(0, 0, 1) } },
	{ "a file offset of 2^64 - 4096", EINVAL, PMD, 1,
	  { { 0 - PAGE, BASE, PAGE } } },
	{ "a file offset and length that wrap", EINVAL, MAX_SIZE, 2,
	  { PIECE(0, 0, 1), { 0 - PAGE, BASE + PMD, 2 * PAGE } } },
	{ "a piece beyond the device", ERANGE, PMD, 1,
	  { { 0, 1ULL << 62, PAGE } } },
	{ "a length beyond the device", ERANGE, PMD, 1,
	  { { 0, BASE, 1ULL << 62 } } },
	{ "a size above the largest", EINVAL, MAX_SIZE + 1, 0, {} },
	{ "a size of 2^64 - 1", EINVAL, UINT64_MAX, 0, {} },
};

static void test_refusals(void)
{
	struct famfs_ioc_piece good = PIECE(0, 0, 1);
	struct famfs_ioc_pieces pieces = {
		.file_size = 1, .count = 1, .pieces = (uintptr_t)&good,
	};
	int fd = make_stub("refused"), reader = open(at("refused"), O_RDONLY);
	int dir = open(mnt, O_RDONLY | O_DIRECTORY);
	struct stat st;
	pid_t child;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		fails(map_pieces(fd, bad[i].size, bad[i].count, bad[i].pieces),
		      bad[i].error, bad[i].what);
	fails(map_pieces(fd, PMD, FAMFS_MAX_PIECES + 1, &good), E2BIG,
	      "65,537 pieces");
	fails(map_pieces(fd, PMD, UINT32_MAX, &good), E2BIG,
	      "2^32 - 1 pieces");
	fails(map_pieces(fd, 1, 1, (void *)8), EFAULT, "a bad list pointer");
	fails(ioctl(fd, FAMFSIOC_MAP_PIECES, (void *)8), EFAULT,
	      "a bad pointer");
	pieces.reserved = 1;
	fails(ioctl(fd, FAMFSIOC_MAP_PIECES, &pieces), EINVAL,
	      "something in the reserved field");
	fails(ioctl(fd, FAMFSIOC_GET_PIECES, &pieces), ENODATA,
	      "GET_PIECES without a map");
	fails(map_pieces(reader, 1, 1, &good), EBADF,
	      "a descriptor for reading");
	fails(map_pieces(dir, 1, 1, &good), ENOTTY, "a directory");
	fflush(stdout);
	child = fork();
	if (!child) {
		if (setgid(1000) || setuid(1000))
			_exit(1);
		_exit(map_pieces(fd, 1, 1, &good) != -1 || errno != EPERM);
	}
	is(wait_for(child), 0, "an ordinary user: EPERM");
	fstat(fd, &st);
	is(st.st_size, 0, "the file is still without a map");
	works(map_pieces(fd, 1, 1, &good), "a good map");
	fails(map_pieces(fd, 1, 1, &good), EEXIST, "and another one");
	fails(map_pieces(fd, 0, 0, NULL), EEXIST, "or an empty one");
	close(dir);
	close(reader);
	close(fd);
	unlink(at("refused"));
}

/*
 * 8 pages of data at the start, a hole to 2 MiB, 2 MiB of data, a hole of
 * 2 MiB, two pages of data, a hole to the end.
 */
#define SIZE (3 * PMD + 8 * PAGE + 100)
static const struct famfs_ioc_piece sparse[] = {
	PIECE(0, 3, 8),
	PIECE(512, 512, 512),
	PIECE(1536, 100, 2),
};

static bool in_hole(uint64_t pos)
{
	for (size_t i = 0; i < ARRAY_SIZE(sparse); i++)
		if (pos >= sparse[i].file_offset &&
		    pos < sparse[i].file_offset + sparse[i].len)
			return false;
	return true;
}

static void test_told(int fd)
{
	struct famfs_ioc_piece list[4];
	struct famfs_ioc_pieces pieces = {
		.count = ARRAY_SIZE(list), .pieces = (uintptr_t)list,
	};
	struct famfs_ioc_get_fmap get;
	struct famfs_extent extents[16];
	struct famfs_ioc_map map;
	struct stat st;

	memset(list, 0xee, sizeof(list));
	works(ioctl(fd, FAMFSIOC_GET_PIECES, &pieces), "GET_PIECES");
	ok(pieces.file_size == SIZE && pieces.count == 3 &&
	   !memcmp(list, sparse, sizeof(sparse)) &&
	   list[3].len == 0xeeeeeeeeeeeeeeeeULL,
	   "tells what was set, and writes no more");
	memset(list, 0xee, sizeof(list));
	pieces.count = 1;
	works(ioctl(fd, FAMFSIOC_GET_PIECES, &pieces), "with room for one");
	ok(pieces.count == 3 && !memcmp(list, sparse, sizeof(sparse[0])) &&
	   list[1].len == 0xeeeeeeeeeeeeeeeeULL, "tells one, and counts three");
	pieces.count = 0;
	pieces.pieces = 8;
	works(ioctl(fd, FAMFSIOC_GET_PIECES, &pieces), "with no room at all");
	fails(ioctl(fd, FAMFSIOC_GET_PIECES, &pieces), EFAULT,
	      "with a bad list pointer");
	fails(ioctl(fd, FAMFSIOC_GET_PIECES, (void *)8), EFAULT,
	      "with a bad pointer");
	pieces.reserved = 1;
	fails(ioctl(fd, FAMFSIOC_GET_PIECES, &pieces), EINVAL,
	      "with something in the reserved field");
	fails(ioctl(fd, FAMFSIOC_MAP_GET, &map), EOVERFLOW,
	      "MAP_GET knows no holes");
	fails(ioctl(fd, FAMFSIOC_MAP_GETEXT, extents), EOVERFLOW,
	      "nor does MAP_GETEXT");
	fails(ioctl(fd, FAMFSIOC_MAP_GET_V2, &get), EOVERFLOW,
	      "nor MAP_GET_V2");
	fstat(fd, &st);
	is(st.st_size, SIZE, "stat tells the size");
	is(st.st_blocks, (PMD + 10 * PAGE) / 512, "and the blocks that exist");
}

static void test_read_write(int fd)
{
	static char data[PMD + 16 * PAGE], back[SIZE];
	bool good = true;

	memset(data, 'd', sizeof(data));
	is(pwrite(fd, data, 9 * PAGE, 0), 8 * PAGE,
	   "a write into a hole ends where that begins");
	fails(pwrite(fd, data, 1, 8 * PAGE), ENOSPC, "a write in a hole");
	fails(pwrite(fd, data, sizeof(data), PMD - PAGE), ENOSPC,
	      "a write that begins in a hole");
	is(pwrite(fd, data, sizeof(data), PMD), PMD, "a write of 2 MiB");
	is(pwrite(fd, data, 2 * PAGE, 3 * PMD), 2 * PAGE,
	   "a write of two pages");
	fails(pwrite(fd, data, 1, SIZE - 1), ENOSPC,
	      "a write of the last byte, in a hole");
	is(pread(fd, back, SIZE, 0), SIZE, "a read of everything");
	for (uint64_t i = 0; i < SIZE; i++)
		good &= back[i] == (in_hole(i) ? 0 : 'd');
	ok(good, "holes are zeros");
}

static void test_mmap(int fd)
{
	char *mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	char *copy = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	struct stat before, after;
	bool good = true;
	char byte;

	count_faults();
	for (uint64_t i = 0; i < SIZE; i += PAGE)
		good &= mem[i] == (in_hole(i) ? 0 : 'd');
	ok(good, "holes are zeros in memory");
	/* 2 MiB of data and of a hole; the rest has both, or the end */
	expect_faults(2, 512 + 9, "read all of it");
	fstat(fd, &before);
	wait_for_tick();
	is(touch_to_write(mem + 8 * PAGE), BUS_ADRERR, "a store to a hole that was read");
	ok(touch_info.si_addr == mem + 8 * PAGE, "at the right address");
	is(touch_to_write(mem + 2 * PMD + 5 * PAGE), BUS_ADRERR,
	   "a store to 2 MiB of a hole");
	is(touch(mem + 2 * PMD + 5 * PAGE), 0, "which can be read after it");
	is(touch_to_write(mem + 3 * PMD + 8 * PAGE), BUS_ADRERR,
	   "a store to the last page, in a hole");
	fstat(fd, &after);
	ok(!memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)),
	   "a store that is refused leaves the times alone");
	is(touch_to_write(mem + 7 * PAGE), 0, "a store to the data before a hole");
	fstat(fd, &after);
	ok(memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)),
	   "and one that is done does not");
	works(madvise(mem, SIZE, MADV_DONTNEED), "forget the mapping");
	is(touch_to_write(mem + 9 * PAGE), BUS_ADRERR, "a store to a hole at once");
	is(mem[9 * PAGE], 0, "the hole is still of zeros");

	is(touch_to_write(copy + 8 * PAGE), 0, "a private store to a hole");
	is(touch_to_write(copy + 2 * PMD), 0, "and to 2 MiB of one");
	is(copy[8 * PAGE], 's', "is there");
	is(mem[8 * PAGE], 0, "for nobody else");
	is(pread(fd, &byte, 1, 8 * PAGE), 1, "read the file there");
	is(byte, 0, "it is not there either");
	works(msync(mem, SIZE, MS_SYNC), "msync");
	works(fsync(fd), "fsync");
	munmap(mem, SIZE);
	munmap(copy, SIZE);
}

static void test_seek(int fd)
{
	is(lseek(fd, 0, SEEK_DATA), 0, "data from 0");
	is(lseek(fd, 0, SEEK_HOLE), 8 * PAGE, "the first hole");
	is(lseek(fd, 8 * PAGE, SEEK_DATA), PMD, "the data after it");
	is(lseek(fd, 9 * PAGE + 5, SEEK_HOLE), 9 * PAGE + 5, "within a hole");
	is(lseek(fd, PMD, SEEK_HOLE), 2 * PMD, "the second hole");
	is(lseek(fd, 2 * PMD, SEEK_DATA), 3 * PMD, "the last data");
	is(lseek(fd, 3 * PMD, SEEK_HOLE), 3 * PMD + 2 * PAGE, "the last hole");
	fails(lseek(fd, 3 * PMD + 2 * PAGE, SEEK_DATA), ENXIO,
	      "no data after it");
	fails(lseek(fd, SIZE, SEEK_HOLE), ENXIO, "nothing after the end");
	is(lseek(fd, -1, SEEK_END), SIZE - 1, "from the end");
}

static void test_sparse(void)
{
	int fd = make_stub("sparse");
	struct statfs sfs;

	works(map_pieces(fd, SIZE, ARRAY_SIZE(sparse), sparse),
	      "three pieces with holes");
	statfs(mnt, &sfs);
	is(sfs.f_blocks - sfs.f_bfree, 512 + 10, "statfs counts what is there");
	test_told(fd);
	test_read_write(fd);
	test_mmap(fd);
	test_seek(fd);
	close(fd);
	unlink(at("sparse"));
	statfs(mnt, &sfs);
	is(sfs.f_blocks, sfs.f_bfree, "and all is free after it");
}

/* Nothing but a hole, as large as a file can be */
static void test_only_hole(void)
{
	int fd = make_stub("hole"), mapped;
	char bytes[2] = "xx";
	char *mem;

	works(map_pieces(fd, MAX_SIZE, 0, NULL), "the largest file, one hole");
	is(pread(fd, bytes, 2, MAX_SIZE - 1), 1, "read its last byte");
	is(bytes[0], 0, "which is 0");
	is(pread(fd, bytes, 2, MAX_SIZE), 0, "read at the end");
	fails(lseek(fd, 0, SEEK_DATA), ENXIO, "there is no data");
	is(lseek(fd, 12345, SEEK_HOLE), 12345, "and a hole everywhere");
	mem = mmap(NULL, PMD, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   MAX_SIZE - PMD);
	mapped = mem != MAP_FAILED;
	ok(mapped, "map its end");
	if (mapped) {
		is(touch(mem + PMD - 1), 0, "a load of the last byte");
		is(touch_to_write(mem + PMD - 1), BUS_ADRERR, "and a store");
		munmap(mem, PMD);
	}
	close(fd);
	unlink(at("hole"));
}

static void test_empty(void)
{
	struct famfs_ioc_pieces pieces = { .count = 1, .pieces = 8 };
	int fd = make_stub("empty");
	struct famfs_ioc_map map;
	struct stat st;
	char byte;
	char *mem;

	fails(pread(fd, &byte, 1, 0), ENODATA, "a file without a map");
	works(map_pieces(fd, 0, 0, NULL), "a file of no bytes");
	is(pread(fd, &byte, 1, 0), 0, "reads as empty");
	fails(pwrite(fd, "x", 1, 0), ENOSPC, "takes no byte");
	works(ftruncate(fd, 0), "truncate to 0");
	fails(ftruncate(fd, 1), EPERM, "and to 1");
	fstat(fd, &st);
	ok(!st.st_size && !st.st_blocks, "stat tells 0");
	works(ioctl(fd, FAMFSIOC_GET_PIECES, &pieces), "GET_PIECES");
	ok(!pieces.file_size && !pieces.count, "tells 0");
	works(ioctl(fd, FAMFSIOC_MAP_GET, &map), "MAP_GET");
	ok(!map.file_size && !map.ext_list_count, "tells 0 too");
	fails(map_pieces(fd, 0, 0, NULL), EEXIST, "a second map");
	fails(lseek(fd, 0, SEEK_HOLE), ENXIO, "SEEK_HOLE");
	mem = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	ok(mem != MAP_FAILED, "mmap");
	is(touch(mem), BUS_ADRERR, "has nothing to load");
	munmap(mem, PAGE);
	works(fsync(fd), "fsync");
	close(fd);
	fd = open(at("empty"), O_RDWR | O_TRUNC);
	works(fd, "open with O_TRUNC");
	close(fd);
	works(unlink(at("empty")), "remove it");
}

/* Every other page, backwards on the device */
static void test_many(void)
{
	struct famfs_ioc_piece *list = calloc(MANY, sizeof(*list));
	struct famfs_ioc_piece *got = calloc(MANY, sizeof(*list));
	struct famfs_ioc_pieces pieces = {
		.count = MANY, .pieces = (uintptr_t)got,
	};
	uint64_t size = 2 * MANY * PAGE;
	struct famfs_ioc_map map;
	int fd = make_stub("many"), good = 0;
	char *mem;

	for (uint64_t i = 0; i < MANY; i++)
		list[i] = (struct famfs_ioc_piece)PIECE(2 * i, MANY - i, 1);
	works(map_pieces(fd, size, MANY, list), "5,000 pieces");
	works(ioctl(fd, FAMFSIOC_GET_PIECES, &pieces), "GET_PIECES of 5,000");
	ok(pieces.count == MANY && !memcmp(list, got, MANY * sizeof(*list)),
	   "tells them all");
	fails(ioctl(fd, FAMFSIOC_MAP_GET, &map), EOVERFLOW,
	      "MAP_GET has no room");
	mem = map_file(fd, size, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (uint64_t i = 0; i < MANY; i++)
		mem[2 * i * PAGE] = pattern(i * PAGE, 1);
	for (uint64_t i = 0; i < MANY; i++) {
		unsigned char bytes[2] = { 1, 1 };

		pread(fd, &bytes[0], 1, 2 * i * PAGE);
		pread(fd, &bytes[1], 1, 2 * i * PAGE + PAGE);
		good += bytes[0] == pattern(i * PAGE, 1) && !bytes[1];
	}
	is(good, MANY, "each has its page, and a hole behind it");
	munmap(mem, size);
	close(fd);
	unlink(at("many"));
	free(got);
	free(list);
}

/* Pieces without a hole are what the other interfaces call extents */
static void test_contiguous(void)
{
	struct famfs_ioc_piece list[FAMFS_MAX_EXTENTS + 1];
	struct famfs_ioc_get_fmap get;
	int fd = make_stub("contiguous");

	for (uint64_t i = 0; i < ARRAY_SIZE(list); i++)
		list[i] = (struct famfs_ioc_piece)PIECE(i, 3 * i, 1);
	works(map_pieces(fd, 16 * PAGE, 16, list), "16 pieces without holes");
	works(ioctl(fd, FAMFSIOC_MAP_GET_V2, &get), "MAP_GET_V2");
	ok(get.fmap.file_size == 16 * PAGE && get.fmap.nextents == 16 &&
	   !get.fmap.file_type && get.simple[15].offset == BASE + 45 * PAGE,
	   "tells them");
	close(fd);
	unlink(at("contiguous"));

	fd = make_stub("contiguous");
	works(map_pieces(fd, 17 * PAGE, 17, list), "17 of them");
	fails(ioctl(fd, FAMFSIOC_MAP_GET_V2, &get), EOVERFLOW,
	      "are one too many");
	close(fd);
	unlink(at("contiguous"));
}

static void test_interleaved(void)
{
	struct famfs_ioc_simple_extent strip = { .offset = BASE, .len = PMD };
	struct famfs_ioc_pieces pieces = { 0 };
	int fd = make_stub("interleaved");

	works(map_interleaved(fd, PMD, PMD, 1, &strip), "an interleaved map");
	fails(ioctl(fd, FAMFSIOC_GET_PIECES, &pieces), EOPNOTSUPP,
	      "has no pieces");
	close(fd);
	unlink(at("interleaved"));
}

int main(int argc, char **argv)
{
	set_up(argc, argv);
	faults_set_up();
	test_refusals();
	test_sparse();
	test_only_hole();
	test_empty();
	test_many();
	test_contiguous();
	test_interleaved();
	faults_tear_down();
	return tear_down();
}
