//! Puts the whole desired state in force, in place of whatever there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Nftables;
use super::apply::{Culprits, PATIENCE, Refusals};
use super::config::{Config, NodePorts};
use super::entry::Key;
use super::failure::explain;
use super::kernel::Kernel;
use super::memory::Numbers;
use super::pending::{Change, Held};
use super::transaction::{Blame, Transaction};
use crate::dataplane::{CommitError, CommitReport};
use crate::model::object::Family;

/// Elements in one transaction when nothing forwards yet: some 20 ms in which a processor does nothing else.
const CHUNK: usize = 10_000;

impl Nftables {
    /// Programs everything anew.
    pub(super) fn program(&mut self, now: Instant, report: &mut CommitReport) -> Result<(), CommitError> {
        self.pending.clear();
        self.kernel.forget_chains();
        let addition = |key, value| Change {
            key,
            held: &Held::Absent,
            wanted: Some(value),
        };
        let mut takeover = Takeover {
            kernel: &mut self.kernel,
            config: &self.config,
            node_ports: &self.node_ports,
            changes: self
                .ledger
                .iter()
                .map(|entry| addition(entry.key, entry.value))
                .collect(),
            report,
        };
        let LeftOut { groups, guilty } = takeover.run(now)?;
        self.node_ports.rules_written();
        self.in_force = true;
        self.leave_out(&groups, guilty, now, report);
        Ok(())
    }

    /// Notes what the kernel does not hold: for later if it was refused, else for the next transaction.
    fn leave_out(
        &mut self,
        groups: &BTreeSet<Key>,
        mut guilty: Refusals,
        now: Instant,
        report: &mut CommitReport,
    ) {
        if groups.is_empty() {
            return;
        }
        let mut missing: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        for entry in self.ledger.iter() {
            let group = entry.key.group();
            if groups.contains(&group) {
                self.pending.missing(entry.key, entry.holder);
                missing.entry(group).or_default().push(entry.key.clone());
            }
        }
        for (group, keys) in missing {
            if let Some((element, reason)) = guilty.remove(&group) {
                self.pending.hold_back(&keys);
                self.refuse(group, keys, &element, reason, now, report);
            }
        }
    }
}

/// Removes the tables that a kube-proxy in this mode left.
///
/// # Errors
/// When the kernel refuses, or nobody here may ask it.
pub(in crate::dataplane) fn remove_tables() -> Result<(), CommitError> {
    let table = Config::default().table;
    let (mut kernel, mut report) = (Kernel::default(), CommitReport::default());
    for family in Family::ALL {
        match kernel.table_exists(family, &table) {
            Ok(true) => {}
            Ok(false) | Err(CommitError::Unsupported { .. }) => continue,
            Err(error) => return Err(error),
        }
        let mut transaction = Transaction::new(&table);
        transaction.delete_table(family);
        let sealed = transaction.seal();
        let failures = kernel.send(&sealed, &mut report)?;
        if let Some(failure) = failures.first() {
            return Err(explain(&table, &sealed, failure));
        }
        tracing::info!(ip_family = %family, table, "Removed the nftables table that a kube-proxy left");
    }
    Ok(())
}

/// What did not get in force: whole groups, some of them known to be guilty.
#[derive(Default)]
struct LeftOut {
    groups: BTreeSet<Key>,
    guilty: Refusals,
}

/// The whole desired state on its way to the kernel.
struct Takeover<'a> {
    kernel: &'a mut Kernel,
    config: &'a Config,
    node_ports: &'a NodePorts,
    /// Everything that the ledger wants, as changes to nothing.
    changes: Vec<Change<'a>>,
    report: &'a mut CommitReport,
}

impl<'a> Takeover<'a> {
    fn run(&mut self, now: Instant) -> Result<LeftOut, CommitError> {
        let mut occupied = false;
        for &family in &self.config.families {
            occupied |= self.kernel.table_exists(family, &self.config.table)?;
        }
        if occupied || !self.in_chunks()? {
            return self.at_once(now);
        }
        let all: Vec<usize> = (0..self.changes.len()).collect();
        self.count(&all, now);
        Ok(LeftOut::default())
    }

    /// Where there is no table: in transactions short enough to let others work. The chains that the kernel
    /// calls come last, so nothing is in force before everything is. Returns whether it got there; sorting
    /// out blame is left to [`Takeover::at_once`].
    fn in_chunks(&mut self) -> Result<bool, CommitError> {
        let all: Vec<usize> = (0..self.changes.len()).collect();
        let mut first = self.transaction();
        for &family in &self.config.families {
            first.table(family);
        }
        self.structure(&mut first, &all);
        if !self.accepted(first)? {
            return Ok(false);
        }
        for chunk in all.chunks(CHUNK) {
            let mut elements = self.transaction();
            elements.changes(&self.changes, chunk);
            if !self.accepted(elements)? {
                return Ok(false);
            }
        }
        let mut last = self.transaction();
        self.hook(&mut last);
        self.accepted(last)
    }

