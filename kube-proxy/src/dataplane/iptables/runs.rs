//! What has to be written of a large cluster, in runs of the program that are quick: before all the rest, chains that no
//! packet meets yet, or that hold what they held. Pure.
//!
//! With many chains most of the time is spent in `iptables-restore` itself, which looks for each name that it reads in
//! lists of all those that it has read: of the nf_tables variant in one commit, in order, and of both variants in one
//! run. So a commit and a run have only so many chains, and in an order that makes searches short. Commits cost, too: at
//! each one the kernel walks all chains of the table, and the legacy variant replaces the whole table. What belongs to
//! one Service is in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Key, Shared, Table, Value};
use super::name::is_of_an_endpoint;
use super::restore::{Desired, Restore};
use super::saved::Saved;
use super::tools::Variant;
use crate::model::ledger::Standing;

/// How many chains of Services are written at once.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// In one commit.
    commit: usize,
    /// In one run of the program.
    run: usize,
}

impl Sizes {
    fn of(variant: Variant) -> Self {
        match variant {
            Variant::Nft => Self {
                commit: 500,
                run: 8_000,
            },
            Variant::Legacy => Self {
                commit: 40_000,
                run: 40_000,
            },
        }
    }
}

/// Rules of a shared chain in one commit.
const RULES_IN_COMMIT: usize = 200;

/// Chains that are written in one commit.
type Portion<'a> = Vec<Standing<'a, Key, Value>>;

/// One run of the program, and what holds once it has ended well.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) restore: Restore,
    chains: Vec<&'a Arc<str>>,
    shared: Vec<(Shared, Vec<String>)>,
}

impl Run<'_> {
    /// It has ended well.
    pub(super) fn note(self, saved: &mut Saved) {
        saved.were_written(self.chains);
        for (chain, rules) in self.shared {
            saved.was_written(chain, rules);
        }
    }
}

impl<'a> Desired<'a> {
    /// The runs that come before [`Desired::full`] writes what is left; each is put into words when it is asked for.
    /// None when there is little to write.
    pub(super) fn runs(&self, saved: &Saved, variant: Variant) -> impl Iterator<Item = Run<'a>> + use<'a> {
        self.runs_of(saved, variant, Sizes::of(variant))
    }

    fn runs_of(
        &self,
        saved: &Saved,
        variant: Variant,
        sizes: Sizes,
    ) -> impl Iterator<Item = Run<'a>> + use<'a> {
        let desired = *self;
        let portions = group(self.unwritten_services(saved), sizes.commit, Vec::len).into_iter();
        let mut portions: Vec<Portion<'a>> = portions
            .map(|services| services.into_iter().flatten().collect())
            .collect();
        // Shared chains are filled bit by bit only while nothing leads to them.
        let fills = variant == Variant::Nft && portions.len() > 1 && saved.is_out_of_force();
        if !fills {
            // The last one goes with all the rest.
            portions.pop();
        }
        let runs = group(portions, sizes.run, Vec::len).into_iter().enumerate();
        let runs = runs.map(move |(number, portions)| desired.run(&portions, variant, number == 0));
        let fill = fills.then_some(()).into_iter();
        runs.chain(fill.map(move |()| desired.shared_run()))
    }

    /// The chains that are not there as they are wanted, by Service.
    fn unwritten_services(&self, saved: &Saved) -> Vec<Portion<'a>> {
        let mut services: BTreeMap<_, Portion<'a>> = BTreeMap::new();
        for entry in self.entries() {
            if let Key::Chain(_, name) = entry.key
                && !saved.is_as_wanted(name)
            {
                services.entry(entry.holder).or_default().push(entry);
            }
        }
        services.into_values().collect()
    }

    fn run(&self, portions: &[Portion<'a>], variant: Variant, is_first: bool) -> Run<'a> {
        let mut restore = Restore::default();
        if is_first {
            // Rules of endpoints lead to one of these.
            let fixed = self.fixed.chains(Table::Nat);
            restore.table(Table::Nat);
            fixed.iter().for_each(|(chain, _)| restore.chain(chain));
            for (chain, rules) in &fixed {
                restore.rules(Table::Nat, chain, rules.iter().map(String::as_str));
            }
            restore.commit();
            // They will be written again.
            restore.written.clear();
        }
        let mut chains = Vec::new();
        for portion in portions {
            let mut named: Vec<_> = portion.iter().filter_map(named).collect();
            named.sort_unstable_by_key(|(name, _)| *name);
            restore.table(Table::Nat);
            match variant {
                Variant::Nft => in_falling_order(&named, &mut restore),
                Variant::Legacy => in_rising_order(&named, &mut restore),
            }
            restore.commit();
            chains.extend(named.iter().map(|(name, _)| *name));
        }
        Run {
            restore,
            chains,
            shared: Vec::new(),
        }
    }

    /// Fills the shared chains of the nat table, which nothing leads to yet.
    fn shared_run(&self) -> Run<'a> {
        let of_nat = || {
            Shared::ALL
                .into_iter()
                .filter(|chain| chain.table() == Table::Nat)
        };
        let mut restore = Restore::default();
        restore.table(Table::Nat);
        of_nat().for_each(|chain| restore.chain(chain.name()));
        restore.commit();
        let mut shared = Vec::new();
        for chain in of_nat() {
            let mut written = Vec::new();
            let all: Vec<_> = self.rules_in(chain).collect();
            for some in all.chunks(RULES_IN_COMMIT) {
                restore.table(Table::Nat);
                for (holder, rules) in some {
                    let rules: Vec<&str> = self.fixed.counted.rules(rules).collect();
                    restore.blame(Some(holder));
                    restore.rules(Table::Nat, chain.name(), rules.iter().copied());
                    written.extend(rules.into_iter().map(str::to_owned));
                }
                restore.commit();
            }
            let last = self.fixed.last_rules(chain, self.node_ports);
            restore.table(Table::Nat);
            restore.rules(Table::Nat, chain.name(), last.iter().map(String::as_str));
            restore.commit();
            written.extend(last);
            shared.push((chain, written));
        }
        Run {
            restore,
            chains: Vec::new(),
            shared,
        }
    }
}

