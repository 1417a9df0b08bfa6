//! The programs of one family: which of them work here, and how they are run.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use tracing::debug;

use super::failure::ToolError;
use super::fixed::CANARY;
use crate::model::object::Family;

/// How long to wait for the lock that the programs of the legacy variant take, in seconds.
pub(super) const LOCK_PATIENCE: &str = "5";
/// The first version whose `iptables-restore` waits for the lock, and whose MASQUERADE takes `--random-fully`.
pub(super) const OLDEST: [u32; 3] = [1, 6, 2];
/// Chains by which kubelet tells which variant the node uses.
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// `iptables`, `iptables-nft` or `iptables-legacy`, or their counterparts for IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tools {
    name: String,
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
            return Err(ToolError::too_old(format!("{} --version", self.name), &said));
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
        let output = match start(&program, args, input) {
            Ok(output) => output,
            Err(error) => return Err(ToolError::not_started(tried, &error)),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(ToolError::said(tried, &String::from_utf8_lossy(&output.stderr)))
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
}
