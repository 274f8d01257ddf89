// SPDX-License-Identifier: GPL-2.0
/* read(2), write(2) and their kin: seams, the end of the file, all flags. */
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "fixture.h"

#define BASE (32 * MIB)
#define SIZE (3 * PMD + 5000)

static unsigned char data[SIZE], copy[SIZE];

/* Three extents, not in the order of the device; the last is longer */
static const struct famfs_ioc_simple_extent extents[] = {
	{ 0, BASE + 10 * PMD, PMD },
	{ 0, BASE, PMD },
	{ 0, BASE + 4 * PMD, 2 * PMD },
};

static const struct famfs_ioc_simple_extent strips[] = {
	{ 0, BASE + 20 * PMD, 2 * PMD },
	{ 0, BASE + 30 * PMD, 2 * PMD },
	{ 0, BASE + 40 * PMD, 2 * PMD },
};

static void fill(unsigned int round)
{
	for (uint64_t i = 0; i < SIZE; i++)
		data[i] = pattern(i, round);
}

/* The bytes of the device itself, by way of a file that has just them */
static bool device_has(uint64_t offset, const unsigned char *bytes, size_t len)
{
	int fd = make_file("window", offset, PMD);
	bool same = pread(fd, copy, len, 0) == (ssize_t)len &&
		    !memcmp(copy, bytes, len);

	close(fd);
	unlink(at("window"));
	return same;
}

static void test_stub(void)
{
	int fd = make_stub("stub");
	char byte = 0;

	fails(read(fd, &byte, 1), ENODATA, "read without a map");
	fails(write(fd, &byte, 1), ENODATA, "write without a map");
	ok(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED &&
	   errno == ENODATA, "mmap without a map: ENODATA");
	works(ftruncate(fd, 0), "truncate to the size that it has");
	fails(ftruncate(fd, 4096), EPERM, "truncate to another size");
	close(fd);
	unlink(at("stub"));
}

static void test_seams(int fd)
{
	fill(1);
	is(pwrite(fd, data, SIZE, 0), SIZE, "write all");
	is(pread(fd, copy, SIZE, 0), SIZE, "read all");
	ok(!memcmp(data, copy, SIZE), "the same comes back");

	memset(data + PMD - 3, 'x', 6);
	is(pwrite(fd, data + PMD - 3, 6, PMD - 3), 6, "write across a seam");
	is(pread(fd, copy, 10, PMD - 5), 10, "read across a seam");
	ok(!memcmp(copy, data + PMD - 5, 10), "the same comes back there");
}

static void test_end_of_file(int fd)
{
	int append = open(at("file"), O_WRONLY | O_APPEND);

	is(pwrite(fd, data, 100, SIZE - 10), 10, "write over the end is short");
	fails(pwrite(fd, data, 1, SIZE), ENOSPC, "write at the end");
	fails(pwrite(fd, data, 1, 1ULL << 40), ENOSPC, "write beyond the end");
	fails(write(append, data, 1), ENOSPC, "append");
	is(pwrite(fd, data, 0, SIZE), 0, "write nothing at the end");
	is(pread(fd, copy, 100, SIZE - 10), 10, "read over the end is short");
	is(pread(fd, copy, 1, SIZE), 0, "read at the end");
	is(pread(fd, copy, 1, 1ULL << 40), 0, "read beyond the end");
	pwrite(fd, data + SIZE - 10, 10, SIZE - 10);
	close(append);
}

static void test_size_changes(int fd)
{
	struct stat st;

	fails(ftruncate(fd, 0), EPERM, "truncate");
	fails(ftruncate(fd, SIZE + 1), EPERM, "extend");
	works(ftruncate(fd, SIZE), "truncate to the size that it has");
	fails(open(at("file"), O_RDWR | O_TRUNC), EPERM, "open with O_TRUNC");
	fails(fallocate(fd, 0, 0, 4096), EOPNOTSUPP, "fallocate");
	fails(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			4096), EOPNOTSUPP, "punch a hole");
	fstat(fd, &st);
	is(st.st_size, SIZE, "the size is the same");
}

static void test_flags(void)
{
	struct iovec iov = { .iov_base = copy, .iov_len = 4096 };
	int fd = open(at("file"), O_RDWR | O_DIRECT | O_SYNC);

	if (!works(fd, "open with O_DIRECT and O_SYNC"))
		bail("O_DIRECT");
	is(pread(fd, copy, 4096, PMD), 4096, "direct read");
	ok(!memcmp(copy, data + PMD, 4096), "of the right data");
	is(pwrite(fd, data + PMD, 4096, PMD), 4096, "direct write");
	is(preadv2(fd, &iov, 1, 0, RWF_NOWAIT), 4096, "read without waiting");
	iov.iov_base = data;
	/* Some kernels do not set the times of a file without waiting */
	ok(pwritev2(fd, &iov, 1, 0, RWF_NOWAIT) == 4096 || errno == EAGAIN,
	   "write without waiting");
	works(fsync(fd), "fsync");
	works(fdatasync(fd), "fdatasync");
	is(lseek(fd, 0, SEEK_END), SIZE, "seek to the end");
	is(lseek(fd, 0, SEEK_HOLE), SIZE, "no holes before the end");
	close(fd);
}

