// SPDX-License-Identifier: GPL-2.0
/*
 * The driver is taken away from the device while it is mounted, and given
 * back. The struct pages of the device go away in between.
 */
#include <libgen.h>
#include <limits.h>
#include <sys/uio.h>

#include "fixture.h"

#define BASE (32 * MIB)
#define SECOND "/tmp/famfs_unbind_test"

static char driver[PATH_MAX], device[NAME_MAX + 1];

static void find_driver(void)
{
	char link[PATH_MAX], name[PATH_MAX];

	snprintf(name, sizeof(name), "%s", dev);
	if (dev_is_char) {
		strcpy(driver, "/sys/bus/dax/drivers/fsdev_dax");
		snprintf(device, sizeof(device), "%.64s", basename(name));
		return;
	}
	strcpy(driver, "/sys/bus/nd/drivers/nd_pmem");
	snprintf(link, sizeof(link), "/sys/class/block/%.64s/device",
		 basename(name));
	if (!realpath(link, name))
		bail("%s", link);
	snprintf(device, sizeof(device), "%.64s", basename(name));
}

static int driver_write(const char *file)
{
	char path[PATH_MAX + 16];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/%s", driver, file);
	fd = open(path, O_WRONLY);
	ret = write(fd, device, strlen(device));
	close(fd);
	return ret;
}

static int unbind(void)
{
	return driver_write("unbind");
}

/* The node may come a little later than the device. */
static int bind_again(void)
{
	struct stat st;

	if (driver_write("bind") < 0)
		return -1;
	for (int i = 0; i < 100 && stat(dev, &st); i++)
		usleep(50000);
	return stat(dev, &st);
}

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
	struct iovec iov = { .iov_base = mem, .iov_len = 4096 };
	char page[4096] = "";
	int pipes[2], status;
	pid_t child;

	if (pipe(pipes))
		bail("pipe");
	memset(mem, 'q', 4096);
	is(vmsplice(pipes[1], &iov, 1, 0), 4096, "vmsplice a page");
	munmap(mem, PMD);
	close(fd);
	fflush(stdout);
	child = fork();
	if (!child) {
		sleep(1);
		_exit(read(pipes[0], page, sizeof(page)) != sizeof(page) ||
		      page[4095] != 'q');
	}
	works(unbind(), "unbind while a page is in a pipe");
	waitpid(child, &status, 0);
	is(status, 0, "the pipe had the data");
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

int main(int argc, char **argv)
{
	set_up(argc, argv);
	find_driver();
	mkdir(SECOND, 0700);
	test_idle();
	test_mapped();
	test_pinned();
	test_unlinked();
	rmdir(SECOND);
	return tear_down();
}
