//! Brings what changed in force, and finds out who is to blame when the kernel refuses.
//!
//! Transactions are made of whole groups (see [`Key::group`]), so that no verdict is in force without the
//! endpoints that it counts on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Nftables;
use super::config::Config;
use super::entry::Key;
use super::failure::explain;
use super::kernel::Kernel;
use super::pending::{Change, Held};
use super::socket::Failure;
use super::transaction::{Blame, Sealed, Transaction};
use crate::dataplane::{CommitError, CommitReport, Refusal};

/// Transactions refused in a row before the search for the guilty bisects.
pub(super) const PATIENCE: usize = 4;

/// Why a transaction was given up.
enum Stop {
    /// The table is not what it was left as.
    Drift,
    /// Nothing can be put in force.
    Error(CommitError),
}

impl From<CommitError> for Stop {
    fn from(error: CommitError) -> Self {
        Self::Error(error)
    }
}

/// What the kernel refused, by group: the element and the reason.
pub(super) type Refusals = BTreeMap<Key, (Key, String)>;

/// Who is to blame for a refused transaction, as far as the kernel tells.
#[derive(Default)]
pub(super) struct Culprits<'a> {
    /// Changes that the kernel named, and whether it minded what they take away.
    pub(super) named: Vec<(usize, bool, &'a Failure)>,
    /// Changes among which there is a guilty one.
    pub(super) unnamed: Vec<usize>,
    /// Something else than a change.
    pub(super) structure: Option<&'a Failure>,
}

impl<'a> Culprits<'a> {
    pub(super) fn of(sealed: &Sealed, failures: &'a [Failure]) -> Self {
        let mut culprits = Self::default();
        for failure in failures {
            match sealed.blame(failure.sequence, failure.offset) {
                Blame::Change { index, removal } => culprits.named.push((index, removal, failure)),
                Blame::OneOf(changes) => culprits.unnamed.extend(changes),
                Blame::Structure => {
                    culprits.structure.get_or_insert(failure);
                }
            }
        }
        culprits
    }
}

