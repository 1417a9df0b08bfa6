use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Changed, Diff, Ledger};
use crate::model::object::ObjectName;

fn name(name: &str) -> ObjectName {
    ObjectName::new("ns", name)
}

fn added<const N: usize>(entries: [(&'static str, u32); N]) -> Diff<&'static str, u32> {
    Diff {
        added: entries.to_vec(),
        ..Diff::default()
    }
}

fn changed(key: &'static str, from: u32, to: u32) -> Diff<&'static str, u32> {
    Diff {
        changed: vec![Changed { key, from, to }],
        ..Diff::default()
    }
}

fn removed<const N: usize>(entries: [(&'static str, u32); N]) -> Diff<&'static str, u32> {
    Diff {
        removed: entries.to_vec(),
        ..Diff::default()
    }
}

fn losers(ledger: &Ledger<&'static str, u32>) -> Vec<(String, String)> {
    let both = |dispute: super::Dispute<'_, _, _>| (dispute.winner.to_string(), dispute.loser.to_string());
    ledger.disputes().map(both).collect()
}

#[test]
fn a_replacement_answers_with_what_it_changed() {
    let mut ledger = Ledger::new();
    let web = name("web");
    assert_eq!(
        ledger.replace(&web, Some(1), [("a", 1), ("b", 2), ("c", 3)]),
        added([("a", 1), ("b", 2), ("c", 3)])
    );
    assert_eq!(
        ledger.replace(&web, Some(1), [("c", 3), ("b", 20), ("d", 4)]),
        Diff {
            added: vec![("d", 4)],
            changed: vec![Changed {
                key: "b",
                from: 2,
                to: 20
            }],
            removed: vec![("a", 1)],
        }
    );
    let wanted: Vec<_> = ledger
        .wanted_by(&web)
        .map(|entry| (*entry.key, *entry.value))
        .collect();
    assert_eq!(wanted, [("c", 3), ("b", 20), ("d", 4)]);
    assert_eq!(ledger.remove(&web), removed([("c", 3), ("b", 20), ("d", 4)]));
    assert!(ledger.is_empty());
}

#[test]
fn replacing_with_the_same_entries_changes_nothing() {
    let mut ledger = Ledger::new();
    let _ = ledger.replace(&name("web"), None, [("a", 1), ("b", 2)]);
    assert!(
        ledger
            .replace(&name("web"), None, [("b", 2), ("a", 1)])
            .is_empty()
    );
}

#[test]
fn a_key_named_twice_counts_with_its_first_value() {
    let mut ledger = Ledger::new();
    assert_eq!(
        ledger.replace(&name("web"), None, [("a", 1), ("a", 2)]),
        added([("a", 1)])
    );
    assert!(
        ledger
            .replace(&name("web"), None, [("a", 1), ("a", 2)])
            .is_empty()
    );
    assert_eq!(ledger.remove(&name("web")), removed([("a", 1)]));
}

#[test]
fn an_entry_that_two_owners_share_goes_with_the_last_of_them() {
    let mut ledger = Ledger::new();
    let _ = ledger.replace(&name("old"), Some(1), [("a", 1)]);
    assert!(ledger.replace(&name("young"), Some(2), [("a", 1)]).is_empty());
    assert_eq!(losers(&ledger), []);
    let claimants: Vec<_> = ledger.claimants(&"a").cloned().collect();
    assert_eq!(claimants, [name("old"), name("young")]);
    assert!(ledger.remove(&name("old")).is_empty());
    assert_eq!(ledger.get(&"a").unwrap().holder, &name("young"));
    assert_eq!(ledger.remove(&name("young")), removed([("a", 1)]));
}

#[test]
fn the_oldest_owner_wins_whoever_came_first() {
    let mut ledger = Ledger::new();
    let _ = ledger.replace(&name("young"), Some(2), [("a", 2)]);
    assert_eq!(
        ledger.replace(&name("old"), Some(1), [("a", 1)]),
        changed("a", 2, 1)
    );
    assert!(ledger.replace(&name("ageless"), None, [("a", 3)]).is_empty());
    assert_eq!(
        losers(&ledger),
        [
            ("ns/old".to_owned(), "ns/young".to_owned()),
            ("ns/old".to_owned(), "ns/ageless".to_owned())
        ]
    );
    let lost: Vec<_> = ledger
        .lost_by(&name("young"))
        .map(|d| (*d.key, d.winner.clone(), *d.wanted))
        .collect();
    assert_eq!(lost, [("a", name("old"), 2)]);
    assert_eq!(ledger.lost_by(&name("old")).count(), 0);
    assert_eq!(ledger.remove(&name("old")), changed("a", 1, 2));
    assert_eq!(ledger.remove(&name("young")), changed("a", 2, 3));
}

#[test]
fn equal_age_is_settled_by_the_smaller_name() {
    let mut ledger = Ledger::new();
    let _ = ledger.replace(&name("b"), None, [("k", 2)]);
    assert_eq!(ledger.replace(&name("a"), None, [("k", 1)]), changed("k", 2, 1));
    assert!(
        ledger
            .replace(&ObjectName::new("o", "a"), None, [("k", 3)])
            .is_empty()
    );
    assert_eq!(ledger.get(&"k").unwrap().holder, &name("a"));
}

#[test]
fn a_loser_that_changes_its_mind_changes_nothing_in_force() {
    let mut ledger = Ledger::new();
    let _ = ledger.replace(&name("old"), Some(1), [("a", 1)]);
    let _ = ledger.replace(&name("young"), Some(2), [("a", 2)]);
    assert!(ledger.replace(&name("young"), Some(2), [("a", 3)]).is_empty());
    assert_eq!(ledger.replace(&name("old"), Some(1), [("b", 1)]).changed[0].to, 3);
    assert!(losers(&ledger).is_empty());
}

#[test]
fn an_owner_made_again_under_its_name_takes_its_new_rank() {
    let mut ledger = Ledger::new();
    let _ = ledger.replace(&name("web"), Some(1), [("a", 1)]);
    let _ = ledger.replace(&name("api"), Some(2), [("a", 2)]);
    // The holder is made again and now younger than the one that waits.
    assert_eq!(
        ledger.replace(&name("web"), Some(3), [("a", 1)]),
        changed("a", 1, 2)
    );
    // The one that waits now is made again and older again.
    assert_eq!(
        ledger.replace(&name("web"), Some(0), [("a", 1)]),
        changed("a", 2, 1)
    );
    // It gives up a key under yet another age.
    assert_eq!(ledger.replace(&name("web"), Some(9), [("b", 1)]).changed[0].to, 2);
    assert_eq!(ledger.claimants(&"a").count(), 1);
    assert_eq!(ledger.remove(&name("api")), removed([("a", 2)]));
}

/// What the ledger must be like, done the plain way: every owner's wishes, settled from scratch.
#[derive(Clone, Debug, Default)]
struct Plain(BTreeMap<u8, (Option<i64>, BTreeMap<u8, u8>)>);

impl Plain {
    /// Value and holder of every key.
    fn in_force(&self) -> BTreeMap<u8, (u8, u8)> {
        let mut wishes: Vec<_> = self.0.iter().collect();
        wishes.sort_by_key(|(owner, (created, _))| (created.is_none(), *created, **owner));
        let mut all = BTreeMap::new();
        for (owner, (_, wanted)) in wishes {
            for (key, value) in wanted {
                all.entry(*key).or_insert((*value, *owner));
            }
        }
        all
    }

    /// Key, loser and wanted value of every claim that lost to a different value.
    fn lost(&self) -> Vec<(u8, u8, u8)> {
        let in_force = self.in_force();
        let claims = self
            .0
            .iter()
            .flat_map(|(owner, (_, wanted))| wanted.iter().map(move |(key, value)| (*key, *owner, *value)));
        let mut lost: Vec<_> = claims
            .filter(|(key, _, value)| in_force[key].0 != *value)
            .collect();
        lost.sort_unstable();
        lost
    }
}

fn owner_name(owner: u8) -> ObjectName {
    ObjectName::new("ns", owner.to_string())
}

fn owner_of(name: &ObjectName) -> u8 {
    name.name.parse().unwrap()
}

type Replacement = (u8, Option<i64>, Vec<(u8, u8)>);

fn replacement() -> impl Strategy<Value = Replacement> {
    let wanted = prop::collection::vec((0..8u8, 0..3u8), 0..6);
    (0..6u8, prop::option::of(0..3i64), wanted)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_what_settling_all_wishes_from_scratch_gives(
        replacements in prop::collection::vec(replacement(), 1..24)
    ) {
        let mut ledger: Ledger<u8, u8> = Ledger::new();
        let mut plain = Plain::default();
        for (owner, created, wanted) in replacements {
            let before = plain.in_force();
            let diff = ledger.replace(&owner_name(owner), created, wanted.iter().copied());
            let mut wishes = BTreeMap::new();
            for (key, value) in wanted {
                wishes.entry(key).or_insert(value);
            }
            plain.0.remove(&owner);
            if !wishes.is_empty() {
                plain.0.insert(owner, (created, wishes));
            }
            let after = plain.in_force();

            // The difference leads from before to after, and names each key once.
            let mut state: BTreeMap<u8, u8> = before.iter().map(|(key, (value, _))| (*key, *value)).collect();
            for (key, value) in diff.removed {
                prop_assert_eq!(state.remove(&key), Some(value));
            }
            for Changed { key, from, to } in diff.changed {
                prop_assert_ne!(from, to);
                prop_assert_eq!(state.insert(key, to), Some(from));
            }
            for (key, value) in diff.added {
                prop_assert_eq!(state.insert(key, value), None);
            }
            let wanted_state: BTreeMap<u8, u8> = after.iter().map(|(key, (value, _))| (*key, *value)).collect();
            prop_assert_eq!(state, wanted_state);

            // The walk, the look-up and the disputes say the same.
            let walked: BTreeMap<u8, (u8, u8)> =
                ledger.iter().map(|entry| (*entry.key, (*entry.value, owner_of(entry.holder)))).collect();
            prop_assert_eq!(&walked, &after);
            prop_assert_eq!(ledger.len(), after.len());
            let contested: BTreeSet<u32> = ledger.waiting.keys().map(|(slot, _)| *slot).collect();
            let shared = ledger.entries.iter().filter(|entry| entry.shared);
            prop_assert_eq!(shared.count(), contested.len());
            let mut disputes: Vec<_> =
                ledger.disputes().map(|d| (*d.key, owner_of(d.loser), *d.wanted)).collect();
            disputes.sort_unstable();
            prop_assert_eq!(disputes, plain.lost());
            for (owner, (_, wishes)) in &plain.0 {
                let wanted: BTreeMap<u8, u8> = ledger
                    .wanted_by(&owner_name(*owner))
                    .map(|entry| (*entry.key, *entry.value))
                    .collect();
                let expected: BTreeMap<u8, u8> = wishes.keys().map(|key| (*key, after[key].0)).collect();
                prop_assert_eq!(wanted, expected);
            }
        }
        for owner in 0..6 {
            let _ = ledger.remove(&owner_name(owner));
        }
        prop_assert!(ledger.is_empty());
        prop_assert_eq!(ledger.waiting.len(), 0);
    }
}
