/* SPDX-License-Identifier: GPL-2.0 */
/* Included by "make check" only: what kernel headers use and sparse 0.6 lacks */
#define __typeof_unqual__ __typeof__
#define __builtin_strlen(s) (sizeof(s) - 1)
