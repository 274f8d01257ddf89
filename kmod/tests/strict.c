// SPDX-License-Identifier: GPL-2.0
/* Strict mounts: who may change names and attributes, and what everybody may. */
#include <pthread.h>
#include <sys/wait.h>

#include "fixture.h"
#include "log.h"

#define FILE_OFFSET (32 * MIB)

static int remount(const char *options)
{
	return mount(NULL, mnt, NULL, MS_REMOUNT | MS_NOATIME, options);
}

/* What an editor makes: files to be changed by others, in vain */
static void make_tree(void)
{
	int editor = become_editor();
	int fd = make_file("file", FILE_OFFSET, PMD);

	works(mkdir(at("dir"), 0777), "an editor makes a directory");
	works(fd, "and a file");
	works(fchmod(fd, 06777), "and sets modes");
	works(fchown(fd, 1000, 1000), "and owners");
	works(fchmod(fd, 06777), "and modes again");
	close(fd);
	works(mkdir(at("gone"), 0700), "it makes");
	works(rmdir(at("gone")), "and removes");
	close(make_stub("gone"));
	works(unlink(at("gone")), "files as well");
	works(chmod(mnt, 0777), "and changes the root directory");
	close(editor);
}

static void test_refusals(void)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_NOW },
				     { .tv_nsec = UTIME_NOW } };
	struct stat before, after;

	stat(at("file"), &before);
	fails(open(at("new"), O_CREAT | O_RDWR, 0600), EPERM, "create");
	fails(mkdir(at("new"), 0700), EPERM, "mkdir");
	fails(unlink(at("file")), EPERM, "unlink");
	fails(rmdir(at("dir")), EPERM, "rmdir");
	fails(rename(at("file"), at("new")), EPERM, "rename");
	fails(rename(at("file"), at("dir/file")), EPERM, "move");
	fails(link(at("file"), at("new")), EPERM, "link");
	fails(symlink("file", at("new")), EPERM, "symlink");
	fails(mknod(at("new"), S_IFREG | 0600, 0), EPERM, "mknod of a file");
	fails(mknod(at("new"), S_IFIFO | 0600, 0), EPERM, "mknod of a fifo");
	fails(chmod(at("file"), 0600), EPERM, "chmod");
	fails(chmod(at("dir"), 0700), EPERM, "chmod of a directory");
	fails(chmod(mnt, 0700), EPERM, "chmod of the root directory");
	fails(chown(at("file"), 0, 0), EPERM, "chown");
	fails(utimensat(AT_FDCWD, at("file"), times, 0), EPERM, "touch");
	fails(truncate(at("file"), 1), EPERM, "truncate");
	fails(open(at("file"), O_RDWR | O_TRUNC), EPERM, "open with O_TRUNC");
	stat(at("file"), &after);
	ok(before.st_mode == after.st_mode && before.st_uid == after.st_uid &&
	   before.st_size == after.st_size &&
	   before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
	   before.st_mtim.tv_nsec == after.st_mtim.tv_nsec,
	   "the file is as it was");
	fails(stat(at("new"), &after), ENOENT, "and there is nothing new");
	works(stat(at("dir"), &after), "nor less");
}

/* The rest of a process without privileges, as user and group 1000 or others */
static void become(uid_t id)
{
	if (setresgid(id, id, id) || setresuid(id, id, id))
		_exit(99);
}

