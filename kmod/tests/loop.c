// SPDX-License-Identifier: GPL-2.0
/*
 * Images in famfs, by the loop driver: the disk that this program is on is
 * copied into a file of pieces and mounted from there, and a loop device
 * writes to a file.
 */
#include <dirent.h>
#include <libgen.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/loop.h>

#include "fixture.h"

#define BASE (96 * MIB)
#define PIECES 16
#define POINT "/tmp/famfs_loop_test"

static char directory[PATH_MAX];

/* The device that has the directory of this program, open */
static int open_own_disk(void)
{
	char line[PATH_MAX], source[512] = "", point[512], name[512];
	ssize_t got = readlink("/proc/self/exe", directory, PATH_MAX - 1);
	FILE *mounts = fopen("/proc/mounts", "r");
	int fd;

	if (got < 0 || !mounts)
		bail("find this program");
	dirname(directory);
	while (fgets(line, sizeof(line), mounts))
		if (sscanf(line, "%511s %511s", name, point) == 2 &&
		    !strcmp(point, directory))
			strcpy(source, name);
	fclose(mounts);
	fd = open(source, O_RDONLY);
	if (fd < 0)
		bail("open '%s', which has to be a disk on %s", source,
		     directory);
	return fd;
}

/* A file of some pieces, the last ones first on the device */
static int make_image(const char *name, uint64_t size)
{
	uint64_t pages = (size + PAGE - 1) / PAGE;
	uint64_t each = pages / PIECES, at = 0;
	struct famfs_ioc_piece pieces[PIECES];
	int fd = make_stub(name);

	for (int i = 0; i < PIECES; i++) {
		uint64_t len = i < PIECES - 1 ? each : pages - at;

		pieces[i] = (struct famfs_ioc_piece) {
			.file_offset = at * PAGE,
			.offset = BASE + (pages - at - len) * PAGE,
			.len = len * PAGE,
		};
		at += len;
	}
	if (map_pieces(fd, size, PIECES, pieces))
		bail("map %s", name);
	return fd;
}

static uint64_t copy_disk(const char *name)
{
	static char buffer[MIB];
	int disk = open_own_disk(), fd;
	uint64_t size, done = 0;
	ssize_t got;

	if (ioctl(disk, BLKGETSIZE64, &size))
		bail("size of the disk");
	fd = make_image(name, size);
	while ((got = read(disk, buffer, sizeof(buffer))) > 0)
		done += write(fd, buffer, got);
	is(done, size, "copy a disk into a file");
	close(disk);
	close(fd);
	return size;
}

/*
 * A loop device for @file, open; it goes with the last close. Some kernels
 * mount nothing that is open for writing.
 */
static int open_loop(int file, int mode, uint32_t flags)
{
	struct loop_config config = {
		.fd = file,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR | flags,
	};
	int control = open("/dev/loop-control", O_RDWR), number, fd = -1;
	char path[32];

	number = ioctl(control, LOOP_CTL_GET_FREE);
	if (number < 0)
		bail("find a loop device");
	snprintf(path, sizeof(path), "/dev/loop%d", number);
	for (int i = 0; i < 100 && fd < 0; i++) {
		fd = open(path, mode);
		if (fd < 0)
			usleep(50000);
	}
	if (fd < 0 || ioctl(fd, LOOP_CONFIGURE, &config))
		bail("set up %s", path);
	close(control);
	return fd;
}

static bool same_bytes(const char *path, const char *other)
{
	static char buffers[2][MIB];
	int fds[2] = { open(path, O_RDONLY), open(other, O_RDONLY) };
	ssize_t got = 1, more = 1;

	while (got > 0 && got == more) {
		got = read(fds[0], buffers[0], MIB);
		more = read(fds[1], buffers[1], MIB);
		if (got > 0 && memcmp(buffers[0], buffers[1], got))
			break;
	}
	close(fds[0]);
	close(fds[1]);
	return !got && !more;
}

/* How many files of the disk are the same in the mount; -1: not all of them */
static int same_files(void)
{
	char path[PATH_MAX + 256], other[512];
	DIR *dir = opendir(directory);
	struct dirent *entry;
	int files = 0;

	while (dir && (entry = readdir(dir))) {
		if (entry->d_type != DT_REG)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory,
			 entry->d_name);
		snprintf(other, sizeof(other), POINT "/%s", entry->d_name);
		files++;
		if (same_bytes(path, other))
			continue;
		note("%s", entry->d_name);
		return -1;
	}
	closedir(dir);
	return files;
}

static void test_mount(uint32_t flags, const char *what)
{
	int file = open(at("image"), O_RDONLY);
	int loop = open_loop(file, O_RDONLY, LO_FLAGS_READ_ONLY | flags);
	char path[64], link[64];
	ssize_t got;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", loop);
	got = readlink(link, path, sizeof(path) - 1);
	if (got < 0)
		bail("name of the loop device");
	path[got] = '\0';
	works(mount(path, POINT, "erofs", MS_RDONLY, ""), what);
	ok(same_files() > 0, "all files in it are as on the disk");
	fails(umount(mnt), EBUSY, "what is below stays mounted");
	works(umount(POINT), "unmount it");
	close(loop);
	close(file);
}

/* Random access through the block device arrives in the file's pages */
static void test_write(void)
{
	uint64_t size = 64 * PAGE;
	int file = make_image("disk", size);
	int loop = open_loop(file, O_RDWR, 0);
	char sector[512], got[512];
	int right = 0;

	for (int i = 0; i < 64; i++) {
		memset(sector, 'A' + i, sizeof(sector));
		right += pwrite(loop, sector, sizeof(sector),
				i * PAGE + i % 8 * 512) == sizeof(sector);
	}
	is(right, 64, "write sectors of a loop device");
	works(fsync(loop), "fsync");
	right = 0;
	for (int i = 0; i < 64; i++) {
		memset(sector, 'A' + i, sizeof(sector));
		right += pread(file, got, sizeof(got),
			       i * PAGE + i % 8 * 512) == sizeof(got) &&
			 !memcmp(sector, got, sizeof(got));
	}
	is(right, 64, "they are in the file");
	close(loop);
	close(file);
	works(unlink(at("disk")), "remove the file");
}

/* The loop driver lets go of a file a little after the last close */
static int unmount_soon(void)
{
	int ret;

	for (int i = 0; i < 100; i++) {
		ret = umount(mnt);
		if (!ret || errno != EBUSY)
			break;
		usleep(50000);
	}
	return ret;
}

int main(int argc, char **argv)
{
	set_up(argc, argv);
	if (system("modprobe -a loop erofs"))
		bail("load loop and erofs");
	mkdir(POINT, 0700);
	copy_disk("image");
	test_mount(0, "mount it by the loop driver");
	test_mount(LO_FLAGS_DIRECT_IO, "and with direct I/O");
	works(unlink(at("image")), "remove the file");
	test_write();
	rmdir(POINT);
	works(unmount_soon(), "unmount");
	return tap_exit();
}
