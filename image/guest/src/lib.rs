// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host and the appliance guest agree on.
