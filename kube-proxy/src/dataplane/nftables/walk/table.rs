//! What is planned for one family, as the kernel would hold it: chains by name, hooks in order, filled sets.

use std::collections::HashMap;

use anyhow::{Context, bail};

use super::set::Set;
use crate::dataplane::nftables::Nftables;
use crate::dataplane::nftables::layout::Layout;
use crate::dataplane::nftables::object::Object;
use crate::dataplane::nftables::rules::{ChainRules, Hook};
use crate::model::object::Family;

/// See the module's text.
#[derive(Debug)]
pub(in crate::dataplane) struct Table {
    pub(super) family: Family,
    chains: HashMap<String, ChainRules>,
    /// The chains that the kernel calls, in order of their priorities.
    hooks: Vec<(Hook, ChainRules)>,
    sets: HashMap<&'static str, Set>,
}

impl Table {
    /// What a dataplane has planned so far, whether it is in force or not.
    ///
    /// # Errors
    /// When an element does not fit the set that it is in.
    pub(in crate::dataplane) fn planned(dataplane: &Nftables, family: Family) -> anyhow::Result<Self> {
        let layout = Layout::of(family);
        let mut sets = HashMap::new();
        for object in Object::ALL {
            let set = Set::declared(object, layout).with_context(|| format!("set {}", object.name()))?;
            sets.insert(object.name(), set);
        }
        for entry in dataplane
            .ledger
            .iter()
            .filter(|entry| entry.key.family() == family)
        {
            let name = entry.key.object().name();
            let set = sets.get_mut(name).with_context(|| format!("no set {name}"))?;
            set.add(entry.key, entry.value, layout)
                .with_context(|| format!("element {}", entry.key))?;
        }
        let needed = dataplane.needed_chains(family);
        let rules = dataplane.config.rules(family);
        let constant = rules.constant_chains(dataplane.node_ports.rules(family));
        let chains = constant
            .into_iter()
            .chain(needed.into_iter().map(|chain| rules.chain(chain)));
        let hooks = rules
            .base_chains(dataplane.node_ports.rules(family))
            .into_iter()
            .map(|chain| match chain.hook {
                Some(hook) => Ok((hook, chain)),
                None => bail!("base chain {} has no hook", chain.name),
            });
        let mut hooks = hooks.collect::<anyhow::Result<Vec<_>>>()?;
        hooks.sort_by_key(|(hook, _)| hook.priority);
        Ok(Self {
            family,
            chains: chains.map(|chain| (chain.name.clone(), chain)).collect(),
            hooks,
            sets,
        })
    }

    pub(super) fn chain(&self, name: &str) -> anyhow::Result<&ChainRules> {
        self.chains.get(name).with_context(|| format!("no chain {name}"))
    }

    pub(super) fn set(&self, name: &str) -> anyhow::Result<&Set> {
        self.sets.get(name).with_context(|| format!("no set {name}"))
    }

    /// The chains that the kernel calls at a hook, in this order.
    pub(super) fn hooked(&self, number: u32) -> impl Iterator<Item = (Hook, &ChainRules)> {
        let here = self.hooks.iter().filter(move |(hook, _)| hook.number == number);
        here.map(|(hook, chain)| (*hook, chain))
    }
}
