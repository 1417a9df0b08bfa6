//! A guest from its boot to its verdict, as the host sees it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Kernel;
use crate::interrupt;
use crate::net::Process;

/// A guest that prints nothing for so long has come to a halt. A step of a scenario takes a minute of a busy machine.
const SILENCE: Duration = Duration::from_secs(20 * 60);
/// How much of the console an error shows, in bytes.
const TAIL: u64 = 4096;
/// The memory of a guest, in MB: the first file system with debug builds in it, and room to work.
const MEMORY: &str = "1024";
/// Without what programs use where it is there, and what costs more than it saves where it is emulated: strings that are
/// copied a byte an instruction, and wide registers.
const PROCESSOR: &str = "max,-erms,-fsrm,-avx,-avx2,-xsave";
/// `norandmaps`: what was translated of a program is found again where it was.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 norandmaps";

/// What to run on another kernel.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The kernel.
    pub kernel: Kernel,
    /// What runs inside; this program, whose `main` must call [`super::init::enter`] first, is what starts it there.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Programs and folders that it needs, beside those that every lab needs. Inside they have the same paths.
    pub files: Vec<PathBuf>,
}

/// How the program inside ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its exit code; 128 and the signal that killed it.
    pub code: u8,
}

/// A guest that runs. It is killed with this value.
struct Running {
    process: Process,
    lines: Receiver<String>,
    console: File,
    verdict: File,
    // The guest's first file system; read by QEMU while it starts.
    _image: File,
}

impl Guest {
    /// Boots, runs the program to its end, and hands out every line that it prints.
    ///
    /// # Errors
    /// When the guest could not be started, did not get as far as a verdict, came to a halt, or this process was
    /// asked to end. The error holds the end of the guest's console.
    pub fn run(&self, mut line: impl FnMut(&str)) -> Result<End> {
        interrupt::watch()?;
        let mut running = self.start()?;
        let mut heard = Instant::now();
        loop {
            match running.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(text) => {
                    heard = Instant::now();
                    line(&text);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    interrupt::check()?;
                    if heard.elapsed() > SILENCE {
                        let minutes = SILENCE.as_secs() / 60;
                        bail!(running.without_verdict(&format!("said nothing for {minutes} minutes")));
                    }
                }
            }
        }
        running.process.kill();
        running.end()
    }

    fn start(&self) -> Result<Running> {
        // None has a name, so nothing can be left behind.
        let unnamed = || tempfile::tempfile().context("make a temporary file");
        let (image, console, verdict) = (unnamed()?, unnamed()?, unnamed()?);
        self.kernel
            .pack(&image, self)
            .context("pack the first file system of the guest")?;
        let (reader, writer) = std::io::pipe()?;
        let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let program = std::env::current_exe()?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-machine", "pc", "-cpu", PROCESSOR, "-m", MEMORY]);
        command.args(["-accel", "tcg", "-icount", "shift=0,sleep=off"]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.arg("-kernel").arg(self.kernel.file());
        command.args(["-initrd", &path(&image), "-append"]);
        command.arg(format!("{COMMAND_LINE} rdinit={}", program.display()));
        // The console, what the program prints, its verdict: ttyS0, 1 and 2.
        command.args(["-serial", &format!("file:{}", path(&console))]);
        command.args([
            "-chardev",
            "stdio,id=output,signal=off",
            "-serial",
            "chardev:output",
        ]);
        command.args(["-serial", &format!("file:{}", path(&verdict))]);
        command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(console.try_clone()?);
        let process = Process::start(command).context("is qemu-system-x86 installed?")?;
        Ok(Running {
            process,
            lines: lines(reader),
            console,
            verdict,
            _image: image,
        })
    }
}

impl Running {
    fn end(&mut self) -> Result<End> {
        let mut verdict = String::new();
        self.verdict.seek(SeekFrom::Start(0))?;
        self.verdict
            .read_to_string(&mut verdict)
            .context("read the verdict")?;
        match verdict.trim().parse() {
            Ok(code) => Ok(End { code }),
            Err(_) => bail!(self.without_verdict("ended without a verdict")),
        }
    }

    fn without_verdict(&mut self, what: &str) -> String {
        let tail = tail(&mut self.console).unwrap_or_else(|error| error.to_string());
        format!("the guest {what}; the end of its console:\n{tail}")
    }
}

fn tail(console: &mut File) -> Result<String> {
    let length = console.metadata()?.len();
    console.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    console.read_to_end(&mut tail)?;
    ensure!(!tail.is_empty(), "nothing was printed on it");
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

/// What is written into a pipe, line by line, until its other end is closed.
fn lines(pipe: std::io::PipeReader) -> Receiver<String> {
    let (to, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line);
            // Nobody listens any more when the guest is being given up.
            if to.send(text.trim_end_matches(['\r', '\n']).to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    lines
}