impl Nftables {
    /// [`commit`](crate::dataplane::Dataplane::commit) at a given time.
    pub(in crate::dataplane) fn commit_at(&mut self, now: Instant) -> Result<CommitReport, CommitError> {
        let mut report = CommitReport::default();
        let mut programmed = false;
        self.others.hear(&self.config, now);
        if self.others.take_repair(now) && self.in_force {
            report.drift += 1;
            self.anew();
        }
        loop {
            if !self.in_force || self.stands_in {
                self.program(now, &mut report)?;
                if self.stands_in {
                    report.again_after = Some(Duration::ZERO);
                    return Ok(report);
                }
                self.others.listen(&mut self.kernel, &self.config, now)?;
                programmed = true;
                for family in &mut report.families {
                    family.full = true;
                }
            }
            match self.write_pending(now, &mut report) {
                Ok(()) => break,
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::Drift) if programmed => {
                    return Err(CommitError::Refused {
                        tried: format!("program table {}", self.config.table),
                        reason: "another hand keeps changing the table".to_owned(),
                    });
                }
                Err(Stop::Drift) => {
                    let table = &self.config.table;
                    tracing::warn!(%table, "the table was changed by another hand; programming it anew");
                    report.drift += 1;
                    self.anew();
                }
            }
        }
        self.delete_unused_chains(now, &mut report)?;
        report.refused_now = self.pending.refused_elements();
        let due = self.pending.next_due().into_iter().chain(self.kernel.next_due());
        let due = due.chain(self.others.repair_due());
        report.again_after = due.min().map(|due| due.saturating_duration_since(now));
        Ok(report)
    }

    /// What there is, is not what it was left as.
    fn anew(&mut self) {
        (self.in_force, self.stands_in) = (false, false);
    }

    /// Writes what is pending and due.
    fn write_pending(&mut self, now: Instant, report: &mut CommitReport) -> Result<(), Stop> {
        let keys = self.pending.take(now);
        let changes: Vec<Change<'_>> = keys
            .iter()
            .filter_map(|key| self.pending.change(key, &self.ledger))
            .collect();
        let mut refusals = Refusals::new();
        let mut writer = Writer {
            kernel: &mut self.kernel,
            config: &self.config,
            node_ports: &mut self.node_ports,
            original: &changes,
            refusals: &mut refusals,
            report,
            now,
        };
        let included: Vec<usize> = (0..changes.len()).collect();
        if let Err(stop) = writer.settle(&mut changes.clone(), included) {
            self.pending.put_back(keys);
            return Err(stop);
        }
        let mut refused: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        for key in keys {
            let group = key.group();
            if refusals.contains_key(&group) {
                refused.entry(group).or_default().push(key);
            } else {
                self.pending.written(&key, &self.ledger, now);
            }
        }
        for (group, keys) in refused {
            if let Some((element, reason)) = refusals.remove(&group) {
                self.refuse(group, keys, &element, reason, now, report);
            }
        }
        Ok(())
    }

    /// Keeps the keys of a group that the kernel refused for later, and reports it if it is news.
    pub(super) fn refuse(
        &mut self,
        group: Key,
        keys: Vec<Key>,
        element: &Key,
        reason: String,
        now: Instant,
        report: &mut CommitReport,
    ) {
        if self.pending.refused(group, keys, now)
            && let Some(service) = self.pending.service(element)
        {
            report.refused.push(Refusal {
                service: service.clone(),
                element: element.to_string(),
                reason,
            });
        }
    }

    /// Deletes the chains that nothing has led to for a while. One that resists stays for another while.
    fn delete_unused_chains(&mut self, now: Instant, report: &mut CommitReport) -> Result<(), CommitError> {
        for chain in self.kernel.chains_to_delete(now) {
            let mut transaction = Transaction::new(&self.config.table);
            transaction.delete_chain(chain.0, &chain.1.to_string());
            if self.kernel.send(&transaction.seal(), report)?.is_empty() {
                self.kernel.deleted(&chain, now);
            } else {
                self.kernel.not_deleted(&chain, now);
                report.families[chain.0 as usize].cleanup_failures += 1;
            }
        }
        Ok(())
    }
}

/// Writes changes.
struct Writer<'a> {
    kernel: &'a mut Kernel,
    config: &'a Config,
    node_ports: &'a mut super::config::NodePorts,
    /// The changes as they were asked for, before anything was learned from the kernel.
    original: &'a [Change<'a>],
    refusals: &'a mut Refusals,
    report: &'a mut CommitReport,
    now: Instant,
}

