// SPDX-License-Identifier: GPL-2.0
/* Mounting: what is refused and how, options, and one mount per device. */
#include <linux/fs.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "faults.h"
#include "log.h"

#define SCRATCH "/tmp/famfs_mount_test"

static int mount_from(const char *source, const char *options)
{
	return mount(source, mnt, "famfs", 0, options);
}

static mode_t root_mode(void)
{
	struct stat st;

	if (stat(mnt, &st))
		bail("stat %s", mnt);
	return st.st_mode & 07777;
}

static void test_sources(void)
{
	struct stat st;

	stat(dev, &st);
	fails(mount_from("/nowhere", ""), ENOENT, "a source that is missing");
	fails(mount_from("/proc/self/exe", ""), ENOTBLK, "a regular file");
	fails(mount_from("/tmp", ""), ENOTBLK, "a directory");
	fails(mount_from("/dev/null", ""), ENXIO, "/dev/null");
	fails(mount(NULL, mnt, "famfs", 0, ""), EINVAL, "no source");

	mknod(SCRATCH "/unused", (st.st_mode & S_IFMT) | 0600,
	      makedev(major(st.st_rdev), 0xfffff));
	fails(mount_from(SCRATCH "/unused", ""), ENXIO,
	      "a number that no device has");
	mknod(SCRATCH "/other", (dev_is_char ? S_IFBLK : S_IFCHR) | 0600,
	      st.st_rdev);
	/* Some device of that type may have the number, and be in use */
	ok(mount_from(SCRATCH "/other", "") == -1 &&
	   (errno == ENXIO || errno == EBUSY || errno == EOPNOTSUPP),
	   "the device's number with the other type");

	mkdir(SCRATCH "/nodev", 0700);
	if (mount("none", SCRATCH "/nodev", "tmpfs", MS_NODEV, ""))
		bail("mount a tmpfs");
	mknod(SCRATCH "/nodev/node", (st.st_mode & S_IFMT) | 0600, st.st_rdev);
	fails(mount_from(SCRATCH "/nodev/node", ""), EACCES,
	      "a node where nodev says no");
	umount(SCRATCH "/nodev");
}

static void test_one_mount(void)
{
	struct stat st;

	stat(dev, &st);
	works(mount_famfs(""), "mount");
	fails(mount_famfs(""), EBUSY, "mount again");
	mknod(SCRATCH "/alias", (st.st_mode & S_IFMT) | 0600, st.st_rdev);
	fails(mount_from(SCRATCH "/alias", ""), EBUSY, "by another node");
	symlink(dev, SCRATCH "/link");
	fails(mount_from(SCRATCH "/link", ""), EBUSY, "by a symbolic link");
	close(open(SCRATCH "/bound", O_CREAT | O_WRONLY, 0600));
	if (mount(dev, SCRATCH "/bound", NULL, MS_BIND, NULL))
		bail("bind mount of %s", dev);
	fails(mount_from(SCRATCH "/bound", ""), EBUSY, "by a bind mount");
	works(umount(mnt), "unmount");
	works(mount_from(SCRATCH "/bound", ""), "mount by the bind mount");
	works(umount(SCRATCH "/bound"), "which is not kept busy");
	works(umount(mnt), "unmount again");
}

static void test_options(void)
{
	struct statfs sfs;

	fails(mount_famfs("dax=never"), EINVAL, "dax=never");
	fails(mount_famfs("mode=10000"), EINVAL, "mode=10000");
	fails(mount_famfs("mode=8"), EINVAL, "mode=8");
	fails(mount_famfs("bogus"), EINVAL, "an unknown option");

	works(mount_famfs("dax=always"), "dax=always");
	is(root_mode(), 0755, "the root directory has mode 0755");
	ok(mounts_line_has(dev, mnt, "dax=always") &&
	   !mounts_line_has(dev, mnt, "mode=") &&
	   !mounts_line_has(dev, mnt, "strict"),
	   "/proc/mounts has just that");
	statfs(mnt, &sfs);
	is((unsigned int)sfs.f_type, FAMFS_STATFS_MAGIC, "statfs magic");
	ok(sfs.f_bfree == sfs.f_blocks && sfs.f_namelen == 255, "statfs");
	works(mount(NULL, mnt, NULL, MS_REMOUNT, ""), "remount");
	works(umount(mnt), "unmount");

	works(mount_famfs("mode=1770"), "mode=1770");
	is(root_mode(), 01770, "the root directory has it");
	ok(mounts_line_has(dev, mnt, "mode=1770"), "/proc/mounts has it");
	works(mount(NULL, mnt, NULL, MS_REMOUNT, "mode=1770,dax=always"),
	      "remount with the same options");
	fails(mount(NULL, mnt, NULL, MS_REMOUNT, "mode=0700"), EINVAL,
	      "remount with another mode");
	works(umount(mnt), "unmount");
}

