// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A virtual environment of Python.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::plant::Plant;
use crate::tree::Time;

const LIB: &str = "lib/python3.11/site-packages";

/// When the sources were written: what their `.pyc` files must hold.
const WRITTEN: Time = Time { seconds: 1_700_000_000, nanoseconds: 987_654_321 };

/// A virtual environment with packages, compiled by the host's Python if it has one.
pub fn venv(plant: &Plant) -> Result<()> {
    plant.symlink("bin/python3", "/usr/bin/python3")?;
    plant.symlink("bin/python", "python3")?;
    plant.symlink("bin/python3.11", "python3")?;
    plant.symlink("lib64", "lib")?;
    plant.file("pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")?;
    plant.dir("include/python3.11")?;
    for program in ["pip", "pip3", "pip3.11", "f2py"] {
        plant.file(format!("bin/{program}"), "#!/venv/bin/python\nimport sys\nsys.exit(0)\n")?;
        plant.mode(format!("bin/{program}"), 0o755);
    }
    plant.file("bin/activate", "VIRTUAL_ENV=/venv\nexport VIRTUAL_ENV\n")?;

    let mut sources = Vec::new();
    let mut source = |path: &str, text: &str| {
        let path = format!("{LIB}/{path}");
        plant.file(&path, text)?;
        plant.time_now(&path, WRITTEN)?;
        sources.push((path, text.len()));
        anyhow::Ok(())
    };
    source("numbers_of/__init__.py", "from .core import add\n__version__ = '1.2.3'\n")?;
    source("numbers_of/core/__init__.py", "def add(a, b):\n    return a + b\n")?;
    source("numbers_of/tests/__init__.py", "")?;
    source("numbers_of/tests/test_core.py", "from numbers_of import add\nassert add(1, 2) == 3\n")?;
    source("pip/__init__.py", "")?;
    source("pip/_vendor/__init__.py", "")?;
    source("six.py", "PY3 = True\n")?;
    for number in 0..40 {
        let body = "VALUE = 'a longer text'\n".repeat(1 + 20 * number);
        source(&format!("pip/_internal/module_{number}.py"), &body)?;
    }
    plant.random(
        format!("{LIB}/numbers_of/core/_native.cpython-311-x86_64-linux-gnu.so"),
        3 << 20,
    )?;
    plant.mode(format!("{LIB}/numbers_of/core/_native.cpython-311-x86_64-linux-gnu.so"), 0o755);
    plant.random(format!("{LIB}/numbers_of.libs/libblas64_p-r0-2f7c42d4.so"), 5_000_001)?;
    for name in ["numbers_of-1.2.3", "pip-24.0", "six-1.16.0"] {
        let info = format!("{LIB}/{name}.dist-info");
        plant.file(format!("{info}/METADATA"), format!("Metadata-Version: 2.1\nName: {name}\n"))?;
        plant.file(format!("{info}/INSTALLER"), "pip\n")?;
        plant.file(format!("{info}/REQUESTED"), "")?;
        plant.random(format!("{info}/RECORD"), 9_000)?;
    }
    if !compiled_by_python(plant, &sources)? {
        compiled_by_hand(plant, &sources)?;
    }
    Ok(())
}

/// Whether the host has a Python that compiled the sources.
fn compiled_by_python(plant: &Plant, sources: &[(String, usize)]) -> Result<bool> {
    let answers = Command::new("python3")
        .args(["-c", ""])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !answers {
        return Ok(false);
    }
    let compiled = Command::new("python3")
        .args(["-m", "py_compile"])
        .args(sources.iter().map(|(path, _)| path))
        .current_dir(plant.path())
        // With it, the header holds a checksum instead of the time.
        .env_remove("SOURCE_DATE_EPOCH")
        .env_remove("PYTHONPYCACHEPREFIX")
        .output()
        .context("cannot run python3")?;
    let complaint = String::from_utf8_lossy(&compiled.stderr);
    ensure!(compiled.status.success(), "python3 -m py_compile: {complaint}");
    Ok(true)
}

/// Files with the header of a `.pyc` of Python 3.11, and `None` as the module.
fn compiled_by_hand(plant: &Plant, sources: &[(String, usize)]) -> Result<()> {
    const MAGIC: [u8; 4] = [0xa7, 0x0d, 0x0d, 0x0a];
    for (path, length) in sources {
        let (dir, name) = path.rsplit_once('/').context("a source without a directory")?;
        let module = name.trim_end_matches(".py");
        let mut content = MAGIC.to_vec();
        content.extend(0_u32.to_le_bytes());
        content.extend(u32::try_from(WRITTEN.seconds)?.to_le_bytes());
        content.extend(u32::try_from(*length)?.to_le_bytes());
        content.push(b'N');
        plant.file(format!("{dir}/__pycache__/{module}.cpython-311.pyc"), content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The times in the headers of the files below `__pycache__`.
    fn times(plant: &Plant, dir: &str) -> Vec<u32> {
        let files = fs::read_dir(plant.path().join(dir).join("__pycache__")).unwrap();
        let contents = files.map(|file| fs::read(file.unwrap().path()).unwrap());
        contents.map(|content| u32::from_le_bytes(content[8..12].try_into().unwrap())).collect()
    }

    #[test]
    fn compiled_files_hold_the_time_of_their_source() {
        let dir = tempfile::tempdir().unwrap();
        let plant = Plant::create(&dir.path().join("venv")).unwrap();
        venv(&plant).unwrap();
        assert_eq!(times(&plant, &format!("{LIB}/numbers_of/core")), [1_700_000_000]);
        let by_hand = Plant::create(&dir.path().join("by-hand")).unwrap();
        compiled_by_hand(&by_hand, &[("a/six.py".to_owned(), 11)]).unwrap();
        assert_eq!(times(&by_hand, "a"), [1_700_000_000]);
    }
}
