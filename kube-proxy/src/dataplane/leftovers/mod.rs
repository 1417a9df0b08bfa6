//! What a kube-proxy in another mode, ours or upstream's, left in this node's kernel, and how it goes.
//!
//! Who starts puts its own rules in force first, and then removes what is left of other modes ([`remover`]): at
//! no moment there are no rules. While both are there each packet meets both, which is harmless: the first that finds
//! an endpoint for a connection gives it to conntrack, and the others are not asked any more, nor are they about
//! masquerading; what they refuse or drop is addressed to a Service, and no packet still is once it has an endpoint.
//! `--cleanup` removes all of it ([`remove_all`]).
//!
//! What a mode leaves is in the list of [`CLEANERS`], one line each. Established connections go on, since how
//! they are translated is in conntrack, not in rules; all but those through IPVS, which end with their virtual server.

pub(super) mod chains;
mod ipsets;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tracing::{info, warn};

use self::chains::Which;
use super::{CommitError, iptables, ipvs, nftables};
use crate::config::Mode;
use crate::model::object::Family;
use crate::node::privileges::{self, Capabilities};

/// The pauses between attempts to remove what resists.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Removes one kind of leftovers.
struct Cleaner {
    /// What it removes, in an operator's words.
    what: &'static str,
    /// The modes that live in it, and so do not remove it when they start.
    used_by: &'static [Mode],
    /// Removes it; nothing there is no error.
    remove: fn() -> Result<(), LeftoverError>,
}

/// All that kube-proxies leave.
const CLEANERS: &[Cleaner] = &[
    // Before the tables, which tell what it has to remove.
    Cleaner {
        what: "virtual servers of IPVS",
        used_by: &[Mode::Ipvs],
        remove: || Ok(ipvs::remove_all()?),
    },
    Cleaner {
        what: "the nftables tables kube-proxy",
        used_by: &[Mode::Nftables, Mode::Ipvs],
        remove: || Ok(nftables::remove_tables()?),
    },
    Cleaner {
        what: "kube-proxy's chains of iptables in nf_tables",
        used_by: &[Mode::Iptables],
        remove: || {
            of_both_families("nf_tables", |family| {
                Ok(nftables::remove_chains(family, Which::All)?)
            })
        },
    },
    Cleaner {
        what: "kube-proxy's chains of iptables in the legacy tables",
        used_by: &[Mode::Iptables],
        remove: || of_both_families("legacy", |family| iptables::remove_chains(family, Which::All)),
    },
    // The iptables mode takes over the others.
    Cleaner {
        what: "chains of upstream's IPVS mode",
        used_by: &[Mode::Nftables, Mode::Ipvs],
        remove: || {
            of_both_families("nf_tables", |family| {
                Ok(nftables::remove_chains(family, Which::OfIpvsOnly)?)
            })
            .and(of_both_families("legacy", |family| {
                iptables::remove_chains(family, Which::OfIpvsOnly)
            }))
        },
    },
    // After the chains, whose rules use them.
    Cleaner {
        what: "the ipsets of upstream's IPVS mode",
        used_by: &[],
        remove: || Ok(ipsets::remove()?),
    },
];

/// What was removed of iptables in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// How many chains.
    pub(super) chains: usize,
    /// Chains that stay because rules of others lead to them: empty, or untouched if they are for marking.
    pub(super) in_use: Vec<String>,
}

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The kernel or a program refuses.
    #[error(transparent)]
    Refused(#[from] CommitError),
    /// There is no program that could remove it.
    #[error(
        "the tables {} of {family} hold rules of kube-proxy's, in force beside those of this one, and there is no \
         iptables-legacy here to remove them: run kube-proxy --cleanup where there is one, or restart the node",
        .tables.join(", ")
    )]
    NoProgram {
        /// The family.
        family: Family,
        /// The tables of the legacy variant that are there.
        tables: Vec<&'static str>,
    },
    /// It cannot be seen whether there is something, nor could it be removed.
    #[error(
        "there are tables of iptables-legacy in {family} ({}), but no iptables-legacy here to see whether kube-proxy's \
         rules are in them, and the kernel does not tell: {reason}",
        .tables.join(", ")
    )]
    Unseen {
        /// The family.
        family: Family,
        /// The tables of the legacy variant that are there.
        tables: Vec<&'static str>,
        /// The kernel's reason.
        reason: &'static str,
    },
}

/// Removes everything that any kube-proxy left.
///
/// # Errors
/// What is still there, and why; the rest is gone.
pub fn remove_all() -> Result<(), anyhow::Error> {
    let failed = CLEANERS.iter().filter_map(|cleaner| {
        let error = (cleaner.remove)().err()?;
        Some(format!("{} could not be removed: {error}", cleaner.what))
    });
    let failed: Vec<String> = failed.collect();
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Starts a thread that removes what other modes than this one left once it is told to, and then ends: that may take a
/// while, in which changes of Services must not wait. It has capabilities that the proxy itself may not need, so it has
/// to be started before those are given up.
pub fn remover(mode: Mode) -> Remover {
    let (begin, begun) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("leftovers".to_owned());
    let started = thread.spawn(move || {
        if let Err(err) = privileges::give_up_all_but(Capabilities::of_cleanup()) {
            warn!(%err, "The thread that removes what other modes left keeps its capabilities");
        }
        if begun.recv().is_ok() {
            remove_others(mode);
        }
    });
    if let Err(err) = started {
        warn!(%err, "There is no thread to remove what other modes left");
    }
    Box::new(move || {
        // Without a thread it was said, and a second word is one too many.
        let _ = begin.try_send(());
    })
}

/// Begins to remove what other modes left, when it is called for the first time.
pub type Remover = Box<dyn Fn() + Send>;

/// Removes what other modes than this one left. What resists is told once and tried again as long as there is hope.
fn remove_others(mode: Mode) {
    persist(CLEANERS, mode, std::thread::sleep);
}

fn persist(cleaners: &[Cleaner], mode: Mode, mut wait: impl FnMut(Duration)) {
    let others = cleaners.iter().filter(|cleaner| !cleaner.used_by.contains(&mode));
    let mut left: Vec<&Cleaner> = others.collect();
    let mut pause = None;
    loop {
        left.retain(|cleaner| match (cleaner.remove)() {
            Ok(()) => {
                if pause.is_some() {
                    info!("What another mode left is gone: {}", cleaner.what);
                }
                false
            }
            Err(err) => {
                if pause.is_none() {
                    warn!(%err, "What another mode left is still there: {}", cleaner.what);
                }
                matches!(err, LeftoverError::Refused(CommitError::Refused { .. }))
            }
        });
        if left.is_empty() {
            return;
        }
        let next = pause.map_or(FIRST_PAUSE, |pause: Duration| (pause * 2).min(LONGEST_PAUSE));
        wait(next);
        pause = Some(next);
    }
}

/// Removes chains of iptables in both families; what one family refuses does not keep the other.
fn of_both_families(
    variant: &str,
    remove: fn(Family) -> Result<Removed, LeftoverError>,
) -> Result<(), LeftoverError> {
    let mut result = Ok(());
    for family in Family::ALL {
        match remove(family) {
            Ok(removed) => {
                if removed.chains > 0 {
                    info!(ip_family = %family, variant, chains = removed.chains, "Removed the iptables rules that a kube-proxy left");
                }
                if !removed.in_use.is_empty() {
                    info!(ip_family = %family, variant, chains = ?removed.in_use, "Left chains of kube-proxy's to which rules of others lead");
                }
            }
            Err(error) => result = result.and(Err(error)),
        }
    }
    result
}
