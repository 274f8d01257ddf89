// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent's programs `send` and `receive` do, in the stand-in for QEMU: the paths are those
//! of the host.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::path::Path;
use std::thread;

use famfs::archive::tar_writer::{Head, TarWriter};
use famfs::replay::Owner;
use protocol::exec::{Bytes, CHUNK, Reply, Status, Stream};
use transfer::pack::{self, Source, Watcher};
use transfer::place::places;
use transfer::unpack::unpack;

use super::stand_in::{Port, RUDE};

/// A path that the guest begins to send; then its VM ends.
pub const CUT: &str = "/cut";

/// A path of which the guest says that it is complete after its first half.
pub const SHORT: &str = "/short";

/// Bytes of a file of which a part is sent.
const PART: usize = 3 << 20;

/// Whether a command is one of those.
pub fn is_for(argv: &[String]) -> bool {
    argv.first().is_some_and(|program| program.ends_with("/appliance-agent"))
}

/// Starts one; returns its standard input.
pub fn start(port: Port, id: u64, argv: &[String], rude: bool) -> Option<PipeWriter> {
    let words: Vec<String> = argv[1..].to_vec();
    let (reader, writer) = io::pipe().unwrap();
    let receives = words[0] == "receive";
    thread::spawn(move || {
        let said = match (receives, rude) {
            (_, true) => hostile(Output { port: port.clone(), id }),
            (true, false) => receive(reader, &words),
            (false, false) => send(Output { port: port.clone(), id }, &words),
        };
        let code = i32::from(!said.is_empty());
        let data = Bytes(said.into_bytes());
        port.say(&Reply::Output { id, stream: Stream::Stderr, data });
        port.say(&Reply::Exit { id, status: Status::Code(code) });
    });
    receives.then_some(writer)
}

fn receive(input: PipeReader, words: &[String]) -> String {
    let names: Vec<OsString> = words[2..].iter().map(OsString::from).collect();
    let places = match places(Path::new(&words[1]), &names) {
        Ok(places) => places,
        Err(error) => return error.to_string(),
    };
    match unpack(input, &places, &mut |_| ()) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[derive(Default)]
struct Said(String);

impl Watcher for Said {
    fn copied(&mut self, _: u64) {}

    fn left_out(&mut self, what: String) {
        self.0 += &(what + "\n");
    }
}

fn send(mut out: Output, words: &[String]) -> String {
    let recursive = words[1] == "-r";
    let paths = words.iter().skip_while(|word| *word != "--").skip(1);
    let sources: Vec<_> = paths.clone().map(|path| Source::Path(path.into())).collect();
    if paths.clone().any(|path| [CUT, SHORT].contains(&path.as_str())) {
        let mut archive = Vec::new();
        TarWriter::new(&mut archive).file(&head(b"0"), PART as u64, &vec![1; PART][..]).unwrap();
        out.write_all(&archive[..PART / 2]).unwrap();
        if words.iter().any(|word| word == CUT) {
            std::process::exit(1);
        }
        return String::new();
    }
    let mut said = Said::default();
    // The host closes the connection when it has heard enough.
    let _ = pack::pack(sources, recursive, out, &mut said);
    said.0
}

fn head(name: &[u8]) -> Head<'_> {
    Head { name, owner: Owner { uid: 0, gid: 0, mode: 0o6777 }, mtime: None }
}

/// Everything that a guest must not make the host do.
fn hostile(out: Output) -> String {
    let mut tar = TarWriter::new(out);
    let _ = tar.directory(&head(b"0"));
    let _ = tar.symlink(&head(b"0/link"), b"..");
    let _ = tar.file(&head(b"0/link/planted"), 1, &b"x"[..]);
    let _ = tar.file(&head(b"../planted"), 1, &b"x"[..]);
    let _ = tar.finish();
    RUDE.to_owned()
}

/// Standard output of a command.
struct Output {
    port: Port,
    id: u64,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK);
        let data = Bytes(bytes[..count].to_vec());
        self.port.say(&Reply::Output { id: self.id, stream: Stream::Stdout, data });
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
