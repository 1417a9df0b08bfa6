//! What a kube-proxy in another mode, ours or upstream's, left in this node's kernel, and how it goes.
//!
//! Who starts puts its own rules in force first, and then removes what is left of other modes ([`remover`]): at
//! no moment there are no rules. While both are there each packet meets both, which is harmless: the first that finds
//! an endpoint for a connection gives it to conntrack, and the others are not asked any more, nor are they about
//! masquerading; what they refuse or drop is addressed to a Service, and no packet still is once it has an endpoint.
//! `--cleanup` removes all of it ([`remove_all`]).
//!
//! What a mode leaves is in the list of [`CLEANERS`], one line each. The iptables mode has two places to live in, the
//! tables of either variant of its programs, and leaves one when the node changes to the other. Established connections go on, since how
//! they are translated is in conntrack, not in rules; those through IPVS are entered there (`ipvs/cleanup.rs`).

pub(super) mod chains;
pub(super) mod ipsets;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tracing::{debug, info, warn};

use self::chains::Which;
use super::iptables::Variant;
use super::{CommitError, iptables, ipvs, nftables};
use crate::config::Mode;
use crate::model::object::Family;
use crate::node::privileges::{self, Capabilities};

/// The pauses between attempts to remove what resists.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The longest pause while nothing is waited for but an end of connections.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Removes one kind of leftovers.
struct Cleaner {
    /// What it removes, in an operator's words.
    what: &'static str,
    /// The modes that live in it, and so do not remove it when they start.
    used_by: &'static [Mode],
    /// Removes it, apart from what stays; nothing there is no error.
    remove: fn(&Stays) -> Result<(), LeftoverError>,
}

/// What is in force and so no leftover.
#[derive(Clone, Copy, Debug, Default)]
struct Stays {
    mode: Option<Mode>,
    /// A second has passed at least since it was tried for the first time.
    again: bool,
    /// Where the iptables mode has its chains, for IPv4 and IPv6.
    variants: [Option<Variant>; 2],
}

impl Stays {
    /// Chains of this variant. Of a family that the iptables mode does not program both stay: it cannot tell.
    fn in_variant(&self, family: Family, variant: Variant) -> bool {
        let lives = self.variants[family as usize];
        self.mode == Some(Mode::Iptables) && lives.is_none_or(|lives| lives == variant)
    }
}

/// All that kube-proxies leave.
const CLEANERS: &[Cleaner] = &[
    // Before the device and the tables, which tell what it has to remove.
    Cleaner {
        what: "virtual servers of IPVS",
        used_by: &[Mode::Ipvs],
        remove: |_| Ok(ipvs::remove_servers()?),
    },
    Cleaner {
        what: "kube-ipvs0 with its addresses",
        used_by: &[Mode::Ipvs],
        remove: remove_device,
    },
    Cleaner {
        what: "the nftables tables kube-proxy",
        used_by: &[Mode::Nftables, Mode::Ipvs],
        remove: |_| Ok(nftables::remove_tables()?),
    },
    Cleaner {
        what: "kube-proxy's chains of iptables in nf_tables",
        used_by: &[],
        remove: |stays| {
            of_both_families("nf_tables", |family| {
                match stays.in_variant(family, Variant::Nft) {
                    true => Ok(Removed::default()),
                    false => Ok(nftables::remove_chains(family, Which::All)?),
                }
            })
        },
    },
    Cleaner {
        what: "kube-proxy's chains of iptables in the legacy tables",
        used_by: &[],
        remove: |stays| {
            of_both_families("legacy", |family| {
                match stays.in_variant(family, Variant::Legacy) {
                    true => Ok(Removed::default()),
                    false => iptables::remove_chains(family, Which::All),
                }
            })
        },
    },
    // The iptables mode takes over the others.
    Cleaner {
        what: "chains of upstream's IPVS mode",
        used_by: &[Mode::Nftables, Mode::Ipvs],
        remove: |_| {
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
        remove: |_| Ok(ipsets::remove()?),
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

fn remove_device(stays: &Stays) -> Result<(), LeftoverError> {
    if stays.mode.is_none() {
        return Ok(ipvs::remove_device()?);
    }
    match ipvs::retire_device(stays.again)? {
        0 => Ok(()),
        addresses => Err(LeftoverError::InUse { addresses }),
    }
}

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The kernel or a program refuses.
    #[error(transparent)]
    Refused(#[from] CommitError),
    /// Somebody needs it who has to be waited for.
    #[error("{addresses} of its addresses are the source of connections that processes of this node have")]
    InUse {
        /// How many addresses.
        addresses: usize,
    },
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

impl LeftoverError {
    /// There is hope.
    fn passes(&self) -> bool {
        matches!(
            self,
            Self::InUse { .. } | Self::Refused(CommitError::Refused { .. })
        )
    }
}

/// Removes everything that any kube-proxy left.
///
/// # Errors
/// What is still there, and why; the rest is gone.
pub fn remove_all() -> Result<(), anyhow::Error> {
    let failed = CLEANERS.iter().filter_map(|cleaner| {
        let error = (cleaner.remove)(&Stays::default()).err()?;
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
        if mode != Mode::Ipvs
            && let Err(err) = ipvs::keep_connections()
        {
            // Tried again before they end.
            debug!(%err, "Connections through IPVS cannot go on without it yet");
        }
        if let Ok(variants) = begun.recv() {
            remove_others(mode, variants);
        }
    });
    if let Err(err) = started {
        warn!(%err, "There is no thread to remove what other modes left");
    }
    Box::new(move |variants| {
        // Without a thread it was said, and a second word is one too many.
        let _ = begin.try_send(variants);
    })
}

/// Begins to remove what other modes left, when it is called for the first time; with where the iptables mode has its chains,
/// if that is the mode.
pub type Remover = Box<dyn Fn([Option<Variant>; 2]) + Send>;

/// Removes what other modes than this one left. What resists is told once and tried again as long as there is hope.
fn remove_others(mode: Mode, variants: [Option<Variant>; 2]) {
    persist(CLEANERS, mode, variants, std::thread::sleep);
}

fn persist(cleaners: &[Cleaner], mode: Mode, variants: [Option<Variant>; 2], mut wait: impl FnMut(Duration)) {
    let mut stays = Stays {
        mode: Some(mode),
        again: false,
        variants,
    };
    let others = cleaners.iter().filter(|cleaner| !cleaner.used_by.contains(&mode));
    let mut left: Vec<&Cleaner> = others.collect();
    let mut pause = None;
    loop {
        let mut longest = LONGEST_WAIT;
        left.retain(|cleaner| match (cleaner.remove)(&stays) {
            Ok(()) => {
                if pause.is_some() {
                    info!("What another mode left is gone: {}", cleaner.what);
                }
                false
            }
            Err(err) => {
                if let (None, LeftoverError::InUse { .. }) = (pause, &err) {
                    info!(reason = %err, "What another mode left stays for a while: {}", cleaner.what);
                } else if pause.is_none() {
                    warn!(%err, "What another mode left is still there: {}", cleaner.what);
                }
                if !matches!(err, LeftoverError::InUse { .. }) {
                    longest = LONGEST_PAUSE;
                }
                err.passes()
            }
        });
        if left.is_empty() {
            return;
        }
        let next = pause.map_or(FIRST_PAUSE, |pause: Duration| (pause * 2).min(longest));
        wait(next);
        pause = Some(next);
        stays.again = true;
    }
}

/// Removes chains of iptables in both families; what one family refuses does not keep the other.
fn of_both_families(
    variant: &str,
    remove: impl Fn(Family) -> Result<Removed, LeftoverError>,
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
