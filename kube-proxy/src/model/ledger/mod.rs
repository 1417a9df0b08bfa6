//! The ledger: desired state as keyed entries with owners.
//!
//! An owner is an object of the cluster (a Service). It wants some entries, each a key and a value, and says
//! so by [`Ledger::replace`], which answers with the [`Diff`] to what was desired before. Owners that want
//! one key with equal values share the entry: it goes when the last of them goes. When they want different
//! values, the oldest owner's is in force and the others lose that key, the same on every node and whatever
//! the order of events; when the winner goes, the next in line takes over.
//!
//! Made for 100,000 and more entries: a key and the value in force are stored once, an owner is a number of
//! four bytes, and a replacement costs what that owner wants and wanted, whatever else is in the ledger and
//! however many others share an entry. The ledger knows nothing about kernels: a dataplane keeps one for its
//! elements, the model one for the addresses that Services claim.

mod diff;
mod owners;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry as IndexEntry, HashTable};

pub use self::diff::{Changed, Diff, Dispute, Standing};
use self::owners::{OwnerId, Owners, Rank};
use self::slots::Slots;
use super::object::ObjectName;

/// Desired entries by key, with their owners. See the module's text.
#[derive(Debug)]
pub struct Ledger<K, V> {
    entries: Slots<Entry<K, V>>,
    /// Finds an entry by the hash of its key.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    owners: Owners,
    /// The claims of those who want an entry that another owner holds, by entry and seniority.
    waiting: BTreeMap<(u32, Rank), V>,
}

/// One key and the value in force.
#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    /// Whose value is in force: the most senior of those who want the key.
    holder: OwnerId,
    /// Others are waiting for it. Saves most entries the look.
    shared: bool,
    /// The replacement under way has named this key.
    named: bool,
}

