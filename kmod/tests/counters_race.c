// SPDX-License-Identifier: GPL-2.0
/*
 * The fault counters switched while faults are taken.
 *
 * The switch rewrites code that another processor runs. QEMU's translator
 * with a thread for each processor may keep a translation of the breakpoint
 * that marks the place meanwhile, which is a panic of the guest: there, this
 * program needs "-accel tcg,thread=single".
 */
#include <pthread.h>

#include "counters.h"

#define SIZE (64 * MIB)

static volatile bool stop;

static void *toggle(void *number)
{
	for (uintptr_t i = (uintptr_t)number; !stop; i++)
		if (enable(i % 2 ? "1\n" : "0\n") != 2)
			return "enable";
	return NULL;
}

static void *fault(void *fd)
{
	while (!stop)
		read_all((intptr_t)fd, 0, 4 * PMD);
	return NULL;
}

/* Two threads switch, two take faults: nothing but the counts is at stake */
static void race(int fd)
{
	pthread_t threads[4];
	void *result, *failed = NULL;

	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, toggle, (void *)i);
	for (int i = 2; i < 4; i++)
		pthread_create(&threads[i], NULL, fault, (void *)(intptr_t)fd);
	sleep(2);
	stop = true;
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		pthread_join(threads[i], &result);
		failed = failed ?: result;
	}
	ok(!failed, "switch on and off while faults are taken");
}

int main(int argc, char **argv)
{
	int fd;

	set_up(argc, argv);
	fd = make_file("file", 64 * MIB, SIZE);
	race(fd);
	works(enable("1\n"), "switch them on");
	read_all(fd, 0, SIZE);
	expect(32, 0, "64 MiB after that");
	works(enable("0\n"), "switch them off");
	close(fd);
	return tear_down();
}