    fn accepted(&mut self, transaction: Transaction<'_>) -> Result<bool, CommitError> {
        let sealed = transaction.seal();
        let failures = self.kernel.send(&sealed, self.report)?;
        match Culprits::of(&sealed, &failures).structure {
            Some(failure) => Err(explain(&self.config.table, &sealed, failure)),
            None => Ok(failures.is_empty()),
        }
    }

    /// Replaces the tables that are there in one transaction, so that there is no moment without rules.
    /// Groups that the kernel refuses are left out of it; those whose guilt is not clear yet are left to
    /// the transaction that follows.
    fn at_once(&mut self, now: Instant) -> Result<LeftOut, CommitError> {
        let mut included: Vec<usize> = (0..self.changes.len()).collect();
        let mut left_out = LeftOut::default();
        let wanted = self.changes.iter();
        let numbers = Numbers::among(wanted.filter_map(|change| Some((change.key, change.wanted?))));
        let mut remembers = true;
        for round in 0.. {
            let mut replacement = self.replacement(&included);
            if remembers {
                self.carry_over(&numbers, &mut replacement);
            }
            let sealed = replacement.seal();
            let failures = self.kernel.send(&sealed, self.report)?;
            if failures.is_empty() {
                break;
            }
            let culprits = Culprits::of(&sealed, &failures);
            if let Some(failure) = culprits.structure {
                if std::mem::take(&mut remembers) {
                    // Should that be to blame, then rather a client gets another endpoint than all get none.
                    continue;
                }
                return Err(explain(&self.config.table, &sealed, failure));
            }
            let mut suspects = culprits.unnamed;
            for (index, _, failure) in culprits.named {
                let key = self.changes[index].key;
                let reason = || (key.clone(), failure.reason());
                left_out.guilty.entry(key.group()).or_insert_with(reason);
                suspects.push(index);
                if round >= PATIENCE
                    && let Blame::OneOf(neighbours) = sealed.blame(failure.sequence, None)
                {
                    suspects.extend(neighbours);
                }
            }
            let suspects = suspects.into_iter().map(|index| self.changes[index].key.group());
            left_out.groups.extend(suspects);
            included.retain(|&index| !left_out.groups.contains(&self.changes[index].key.group()));
        }
        self.count(&included, now);
        Ok(left_out)
    }

    /// Adds what the tables to be replaced remember of clients, as late as can be: what they learn from now on
    /// goes with them.
    fn carry_over(&mut self, numbers: &Numbers, replacement: &mut Transaction<'_>) {
        for &family in &self.config.families {
            match numbers.translate(self.kernel, &self.config.table, family) {
                Ok(remembered) if remembered.is_empty() => {}
                Ok(remembered) => {
                    tracing::debug!(ip_family = %family, clients = remembered.len(), "Session affinity carried over");
                    replacement.remembered(family, &remembered);
                }
                Err(err) => {
                    tracing::warn!(ip_family = %family, %err, "Clients are not remembered over this start");
                }
            }
        }
    }

    fn replacement(&self, included: &[usize]) -> Transaction<'a> {
        let mut transaction = self.transaction();
        for &family in &self.config.families {
            // Made first, so that there is one to delete.
            transaction.table(family);
            transaction.delete_table(family);
            transaction.table(family);
        }
        self.structure(&mut transaction, included);
        transaction.changes(&self.changes, included);
        self.hook(&mut transaction);
        transaction
    }

    fn transaction(&self) -> Transaction<'a> {
        Transaction::new(&self.config.table)
    }

    /// The sets, the chains that are always there, and those that these changes need.
    fn structure(&self, transaction: &mut Transaction<'_>, included: &[usize]) {
        for &family in &self.config.families {
            transaction.sets(family, self.config.count_connections);
            let node_ports = self.node_ports.rules(family);
            for chain in self.config.rules(family).constant_chains(node_ports) {
                transaction.chain(family, &chain);
            }
        }
        for (family, chain) in self.kernel.chains_to_make(&self.changes, included) {
            transaction.chain(family, &self.config.rules(family).chain(chain));
        }
    }

    /// Notes what is there now.
    fn count(&mut self, included: &[usize], now: Instant) {
        let chains = self.kernel.chains_to_make(&self.changes, included);
        self.kernel.made(chains, now);
        self.kernel
            .count(included.iter().map(|&index| self.changes[index]), now);
    }

    /// The chains that the kernel calls.
    fn hook(&self, transaction: &mut Transaction<'_>) {
        for &family in &self.config.families {
            let node_ports = self.node_ports.rules(family);
            for chain in self.config.rules(family).base_chains(node_ports) {
                transaction.chain(family, &chain);
            }
        }
    }
}
