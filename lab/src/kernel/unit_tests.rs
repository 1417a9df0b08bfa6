//! Unit tests inside guests: where their program is, what they are called, and how one is run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

/// How much of what a failed test printed is shown, in bytes from its end.
const TAIL: usize = 8192;

/// The newest test program of a crate, beside this program, that was built from a source file (the end of its path).
/// Cargo tells a test program's path to nobody else; what a program was built from stands beside it.
///
/// # Errors
/// When there is none, or a source is newer than it.
pub fn find(name: &str, source: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().context("this program is in no folder")?;
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    find_in(folder, root, name, source).with_context(|| {
        format!(
            "find the unit tests of {name} in {}; cargo test --no-run builds them",
            folder.display()
        )
    })
}

/// [`find`] in a folder. Paths of sources are relative to `root`.
fn find_in(folder: &Path, root: &Path, name: &str, source: &str) -> Result<PathBuf> {
    let mut newest: Option<(SystemTime, PathBuf, String)> = None;
    for entry in fs::read_dir(folder)? {
        let program = entry?.path();
        let is_named = program
            .file_stem()
            .is_some_and(|stem| stem.to_string_lossy().starts_with(&format!("{name}-")));
        if !is_named || program.extension().is_some() {
            continue;
        }
        let Ok(sources) = fs::read_to_string(program.with_extension("d")) else {
            continue;
        };
        let built = modified(&program)?;
        let is_newer = newest.as_ref().is_none_or(|(other, ..)| *other < built);
        let mut all = sources.split_whitespace();
        if is_newer && all.any(|path| path.ends_with(source)) {
            newest = Some((built, program, sources));
        }
    }
    let (built, program, sources) = newest.context("there is none")?;
    let line = sources.lines().next().unwrap_or_default();
    for source in line.split_whitespace().skip(1) {
        let changed = modified(&root.join(source))?;
        ensure!(changed <= built, "{source} is newer than {}", program.display());
    }
    Ok(program)
}

fn modified(file: &Path) -> Result<SystemTime> {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.with_context(|| format!("look at {}", file.display()))
}

/// The names of a program's tests that begin so.
///
/// # Errors
/// When the program does not say.
pub fn list(program: &Path, prefix: &str) -> Result<Vec<String>> {
    let mut command = Command::new(program);
    let output = command.args(["--list", "--format=terse", prefix]).output();
    let output = output.with_context(|| format!("start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    let names: Vec<_> = names
        .filter(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .collect();
    ensure!(!names.is_empty(), "{} has no tests {prefix}…", program.display());
    Ok(names)
}

/// Runs one test. A test that is skipped has failed: it was to run here.
pub(super) fn run(program: &Path, name: &str) -> Result<()> {
    let mut command = Command::new(program);
    let output = command.args(["--exact", name, "--nocapture"]).output();
    let output = output.with_context(|| format!("start {}", program.display()))?;
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let printed = printed.concat();
    let passed = output.status.success() && printed.contains("test result: ok. 1 passed");
    ensure!(passed && !printed.contains("SKIPPED"), "{}", tail(&printed));
    Ok(())
}

fn tail(text: &str) -> String {
    let from = text.len().saturating_sub(TAIL);
    String::from_utf8_lossy(&text.as_bytes()[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    /// A folder with programs, each built so many seconds after a start from these sources.
    fn folder(programs: &[(&str, u64, &str)], changed: &[(&str, u64)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let touch = |name: &str, text: &str, second: u64| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            let when = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(when)
                .unwrap();
        };
        for (name, built, sources) in programs {
            touch(name, "", *built);
            touch(
                &format!("{name}.d"),
                &format!("{name}: {sources}\n\n{sources}:\n"),
                *built,
            );
        }
        for (name, second) in changed {
            touch(name, "", *second);
        }
        folder
    }

    fn found(folder: &tempfile::TempDir) -> String {
        match find_in(folder.path(), folder.path(), "web", "test.rs") {
            Ok(program) => program.file_name().unwrap().to_string_lossy().into_owned(),
            Err(error) => format!("{error:#}").replace(&folder.path().display().to_string(), "."),
        }
    }

    #[test]
    fn the_newest_program_with_the_test_in_it_is_found_unless_a_source_is_newer() {
        let programs = [
            ("web-1", 10, "lib.rs test.rs"),
            ("web-2", 20, "lib.rs test.rs"),
            ("web-3", 30, "lib.rs"),
            ("website-4", 40, "lib.rs test.rs"),
        ];
        let sources = [("lib.rs", 5), ("test.rs", 20)];
        assert_eq!(found(&folder(&programs, &sources)), "web-2");
        let late = [("lib.rs", 21), ("test.rs", 20)];
        assert_eq!(found(&folder(&programs, &late)), "lib.rs is newer than ./web-2");
        assert_eq!(found(&folder(&programs[2..], &sources)), "there is none");
    }
}