static void test_read_only(void)
{
	int fd;

	works(mount(dev, mnt, "famfs", MS_RDONLY, ""), "mount read-only");
	fails(mkdir(at("dir"), 0700), EROFS, "mkdir");
	fails(open(at("file"), O_CREAT | O_RDWR, 0600), EROFS, "create");
	works(mount(NULL, mnt, NULL, MS_REMOUNT, ""), "remount read-write");
	fd = open(at("file"), O_CREAT | O_RDWR, 0600);
	works(fd, "create");
	fails(mount(NULL, mnt, NULL, MS_REMOUNT | MS_RDONLY, ""), EBUSY,
	      "remount read-only with a file open for writing");
	close(fd);
	works(mount(NULL, mnt, NULL, MS_REMOUNT | MS_RDONLY, ""),
	      "remount read-only");
	works(umount(mnt), "unmount");
}

/* What is read-only is not synced by unmount: the remount has to do it */
static void test_remount_syncs(void)
{
	char *mem;
	int fd;

	works(mount_famfs(""), "mount");
	fd = make_file("dirty", 32 * MIB, PMD);
	mem = map_file(fd, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	mem[0] = 'd';
	munmap(mem, PMD);
	close(fd);
	faults_set_up();
	count_faults();
	works(mount(NULL, mnt, NULL, MS_REMOUNT | MS_RDONLY, ""),
	      "remount read-only");
	/* Of a devdax device nothing is ever dirty */
	is(count_faults().written_back, !dev_is_char,
	   "that writes back what was stored");
	faults_tear_down();
	works(umount(mnt), "unmount");
}

/* A block device can be set read-only, which stores would not notice */
static void test_read_only_device(void)
{
	int on = 1, off = 0;
	int fd = open(dev, O_RDONLY);

	if (ioctl(fd, BLKROSET, &on))
		bail("set %s read-only", dev);
	fails(mount_famfs(""), EACCES, "mount a read-only device");
	works(mount(dev, mnt, "famfs", MS_RDONLY, ""), "mount it read-only");
	fails(mount(NULL, mnt, NULL, MS_REMOUNT, ""), EACCES,
	      "remount it read-write");
	works(umount(mnt), "unmount");
	ioctl(fd, BLKROSET, &off);
	close(fd);
}

static bool log_has(int fs, const char *text)
{
	char message[1024];
	ssize_t len = read(fs, message, sizeof(message) - 1);

	message[len > 0 ? len : 0] = 0;
	if (strstr(message, text))
		return true;
	note("the log says: %s", message);
	return false;
}

/* The new mount interface: errors come where they are made, with a text */
static void test_fsconfig(void)
{
	int fs = fsopen("famfs", 0);

	if (!works(fs, "fsopen"))
		return;
	fails(fsconfig(fs, FSCONFIG_SET_STRING, "source", "/dev/null", 0),
	      ENXIO, "source=/dev/null");
	ok(log_has(fs, "not a dax device"), "the log tells why");
	works(fsconfig(fs, FSCONFIG_SET_STRING, "source", dev, 0), "source");
	fails(fsconfig(fs, FSCONFIG_SET_STRING, "source", dev, 0), EINVAL,
	      "source twice");
	ok(log_has(fs, "given already"), "the log tells why");
	fails(fsconfig(fs, FSCONFIG_SET_FLAG, "source", NULL, 0), EINVAL,
	      "source without a value");
	log_has(fs, "");
	close(fs);

	fs = fsopen("famfs", 0);
	fails(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), EINVAL,
	      "no source at all");
	ok(log_has(fs, "no source"), "the log tells why");
	close(fs);
}

