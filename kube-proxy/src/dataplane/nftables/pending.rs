//! Where the kernel differs from the ledger, and when to do something about it. Pure; time comes in.
//!
//! The ledger says what should be. The kernel holds the same, except under the keys noted here, each with
//! what the kernel holds instead. Such a key is one of: to be written at the next commit, retiring (no longer
//! wanted, but left for a moment), or refused by the kernel and waiting to be tried again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::entry::{Key, Value};
use crate::dataplane::retry::Retry;
use crate::model::ledger::{Diff, Ledger};
use crate::model::object::ObjectName;

/// How long an element stays after the verdicts that led to it are gone. Far longer than a packet takes.
pub(super) const RETIREMENT: Duration = Duration::from_secs(1);

/// What the kernel holds under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing.
    Absent,
    /// This value.
    Value(Value),
    /// Something, put there by another hand.
    Unknown,
}

/// A key under which the kernel holds something else than the ledger wants.
#[derive(Debug)]
struct Difference {
    held: Held,
    /// The Service whose change made the difference.
    service: ObjectName,
    /// Set while it is retiring.
    retire_at: Option<Instant>,
}

/// A group of keys whose changes the kernel refused.
#[derive(Debug)]
struct Refused {
    keys: BTreeSet<Key>,
    retry: Retry,
}

/// One change to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    pub(super) key: &'a Key,
    pub(super) held: &'a Held,
    /// What should be there; `None` for nothing.
    pub(super) wanted: Option<&'a Value>,
}

/// All differences.
#[derive(Debug, Default)]
pub(super) struct Pending {
    differences: HashMap<Key, Difference>,
    /// To be written at the next commit.
    fresh: BTreeSet<Key>,
    /// By the time when they may go. Some may be wanted again meanwhile; their difference tells.
    retiring: VecDeque<(Instant, Key)>,
    /// By group.
    refused: HashMap<Key, Refused>,
}

impl Pending {
    /// Takes in what a Service's change did to the ledger.
    pub(super) fn note(&mut self, service: &ObjectName, diff: Diff<Key, Value>) {
        for (key, _) in diff.added {
            self.differs(key, Held::Absent, service);
        }
        for changed in diff.changed {
            self.differs(changed.key, Held::Value(changed.from), service);
        }
        for (key, value) in diff.removed {
            self.differs(key, Held::Value(value), service);
        }
    }

    /// What the kernel holds under a key that is noted.
    pub(super) fn held(&self, key: &Key) -> Option<&Held> {
        self.differences.get(key).map(|difference| &difference.held)
    }

    /// Notes a key for the next commit; `held` is what the kernel holds unless more is known.
    fn differs(&mut self, key: Key, held: Held, service: &ObjectName) {
        // The Service changed: what was refused of it is tried anew at once.
        if let Some(refused) = self.refused.remove(&key.group()) {
            self.fresh.extend(refused.keys);
        }
        self.fresh.insert(key.clone());
        let difference = self.differences.entry(key).or_insert_with(|| Difference {
            held,
            service: service.clone(),
            retire_at: None,
        });
        difference.retire_at = None;
        difference.service = service.clone();
    }

    /// Takes the keys to be written now: the fresh ones, those that retire, and those to be tried again.
    /// Fresh ones that may not go yet begin to retire once [`Pending::written`] names them.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Key> {
        while let Some((due, _)) = self.retiring.front()
            && *due <= now
            && let Some((due, key)) = self.retiring.pop_front()
        {
            if let Some(difference) = self.differences.get(&key)
                && difference.retire_at == Some(due)
            {
                self.fresh.insert(key);
            }
        }
        for refused in self
            .refused
            .values_mut()
            .filter(|refused| refused.retry.due <= now)
        {
            self.fresh.extend(refused.keys.iter().cloned());
        }
        std::mem::take(&mut self.fresh).into_iter().collect()
    }

    /// The change that makes the kernel equal to the ledger under a key; `None` when it is already, or when
    /// the key begins to retire.
    pub(super) fn change<'a>(&'a self, key: &'a Key, ledger: &'a Ledger<Key, Value>) -> Option<Change<'a>> {
        let difference = self.differences.get(key)?;
        let wanted = ledger.get(key).map(|standing| standing.value);
        let equal = match (&difference.held, wanted) {
            (Held::Absent, None) => true,
            (Held::Value(held), Some(wanted)) => held == wanted,
            _ => false,
        };
        let retires = wanted.is_none() && key.outlives_verdict() && difference.retire_at.is_none();
        (!equal && !retires).then_some(Change {
            key,
            held: &difference.held,
            wanted,
        })
    }

    /// The kernel now holds what it should under these keys, or they begin to retire.
    pub(super) fn written(&mut self, key: &Key, ledger: &Ledger<Key, Value>, now: Instant) {
        let group = key.group();
        if let Some(refused) = self.refused.get_mut(&group) {
            refused.keys.remove(key);
            if refused.keys.is_empty() {
                self.refused.remove(&group);
            }
        }
        let Some(difference) = self.differences.get_mut(key) else {
            return;
        };
        let gone = difference.held == Held::Absent || difference.retire_at.is_some();
        if ledger.get(key).is_none() && key.outlives_verdict() && !gone {
            let at = now + RETIREMENT;
            difference.retire_at = Some(at);
            self.retiring.push_back((at, key.clone()));
        } else {
            self.differences.remove(key);
        }
    }

    /// The kernel refused these keys, all of one group. Returns whether that is news.
    pub(super) fn refused(&mut self, group: Key, keys: impl IntoIterator<Item = Key>, now: Instant) -> bool {
        match self.refused.entry(group) {
            Entry::Occupied(mut known) => {
                let refused = known.get_mut();
                refused.keys.extend(keys);
                refused.retry.refused_again(now);
                false
            }
            Entry::Vacant(new) => {
                new.insert(Refused {
                    keys: keys.into_iter().collect(),
                    retry: Retry::after_first(now),
                });
                true
            }
        }
    }

    /// Keeps keys for the next commit, after one that put nothing in force.
    pub(super) fn put_back(&mut self, keys: Vec<Key>) {
        self.fresh.extend(keys);
    }

    /// Forgets everything: the kernel holds what the ledger wants.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Notes that the kernel does not hold a key that the ledger wants.
    pub(super) fn missing(&mut self, key: &Key, service: &ObjectName) {
        self.differs(key.clone(), Held::Absent, service);
    }

    /// Takes keys off the list of those for the next commit.
    pub(super) fn hold_back(&mut self, keys: &[Key]) {
        for key in keys {
            self.fresh.remove(key);
        }
    }

    /// The Service whose change a key belongs to.
    pub(super) fn service(&self, key: &Key) -> Option<&ObjectName> {
        self.differences.get(key).map(|difference| &difference.service)
    }

    /// How many elements are left out.
    pub(super) fn refused_elements(&self) -> usize {
        self.refused.values().map(|refused| refused.keys.len()).sum()
    }

    /// When the next key comes due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let retry = self.refused.values().map(|refused| refused.retry.due).min();
        let retire = self.retiring.front().map(|(due, _)| *due);
        retry.into_iter().chain(retire).min()
    }
}
