// SPDX-License-Identifier: GPL-2.0
/*
 * The driver is taken away from the device while it is mounted, and given
 * back. The struct pages of the device go away in between.
 */
#include "driver.h"

#define BASE (32 * MIB)
#define SECOND "/tmp/famfs_unbind_test"

static void test_idle(void)
{
	char byte;
	int fd = make_file("idle", BASE, PMD);

	works(unbind(), "unbind while mounted");
	fails(pread(fd, &byte, 1, 0), EIO, "read");
	fails(mkdir(at("dir"), 0700), EIO, "mkdir");
	fails(ioctl(fd, FAMFSIOC_NOP), EIO, "an ioctl");
	close(fd);
	works(umount(mnt), "unmount without the device");
	works(bind_again(), "bind");
	works(mount_famfs(""), "mount");
}

/* Maps the file and waits; the end is by signal. */
static pid_t start_user(char *mem, bool handle)
{
	int ready[2];
	pid_t child;
	char byte;

	if (pipe(ready))
		bail("pipe");
	fflush(stdout);
	child = fork();
	if (!child) {
		mem[0] = 1;
		if (handle && sigsetjmp(touch_failed, 1)) {
			/* Told once by the kernel, then by every access */
			_exit(touch(mem) != BUS_ADRERR);
		}
		if (handle) {
			struct sigaction action = {
				.sa_sigaction = on_sigbus,
				.sa_flags = SA_SIGINFO,
			};

			sigaction(SIGBUS, &action, NULL);
		}
		(void)!write(ready[1], "", 1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		bail("child");
	close(ready[0]);
	return child;
}

static void test_mapped(void)
{
	int fd = make_file("mapped", BASE, 8 * PMD);
	char *mem = map_file(fd, 8 * PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	pid_t plain = start_user(mem, false);
	pid_t handling = start_user(mem, true);
	int status;
	char byte;

	munmap(mem, 8 * PMD);
	works(unbind(), "unbind while mapped");
	waitpid(plain, &status, 0);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS,
	   "a process with a mapping gets SIGBUS");
	waitpid(handling, &status, 0);
	is(status, 0, "one that handles it gets SIGBUS for every access");

	/* Bound again, the device is a new one to the old mount */
	works(bind_again(), "bind before the unmount");
	fails(pread(fd, &byte, 1, 0), EIO, "read");
	if (dev_is_char) {
		fails(mount(dev, SECOND, "famfs", 0, ""), EBUSY,
		      "mount the device anew");
	} else {
		works(mount(dev, SECOND, "famfs", 0, ""),
		      "mount the device anew");
		works(umount(SECOND), "and unmount that");
	}
	close(fd);
	works(umount(mnt), "unmount");
	works(mount_famfs(""), "mount");
	fd = make_file("mapped", BASE, 8 * PMD);
	is(pread(fd, &byte, 1, 0), 1, "read the file after that");
	is(byte, 1, "its data is there");
	close(fd);
	unlink(at("mapped"));
}

/* Pages in a pipe are pinned: the device does not go before they do */
static void test_pinned(void)
{
	int fd = make_file("pinned", BASE, PMD);
	char *mem = map_file(fd, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	int pipes[2];
	pid_t child;

	pin_page(mem, pipes);
	munmap(mem, PMD);
	close(fd);
	child = unpin_later(pipes);
	works(unbind(), "unbind while a page is in a pipe");
	is(wait_for(child), 0, "the pipe had the data");
	close(pipes[0]);
	close(pipes[1]);
	works(umount(mnt), "unmount");
	works(bind_again(), "bind");
	works(mount_famfs(""), "mount");
}

/* Unlinked files are on their way out when the device goes */
static void test_unlinked(void)
{
	int fds[16], status;
	char name[16];
	pid_t child;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		char *mem;

		snprintf(name, sizeof(name), "unlinked%zu", i);
		fds[i] = make_file(name, BASE + i * PMD, PMD);
		mem = map_file(fds[i], PMD, PROT_READ | PROT_WRITE,
			       MAP_SHARED);
		mem[0] = 1;
		munmap(mem, PMD);
		unlink(at(name));
	}
	fflush(stdout);
	child = fork();
	if (!child)
		_exit(unbind() < 0);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	waitpid(child, &status, 0);
	is(status, 0, "unbind while unlinked files are closed");
	works(umount(mnt), "unmount");
	works(bind_again(), "bind");
	works(mount_famfs(""), "mount");
}

static volatile sig_atomic_t told_of_removal;

static void on_removal(int sig)
{
	told_of_removal = sig;
}

/* Files of a page in the same 2 MiB, each mapped, and one with a hole */
static void test_small(void)
{
	static const struct famfs_ioc_piece pieces[] = {
		{ 0, BASE + 8 * PMD, PAGE },
		{ 3 * PMD, BASE + 8 * PMD + PAGE, PAGE },
	};
	int fds[64], sparse = make_stub("sparse"), gone = 0, right = 0;
	char *mems[64], *hole, name[16];

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		snprintf(name, sizeof(name), "small%zu", i);
		fds[i] = make_small(name, BASE + i * PAGE, PAGE);
		mems[i] = map_file(fds[i], PAGE, PROT_READ | PROT_WRITE,
				   MAP_SHARED);
		mems[i][0] = i;
	}
	works(map_pieces(sparse, 4 * PMD, 2, pieces), "a file with a hole");
	hole = map_file(sparse, 4 * PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	is(touch(hole) + touch(hole + PAGE) + touch(hole + PMD), 0,
	   "read data and hole");
	/* Who has it mapped is told, also if it is who takes the driver away */
	signal(SIGBUS, on_removal);
	works(unbind(), "unbind while small files are mapped");
	signal(SIGBUS, SIG_DFL);
	ok(told_of_removal, "who has them mapped gets SIGBUS");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		gone += touch(mems[i]) == BUS_ADRERR;
	is(gone, ARRAY_SIZE(fds), "each of them is gone");
	is(touch(hole + PMD), BUS_ADRERR, "and the hole");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		munmap(mems[i], PAGE);
		close(fds[i]);
	}
	munmap(hole, 4 * PMD);
	close(sparse);
	works(umount(mnt), "unmount");
	works(bind_again(), "bind");
	works(mount_famfs(""), "mount");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		char byte = 0;

		snprintf(name, sizeof(name), "small%zu", i);
		fds[i] = make_small(name, BASE + i * PAGE, PAGE);
		right += pread(fds[i], &byte, 1, 0) == 1 && byte == (char)i;
		close(fds[i]);
		unlink(at(name));
	}
	is(right, ARRAY_SIZE(fds), "their data is there after that");
}

