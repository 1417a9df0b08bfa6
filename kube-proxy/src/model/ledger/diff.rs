//! What a ledger answers: differences, standings, disputes.

use crate::model::object::ObjectName;

/// What a replacement changed in the desired state. A key is in at most one of the lists.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the difference has to reach whatever follows the ledger"]
pub struct Diff<K, V> {
    /// Keys that nobody wanted before, in the order in which the owner names them.
    pub added: Vec<(K, V)>,
    /// Keys whose value in force is another now: the owner wants another value, won the key, or left it to
    /// the next in line.
    pub changed: Vec<Changed<K, V>>,
    /// Keys that nobody wants any more, with the value that was in force.
    pub removed: Vec<(K, V)>,
}

/// A key whose value in force changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<K, V> {
    /// The key.
    pub key: K,
    /// The value that was in force.
    pub from: V,
    /// The value that is in force now.
    pub to: V,
}

impl<K, V> Default for Diff<K, V> {
    fn default() -> Self {
        Self {
            added: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl<K, V> Diff<K, V> {
    /// Nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Notes the value in force of a key, if it is another than it was.
    pub(super) fn note(&mut self, key: &K, from: V, to: &V)
    where
        K: Clone,
        V: Clone + PartialEq,
    {
        if from != *to {
            self.changed.push(Changed {
                key: key.clone(),
                from,
                to: to.clone(),
            });
        }
    }
}

/// A key as it stands in the ledger.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// The value in force.
    pub value: &'a V,
    /// The owner whose value is in force; others may want the same.
    pub holder: &'a ObjectName,
}

/// A key that an owner wants and does not get as it wants it.
#[derive(Debug, PartialEq, Eq)]
pub struct Dispute<'a, K, V> {
    /// The contested key.
    pub key: &'a K,
    /// The owner whose value is in force: the oldest one.
    pub winner: &'a ObjectName,
    /// The value in force.
    pub in_force: &'a V,
    /// The owner that wants another value.
    pub loser: &'a ObjectName,
    /// The value it wants.
    pub wanted: &'a V,
}
