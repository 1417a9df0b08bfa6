//! A kube-proxy that runs, and what is seen of it.

use std::fs::{self, File};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use lab::net::Namespace;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-proxy");
/// Against hanging; far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kube-proxy in a network namespace, killed at the end.
pub(crate) struct Proxy {
    pub(crate) process: Child,
    pub(crate) namespace: Namespace,
    dir: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Proxy {
    pub(crate) fn start(namespace: &Namespace, arguments: &[&str]) -> Self {
        Self::start_as(namespace, namespace.command(PROGRAM), arguments)
    }

    /// Starts it by a command that ends with the program, and is to run in the namespace.
    pub(crate) fn start_as(namespace: &Namespace, mut command: Command, arguments: &[&str]) -> Self {
        namespace.run("ip", &["link", "set", "lo", "up"]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        command
            .args(["--hostname-override=node-1", "-v=2"])
            .args(arguments);
        let log = File::create(dir.path().join("log")).unwrap();
        Self {
            process: command.stderr(log).spawn().unwrap(),
            namespace: namespace.clone(),
            dir,
        }
    }

    /// Waits until the kernel's table says something.
    pub(crate) fn programs(&self, what: &str) {
        self.shows("nft", &["list", "table", "ip", "kube-proxy"], what);
    }

    /// Waits until a command in the namespace prints something.
    pub(crate) fn shows(&self, program: &str, arguments: &[&str], what: &str) {
        self.until(what, || {
            let printed = self.namespace.run(program, arguments);
            match printed {
                Ok(printed) if printed.contains(what) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Waits until the log says something.
    pub(crate) fn says(&self, what: &str) {
        self.until(what, || match self.log().contains(what) {
            true => Ok(()),
            false => Err(String::new()),
        });
    }

    /// Waits until a look finds what it is for.
    pub(crate) fn until(&self, what: &str, mut look: impl FnMut() -> Result<(), String>) {
        let start = Instant::now();
        while let Err(found) = look() {
            let log = self.log();
            assert!(start.elapsed() < PATIENCE, "no {what} in {found}; it says\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks one of its servers, as soon as that listens.
    pub(crate) fn get(&self, port: u16, path: &str) -> String {
        let url = format!("http://127.0.0.1:{port}{path}");
        let mut answer = String::new();
        self.until(&url, || {
            let asked = self.namespace.run("curl", &["-s", "-m", "5", "-i", &url]);
            answer = asked.map_err(|error| error.to_string())?;
            Ok(())
        });
        answer
    }

    /// Waits until an address answers with these words.
    pub(crate) fn answers(&self, url: &str, words: &[&str]) -> String {
        let mut answer = String::new();
        self.until(url, || {
            let asked = self.namespace.run("curl", &["-s", "-g", "-m", "5", "-i", url]);
            answer = asked.map_err(|error| error.to_string())?;
            match words.iter().all(|word| answer.contains(word)) {
                true => Ok(()),
                false => Err(answer.clone()),
            }
        });
        answer
    }

    /// Waits until nobody listens at an address.
    pub(crate) fn is_refused(&self, url: &str) {
        self.until("end of a server", || {
            let asked = self.namespace.run("curl", &["-s", "-g", "-m", "5", url]);
            asked.map_or(Ok(()), Err)
        });
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Waits for its end: exit code and log.
    pub(crate) fn ends(&mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "it does not end; it says\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        (status.code(), self.log())
    }
}