/*
 * Create, map, touch and unlink files until the device is gone. The exit
 * status tells the error that is not due to that.
 */
static void storm_worker(int number)
{
	struct famfs_ioc_simple_extent extent = {
		.offset = BASE + 2 * number * PMD, .len = 2 * PMD,
	};
	char path[4096];

	snprintf(path, sizeof(path), "%s/storm%d", mnt, number);
	for (;;) {
		int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
		char *mem;

		if (fd < 0)
			_exit(errno == EIO ? 0 : errno);
		if (map_simple(fd, 2 * PMD, 1, &extent))
			_exit(errno == EIO ? 0 : errno);
		mem = mmap(NULL, 2 * PMD, PROT_READ | PROT_WRITE, MAP_SHARED,
			   fd, 0);
		if (mem == MAP_FAILED)
			_exit(errno == EIO ? 0 : errno);
		if (touch(mem) || touch(mem + PMD))
			_exit(0);
		if (!touch(mem) && pwrite(fd, "s", 1, PMD) < 0)
			_exit(errno == EIO ? 0 : errno);
		munmap(mem, 2 * PMD);
		close(fd);
		unlink(path);
	}
}

/* The driver goes while files come and go, at any moment of that */
static void test_storm(void)
{
	enum { WORKERS = 4, ROUNDS = 8 };
	int unbound = 0, over = 0, back = 0;

	for (int round = 0; round < ROUNDS; round++) {
		pid_t children[WORKERS];
		bool rebind_first = round % 2;

		fflush(stdout);
		for (int i = 0; i < WORKERS; i++) {
			children[i] = fork();
			if (!children[i])
				storm_worker(i);
		}
		usleep(30000 + 17000 * round);
		unbound += unbind() > 0;
		for (int i = 0; i < WORKERS; i++) {
			int status;

			/* Who waits in a fault or in a call is told too */
			waitpid(children[i], &status, 0);
			over += !status || (WIFSIGNALED(status) &&
					    WTERMSIG(status) == SIGBUS);
			if (WIFEXITED(status) && WEXITSTATUS(status))
				note("worker: %s",
				     strerror(WEXITSTATUS(status)));
		}
		if (rebind_first)
			back += !bind_again();
		if (umount(mnt))
			bail("unmount");
		if (!rebind_first)
			back += !bind_again();
		if (mount_famfs(""))
			bail("mount");
	}
	is(unbound, ROUNDS, "unbind in the middle of a storm");
	is(over, ROUNDS * WORKERS, "the storm ends with EIO or SIGBUS");
	is(back, ROUNDS, "bind, before the unmount and after it, and mount");
}

/* Without a driver, or with none that serves files, there is nothing to mount */
static void test_no_driver(void)
{
	works(umount(mnt), "unmount");
	works(unbind(), "unbind");
	fails(mount_famfs(""), dev_is_char ? ENXIO : ENOENT,
	      "mount without a driver");
	works(bind_again(), "bind");
	works(mount_famfs(""), "mount");
}

int main(int argc, char **argv)
{
	set_up(argc, argv);
	find_driver();
	mkdir(SECOND, 0700);
	test_idle();
	test_mapped();
	test_pinned();
	test_unlinked();
	test_small();
	test_storm();
	test_no_driver();
	rmdir(SECOND);
	return tear_down();
}
