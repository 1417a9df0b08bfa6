//! What is in the kernel, as `iptables-save` lists it, compared with what is wanted while it is read: of half a million
//! lines hardly one has to be kept when all is as it should be. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::Lines;
use std::sync::Arc;

use super::changed::Rules;
use super::entry::{Key, Shared, Table};
use super::name::belongs_to_a_service;
use super::restore::Desired;

/// What there is, as far as it matters for what has to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved {
    /// Chains that no Service had.
    chains: BTreeSet<(Table, String)>,
    /// Rules outside of the chains of Services that name a chain of ours: `CHAIN RULE`.
    rules: BTreeSet<(Table, String)>,
    /// The rules of chains that all Services share.
    shared: BTreeMap<Shared, Vec<String>>,
    /// Chains of Services that hold what is wanted.
    as_wanted: HashSet<Arc<str>>,
    /// Chains that a Service had and nobody wants.
    stale: BTreeSet<String>,
}

impl Saved {
    pub(super) fn has_chain(&self, table: Table, chain: &str) -> bool {
        self.chains.contains(&(table, chain.to_owned()))
    }

    pub(super) fn has_rule(&self, table: Table, chain: &str, rule: &str) -> bool {
        self.rules.contains(&(table, format!("{chain} {rule}")))
    }

    /// A chain of a Service holds what is wanted.
    pub(super) fn is_as_wanted(&self, chain: &str) -> bool {
        self.as_wanted.contains(chain)
    }

    /// These chains hold what is wanted by now.
    pub(super) fn were_written<'a>(&mut self, chains: impl IntoIterator<Item = &'a Arc<str>>) {
        self.as_wanted.extend(chains.into_iter().cloned());
    }

    /// A shared chain has these rules by now.
    pub(super) fn was_written(&mut self, chain: Shared, rules: Vec<String>) {
        self.chains.insert((chain.table(), chain.name().to_owned()));
        self.shared.insert(chain, rules);
    }

    /// Chains that a Service had and nobody wants.
    pub(super) fn stale(&self) -> &BTreeSet<String> {
        &self.stale
    }

    /// No rule leads to the chain in which all addresses are looked up, so no packet meets what Services have.
    pub(super) fn is_out_of_force(&self) -> bool {
        let leads = |rule: &str| rule.ends_with("-j KUBE-SERVICES") || rule.ends_with("-g KUBE-SERVICES");
        !self
            .rules
            .iter()
            .any(|(table, rule)| *table == Table::Nat && leads(rule))
    }

    /// How a shared chain differs from these rules, of ServicePorts and at the end; `None`: in nothing. Where rules of
    /// ServicePorts stand is nobody's business.
    pub(super) fn difference(&self, chain: Shared, wanted: &[&str], last: &[String]) -> Option<Rules> {
        let there = self.shared.get(&chain).into_iter().flatten();
        let there: Vec<Cow<'_, str>> = there.map(|rule| canonical(rule)).collect();
        let first_of_last = there.len().checked_sub(last.len());
        let Some(first_of_last) = first_of_last.filter(|_| self.has_chain(chain.table(), chain.name()))
        else {
            return Some(Rules::All);
        };
        let (there, end) = there.split_at(first_of_last);
        let found: HashSet<&str> = there.iter().map(|rule| &**rule).collect();
        let ends_well = end.iter().zip(last).all(|(there, wanted)| there == wanted);
        if !ends_well || found.len() < there.len() {
            return Some(Rules::All);
        }
        let wanted: HashSet<&str> = wanted.iter().copied().collect();
        let but = |these: &HashSet<&str>, those: &HashSet<&str>| {
            these.difference(those).map(|rule| Arc::from(*rule)).collect()
        };
        let (removed, added): (BTreeSet<_>, BTreeSet<_>) = (but(&found, &wanted), but(&wanted, &found));
        (!removed.is_empty() || !added.is_empty()).then(|| Rules::of(removed, added))
    }
}

/// Reads a listing line by line.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    /// The chains of Services.
    wanted: HashMap<&'a str, (&'a Arc<str>, &'a str)>,
    saved: Saved,
    table: Option<Table>,
    reading: Option<Reading<'a>>,
}

/// A chain whose rules are being read.
#[derive(Debug)]
struct Reading<'a> {
    chain: &'a Arc<str>,
    /// Its rules that are yet to come.
    left: Lines<'a>,
    as_wanted: bool,
}

impl<'a> Comparison<'a> {
    pub(super) fn with(desired: &Desired<'a>) -> Self {
        let wanted = desired.entries().filter_map(|entry| match entry.key {
            Key::Chain(_, name) => Some((&**name, (name, &**entry.value))),
            Key::Rules(..) => None,
        });
        Self {
            wanted: wanted.collect(),
            saved: Saved::default(),
            table: None,
            reading: None,
        }
    }

