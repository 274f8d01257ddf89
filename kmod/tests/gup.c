// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of famfs files that the kernel uses for others: in pipes, for direct
 * I/O of another device, read by another process. While they are pinned, the
 * range of their file belongs to nobody else.
 */
#include <linux/loop.h>
#include <sys/mman.h>
#include <time.h>

#include "fixture.h"

#define BASE (48 * MIB)
#define SIZE (2 * PMD)
#define LOOP_FILE "/tmp/famfs_gup_test"

static long long milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/*
 * Pages given to a pipe are pinned: the last close waits until it is empty,
 * and nothing interrupts that.
 */
static void test_last_close(void)
{
	int fd = make_file("pinned", BASE, SIZE);
	char *mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	long long start;
	int pipes[2];
	pid_t child;

	works(madvise(mem, SIZE, MADV_DONTFORK), "keep it from the child");
	pin_page(mem, pipes);
	unlink(at("pinned"));
	close(fd);
	child = unpin_later(pipes);
	start = milliseconds();
	munmap(mem, SIZE);
	ok(milliseconds() - start > 500, "the last munmap waits for the pin");
	is(wait_for(child), 0, "the pipe had the data");
	close(pipes[0]);
	close(pipes[1]);
	fd = make_file("next", BASE, SIZE);
	ok(fd >= 0, "the range is free after the pipe is empty");
	close(fd);
	unlink(at("next"));
}

/* A loop device, whose direct I/O takes the pages as they are */
static int open_loop(void)
{
	int file = open(LOOP_FILE, O_RDWR | O_CREAT | O_TRUNC, 0600);
	int control, index, fd;
	char path[32];

	if (system("modprobe loop"))
		bail("load loop");
	control = open("/dev/loop-control", O_RDWR);
	index = ioctl(control, LOOP_CTL_GET_FREE);
	if (file < 0 || ftruncate(file, SIZE) || index < 0)
		bail("loop device");
	snprintf(path, sizeof(path), "/dev/loop%d", index);
	fd = open(path, O_RDWR | O_DIRECT);
	if (fd < 0 || ioctl(fd, LOOP_SET_FD, file))
		bail("%s", path);
	close(control);
	close(file);
	return fd;
}

static void test_direct_io(void)
{
	int fd = make_file("direct", BASE, SIZE);
	char *mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	char *copy = malloc(SIZE);
	int loop = open_loop();

	for (uint64_t i = 0; i < SIZE; i++)
		mem[i] = pattern(i, 1);
	memcpy(copy, mem, SIZE);
	is(pwrite(loop, mem, SIZE, 0), SIZE,
	   "direct write of another device from famfs memory");
	memset(mem, 0, SIZE);
	/* A page and a bit off, so that no 2 MiB page is filled as a whole */
	is(pread(loop, mem + 4096, SIZE - 8192, 4096), SIZE - 8192,
	   "direct read of another device into famfs memory");
	ok(!memcmp(mem + 4096, copy + 4096, SIZE - 8192), "the same data");
	ok(!mem[4095] && !mem[SIZE - 4096], "and none beside it");
	is(pread(fd, copy, 4096, 4096), 4096, "read(2) sees it");
	ok(!memcmp(mem + 4096, copy, 4096), "the same data again");

	ioctl(loop, LOOP_CLR_FD, 0);
	close(loop);
	unlink(LOOP_FILE);
	munmap(mem, SIZE);
	close(fd);
	unlink(at("direct"));
	free(copy);
}

static void test_other_process(void)
{
	int fd = make_file("other", BASE, SIZE);
	char *mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct iovec remote = { .iov_base = mem + PMD - 4096, .iov_len = 8192 };
	char copy[8192];
	struct iovec local = { .iov_base = copy, .iov_len = 8192 };
	pid_t child;

	memset(mem, 'o', SIZE);
	fflush(stdout);
	child = fork();
	if (!child) {
		pause();
		_exit(0);
	}
	munmap(mem, SIZE);
	is(process_vm_readv(child, &local, 1, &remote, 1, 0), 8192,
	   "read another process's mapping");
	ok(copy[0] == 'o' && !memcmp(copy, copy + 1, 8191), "the right data");
	memset(copy, 'w', sizeof(copy));
	is(process_vm_writev(child, &local, 1, &remote, 1, 0), 8192,
	   "write it");
	is(pread(fd, copy, 1, PMD), 1, "read the file");
	is(copy[0], 'w', "it has what was written");
	kill(child, SIGKILL);
	is(wait_for(child), -1, "end the process");
	close(fd);
	unlink(at("other"));
}

int main(int argc, char **argv)
{
	set_up(argc, argv);
	test_last_close();
	test_direct_io();
	test_other_process();
	return tear_down();
}
