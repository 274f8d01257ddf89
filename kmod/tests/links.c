// SPDX-License-Identifier: GPL-2.0
/*
 * Links, symbolic links, renames and times: an editor makes them on any mount,
 * nobody else does.
 */
#include <dirent.h>
#include <sys/syscall.h>
#include <linux/fs.h>

#include "fixture.h"

#define OFFSET (96 * MIB)
#define LONGEST 4095
#define COUNT 20000

static unsigned int links_of(const char *name)
{
	struct stat st;

	return lstat(at(name), &st) ? 0 : st.st_nlink;
}

static uint64_t inode_of(const char *name)
{
	struct stat st;

	return lstat(at(name), &st) ? 0 : st.st_ino;
}

static int exists(const char *name)
{
	struct stat st;

	return !lstat(at(name), &st);
}

static int move(const char *from, const char *to, unsigned int flags)
{
	return syscall(SYS_renameat2, AT_FDCWD, at(from), AT_FDCWD, at(to),
		       flags);
}

/* Who is no editor, root as well, on a mount that is strict or not */
static void test_refused(const char *kind)
{
	note("%s", kind);
	fails(link(at("file"), at("link")), EPERM, "link");
	fails(symlink("file", at("symlink")), EPERM, "symlink");
	fails(rename(at("file"), at("other")), EPERM, "rename");
	fails(rename(at("dir"), at("other")), EPERM, "rename of a directory");
	fails(move("file", "other", RENAME_NOREPLACE), EPERM,
	      "rename to a new name");
	fails(move("file", "dir", RENAME_EXCHANGE), EPERM, "exchange");
	fails(mknod(at("fifo"), S_IFIFO | 0600, 0), EPERM, "mknod");
	ok(exists("file") && exists("dir") && !exists("link") &&
	   !exists("symlink") && !exists("other"), "nothing has changed");
}

static void test_hard_links(void)
{
	int fd = make_small("one", OFFSET + PAGE, PAGE), busy;
	struct famfs_ioc_piece piece = { 0, OFFSET + PAGE, PAGE };
	struct stat st;
	char byte = 'h';

	works(link(at("one"), at("two")), "link");
	works(link(at("two"), at("dir/three")), "link in a directory");
	is(links_of("one"), 3, "three names");
	ok(inode_of("one") == inode_of("two") &&
	   inode_of("one") == inode_of("dir/three"), "of one inode");
	is(pwrite(fd, &byte, 1, 0), 1, "write by the first");
	close(fd);
	works(unlink(at("one")), "remove the first name");
	is(links_of("two"), 2, "two names");
	fd = open(at("dir/three"), O_RDONLY);
	is(pread(fd, &byte, 1, 0), 1, "read by the last");
	is(byte, 'h', "what the first has written");
	close(fd);
	works(unlink(at("two")), "remove the second");
	busy = make_stub("busy");
	fails(map_pieces(busy, 1, 1, &piece), EBUSY, "its range is taken");
	works(unlink(at("dir/three")), "remove the last");
	works(map_pieces(busy, 1, 1, &piece), "and now it is free");
	close(busy);
	unlink(at("busy"));

	fails(link(at("dir"), at("loop")), EPERM, "a link to a directory");
	fails(link(at("file"), at("dir")), EEXIST, "a name that is there");
	works(symlink("nowhere", at("dangling")), "a symbolic link");
	works(link(at("dangling"), at("dangling2")), "has links as well");
	is(links_of("dangling"), 2, "two of them");
	works(unlink(at("dangling")), "remove one");
	is(readlink(at("dangling2"), (char *)&st, 7), 7, "the other is there");
	works(unlink(at("dangling2")), "remove it");
	fd = make_stub("stub");
	works(link(at("stub"), at("stub2")), "a file without a map");
	works(map_pieces(fd, 0, 0, NULL), "gets one");
	stat(at("stub2"), &st);
	is(st.st_nlink, 2, "under both names");
	close(fd);
	unlink(at("stub"));
	unlink(at("stub2"));
}

