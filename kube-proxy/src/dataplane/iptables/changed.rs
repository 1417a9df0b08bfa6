//! What has to be written because it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::Shared;

/// Up to so many rules of a shared chain are written one by one. Each that is deleted is looked for among all rules of
/// its chain, so beyond that the whole chain is less work.
const MOST_ONE_BY_ONE: usize = 40;

/// The differences between what is in force and what is wanted, in one family.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed {
    /// Chains of Services that are new, other, or gone.
    pub(super) chains: BTreeSet<Arc<str>>,
    pub(super) shared: BTreeMap<Shared, Rules>,
}

/// What changed in a chain that all Services share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// These only: rules of ServicePorts, lines without `-A CHAIN`.
    Some {
        /// In force, not wanted.
        removed: BTreeSet<Arc<str>>,
        /// Wanted, not in force.
        added: BTreeSet<Arc<str>>,
    },
    /// The chain is to be written whole.
    All,
}

impl Changed {
    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.shared.is_empty()
    }

    /// Rules of a ServicePort in a shared chain are wanted now, or no more.
    pub(super) fn rules(&mut self, chain: Shared, rules: Arc<str>, wanted: bool) {
        let changed = self.shared.entry(chain).or_default();
        if let Rules::Some { removed, added } = changed {
            let (here, there) = if wanted {
                (added, removed)
            } else {
                (removed, added)
            };
            // What comes back before it has gone is no change.
            if !there.remove(&rules) {
                here.insert(rules);
            }
            if here.len() + there.len() > MOST_ONE_BY_ONE {
                *changed = Rules::All;
            } else if here.is_empty() && there.is_empty() {
                self.shared.remove(&chain);
            }
        }
    }

    /// All of a shared chain is to be written.
    pub(super) fn whole(&mut self, chain: Shared) {
        self.shared.insert(chain, Rules::All);
    }
}

impl Rules {
    /// These only, or all when they are many.
    pub(super) fn of(removed: BTreeSet<Arc<str>>, added: BTreeSet<Arc<str>>) -> Self {
        match removed.len() + added.len() <= MOST_ONE_BY_ONE {
            true => Self::Some { removed, added },
            false => Self::All,
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(BTreeSet::new(), BTreeSet::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_by_one(changed: &Changed, chain: Shared) -> Option<(Vec<&str>, Vec<&str>)> {
        match changed.shared.get(&chain)? {
            Rules::Some { removed, added } => Some((
                removed.iter().map(|rule| &**rule).collect(),
                added.iter().map(|rule| &**rule).collect(),
            )),
            Rules::All => None,
        }
    }

    #[test]
    fn a_rule_that_goes_and_comes_back_is_no_change_and_many_are_the_whole_chain() {
        let chain = Shared::Services;
        let mut changed = Changed::default();
        changed.rules(chain, "a".into(), false);
        changed.rules(chain, "b".into(), true);
        assert_eq!(one_by_one(&changed, chain), Some((vec!["a"], vec!["b"])));
        changed.rules(chain, "a".into(), true);
        changed.rules(chain, "b".into(), false);
        assert!(changed.is_empty(), "{changed:?}");
        for rule in 0..MOST_ONE_BY_ONE {
            changed.rules(chain, format!("{rule}").into(), true);
        }
        assert!(one_by_one(&changed, chain).is_some());
        changed.rules(chain, "one more".into(), false);
        assert_eq!(changed.shared.get(&chain), Some(&Rules::All));
        changed.rules(chain, "and another".into(), false);
        assert_eq!(changed.shared.get(&chain), Some(&Rules::All));
    }
}
