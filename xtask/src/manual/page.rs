// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The manual page of a command, generated from its `--help`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::Man;
use roff::{Inline, Roff, bold, italic, roman};

/// The text before the examples in a help.
const EXAMPLES: [&str; 2] = ["Examples:", "Example"];
/// The text before the exit codes in a help.
const EXIT_CODES: &str = "Exit codes: ";

/// Writes the pages of a command and its subcommands.
pub fn write_all(command: &Command, dir: &Path) -> Result<()> {
    let mut command = command.clone();
    command.build();
    write_tree(&command, dir)
}

fn write_tree(command: &Command, dir: &Path) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page(command, &name)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        if !sub.is_hide_set() {
            write_tree(sub, dir)?;
        }
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> Result<Vec<u8>> {
    let man = Man::new(command.clone()).title(name).source("vhost-famfs");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    out.extend(synopsis(command).to_roff().into_bytes());
    let about = command.get_long_about().or_else(|| command.get_about());
    let texts = [about, command.get_after_help()].map(|text| text.map(ToString::to_string));
    let [about, notes] = texts.map(Option::unwrap_or_default);
    let (about, mut examples, mut codes) = split(&about);
    let (notes, more, further) = split(&notes);
    examples.extend(more);
    codes.extend(further);
    out.extend(text("DESCRIPTION", about).to_roff().into_bytes());
    if command.get_opts().next().is_some() || command.get_positionals().next().is_some() {
        man.render_options_section(&mut out)?;
    }
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    for section in [text("NOTES", notes), lines("EXAMPLES", &examples), text("EXIT STATUS", codes)]
    {
        out.extend(section.to_roff().into_bytes());
    }
    Ok(out)
}

/// The usage as `--help` prints it, with the name of every argument.
fn synopsis(command: &Command) -> Roff {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let mut line: Vec<Inline> = Vec::new();
    for word in usage.split_whitespace() {
        if !line.is_empty() {
            line.push(roman(" "));
        }
        line.push(if word.starts_with(['<', '[']) { italic(word) } else { bold(word) });
    }
    roff.text(line);
    roff
}

/// Splits a help into paragraphs, example lines and exit codes.
fn split(help: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut paragraphs, mut examples, mut codes) = (Vec::new(), Vec::new(), Vec::new());
    for paragraph in help.split("\n\n").map(str::trim_end).filter(|text| !text.is_empty()) {
        let mut rest = paragraph;
        if let Some(first) = paragraph.lines().next()
            && EXAMPLES.iter().any(|word| first.starts_with(word))
        {
            rest = paragraph.strip_prefix(first).unwrap_or_default().trim_start_matches('\n');
            if first != EXAMPLES[0] {
                examples.push(first.to_owned());
            }
        }
        if let Some(text) = rest.strip_prefix(EXIT_CODES) {
            codes.push(text.to_owned());
        } else if rest.starts_with("  ") {
            examples.extend(rest.lines().map(|line| line.get(2..).unwrap_or(line).to_owned()));
        } else if !rest.is_empty() {
            paragraphs.push(rest.to_owned());
        }
    }
    (paragraphs, examples, codes)
}

/// A section of paragraphs; empty if there are none.
fn text(title: &str, paragraphs: Vec<String>) -> Roff {
    let mut roff = Roff::new();
    for (number, paragraph) in paragraphs.into_iter().enumerate() {
        match number {
            0 => roff.control("SH", [title]),
            _ => roff.control("PP", []),
        };
        roff.text([roman(paragraph.replace('\n', " "))]);
    }
    roff
}

/// A section of lines that are not filled; empty if there are none.
fn lines(title: &str, lines: &[String]) -> Roff {
    let mut roff = Roff::new();
    if lines.is_empty() {
        return roff;
    }
    roff.control("SH", [title]).control("nf", []);
    for line in lines {
        roff.text([roman(line.as_str())]);
    }
    roff.control("fi", []);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(command: &Command) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        write_all(command, dir.path()).unwrap();
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
        entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
    }

    /// The lines of a section.
    fn section<'p>(page: &'p str, title: &str) -> Vec<&'p str> {
        let quoted = format!(".SH \"{title}\"");
        let begins = |line: &&str| *line == format!(".SH {title}") || *line == quoted;
        let after = page.lines().skip_while(|line| !begins(line)).skip(1);
        after.take_while(|line| !line.starts_with(".SH")).collect()
    }

    #[test]
    fn every_page_can_be_read() {
        use clap::CommandFactory;
        let famfs = pages(&famfs_cli::args::Cli::command());
        let vhost = pages(&vhost_famfs::args::Cli::command());
        assert!(famfs.len() > 30 && vhost.len() > 15, "{} {}", famfs.len(), vhost.len());
        for (name, page) in famfs.iter().chain(&vhost) {
            assert!(!page.contains("EXTRA"), "{name}: an unknown macro was printed as text");
            assert!(!section(page, "DESCRIPTION").is_empty(), "{name}: no description");
            for line in section(page, "DESCRIPTION").iter().chain(&section(page, "NOTES")) {
                assert!(!line.starts_with("Example") && !line.starts_with("  "), "{name}: {line}");
            }
            let examples = section(page, "EXAMPLES");
            if !examples.is_empty() {
                assert_eq!((examples.first(), examples.last()), (Some(&".nf"), Some(&".fi")));
            }
        }
        for (name, page) in famfs.iter().filter(|(name, _)| name.contains('-')) {
            assert!(section(page, "EXAMPLES").len() > 2, "{name}: no examples");
            assert!(!section(page, "EXIT STATUS").is_empty(), "{name}: no exit codes");
        }
    }

    #[test]
    fn a_synopsis_names_every_argument() {
        use clap::CommandFactory;
        let pages = pages(&famfs_cli::args::Cli::command());
        let page = |name: &str| &pages.iter().find(|(found, _)| found == name).unwrap().1;
        assert!(section(page("famfs-cp"), "SYNOPSIS").concat().contains("DEST"));
        assert!(section(page("famfs-mount"), "SYNOPSIS").concat().contains("MPT"));
    }
}
