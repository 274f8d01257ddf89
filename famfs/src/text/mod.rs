// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text for people and programs: sizes, names, errors.

pub mod error_report;
pub mod json_name;
pub mod mode;
pub mod number;
pub mod terminal;
pub mod time;
pub mod units;
