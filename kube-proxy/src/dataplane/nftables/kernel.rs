//! The kernel as this process left it: its socket, and the chains that were made as needed.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use nix::errno::Errno;

use super::chain::Chain;
use super::entry::Value;
use super::failure::{explain, unreachable};
use super::listed::{Element, elements};
use super::object::Object;
use super::pending::{Change, Held, RETIREMENT};
use super::socket::{Failure, Socket};
use super::transaction::{Sealed, Transaction};
use crate::dataplane::{CommitError, CommitReport};
use crate::model::object::Family;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    socket: Option<Socket>,
    chains: HashMap<(Family, Chain), Use>,
}

/// How a chain is used.
#[derive(Debug, Default)]
struct Use {
    /// How many elements, and rules of other chains, lead to it.
    times: usize,
    /// Set while nothing does.
    unused_since: Option<Instant>,
}

impl Kernel {
    /// The socket, opened by the first who asks.
    pub(super) fn socket(&mut self) -> Result<&mut Socket, CommitError> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open().map_err(|errno| unreachable("open a netlink socket", errno))?,
        };
        Ok(self.socket.insert(socket))
    }

    /// Sends a transaction. No failures: it is in force.
    pub(super) fn send(
        &mut self,
        sealed: &Sealed,
        report: &mut CommitReport,
    ) -> Result<Vec<Failure>, CommitError> {
        report.messages += sealed.messages as usize;
        let answer = self.socket()?.transact(&sealed.bytes, sealed.messages);
        answer.map_err(|errno| unreachable("send a transaction", errno))
    }

    /// Sends a transaction that is of no Service. Refused, nothing of it is in force.
    pub(super) fn apply(
        &mut self,
        transaction: Transaction<'_>,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        let table = transaction.table_name();
        let sealed = transaction.seal();
        let failures = self.send(&sealed, report)?;
        let failure = failures.first();
        failure.map_or(Ok(()), |failure| Err(explain(table, &sealed, failure)))
    }

    /// Whether there is a table of this name.
    pub(super) fn table_exists(&mut self, family: Family, table: &str) -> Result<bool, CommitError> {
        match self.socket()?.table_exists(family, table) {
            // A kernel without this family, or without nf_tables, has no such table; making it will tell.
            Err(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(false),
            answer => answer.map_err(|errno| unreachable("look for the table", errno)),
        }
    }

    /// The elements of a set or map; none when it is not there.
    pub(super) fn elements(
        &mut self,
        family: Family,
        table: &str,
        object: Object,
    ) -> Result<Vec<Element>, CommitError> {
        let answer = elements(self.socket()?, family, table, object.name());
        answer.map_err(|errno| unreachable(&format!("list the map {}", object.name()), errno))
    }

    /// The chains that these changes need and that are not there yet, those first to which others lead.
    pub(super) fn chains_to_make(
        &self,
        changes: &[Change<'_>],
        included: &[usize],
    ) -> BTreeSet<(Family, Chain)> {
        let is_missing = |chain: &(Family, Chain)| !self.chains.contains_key(chain);
        let wanted = included.iter().filter_map(|&index| {
            let Change { key, wanted, .. } = changes[index];
            Some((key.family(), wanted?.chain()?))
        });
        let mut missing: BTreeSet<(Family, Chain)> = wanted.filter(is_missing).collect();
        let targets = missing.iter().flat_map(|(family, chain)| {
            let targets = chain.leads_to();
            targets.map(|target| (*family, target))
        });
        let targets: Vec<(Family, Chain)> = targets.filter(is_missing).collect();
        missing.extend(targets);
        missing
    }

    /// These chains were made; nothing leads to them yet, but from one to the other.
    pub(super) fn made(&mut self, chains: BTreeSet<(Family, Chain)>, now: Instant) {
        for (family, chain) in chains {
            self.chains.entry((family, chain)).or_default().unused_since = Some(now);
            for target in chain.leads_to() {
                self.enter((family, target));
            }
        }
    }

    fn enter(&mut self, chain: (Family, Chain)) {
        let used = self.chains.entry(chain).or_default();
        used.times += 1;
        used.unused_since = None;
    }

    fn leave(&mut self, chain: (Family, Chain), now: Instant) {
        if let Some(used) = self.chains.get_mut(&chain) {
            used.times = used.times.saturating_sub(1);
            if used.times == 0 {
                used.unused_since = Some(now);
            }
        }
    }

    /// The tables were made anew, or are about to be.
    pub(super) fn forget_chains(&mut self) {
        self.chains.clear();
    }

    /// Counts what leads where, after these changes came in force.
    pub(super) fn count<'a>(&mut self, changes: impl IntoIterator<Item = Change<'a>>, now: Instant) {
        for Change { key, held, wanted } in changes {
            if let Held::Value(value) = held
                && let Some(chain) = value.chain()
            {
                self.leave((key.family(), chain), now);
            }
            if let Some(chain) = wanted.and_then(Value::chain) {
                self.enter((key.family(), chain));
            }
        }
    }

    /// The chains that nothing has led to for long enough.
    pub(super) fn chains_to_delete(&self, now: Instant) -> BTreeSet<(Family, Chain)> {
        let unused = |used: &Use| used.unused_since.is_some_and(|since| since + RETIREMENT <= now);
        let unused = self.chains.iter().filter(|(_, used)| unused(used));
        unused.map(|(chain, _)| *chain).collect()
    }

    /// A chain was deleted.
    pub(super) fn deleted(&mut self, chain: &(Family, Chain), now: Instant) {
        self.chains.remove(chain);
        for target in chain.1.leads_to() {
            self.leave((chain.0, target), now);
        }
    }

    /// A chain could not be deleted; it is tried again later.
    pub(super) fn not_deleted(&mut self, chain: &(Family, Chain), now: Instant) {
        if let Some(used) = self.chains.get_mut(chain) {
            used.unused_since = Some(now);
        }
    }

    /// When the next chain may be deleted.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let unused = self.chains.values().filter_map(|used| used.unused_since);
        unused.min().map(|since| since + RETIREMENT)
    }
}
