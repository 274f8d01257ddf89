// SPDX-License-Identifier: GPL-2.0
/* Tells whether the clock counts instructions: two of them in each round. */
#include "bench.h"

/* More than a guest that has just booted takes to come to rest */
#define PASSES 50

int main(int argc, char **argv)
{
	uint64_t rounds, left, start, best = 0;
	int pass;

	if (argc != 2)
		usage("ROUNDS");
	rounds = number(argv[1]);

	for (pass = 0; pass < PASSES; pass++) {
		left = rounds;
		start = now();
		asm volatile("1: dec %0\n\tjnz 1b" : "+r"(left));
		keep_best(&best, start);
	}
	report(best);
	return 0;
}
