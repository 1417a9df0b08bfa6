//! The programs of one family: which of them work here, and how they are run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use tracing::debug;

use super::failure::ToolError;
use super::fixed::CANARY;
use crate::model::object::Family;
use crate::netlink::{Filter, NOBODY};

/// How long to wait for the lock that the programs of the legacy variant take, in seconds.
pub(super) const LOCK_PATIENCE: &str = "5";
/// The first version whose `iptables-restore` waits for the lock, and whose MASQUERADE takes `--random-fully`.
pub(super) const OLDEST: [u32; 3] = [1, 6, 2];
/// Chains by which kubelet tells which variant the node uses.
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// The two kinds of programs, which have rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Rules in tables of nf_tables.
    Nft,
    /// Rules in tables of x_tables.
    Legacy,
}

/// `iptables`, `iptables-nft` or `iptables-legacy`, or their counterparts for IPv6.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    name: String,
    variant: Variant,
    /// By which whoever hears what others do in nf_tables is kept from hearing what these do.
    filter: Option<Filter>,
}

fn base(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

impl Tools {
    /// The tools that work here for a family: of the two variants the one that the node uses already.
    ///
    /// # Errors
    /// When none works, or when something that may pass hides which one the node uses: a wrong choice would last.
    pub(super) fn detect(family: Family) -> Result<Self, ToolError> {
        let base = base(family);
        let [nft, legacy] = [Variant::Nft, Variant::Legacy].map(|variant| Self {
            name: format!("{base}-{}", variant.suffix()),
            variant,
            filter: None,
        });
        // Nobody used a table of the legacy variant that is not there; a look by its programs would make it.
        let tables = legacy_tables(family);
        let uses_legacy = !nft.works()? || !tables.is_empty() && prefers_legacy(&nft, &legacy, &tables)?;
        let chosen = match uses_legacy {
            false => nft,
            true if legacy.works()? => legacy,
            true => Self::unnamed(base)?,
        };
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
                variant: Variant::Legacy,
                filter: None,
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

    /// The programs whose names do not say which variant they are.
    fn unnamed(base: &str) -> Result<Self, ToolError> {
        let mut tools = Self {
            name: base.to_owned(),
            variant: Variant::Legacy,
            filter: None,
        };
        if tools.run("", &["--version"], "")?.contains("nf_tables") {
            tools.variant = Variant::Nft;
        }
        tools.list("nat", "POSTROUTING")?;
        Ok(tools)
    }

    fn check_version(&self) -> Result<(), ToolError> {
        let said = self.run("", &["--version"], "")?;
        let version = parse_version(&said);
        if version.is_some_and(|version| version < OLDEST) {
            return Err(ToolError::too_old(format!("{} --version", self.name), &said));
        }
        Ok(())
    }

    /// Which variant these are.
    pub(super) fn variant(&self) -> Variant {
        self.variant
    }

    /// What these programs do from now on is left out by this filter.
    pub(super) fn leave_out_by(&mut self, filter: Option<Filter>) {
        self.filter = filter;
    }

    /// Lists a chain, for the sake of whether that can be done.
    fn list(&self, table: &str, chain: &str) -> Result<(), ToolError> {
        let args = ["-w", LOCK_PATIENCE, "-t", table, "-S", chain];
        self.run("", &args, "").map(drop)
    }

    fn works(&self) -> Result<bool, ToolError> {
        unless_it_passes(self.list("nat", "POSTROUTING"))
    }

    /// One of kubelet's chains is here.
    fn is_hinted(&self) -> Result<bool, ToolError> {
        for hint in HINTS {
            if unless_it_passes(self.list("mangle", hint))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads everything that is in the kernel, line by line.
    pub(super) fn save(&self, read: &mut dyn FnMut(&str)) -> Result<(), ToolError> {
        let program = format!("{}-save", self.name);
        let failed = |error: std::io::Error| ToolError::not_started(program.clone(), &error);
        let mut child = command(&program, &[])
            .stdin(Stdio::null())
            .spawn()
            .map_err(failed)?;
        if let Some(stdout) = child.stdout.take() {
            let mut lines = BufReader::with_capacity(1 << 16, stdout);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).map_err(failed)? > 0 {
                read(String::from_utf8_lossy(line.trim_ascii_end()).as_ref());
                line.clear();
            }
        }
        let output = child.wait_with_output().map_err(failed)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(ToolError::said(program, &String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// How many rules there are; 0 when they cannot be listed.
    fn rules(&self) -> Result<usize, ToolError> {
        let mut rules = 0;
        let counted = self.save(&mut |line| rules += usize::from(line.starts_with('-')));
        Ok(if unless_it_passes(counted)? { rules } else { 0 })
    }

    /// Puts this input in force: up to the first part that ends with COMMIT and is refused, of which nothing is.
    pub(super) fn restore(&self, input: &str) -> Result<(), ToolError> {
        let args = ["-w", LOCK_PATIENCE, "--noflush", "--counters"];
        self.run("-restore", &args, input).map(drop)
    }

    /// The chain that a flush takes along is still there.
    pub(super) fn has_canary(&self) -> Result<bool, ToolError> {
        match self.list("mangle", CANARY) {
            Ok(()) => Ok(true),
            Err(error) if error.is_of_the_machine() => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn run(&self, suffix: &str, args: &[&str], input: &str) -> Result<String, ToolError> {
        let program = format!("{}{suffix}", self.name);
        let tried = format!("{program} {}", args.join(" "));
        let output = match start(&program, args, input, self.filter.as_ref()) {
            Ok(output) => output,
            Err(error) => return Err(ToolError::not_started(tried, &error)),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(ToolError::said(tried, &String::from_utf8_lossy(&output.stderr)))
    }
}

impl Variant {
    fn suffix(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }
}

/// The tables of the legacy variant in this thread's network namespace. They are there once somebody used them.
pub(super) fn legacy_tables(family: Family) -> Vec<String> {
    let list = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    // A kernel without the legacy variant has no such file.
    let names = std::fs::read_to_string(list).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

/// Whether the node uses the legacy variant, some tables of which are there: where kubelet has its chains, or else where
/// there are more rules.
fn prefers_legacy(nft: &Tools, legacy: &Tools, legacy_tables: &[String]) -> Result<bool, ToolError> {
    if nft.is_hinted()? {
        return Ok(false);
    }
    let has_mangle = legacy_tables.iter().any(|table| table == "mangle");
    Ok(has_mangle && legacy.is_hinted()? || legacy.rules()? > nft.rules()?)
}

/// Whether something could be done, unless it could not for a reason that may pass and so tells nothing.
fn unless_it_passes(done: Result<(), ToolError>) -> Result<bool, ToolError> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.passes() => Err(error),
        Err(_) => Ok(false),
    }
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("LC_ALL", "C")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a program to its end. Its output is short where its input is long, so neither waits for the other. It changes nothing
/// before it has read its input, and its socket's port is its process id as this process sees it, in whatever container.
fn start(program: &str, args: &[&str], input: &str, filter: Option<&Filter>) -> std::io::Result<Output> {
    let mut child = command(program, args).stdin(Stdio::piped()).spawn()?;
    leave_out(filter, child.id());
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output();
    leave_out(filter, NOBODY);
    output
}

fn leave_out(filter: Option<&Filter>, port: u32) {
    if let Some(Err(err)) = filter.map(|filter| filter.leave_out(port)) {
        debug!(%err, "What an own program changes is heard as another hand's");
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
    fn versions_are_compared_number_by_number() {
        assert_eq!(parse_version("iptables v1.8.9 (nf_tables)\n"), Some([1, 8, 9]));
        assert_eq!(parse_version("iptables v1.8.10"), Some([1, 8, 10]));
        assert!(parse_version("iptables v1.4.21").unwrap() < OLDEST);
        assert_eq!(parse_version("?"), None);
    }
}
