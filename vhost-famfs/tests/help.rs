// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks the help of every command: one style, an explanation of every option, and examples that
//! are valid command lines.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use clap::{Command, CommandFactory, Parser};
use vhost_famfs::args::Cli;

/// All commands with their full names, such as `pool create`.
fn commands(command: &Command, name: &str, found: &mut Vec<(String, Command)>) {
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        let name = format!("{name} {}", inner.get_name()).trim_start().to_owned();
        commands(inner, &name, found);
        found.push((name, inner.clone()));
    }
}

fn all() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    commands(&Cli::command(), "", &mut found);
    assert!(found.len() >= 19, "only {} commands", found.len());
    found
}

#[test]
fn every_help_has_one_style() {
    let mut wrong = Vec::new();
    for (name, command) in all() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let first = about.lines().next().unwrap_or_default();
        if first.is_empty() || first.ends_with('.') {
            wrong.push(format!("{name}: {first:?}: expected a line without a full stop"));
        }
        for arg in command.get_arguments() {
            if arg.get_help().is_none() {
                wrong.push(format!("{name}: no help of {}", arg.get_id()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_example_is_a_valid_command_line() {
    let mut count = 0;
    for (name, command) in all() {
        let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
        for line in about.lines().map(str::trim).filter(|line| line.starts_with("vhost-famfs ")) {
            let words = line.split_whitespace().take_while(|word| *word != "&");
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.unwrap_err());
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} examples");
}

/// No number of seconds overflows a clock.
#[test]
fn times_have_a_bound() {
    let mut count = 0;
    for (name, command) in all() {
        for arg in command.get_arguments().filter(|arg| arg.get_id() == "timeout") {
            let words = format!("vhost-famfs {name} --{} {}", arg.get_id(), u64::MAX);
            let words = words.split(' ').chain(["vm1", "true"]);
            let refused = Cli::try_parse_from(words).unwrap_err().to_string();
            assert!(refused.contains("from 0 to 604800"), "{name}: {refused}");
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} commands with a timeout");
}
