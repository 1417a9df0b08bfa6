//! What the programs say when something fails, and what an operator can do about it.

use super::tools::{LOCK_PATIENCE, OLDEST};
use crate::dataplane::CommitError;

/// Why a program did not do what it was told.
#[derive(Debug)]
pub(super) struct ToolError {
    /// The command line.
    tried: String,
    /// What it said, or why it could not be started.
    reason: String,
    cause: Cause,
}

/// What is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// There is no such program.
    NotInstalled,
    /// The program is there and cannot be started.
    NotStarted,
    TooOld,
    /// Another program holds the lock of the legacy variant.
    LockHeld,
    /// The lock cannot even be opened.
    NoLock,
    Denied,
    /// A match or target is missing, in the program or in the kernel.
    Extension {
        name: String,
        in_kernel: bool,
    },
    /// Something about the input; the lines that the program names, counted from 1.
    Input(Vec<usize>),
}

impl ToolError {
    /// The program ended in failure and said so.
    pub(super) fn said(tried: String, reason: &str) -> Self {
        let reason = reason.trim();
        Self {
            tried,
            cause: cause(reason),
            reason: reason
                .lines()
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join("; "),
        }
    }

    /// The program could not be started.
    pub(super) fn not_started(tried: String, error: &std::io::Error) -> Self {
        Self {
            tried,
            reason: error.to_string(),
            cause: match error.kind() {
                std::io::ErrorKind::NotFound => Cause::NotInstalled,
                _ => Cause::NotStarted,
            },
        }
    }

    /// The program says that it is of this version.
    pub(super) fn too_old(tried: String, version: &str) -> Self {
        Self {
            tried,
            reason: version.trim().to_owned(),
            cause: Cause::TooOld,
        }
    }

    /// No rule is to blame, and the next try may do: the lock is held, something is not permitted.
    pub(super) fn is_of_the_machine(&self) -> bool {
        !matches!(self.cause, Cause::Extension { .. } | Cause::Input(_))
    }

    /// The same may work for this family some time later, without anybody installing something.
    pub(super) fn passes(&self) -> bool {
        matches!(
            self.cause,
            Cause::NotStarted | Cause::LockHeld | Cause::NoLock | Cause::Denied
        )
    }

    /// The lines of the input that it names, counted from 1.
    pub(super) fn lines(&self) -> &[usize] {
        match &self.cause {
            Cause::Input(lines) => lines,
            _ => &[],
        }
    }

    /// The match or target that is missing.
    pub(super) fn missing_extension(&self) -> Option<&str> {
        match &self.cause {
            Cause::Extension { name, .. } => Some(name),
            _ => None,
        }
    }

    fn program(&self) -> &str {
        self.tried.split(' ').next().unwrap_or_default()
    }

    /// What is wrong, in an operator's words where there are better ones than the program's own.
    pub(super) fn reason(&self) -> String {
        let (program, reason) = (self.program(), &self.reason);
        match &self.cause {
            Cause::NotInstalled => format!("the program {program}: install iptables {} or newer", oldest()),
            Cause::TooOld => format!("iptables {} or newer: {program} is {reason}", oldest()),
            Cause::NotStarted => format!("cannot start {program}: {reason}"),
            Cause::LockHeld => format!(
                "another program has held the xtables lock ({}) for {LOCK_PATIENCE} s",
                lock_path()
            ),
            Cause::NoLock => format!(
                "cannot open the xtables lock; the directory of {} has to be there and writable: {reason}",
                lock_path()
            ),
            Cause::Extension {
                name,
                in_kernel: true,
            } => format!(
                "{kind} {name} of iptables: modprobe {prefix}_{name}, and nft_compat for the nft variant ({reason})",
                kind = kind(name),
                prefix = if program.starts_with("ip6") { "ip6t" } else { "ipt" },
            ),
            Cause::Extension {
                name,
                in_kernel: false,
            } => format!(
                "{kind} {name} of {program}: install all extensions of iptables, libxt_{name}.so among them ({reason})",
                kind = kind(name)
            ),
            Cause::Denied | Cause::Input(_) => reason.clone(),
        }
    }

    /// As the error of a commit.
    pub(super) fn explain(&self) -> CommitError {
        let tried = self.tried.clone();
        let reason = self.reason();
        match self.cause {
            Cause::Denied => CommitError::Permission {
                tried,
                // The legacy variant speaks to the kernel over a raw socket.
                capabilities: match self.reason.contains("can't initialize") {
                    true => "CAP_NET_ADMIN and CAP_NET_RAW",
                    false => "CAP_NET_ADMIN",
                },
            },
            Cause::NotInstalled | Cause::TooOld | Cause::Extension { in_kernel: false, .. } => {
                CommitError::NotInstalled { tried, what: reason }
            }
            Cause::Extension { in_kernel: true, .. } => CommitError::Unsupported {
                tried,
                feature: reason,
            },
            Cause::NotStarted | Cause::LockHeld | Cause::NoLock | Cause::Input(_) => {
                CommitError::Refused { tried, reason }
            }
        }
    }
}

