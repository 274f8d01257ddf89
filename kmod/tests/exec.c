// SPDX-License-Identifier: GPL-2.0
/* Programs and libraries run from famfs, and are protected while they do. */
#include <sys/sendfile.h>

#include "fixture.h"

#define BASE (32 * MIB)
#define EXEC_STATUS 42

/* Copy a file of the guest into a famfs file that can be run */
static void copy_in(const char *from, const char *name, uint64_t offset)
{
	int in = open(from, O_RDONLY), out;
	struct stat st;

	if (in < 0 || fstat(in, &st))
		bail("open %s", from);
	out = make_file(name, offset, st.st_size);
	while (lseek(in, 0, SEEK_CUR) < st.st_size)
		if (sendfile(out, in, NULL, st.st_size) <= 0)
			bail("copy %s", from);
	fchmod(out, 0755);
	close(in);
	close(out);
}

/* The exit status of a program of a user; what it prints goes to @text */
static int run(const char *path, char *const argv[], char *text, size_t size)
{
	size_t len = 0;
	int out[2];
	ssize_t got;
	pid_t child;

	if (pipe(out))
		bail("pipe");
	fflush(stdout);
	child = fork();
	if (!child) {
		dup2(out[1], STDOUT_FILENO);
		close(out[0]);
		close(out[1]);
		if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
			_exit(126);
		execv(path, argv);
		_exit(127);
	}
	close(out[1]);
	while ((got = read(out[0], text + len, size - 1 - len)) > 0)
		len += got;
	text[len] = 0;
	close(out[0]);
	return wait_for(child);
}

/* The line of /proc/PID/maps that ends with the name and can be executed */
static bool mapped_from(const char *maps, const char *path)
{
	const char *line = maps;
	char want[4200];

	snprintf(want, sizeof(want), " %s\n", path);
	while ((line = strstr(line, want))) {
		const char *start = line;

		while (start > maps && start[-1] != '\n')
			start--;
		if (memmem(start, line - start, " r-xp ", 6))
			return true;
		line++;
	}
	return false;
}

static void test_static(void)
{
	char *argv[] = { "exec", "--run", NULL };
	char text[64];

	copy_in("/proc/self/exe", "static", BASE);
	is(run(at("static"), argv, text, sizeof(text)), EXEC_STATUS,
	   "run a static program");
	ok(!strcmp(text, "it runs\n"), "it prints its line");
}

/*
 * Set-user-ID bits come from other machines: a program with them runs from a
 * mount with nosuid only, and without what they would give it.
 */
static void test_privileges(void)
{
	char *argv[] = { "exec", "--user", NULL };
	struct stat st;
	char text[64];

	works(chmod(at("static"), 04755), "set-user-ID");
	is(run(at("static"), argv, text, sizeof(text)), 127,
	   "such a program does not run");
	works(chmod(at("static"), 02755), "set-group-ID");
	is(run(at("static"), argv, text, sizeof(text)), 127, "nor does this");
	works(mount(NULL, mnt, NULL, MS_REMOUNT | MS_NOATIME | MS_NOSUID, ""),
	      "remount nosuid");
	works(chmod(at("static"), 06755), "set both");
	stat(at("static"), &st);
	is(st.st_mode & 07777, 06755, "stat tells them");
	is(run(at("static"), argv, text, sizeof(text)), EXEC_STATUS,
	   "it runs, and is who has started it");
	works(mount(NULL, mnt, NULL, MS_REMOUNT | MS_NOATIME | MS_NOEXEC, ""),
	      "remount noexec");
	works(chmod(at("static"), 0755), "an ordinary program");
	is(run(at("static"), argv, text, sizeof(text)), 127,
	   "does not run there");
	works(mount(NULL, mnt, NULL, MS_REMOUNT | MS_NOATIME, ""), "remount");
	is(run(at("static"), argv, text, sizeof(text)), EXEC_STATUS,
	   "and runs again");
}

/* A script in a file of its own size, in a page */
static void test_script(void)
{
	static const char script[] = "#!/bin/sh\nexit 42\n";
	char *argv[] = { "script", NULL };
	char text[64];
	int fd = make_small("script", BASE, sizeof(script) - 1);

	is(pwrite(fd, script, sizeof(script) - 1, 0), sizeof(script) - 1,
	   "write a script");
	fchmod(fd, 0755);
	close(fd);
	is(run(at("script"), argv, text, sizeof(text)), EXEC_STATUS, "run it");
	unlink(at("script"));
}

/* Nobody may write into a program that runs */
static void test_busy(void)
{
	char *argv[] = { "exec", "--wait", NULL };
	pid_t child;
	int ready[2];
	char byte;

	if (pipe(ready))
		bail("pipe");
	fflush(stdout);
	child = fork();
	if (!child) {
		dup2(ready[1], STDOUT_FILENO);
		close(ready[0]);
		close(ready[1]);
		execv(at("static"), argv);
		_exit(127);
	}
	close(ready[1]);
	is(read(ready[0], &byte, 1), 1, "a program runs");
	fails(open(at("static"), O_RDWR), ETXTBSY, "open it for writing");
	works(unlink(at("static")), "unlink it");
	kill(child, SIGTERM);
	is(wait_for(child), -1, "it goes on until it is ended");
	close(ready[0]);
}

static void test_dynamic(void)
{
	static char text[65536];
	char *cat[] = { "cat", "/proc/self/maps", NULL };
	char program[4096];
	char *by_loader[] = { "ld.so", "--library-path", (char *)mnt, program,
			      "/proc/self/maps", NULL };

	copy_in("/usr/bin/cat", "cat", BASE + 16 * MIB);
	is(run(at("cat"), cat, text, sizeof(text)), 0,
	   "run a dynamic program");
	ok(mapped_from(text, at("cat")), "its code is mapped from famfs");

	copy_in("/lib/x86_64-linux-gnu/libc.so.6", "libc.so.6",
		BASE + 24 * MIB);
	copy_in("/lib64/ld-linux-x86-64.so.2", "ld.so", BASE + 32 * MIB);
	snprintf(program, sizeof(program), "%s", at("cat"));
	is(run(at("ld.so"), by_loader, text, sizeof(text)), 0,
	   "run it with loader and library from famfs");
	ok(mapped_from(text, at("ld.so")), "the loader's code is famfs's");
	ok(mapped_from(text, at("libc.so.6")), "the library's code too");
	unlink(at("cat"));
	unlink(at("libc.so.6"));
	unlink(at("ld.so"));
}

static void test_refused(void)
{
	char *argv[] = { "stub", NULL };
	char text[64];
	int fd = make_stub("stub");

	fchmod(fd, 0755);
	close(fd);
	is(run(at("stub"), argv, text, sizeof(text)), 127,
	   "a file without a map does not run");
	unlink(at("stub"));
}

int main(int argc, char **argv)
{
	/* What test_static(), test_privileges() and test_busy() run */
	if (argc == 2 && !strcmp(argv[1], "--run")) {
		puts("it runs");
		return EXEC_STATUS;
	}
	if (argc == 2 && !strcmp(argv[1], "--user"))
		return geteuid() == 1000 && getegid() == 1000 ? EXEC_STATUS : 1;
	if (argc == 2 && !strcmp(argv[1], "--wait")) {
		(void)!write(STDOUT_FILENO, "", 1);
		pause();
	}

	set_up(argc, argv);
	test_static();
	test_privileges();
	test_busy();
	test_script();
	test_dynamic();
	test_refused();
	return tear_down();
}