impl<K, V> Default for Ledger<K, V> {
    fn default() -> Self {
        Self {
            entries: Slots::default(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            owners: Owners::default(),
            waiting: BTreeMap::new(),
        }
    }
}

impl<K: Hash + Eq + Clone, V: Eq + Clone> Ledger<K, V> {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `entries` all that `owner` wants. `created` is the owner's age in seconds since the Unix epoch
    /// and settles disputes: the smallest wins, `None` counts as youngest, ties go to the smaller name. It
    /// may differ from the last call (an object re-created under its old name); the owner's disputes are
    /// settled anew. A key that `entries` holds twice counts with its first value. An owner that wants
    /// nothing is forgotten.
    pub fn replace(
        &mut self,
        owner: &ObjectName,
        created: Option<i64>,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Diff<K, V> {
        let mut diff = Diff::default();
        let (id, wanted_before) = self.enter(Rank::new(owner, created));
        let mut wants = Vec::with_capacity(wanted_before.len());
        for (key, value) in entries {
            if let Some(slot) = self.want(id, key, value, &mut diff) {
                wants.push(slot);
            }
        }
        for slot in wanted_before {
            if !self.entries.get(slot).is_some_and(|entry| entry.named) {
                self.give_up(id, slot, &mut diff);
            }
        }
        for &slot in &wants {
            if let Some(entry) = self.entries.get_mut(slot) {
                entry.named = false;
            }
        }
        if wants.is_empty() {
            self.owners.remove(id);
        } else if let Some(owner) = self.owners.get_mut(id) {
            wants.shrink_to_fit();
            owner.wants = wants;
        }
        diff
    }

    /// Forgets an owner and all that it wanted; the same as replacing with nothing.
    pub fn remove(&mut self, owner: &ObjectName) -> Diff<K, V> {
        match self.owners.id(owner) {
            Some(_) => self.replace(owner, None, []),
            None => Diff::default(),
        }
    }

    /// The number of an owner, now of this rank, and the entries that it wants so far, taken out.
    fn enter(&mut self, rank: Rank) -> (OwnerId, Vec<u32>) {
        let Some(id) = self.owners.id(&rank.name) else {
            return (self.owners.insert(rank), Vec::new());
        };
        let Some(owner) = self.owners.get_mut(id) else {
            return (id, Vec::new());
        };
        let wants = std::mem::take(&mut owner.wants);
        if owner.rank != rank {
            let old = std::mem::replace(&mut owner.rank, rank.clone());
            for &slot in &wants {
                if let Some(value) = self.waiting.remove(&(slot, old.clone())) {
                    self.waiting.insert((slot, rank.clone()), value);
                }
            }
        }
        (id, wants)
    }

    /// One key of a replacement. Returns its entry unless the replacement named it before.
    fn want(&mut self, id: OwnerId, key: K, value: V, diff: &mut Diff<K, V>) -> Option<u32> {
        let hash = self.hasher.hash_one(&key);
        let entries = &self.entries;
        let found = self.index.entry(
            hash,
            |&slot| entries.get(slot).is_some_and(|entry| entry.key == key),
            |&slot| {
                entries
                    .get(slot)
                    .map_or(0, |entry| self.hasher.hash_one(&entry.key))
            },
        );
        let slot = match found {
            IndexEntry::Occupied(found) => *found.get(),
            IndexEntry::Vacant(vacant) => {
                diff.added.push((key.clone(), value.clone()));
                let slot = self.entries.insert(Entry {
                    key,
                    value,
                    holder: id,
                    shared: false,
                    named: true,
                });
                vacant.insert(slot);
                return Some(slot);
            }
        };
        let entry = self.entries.get_mut(slot)?;
        if std::mem::replace(&mut entry.named, true) {
            return None;
        }
        let from = if entry.holder == id {
            std::mem::replace(&mut entry.value, value)
        } else {
            entry.shared = true;
            let rank = self.owners.get(id)?.rank.clone();
            self.waiting.insert((slot, rank), value);
            entry.value.clone()
        };
        self.settle(slot, from, diff);
        Some(slot)
    }

    /// Lets the most senior of those who want an entry hold it; `from` was the value in force.
    fn settle(&mut self, slot: u32, from: V, diff: &mut Diff<K, V>) {
        let Some(entry) = self.entries.get_mut(slot) else {
            return;
        };
        if entry.shared
            && let Some(holder) = self.owners.get(entry.holder)
            && waiting_for(&self.waiting, slot)
                .next()
                .is_some_and(|(first, _)| *first < holder.rank)
            && let Some((next, value)) = pop_waiting(&mut self.waiting, slot)
            && let Some(winner) = self.owners.id(&next.name)
        {
            let loser = holder.rank.clone();
            entry.holder = winner;
            let wanted = std::mem::replace(&mut entry.value, value);
            self.waiting.insert((slot, loser), wanted);
        }
        diff.note(&entry.key, from, &entry.value);
    }

    /// Takes an owner's claim out of an entry that it no longer names.
    fn give_up(&mut self, id: OwnerId, slot: u32, diff: &mut Diff<K, V>) {
        let Some(entry) = self.entries.get_mut(slot) else {
            return;
        };
        if entry.holder != id {
            if let Some(owner) = self.owners.get(id) {
                self.waiting.remove(&(slot, owner.rank.clone()));
            }
        } else if let Some((next, value)) = pop_waiting(&mut self.waiting, slot) {
            if let Some(holder) = self.owners.id(&next.name) {
                entry.holder = holder;
            }
            let from = std::mem::replace(&mut entry.value, value);
            diff.note(&entry.key, from, &entry.value);
        } else {
            let hash = self.hasher.hash_one(&entry.key);
            if let Ok(found) = self.index.find_entry(hash, |&other| other == slot) {
                found.remove();
            }
            if let Some(entry) = self.entries.remove(slot) {
                diff.removed.push((entry.key, entry.value));
            }
            return;
        }
        entry.shared = waiting_for(&self.waiting, slot).next().is_some();
    }
}

/// Looking up and walking.
impl<K: Hash + Eq, V: Eq> Ledger<K, V> {
    /// How many keys are desired.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Nothing is desired.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The entry of a key.
    pub fn get(&self, key: &K) -> Option<Standing<'_, K, V>> {
        self.standing(self.entries.get(self.find(key)?)?)
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Standing<'_, K, V>> {
        self.entries.iter().filter_map(|entry| self.standing(entry))
    }

