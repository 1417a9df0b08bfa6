//! One network namespace: made, entered, and given processes.
//!
//! A namespace here has no file under `/run/netns`: it lives as long as this process holds its descriptor or a
//! process runs in it. So a crash, a panic or SIGKILL leaves nothing behind that anyone would have to sweep up.
//! [`super::Names`] gives names to those that people want to look around in.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::{io, panic, thread};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// A network namespace. Clones are the same namespace; it goes when the last clone, socket and process are gone.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: Arc<str>,
    file: Arc<File>,
    /// What the programs of iptables-legacy lock here. Those of a machine share one file, so labs would wait for each other.
    lock: Arc<File>,
}

impl Namespace {
    /// Makes an empty namespace. The name is for messages only.
    ///
    /// # Errors
    /// When the kernel refuses, usually for want of CAP_SYS_ADMIN.
    pub fn create(name: &str) -> Result<Self> {
        // On a thread of its own, because a thread that unshares never gets back.
        let made = thread::scope(|scope| {
            let maker = scope.spawn(|| -> io::Result<File> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                File::open("/proc/thread-self/ns/net")
            });
            maker.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        });
        let file = made.with_context(|| format!("make the network namespace {name}: is this root?"))?;
        let lock = tempfile::tempfile().context("make a lock for iptables")?;
        Ok(Self {
            name: name.into(),
            file: Arc::new(file),
            lock: Arc::new(lock),
        })
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path to the namespace, valid as long as this process lives and this value exists. `ip` and `nsenter
    /// --net=` take it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs something inside, on a thread of its own. Sockets made there belong to the namespace for good and
    /// may be used by any thread. A panic inside is passed on.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let visitor = scope.spawn(|| {
                setns(&*self.file, CloneFlags::CLONE_NEWNET)?;
                Ok(inside())
            });
            visitor.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    /// A command that will run inside. Unlike `ip netns exec` this changes nothing but the network, and the lock of
    /// iptables-legacy: `/sys` and the cgroups stay as they are.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // By the descriptor that it inherits, and its own children do: a process with fewer rights than this one must not
        // look at this one's.
        command.env(
            "XTABLES_LOCKFILE",
            format!("/proc/self/fd/{}", self.lock.as_raw_fd()),
        );
        let (file, lock) = (Arc::clone(&self.file), Arc::clone(&self.lock));
        let enter = move || {
            setns(&*file, CloneFlags::CLONE_NEWNET)?;
            fcntl(&*lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        };
        #[expect(unsafe_code, reason = "pre_exec has no safe counterpart")]
        // SAFETY: between fork and exec this makes two system calls on descriptors that the closure owns; it
        // takes no lock and allocates nothing.
        unsafe {
            command.pre_exec(enter);
        }
        command
    }

    /// Runs a command inside to its end and returns what it printed.
    ///
    /// # Errors
    /// When it cannot be started or fails; the error holds its standard error.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        self.run_with_input(program, args, "")
    }

    /// As [`Namespace::run`], with a text on its standard input.
    ///
    /// # Errors
    /// As [`Namespace::run`].
    pub fn run_with_input(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        let tried = || format!("{program} {} in {}", args.join(" "), self.name);
        let mut command = self.command(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(tried)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends before it read everything says why on its standard error.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().with_context(tried)?;
        ensure!(
            output.status.success(),
            "{}: {}: {}",
            tried(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes kernel settings of this namespace: pairs of path below `/proc/sys` and value.
    ///
    /// # Errors
    /// The first setting that could not be written.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            settings.iter().try_for_each(|(path, value)| {
                std::fs::write(format!("/proc/sys/{path}"), value)
                    .with_context(|| format!("set {path} to {value}"))
            })
        })?
        .with_context(|| format!("in {}", self.name))
    }
}

/// A process that ends with this value, and with the lab's process however that ends.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let tried = format!("start {:?}", command.get_program());
        #[expect(unsafe_code, reason = "pre_exec has no safe counterpart")]
        // SAFETY: between fork and exec this makes one system call; it takes no lock and allocates nothing.
        unsafe {
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        Ok(Self(spawn_on_a_lasting_thread(command).context(tried)?))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        let Ok(id) = i32::try_from(self.0.id()) else {
            return false;
        };
        // WNOWAIT leaves the status for whoever waits for the process.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        matches!(
            waitid(Id::Pid(Pid::from_raw(id)), flags),
            Ok(WaitStatus::StillAlive)
        )
    }

    /// Waits for its end: whether it ended well.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn has_succeeded(&mut self) -> io::Result<bool> {
        Ok(self.0.wait()?.success())
    }

    /// Kills it (SIGKILL: no chance to tidy up, as in a crash) and waits for its end.
    pub fn kill(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The parent-death signal comes when the *thread* that started the child ends, so children are started by one
/// thread that lives as long as the process.
fn spawn_on_a_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: std::sync::LazyLock<mpsc::Sender<Order>> = std::sync::LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Nobody waits for the answer only if the asking thread is gone; the child is then its loss.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    SPAWNER
        .send((command, reply))
        .map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    answer.recv().map_err(gone)?
}
