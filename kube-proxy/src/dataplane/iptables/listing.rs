//! The chains that are planned, and those that the programs list, as listings. Writes nothing.
//!
//! The packet counters of nfacct are in the plan wherever the kernel's rules have them, and where there are no rules.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::counters::{Counted, Counter};
use super::entry::{Shared, Table};
use super::fixed::Fixed;
use super::restore::Desired;
use super::saved::{Saved, canonical};
use super::tools::Tools;
use super::{Iptables, State};
use crate::dataplane::CommitError;
use crate::dataplane::leftovers::chains::{Which, is_of_kube_proxy};
use crate::dataplane::listing::{Difference, Listing, Place, differences};
use crate::model::object::Family;

impl Iptables {
    /// What is planned so far.
    pub(super) fn listing(&self) -> Listing {
        let families = self.families.iter().filter(|state| !state.off);
        families
            .flat_map(|state| self.planned(state, Counted::ALL))
            .collect()
    }

    /// How what the programs list differs from what is planned. A family without programs that work is none of this
    /// mode's, unless it is the primary one.
    pub(super) fn compared(&self) -> Result<Vec<Difference>, CommitError> {
        let mut found = Vec::new();
        for state in self.families.iter().filter(|state| !state.off) {
            let tools = match Tools::detect(state.family) {
                Ok(tools) => tools,
                Err(error) if state.family == self.config.primary || error.passes() => {
                    return Err(error.explain());
                }
                Err(_) => continue,
            };
            let mut saved = String::new();
            let listed = tools.save(&mut |line| {
                saved.push_str(line);
                saved.push('\n');
            });
            listed.map_err(|error| error.explain())?;
            let mut held = parsed(state.family, &saved);
            let planned = self.planned(state, counted(&held, &saved));
            keep_ours(&mut held, &planned);
            found.extend(differences(&planned, &held));
        }
        Ok(found)
    }

    fn planned(&self, state: &State, counted: Counted) -> Listing {
        let fixed = Fixed {
            counted,
            ..state.fixed
        };
        let none = BTreeSet::new();
        let desired = Desired {
            fixed: &fixed,
            ..state.desired(&self.ledger, &none)
        };
        parsed(state.family, &desired.full(&Saved::default()).text)
    }
}

/// The counters that rules name; all where there is no chain of ours yet.
fn counted(held: &Listing, saved: &str) -> Counted {
    let absent = |counter: &Counter| !saved.contains(counter.name());
    let absent: Vec<Counter> = Counter::ALL.into_iter().filter(absent).collect();
    match held
        .keys()
        .any(|place| is_of_kube_proxy(&place.table, &place.name))
    {
        true => Counted::ALL.without(&absent),
        false => Counted::ALL,
    }
}

/// What `iptables-restore` reads and `iptables-save` prints.
fn parsed(family: Family, text: &str) -> Listing {
    let mut listing = Listing::new();
    let mut table = "";
    for line in text.lines() {
        let place = |chain: &str| Place::new(family, table, "chain", chain);
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some((chain, policy)) = line.strip_prefix(':').and_then(|line| line.split_once(' ')) {
            let lines = listing.entry(place(chain)).or_default();
            // Of chains with a policy, and of those that all Services share, rules may stand anywhere.
            lines.ordered = policy.starts_with('-') && !is_shared(table, chain);
        } else if let Some((command @ ("-A" | "-I"), rule)) = line.split_once(' ') {
            let (chain, rule) = rule.split_once(' ').unwrap_or((rule, ""));
            let lines = &mut listing.entry(place(chain)).or_default().lines;
            let at = if command == "-A" { lines.len() } else { 0 };
            lines.insert(at, printed(rule));
        }
    }
    listing
}

fn is_shared(table: &str, chain: &str) -> bool {
    let tables = [Table::Mangle, Table::Filter, Table::Nat];
    let table = tables.into_iter().find(|known| known.name() == table);
    table.is_some_and(|table| Shared::by_name(table, chain).is_some())
}

/// Of chains that are others' too, the rules that the plan has and those that lead to chains of ours.
fn keep_ours(held: &mut Listing, planned: &Listing) {
    held.retain(|place, lines| {
        if is_of_kube_proxy(&place.table, &place.name) {
            return true;
        }
        let wanted = planned.get(place).map_or(&[][..], |wanted| &wanted.lines);
        lines.lines.retain(|rule| {
            let target = rule.rsplit_once("-j ").map_or("", |(_, target)| target);
            wanted.contains(rule) || Which::All.is_entered(&place.table, target)
        });
        lines.ordered = false;
        planned.contains_key(place) || !lines.lines.is_empty()
    });
}

/// A rule as programs print it.
fn printed(rule: &str) -> String {
    let mut words: Vec<Cow<'_, str>> = Vec::new();
    let canonical = canonical(rule);
    for word in canonical.split(' ') {
        let mask = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let masks: Option<Vec<u32>> = word.split('/').map(mask).collect();
        let Some(masks) = masks else {
            words.push(word.into());
            continue;
        };
        let option = words.pop().unwrap_or_default();
        let (option, masks) = match (&*option, masks.as_slice()) {
            ("--or-mark", &[bits]) => ("--set-xmark".into(), vec![bits, bits]),
            ("--xor-mark", &[bits]) => ("--set-xmark".into(), vec![bits, 0]),
            _ => (option, masks),
        };
        words.push(option);
        let masks: Vec<String> = masks.iter().map(|mask| format!("{mask:#x}")).collect();
        words.push(masks.join("/").into());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_as_the_programs_print_them() {
        for (written, shown) in [
            (
                "-j MARK --or-mark 0x00004000",
                "-j MARK --set-xmark 0x4000/0x4000",
            ),
            ("-j MARK --xor-mark 0x00004000", "-j MARK --set-xmark 0x4000/0x0"),
            (
                "-m mark ! --mark 0x00004000/0x00004000 -j RETURN",
                "-m mark ! --mark 0x4000/0x4000 -j RETURN",
            ),
            ("-d 10.0.0.1/32 -j X", "-d 10.0.0.1/32 -j X"),
        ] {
            assert_eq!(printed(written), shown);
            assert_eq!(printed(shown), shown);
        }
    }

    #[test]
    fn of_what_others_have_only_what_leads_to_our_chains_is_listed() {
        let parsed = |text| parsed(Family::V4, text);
        let planned =
            parsed("*nat\n:KUBE-SERVICES - [0:0]\n-I OUTPUT -m comment --comment \"x\" -j KUBE-SERVICES\n");
        let mut held = parsed(
            "*nat\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n:OTHERS - [0:0]\n\
             -A OUTPUT -j OTHERS\n-A OUTPUT -m comment --comment \"x\" -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n\
             -A OTHERS -j ACCEPT\n",
        );
        keep_ours(&mut held, &planned);
        let found = differences(&planned, &held);
        let shown: String = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            "- ip nat chain KUBE-SVC-A\n  ip nat chain OUTPUT\n-     -j KUBE-SERVICES\n"
        );
    }
}