    /// The keys that an owner wants, in the order in which it named them, as they stand: it holds an entry,
    /// or waits behind the holder whose value is in force.
    pub fn wanted_by(&self, owner: &ObjectName) -> impl Iterator<Item = Standing<'_, K, V>> {
        self.slots_of(owner)
            .filter_map(|slot| self.standing(self.entries.get(slot)?))
    }

    /// Everybody who wants a key, the holder first, then by seniority.
    pub fn claimants(&self, key: &K) -> impl Iterator<Item = &ObjectName> {
        let slot = self.find(key);
        let holder = slot.and_then(|slot| self.standing(self.entries.get(slot)?));
        let waiting = slot.into_iter().flat_map(|slot| waiting_for(&self.waiting, slot));
        holder
            .map(|standing| standing.holder)
            .into_iter()
            .chain(waiting.map(|(rank, _)| &rank.name))
    }

    /// Every claim that lost to a different value. Costs what is shared, not what is desired.
    pub fn disputes(&self) -> impl Iterator<Item = Dispute<'_, K, V>> {
        self.waiting
            .iter()
            .filter_map(|((slot, rank), wanted)| self.dispute(*slot, rank, wanted))
    }

    /// What an owner wants and does not get, in the order in which it named it.
    pub fn lost_by(&self, owner: &ObjectName) -> impl Iterator<Item = Dispute<'_, K, V>> {
        self.slots_of(owner).filter_map(|slot| {
            if !self.entries.get(slot)?.shared {
                return None;
            }
            let rank = &self.owners.get(self.owners.id(owner)?)?.rank;
            let ((_, rank), wanted) = self.waiting.get_key_value(&(slot, rank.clone()))?;
            self.dispute(slot, rank, wanted)
        })
    }

    fn find(&self, key: &K) -> Option<u32> {
        let same = |&slot: &u32| self.entries.get(slot).is_some_and(|entry| entry.key == *key);
        self.index.find(self.hasher.hash_one(key), same).copied()
    }

    fn slots_of(&self, owner: &ObjectName) -> impl Iterator<Item = u32> {
        let owner = self.owners.id(owner).and_then(|id| self.owners.get(id));
        owner.into_iter().flat_map(|owner| owner.wants.iter().copied())
    }

    fn standing<'a>(&'a self, entry: &'a Entry<K, V>) -> Option<Standing<'a, K, V>> {
        Some(Standing {
            key: &entry.key,
            value: &entry.value,
            holder: &self.owners.get(entry.holder)?.rank.name,
        })
    }

    /// A waiting claim as a dispute, unless it wants what is in force anyway.
    fn dispute<'a>(&'a self, slot: u32, loser: &'a Rank, wanted: &'a V) -> Option<Dispute<'a, K, V>> {
        let Standing { key, value, holder } = self.standing(self.entries.get(slot)?)?;
        (value != wanted).then_some(Dispute {
            key,
            winner: holder,
            in_force: value,
            loser: &loser.name,
            wanted,
        })
    }
}

/// The claims waiting for an entry, the most senior first.
fn waiting_for<V>(waiting: &BTreeMap<(u32, Rank), V>, slot: u32) -> impl Iterator<Item = (&Rank, &V)> {
    waiting
        .range((slot, Rank::most_senior())..)
        .take_while(move |((of, _), _)| *of == slot)
        .map(|((_, rank), value)| (rank, value))
}

/// Takes the most senior claim out of those waiting for an entry.
fn pop_waiting<V>(waiting: &mut BTreeMap<(u32, Rank), V>, slot: u32) -> Option<(Rank, V)> {
    let (rank, _) = waiting_for(waiting, slot).next()?;
    let key = (slot, rank.clone());
    let value = waiting.remove(&key)?;
    Some((key.1, value))
}
