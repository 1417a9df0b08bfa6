//! The hooks that a packet passes, and every way that it can go.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, ensure};

use super::machine::{Fate, Machine};
use super::packet::{Origin, Packet};
use super::set::Memory;
use super::table::Table;
use super::trail::{Outcome, Path};

/// The kernel's number of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What the packet meets outside of the rules.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Surroundings {
    /// The addresses of this node's interfaces; loopback ones need not be named.
    pub(in super::super) node_addresses: Vec<IpAddr>,
    /// What rules have remembered so far.
    pub(in super::super) memory: Memory,
}

impl Surroundings {
    /// The address is one of the node's own.
    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.node_addresses.contains(&ip)
    }

    /// The type of the route to an address (`RTN_UNICAST`, …), as the kernel numbers them.
    pub(super) fn route_type(&self, ip: IpAddr) -> u32 {
        const UNICAST: u32 = 1;
        const LOCAL: u32 = 2;
        const BROADCAST: u32 = 3;
        const MULTICAST: u32 = 5;
        match ip {
            _ if self.is_local(ip) => LOCAL,
            IpAddr::V4(Ipv4Addr::BROADCAST) => BROADCAST,
            _ if ip.is_multicast() => MULTICAST,
            _ => UNICAST,
        }
    }
}

impl Table {
    /// Every way that a packet can go; one for each random number that rules draw on it.
    ///
    /// # Errors
    /// When a rule does what the walker does not know, or what the kernel would refuse.
    pub(in super::super) fn walk(
        &self,
        packet: &Packet,
        surroundings: &Surroundings,
    ) -> anyhow::Result<Vec<Path>> {
        ensure!(
            packet.family() == self.family,
            "a packet to {} in the table of {}",
            packet.destination,
            self.family
        );
        let mut choices = Choices::default();
        let mut paths = Vec::new();
        loop {
            let mut machine = Machine::new(self, packet, surroundings, &mut choices);
            let outcome = machine.travel()?;
            let path = machine.into_path(outcome);
            paths.push(Path {
                share: choices.share(),
                ..path
            });
            if !choices.turn() {
                return Ok(paths);
            }
        }
    }
}

impl Machine<'_> {
    /// Takes the packet through the hooks in the order in which the kernel calls them.
    fn travel(&mut self) -> anyhow::Result<Outcome> {
        let hooks = match self.packet.origin {
            Origin::Host => [Hook::Output, Hook::Postrouting].as_slice(),
            Origin::Interface(_) => &[Hook::Prerouting],
        };
        if let Some(outcome) = self.pass(hooks)? {
            return Ok(outcome);
        }
        // Where it goes is decided now that its destination may be another one.
        let local = self.surroundings.is_local(self.packet.destination);
        let hooks = match (&self.packet.origin, local) {
            (Origin::Interface(_), true) => [Hook::Input].as_slice(),
            (Origin::Interface(_), false) => &[Hook::Forward, Hook::Postrouting],
            (Origin::Host, true) => {
                // It comes back through the loopback interface. Conntrack knows it already and still calls it
                // new, but its addresses are settled.
                self.packet.origin = Origin::Interface("lo".to_owned());
                self.settled = true;
                &[Hook::Prerouting, Hook::Input]
            }
            (Origin::Host, false) => &[],
        };
        let outcome = self.pass(hooks)?;
        Ok(outcome.unwrap_or_else(|| self.arrived()))
    }

    /// Calls what is at these hooks. An outcome: the packet ends there.
    fn pass(&mut self, hooks: &[Hook]) -> anyhow::Result<Option<Outcome>> {
        for hook in hooks {
            let table = self.table;
            for (place, chain) in table.hooked(*hook as u32) {
                let fate = self.call(*hook, place, chain);
                match fate.with_context(|| format!("at {hook:?}, in chain {}", chain.name))? {
                    Fate::Accepted => {}
                    Fate::Rejected => return Ok(Some(Outcome::Rejected)),
                    Fate::Dropped => return Ok(Some(Outcome::Dropped)),
                }
            }
        }
        Ok(None)
    }

    fn arrived(&self) -> Outcome {
        match (self.redirected, self.masqueraded) {
            (Some(endpoint), masqueraded) => Outcome::To {
                endpoint,
                masqueraded,
            },
            (None, true) => Outcome::Masqueraded,
            (None, false) => Outcome::NotOurs,
        }
    }
}

/// The random numbers of one way. The next way draws the same, but for the last number that can still be
/// another one.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// What was drawn, and of how many.
    drawn: Vec<(u32, u32)>,
    next: usize,
}

impl Choices {
    /// A number below `count`, which is not 0.
    pub(super) fn draw(&mut self, count: u32) -> u32 {
        if self.next == self.drawn.len() {
            self.drawn.push((0, count));
        }
        let (number, _) = self.drawn[self.next];
        self.next += 1;
        number
    }

    pub(super) fn share(&self) -> f64 {
        self.drawn
            .iter()
            .map(|(_, count)| 1.0 / f64::from(*count))
            .product()
    }

    /// Turns to the next way; `false` when there is none.
    pub(super) fn turn(&mut self) -> bool {
        self.next = 0;
        while let Some((number, count)) = self.drawn.pop() {
            if number + 1 < count {
                self.drawn.push((number + 1, count));
                return true;
            }
        }
        false
    }
}
