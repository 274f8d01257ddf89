// SPDX-License-Identifier: GPL-2.0
/*
 * A page of a file goes bad, by each way that the kernel has to say so: who
 * touches it is told the exact address, and the mount is over for everybody,
 * but nothing worse.
 */
#include "fixture.h"

/* Not used by the other tests: these pages stay bad until the next boot */
#define BAD (240 * MIB)
#define SMALL_BAD (BAD + 10 * PMD)
#define GOOD (48 * MIB)
#define BAD_PAGE 7

#define DEBUGFS "/sys/kernel/debug"
/* Of the kernel module hwpoison-inject */
#define CORRUPT_PFN DEBUGFS "/hwpoison/corrupt-pfn"
#define HARD_OFFLINE "/sys/devices/system/memory/hard_offline_page"

static siginfo_t poison_info;

static void on_poison(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	poison_info = *info;
}

/* The page frame number behind an address of this process */
static uint64_t pfn_of(const volatile char *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry;

	(void)*page;
	if (pread(fd, &entry, 8, (uintptr_t)page / 4096 * 8) != 8 ||
	    !(entry >> 63))
		bail("pagemap of %p", (void *)page);
	close(fd);
	return entry & ((1ULL << 55) - 1);
}

static int write_number(const char *path, uint64_t number)
{
	char text[32];
	int fd = open(path, O_WRONLY), ret, error;

	snprintf(text, sizeof(text), "%#llx", (unsigned long long)number);
	ret = write(fd, text, strlen(text));
	error = errno;
	close(fd);
	errno = error;
	return ret;
}

static int by_madvise(char *page)
{
	return madvise(page, 4096, MADV_HWPOISON);
}

static int by_hwpoison_inject(char *page)
{
	mount("none", DEBUGFS, "debugfs", 0, NULL);
	return write_number(CORRUPT_PFN, pfn_of(page));
}

static int by_hard_offline(char *page)
{
	return write_number(HARD_OFFLINE, pfn_of(page) * 4096);
}

static const struct injector {
	const char *name;
	int (*inject)(char *page);
} injectors[] = {
	{ "MADV_HWPOISON", by_madvise },
	{ "corrupt-pfn", by_hwpoison_inject },
	{ "hard_offline_page", by_hard_offline },
};

/* The caller, who has the page mapped, counts as one who has touched it. */
static void poison(const struct injector *injector, char *page, int size_shift)
{
	struct sigaction action = {
		.sa_sigaction = on_poison,
		.sa_flags = SA_SIGINFO,
	};
	struct sigaction old;

	memset(&poison_info, 0, sizeof(poison_info));
	sigaction(SIGBUS, &action, &old);
	works(injector->inject(page), injector->name);
	sigaction(SIGBUS, &old, NULL);
	is(poison_info.si_signo, SIGBUS, "who touches it gets SIGBUS");
	is(poison_info.si_code, BUS_MCEERR_AR, "with the code of bad memory");
	if (!ok(poison_info.si_addr == page, "the exact address"))
		note("%p and not %p", poison_info.si_addr, page);
	is(poison_info.si_addr_lsb, size_shift,
	   "and the size of what was mapped");
}

/*
 * A process with the file mapped, which touches it again when told to. It
 * exits with the code of the signal, and 255 if that has the wrong address.
 */
static pid_t start_bystander(char *mem, int *gate)
{
	int ready[2], told[2];
	pid_t child;
	char byte;

	if (pipe(ready) || pipe(told))
		bail("pipe");
	fflush(stdout);
	child = fork();
	if (!child) {
		close(told[1]);
		touch_info.si_code = 0;
		(void)*(volatile char *)mem;
		close(ready[1]);
		(void)!read(told[0], &byte, 1);
		if (touch(mem) && touch_info.si_addr != mem)
			_exit(255);
		_exit(touch_info.si_code);
	}
	close(ready[1]);
	close(told[0]);
	(void)!read(ready[0], &byte, 1);
	close(ready[0]);
	*gate = told[1];
	return child;
}

/* All that a mount does is over, but the ends of it */
static void test_disabled(int bad_fd, int good_fd, char *good)
{
	struct famfs_ioc_simple_extent extent = {
		.offset = GOOD + 4 * PMD, .len = PMD,
	};
	struct famfs_ioc_map map;
	struct stat st;
	char byte = 0;

	is(touch(good), BUS_ADRERR, "a mapping of another file");
	fails(pread(bad_fd, &byte, 1, 0), EIO, "read the file");
	fails(pread(good_fd, &byte, 1, 0), EIO, "read another file");
	fails(pwrite(good_fd, &byte, 1, 0), EIO, "write another file");
	fails(fsync(good_fd), EIO, "fsync");
	fails(syncfs(good_fd), EIO, "syncfs");
	fails(map_simple(good_fd, PMD, 1, &extent), EIO, "MAP_CREATE");
	fails(ioctl(good_fd, FAMFSIOC_MAP_GET, &map), EIO, "MAP_GET");
	fails(open(at("good"), O_RDWR), EIO, "open");
	fails(open(at("new"), O_RDWR | O_CREAT, 0600), EIO, "create");
	fails(mkdir(at("dir"), 0700), EIO, "mkdir");
	ok(mmap(NULL, PMD, PROT_READ, MAP_SHARED, good_fd, 0) == MAP_FAILED &&
	   errno == EIO, "mmap: EIO");
	works(stat(at("good"), &st), "stat");
	works(unlink(at("good")), "unlink");
}