    pub(super) fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix('*') {
            let known = [Table::Mangle, Table::Filter, Table::Nat];
            self.table = known.into_iter().find(|table| table.name() == name);
            return;
        }
        let Some(table) = self.table else {
            return;
        };
        if let Some((chain, _)) = line.strip_prefix(':').and_then(|line| line.split_once(' ')) {
            self.chain(table, chain);
        } else if let Some(rule) = line.strip_prefix("-A ") {
            self.rule(table, rule);
        }
    }

    fn chain(&mut self, table: Table, chain: &str) {
        if table != Table::Nat || !belongs_to_a_service(chain) {
            self.saved.chains.insert((table, chain.to_owned()));
        } else if !self.wanted.contains_key(chain) {
            self.saved.stale.insert(chain.to_owned());
        }
    }

    fn rule(&mut self, table: Table, line: &str) {
        let (chain, rule) = line.split_once(' ').unwrap_or((line, ""));
        if table == Table::Nat && belongs_to_a_service(chain) {
            if self
                .reading
                .as_ref()
                .is_none_or(|reading| **reading.chain != *chain)
            {
                self.finish_chain();
                self.reading = self.wanted.get(chain).map(|(chain, rules)| Reading {
                    chain,
                    left: rules.lines(),
                    as_wanted: true,
                });
            }
            if let Some(reading) = &mut self.reading {
                let wanted = reading.left.next();
                reading.as_wanted &= wanted.is_some_and(|wanted| is_same(rule, wanted));
            }
        } else if let Some(shared) = Shared::by_name(table, chain) {
            self.saved.shared.entry(shared).or_default().push(rule.to_owned());
        } else if line.contains("KUBE-") {
            self.saved.rules.insert((table, line.to_owned()));
        }
    }

    fn finish_chain(&mut self) {
        if let Some(mut reading) = self.reading.take()
            && reading.as_wanted
            && reading.left.next().is_none()
        {
            self.saved.as_wanted.insert(Arc::clone(reading.chain));
        }
    }

    /// It was all.
    pub(super) fn end(mut self) -> Saved {
        self.finish_chain();
        self.saved
    }
}

fn is_same(printed: &str, wanted: &str) -> bool {
    printed == wanted || canonical(printed) == canonical(wanted)
}

/// A rule so that two that do the same are the same text, whether we wrote it or a program printed it. When that fails,
/// a chain is written once more, and no harm is done.
pub(super) fn canonical(rule: &str) -> Cow<'_, str> {
    const PROBABILITY: &str = "--probability ";
    let mut rule = Cow::Borrowed(rule);
    if let Some(at) = rule.find(PROBABILITY) {
        // The kernel has it as a fraction of 2^31, and it is printed with one digit more than we write.
        let digits = at + PROBABILITY.len();
        let end = rule[digits..]
            .find(' ')
            .map_or(rule.len(), |space| digits + space);
        if let Ok(given) = rule[digits..end].parse::<f64>() {
            let in_kernel = (given * f64::from(1_u32 << 31)).round();
            rule = Cow::Owned(format!("{}{in_kernel}{}", &rule[..digits], &rule[end..]));
        }
    }
    for (printed, written) in [
        ("--nfacct-name  ", "--nfacct-name "),
        (" --mask 255.255.255.255 --rsource", ""),
        (" --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource", ""),
    ] {
        if rule.contains(printed) {
            rule = Cow::Owned(rule.replacen(printed, written, 1));
        }
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_do_the_same_are_the_same() {
        for (printed, written) in [
            (
                "-m statistic --mode random --probability 0.33333333349 -j X",
                "-m statistic --mode random --probability 0.3333333333 -j X",
            ),
            (
                "-m recent --set --name X --mask 255.255.255.255 --rsource -m tcp",
                "-m recent --set --name X -m tcp",
            ),
            (
                "-m nfacct --nfacct-name  x -j Y",
                "-m nfacct --nfacct-name x -j Y",
            ),
        ] {
            assert_eq!(canonical(printed), canonical(written));
        }
        assert_ne!(
            canonical("--probability 0.5 -j X"),
            canonical("--probability 0.25 -j X")
        );
    }

    #[test]
    fn a_shared_chain_is_compared_rule_by_rule_and_its_end_is_its_end() {
        let last = ["-j KUBE-NODEPORTS".to_owned()];
        let difference = |there: &[&str], wanted: &[&str]| {
            let mut saved = Saved::default();
            saved.was_written(
                Shared::Services,
                there.iter().map(|&rule| rule.to_owned()).collect(),
            );
            saved.difference(Shared::Services, wanted, &last)
        };
        let set = |rules: &[&str]| rules.iter().map(|&rule| Arc::from(rule)).collect();
        let (a, b, c) = ("-d 10.0.0.1 -j A", "-d 10.0.0.2 -j B", "-d 10.0.0.3 -j C");
        assert_eq!(difference(&[b, a, &last[0]], &[a, b]), None);
        assert_eq!(
            difference(&[a, b, &last[0]], &[a, c]),
            Some(Rules::of(set(&[b]), set(&[c])))
        );
        for there in [&[][..], &[a], &[&last[0], a], &[a, a, &last[0]]] {
            assert_eq!(difference(there, &[a]), Some(Rules::All), "{there:?}");
        }
        let all = Some(Rules::All);
        assert_eq!(Saved::default().difference(Shared::Services, &[a], &last), all);
        assert_eq!(
            Saved::default().difference(Shared::NodePorts, &[], &[]),
            all,
            "no chain"
        );
    }
}