static void test_symbolic_links(void)
{
	char target[LONGEST + 2], got[LONGEST + 2];
	struct stat st;
	int fd;

	memset(target, 't', sizeof(target));
	target[LONGEST] = '\0';
	works(symlink(target, at("long")), "a target of 4,095 bytes");
	is(readlink(at("long"), got, sizeof(got)), LONGEST, "comes back");
	ok(!memcmp(target, got, LONGEST), "as it was");
	lstat(at("long"), &st);
	ok(S_ISLNK(st.st_mode) && st.st_size == LONGEST && st.st_nlink == 1 &&
	   (st.st_mode & 07777) == 0777, "lstat tells it");
	is(readlink(at("long"), got, 3), 3, "a short buffer gets the start");
	works(unlink(at("long")), "remove it");
	target[LONGEST] = 't';
	target[LONGEST + 1] = '\0';
	fails(symlink(target, at("long")), ENAMETOOLONG,
	      "a target of 4,096 bytes");
	fails(symlink("", at("none")), ENOENT, "an empty target");
	works(symlink("\x01\n\xff ../file", at("bytes")), "any bytes");
	is(readlink(at("bytes"), got, sizeof(got)), 11, "are kept");
	works(unlink(at("bytes")), "remove it");

	works(symlink("../file", at("dir/up")), "a link that leads somewhere");
	fd = open(at("dir/up"), O_RDWR);
	works(fd, "open what it leads to");
	fstat(fd, &st);
	ok(st.st_ino == inode_of("file"), "which is the file");
	fails(open(at("dir/up"), O_RDONLY | O_NOFOLLOW), ELOOP,
	      "unless links are not followed");
	close(fd);
	works(unlink(at("dir/up")), "remove it");
	works(symlink("loop2", at("loop1")), "two links");
	works(symlink("loop1", at("loop2")), "in a circle");
	fails(open(at("loop1"), O_RDONLY), ELOOP, "lead nowhere");
	unlink(at("loop1"));
	unlink(at("loop2"));
	works(symlink("dir", at("todir")), "a link to a directory");
	works(stat(at("todir/."), &st), "can be walked through");
	fails(rmdir(at("todir")), ENOTDIR, "is none itself");
	works(unlink(at("todir")), "remove it");
}

/* Links that others follow while they go: nobody reads freed memory */
static void test_walkers(void)
{
	int status, made = 0;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (!child) {
		struct stat st;

		for (;;)
			if (stat(at("walked"), &st) &&
			    errno != ENOENT && errno != ELOOP)
				_exit(errno);
	}
	for (int i = 0; i < COUNT; i++) {
		made += !symlink(i % 2 ? "dir/../file" : "walked",
				 at("walked"));
		unlink(at("walked"));
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	is(made, COUNT, "20,000 links that come and go");
	ok(WIFSIGNALED(status), "under somebody who follows them");
}

static void test_rename(void)
{
	uint64_t file = inode_of("file"), other;
	struct stat root, dir;
	int fd;

	works(rename(at("file"), at("dir/moved")), "into a directory");
	ok(!exists("file") && inode_of("dir/moved") == file, "it is there");
	works(rename(at("dir/moved"), at("file")), "and back");
	close(make_small("target", OFFSET + 2 * PAGE, 1));
	other = inode_of("target");
	fd = open(at("target"), O_RDONLY);
	fails(move("file", "target", RENAME_NOREPLACE), EEXIST,
	      "not over what is there");
	works(rename(at("file"), at("target")), "over what is there");
	ok(!exists("file") && inode_of("target") == file, "it is that now");
	fstat(fd, &root);
	ok(root.st_ino == other && !root.st_nlink,
	   "what was there has no name any more");
	close(fd);
	works(rename(at("target"), at("file")), "back to its name");

	works(mkdir(at("a"), 0755), "a directory");
	works(mkdir(at("a/b"), 0755), "and one in it");
	close(make_stub("a/b/f"));
	stat(mnt, &root);
	fails(rename(at("a"), at("a/b/c")), EINVAL, "not into itself");
	fails(rename(at("a/b"), at("file")), ENOTDIR, "not over a file");
	fails(rename(at("file"), at("a")), EISDIR, "nor a file over it");
	fails(rename(at("dir"), at("a/b")), ENOTEMPTY,
	      "nor over one that is not empty");
	works(rename(at("a/b"), at("b")), "out of it");
	stat(mnt, &dir);
	ok(dir.st_nlink == root.st_nlink + 1 && links_of("a") == 2 &&
	   links_of("b") == 2, "the link counts follow");
	works(rename(at("b"), at("a")), "over an empty one");
	stat(mnt, &dir);
	ok(dir.st_nlink == root.st_nlink && links_of("a") == 2 &&
	   exists("a/f") && !exists("b"), "and again");
	other = inode_of("a");
	works(move("a", "file", RENAME_EXCHANGE), "exchange with a file");
	ok(inode_of("a") == file && inode_of("file") == other,
	   "each has the other's name");
	works(move("a", "file", RENAME_EXCHANGE), "exchange again");
	fails(move("file", "w", RENAME_WHITEOUT), EINVAL, "no whiteouts");
	works(unlink(at("a/f")), "remove the file");
	works(rmdir(at("a")), "and the directory");

	works(link(at("file"), at("same")), "two names of one file");
	works(rename(at("file"), at("same")), "a rename between them");
	ok(exists("file") && exists("same"), "leaves both");
	works(unlink(at("same")), "remove one");
}

static void test_times(void)
{
	static const struct timespec times[2] = {
		{ .tv_sec = 1234567890, .tv_nsec = 123456789 },
		{ .tv_sec = -1, .tv_nsec = 999999999 },
	};
	struct timespec late[2] = {
		{ .tv_nsec = UTIME_OMIT }, { .tv_sec = 1LL << 33, .tv_nsec = 1 },
	};
	const char * const names[] = { "file", "dir", "time" };
	struct stat st;
	char byte;
	int fd;

	works(symlink("file", at("time")), "a symbolic link");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		works(utimensat(AT_FDCWD, at(names[i]), times,
				AT_SYMLINK_NOFOLLOW), names[i]);
		lstat(at(names[i]), &st);
		ok(!memcmp(&st.st_atim, &times[0], sizeof(times[0])) &&
		   !memcmp(&st.st_mtim, &times[1], sizeof(times[1])),
		   "has the times to the nanosecond");
	}
	works(unlink(at("time")), "remove the link");
	fd = open(at("file"), O_RDWR);
	works(futimens(fd, late), "only one time");
	fstat(fd, &st);
	ok(!memcmp(&st.st_atim, &times[0], sizeof(times[0])) &&
	   !memcmp(&st.st_mtim, &late[1], sizeof(late[1])),
	   "leaves the other");
	is(pread(fd, &byte, 1, 0), 1, "a read");
	fstat(fd, &st);
	ok(!memcmp(&st.st_mtim, &late[1], sizeof(late[1])), "changes nothing");
	is(pwrite(fd, &byte, 1, 0), 1, "a write");
	fstat(fd, &st);
	ok(memcmp(&st.st_mtim, &late[1], sizeof(late[1])), "sets the time");
	close(fd);

	/* As user space makes a file: map, contents, attributes */
	fd = make_small("new", OFFSET + 3 * PAGE, 5);
	is(pwrite(fd, "bytes", 5, 0), 5, "a new file");
	works(fchown(fd, 12, 34), "its owner");
	works(fchmod(fd, 0640), "its mode");
	works(futimens(fd, times), "its times");
	close(fd);
	stat(at("new"), &st);
	ok(st.st_uid == 12 && st.st_gid == 34 && st.st_mode == 0100640 &&
	   st.st_size == 5 && !memcmp(&st.st_mtim, &times[1], sizeof(*times)),
	   "stat tells them all");
	unlink(at("new"));
}

