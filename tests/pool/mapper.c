// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * mapper DIR FILES: maps the files 0 to FILES-1 of the directories DIR/1,
 * DIR/2 and so on when each of them appears, until DIR/end does. Every word of
 * a file must be its directory's number * 65536 + its own. Some of them stay
 * mapped while later directories come and go, and are compared again before
 * they are unmapped. Prints the number of each directory that was right, and
 * "done" at the end.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SIZE 4096
/* Of so many files one stays mapped, */
#define KEPT_OF 16
/* until so many other directories have come. */
#define KEPT_FOR 4
#define MOST_FILES 4096

struct kept {
	uint64_t *words;
	uint64_t name;
};

static struct kept kept[KEPT_FOR][MOST_FILES];

static void compare(const volatile uint64_t *words, uint64_t name, const char *when)
{
	for (unsigned int at = 0; at < SIZE / sizeof(*words); at++) {
		uint64_t found = words[at];

		if (found == name)
			continue;
		printf("file %llu of directory %llu, %s: word %u is of file %llu of directory %llu\n",
		       (unsigned long long)name % 65536, (unsigned long long)name / 65536,
		       when, at, (unsigned long long)found % 65536,
		       (unsigned long long)found / 65536);
		exit(1);
	}
}

static uint64_t *map(const char *path)
{
	int fd = open(path, O_RDONLY);
	void *words = MAP_FAILED;

	if (fd >= 0)
		words = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (words == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	close(fd);
	return words;
}

static void let_go(struct kept *slot)
{
	if (!slot->words)
		return;
	compare(slot->words, slot->name, "still mapped");
	munmap(slot->words, SIZE);
	slot->words = NULL;
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 2000000 };
	char path[4096], end[4096];

	if (argc != 3 || atoi(argv[2]) > MOST_FILES) {
		fprintf(stderr, "usage: mapper DIR FILES\n");
		return 2;
	}
	snprintf(end, sizeof(end), "%s/end", argv[1]);
	for (uint64_t dir = 1;; dir++) {
		struct kept *row = kept[dir % KEPT_FOR];

		snprintf(path, sizeof(path), "%s/%llu", argv[1], (unsigned long long)dir);
		while (access(path, F_OK)) {
			if (!access(end, F_OK)) {
				for (int n = 0; n < KEPT_FOR; n++)
					for (int file = 0; file < MOST_FILES; file++)
						let_go(&kept[n][file]);
				printf("mapper: done\n");
				return 0;
			}
			nanosleep(&pause, NULL);
		}
		for (int file = 0; file < atoi(argv[2]); file++) {
			uint64_t name = dir * 65536 + file;
			uint64_t *words;

			snprintf(path, sizeof(path), "%s/%llu/%d", argv[1],
				 (unsigned long long)dir, file);
			words = map(path);
			compare(words, name, "just mapped");
			let_go(&row[file]);
			if ((file + dir) % KEPT_OF)
				munmap(words, SIZE);
			else
				row[file] = (struct kept){ words, name };
		}
		printf("mapper: %llu.\n", (unsigned long long)dir);
		fflush(stdout);
	}
}
