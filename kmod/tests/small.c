// SPDX-License-Identifier: GPL-2.0
/*
 * Files of a few pages that share 2 MiB of the device, and large files with
 * the same memory before and after them: by 2 MiB, by 4 KiB, and by 2 MiB
 * again.
 */
#include "faults.h"

#define BASE (96 * MIB)
#define FILES (PMD / PAGE)

static int fds[FILES];

static const char *small_name(unsigned int i)
{
	static char name[16];

	snprintf(name, sizeof(name), "small%u", i);
	return name;
}

static void make_files(void)
{
	/* The last byte of the first file is in the middle of its page */
	for (unsigned int i = 0; i < FILES; i++)
		fds[i] = make_small(small_name(i), BASE + i * PAGE,
				    i ? PAGE : 100);
}

static void remove_files(void)
{
	int removed = 0;

	for (unsigned int i = 0; i < FILES; i++) {
		close(fds[i]);
		removed += !unlink(at(small_name(i)));
	}
	is(removed, FILES, "remove the small files");
}

static uint64_t used_bytes(void)
{
	struct statfs sfs;

	statfs(mnt, &sfs);
	return (sfs.f_blocks - sfs.f_bfree) * sfs.f_bsize;
}

/* 512 files in 2 MiB: each has its own page, and no more than that */
static void test_contents(void)
{
	int written = 0, right = 0;
	struct stat st;
	char page[PAGE];

	make_files();
	is(used_bytes(), PMD, "512 files of a page take 2 MiB");
	for (unsigned int i = 0; i < FILES; i++) {
		memset(page, 'a' + i % 26, sizeof(page));
		written += pwrite(fds[i], page, sizeof(page), 0) ==
			   (i ? (int)PAGE : 100);
	}
	is(written, FILES, "write each, up to its size");
	count_faults();
	for (unsigned int i = 0; i < FILES; i++) {
		char *mem = map_file(fds[i], PAGE, PROT_READ | PROT_WRITE,
				     MAP_SHARED);

		right += mem[0] == 'a' + (int)i % 26 && mem[99] == mem[0] &&
			 (!i || mem[PAGE - 1] == mem[0]);
		mem[0] = i;
		munmap(mem, PAGE);
	}
	/* One to read, one to write */
	expect_faults(0, 2 * FILES, "map each");
	is(right, FILES, "each has its own bytes");
	fstat(fds[0], &st);
	is(st.st_size, 100, "a size in bytes");
	is(st.st_blocks, 1, "and its blocks");
}

/* Ranges are taken by the page */
static void test_overlap(void)
{
	struct famfs_ioc_simple_extent extent = {
		.offset = BASE, .len = PMD,
	};
	struct famfs_ioc_piece piece = {
		.offset = BASE + 7 * PAGE, .len = PAGE,
	};
	int fd = make_stub("next");

	fails(map_simple(fd, PMD, 1, &extent), EBUSY,
	      "2 MiB that small files are in");
	unlink(at(small_name(7)));
	fails(map_pieces(fd, 1, 1, &piece), EBUSY,
	      "the page of a file that is open");
	close(fds[7]);
	works(map_pieces(fd, 1, 1, &piece), "and after the close");
	fails(map_simple(fd, PMD, 1, &extent), EEXIST, "another map for it");
	close(fd);
	unlink(at("next"));
	fds[7] = make_small(small_name(7), BASE + 7 * PAGE, PAGE);
}

