//! The hooks that a packet passes, and every way that it can go.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::choices::Choices;
use super::packet::{Origin, Packet};
use super::trail::{Outcome, Path};
use super::traveller::{Memory, Traveller};
use crate::model::object::Family;

/// The kernel's number of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What is planned for one family, as the kernel would hold it.
pub(in crate::dataplane) trait Rules {
    fn family(&self) -> Family;

    /// Carries out what is at the hook that the traveller has come to, in the order in which the kernel would.
    ///
    /// # Errors
    /// When a rule does what the walker does not know, or what the kernel would refuse.
    fn pass(&self, traveller: &mut Traveller<'_>) -> anyhow::Result<Fate>;
}

impl<R: Rules> Rules for &R {
    fn family(&self) -> Family {
        (**self).family()
    }

    fn pass(&self, traveller: &mut Traveller<'_>) -> anyhow::Result<Fate> {
        (**self).pass(traveller)
    }
}

/// What a hook's rules made of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Fate {
    Accepted,
    Rejected,
    Dropped,
}

/// What the packet meets outside of the rules.
#[derive(Clone, Debug, Default)]
pub(in crate::dataplane) struct Surroundings {
    /// The addresses of this node's interfaces; loopback ones need not be named.
    pub(in crate::dataplane) node_addresses: Vec<IpAddr>,
    /// What rules have remembered so far.
    pub(in crate::dataplane) memory: Memory,
    /// How late it is, by a clock that began at some time.
    pub(in crate::dataplane) now: Duration,
}

impl Surroundings {
    /// The address is one of the node's own.
    pub(in crate::dataplane) fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.node_addresses.contains(&ip)
    }

    /// The type of the route to an address (`RTN_UNICAST`, …), as the kernel numbers them.
    pub(in crate::dataplane) fn route_type(&self, ip: IpAddr) -> u32 {
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

/// Every way that a packet can go; one for each random number that rules draw on it.
///
/// # Errors
/// When a rule does what the walker does not know, or what the kernel would refuse.
pub(in crate::dataplane) fn walk(
    rules: &dyn Rules,
    packet: &Packet,
    surroundings: &Surroundings,
) -> anyhow::Result<Vec<Path>> {
    ensure!(
        packet.family() == rules.family(),
        "a packet to {} in the rules of {}",
        packet.destination,
        rules.family()
    );
    let mut choices = Choices::default();
    let mut paths = Vec::new();
    loop {
        let mut traveller = Traveller::new(packet, surroundings, &mut choices);
        let outcome = travel(rules, &mut traveller)?;
        let path = traveller.into_path(outcome);
        paths.push(Path {
            share: choices.share(),
            ..path
        });
        if !choices.turn() {
            return Ok(paths);
        }
    }
}

/// Takes the packet through the hooks in the order in which the kernel calls them.
fn travel(rules: &dyn Rules, traveller: &mut Traveller<'_>) -> anyhow::Result<Outcome> {
    let hooks = match traveller.packet.origin {
        Origin::Host => [Hook::Output, Hook::Postrouting].as_slice(),
        Origin::Interface(_) => &[Hook::Prerouting],
    };
    if let Some(outcome) = pass(rules, traveller, hooks)? {
        return Ok(outcome);
    }
    // Where it goes is decided now that its destination may be another one.
    let local = traveller.surroundings.is_local(traveller.packet.destination);
    let hooks = match (&traveller.packet.origin, local) {
        (Origin::Interface(_), true) => [Hook::Input].as_slice(),
        (Origin::Interface(_), false) => &[Hook::Forward, Hook::Postrouting],
        (Origin::Host, true) => {
            // It comes back through the loopback interface. Conntrack knows it already and still calls it new, but
            // its addresses are settled.
            traveller.packet.origin = Origin::Interface("lo".to_owned());
            traveller.settled = true;
            &[Hook::Prerouting, Hook::Input]
        }
        (Origin::Host, false) => &[],
    };
    let outcome = pass(rules, traveller, hooks)?;
    Ok(outcome.unwrap_or_else(|| traveller.arrived()))
}

/// Lets the traveller pass these hooks. An outcome: its way ends there.
fn pass(rules: &dyn Rules, traveller: &mut Traveller<'_>, hooks: &[Hook]) -> anyhow::Result<Option<Outcome>> {
    for hook in hooks {
        traveller.hook = *hook;
        let fate = rules.pass(traveller);
        match fate.with_context(|| format!("at {hook:?}"))? {
            Fate::Accepted => {}
            Fate::Rejected => return Ok(Some(Outcome::Rejected)),
            Fate::Dropped => return Ok(Some(Outcome::Dropped)),
        }
    }
    Ok(None)
}
