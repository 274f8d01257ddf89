// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the tests that boot virtual machines have in common.