fn cause(said: &str) -> Cause {
    if said.contains("holding the xtables lock") {
        return Cause::LockHeld;
    }
    if said.contains("lock file") {
        return Cause::NoLock;
    }
    if said.contains("Permission denied") || said.contains("must be root") {
        return Cause::Denied;
    }
    for (before, after, in_kernel) in [
        ("Couldn't load match `", "'", false),
        ("Couldn't load target `", "'", false),
        ("Warning: Extension ", " revision", true),
    ] {
        if let Some((_, rest)) = said.split_once(before)
            && let Some((name, _)) = rest.split_once(after)
        {
            let name = name.to_owned();
            return Cause::Extension { name, in_kernel };
        }
    }
    Cause::Input(named_lines(said))
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

/// Targets have names in capitals.
pub(super) fn is_target(extension: &str) -> bool {
    extension.starts_with(|letter: char| letter.is_ascii_uppercase())
}

fn kind(extension: &str) -> &'static str {
    if is_target(extension) {
        "the target"
    } else {
        "the match"
    }
}

fn oldest() -> String {
    OLDEST.map(|number| number.to_string()).join(".")
}

/// Where the programs find their lock.
fn lock_path() -> String {
    std::env::var("XTABLES_LOCKFILE").unwrap_or_else(|_| "/run/xtables.lock".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(said: &str) -> String {
        let error = ToolError::said("iptables-restore -w 5".to_owned(), said);
        error.explain().to_string()
    }

    #[test]
    fn the_lines_that_a_restore_names_are_found_in_the_words_of_both_variants() {
        let two = "iptables-nft-restore v1.8.9 (nf_tables): \nline 51: RULE_APPEND failed (No such file or directory): \
                   rule in chain X\nline 53: RULE_APPEND failed";
        for (said, lines) in [
            ("iptables-restore: line 12 failed", vec![12]),
            (two, vec![51, 53]),
            (
                "Bad argument `x'\nError occurred at line: 7\nTry `iptables-restore -h'",
                vec![7],
            ),
            ("something else", vec![]),
        ] {
            let error = ToolError::said(String::new(), said);
            assert_eq!(error.lines(), lines, "{said}");
            assert!(!error.is_of_the_machine() && error.missing_extension().is_none());
        }
    }

    /// What iptables 1.8.9 says, word for word.
    #[test]
    fn what_is_missing_is_named_and_what_to_do_about_it() {
        let table = [
            (
                "iptables-restore v1.8.9 (legacy): Couldn't load match `statistic':No such file or directory\n\n\
                 Error occurred at line: 3\nTry `iptables-restore -h' or 'iptables-restore --help' for more information.",
                "iptables-restore -w 5: this machine lacks the match statistic of iptables-restore: install all \
                 extensions of iptables, libxt_statistic.so among them",
            ),
            (
                "Warning: Extension DNAT revision 0 not supported, missing kernel module?\n\
                 iptables-nft-restore v1.8.9 (nf_tables): \n\
                 line 3: RULE_APPEND failed (No such file or directory): rule in chain X",
                "iptables-restore -w 5: this kernel lacks the target DNAT of iptables: modprobe ipt_DNAT",
            ),
            (
                "Can't lock /run/xtables.lock: Resource temporarily unavailable\n\
                 Another app is currently holding the xtables lock. Stopped waiting after 5s.",
                "another program has held the xtables lock (/run/xtables.lock) for 5 s",
            ),
            (
                "Another app is currently holding the xtables lock; still 4s 0us time ahead to have a chance to grab \
                 the lock...\nAnother app is currently holding the xtables lock. Stopped waiting after 5s.",
                "another program has held the xtables lock (/run/xtables.lock) for 5 s",
            ),
            (
                "Fatal: can't open lock file /run/xtables.lock: Permission denied",
                "cannot open the xtables lock; the directory of /run/xtables.lock has to be there and writable",
            ),
            (
                "iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
                "permission denied: kube-proxy needs CAP_NET_ADMIN in the",
            ),
            (
                "iptables v1.8.9 (legacy): can't initialize iptables table `nat': Permission denied (you must be root)\n\
                 Perhaps iptables or your kernel needs to be upgraded.",
                "permission denied: kube-proxy needs CAP_NET_ADMIN and CAP_NET_RAW in the",
            ),
        ];
        for (said, words) in table {
            let text = explained(said);
            assert!(text.contains(words) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_program_that_cannot_be_used_is_named() {
        use std::io::{Error, ErrorKind};
        let tried = || "iptables -w 5".to_owned();
        let not_started = |kind| ToolError::not_started(tried(), &Error::from(kind));
        for (error, words, passes) in [
            (
                not_started(ErrorKind::NotFound),
                "this machine lacks the program iptables: install iptables 1.6.2 or newer",
                false,
            ),
            (
                not_started(ErrorKind::PermissionDenied),
                "cannot start iptables: permission denied",
                true,
            ),
            (
                ToolError::too_old(tried(), "iptables v1.4.21\n"),
                "this machine lacks iptables 1.6.2 or newer: iptables is iptables v1.4.21",
                false,
            ),
        ] {
            let text = error.explain().to_string();
            assert!(text.contains(words), "{text}");
            assert_eq!(
                (error.passes(), error.is_of_the_machine()),
                (passes, true),
                "{text}"
            );
        }
    }
}
