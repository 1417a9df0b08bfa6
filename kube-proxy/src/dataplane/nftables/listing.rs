//! The tables that are planned, and those that the kernel holds, as listings. Writes nothing.
//!
//! What is remembered of clients is left out: rules write it. In which slots the endpoints of a list are depends on what
//! was there before; where a plan is compared with the kernel, endpoints are in the slots that they have there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use nix::errno::Errno;

use super::chain::Chain;
use super::encode::{Attributes, MessageType, attributes};
use super::entry::{FIRST_LOCAL_SLOT, Key, Value};
use super::failure::unreachable;
use super::kernel::Kernel;
use super::layout::Layout;
use super::listed::{self, Element, find, string};
use super::object::{Carries, Object, user_data};
use super::rules::{ChainRules, Rule};
use super::transaction::{
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_TYPE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_USERDATA, NFTA_SET_NAME,
};
use super::{Nftables, text};
use crate::dataplane::CommitError;
use crate::dataplane::listing::{Difference, Lines, Listing, Place, differences};
use crate::model::object::Family;

/// The kernel's hooks, by their numbers.
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// One table.
#[derive(Debug, Default)]
struct Table {
    sets: BTreeMap<Object, Vec<Element>>,
    chains: BTreeMap<String, Vec<String>>,
    /// Sets and maps of other names than ours.
    others: Vec<String>,
}

impl Nftables {
    /// What is planned so far.
    pub(super) fn listing(&self) -> Listing {
        let tables = self.config.families.iter();
        tables
            .flat_map(|&family| self.planned(family).listing(family, &self.config.table))
            .collect()
    }

    /// How the kernel differs from what is planned.
    pub(super) fn compared(&mut self) -> Result<Vec<Difference>, CommitError> {
        let name = self.config.table.clone();
        let mut found = Vec::new();
        for family in self.config.families.clone() {
            let held = match self.kernel.table_exists(family, &name)? {
                true => held(&mut self.kernel, family, &name)?,
                false => Table::default(),
            };
            let mut planned = self.planned(family);
            for (object, elements) in &mut planned.sets {
                if let Some(there) = held.sets.get(object)
                    && object.has_slots()
                {
                    seat(elements, there);
                }
            }
            found.extend(differences(
                &planned.listing(family, &name),
                &held.listing(family, &name),
            ));
        }
        Ok(found)
    }

    fn planned(&self, family: Family) -> Table {
        let mut entries: Vec<_> = self.ledger.iter().map(|entry| (entry.key, entry.value)).collect();
        entries.retain(|(key, _)| key.family() == family);
        entries.sort_by_key(|(key, _)| *key);
        let mut table = Table {
            sets: Object::ALL.map(|object| (object, Vec::new())).into(),
            ..Table::default()
        };
        for (key, value) in entries {
            let elements = table.sets.entry(key.object()).or_default();
            elements.extend(encoded(key, value));
        }
        let (rules, node_ports) = (self.config.rules(family), self.node_ports.rules(family));
        let needed = self.needed_chains(family);
        let chains = rules.constant_chains(node_ports).into_iter();
        let chains = chains.chain(rules.base_chains(node_ports));
        let chains = chains.chain(needed.into_iter().map(|chain| rules.chain(chain)));
        table.chains = chains
            .map(|chain| (chain.name.clone(), chain_lines(&chain)))
            .collect();
        table
    }

    /// The chains that verdicts go to, and those that these lead to.
    pub(super) fn needed_chains(&self, family: Family) -> BTreeSet<Chain> {
        let mut needed = BTreeSet::new();
        let entries = self.ledger.iter().filter(|entry| entry.key.family() == family);
        let mut next: Vec<Chain> = entries.filter_map(|entry| entry.value.chain()).collect();
        while let Some(chain) = next.pop() {
            if needed.insert(chain) {
                next.extend(chain.leads_to());
            }
        }
        needed
    }
}

/// The elements that a planned one is for the kernel: an interval of one field is two.
fn encoded(key: &Key, value: &Value) -> Vec<Element> {
    let mut bytes = Vec::new();
    key.encode(value, &mut Attributes::at_end(&mut bytes));
    let elements = attributes(&bytes);
    elements.map(|(_, element)| Element::read(element)).collect()
}

fn chain_lines(chain: &ChainRules) -> Vec<String> {
    let hook = chain
        .hook
        .map(|hook| hook_line(hook.kind, hook.number, hook.priority));
    hook.into_iter()
        .chain(chain.rules.iter().map(rule_line))
        .collect()
}

fn hook_line(kind: &str, number: u32, priority: i32) -> String {
    let hook = HOOKS.get(number as usize).unwrap_or(&"?");
    format!("type {kind} hook {hook} priority {priority}")
}

fn rule_line(rule: &Rule) -> String {
    let (mut expressions, mut comment) = (Vec::new(), Vec::new());
    for expr in &rule.exprs {
        expr.encode(&mut Attributes::at_end(&mut expressions));
    }
    if !rule.comment.is_empty() {
        user_data(&mut comment, 0, rule.comment.as_bytes());
    }
    text::rule(&expressions, &comment)
}

/// What the kernel holds.
fn held(kernel: &mut Kernel, family: Family, name: &str) -> Result<Table, CommitError> {
    let failed = |errno: Errno| unreachable(&format!("list table {name} of {family}"), errno);
    let mut table = Table::default();
    let socket = kernel.socket()?;
    let chains = listed::all(socket, MessageType::GetChain, family, name, held_chain);
    table.chains = chains.map_err(failed)?.into_iter().collect();
    let rules = listed::all(socket, MessageType::GetRule, family, name, held_rule);
    for (chain, rule) in rules.map_err(failed)? {
        table.chains.entry(chain).or_default().push(rule);
    }
    let names = listed::all(socket, MessageType::GetSet, family, name, |set| {
        find(set, NFTA_SET_NAME).map(string)
    });
    for set in names.map_err(failed)? {
        match Object::ALL.into_iter().find(|object| object.name() == set) {
            Some(object) => {
                let elements = kernel.elements(family, name, object)?;
                table.sets.insert(object, elements);
            }
            None => table.others.push(set),
        }
    }
    Ok(table)
}