impl<'a> Writer<'a> {
    /// Puts those of `changes` that `included` names in force, all but the groups that the kernel refuses.
    fn settle(&mut self, changes: &mut [Change<'a>], mut included: Vec<usize>) -> Result<(), Stop> {
        let mut corrected = HashMap::new();
        for _ in 0..PATIENCE {
            let Some((sealed, failures)) = self.attempt(changes, &included)? else {
                return Ok(());
            };
            let culprits = Culprits::of(&sealed, &failures);
            if let Some(failure) = culprits.structure {
                return Err(self.structure(&sealed, failure));
            }
            for (index, removal, failure) in culprits.named {
                let held = match (failure.errno, removal) {
                    // Another hand took it away, or put something else there. (Of intervals, something else
                    // may be a wider one that is wanted.)
                    (Errno::ENOENT, true) => &Held::Absent,
                    (Errno::EEXIST | Errno::EBUSY, false) if !changes[index].key.object().is_interval() => {
                        &Held::Unknown
                    }
                    (Errno::ENOENT, false) => return Err(Stop::Drift),
                    _ => {
                        self.refuse(changes[index].key, failure.reason());
                        continue;
                    }
                };
                // Corrected once, it should work. If not, the first complaint was the true one.
                if let Some(reason) = corrected.insert(index, failure.reason()) {
                    self.refuse(changes[index].key, reason);
                }
                changes[index].held = held;
            }
            included.retain(|&index| !self.refusals.contains_key(&changes[index].key.group()));
            if !culprits.unnamed.is_empty() {
                break;
            }
        }
        self.bisect(changes, included)
    }

    /// Settles two halves one after the other; a single group that the kernel refuses is guilty.
    fn bisect(&mut self, changes: &mut [Change<'a>], mut included: Vec<usize>) -> Result<(), Stop> {
        let groups: BTreeSet<Key> = included.iter().map(|&index| changes[index].key.group()).collect();
        let Some(middle) = groups.iter().nth(groups.len() / 2) else {
            return self.settle(changes, included);
        };
        if groups.len() > 1 {
            let (first, second) = included
                .into_iter()
                .partition(|&index| changes[index].key.group() < *middle);
            self.settle(changes, first)?;
            return self.settle(changes, second);
        }
        match self.attempt(changes, &included)? {
            None => Ok(()),
            Some((_, failures)) => {
                if failures.iter().any(|failure| failure.errno == Errno::ENOENT) {
                    return Err(Stop::Drift);
                }
                if let (Some(index), Some(failure)) = (included.pop(), failures.first()) {
                    self.refuse(changes[index].key, failure.reason());
                }
                Ok(())
            }
        }
    }

    fn refuse(&mut self, key: &Key, reason: String) {
        let refusal = || (key.clone(), reason);
        self.refusals.entry(key.group()).or_insert_with(refusal);
    }

    /// Sends one transaction, and before it another one with the chains that it needs and that are not there
    /// yet. (A packet that is in the rules while a transaction comes in force reads sets from after it and
    /// chains from before it, so it would find chains of the same transaction empty.) `None`: it is in force.
    fn attempt(
        &mut self,
        changes: &[Change<'a>],
        included: &[usize],
    ) -> Result<Option<(Sealed, Vec<Failure>)>, CommitError> {
        let chains = self.kernel.chains_to_make(changes, included);
        let mut transaction = Transaction::new(&self.config.table);
        for (family, chain) in &chains {
            transaction.chain(*family, &self.config.rules(*family).chain(*chain));
        }
        if let Some(refused) = self.send(transaction)? {
            return Ok(Some(refused));
        }
        self.kernel.made(chains, self.now);
        let mut transaction = Transaction::new(&self.config.table);
        for family in self.node_ports.rules_changed() {
            let (rules, node_ports) = (self.config.rules(family), self.node_ports.rules(family));
            for chain in rules.node_port_chains(node_ports) {
                transaction.replace_rules(family, &chain);
            }
            if self.config.localhost_node_ports {
                for chain in rules.localhost_base_chains(node_ports.localhost) {
                    transaction.replace_rules(family, &chain);
                }
            }
        }
        transaction.changes(changes, included);
        if let Some(refused) = self.send(transaction)? {
            return Ok(Some(refused));
        }
        self.node_ports.rules_written();
        self.kernel
            .count(included.iter().map(|&index| self.original[index]), self.now);
        Ok(None)
    }

    fn send(&mut self, transaction: Transaction<'_>) -> Result<Option<(Sealed, Vec<Failure>)>, CommitError> {
        if transaction.is_empty() {
            return Ok(None);
        }
        let sealed = transaction.seal();
        let failures = self.kernel.send(&sealed, self.report)?;
        Ok((!failures.is_empty()).then_some((sealed, failures)))
    }

    /// A chain or rule was refused: the table is not what it was, or the kernel lacks something.
    fn structure(&mut self, sealed: &Sealed, failure: &Failure) -> Stop {
        for &family in &self.config.families {
            match self.kernel.table_exists(family, &self.config.table) {
                Ok(true) => {}
                Ok(false) => return Stop::Drift,
                Err(error) => return Stop::Error(error),
            }
        }
        match explain(&self.config.table, sealed, failure) {
            CommitError::Refused { .. } => Stop::Drift,
            error => Stop::Error(error),
        }
    }
}