/* An attribute of a symbolic link is one of names too */
static void test_strict(void)
{
	struct timespec now[2] = { { .tv_nsec = UTIME_NOW },
				   { .tv_nsec = UTIME_NOW } };

	fails(utimensat(AT_FDCWD, at("symlink"), now, AT_SYMLINK_NOFOLLOW),
	      EPERM, "times of a symbolic link");
	fails(lchown(at("symlink"), 1, 1), EPERM, "its owner");
	fails(unlink(at("symlink")), EPERM, "its removal");
}

/* Any byte but '/' and NUL, and any length up to 255 */
static void test_names(void)
{
	char name[256], found[512];
	struct dirent *entry;
	int count = 0;
	DIR *dir;

	memset(name, 'n', 255);
	name[255] = '\0';
	snprintf(found, sizeof(found), "dir/%s", name);
	works(mkdir(at(found), 0755), "a name of 255 bytes");
	works(rmdir(at(found)), "remove it");
	for (int i = 1; i < 256; i++) {
		if (i == '/' || i == '.')
			continue;
		snprintf(found, sizeof(found), "dir/%c", i);
		count += !symlink("x", at(found));
	}
	is(count, 253, "names of every byte");
	dir = opendir(at("dir"));
	while ((entry = readdir(dir)))
		count -= entry->d_type == DT_LNK && strlen(entry->d_name) == 1;
	closedir(dir);
	is(count, 0, "readdir has them all, as links");
	for (int i = 1; i < 256; i++) {
		snprintf(found, sizeof(found), "dir/%c", i);
		if (i != '/' && i != '.')
			unlink(at(found));
	}
}

int main(int argc, char **argv)
{
	int editor, fd;

	set_up(argc, argv);
	fd = make_small("file", OFFSET, PAGE);
	close(fd);
	works(mkdir(at("dir"), 0755), "mkdir");
	test_refused("not strict");
	editor = become_editor();
	works(mount(NULL, mnt, NULL, MS_REMOUNT | MS_NOATIME, "strict"),
	      "remount strict");
	test_hard_links();
	test_symbolic_links();
	test_walkers();
	test_rename();
	test_times();
	test_names();
	works(symlink("file", at("symlink")), "a symbolic link");
	close(editor);
	test_strict();
	editor = become_editor();
	works(unlink(at("symlink")), "remove it");
	close(editor);
	test_refused("strict");
	works(mount(NULL, mnt, NULL, MS_REMOUNT | MS_NOATIME, "nostrict"),
	      "remount");
	works(unlink(at("file")), "unlink");
	works(rmdir(at("dir")), "rmdir");
	return tear_down();
}