/* A remount may name the source, but not another one */
static void test_reconfigure(void)
{
	int fs;

	works(mount_famfs(""), "mount");
	fs = fspick(AT_FDCWD, mnt, 0);
	works(fs, "fspick");
	works(fsconfig(fs, FSCONFIG_SET_STRING, "source", dev, 0), "source");
	works(fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0),
	      "reconfigure with the same source");
	close(fs);

	fs = fspick(AT_FDCWD, mnt, 0);
	works(fsconfig(fs, FSCONFIG_SET_STRING, "source", "/dev/vda", 0),
	      "another source");
	log_has(fs, "");
	fails(fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0), EINVAL,
	      "reconfigure with that");
	ok(log_has(fs, "not the device that is mounted"), "the log tells why");
	close(fs);
	works(umount(mnt), "unmount");
}

static void test_user_namespace(void)
{
	pid_t child;
	int status;

	fflush(stdout);
	child = fork();
	if (!child) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
			_exit(2);
		_exit(mount_famfs("") != -1 || errno != EPERM);
	}
	waitpid(child, &status, 0);
	is(status, 0, "mount in a user namespace: EPERM");
}

/*
 * Who is root in a user namespace only may call all of mount's interfaces, but
 * gets no further than EPERM, and does not get to write the kernel log.
 */
static void test_quiet(void)
{
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	int status;
	pid_t child;

	works(mount_famfs(""), "mount");
	works(lseek(kmsg, 0, SEEK_END), "go to the end of the kernel log");
	fflush(stdout);
	child = fork();
	if (!child) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
			_exit(2);
		_exit(mount_from("/dev/null", "") != -1 || errno != EPERM ||
		      mount_from("/nowhere", "") != -1 || errno != EPERM ||
		      mount_famfs("mode=10000") != -1 || errno != EPERM ||
		      mount_famfs("bogus") != -1 || errno != EPERM ||
		      fsopen("famfs", 0) != -1 || errno != EPERM ||
		      !mount(NULL, mnt, NULL, MS_REMOUNT, "mode=10000"));
	}
	waitpid(child, &status, 0);
	is(status, 0, "in a user namespace, bad mounts and remounts: EPERM");
	is(new_messages(kmsg, ""), 0, "the kernel log has no message of them");
	fails(mount_from("/dev/null", ""), ENXIO, "the same as root");
	ok(new_messages(kmsg, "") > 0, "the kernel log tells root why");
	close(kmsg);
	works(umount(mnt), "unmount");
}

/* Everybody mounts and unmounts; who is not first gets EBUSY, nothing else */
static void test_storm(void)
{
	enum { WORKERS = 3, ROUNDS = 60 };
	int status, failed = 0;

	fflush(stdout);
	for (int i = 0; i < WORKERS; i++) {
		char point[64];

		snprintf(point, sizeof(point), SCRATCH "/storm%d", i);
		mkdir(point, 0700);
		if (fork())
			continue;
		for (int round = 0; round < ROUNDS; round++) {
			if (mount(dev, point, "famfs", 0, "")) {
				if (errno != EBUSY)
					_exit(1);
				continue;
			}
			if (umount(point))
				_exit(2);
		}
		_exit(0);
	}
	while (wait(&status) > 0)
		failed += !!status;
	is(failed, 0, "three processes mount and unmount the device");
	works(mount_famfs(""), "mount after that");
	works(umount(mnt), "unmount");
}

int main(int argc, char **argv)
{
	parse_arguments(argc, argv);
	mkdir(SCRATCH, 0700);
	if (mount("none", SCRATCH, "tmpfs", 0, ""))
		bail("mount a tmpfs at %s", SCRATCH);
	test_sources();
	test_one_mount();
	test_options();
	test_read_only();
	test_remount_syncs();
	if (!dev_is_char)
		test_read_only_device();
	test_fsconfig();
	test_reconfigure();
	test_user_namespace();
	test_quiet();
	test_storm();
	works(umount(SCRATCH), "unmount the scratch directory");
	rmdir(SCRATCH);
	return tap_exit();
}
