// SPDX-License-Identifier: GPL-2.0
/* Mounts with mapped owners, as containers have them. */
#include <linux/mount.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fixture.h"

#define FILE_OFFSET (32 * MIB)

/* User and group ID of a file is ID + SHIFT in the mapped mount, below COUNT */
#define SHIFT 100000
#define COUNT 65536

static void write_map(pid_t pid, const char *name)
{
	char path[64], map[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	snprintf(map, sizeof(map), "0 %d %d", SHIFT, COUNT);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, map, strlen(map)) < 0)
		bail("write %s", path);
	close(fd);
}

/* A user name space with the mapping */
static int user_namespace(void)
{
	int ready[2], done[2], ns;
	char path[64], byte = 0;
	pid_t child;

	if (pipe(ready) || pipe(done))
		bail("pipe");
	fflush(stdout);
	child = fork();
	if (!child) {
		close(done[1]);
		if (unshare(CLONE_NEWUSER) || write(ready[1], &byte, 1) != 1)
			_exit(1);
		_exit(read(done[0], &byte, 1));
	}
	if (read(ready[0], &byte, 1) != 1)
		bail("a child with a user name space");
	write_map(child, "uid_map");
	write_map(child, "gid_map");
	snprintf(path, sizeof(path), "/proc/%d/ns/user", child);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0)
		bail("open %s", path);
	close(done[1]);
	waitpid(child, NULL, 0);
	return ns;
}

/* A second mount of the file system, nowhere attached, with owners mapped */
static int mapped_mount(void)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_IDMAP,
		.userns_fd = user_namespace(),
	};
	int mapped = syscall(SYS_open_tree, AT_FDCWD, mnt,
			     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (mapped < 0)
		bail("clone the mount");
	if (!works(syscall(SYS_mount_setattr, mapped, "", AT_EMPTY_PATH, &attr,
			   sizeof(attr)), "map the owners of a mount"))
		bail("nothing more to test");
	close(attr.userns_fd);
	return mapped;
}

static void owned_by(int dir, const char *name, uid_t uid, gid_t gid,
		     const char *what)
{
	struct stat st;

	if (fstatat(dir, name, &st, 0))
		bail("stat %s", name);
	if (!ok(st.st_uid == uid && st.st_gid == gid, "%s: owner", what))
		note("got %u:%u, expected %u:%u", st.st_uid, st.st_gid, uid,
		     gid);
}

static int as_user(uid_t id, int (*call)(int dir), int dir)
{
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child)
		return wait_for(child);
	if (setresgid(id, id, id) || setresuid(id, id, id))
		_exit(99);
	_exit(call(dir) < 0 ? errno : 0);
}

static int read_file(int dir)
{
	return openat(dir, "private", O_RDWR);
}

static int make_both(int dir)
{
	int fd = openat(dir, "all/file", O_RDWR | O_CREAT | O_EXCL, 0600);

	return fd < 0 ? fd : mkdirat(dir, "all/dir", 0700);
}

static int make_other(int dir)
{
	return mkdirat(dir, "all/other", 0700);
}

static int change_mode(int dir)
{
	return fchmodat(dir, "private", 0640, 0);
}

int main(int argc, char **argv)
{
	int plain, mapped, fd;

	set_up(argc, argv);
	plain = open(mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = make_file("private", FILE_OFFSET, PMD);
	fchown(fd, 1000, 1000);
	fchmod(fd, 0600);
	close(fd);
	mkdir(at("all"), 0700);
	chmod(at("all"), 0777);
	mapped = mapped_mount();

	owned_by(plain, "private", 1000, 1000, "the plain mount");
	owned_by(mapped, "private", SHIFT + 1000, SHIFT + 1000,
		 "the mapped mount");

	is(as_user(SHIFT + 1000, read_file, mapped), 0,
	   "who owns the file there can open it there");
	is(as_user(SHIFT + 1000, read_file, plain), EACCES, "and not here");
	is(as_user(1000, read_file, mapped), EACCES,
	   "who owns it here cannot open it there");
	is(as_user(1000, read_file, plain), 0, "but here");
	is(as_user(1000, change_mode, mapped), EPERM, "nor change it there");
	is(as_user(SHIFT + 1000, change_mode, mapped), 0, "the other can");

	is(as_user(SHIFT + 7, make_both, mapped), 0, "make a file there");
	owned_by(plain, "all/file", 7, 7, "which is mapped back");
	owned_by(plain, "all/dir", 7, 7, "as is a directory");
	is(as_user(7, make_other, mapped), EOVERFLOW,
	   "nobody without a mapping makes any");

	works(fchownat(mapped, "all/file", SHIFT + 8, SHIFT + 9, 0), "chown");
	owned_by(plain, "all/file", 8, 9, "mapped back as well");
	fails(fchownat(mapped, "all/file", 5, 5, 0), EOVERFLOW,
	      "chown to what has no mapping");
	works(fchownat(plain, "all/file", SHIFT, SHIFT, 0),
	      "an owner that is outside");
	owned_by(mapped, "all/file", 65534, 65534, "is nobody there");

	close(mapped);
	close(plain);
	return tear_down();
}
