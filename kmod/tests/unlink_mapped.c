// SPDX-License-Identifier: GPL-2.0
/*
 * Unlinked files: data and device range stay theirs until the last mapping or
 * descriptor is gone. Pins are in gup.c.
 */
#include "fixture.h"

#define BASE (48 * MIB)
#define SIZE (2 * PMD)

static const struct famfs_ioc_simple_extent extent = { 0, BASE, SIZE };

/* The range of the unlinked file, for another file: what comes of it */
static int try_range(void)
{
	int fd = make_stub("next");
	int ret = map_simple(fd, SIZE, 1, &extent);
	int error = errno;

	close(fd);
	unlink(at("next"));
	errno = error;
	return ret;
}

static void test_mapping(void)
{
	int fd = make_file("mapped", BASE, SIZE);
	char *mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct stat st;
	char byte;

	memset(mem, 'm', SIZE);
	works(unlink(at("mapped")), "unlink a file that is mapped");
	fails(stat(at("mapped"), &st), ENOENT, "its name is gone");
	is(pread(fd, &byte, 1, PMD), 1, "it can be read");
	close(fd);
	fails(try_range(), EBUSY, "its range while it is mapped");
	mem[0] = 'n';
	ok(mem[0] == 'n' && mem[SIZE - 1] == 'm', "its data is there");
	munmap(mem, PMD);
	fails(try_range(), EBUSY, "its range while half of it is mapped");
	munmap(mem + PMD, PMD);
	works(try_range(), "its range after that");

	fd = make_file("again", BASE, SIZE);
	is(pread(fd, &byte, 1, 0), 1, "read the range in a new file");
	is(byte, 'n', "the data has survived");
	close(fd);
	unlink(at("again"));
}

static void test_descriptor(void)
{
	int fd = make_file("open", BASE, SIZE);

	unlink(at("open"));
	fails(try_range(), EBUSY, "the range of a file that is open");
	close(fd);
	works(try_range(), "and after the close");
}

static void test_child(void)
{
	int fd = make_file("child", BASE, SIZE);
	char *mem = map_file(fd, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	int to_child[2], status;
	pid_t child;
	char byte;

	if (pipe(to_child))
		bail("pipe");
	mem[0] = 1;
	fflush(stdout);
	child = fork();
	if (!child) {
		close(to_child[1]);
		(void)!read(to_child[0], &byte, 1);
		_exit(mem[0] != 1);
	}
	munmap(mem, SIZE);
	close(fd);
	unlink(at("child"));
	fails(try_range(), EBUSY, "the range of a file that a child has mapped");
	close(to_child[1]);
	waitpid(child, &status, 0);
	is(status, 0, "the child reads its data to the end");
	works(try_range(), "the range after the child's end");
	close(to_child[0]);
}

static void test_stub(void)
{
	int fd = make_stub("stub");

	works(unlink(at("stub")), "unlink an empty file");
	works(map_simple(fd, SIZE, 1, &extent), "a map for it, while open");
	close(fd);
	works(try_range(), "the range is free after the close");
}

static void test_names(void)
{
	struct stat st;
	int fd;

	works(mkdir(at("dir"), 0755), "mkdir");
	works(chown(at("dir"), 12, 34), "chown");
	works(chmod(at("dir"), 0750), "chmod");
	stat(at("dir"), &st);
	ok(st.st_uid == 12 && st.st_gid == 34 && (st.st_mode & 07777) == 0750 &&
	   st.st_nlink == 2, "stat tells it");
	fd = make_file("dir/file", BASE, SIZE);
	close(fd);
	fails(rmdir(at("dir")), ENOTEMPTY, "rmdir with a file in it");
	fails(link(at("dir/file"), at("link")), EPERM, "link");
	fails(symlink("x", at("symlink")), EPERM, "symlink");
	fails(rename(at("dir/file"), at("other")), EPERM, "rename");
	fails(mknod(at("fifo"), S_IFIFO | 0600, 0), EPERM, "mknod");
	works(unlink(at("dir/file")), "unlink");
	works(rmdir(at("dir")), "rmdir");
	works(try_range(), "the range is free");
}

int main(int argc, char **argv)
{
	set_up(argc, argv);
	test_stub();
	test_mapping();
	test_descriptor();
	test_child();
	test_names();
	return tear_down();
}
