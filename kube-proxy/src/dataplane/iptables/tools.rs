//! The programs of one family: which of them work here, and what they say when something fails.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use tracing::debug;

use super::fixed::CANARY;
use crate::dataplane::CommitError;
use crate::model::object::Family;

/// How long to wait for the lock that the programs of the legacy variant take, in seconds.
const LOCK_PATIENCE: &str = "5";
/// The exit status of a program that did not get the lock.
const LOCK_HELD: i32 = 4;
/// The first version whose `iptables-restore` waits for the lock, and whose MASQUERADE takes `--random-fully`.
const OLDEST: [u32; 3] = [1, 6, 2];
/// Chains by which kubelet tells which variant the node uses.
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// `iptables`, `iptables-nft` or `iptables-legacy`, or their counterparts for IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tools {
    name: String,
}

/// Why a program did not do what it was told.
#[derive(Debug)]
pub(super) struct ToolError {
    /// The command line.
    pub(super) tried: String,
    /// What it said, or why it could not be started.
    pub(super) reason: String,
    /// The line of the input that it names, counted from 1.
    pub(super) line: Option<usize>,
    status: Option<i32>,
    missing: bool,
}

impl ToolError {
    /// It could not get the lock, or may not do anything: no Service is to blame.
    pub(super) fn is_of_the_machine(&self) -> bool {
        self.missing || self.status == Some(LOCK_HELD) || self.denied()
    }

    fn denied(&self) -> bool {
        self.reason.contains("Permission denied") || self.reason.contains("must be root")
    }

    /// In an operator's words.
    pub(super) fn explain(self) -> CommitError {
        let Self { tried, reason, .. } = &self;
        if self.denied() {
            return CommitError::Permission { tried: tried.clone() };
        }
        if self.missing {
            let program = tried.split(' ').next().unwrap_or_default();
            return CommitError::Unsupported {
                tried: tried.clone(),
                feature: format!("the program {program}"),
            };
        }
        if self.status == Some(LOCK_HELD) {
            return CommitError::Refused {
                tried: tried.clone(),
                reason: format!("another program holds the xtables lock (/run/xtables.lock): {reason}"),
            };
        }
        match missing_extension(reason) {
            Some(extension) => CommitError::Unsupported {
                tried: tried.clone(),
                feature: extension,
            },
            None => CommitError::Refused {
                tried: tried.clone(),
                reason: reason.clone(),
            },
        }
    }
}

/// The match or target that the program does not have, in its own words.
fn missing_extension(reason: &str) -> Option<String> {
    for kind in ["match", "target"] {
        let words = format!("Couldn't load {kind} `");
        if let Some((_, rest)) = reason.split_once(&words)
            && let Some((name, _)) = rest.split_once('\'')
        {
            return Some(format!("the iptables {kind} {name}"));
        }
    }
    None
}

