// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest that runs benchmark programs.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::Command;
use vm_tests::{BOOT, Cluster, Member, Node, Pool, Transport, View, mount_disk};

use super::disk::{Bench, DISK, PROGRAMS};
use crate::bench::measurement::{Better, Measurement};
use crate::bench::sample::ROUNDS;

/// How long one program may take, under emulation and beside other work.
const LIMIT: Duration = Duration::from_secs(1800);

/// Rounds of the program that measures the length of a nanosecond.
const COUNT_ROUNDS: u32 = 1_000_000;

/// What the guest's clock measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Time, as far as the host provides it.
    Time,
    /// Instructions, one per nanosecond.
    Instructions,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "time",
            Self::Instructions => "instructions",
        })
    }
}

/// The unit of a measurement's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Nanoseconds or instructions.
    One,
    /// Milliseconds or millions of instructions.
    Million,
}

impl Clock {
    /// How often to measure. Instruction counts do not change between rounds.
    pub fn rounds(self) -> usize {
        match self {
            Self::Time => ROUNDS,
            Self::Instructions => 1,
        }
    }

    /// A measurement with this clock. The goal is an upper limit for the ratio of instructions.
    pub fn measurement(
        self,
        (id, what): (&str, &str),
        scale: Scale,
        value: f64,
        (peer, peer_value): (&str, f64),
        goal: Option<f64>,
    ) -> Measurement {
        let (id, unit) = match (self, scale) {
            (Self::Time, Scale::One) => (format!("kmod.{id}.time"), "ns"),
            (Self::Time, Scale::Million) => (format!("kmod.{id}.time"), "ms"),
            (Self::Instructions, Scale::One) => (format!("kmod.{id}"), "insn"),
            (Self::Instructions, Scale::Million) => (format!("kmod.{id}"), "Minsn"),
        };
        let divisor = match scale {
            Scale::One => 1.0,
            Scale::Million => 1e6,
        };
        let peer = (peer, peer_value / divisor);
        let goal = goal.filter(|_| self == Self::Instructions);
        Measurement::new(&id, what, unit, value / divisor, peer, (Better::Lower, goal))
    }
}

/// A guest with a pool that is not attached, and the programs.
pub struct Guest {
    cluster: Cluster,
    /// How many nanoseconds the guest counts for one nanosecond or instruction.
    unit: f64,
    /// Its pool, which must be dropped last.
    _pool: Pool,
}

impl Guest {
    /// Boots a guest. `size` is the size of the pool, `content` how much of it will be written.
    pub fn start(
        bench: &Bench,
        clock: Clock,
        view: View,
        (size, content): (u64, u64),
        memory: u64,
    ) -> Result<Self> {
        let pool = Pool::create(&bench.artifacts, size, content, view)?;
        let name = match view {
            View::Devdax => "devdax",
            View::Raw => "pmem",
        };
        let mut member = Member::new(name, true)
            .with_transport(Some(Transport::Pmem { readonly: false }))
            .with_disk(bench.disk.clone())
            .without_attach();
        if clock == Clock::Instructions {
            member = member.counting_instructions();
        } else {
            member = member.in_threads();
        }
        let cluster = Cluster::start(&bench.artifacts, &pool, memory, vec![member])?;
        cluster.wait_ready(BOOT)?;
        let mut guest = Self { cluster, unit: 1.0, _pool: pool };
        mount_disk(guest.node()?, DISK, PROGRAMS)?;
        if clock == Clock::Instructions {
            guest.unit = guest.instruction()?;
        }
        Ok(guest)
    }

    /// How many nanoseconds the guest counts for one instruction. The kernel measures its clock at
    /// boot, with limited accuracy; if the result is far from one, the clock does not count
    /// instructions.
    fn instruction(&self) -> Result<f64> {
        let loop_of_two = self.measure("count", &[&COUNT_ROUNDS.to_string()])?;
        let each = loop_of_two / 2.0 / f64::from(COUNT_ROUNDS);
        ensure!(
            (0.9..1.1).contains(&each),
            "the guest's clock does not count instructions: one takes {each:.3} ns"
        );
        Ok(each)
    }

    fn node(&self) -> Result<&Node> {
        self.cluster.nodes().first().context("the cluster has no VM")
    }

    /// Runs a script with the disk's programs in its path, and returns its standard output.
    pub fn shell(&self, script: &str) -> Result<String> {
        self.output(&Command::shell(&format!("PATH={PROGRAMS}/bin:$PATH\n{script}")))
    }

    /// Runs a benchmark program and returns the nanoseconds or instructions that its work took.
    pub fn measure(&self, program: &str, arguments: &[&str]) -> Result<f64> {
        let path = format!("{PROGRAMS}/bin/{program}");
        self.measure_command(&Command::new([path.as_str()].iter().chain(arguments).copied()))
    }

    /// Likewise for any command that prints nanoseconds.
    pub fn measure_command(&self, command: &Command) -> Result<f64> {
        Ok(self.number_of(command)? / self.unit)
    }

    /// Runs a benchmark program and returns the number that it prints.
    pub fn number(&self, program: &str, arguments: &[&str]) -> Result<f64> {
        let path = format!("{PROGRAMS}/bin/{program}");
        self.number_of(&Command::new([path.as_str()].iter().chain(arguments).copied()))
    }

    fn number_of(&self, command: &Command) -> Result<f64> {
        parse_number(&self.output(command)?).with_context(|| format!("{command:?}"))
    }

    fn output(&self, command: &Command) -> Result<String> {
        let output = self.node()?.run(command, LIMIT)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Powers the guest off. Its kernel log must be clean.
    pub fn end(self) -> Result<()> {
        self.cluster.end()
    }
}

/// The single positive number that a program printed.
fn parse_number(output: &str) -> Result<f64> {
    let number: f64 =
        output.trim().parse().with_context(|| format!("printed '{output}', not a number"))?;
    ensure!(number.is_finite() && number > 0.0, "printed {number}, not a positive number");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::parse_number;

    #[test]
    fn only_one_positive_number_is_a_result() {
        assert_eq!(parse_number("1234\n").unwrap(), 1234.0);
        for output in ["", "0\n", "-1\n", "inf\n", "1 2\n", "12 ns\n"] {
            assert!(parse_number(output).is_err(), "{output}");
        }
    }
}
