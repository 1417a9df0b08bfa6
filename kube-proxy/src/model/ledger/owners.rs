//! The owners of a ledger: their numbers, their seniority, and which entries each of them wants.

use std::collections::HashMap;
use std::sync::Arc;

use super::slots::Slots;
use crate::model::object::ObjectName;

/// Number of an owner, used again after the owner is gone.
pub(super) type OwnerId = u32;

/// Seniority: the smaller one wins a dispute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Seconds since the Unix epoch; an unknown age counts as youngest.
    created: i64,
    pub(super) name: ObjectName,
}

impl Rank {
    pub(super) fn new(name: &ObjectName, created: Option<i64>) -> Self {
        Self {
            created: created.unwrap_or(i64::MAX),
            name: name.clone(),
        }
    }

    /// Not above any rank.
    pub(super) fn most_senior() -> Self {
        Self {
            created: i64::MIN,
            name: ObjectName::new(Arc::default(), Arc::default()),
        }
    }
}

/// One owner.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) rank: Rank,
    /// Indices of the entries that it wants, in the order in which it named them.
    pub(super) wants: Vec<u32>,
}

/// All owners, found by number or by name.
#[derive(Debug, Default)]
pub(super) struct Owners {
    by_id: Slots<Owner>,
    ids: HashMap<ObjectName, OwnerId>,
}

impl Owners {
    pub(super) fn id(&self, name: &ObjectName) -> Option<OwnerId> {
        self.ids.get(name).copied()
    }

    pub(super) fn get(&self, id: OwnerId) -> Option<&Owner> {
        self.by_id.get(id)
    }

    pub(super) fn get_mut(&mut self, id: OwnerId) -> Option<&mut Owner> {
        self.by_id.get_mut(id)
    }

    /// A new owner, which must not be known yet.
    pub(super) fn insert(&mut self, rank: Rank) -> OwnerId {
        let name = rank.name.clone();
        let id = self.by_id.insert(Owner {
            rank,
            wants: Vec::new(),
        });
        self.ids.insert(name, id);
        id
    }

    pub(super) fn remove(&mut self, id: OwnerId) {
        if let Some(owner) = self.by_id.remove(id) {
            self.ids.remove(&owner.rank.name);
        }
    }
}
