/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests share: a mounted device and files on it.
 *
 * The tests write all over the device: give them a scratch one.
 */
#ifndef _FAMFS_FIXTURE_H
#define _FAMFS_FIXTURE_H

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "map.h"
#include "tap.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define PMD (2 * MIB)
#define PAGE (4 * KIB)
#define DEVICE_MIN (256 * MIB)

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static const char *dev, *mnt;
static bool dev_is_char;
static uint64_t dev_size;

static inline int mount_famfs(const char *options)
{
	return mount(dev, mnt, "famfs", MS_NOATIME, options);
}

/* A path on the mount; valid until the next but three calls. */
static inline const char *at(const char *name)
{
	static char paths[4][4096];
	static int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", mnt, name);
	return path;
}

static inline void parse_arguments(int argc, char **argv)
{
	struct stat st;

	if (argc < 3) {
		fprintf(stderr, "usage: %s DEVICE MOUNTPOINT\n", argv[0]);
		exit(2);
	}
	dev = argv[1];
	mnt = argv[2];
	tap_start();
	if (stat(dev, &st))
		bail("%s", dev);
	dev_is_char = S_ISCHR(st.st_mode);
}

static inline void set_up(int argc, char **argv)
{
	struct statfs sfs;

	parse_arguments(argc, argv);
	if (mount_famfs(""))
		bail("mount %s at %s", dev, mnt);
	if (statfs(mnt, &sfs))
		bail("statfs %s", mnt);
	dev_size = sfs.f_blocks * sfs.f_bsize;
	if (dev_size < DEVICE_MIN) {
		umount(mnt);
		bail("%s is smaller than %llu bytes", dev, DEVICE_MIN);
	}
}

/* One more test: nothing that the others did may keep the mount busy. */
static inline int tear_down(void)
{
	works(umount(mnt), "unmount");
	return tap_exit();
}

/* An empty file, without a map. */
static inline int make_stub(const char *name)
{
	int fd = open(at(name), O_RDWR | O_CREAT | O_EXCL, 0644);

	if (fd < 0)
		bail("create %s", at(name));
	return fd;
}

/* A file of @size bytes in one extent at @offset. */
static inline int make_file(const char *name, uint64_t offset, uint64_t size)
{
	struct famfs_ioc_simple_extent extent = {
		.offset = offset,
		.len = (size + PMD - 1) / PMD * PMD,
	};
	int fd = make_stub(name);

	if (map_simple(fd, size, 1, &extent))
		bail("map %s", at(name));
	return fd;
}

/* A file of @size bytes in one piece at @offset, in as few pages as it takes. */
static inline int make_small(const char *name, uint64_t offset, uint64_t size)
{
	struct famfs_ioc_piece piece = {
		.offset = offset,
		.len = (size + PAGE - 1) / PAGE * PAGE,
	};
	int fd = make_stub(name);

	if (map_pieces(fd, size, 1, &piece))
		bail("map %s", at(name));
	return fd;
}

static inline void *map_file(int fd, uint64_t size, int prot, int flags)
{
	void *mem = mmap(NULL, size, prot, flags, fd, 0);

	if (mem == MAP_FAILED)
		bail("mmap %llu bytes", (unsigned long long)size);
	return mem;
}

/* A byte that tells 4 KiB pages of the device apart, and rounds of a test. */
static inline unsigned char pattern(uint64_t position, unsigned int round)
{
	return (position / 4096 * 31 + position % 251 + round) & 0xff;
}

/* The times of files go by the tick, of 10 ms at most */
static inline void wait_for_tick(void)
{
	usleep(20000);
}

/* An open directory that makes this process an editor until it is closed */
static inline int become_editor(void)
{
	int dir = open(mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0 || ioctl(dir, FAMFSIOC_EDIT))
		bail("become an editor");
	return dir;
}

static sigjmp_buf touch_failed;
static siginfo_t touch_info;

static inline void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	touch_info = *info;
	siglongjmp(touch_failed, 1);
}

/* Access the byte at @mem. 0, or the code of the SIGBUS; touch_info has more. */
static inline int access_byte(volatile char *mem, bool store)
{
	struct sigaction action = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO,
	};
	struct sigaction old;
	int code = 0;

	sigaction(SIGBUS, &action, &old);
	if (sigsetjmp(touch_failed, 1))
		code = touch_info.si_code;
	else if (store)
		*mem = 's';
	else
		(void)*mem;
	sigaction(SIGBUS, &old, NULL);
	return code;
}

static inline int touch(const volatile char *mem)
{
	return access_byte((volatile char *)mem, false);
}

static inline int touch_to_write(volatile char *mem)
{
	return access_byte(mem, true);
}

/* The exit status of a child; -1 if a signal ended it */
static inline int wait_for(pid_t child)
{
	int status;

	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Fill a page and give it to a pipe, which pins it until somebody reads it. */
static inline void pin_page(char *page, int pipes[2])
{
	struct iovec iov = { .iov_base = page, .iov_len = 4096 };

	if (pipe(pipes))
		bail("pipe");
	memset(page, 'p', 4096);
	is(vmsplice(pipes[1], &iov, 1, 0), 4096, "vmsplice a page");
}

/*
 * A process that reads the pipe after a second. It exits with 0 if the page
 * was in it as pin_page() filled it. Nothing else may interrupt the wait for
 * a pin, so the process that waits cannot be the one that ends it.
 */
static inline pid_t unpin_later(int pipes[2])
{
	char page[4096] = "", want[4096];
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child)
		return child;
	memset(want, 'p', sizeof(want));
	sleep(1);
	_exit(read(pipes[0], page, sizeof(page)) != sizeof(page) ||
	      memcmp(page, want, sizeof(page)));
}

#endif /* _FAMFS_FIXTURE_H */
