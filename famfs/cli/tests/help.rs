// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The help of every command teaches what it does, with examples and exit codes.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

use clap::{CommandFactory, Parser};
use famfs_cli::args::Cli;

/// The commands and the text after their options.
fn helps() -> Vec<(String, String)> {
    let cli = Cli::command();
    let help = |command: &clap::Command| {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        (command.get_name().to_owned(), text)
    };
    cli.get_subcommands().map(help).collect()
}

/// Example lines of a help: indented by two; an explanation may follow after spaces.
fn examples(help: &str) -> Vec<String> {
    let after = help.split("Examples:\n").nth(1).unwrap_or("");
    after
        .lines()
        .take_while(|line| line.starts_with("  "))
        .map(|line| line.trim_start().split("  ").next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_command_has_examples_and_exit_codes() {
    let mut missing = Vec::new();
    for (name, help) in helps() {
        for part in ["Examples:\n", "Exit codes: 0 "] {
            if !help.contains(part) {
                missing.push(format!("{name}: no {:?}", part.trim_end()));
            }
        }
        if examples(&help).is_empty() {
            missing.push(format!("{name}: no example line"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The program accepts every part of an example that is a famfs command.
#[test]
fn every_example_is_a_valid_command_line() {
    let mut count = 0;
    for (name, help) in helps() {
        let lines = examples(&help);
        let parts = lines.iter().flat_map(|line| line.split(" | "));
        for part in parts.filter(|part| part.starts_with("famfs ")) {
            let parsed = Cli::try_parse_from(part.split_whitespace());
            assert!(parsed.is_ok(), "{name}: {part}: {}", parsed.unwrap_err());
            count += 1;
        }
    }
    assert!(count > 40, "only {count} examples");
}

/// The commands in backquotes in messages, of all sources.
fn hints() -> Vec<String> {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dirs = vec![crates.join("src"), crates.join("../src")];
    let mut found = Vec::new();
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            // A text that continues on the next line begins there after its spaces.
            let code: Vec<&str> = code.map(str::trim_start).collect();
            let code = code.join("\n").replace("\\\n", "");
            let hints = code.split("`famfs ").skip(1).filter_map(|rest| rest.split_once('`'));
            found.extend(hints.map(|(hint, _)| format!("famfs {hint}")));
        }
    }
    found
}

/// A command that a message suggests can be run: its options exist. Operands and values may be left
/// to the reader.
#[test]
fn every_hint_is_a_command_line() {
    use clap::error::ErrorKind::{InvalidValue, MissingRequiredArgument};
    let hints = hints();
    assert!(hints.len() > 15, "only {hints:?}");
    for hint in hints.iter().filter(|hint| !hint.contains('{')) {
        if let Err(err) = Cli::try_parse_from(hint.split_whitespace()) {
            let left = [MissingRequiredArgument, InvalidValue].contains(&err.kind());
            assert!(left, "{hint}: {err}");
        }
        // It would ask, and in a script nobody answers.
        assert!(!hint.contains("takeover") || hint.contains("--yes"), "{hint}");
    }
}

/// No help shows an option that its command refuses: --pool of commands for a mounted famfs.
#[test]
fn a_pool_is_offered_where_it_is_taken() {
    let mut cli = Cli::command();
    cli.build();
    let (mut taken, mut refused) = (0, 0);
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        let offered =
            command.get_arguments().any(|arg| arg.get_id() == "pool" && !arg.is_hide_set());
        // Each command accepts one of these numbers of arguments; none of the paths exists.
        let answers = (0..=2).flat_map(|count| {
            [&["--pool", "none", name][..], &[name, "--pool", "none"]].map(|words| {
                let mut famfs = std::process::Command::new(env!("CARGO_BIN_EXE_famfs"));
                let famfs = famfs.args(words).args(&["/none/a", "/none/b"][..count]);
                let output = famfs.stdin(std::process::Stdio::null()).output().unwrap();
                (output.status.code(), String::from_utf8(output.stderr).unwrap())
            })
        });
        let refusals = answers.filter(|(_, text)| text.contains("takes no --pool")).count();
        assert_eq!(offered, refusals == 0, "{name}: refused {refusals} times");
        assert!(offered || refusals >= 2, "{name}: in one place of the command line only");
        *if offered { &mut taken } else { &mut refused } += 1;
    }
    assert!(taken > 20 && refused == 9, "{taken} {refused}");
}

/// Every option has a help text.
#[test]
fn every_option_has_a_help() {
    let cli = Cli::command();
    for command in cli.get_subcommands() {
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
        }
    }
}