/* A pin holds the range of one file, and nothing beside it */
static void test_pin(void)
{
	struct famfs_ioc_piece piece = {
		.offset = BASE + 9 * PAGE, .len = PAGE,
	};
	char *mem = map_file(fds[9], PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	int pipes[2], fd;
	pid_t child;

	pin_page(mem, pipes);
	close(fds[8]);
	works(unlink(at(small_name(8))), "remove the file before it");
	fds[8] = make_small(small_name(8), BASE + 8 * PAGE, PAGE);
	unlink(at(small_name(9)));
	close(fds[9]);
	works(madvise(mem, PAGE, MADV_DONTFORK), "keep it from the child");
	child = unpin_later(pipes);
	munmap(mem, PAGE);
	is(wait_for(child), 0, "the last munmap waits for the pin");
	close(pipes[0]);
	close(pipes[1]);
	fd = make_stub(small_name(9));
	works(map_pieces(fd, PAGE, 1, &piece), "the range is free after it");
	fds[9] = fd;
}

/* Reads a byte of every page, which the page before it in the file has not */
static bool has_numbers(const volatile char *mem)
{
	for (unsigned int i = 1; i < FILES; i++)
		if (i != 9 && mem[i * PAGE] != (char)i)
			return false;
	return true;
}

/* One folio of 2 MiB becomes 512, and the other way round */
static void test_large(void)
{
	char *mem;
	int fd;

	remove_files();
	fd = make_file("large", BASE, PMD);
	mem = map_file(fd, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	count_faults();
	ok(has_numbers(mem), "a large file has what the small ones left");
	expect_faults(1, 0, "by 2 MiB");
	mem[PAGE + 1] = 'l';
	munmap(mem, PMD);
	close(fd);
	unlink(at("large"));

	make_files();
	mem = map_file(fds[1], PAGE, PROT_READ, MAP_SHARED);
	count_faults();
	is(mem[1], 'l', "a small file has what the large one left");
	expect_faults(0, 1, "by 4 KiB");
	munmap(mem, PAGE);
	remove_files();
	is(used_bytes(), 0, "all is free");
}

/* A large file is mapped while the pages around it come and go */
static void test_neighbours(void)
{
	int large = make_file("large", BASE + PMD, PMD), good = 0;
	char *mem = map_file(large, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);

	memset(mem, 'n', PMD);
	for (int i = 0; i < 200; i++) {
		int below = make_small("below", BASE + PMD - PAGE, PAGE);
		int above = make_small("above", BASE + 2 * PMD, PAGE);
		char *low = map_file(below, PAGE, PROT_READ | PROT_WRITE,
				     MAP_SHARED);
		char *high = map_file(above, PAGE, PROT_READ | PROT_WRITE,
				      MAP_SHARED);

		memset(low, i, PAGE);
		memset(high, i, PAGE);
		good += mem[0] == 'n' && mem[PMD - 1] == 'n';
		munmap(low, PAGE);
		munmap(high, PAGE);
		close(below);
		close(above);
		unlink(at("below"));
		unlink(at("above"));
	}
	is(good, 200, "pages beside 2 MiB that are mapped");
	munmap(mem, PMD);
	close(large);
	unlink(at("large"));
}

/* 2 MiB at a time where file and device are aligned alike, and nowhere else */
static void test_alignment(void)
{
	static const struct {
		const char *what;
		struct famfs_ioc_simple_extent extents[3];
		int count, pmd, pte;
	} cases[] = {
		{ "a device offset that is not aligned",
		  { { 0, BASE + PAGE, 2 * PMD } }, 1, 0, 1024 },
		{ "2 MiB, and 2 MiB that are not aligned",
		  { { 0, BASE, PMD }, { 0, BASE + 2 * PMD + PAGE, PMD } },
		  2, 1, 512 },
		{ "a page ahead of 2 MiB that are aligned",
		  { { 0, BASE, PAGE }, { 0, BASE + PMD, 2 * PMD } },
		  2, 0, 1025 },
		{ "a page ahead of 2 MiB that make up for it",
		  { { 0, BASE + 4 * PMD, PAGE },
		    { 0, BASE + PAGE, 2 * PMD - PAGE } }, 2, 1, 512 },
		{ "2 MiB of two extents",
		  { { 0, BASE, PMD / 2 }, { 0, BASE + PMD / 2, PMD / 2 } },
		  2, 0, 512 },
		{ "two aligned extents, one before the other",
		  { { 0, BASE + PMD, PMD }, { 0, BASE, PMD } }, 2, 2, 0 },
	};

	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		int fd = make_stub("aligned");
		uint64_t size = 0;
		bool good = true;
		char *mem;

		for (int i = 0; i < cases[c].count; i++)
			size += cases[c].extents[i].len;
		if (map_simple(fd, size, cases[c].count, cases[c].extents))
			bail("map %s", cases[c].what);
		mem = map_file(fd, size, PROT_READ | PROT_WRITE, MAP_SHARED);
		count_faults();
		for (uint64_t i = 0; i < size; i += PAGE)
			mem[i] = pattern(i, c);
		expect_faults(cases[c].pmd, cases[c].pte, cases[c].what);
		munmap(mem, size);
		for (uint64_t i = 0; i < size; i += PAGE) {
			unsigned char byte;

			good &= pread(fd, &byte, 1, i) == 1 &&
				byte == pattern(i, c);
		}
		ok(good, "and the bytes are where read(2) looks for them");
		close(fd);
		unlink(at("aligned"));
	}
}

/* A file that is as small as its last page, with other files around it */
static void test_end(void)
{
	int fd = make_small("end", BASE, PAGE + 1);
	char *mem = map_file(fd, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	char bytes[2 * PAGE] = "";

	is(pwrite(fd, bytes, sizeof(bytes), 1), PAGE,
	   "a write across the end is short");
	fails(pwrite(fd, bytes, 1, PAGE + 1), ENOSPC, "a write at the end");
	is(touch_to_write(mem + PAGE), 0, "a store in the last page");
	is(touch_to_write(mem + 2 * PAGE), BUS_ADRERR, "and behind it");
	munmap(mem, 3 * PAGE);
	close(fd);
	unlink(at("end"));
}

int main(int argc, char **argv)
{
	set_up(argc, argv);
	faults_set_up();
	test_contents();
	test_overlap();
	test_pin();
	test_large();
	test_neighbours();
	test_alignment();
	test_end();
	faults_tear_down();
	return tear_down();
}
