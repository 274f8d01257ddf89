// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings and their faults, counted: 2 MiB at a time wherever the alignment
 * of file, extent and address allows it, and not one fault more.
 */
#include "faults.h"

#define BASE (64 * MIB)
#define SIZE (16 * MIB)
#define TAIL 5000

static const struct famfs_ioc_simple_extent extents[] = {
	{ 0, BASE + SIZE, SIZE / 2 },
	{ 0, BASE, SIZE / 2 },
};

/* Read or write a byte in every page. */
static void read_all(const volatile char *mem, uint64_t size)
{
	for (uint64_t i = 0; i < size; i += 4096)
		(void)mem[i];
}

static void write_all(volatile char *mem, uint64_t size, unsigned int round)
{
	for (uint64_t i = 0; i < size; i += 4096)
		mem[i] = pattern(i, round);
}

static bool has_all(const volatile char *mem, uint64_t size,
		    unsigned int round)
{
	for (uint64_t i = 0; i < size; i += 4096)
		if ((unsigned char)mem[i] != pattern(i, round))
			return false;
	return true;
}

static void test_shared(int fd)
{
	char *mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	unsigned char byte;

	ok((uintptr_t)mem % PMD == 0, "mmap chooses an address for 2 MiB pages");
	count_faults();
	write_all(mem, SIZE, 1);
	expect_faults(SIZE / PMD, 0, "write through a shared mapping");
	write_all(mem, SIZE, 2);
	expect_faults(0, 0, "write again");
	munmap(mem, SIZE);

	mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	read_all(mem, SIZE);
	expect_faults(SIZE / PMD, 0, "read through a new mapping");
	ok(has_all(mem, SIZE, 2), "what was written is there");
	expect_faults(0, 0, "read again");
	write_all(mem, SIZE, 3);
	expect_faults(SIZE / PMD, 0, "write after read");
	pread(fd, &byte, 1, SIZE - 4096);
	is(byte, pattern(SIZE - 4096, 3), "read(2) sees what was stored");
	byte = 0x5a;
	pwrite(fd, &byte, 1, SIZE / 2);
	is(mem[SIZE / 2], 0x5a, "a load sees what write(2) wrote");
	works(msync(mem, SIZE, MS_SYNC), "msync");
	count_faults();
	write_all(mem, SIZE, 4);
	/* What was written back is mapped read-only, to see the next write */
	expect_faults(dev_is_char ? 0 : SIZE / PMD, 0, "write after msync");
	works(syncfs(fd), "syncfs");
	count_faults();
	write_all(mem, SIZE, 4);
	expect_faults(dev_is_char ? 0 : SIZE / PMD, 0, "write after syncfs");
	munmap(mem, SIZE);
}

static void test_populate(int fd)
{
	char *mem;

	count_faults();
	mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE);
	expect_faults(SIZE / PMD, 0, "MAP_POPULATE");
	read_all(mem, SIZE);
	expect_faults(0, 0, "read what was populated");
	write_all(mem, SIZE, 4);
	expect_faults(SIZE / PMD, 0, "write what was populated for reading");
	works(madvise(mem, SIZE, MADV_DONTNEED), "MADV_DONTNEED");
	read_all(mem, SIZE);
	expect_faults(SIZE / PMD, 0, "read after MADV_DONTNEED");
	fails(madvise(mem, PMD, MADV_REMOVE), EOPNOTSUPP, "MADV_REMOVE");
	munmap(mem, SIZE);
}

static void test_large(void)
{
	int fd = make_file("large", BASE + 4 * SIZE, 64 * MIB);
	char *mem = map_file(fd, 64 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED);

	count_faults();
	write_all(mem, 64 * MIB, 5);
	expect_faults(32, 0, "64 MiB");
	munmap(mem, 64 * MIB);
	close(fd);
	unlink(at("large"));
}

static void test_private(int fd)
{
	char *mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	struct faults faults;
	unsigned char byte;

	count_faults();
	read_all(mem, SIZE);
	expect_faults(SIZE / PMD, 0, "read through a private mapping");
	mem[0] = 0x77;
	faults = count_faults();
	is(faults.cow, 1, "a write there copies one page");
	is(mem[0], 0x77, "the copy has it");
	pread(fd, &byte, 1, 0);
	ok(byte != 0x77, "the file has it not");
	is(mem[4096], (char)pattern(4096, 4), "the next page is the file's");
	munmap(mem, SIZE);
}

/* Two pages and a bit in the last 2 MiB of the file */
static void test_tail(void)
{
	int fd = make_file("tail", BASE + 8 * SIZE, PMD + TAIL);
	char *mem = map_file(fd, 2 * PMD, PROT_READ | PROT_WRITE, MAP_SHARED);

	count_faults();
	write_all(mem, PMD + TAIL, 6);
	expect_faults(1, 2, "a file that ends within a 2 MiB page");
	is(touch(mem + PMD + 2 * 4096), BUS_ADRERR,
	   "SIGBUS after the last page of the file");
	ok(touch_info.si_addr == mem + PMD + 2 * 4096, "at the right address");
	is(touch(mem + PMD + TAIL), 0, "none in the last page");
	munmap(mem, 2 * PMD);
	close(fd);
	unlink(at("tail"));
}

