// SPDX-License-Identifier: GPL-2.0
/*
 * A writable layer over a shared tree: overlayfs with famfs below and a tmpfs
 * above. The tree below stays as it is.
 */
#include "fixture.h"

#define BASE (96 * MIB)
#define UPPER "/tmp/famfs_overlay_test"
#define MERGED UPPER "/merged"

static const char *in(const char *name)
{
	static char paths[4][512];
	static int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), MERGED "/%s", name);
	return path;
}

static int mount_overlay(void)
{
	char options[5000];

	mkdir(UPPER, 0700);
	if (mount("none", UPPER, "tmpfs", 0, ""))
		bail("mount tmpfs");
	mkdir(UPPER "/upper", 0755);
	mkdir(UPPER "/work", 0755);
	mkdir(MERGED, 0755);
	snprintf(options, sizeof(options),
		 "lowerdir=%s,upperdir=" UPPER "/upper,workdir=" UPPER "/work",
		 mnt);
	return mount("overlay", MERGED, "overlay", MS_NOSUID, options);
}

/* A small file, one with a hole, an empty one, links, and a directory */
static void make_lower(void)
{
	static const struct famfs_ioc_piece pieces[] = {
		{ 0, BASE + PAGE, PAGE }, { PMD, BASE + 2 * PAGE, PAGE },
	};
	int editor = become_editor();
	int fd = make_small("small", BASE, 5);

	(void)!pwrite(fd, "small", 5, 0);
	close(fd);
	fd = make_stub("sparse");
	if (map_pieces(fd, PMD + PAGE, 2, pieces))
		bail("map a file with a hole");
	(void)!pwrite(fd, "start", 5, 0);
	(void)!pwrite(fd, "end", 3, PMD);
	close(fd);
	fd = make_stub("empty");
	if (map_pieces(fd, 0, 0, NULL))
		bail("map an empty file");
	close(fd);
	if (link(at("small"), at("hard")) || symlink("small", at("soft")) ||
	    mkdir(at("dir"), 0755))
		bail("make links");
	close(editor);
}

static int read_text(const char *path, uint64_t offset, const char *want)
{
	char text[16] = "";
	int fd = open(path, O_RDONLY);
	ssize_t got = pread(fd, text, strlen(want), offset);

	close(fd);
	return got == (ssize_t)strlen(want) && !strcmp(text, want);
}

static void test_read(void)
{
	char target[16] = "";
	struct stat st;
	char *mem;
	int fd;

	ok(read_text(in("small"), 0, "small"), "a small file");
	ok(read_text(in("soft"), 0, "small"), "a symbolic link to it");
	is(readlink(in("soft"), target, sizeof(target)), 5, "its target");
	stat(in("hard"), &st);
	is(st.st_nlink, 2, "a file with two names");
	stat(in("empty"), &st);
	is(st.st_size, 0, "an empty file");
	ok(read_text(in("sparse"), PMD, "end"), "a file with a hole");
	fd = open(in("sparse"), O_RDONLY);
	is(lseek(fd, 0, SEEK_HOLE), PAGE, "which SEEK_HOLE finds");
	mem = map_file(fd, PMD + PAGE, PROT_READ, MAP_SHARED);
	ok(!memcmp(mem, "start", 5) && !mem[PAGE] && !memcmp(mem + PMD, "end", 3),
	   "the same through a mapping");
	munmap(mem, PMD + PAGE);
	close(fd);
}

static void test_change(void)
{
	struct stat st;
	int fd = open(in("sparse"), O_RDWR);

	is(pwrite(fd, "hole", 4, 2 * PAGE), 4, "a write into the hole");
	close(fd);
	ok(read_text(in("sparse"), 2 * PAGE, "hole") &&
	   read_text(in("sparse"), PMD, "end"), "makes a whole file above");
	fd = open(in("hard"), O_RDWR | O_TRUNC);
	is(write(fd, "larger than it was", 18), 18, "a file that grows");
	close(fd);
	fd = open(in("empty"), O_WRONLY | O_APPEND);
	is(write(fd, "x", 1), 1, "a byte for the empty file");
	close(fd);
	works(rename(in("soft"), in("dir/soft")), "rename a link");
	works(unlink(in("small")), "remove a file");
	works(chmod(in("dir"), 0700), "change a mode");
	fails(stat(in("small"), &st), ENOENT, "it is gone");
}

static void test_below(void)
{
	struct stat st;
	char byte;
	int fd;

	ok(read_text(at("small"), 0, "small"), "below, the file is there");
	ok(read_text(at("hard"), 0, "small"), "as it was");
	fd = open(at("sparse"), O_RDONLY);
	is(pread(fd, &byte, 1, 2 * PAGE), 1, "the hole is there");
	is(byte, 0, "and still a hole");
	close(fd);
	stat(at("empty"), &st);
	is(st.st_size, 0, "the empty file too");
	stat(at("dir"), &st);
	is(st.st_mode & 07777, 0755, "and the mode");
	works(lstat(at("soft"), &st), "and the link");
}

int main(int argc, char **argv)
{
	set_up(argc, argv);
	make_lower();
	if (system("modprobe overlay"))
		bail("load overlay");
	works(mount_overlay(), "mount an overlay");
	test_read();
	test_change();
	test_below();
	works(umount(MERGED), "unmount the overlay");
	works(umount(UPPER), "and what is above");
	rmdir(UPPER);
	return tear_down();
}