/// Puts things that follow each other together as long as they have no more than so many parts.
fn group<T>(things: Vec<T>, most: usize, parts: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let mut size = 0;
    for thing in things {
        let more = parts(&thing);
        match groups.last_mut().filter(|_| size + more <= most) {
            Some(group) => {
                size += more;
                group.push(thing);
            }
            None => {
                size = more;
                groups.push(vec![thing]);
            }
        }
    }
    groups
}

type Named<'a, 'b> = (&'a Arc<str>, &'b Standing<'a, Key, Value>);

fn named<'a, 'b>(entry: &'b Standing<'a, Key, Value>) -> Option<Named<'a, 'b>> {
    match entry.key {
        Key::Chain(_, name) => Some((name, entry)),
        Key::Rules(..) => None,
    }
}

/// The nf_tables variant keeps the names of a commit in a sorted list and begins each search at its smallest. What others
/// lead to comes first; an endpoint's chain and its rules stand together.
fn in_falling_order(chains: &[Named<'_, '_>], restore: &mut Restore) {
    let (endpoints, others): (Vec<Named<'_, '_>>, Vec<_>) =
        chains.iter().rev().partition(|(name, _)| is_of_an_endpoint(name));
    for chain in &endpoints {
        restore.chain(chain.0);
        rules(chain, restore);
    }
    others.iter().for_each(|(name, _)| restore.chain(name));
    others.iter().for_each(|chain| rules(chain, restore));
}

/// The legacy variant sorts chains itself, and is quickest with what comes sorted.
fn in_rising_order(chains: &[Named<'_, '_>], restore: &mut Restore) {
    chains.iter().for_each(|(name, _)| restore.chain(name));
    chains.iter().for_each(|chain| rules(chain, restore));
}

fn rules((name, entry): &Named<'_, '_>, restore: &mut Restore) {
    restore.blame(Some(entry.holder));
    restore.rules(Table::Nat, name, entry.value.lines());
}

/// Removes chains that nobody wants. They are emptied first, because one may lead to the other.
pub(super) fn removal(stale: &BTreeSet<String>, variant: Variant) -> Vec<Restore> {
    let sizes = Sizes::of(variant);
    let falling: Vec<&str> = stale.iter().rev().map(String::as_str).collect();
    let leading: Vec<&str> = falling
        .iter()
        .copied()
        .filter(|name| !is_of_an_endpoint(name))
        .collect();
    let emptied = leading.chunks(sizes.commit).map(|chains| (chains, false));
    let deleted = falling.chunks(sizes.commit).map(|chains| (chains, true));
    let runs = group(emptied.chain(deleted).collect(), sizes.run, |(chains, _)| {
        chains.len()
    });
    let restore = |commits: &Vec<(&[&str], bool)>| {
        let mut restore = Restore::default();
        for (chains, deleted) in commits {
            restore.table(Table::Nat);
            for chain in *chains {
                restore.chain(chain);
                if *deleted {
                    restore.delete_chain(chain);
                }
            }
            restore.commit();
        }
        restore
    };
    runs.iter().map(restore).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::iptables::name::belongs_to_a_service;
    use crate::dataplane::iptables::tests::{config, planned};
    use crate::dataplane::iptables::walk::Tables;
    use crate::model::object::Family;
    use crate::model::testing::{service, slice};

    #[test]
    fn what_is_grouped_keeps_its_order_and_its_bounds() {
        let grouped = group(vec![3, 3, 5, 1, 9, 1], 6, |parts| *parts);
        assert_eq!(grouped, [vec![3, 3], vec![5, 1], vec![9], vec![1]]);
        assert!(group(Vec::<usize>::new(), 6, |parts| *parts).is_empty());
    }

    /// Forty Services with all kinds of chains, on a node that no kube-proxy has touched, and then on one that has some
    /// of it.
    #[test]
    fn runs_and_what_is_left_write_what_one_restore_would_and_lead_nowhere_before_it_is_there() {
        let services: Vec<_> = (1..40)
            .map(|n| {
                let ports = format!("http/TCP:80:{}", 30_000 + n);
                let service = service(&format!("ns/web-{n}"), &format!("10.96.0.{n}"), &ports);
                service
                    .with_load_balancer(&format!("203.0.113.{n}"))
                    .with_source_ranges("192.0.2.0/24")
            })
            .collect();
        let slices: Vec<_> = (1..40)
            .map(|n| {
                let endpoints = [format!("10.244.1.{n} local"), format!("10.244.2.{n}")];
                let endpoints = endpoints.each_ref().map(String::as_str);
                slice(
                    &format!("ns/web-{n}-1"),
                    &format!("web-{n}"),
                    "http/TCP:8080",
                    &endpoints,
                )
            })
            .collect();
        let dataplane = planned(config(), &services, &slices);
        let none = BTreeSet::new();
        let desired = dataplane.families[0].desired(&dataplane.ledger, &none);
        let mut at_once = Tables::new(Family::V4);
        at_once.restore(&desired.full(&Saved::default()).text).unwrap();
        for variant in [Variant::Nft, Variant::Legacy] {
            let sizes = Sizes { commit: 15, run: 40 };
            let mut tables = Tables::new(Family::V4);
            let mut saved = Saved::default();
            let runs: Vec<_> = desired.runs_of(&saved, variant, sizes).collect();
            assert!(runs.len() > 4, "{variant:?}: {}", runs.len());
            for run in runs {
                tables.restore(&run.restore.text).unwrap();
                assert!(tables.compared(&desired).is_out_of_force(), "{variant:?}");
                run.note(&mut saved);
            }
            tables.restore(&desired.full(&saved).text).unwrap();
            assert_eq!(tables, at_once, "{variant:?}");

            // A successor finds everything in force, half of it as it was wanted once.
            let mut tables = at_once.clone();
            tables
                .restore(&a_rule_more_in_every_second_chain(&tables))
                .unwrap();
            let mut saved = tables.compared(&desired);
            let runs: Vec<_> = desired.runs_of(&saved, variant, sizes).collect();
            assert!(runs.len() > 1, "{variant:?}");
            for run in runs {
                assert_eq!(run.shared, [], "{variant:?}: what is in force is not emptied");
                tables.restore(&run.restore.text).unwrap();
                assert!(!tables.compared(&desired).is_out_of_force(), "{variant:?}");
                run.note(&mut saved);
            }
            tables.restore(&desired.full(&saved).text).unwrap();
            assert_eq!(tables, at_once, "{variant:?}");
        }
    }

    /// What another hand might tell `iptables-restore`.
    fn a_rule_more_in_every_second_chain(tables: &Tables) -> String {
        let saved = tables.save();
        let chains = saved.lines().filter_map(|line| line.strip_prefix(":KUBE-S"));
        let names = chains
            .filter_map(|chain| chain.split_once(' '))
            .map(|(name, _)| name);
        let of_services = names.filter(|name| belongs_to_a_service(&format!("KUBE-S{name}")));
        let rules: String = of_services
            .step_by(2)
            .map(|name| format!("-A KUBE-S{name} -j ACCEPT\n"))
            .collect();
        format!("*nat\n{rules}COMMIT\n")
    }

    #[test]
    fn chains_that_nobody_wants_are_all_empty_before_the_first_of_them_goes() {
        let stale: BTreeSet<String> = (0..Sizes::of(Variant::Nft).commit)
            .flat_map(|n| [format!("KUBE-SVC-{n:016}"), format!("KUBE-SEP-{n:016}")])
            .collect();
        let texts: Vec<String> = removal(&stale, Variant::Nft)
            .into_iter()
            .map(|run| run.text)
            .collect();
        let text = texts.concat();
        let (emptied, deleted) = text.split_once("COMMIT\n").unwrap();
        let count = |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(
            (count(emptied, ":KUBE-SVC-"), count(emptied, "-X")),
            (stale.len() / 2, 0)
        );
        assert_eq!(count(deleted, "-X"), stale.len());
        assert!(removal(&BTreeSet::new(), Variant::Nft).is_empty());
    }
}