/* At file offset 4096 the address has to have the same colour */
static void test_offset(int fd)
{
	uint64_t size = 3 * PMD;
	char *mem = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 4096);

	ok((uintptr_t)mem % PMD == 4096, "mmap keeps the colour of the offset");
	count_faults();
	read_all(mem, size);
	/* 511 pages, two whole 2 MiB, one page */
	expect_faults(2, 512, "3 pages of 2 MiB from offset 4096");
	munmap(mem, size);
}

static void test_unaligned(void)
{
	int fd = make_file("unaligned", BASE + 9 * SIZE, PMD);
	char *area = mmap(NULL, 3 * PMD, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *mem = (char *)((uintptr_t)area / PMD * PMD + PMD + 4096);

	mem = mmap(mem, PMD, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
	count_faults();
	read_all(mem, PMD);
	expect_faults(0, 512, "a mapping at an address that does not fit");
	munmap(area, 3 * PMD);

	/* What is in use by 4 KiB stays so, for everybody, until it is free */
	mem = map_file(fd, PMD, PROT_READ, MAP_SHARED);
	read_all(mem, PMD);
	expect_faults(0, 512, "the same range at an address that does");
	munmap(mem, PMD);
	close(fd);
	unlink(at("unaligned"));

	fd = make_file("aligned", BASE + 9 * SIZE, PMD);
	mem = map_file(fd, PMD, PROT_READ, MAP_SHARED);
	read_all(mem, PMD);
	expect_faults(1, 0, "the same range in a new file");
	munmap(mem, PMD);
	close(fd);
	unlink(at("aligned"));
}

static void test_nohugepage(void)
{
	int fd = make_file("nohugepage", BASE + 10 * SIZE, PMD);
	char *mem = map_file(fd, PMD, PROT_READ, MAP_SHARED);

	works(madvise(mem, PMD, MADV_NOHUGEPAGE), "MADV_NOHUGEPAGE");
	count_faults();
	read_all(mem, PMD);
	expect_faults(0, 512, "2 MiB");
	munmap(mem, PMD);
	close(fd);
	unlink(at("nohugepage"));
}

static void test_interleaved(void)
{
	struct famfs_ioc_simple_extent strips[4];
	int fd = make_stub("interleaved");
	char *mem;

	for (size_t i = 0; i < ARRAY_SIZE(strips); i++)
		strips[i] = (struct famfs_ioc_simple_extent) {
			.offset = BASE + 8 * SIZE + 3 * i * PMD,
			.len = 2 * PMD,
		};
	if (map_interleaved(fd, SIZE, PMD, 4, strips))
		bail("map 4 strips");
	mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	count_faults();
	write_all(mem, SIZE, 7);
	expect_faults(SIZE / PMD, 0, "an interleaved file");
	ok(has_all(mem, SIZE, 7), "and it keeps its data");
	munmap(mem, SIZE);
	close(fd);
	unlink(at("interleaved"));
}

static void test_changes(int fd)
{
	char *mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	int status;
	char *moved;
	pid_t child;

	write_all(mem, SIZE, 8);
	works(mprotect(mem, PMD / 2, PROT_READ), "mprotect half of 2 MiB");
	ok(has_all(mem, SIZE, 8), "the data is still there");
	mem[PMD / 2] = 0x11;
	is(mem[PMD / 2], 0x11, "the other half can be written");
	moved = mremap(mem + PMD, SIZE - PMD, SIZE - PMD, MREMAP_MAYMOVE |
		       MREMAP_FIXED, mem + 64 * MIB);
	ok(moved != MAP_FAILED && moved[PMD] == (char)pattern(2 * PMD, 8),
	   "mremap moves the rest");
	works(mlock(moved, SIZE - PMD), "mlock");

	child = fork();
	if (!child) {
		moved[0] = 0x22;
		_exit(0);
	}
	waitpid(child, &status, 0);
	is(moved[0], 0x22, "a child's store is seen after fork");
	munmap(mem, PMD);
	munmap(moved, SIZE - PMD);
}

static void test_sync(int fd)
{
	char *mem = mmap(NULL, PMD, PROT_READ | PROT_WRITE,
			 MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);

	/* A virtio-pmem device needs a flush, a devdax device does not */
	if (!dev_is_char) {
		ok(mem == MAP_FAILED && errno == EOPNOTSUPP,
		   "MAP_SYNC: EOPNOTSUPP");
		return;
	}
	ok(mem != MAP_FAILED, "MAP_SYNC");
	count_faults();
	write_all(mem, PMD, 9);
	expect_faults(1, 0, "2 MiB with MAP_SYNC");
	munmap(mem, PMD);
}

int main(int argc, char **argv)
{
	int fd;

	set_up(argc, argv);
	faults_set_up();
	fd = make_stub("file");
	if (map_simple(fd, SIZE, 2, extents))
		bail("map 2 extents");

	test_shared(fd);
	test_populate(fd);
	test_large();
	test_private(fd);
	test_tail();
	test_offset(fd);
	test_unaligned();
	test_nohugepage();
	test_interleaved();
	test_changes(fd);
	test_sync(fd);

	close(fd);
	faults_tear_down();
	return tear_down();
}
