// SPDX-License-Identifier: GPL-2.0
/* Unmounting while files are in use, at once and lazily. */
#include "fixture.h"

#define BASE (40 * MIB)

int main(int argc, char **argv)
{
	struct stat st;
	char *mem;
	char byte;
	int fd;

	set_up(argc, argv);
	fd = make_file("file", BASE, PMD);
	fails(umount(mnt), EBUSY, "unmount with an open file");
	mem = map_file(fd, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	memset(mem, 'u', PMD);
	close(fd);
	fails(umount(mnt), EBUSY, "unmount with a mapping");

	works(umount2(mnt, MNT_DETACH), "lazy unmount with a mapping");
	fails(stat(at("file"), &st), ENOENT, "the file is out of sight");
	is(mem[PMD - 1], 'u', "but can be read");
	mem[0] = 'v';
	fails(mount_famfs(""), EBUSY, "mount while the mapping lives");
	munmap(mem, PMD);
	works(mount_famfs(""), "mount after that");
	fails(stat(at("file"), &st), ENOENT, "the new mount is empty");
	fd = make_file("file", BASE, PMD);
	is(pread(fd, &byte, 1, 0), 1, "read the same range");
	is(byte, 'v', "the data is there");
	close(fd);

	for (int i = 0; i < 100; i++) {
		if (umount(mnt) || mount_famfs(""))
			bail("round %d", i);
		fd = make_file("file", BASE, PMD);
		mem = map_file(fd, PMD, PROT_READ, MAP_SHARED);
		(void)*(volatile char *)mem;
		munmap(mem, PMD);
		close(fd);
	}
	ok(true, "100 rounds of mount, use and unmount");
	return tear_down();
}
