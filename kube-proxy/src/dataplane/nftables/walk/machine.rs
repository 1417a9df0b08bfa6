//! One packet among the rules: chains, rules and registers.

use anyhow::{Context, bail, ensure};

use super::set::Verdict;
use super::table::Table;
use crate::dataplane::nftables::expr::Register;
use crate::dataplane::nftables::rules::{ChainRules, Hook as Place, Rule};
use crate::dataplane::walk::{Effect, Fate, Hook, Rules, Step, Traveller};
use crate::model::object::Family;

/// Chains that lead to chains: the kernel refuses more.
const DEEPEST: usize = 16;
/// The priority at which conntrack looks at a packet that comes in or is sent.
const CONNTRACK: i32 = -200;
const REGISTERS: usize = 16;

/// A packet in one of the chains at a hook.
pub(super) struct Machine<'a, 'b> {
    pub(super) table: &'a Table,
    pub(super) on: &'a mut Traveller<'b>,
    pub(super) place: Place,
    pub(super) registers: Registers,
    /// The rule that looks at it.
    pub(super) step: Step,
}

/// How an expression ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The rule goes on.
    Next,
    /// The rule does not match.
    Mismatch,
    Verdict(Verdict),
    /// The hook is done with the packet.
    Fate(Fate),
}

impl Rules for Table {
    fn family(&self) -> Family {
        self.family
    }

    fn pass(&self, traveller: &mut Traveller<'_>) -> anyhow::Result<Fate> {
        for (place, chain) in self.hooked(traveller.hook as u32) {
            let fate = Machine::new(self, traveller, place).call(chain);
            let fate = fate.with_context(|| format!("in chain {}", chain.name))?;
            if fate != Fate::Accepted {
                return Ok(fate);
            }
        }
        Ok(Fate::Accepted)
    }
}

impl<'a, 'b> Machine<'a, 'b> {
    pub(super) fn new(table: &'a Table, on: &'a mut Traveller<'b>, place: Place) -> Self {
        Self {
            table,
            on,
            place,
            registers: Registers::default(),
            step: Step::default(),
        }
    }

    /// Calls a chain at a hook.
    fn call(&mut self, chain: &ChainRules) -> anyhow::Result<Fate> {
        if self.place.kind == "nat" && self.on.passes_nat_by() {
            return Ok(Fate::Accepted);
        }
        match self.chain(chain, 0)? {
            End::Next => Ok(Fate::Accepted),
            End::Fate(fate) => Ok(fate),
            other => bail!("a chain ends in {other:?}"),
        }
    }

    /// Conntrack sees the packet before this chain.
    pub(super) fn is_tracked(&self) -> bool {
        let sees_first = matches!(self.on.hook, Hook::Prerouting | Hook::Output);
        let is_back = self.on.settled && self.on.hook == Hook::Prerouting;
        !sees_first || is_back || self.place.priority > CONNTRACK
    }

    /// Carries out a chain, and those that it leads to. [`End::Next`]: back to where it was called.
    fn chain(&mut self, chain: &ChainRules, depth: usize) -> anyhow::Result<End> {
        ensure!(depth < DEEPEST, "chains lead to chains too often");
        let table = self.table;
        for (number, rule) in (1..).zip(&chain.rules) {
            let end = self.rule(chain, rule);
            let end = end.with_context(|| format!("rule {number} of chain {}", chain.name))?;
            let (to, comes_back) = match end {
                End::Next | End::Mismatch => continue,
                End::Verdict(Verdict::Return) => return Ok(End::Next),
                End::Verdict(Verdict::Drop) => return Ok(End::Fate(Fate::Dropped)),
                End::Verdict(Verdict::Jump(to)) => (to, true),
                End::Verdict(Verdict::Goto(to)) => (to, false),
                End::Fate(_) => return Ok(end),
            };
            let end = self.chain(table.chain(&to)?, depth + 1)?;
            if end != End::Next || !comes_back {
                return Ok(end);
            }
        }
        Ok(End::Next)
    }

    /// Carries out a rule. One that only leads on leaves no step in the trail: the next one is in the chain
    /// that it leads to.
    fn rule(&mut self, chain: &ChainRules, rule: &Rule) -> anyhow::Result<End> {
        self.registers = Registers::default();
        self.step = Step {
            chain: chain.name.clone(),
            comment: rule.comment.into(),
            ..Step::default()
        };
        for (number, expr) in (1..).zip(&rule.exprs) {
            let end = self.execute(expr);
            let end = end.with_context(|| format!("expression {number}, {}", expr.name()))?;
            if let End::Verdict(verdict) = &end {
                self.note_verdict(verdict);
            }
            if end == End::Mismatch {
                return Ok(end);
            }
            if end != End::Next {
                self.leave_step();
                return Ok(end);
            }
        }
        self.leave_step();
        Ok(End::Next)
    }

    fn note_verdict(&mut self, verdict: &Verdict) {
        let effect = match verdict {
            Verdict::Drop => Effect::Drop,
            Verdict::Return => Effect::Return,
            Verdict::Jump(_) => return,
            Verdict::Goto(chain) => Effect::Goto(chain.clone()),
        };
        self.step.effects.push(effect);
    }

    fn leave_step(&mut self) {
        let step = std::mem::take(&mut self.step);
        if !step.elements.is_empty() || !step.effects.is_empty() {
            self.on.trail.push(step);
        }
    }
}

/// The registers, as bytes. A rule begins with none loaded, and may not read what it did not load.
#[derive(Debug)]
pub(super) struct Registers {
    bytes: [Option<u8>; REGISTERS * 4],
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            bytes: [None; REGISTERS * 4],
        }
    }
}

impl Registers {
    /// Loads a value; the last register that it takes is filled up with zeros.
    pub(super) fn load(&mut self, at: Register, value: &[u8]) -> anyhow::Result<()> {
        let start = at.0 as usize * 4;
        let end = start + value.len().next_multiple_of(4);
        let taken = self.bytes.get_mut(start..end);
        let taken = taken.with_context(|| format!("no {} bytes from register {} on", value.len(), at.0))?;
        let padded = value.iter().copied().chain(std::iter::repeat(0));
        for (byte, value) in taken.iter_mut().zip(padded) {
            *byte = Some(value);
        }
        Ok(())
    }

    /// Reads so many bytes.
    pub(super) fn read(&self, at: Register, length: usize) -> anyhow::Result<Vec<u8>> {
        let start = at.0 as usize * 4;
        let found = self.bytes.get(start..start + length);
        let found = found.and_then(|bytes| bytes.iter().copied().collect::<Option<Vec<u8>>>());
        found.with_context(|| format!("{length} bytes from register {} on are not all loaded", at.0))
    }

    /// Reads a number in the host's byte order.
    pub(super) fn number(&self, at: Register) -> anyhow::Result<u32> {
        let bytes = self.read(at, 4)?;
        let bytes = bytes.first_chunk().context("four bytes are four bytes")?;
        Ok(u32::from_ne_bytes(*bytes))
    }
}
