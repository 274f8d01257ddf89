// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A random sequence of changes, by the tools on the master's mount and by the host's programs in a
//! directory: a VM that follows has the same tree as the master and as the directory.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;

use anyhow::{Context, Result, ensure};
use famfs::write::prng::SeededBytes;
use tempfile::TempDir;
use trees::{Kind, Rules, Tree};
use vm_tests::{
    Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View, read_tree, seed, send_trees,
};

use super::script::run;
use super::{MEMORY, POOL};

/// Changes between two looks at the trees.
const CHANGES: usize = 40;
/// How often all are compared, the end included.
const STOPS: usize = 4;

/// What both shells begin with. `change` is a program of the tools or of the host; `make` makes a
/// file with a time, `sparse` one with holes, for copies.
const BEGIN: &str = "
set -euo pipefail
umask 022
rm -rf $S; mkdir -p $S
cd $M
make() { mkdir -p $(dirname $S/$1); head -c $2 /dev/zero | tr '\\0' $3 > $S/$1; touch -d @$4 $S/$1; }
sparse() { truncate -s 3M $S/$1; echo data | dd of=$S/$1 bs=4096 seek=$2 conv=notrunc status=none; touch -d @$3 $S/$1; }
";

/// Directories tell on the host only that names in them changed; all get the same time. `$STOP` is
/// the last name, so who sees it has seen everything before.
const END: &str = r#"
shopt -s globstar nullglob
dirs=()
for dir in **/; do [[ -L ${dir%/} ]] || dirs+=("$dir"); done
$TOUCH -d @9 "${dirs[@]}"
$TOUCH -d @10 $STOP
"#;

pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL / 2, View::Devdax)?;
    pool.mkfs(&[])?;
    let (seed, name) = seed()?;
    println!("# {name}={seed}");
    let host = tempfile::tempdir().context("no temporary directory")?;
    let tree = host.path().join("tree");
    fs::create_dir(&tree).context("cannot make the directory")?;
    let members = vec![Member::new("master", true), Member::new("follower", false)];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    let (master, follower) = (cluster.node("master")?, cluster.node("follower")?);
    for node in [master, follower] {
        send_trees(artifacts, node)?;
    }
    follower.wait_watch()?;

    let mut model = Model::new(seed);
    for stop in 1..=STOPS {
        let what = format!("{CHANGES} changes later, master, follower and host have one tree");
        session.check(&what, || {
            let script = model.changes(CHANGES);
            on_host(&host, &script, stop)?;
            in_guest(master, &script, stop)?;
            follower.wait_for(&format!("[[ -e /mnt/famfs/stop-{stop} ]]"))?;
            model.names_of(&expected(&tree)?)?;
            for node in [master, follower] {
                let found = read_tree(node, "/mnt/famfs", &[".meta"])?;
                same(&tree, &found)
                    .with_context(|| format!("{}, stop {stop}, {name}={seed}", node.member.name))?;
            }
            Ok(())
        });
    }
    session.check("a replay in the follower finds nothing to do", || {
        run(follower, "famfs logplay /mnt/famfs && famfs check /mnt/famfs").map(drop)
    });
    session.check("both shut down in order", || cluster.end());
    session.check("after a compaction by the host, the tree is the same", || {
        pool.famfs(["fsck"])?;
        pool.famfs(["compact"])?;
        pool.famfs(["fsck"])?;
        let copy = host.path().join("copy");
        fs::create_dir(&copy).context("cannot make the directory")?;
        let to = copy.to_str().context("a path that is not UTF-8")?;
        pool.famfs(["cp", "--out", "-r", "--keep-set-id", "/", to])?;
        same(&tree, &Tree::read(&copy)?)
    });
    Ok(())
}