/// The name of a chain, and from where the kernel calls it, if it does.
pub(super) fn held_chain(chain: &[u8]) -> Option<(String, Vec<String>)> {
    let hook = find(chain, NFTA_CHAIN_HOOK).and_then(|hook| {
        let number = |kind| find(hook, kind)?.first_chunk().copied();
        let kind = string(find(chain, NFTA_CHAIN_TYPE)?);
        let (hook, priority) = (u32::from_be_bytes(number(1)?), i32::from_be_bytes(number(2)?));
        Some(hook_line(&kind, hook, priority))
    });
    Some((string(find(chain, NFTA_CHAIN_NAME)?), hook.into_iter().collect()))
}

/// The chain of a rule, and the rule.
pub(super) fn held_rule(rule: &[u8]) -> Option<(String, String)> {
    let comment = find(rule, NFTA_RULE_USERDATA).unwrap_or_default();
    let expressions = find(rule, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    let chain = string(find(rule, NFTA_RULE_CHAIN)?);
    Some((chain, text::rule(expressions, comment)))
}

impl Table {
    fn listing(&self, family: Family, name: &str) -> Listing {
        let layout = Layout::of(family);
        let sets = self.sets.iter().map(|(object, elements)| {
            let kind = match object.carries() {
                Carries::Nothing => "set",
                _ => "map",
            };
            let lines = set_lines(*object, layout, elements);
            let ordered = false;
            (
                Place::new(family, name, kind, object.name()),
                Lines { lines, ordered },
            )
        });
        let chains = self.chains.iter().map(|(chain, lines)| {
            let lines = lines.clone();
            let ordered = true;
            (Place::new(family, name, "chain", chain), Lines { lines, ordered })
        });
        let others = self
            .others
            .iter()
            .map(|set| (Place::new(family, name, "set", set), Lines::default()));
        sets.chain(chains).chain(others).collect()
    }
}

pub(super) fn set_lines(object: Object, layout: &Layout, elements: &[Element]) -> Vec<String> {
    if object.is_written_by_rules() {
        return Vec::new();
    }
    if !object.is_interval() || object.is_concatenation_of_intervals() {
        let lines = elements.iter();
        return lines
            .map(|element| text::element(object, layout, element, &element.last))
            .collect();
    }
    // An interval goes up to the next one, or to where an element says that it ends.
    let mut sorted: Vec<&Element> = elements.iter().collect();
    sorted.sort_by(|one, other| one.key.cmp(&other.key).then(other.is_end.cmp(&one.is_end)));
    let begun = sorted.iter().enumerate().filter(|(_, element)| !element.is_end);
    begun
        .map(|(at, element)| {
            let last = match sorted.get(at + 1) {
                Some(next) => before(&next.key),
                None => vec![0xff; element.key.len()],
            };
            text::element(object, layout, element, &last)
        })
        .collect()
}

/// The number before, of a big-endian one that is not 0.
fn before(number: &[u8]) -> Vec<u8> {
    let mut number = number.to_vec();
    for byte in number.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    number
}

/// Gives the planned endpoints of each list the slots that they have in the kernel, as far as the plan has those slots.
pub(super) fn seat(planned: &mut [Element], held: &[Element]) {
    let mut seats: HashMap<List<'_>, Vec<&Element>> = HashMap::new();
    for element in held {
        if let Some((list, _)) = slot(&element.key) {
            seats.entry(list).or_default().push(element);
        }
    }
    let mut lists: HashMap<(Vec<u8>, bool), Vec<usize>> = HashMap::new();
    for (index, element) in planned.iter().enumerate() {
        if let Some(((frontend, local), _)) = slot(&element.key) {
            lists.entry((frontend.to_vec(), local)).or_default().push(index);
        }
    }
    for ((frontend, local), indices) in lists {
        let Some(seats) = seats.get(&(&*frontend, local)) else {
            continue;
        };
        let slots = indices
            .iter()
            .filter_map(|&index| Some(slot(&planned[index].key)?.1));
        let mut free: BTreeSet<u32> = slots.collect();
        let mut standing = Vec::new();
        for index in indices {
            let same = seats.iter().filter(|seat| seat.value == planned[index].value);
            let mut slots = same.filter_map(|seat| Some(slot(&seat.key)?.1));
            match slots.find(|slot| free.remove(slot)) {
                Some(slot) => sit(&mut planned[index], slot),
                None => standing.push(index),
            }
        }
        for (index, slot) in standing.into_iter().zip(free) {
            sit(&mut planned[index], slot);
        }
    }
}

/// A list of endpoints: whose, and whether it is that of the local ones.
type List<'a> = (&'a [u8], bool);

/// The list that an endpoint is in, and its slot there.
fn slot(key: &[u8]) -> Option<(List<'_>, u32)> {
    let (frontend, slot) = key.split_last_chunk()?;
    let slot = u32::from_ne_bytes(*slot);
    Some(((frontend, slot >= FIRST_LOCAL_SLOT), slot))
}

fn sit(element: &mut Element, slot: u32) {
    let at = element.key.len().saturating_sub(4);
    element.key.truncate(at);
    element.key.extend(slot.to_ne_bytes());
}