static void test_splice(int fd)
{
	int out = memfd_create("out", 0);
	off_t from = PMD - 1000, to = 0;
	loff_t at_seam = PMD - 1000;
	int pipes[2];

	if (out < 0 || pipe(pipes))
		bail("memfd and pipe");
	is(splice(fd, &at_seam, pipes[1], NULL, 1500, 0), 1500,
	   "splice to a pipe");
	is(read(pipes[0], copy, 1500), 1500, "read the pipe");
	ok(!memcmp(copy, data + PMD - 1000, 1500), "the right data");

	is(write(pipes[1], data, 1500), 1500, "fill the pipe");
	at_seam = PMD - 1000;
	is(splice(pipes[0], NULL, fd, &at_seam, 1500, 0), 1500,
	   "splice from a pipe");
	memcpy(data + PMD - 1000, data, 1500);
	is(pread(fd, copy, 1500, PMD - 1000), 1500, "read it");
	ok(!memcmp(copy, data, 1500), "the right data again");

	is(sendfile(out, fd, &from, 1500), 1500, "sendfile");
	fails(copy_file_range(fd, &from, out, &to, 100, 0), EXDEV,
	      "copy_file_range to another file system");
	is(pread(out, copy, 1500, 0), 1500, "read what sendfile wrote");
	ok(!memcmp(copy, data + PMD - 1000, 1500), "the right data once more");
	close(out);

	/* The same file system: across a seam of the source, from its tail */
	out = make_file("copy", BASE + 60 * PMD, SIZE);
	from = PMD - 1000;
	to = 3000;
	is(copy_file_range(fd, &from, out, &to, 2 * PMD, 0), 2 * PMD,
	   "copy_file_range within the file system");
	is(pread(out, copy, 2 * PMD, 3000), 2 * PMD, "read the copy");
	ok(!memcmp(copy, data + PMD - 1000, 2 * PMD), "it is one");
	from = SIZE - 10;
	is(copy_file_range(fd, &from, out, &to, 100, 0), 10,
	   "copy_file_range ends with the source");
	to = SIZE;
	from = 0;
	fails(copy_file_range(fd, &from, out, &to, 100, 0), ENOSPC,
	      "copy_file_range beyond the end of the copy");
	close(out);
	unlink(at("copy"));
	close(pipes[0]);
	close(pipes[1]);
}

static void test_interleaved(void)
{
	int fd = make_stub("interleaved");

	works(map_interleaved(fd, 5 * PMD - 100, PMD, 3, strips),
	      "an interleaved file");
	fill(2);
	is(pwrite(fd, data, SIZE, PMD), SIZE, "write it across chunks");
	is(pread(fd, copy, SIZE, PMD), SIZE, "read it");
	ok(!memcmp(data, copy, SIZE), "the same comes back");
	close(fd);
	unlink(at("interleaved"));

	/* Chunk n of the file is chunk n / 3 of strip n % 3 */
	ok(device_has(strips[1].offset, data, PMD),
	   "chunk 1 is the first of strip 1");
	ok(device_has(strips[2].offset, data + PMD, PMD),
	   "chunk 2 is the first of strip 2");
	ok(device_has(strips[0].offset + PMD, data + 2 * PMD, PMD),
	   "chunk 3 is the second of strip 0");
	ok(device_has(strips[1].offset + PMD, data + 3 * PMD, 5000),
	   "chunk 4 is the second of strip 1");
}

int main(int argc, char **argv)
{
	int fd;

	set_up(argc, argv);
	test_stub();

	fd = make_stub("file");
	if (map_simple(fd, SIZE, 3, extents))
		bail("map 3 extents");
	test_seams(fd);
	test_end_of_file(fd);
	test_size_changes(fd);
	test_flags();
	test_splice(fd);
	close(fd);
	unlink(at("file"));

	ok(device_has(extents[0].offset, data, PMD), "extent 0 on the device");
	ok(device_has(extents[1].offset, data + PMD, PMD), "extent 1");
	ok(device_has(extents[2].offset, data + 2 * PMD, PMD), "extent 2");
	ok(device_has(extents[2].offset + PMD, data + 3 * PMD, 5000),
	   "the rest of extent 2");
	test_interleaved();
	return tear_down();
}