/// Makes the changes in the directory of the host.
fn on_host(host: &TempDir, script: &str, stop: usize) -> Result<()> {
    let at = |name: &str| host.path().join(name);
    let script =
        format!("change() {{ \"$@\"; }}\ncopy() {{ cp -a \"$@\"; }}\n{BEGIN}{script}{END}");
    let output = HostCommand::new("bash")
        .args(["-c", &script])
        .env("S", at("source"))
        .env("M", at("tree"))
        .env("TOUCH", "touch")
        .env("STOP", format!("stop-{stop}"))
        .output()
        .context("cannot run bash")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the host: {said}\n{script}");
    Ok(())
}

/// Makes them on the mount of a guest.
fn in_guest(node: &Node, script: &str, stop: usize) -> Result<()> {
    let script = format!(
        "S=/tmp/source M=/mnt/famfs TOUCH='famfs touch' STOP=stop-{stop}
        change() {{ famfs \"$@\"; }}
        copy() {{ famfs cp -r \"$@\"; }}
        {BEGIN}{script}{END}"
    );
    run(node, &script).map(drop)
}

/// The tree of the host as a famfs has it: only files have several names.
fn expected(dir: &Path) -> Result<Tree> {
    let mut tree = Tree::read(dir)?;
    for entry in tree.entries.values_mut() {
        if matches!(entry.kind, Kind::Symlink(_)) {
            entry.same_as = None;
        }
    }
    Ok(tree)
}

fn same(dir: &Path, found: &Tree) -> Result<()> {
    let any_owner = !rustix::process::geteuid().is_root();
    let rules = Rules { any_root: true, any_owner, ..Rules::default() };
    trees::compare(&expected(dir)?, found, rules).none()
}

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Directory,
    /// A file, by number: names of one file have the same.
    File(u64),
    Link,
    /// A symbolic link that may lead to a directory: mv(1) would move into that, `famfs mv` takes
    /// the link's place.
    DirLink,
}

impl What {
    fn is_link(self) -> bool {
        matches!(self, Self::Link | Self::DirLink)
    }
}

/// The names that there are, so that each change has something to change.
struct Model {
    random: SeededBytes,
    names: BTreeMap<String, What>,
    made: u64,
}

impl Model {
    fn new(seed: u32) -> Self {
        Self { random: SeededBytes::new(seed), names: BTreeMap::new(), made: 0 }
    }

    /// The model has the names of the directory, but those of the stops.
    fn names_of(&self, tree: &Tree) -> Result<()> {
        let is_stop = |path: &[u8]| path.is_empty() || path.starts_with(b"stop-");
        let there = tree.entries.keys().filter(|path| !is_stop(path));
        let there: Vec<_> = there.map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        let expected: Vec<_> = self.names.keys().cloned().collect();
        ensure!(there == expected, "the model has {expected:?}, the host {there:?}");
        Ok(())
    }

    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 4];
        self.random.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % end
    }

    fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// One of the names that are asked for.
    fn pick(&mut self, wanted: impl Fn(&str, What) -> bool) -> Option<String> {
        let names = self.names.iter().filter(|(path, what)| wanted(path, **what));
        let names: Vec<String> = names.map(|(path, _)| path.clone()).collect();
        (!names.is_empty()).then(|| names[self.below(names.len())].clone())
    }

    /// A new name in some directory.
    fn new_name(&mut self) -> String {
        let dir = self.pick(|path, what| what == What::Directory && path.matches('/').count() < 6);
        let (number, long) = (self.next(), self.below(8) == 0);
        let name = if long { format!("{number}-{}", "n".repeat(200)) } else { number.to_string() };
        match dir {
            Some(dir) if self.below(4) != 0 => format!("{dir}/{name}"),
            _ => name,
        }
    }

    fn time(&mut self) -> String {
        format!("{}.{:09}", self.below(2_000_000_000), self.below(1_000_000_000))
    }

    /// Moves or removes a name and what is below it.
    fn take(&mut self, path: &str) -> Vec<(String, What)> {
        let below = format!("{path}/");
        let is_inside = |name: &String| name == path || name.starts_with(&below);
        let names: Vec<_> = self.names.keys().filter(|name| is_inside(name)).cloned().collect();
        let taken = names.into_iter().filter_map(|name| self.names.remove_entry(&name));
        taken.collect()
    }

    /// Lines of a shell for so many changes.
    fn changes(&mut self, count: usize) -> String {
        let mut script = String::new();
        for _ in 0..count {
            while self.change(&mut script).is_none() {}
        }
        script
    }

    /// One change; none if there is nothing to change in that way.
    fn change(&mut self, script: &mut String) -> Option<()> {
        let file = |_: &str, what| matches!(what, What::File(_));
        let any = |_: &str, _| true;
        let line = match self.below(14) {
            0 | 1 => {
                let name = self.new_name();
                self.names.insert(name.clone(), What::Directory);
                format!("change mkdir -m 755 {name}")
            }
            2..=4 => self.copy_file(),
            5 => self.copy_tree(),
            6 => {
                let (old, name) = (self.pick(file)?, self.new_name());
                self.names.insert(name.clone(), self.names[&old]);
                format!("change ln {old} {name}")
            }
            7 => {
                let (name, time) = (self.new_name(), self.time());
                let text = format!("{}nowhere", "../".repeat(self.below(90)));
                self.names.insert(name.clone(), What::Link);
                format!("change ln -s {text} {name}; change touch -h -d @{time} {name}")
            }
            8 | 9 => self.rename()?,
            10 => {
                let (path, mode) = (self.pick(|_, what| !what.is_link())?, self.below(8));
                format!("change chmod 7{mode}5 {path}")
            }
            11 => {
                let (path, time) = (self.pick(|_, what| !what.is_link())?, self.time());
                format!("change touch -d @{time} {path}")
            }
            12 if rustix::process::geteuid().is_root() => {
                let (path, user) = (self.pick(any)?, self.below(60_000));
                format!("change chown -h {user}:{} {path}", user / 2)
            }
            _ => {
                let path = self.pick(|path, what| what != What::Directory || path.len() > 9)?;
                self.take(&path);
                format!("change rm -r {path}")
            }
        };
        writeln!(script, "{line}").ok()
    }

    /// A file of any size, with one of each digit's bytes.
    fn copy_file(&mut self) -> String {
        let (name, time, number) = (self.new_name(), self.time(), self.next());
        let size = [0, 1, 100, 4096, 5000, 70_000][self.below(6)];
        self.names.insert(name.clone(), What::File(number));
        format!("make one {size} {} {time}; copy $S/one {name}", number % 10)
    }

    /// A tree with a file, a sparse one, and links.
    fn copy_tree(&mut self) -> String {
        let (name, time, number) = (self.new_name(), self.time(), self.next());
        let page = self.below(700);
        for (path, what) in [
            ("", What::Directory),
            ("/in", What::Directory),
            ("/in/file", What::File(number)),
            ("/same", What::File(number)),
            ("/sparse", What::File(number + 1)),
            ("/link", What::DirLink),
        ] {
            self.names.insert(format!("{name}{path}"), what);
        }
        self.made += 1;
        format!(
            "rm -rf $S/t; make t/in/file 9000 {} {time}; ln $S/t/in/file $S/t/same; \
             sparse t/sparse {page} {time}; ln -s in $S/t/link; touch -h -d @{time} $S/t/link; \
             copy $S/t {name}",
            number % 10
        )
    }

    /// A move to a new name, or over a file or link.
    fn rename(&mut self) -> Option<String> {
        let old = self.pick(|_, _| true)?;
        let what = self.names[&old];
        let over = match what {
            What::Directory => None,
            // A move over another name of the same file does nothing.
            _ => self.pick(|path, other| {
                let is_over = matches!(other, What::File(_) | What::Link);
                path != old && is_over && (other != what || what == What::Link)
            }),
        };
        let new = match over {
            Some(over) if self.below(2) == 0 => over,
            _ => self.new_name(),
        };
        if new.starts_with(&format!("{old}/")) {
            return None;
        }
        for (name, what) in self.take(&old) {
            self.names.insert(format!("{new}{}", &name[old.len()..]), what);
        }
        Some(format!("change mv {old} {new}"))
    }
}
