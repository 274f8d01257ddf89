// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of the program `famfs`, for the program itself and for the manual pages and
//! completions that are made from it.

pub mod args;
