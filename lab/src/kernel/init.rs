//! The first process of a guest: mounts what programs expect, loads modules, runs the guest's program, says how that
//! ended, and switches the guest off.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};

/// The guest's program and its arguments, a line each.
pub(super) const COMMAND: &str = "/guest/command";
/// The modules to load, a line each: file and parameters.
pub(super) const MODULES: &str = "/guest/modules";
/// Folders that are mounted on.
pub(super) const FOLDERS: &[&str] = &["/proc", "/sys", "/dev", "/run", "/tmp"];
/// Where the program's output goes.
const OUTPUT: &str = "/dev/ttyS1";
/// Where the verdict goes.
const VERDICT: &str = "/dev/ttyS2";
/// How many connections the kernel tracks at most, in each namespace.
const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// So many files a process may have open.
const FILES: u64 = 1 << 16;
/// Where programs are found.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether this is a guest, where an instruction costs twenty times as much.
pub fn is_inside() -> bool {
    Path::new(COMMAND).exists()
}

/// When this process is the first one of a guest, does all that there is to do there, and does not return. Programs
/// that start a [`super::Guest`] call it before anything else.
pub fn enter() {
    if std::process::id() != 1 || !Path::new(COMMAND).exists() {
        return;
    }
    // To the console, whose end the host shows when there is no verdict.
    if let Err(error) = run() {
        eprintln!("the guest's first process: {error:#}");
    }
    nix::unistd::sync();
    // Ends the guest when it fails, too: a kernel whose first process ends panics.
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("switch the guest off: {error}");
}

fn run() -> Result<()> {
    let filesystems = ["proc", "sysfs", "devtmpfs", "tmpfs", "tmpfs"];
    for (folder, kind) in FOLDERS.iter().zip(filesystems) {
        mount(Some(kind), *folder, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {kind} on {folder}"))?;
    }
    for module in lines(MODULES)? {
        load(&module)?;
    }
    // By its memory a guest would track fewer connections than a sample of some scenarios makes.
    fs::write(CONNTRACK_MAX, "262144").with_context(|| format!("write to {CONNTRACK_MAX}"))?;
    // The limit of a shell is for programs that hold no lab.
    setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).context("allow more open files")?;
    let output = File::options().write(true).open(OUTPUT);
    let output = output.with_context(|| format!("open {OUTPUT}"))?;
    let line = lines(COMMAND)?;
    let (program, arguments) = line.split_first().context("no program")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("PATH", PATH)
        .env("RUST_BACKTRACE", "1");
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let ended = command.status().context("start the program")?;
    let mut verdict = File::options().write(true).open(VERDICT)?;
    writeln!(verdict, "{}", verdict_of(ended)).with_context(|| format!("write to {VERDICT}"))
}

fn lines(file: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn load(module: &str) -> Result<()> {
    let (path, parameters) = module.split_once(' ').unwrap_or((module, ""));
    let file = File::open(path).with_context(|| format!("open {path}"))?;
    match finit_module(&file, &CString::new(parameters)?, ModuleInitFlags::empty()) {
        // Some are for processors of another make, and their work is done by others.
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("load {module}")),
    }
}

/// A line that [`super::guest`] reads: the exit code, or 128 and the signal, as shells have it.
fn verdict_of(ended: ExitStatus) -> i32 {
    let by_signal = ended.signal().map_or(1, |signal| 128 + signal);
    ended.code().unwrap_or(by_signal)
}
