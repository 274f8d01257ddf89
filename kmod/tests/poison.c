// SPDX-License-Identifier: GPL-2.0
/*
 * A page of a file goes bad: who touches it is told the exact address, and
 * the mount is over for everybody, but nothing worse.
 */
#include "fixture.h"

/* Not used by the other tests: the page stays bad until the next boot */
#define BAD (240 * MIB)
#define GOOD (48 * MIB)
#define BAD_PAGE 7

static siginfo_t poison_info;

static void on_poison(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	poison_info = *info;
}

static void poison(char *page)
{
	struct sigaction action = {
		.sa_sigaction = on_poison,
		.sa_flags = SA_SIGINFO,
	};
	struct sigaction old;

	sigaction(SIGBUS, &action, &old);
	works(madvise(page, 4096, MADV_HWPOISON), "MADV_HWPOISON");
	sigaction(SIGBUS, &old, NULL);
}

/* A process with the bad page mapped, which touches it again when told to */
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
		(void)*(volatile char *)mem;
		close(ready[1]);
		(void)!read(told[0], &byte, 1);
		(void)*(volatile char *)mem;
		_exit(0);
	}
	close(ready[1]);
	close(told[0]);
	(void)!read(ready[0], &byte, 1);
	close(ready[0]);
	*gate = told[1];
	return child;
}

static void test_disabled(int bad_fd, int good_fd, char *good)
{
	struct famfs_ioc_simple_extent extent = {
		.offset = GOOD + 4 * PMD, .len = PMD,
	};
	char byte = 0;

	is(touch(good), BUS_ADRERR, "a mapping of another file");
	fails(pread(bad_fd, &byte, 1, 0), EIO, "read the file");
	fails(pread(good_fd, &byte, 1, 0), EIO, "read another file");
	fails(pwrite(good_fd, &byte, 1, 0), EIO, "write another file");
	fails(map_simple(good_fd, PMD, 1, &extent), EIO, "MAP_CREATE");
	fails(open(at("good"), O_RDWR), EIO, "open");
	fails(open(at("new"), O_RDWR | O_CREAT, 0600), EIO, "create");
	fails(mkdir(at("dir"), 0700), EIO, "mkdir");
	ok(mmap(NULL, PMD, PROT_READ, MAP_SHARED, good_fd, 0) == MAP_FAILED &&
	   errno == EIO, "mmap: EIO");
}

int main(int argc, char **argv)
{
	int bad_fd, good_fd, gate, status;
	char *bad, *good, *copy;
	pid_t bystander;
	char byte;

	set_up(argc, argv);
	bad_fd = make_file("bad", BAD, 2 * PMD);
	good_fd = make_file("good", GOOD, PMD);
	bad = map_file(bad_fd, 2 * PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	good = map_file(good_fd, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	copy = map_file(good_fd, PMD, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	memset(bad, 'b', 2 * PMD);
	memset(good, 'g', PMD);
	copy[0] = 'c';
	bystander = start_bystander(bad + PMD, &gate);

	/* In the middle of a 2 MiB page */
	poison(bad + PMD + BAD_PAGE * 4096);
	is(poison_info.si_code, BUS_MCEERR_AR, "who touches it gets a signal");
	ok(poison_info.si_addr == bad + PMD + BAD_PAGE * 4096,
	   "with the exact address");
	if (poison_info.si_addr != bad + PMD + BAD_PAGE * 4096)
		note("%p and not %p", poison_info.si_addr,
		     bad + PMD + BAD_PAGE * 4096);
	is(touch(bad + PMD + BAD_PAGE * 4096), BUS_ADRERR, "the bad page");
	is(touch(bad), BUS_ADRERR, "another page of the file");
	test_disabled(bad_fd, good_fd, good);
	is(touch(copy), 0, "a private copy stays");
	is(copy[0], 'c', "with its data");

	close(gate);
	waitpid(bystander, &status, 0);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS,
	   "another process dies of SIGBUS when it touches the page");

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
	return tear_down();
}
