//! One packet among the rules of iptables.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::rule::{Match, Rule, Target, What, state};
use super::tables::Tables;
use crate::dataplane::walk::{Connection, Effect, Fate, Hook, Remembered, Rules, Step, Transport, Traveller};
use crate::model::object::Family;

/// Chains that lead to chains: nftables' variant refuses more.
const DEEPEST: usize = 16;

/// A packet in one table at a hook.
struct Machine<'a, 'b> {
    tables: &'a Tables,
    table: &'static str,
    on: &'a mut Traveller<'b>,
}

impl Rules for Tables {
    fn family(&self) -> Family {
        self.family
    }

    fn pass(&self, traveller: &mut Traveller<'_>) -> anyhow::Result<Fate> {
        let (chain, tables): (_, &[&str]) = match traveller.hook {
            Hook::Prerouting => ("PREROUTING", &["mangle", "nat"]),
            Hook::Input => ("INPUT", &["mangle", "filter", "nat"]),
            Hook::Forward => ("FORWARD", &["mangle", "filter"]),
            Hook::Output => ("OUTPUT", &["mangle", "nat", "filter"]),
            Hook::Postrouting => ("POSTROUTING", &["mangle", "nat"]),
        };
        for table in tables {
            if *table == "nat" && traveller.passes_nat_by() {
                continue;
            }
            let mut machine = Machine {
                tables: self,
                table,
                on: traveller,
            };
            match machine.chain(chain, 0).with_context(|| format!("in {table}"))? {
                None | Some(Fate::Accepted) => {}
                Some(fate) => return Ok(fate),
            }
        }
        Ok(Fate::Accepted)
    }
}

impl Machine<'_, '_> {
    /// Carries out a chain, and those that it leads to. `None`: back to where it was called.
    fn chain(&mut self, name: &str, depth: usize) -> anyhow::Result<Option<Fate>> {
        ensure!(depth < DEEPEST, "chains lead to chains too often");
        let tables = self.tables;
        for rule in tables.chain(self.table, name)? {
            let in_rule = || format!("-A {name} {}", rule.text);
            let Some(effects) = self.matches(rule).with_context(in_rule)? else {
                continue;
            };
            let mut step = Step {
                chain: name.to_owned(),
                comment: rule.comment.clone().into(),
                elements: Vec::new(),
                effects,
            };
            let Some(target) = &rule.target else {
                continue;
            };
            let (effect, fate) = self.carry_out(target).with_context(in_rule)?;
            step.effects.push(effect);
            self.on.trail.push(step);
            match target {
                Target::Return => return Ok(None),
                Target::Jump(to) => {
                    if let Some(fate) = self.chain(to, depth + 1)? {
                        return Ok(Some(fate));
                    }
                }
                _ if fate.is_some() => return Ok(fate),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Does what a target does, but for leading to another chain.
    fn carry_out(&mut self, target: &Target) -> anyhow::Result<(Effect, Option<Fate>)> {
        let hook = self.on.hook;
        Ok(match target {
            Target::Accept => (Effect::Accept, Some(Fate::Accepted)),
            Target::Drop => (Effect::Drop, Some(Fate::Dropped)),
            Target::Return => (Effect::Return, None),
            Target::Jump(to) => (Effect::Jump(to.clone()), None),
            Target::Reject => (Effect::Reject, Some(Fate::Rejected)),
            Target::Mark { value, mask } => {
                self.on.packet.mark = self.on.packet.mark & !mask ^ value;
                (Effect::Marked(self.on.packet.mark), None)
            }
            Target::Dnat(to) => {
                ensure!(
                    matches!(hook, Hook::Prerouting | Hook::Output),
                    "no DNAT at {hook:?}"
                );
                self.on.redirect(*to);
                (Effect::Dnat(*to), Some(Fate::Accepted))
            }
            Target::Masquerade => {
                ensure!(hook == Hook::Postrouting, "no MASQUERADE at {hook:?}");
                self.on.masqueraded = true;
                (Effect::Masquerade, Some(Fate::Accepted))
            }
        })
    }

    /// The packet is what the rule wants; then, what looking at it did.
    fn matches(&mut self, rule: &Rule) -> anyhow::Result<Option<Vec<Effect>>> {
        let mut effects = Vec::new();
        for Match { not, what } in &rule.matches {
            if self.is(what, &mut effects)? == *not {
                return Ok(None);
            }
        }
        Ok(Some(effects))
    }

    fn is(&mut self, what: &What, effects: &mut Vec<Effect>) -> anyhow::Result<bool> {
        let packet = &self.on.packet;
        Ok(match what {
            What::Source(network) => network.contains(&packet.source),
            What::Destination(network) => network.contains(&packet.destination),
            What::Protocol(wanted) => {
                matches!(packet.transport, Transport::To(protocol, _) if protocol == *wanted)
            }
            What::DestinationPort(wanted) => {
                matches!(packet.transport, Transport::To(_, port) if port == *wanted)
            }
            What::InputInterface(wanted) => {
                let name = self.on.input_interface()?;
                match wanted.strip_suffix('+') {
                    Some(start) => name.starts_with(start),
                    None => name == wanted,
                }
            }
            What::State(bits) => self.state() & bits != 0,
            What::Mark { value, mask } => packet.mark & mask == *value,
            What::SourceType(kind) => self.on.surroundings.route_type(packet.source) == *kind,
            What::DestinationType(kind) => self.on.surroundings.route_type(packet.destination) == *kind,
            What::Chance(chance) => {
                let happens = self.on.choices.happens(*chance);
                effects.push(Effect::Chosen(*chance));
                happens
            }
            What::Recent(list, within) => {
                let recent = self.is_recent(list, *within);
                effects.push(Effect::Recalled(list.clone().into()));
                recent
            }
            What::Note(list) => {
                let seen = Remembered {
                    value: Vec::new(),
                    at: self.on.surroundings.now,
                    lasts: None,
                };
                let key = (list.clone().into(), self.source());
                self.on.memory.insert(key, seen);
                effects.push(Effect::Remembered(list.clone().into()));
                true
            }
            What::Count(name) => {
                effects.push(Effect::Counted(name.clone()));
                true
            }
        })
    }

    fn is_recent(&self, list: &str, within: Option<Duration>) -> bool {
        let seen = self.on.memory.get(&(list.to_owned().into(), self.source()));
        seen.is_some_and(|seen| {
            let age = self.on.surroundings.now.saturating_sub(seen.at);
            within.is_none_or(|within| age <= within)
        })
    }

    /// The source address as lists hold it.
    fn source(&self) -> Vec<u8> {
        match self.on.packet.source {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }

    /// The bits that `--ctstate` can ask for.
    fn state(&self) -> u32 {
        let dnat = match self.on.has_new_destination {
            true => state::DNAT,
            false => 0,
        };
        match self.on.packet.connection {
            Connection::New => state::NEW | dnat,
            Connection::Established { .. } => state::ESTABLISHED | dnat,
            Connection::Related => state::RELATED,
            Connection::Invalid => state::INVALID,
        }
    }
}
