// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line of the program `famfs`, for the program itself and for what is made from it:
//! manual pages and completions.

pub mod args;
