//! The programs of one family: which of them work here, and what they say when something fails.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use tracing::debug;

use super::fixed::CANARY;
use crate::dataplane::CommitError;
use crate::model::object::Family;

/// How long to wait for the lock that the programs of the legacy variant take, in seconds.
const LOCK_PATIENCE: &str = "5";
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
    /// The lines of the input that it names, counted from 1.
    pub(super) lines: Vec<usize>,
    missing: bool,
}

impl ToolError {
    /// It could not get the lock, or may not do anything: no Service is to blame.
    pub(super) fn is_of_the_machine(&self) -> bool {
        self.missing || self.locked_out() || self.denied()
    }

    fn locked_out(&self) -> bool {
        self.reason.contains("xtables lock")
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
        if self.locked_out() {
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

/// The lines that a failed restore names: `line 5 failed`, `line: 5`, `line 5: RULE_APPEND failed`.
fn named_lines(reason: &str) -> Vec<usize> {
    let after = reason.split("line").skip(1);
    let number = |rest: &str| {
        let rest = rest.trim_start_matches([':', ' ']);
        let digits = rest
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..digits].parse().ok()
    };
    after.filter_map(number).collect()
}

fn base(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

impl Tools {
    /// The tools that work here for a family: of the two variants the one that the node uses already.
    pub(super) fn detect(family: Family) -> Result<Self, ToolError> {
        let base = base(family);
        let named = |suffix: &str| Self {
            name: format!("{base}{suffix}"),
        };
        let [nft, legacy] = ["-nft", "-legacy"].map(named);
        let chosen = match (nft.save(), legacy.save()) {
            (Ok(by_nft), Ok(by_legacy)) if prefers_legacy(&by_nft, &by_legacy) => legacy,
            (Ok(_), _) => nft,
            (Err(_), Ok(_)) => legacy,
            (Err(_), Err(_)) => named(""),
        };
        // Listing does not make a table of the legacy variant, so it does not tell whether there can be one.
        chosen.run("", &["-w", LOCK_PATIENCE, "-t", "nat", "-S", "POSTROUTING"], "")?;
        chosen.check_version()?;
        debug!(ip_family = %family, program = chosen.name, "Using iptables");
        Ok(chosen)
    }

    /// The tools of the legacy variant for a family, under whatever name they have here; `None` when there are none.
    pub(super) fn legacy(family: Family) -> Option<Self> {
        let base = base(family);
        let said = |name: &str| {
            let tools = Self {
                name: name.to_owned(),
            };
            let said = tools.run("", &["--version"], "").ok()?;
            Some((tools, said))
        };
        let (tools, _) = said(&format!("{base}-legacy")).or_else(|| {
            // Until there were two variants there was only this one.
            said(base).filter(|(_, said)| !said.contains("nf_tables"))
        })?;
        Some(tools)
    }

    fn check_version(&self) -> Result<(), ToolError> {
        let said = self.run("", &["--version"], "")?;
        let version = parse_version(&said);
        if version.is_some_and(|version| version < OLDEST) {
            let [major, minor, patch] = OLDEST;
            return Err(ToolError {
                tried: format!("{} --version", self.name),
                reason: format!("{} is too old: {major}.{minor}.{patch} is needed", said.trim()),
                lines: Vec::new(),
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
        let failed = |reason: String, missing| ToolError {
            lines: named_lines(&reason),
            tried: tried.clone(),
            reason,
            missing,
        };
        let output = start(&program, args, input).map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            failed(error.to_string(), missing)
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failed(said.trim().replace('\n', "; "), false))
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

/// Which variant the node uses: the one with kubelet's chains, else the one with more rules.
fn prefers_legacy(by_nft: &str, by_legacy: &str) -> bool {
    let hinted = |saved: &str| HINTS.iter().any(|hint| saved.contains(&format!(":{hint} ")));
    let rules = |saved: &str| saved.lines().filter(|line| line.starts_with('-')).count();
    match (hinted(by_nft), hinted(by_legacy)) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => rules(by_legacy) > rules(by_nft),
    }
}

fn parse_version(said: &str) -> Option<[u32; 3]> {
    let (_, version) = said.split_once(" v")?;
    let version = version.split([' ', '\n']).next()?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    Some([
        parts.next()?,
        parts.next().unwrap_or(0),
        parts.next().unwrap_or(0),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_a_restore_names_are_found_in_the_words_of_both_variants() {
        let two = "iptables-nft-restore v1.8.9 (nf_tables): ; line 51: RULE_APPEND failed (No such file or directory): \
                   rule in chain X; line 53: RULE_APPEND failed";
        for (said, lines) in [
            ("iptables-restore: line 12 failed", vec![12]),
            (two, vec![51, 53]),
            (
                "Bad argument `x'; Error occurred at line: 7; Try `iptables-restore -h'",
                vec![7],
            ),
            ("something else", vec![]),
        ] {
            assert_eq!(named_lines(said), lines, "{said}");
        }
    }

    #[test]
    fn the_variant_is_the_one_that_kubelet_uses_or_that_has_more_rules() {
        let hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
        let canary = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n";
        let rules = "*nat\n:X - [0:0]\n-A X -j ACCEPT\n-A X -j DROP\nCOMMIT\n";
        for (by_nft, by_legacy, legacy) in [
            (hint, "", false),
            ("", canary, true),
            (hint, canary, false),
            (rules, canary, true),
            ("", rules, true),
            (rules, rules, false),
            ("", "", false),
        ] {
            assert_eq!(prefers_legacy(by_nft, by_legacy), legacy, "{by_nft} {by_legacy}");
        }
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
        let error = |reason: &str, missing| ToolError {
            tried: "iptables-restore -w 5".to_owned(),
            reason: reason.to_owned(),
            lines: Vec::new(),
            missing,
        };
        for (error, words) in [
            (error("No such file", true), "lacks the program iptables-restore"),
            (
                error(
                    "iptables-restore v1.8.9: Couldn't load match `statistic':No such file",
                    false,
                ),
                "lacks the iptables match statistic",
            ),
            (
                error("Another app is currently holding the xtables lock", false),
                "holds the xtables lock",
            ),
            (
                error("Fatal: Permission denied (you must be root)", false),
                "CAP_NET_ADMIN",
            ),
        ] {
            let text = error.explain().to_string();
            assert!(text.contains(words), "{text}");
        }
    }
}
