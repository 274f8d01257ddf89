// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sets of the host's processors, and threads that run only on these.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Processors by their numbers; at least one. Written as in the kernel's lists: `0-3,8`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Processors(BTreeSet<usize>);

impl Processors {
    /// Those on which this thread may run.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn of_this_thread() -> io::Result<Self> {
        let set = sched_getaffinity(None)?;
        Ok(Self((0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect()))
    }

    /// Whether it has no other processors than these.
    #[must_use]
    pub fn is_within(&self, others: &Self) -> bool {
        self.0.is_subset(&others.0)
    }

    /// Does something in a thread that runs only on these processors. What it starts inherits that.
    ///
    /// # Errors
    /// The kernel does not permit all of these processors.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let mut set = CpuSet::new();
        self.0.iter().for_each(|number| set.set(*number));
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                sched_setaffinity(None, &set)?;
                // The kernel leaves out what this process may not use.
                if sched_getaffinity(None)? != set {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl FromStr for Processors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a list of processors: write numbers and ranges below {}, such as \
                 \"0-3,8\"",
                CpuSet::MAX_CPU
            )
        };
        // The kernel's lists have no signs and no spaces.
        let number = |word: &str| {
            let digits = word.bytes().all(|byte| byte.is_ascii_digit());
            let number = word.parse::<usize>().ok().filter(|number| *number < CpuSet::MAX_CPU);
            number.filter(|_| digits).ok_or_else(wrong)
        };
        let mut all = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first)?..=number(last)?;
            if range.is_empty() {
                return Err(wrong());
            }
            all.extend(range);
        }
        Ok(Self(all))
    }
}

impl TryFrom<String> for Processors {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Processors> for String {
    fn from(processors: Processors) -> Self {
        processors.to_string()
    }
}

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (text, written) in
            [("0", "0"), ("3,1,2", "1-3"), ("0-1,1-2,8", "0-2,8"), ("1023", "1023")]
        {
            assert_eq!(text.parse::<Processors>().unwrap().to_string(), written, "{text}");
        }
        for text in ["", "1,", "a", "+1", "-1", "1-", "3-1", "0-1024", " 1", "1--2"] {
            assert!(text.parse::<Processors>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_the_thread_at_work_is_bound() {
        let all = Processors::of_this_thread().unwrap();
        let one = Processors([*all.0.first().unwrap()].into());
        assert!(one.is_within(&all));
        let inside = one.run(|| Processors::of_this_thread().unwrap()).unwrap();
        assert_eq!((inside, Processors::of_this_thread().unwrap()), (one, all));
        assert!(Processors([1023].into()).run(|| ()).is_err(), "no machine of ours has that");
    }
}