/// The line that a failed restore names: `line 5 failed`, `line: 5`, `line 5: RULE_APPEND failed`.
fn named_line(reason: &str) -> Option<usize> {
    let (_, rest) = reason.rsplit_once("line")?;
    let digits: String = rest
        .trim_start_matches([':', ' '])
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

impl Tools {
    /// The tools that work here for a family; `None` when the kernel lacks the family.
    pub(super) fn detect(family: Family) -> Result<Self, ToolError> {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let named = |suffix: &str| Self {
            name: format!("{base}{suffix}"),
        };
        let [nft, legacy] = ["-nft", "-legacy"].map(named);
        let plain = named("");
        let chosen = match (nft.mangle_table(), legacy.mangle_table()) {
            (Ok(by_nft), Ok(by_legacy)) => match prefers_legacy(&by_nft, &by_legacy) {
                Some(true) => legacy,
                Some(false) => nft,
                None if legacy.rules()? > nft.rules()? => legacy,
                None => nft,
            },
            (Ok(_), Err(_)) => nft,
            (Err(_), Ok(_)) => legacy,
            (Err(_), Err(_)) => {
                plain.mangle_table()?;
                plain
            }
        };
        chosen.check_version()?;
        debug!(ip_family = %family, program = chosen.name, "Using iptables");
        Ok(chosen)
    }

    fn mangle_table(&self) -> Result<String, ToolError> {
        self.run("-save", &["-t", "mangle"], "")
    }

    /// How many rules there are in all tables.
    fn rules(&self) -> Result<usize, ToolError> {
        let saved = self.save()?;
        Ok(saved.lines().filter(|line| line.starts_with('-')).count())
    }

    fn check_version(&self) -> Result<(), ToolError> {
        let said = self.run("", &["--version"], "")?;
        let version = parse_version(&said);
        if version.is_some_and(|version| version < OLDEST) {
            let [major, minor, patch] = OLDEST;
            return Err(ToolError {
                tried: format!("{} --version", self.name),
                reason: format!("{} is too old: {major}.{minor}.{patch} is needed", said.trim()),
                line: None,
                status: None,
                missing: false,
            });
        }
        Ok(())
    }

    /// Everything that is in the kernel.
    pub(super) fn save(&self) -> Result<String, ToolError> {
        self.run("-save", &[], "")
    }

    /// Puts this input in force, all of a table or nothing.
    pub(super) fn restore(&self, input: &str) -> Result<(), ToolError> {
        let args = ["-w", LOCK_PATIENCE, "--noflush", "--counters"];
        self.run("-restore", &args, input).map(drop)
    }

    /// The chain that a flush takes along is still there.
    pub(super) fn has_canary(&self) -> Result<bool, ToolError> {
        match self.run("", &["-w", LOCK_PATIENCE, "-t", "mangle", "-S", CANARY], "") {
            Ok(_) => Ok(true),
            Err(error) if error.is_of_the_machine() => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn run(&self, suffix: &str, args: &[&str], input: &str) -> Result<String, ToolError> {
        let program = format!("{}{suffix}", self.name);
        let tried = format!("{program} {}", args.join(" "));
        let failed = |reason: String, status, missing| ToolError {
            line: named_line(&reason),
            tried: tried.clone(),
            reason,
            status,
            missing,
        };
        let output = start(&program, args, input).map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            failed(error.to_string(), None, missing)
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failed(said.trim().replace('\n', "; "), output.status.code(), false))
    }
}

/// Runs a program to its end. Its output is short where its input is long, so neither waits for the other.
fn start(program: &str, args: &[&str], input: &str) -> std::io::Result<Output> {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

/// Which variant the node uses, by kubelet's chains; `None` when they do not tell.
fn prefers_legacy(by_nft: &str, by_legacy: &str) -> Option<bool> {
    let hinted = |saved: &str| HINTS.iter().any(|hint| saved.contains(&format!(":{hint} ")));
    match (hinted(by_nft), hinted(by_legacy)) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        (false, false) => None,
    }
}

fn parse_version(said: &str) -> Option<[u32; 3]> {
    let (_, version) = said.split_once(" v")?;
    let version = version.split([' ', '\n']).next()?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    Some([parts.next()?, parts.next().unwrap_or(0), parts.next().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_a_restore_names_is_found_in_the_words_of_both_variants() {
        for (said, line) in [
            ("iptables-restore: line 12 failed", Some(12)),
            ("iptables-restore v1.8.9 (nf_tables): line 5: RULE_APPEND failed (No such file or directory): rule in chain X", Some(5)),
            ("Bad argument `x'; Error occurred at line: 7; Try `iptables-restore -h'", Some(7)),
            ("something else", None),
        ] {
            assert_eq!(named_line(said), line, "{said}");
        }
    }

    #[test]
    fn the_variant_is_the_one_that_kubelet_uses() {
        let with = ":KUBE-IPTABLES-HINT - [0:0]";
        assert_eq!(prefers_legacy(with, ""), Some(false));
        assert_eq!(prefers_legacy("", ":KUBE-KUBELET-CANARY - [0:0]"), Some(true));
        assert_eq!(prefers_legacy(with, with), Some(false));
        assert_eq!(prefers_legacy(":INPUT ACCEPT", ""), None);
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        assert_eq!(parse_version("iptables v1.8.9 (nf_tables)\n"), Some([1, 8, 9]));
        assert_eq!(parse_version("iptables v1.8.10"), Some([1, 8, 10]));
        assert!(parse_version("iptables v1.4.21").unwrap() < OLDEST);
        assert_eq!(parse_version("?"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |reason: &str, status, missing| ToolError {
            tried: "iptables-restore -w 5".to_owned(),
            reason: reason.to_owned(),
            line: None,
            status,
            missing,
        };
        for (error, words) in [
            (error("No such file", None, true), "lacks the program iptables-restore"),
            (error("iptables-restore v1.8.9: Couldn't load match `statistic':No such file", Some(2), false), "lacks the iptables match statistic"),
            (error("Another app is currently holding the xtables lock", Some(4), false), "holds the xtables lock"),
            (error("Fatal: Permission denied (you must be root)", Some(4), false), "CAP_NET_ADMIN"),
        ] {
            let text = error.explain().to_string();
            assert!(text.contains(words), "{text}");
        }
    }
}