static void test_injector(const struct injector *injector, uint64_t bad_offset)
{
	int bad_fd, good_fd, gate;
	char *bad, *good, *copy, *page;
	pid_t bystander;
	char byte;

	bad_fd = make_file("bad", bad_offset, 2 * PMD);
	good_fd = make_file("good", GOOD, PMD);
	bad = map_file(bad_fd, 2 * PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	good = map_file(good_fd, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	copy = map_file(good_fd, PMD, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	memset(bad, 'b', 2 * PMD);
	memset(good, 'g', PMD);
	copy[0] = 'c';
	bystander = start_bystander(bad + PMD, &gate);

	/* In the middle of a 2 MiB page */
	page = bad + PMD + BAD_PAGE * 4096;
	poison(injector, page, 21);
	is(touch(page), BUS_ADRERR, "the bad page");
	is(touch(bad), BUS_ADRERR, "another page of the file");
	test_disabled(bad_fd, good_fd, good);
	is(touch(copy), 0, "a private copy stays");
	is(copy[0], 'c', "with its data");

	close(gate);
	is(wait_for(bystander), BUS_ADRERR,
	   "another process gets SIGBUS when it touches the file");

	munmap(bad, 2 * PMD);
	munmap(good, PMD);
	munmap(copy, PMD);
	close(bad_fd);
	close(good_fd);
	works(umount(mnt), "unmount");

	works(mount_famfs(""), "mount again");
	good_fd = make_file("good", GOOD, PMD);
	is(pread(good_fd, &byte, 1, PMD - 1), 1, "read the other file");
	is(byte, 'g', "its data is there");
	close(good_fd);
	unlink(at("good"));
}

/*
 * Two small files share 2 MiB and one of their pages goes bad: who has that
 * file mapped is told so, who has the other one is not.
 */
static void test_small(const struct injector *injector, uint64_t offset)
{
	int other_fd = make_small("other", offset, PAGE);
	int bad_fd = make_small("bad", offset + PAGE, PAGE), gate;
	char *other = map_file(other_fd, PAGE, PROT_READ | PROT_WRITE,
			       MAP_SHARED);
	char *bad = map_file(bad_fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	pid_t bystander;
	char byte;

	memset(bad, 'b', PAGE);
	memset(other, 'o', PAGE);
	bystander = start_bystander(other, &gate);
	poison(injector, bad, 12);
	is(touch(bad), BUS_ADRERR, "the small file with the bad page");
	is(touch(other), BUS_ADRERR, "the one beside it");
	fails(pread(other_fd, &byte, 1, 0), EIO, "read that");
	close(gate);
	is(wait_for(bystander), BUS_ADRERR,
	   "a process with only that gets SIGBUS when it touches it");
	munmap(bad, PAGE);
	munmap(other, PAGE);
	close(bad_fd);
	close(other_fd);
	works(umount(mnt), "unmount");
	works(mount_famfs(""), "mount again");
	other_fd = make_small("other", offset, PAGE);
	is(pread(other_fd, &byte, 1, 0), 1, "read the other file");
	is(byte, 'o', "its data is there");
	close(other_fd);
	unlink(at("other"));
}

/* A page of a small file that is gone disturbs no file beside it */
static void test_small_unused(uint64_t offset)
{
	int fd = make_small("gone", offset, PAGE);
	char *mem = map_file(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	uint64_t pfn = pfn_of(mem);
	char byte = 'x';

	munmap(mem, PAGE);
	close(fd);
	unlink(at("gone"));
	fd = make_small("good", offset + PAGE, PAGE);
	works(write_number(CORRUPT_PFN, pfn), "poison a page beside a file");
	is(pwrite(fd, &byte, 1, 0), 1, "write the file");
	is(pread(fd, &byte, 1, 0), 1, "read it");
	close(fd);
	unlink(at("good"));
}

/* Bad memory that is in no file disturbs nobody */
static void test_unused(void)
{
	int fd = make_file("gone", BAD + 4 * 2 * PMD, PMD);
	char *mem = map_file(fd, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	uint64_t pfn = pfn_of(mem);
	char byte = 'x';

	munmap(mem, PMD);
	close(fd);
	unlink(at("gone"));
	fd = make_file("good", GOOD, PMD);
	works(write_number(CORRUPT_PFN, pfn), "poison a page of no file");
	is(pwrite(fd, &byte, 1, 0), 1, "write a file");
	is(pread(fd, &byte, 1, 0), 1, "read it");
	close(fd);
	unlink(at("good"));
}

int main(int argc, char **argv)
{
	set_up(argc, argv);
	for (size_t i = 0; i < ARRAY_SIZE(injectors); i++)
		test_injector(&injectors[i], BAD + i * 2 * PMD);
	test_unused();
	for (size_t i = 0; i < ARRAY_SIZE(injectors); i++)
		test_small(&injectors[i], SMALL_BAD + i * PMD);
	test_small_unused(SMALL_BAD + ARRAY_SIZE(injectors) * PMD);
	return tear_down();
}
