//! Puts the whole desired state in force, in place of whatever there is.
//!
//! Where there are tables already, a predecessor's or those that another hand changed, no packet may notice. So all is
//! written first to tables of another name, the stand-in: with that a commit ends. The next one, which comes at once, removes
//! the others (`retire.rs` tells how), writes all anew under their name, and removes the stand-in. Who is stopped in the
//! middle leaves one of the two in force as a whole, and the next one goes on from there.

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
use super::retire::{in_force, retire};
use super::transaction::{Blame, Transaction};
use crate::dataplane::{CommitError, CommitReport};
use crate::model::object::Family;

/// Elements in one transaction: some 20 ms in which a processor does nothing else.
const CHUNK: usize = 10_000;

impl Nftables {
    /// Programs everything anew: in tables of the right name, or for now in the stand-in.
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
        let left_out = takeover.run(self.stands_in, now)?;
        self.in_force = true;
        self.stands_in = left_out.is_none();
        if let Some(LeftOut { groups, guilty }) = left_out {
            self.node_ports.rules_written();
            self.leave_out(&groups, guilty, now, report);
        }
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
    for table in [stand_in(&table), table] {
        let removed = match retire(&mut kernel, &Family::ALL, &table, &mut report) {
            Err(CommitError::Unsupported { .. }) => return Ok(()),
            removed => removed?,
        };
        for family in removed {
            tracing::info!(ip_family = %family, table, "Removed the nftables table that a kube-proxy left");
        }
    }
    Ok(())
}

/// The name of the tables that are in force while those named `table` are replaced.
pub(super) fn stand_in(table: &str) -> String {
    format!("{table}-stand-in")
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
    /// Puts everything in force. `None`: in the stand-in, and there is a rest to be done, which takes the time of some
    /// grace periods. `stands_in`: that is how this process left it.
    fn run(&mut self, stands_in: bool, now: Instant) -> Result<Option<LeftOut>, CommitError> {
        let (table, stand_in) = (self.config.table.clone(), stand_in(&self.config.table));
        let there_is_one = self.in_force(&stand_in)?;
        if !(stands_in && there_is_one) && self.in_force(&table)? {
            // Of one that was stopped before its end, or after it.
            self.retire(&stand_in)?;
            self.write(&stand_in, Some(&table))?;
            return Ok(None);
        }
        self.retire(&table)?;
        let (included, left_out) = self.write(&table, there_is_one.then_some(&stand_in))?;
        self.retire(&stand_in)?;
        self.count(&included, now);
        Ok(Some(left_out))
    }

    fn in_force(&mut self, table: &str) -> Result<bool, CommitError> {
        in_force(self.kernel, &self.config.families, table)
    }

    fn retire(&mut self, table: &str) -> Result<(), CommitError> {
        retire(self.kernel, &self.config.families, table, self.report).map(|_| ())
    }

    /// Puts everything in force in tables of this name, which are not there, with what those of another name remember of
    /// clients. The chains that the kernel calls come last, so nothing is in force before everything is.
    fn write(&mut self, table: &str, memory: Option<&str>) -> Result<(Vec<usize>, LeftOut), CommitError> {
        let mut included: Vec<usize> = (0..self.changes.len()).collect();
        let mut left_out = LeftOut::default();
        if !self.in_chunks(table, &included)? {
            left_out = self.at_once(table, &mut included)?;
        }
        if let Some(memory) = memory {
            self.carry_over(memory, table, &included);
        }
        let mut last = Transaction::new(table);
        self.hook(&mut last);
        self.kernel.apply(last, self.report)?;
        Ok((included, left_out))
    }

    /// In transactions short enough to let others work. Returns whether it got there; sorting out blame is left to
    /// [`Takeover::at_once`].
    fn in_chunks(&mut self, table: &str, all: &[usize]) -> Result<bool, CommitError> {
        let mut first = Transaction::new(table);
        for &family in &self.config.families {
            first.table(family);
        }
        self.structure(&mut first, all);
        self.kernel.apply(first, self.report)?;
        for chunk in all.chunks(CHUNK) {
            let mut elements = Transaction::new(table);
            elements.changes(&self.changes, chunk);
            if !self.accepted(elements)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn accepted(&mut self, transaction: Transaction<'_>) -> Result<bool, CommitError> {
        let sealed = transaction.seal();
        let failures = self.kernel.send(&sealed, self.report)?;
        match Culprits::of(&sealed, &failures).structure {
            Some(failure) => Err(explain(&self.config.table, &sealed, failure)),
            None => Ok(failures.is_empty()),
        }
    }

    /// In one transaction, and all that others wrote of the tables before goes. Groups that the kernel refuses are left out
    /// of it and of what is included; those whose guilt is not clear yet are left to the transaction that follows.
    fn at_once(&mut self, table: &str, included: &mut Vec<usize>) -> Result<LeftOut, CommitError> {
        let mut left_out = LeftOut::default();
        for round in 0.. {
            let mut whole = Transaction::new(table);
            for &family in &self.config.families {
                // Made first, so that there is one to delete.
                whole.table(family);
                whole.delete_table(family);
                whole.table(family);
            }
            self.structure(&mut whole, included);
            whole.changes(&self.changes, included);
            let sealed = whole.seal();
            let failures = self.kernel.send(&sealed, self.report)?;
            if failures.is_empty() {
                break;
            }
            let culprits = Culprits::of(&sealed, &failures);
            if let Some(failure) = culprits.structure {
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
        Ok(left_out)
    }

    /// Takes over what tables remember of clients, as late as can be: what they learn from now on goes with them. Should
    /// the kernel refuse, then rather a client gets another endpoint than all get none.
    fn carry_over(&mut self, from: &str, to: &str, included: &[usize]) {
        let wanted = included.iter().map(|&index| self.changes[index]);
        let numbers = Numbers::among(wanted.filter_map(|change| Some((change.key, change.wanted?))));
        for &family in &self.config.families {
            match self.carry_over_of(family, from, to, &numbers) {
                Ok(0) => {}
                Ok(clients) => tracing::debug!(ip_family = %family, clients, "Session affinity carried over"),
                Err(err) => {
                    tracing::warn!(ip_family = %family, %err, "Clients are not remembered over this start");
                }
            }
        }
    }

    fn carry_over_of(
        &mut self,
        family: Family,
        from: &str,
        to: &str,
        numbers: &Numbers,
    ) -> Result<usize, CommitError> {
        let remembered = numbers.translate(self.kernel, from, family)?;
        if !remembered.is_empty() {
            let mut transaction = Transaction::new(to);
            transaction.remembered(family, &remembered);
            self.kernel.apply(transaction, self.report)?;
        }
        Ok(remembered.len())
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