static void test_data(void)
{
	struct stat before, after;
	char *mem;
	pid_t child;
	int fd;

	stat(at("file"), &before);
	fd = open(at("file"), O_RDWR | O_CREAT, 0600);
	works(fd, "open with O_CREAT what is there");
	wait_for_tick();
	is(pwrite(fd, "data", 4, 0), 4, "write");
	works(ftruncate(fd, PMD), "truncate to the same size");
	mem = map_file(fd, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	mem[4096] = 'm';
	munmap(mem, PMD);
	fstat(fd, &after);
	ok(after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
	   after.st_mtim.tv_nsec != before.st_mtim.tv_nsec,
	   "the time of the change is kept");
	is(after.st_mode & 07777, 06777, "root's writes leave the mode alone");
	close(fd);

	fflush(stdout);
	child = fork();
	if (!child) {
		become(1001);
		fd = open(at("file"), O_RDWR);
		_exit(fd < 0 || pwrite(fd, "user", 4, 0) != 4);
	}
	is(wait_for(child), 0, "a user writes, as the mode allows");
	stat(at("file"), &after);
	is(after.st_mode & 07777, 0777, "which ends its privileges");
}

static void *make_in_thread(void *result)
{
	*(int *)result = mkdir(at("thread"), 0700);
	return NULL;
}

/* Who an editor is, and for how long */
static void test_editors(char **argv)
{
	int editor = become_editor(), other, result = -1;
	int pipes[2];
	char byte;
	pthread_t thread;
	pid_t child;

	works(ioctl(editor, FAMFSIOC_EDIT), "to ask again changes nothing");
	pthread_create(&thread, NULL, make_in_thread, &result);
	pthread_join(thread, NULL);
	is(result, 0, "a thread of an editor is the editor");
	works(rmdir(at("thread")), "as is the first one");

	fflush(stdout);
	child = fork();
	if (!child)
		_exit(mkdir(at("child"), 0700) != -1 || errno != EPERM);
	is(wait_for(child), 0, "a child is not: EPERM");
	child = fork();
	if (!child)
		_exit(ioctl(editor, FAMFSIOC_EDIT) != -1 || errno != EBUSY);
	is(wait_for(child), 0, "nor by the parent's descriptor: EBUSY");
	child = fork();
	if (!child) {
		become_editor();
		_exit(mkdir(at("child"), 0700) || rmdir(at("child")));
	}
	is(wait_for(child), 0, "it is by its own");
	child = fork();
	if (!child) {
		/* Not closed by exec, and so still an editor after it */
		fcntl(become_editor(), F_SETFD, 0);
		execl("/proc/self/exe", argv[0], dev, mnt, "mkdir", NULL);
		_exit(98);
	}
	is(wait_for(child), 0, "and stays it over an exec");

	other = become_editor();
	close(editor);
	works(mkdir(at("new"), 0700), "two descriptors, one closed");
	works(rmdir(at("new")), "clean up");
	editor = dup(other);
	close(other);
	works(mkdir(at("new"), 0700), "a duplicate, the first closed");
	works(rmdir(at("new")), "clean up");
	fails(umount(mnt), EBUSY, "unmount while a directory is open");
	close(editor);
	fails(mkdir(at("new"), 0700), EPERM, "after the last close");

	/* The descriptor outlives the process: nobody else is that editor */
	if (pipe(pipes))
		bail("pipe");
	fflush(stdout);
	child = fork();
	if (!child) {
		become_editor();
		if (!fork()) {
			close(pipes[1]);
			_exit(read(pipes[0], &byte, 1));
		}
		_exit(0);
	}
	is(wait_for(child), 0, "an editor that ends, its descriptor held");
	for (int i = 0; i < 100 && result != 1; i++) {
		child = fork();
		if (!child)
			_exit(mkdir(at("new"), 0700) != -1);
		result = wait_for(child);
	}
	is(result, 0, "makes no editor of new processes");
	close(pipes[1]);
	close(pipes[0]);
}

static void test_ioctl(void)
{
	int dir = open(mnt, O_RDONLY | O_DIRECTORY);
	int file = open(at("file"), O_RDWR);
	struct famfs_ioc_map map;
	pid_t child;

	fails(ioctl(file, FAMFSIOC_EDIT), ENOTTY, "on a file");
	fails(ioctl(dir, FAMFSIOC_NOP), ENOTTY, "another ioctl on a directory");
	fails(ioctl(dir, FAMFSIOC_MAP_GET, &map), ENOTTY, "and a third");
	close(file);
	fflush(stdout);
	child = fork();
	if (!child) {
		become(1000);
		_exit(ioctl(dir, FAMFSIOC_EDIT) != -1 || errno != EPERM);
	}
	is(wait_for(child), 0, "without CAP_SYS_ADMIN: EPERM");
	close(dir);
	dir = open(at("dir"), O_RDONLY | O_DIRECTORY);
	works(ioctl(dir, FAMFSIOC_EDIT), "on any directory");
	works(mkdir(at("new"), 0700), "for all of the mount");
	works(rmdir(at("new")), "clean up");
	close(dir);
}

static void test_remount(void)
{
	int editor;

	ok(mounts_line_has(dev, mnt, "strict"), "/proc/mounts has it");
	works(remount(""), "a remount that does not mention it");
	fails(mkdir(at("new"), 0700), EPERM, "leaves it");
	works(remount("nostrict"), "nostrict");
	ok(!mounts_line_has(dev, mnt, "strict"), "/proc/mounts has it no more");
	works(mkdir(at("new"), 0700), "switches it off");
	works(rmdir(at("new")), "clean up");
	editor = become_editor();
	works(mkdir(at("new"), 0700), "where it does no harm to be an editor");
	works(rmdir(at("new")), "clean up");
	close(editor);
	works(remount("strict"), "strict");
	fails(mkdir(at("new"), 0700), EPERM, "switches it on");
	fails(remount("strict=1"), EINVAL, "it takes no value");
}

static int try_mkdir(void)
{
	return mkdir(at("new"), 0700);
}

static int try_link(void)
{
	return link(at("file"), at("new"));
}

static int try_symlink(void)
{
	return symlink("file", at("new"));
}

static int try_rename(void)
{
	return rename(at("file"), at("new"));
}

static int try_chmod(void)
{
	return chmod(at("file"), 0600);
}

/* One line names the command to use, however often it is tried */
static void test_log(void)
{
	static const struct {
		int (*change)(void);
		const char *command;
	} cases[] = {
		{ try_link, "last: famfs ln" },
		{ try_symlink, "famfs ln -s" },
		{ try_rename, "famfs mv" },
		{ try_chmod, "famfs chmod" },
		{ try_mkdir, "famfs mkdir" },
	};
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		/* Longer than the pause that the refusal before has begun */
		sleep(6);
		works(lseek(kmsg, 0, SEEK_END), "go to the end of the log");
		fails(cases[i].change(), EPERM, "a change");
		is(new_messages(kmsg, cases[i].command), 1,
		   "the log names the command");
	}
	for (int i = 0; i < 1000; i++)
		try_mkdir();
	ok(new_messages(kmsg, "") <= 1, "and is not flooded");
	close(kmsg);
}

int main(int argc, char **argv)
{
	if (argc > 3) {
		parse_arguments(argc, argv);
		return mkdir(at("exec"), 0700) || rmdir(at("exec"));
	}
	set_up(argc, argv);
	works(remount("strict"), "remount strict");
	make_tree();
	test_refusals();
	test_data();
	test_editors(argv);
	test_ioctl();
	test_remount();
	test_log();
	return tear_down();
}
