//! A packet on its way, and what has become of it so far.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;

use super::choices::Choices;
use super::hooks::{Hook, Surroundings};
use super::packet::{Connection, Origin, Packet};
use super::trail::{Outcome, Path, Step};

/// What rules wrote down: by map or list, and by key.
pub(in crate::dataplane) type Memory = BTreeMap<(Cow<'static, str>, Vec<u8>), Remembered>;

/// Something that rules wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Remembered {
    /// What the map holds under the key; a list holds nothing but its keys.
    pub(in crate::dataplane) value: Vec<u8>,
    /// When it was written, or read in a way that counts as written.
    pub(in crate::dataplane) at: Duration,
    /// How long the map keeps it. Of a list the reader says how old is too old.
    pub(in crate::dataplane) lasts: Option<Duration>,
}

/// See the module's text.
pub(in crate::dataplane) struct Traveller<'a> {
    pub(in crate::dataplane) surroundings: &'a Surroundings,
    pub(in crate::dataplane) choices: &'a mut Choices,
    /// The packet as it is now.
    pub(in crate::dataplane) packet: Packet,
    pub(in crate::dataplane) priority: u32,
    pub(in crate::dataplane) memory: Memory,
    /// Its destination became another one.
    pub(in crate::dataplane) has_new_destination: bool,
    pub(in crate::dataplane) masqueraded: bool,
    /// Conntrack has settled what its addresses become.
    pub(in crate::dataplane) settled: bool,
    /// Where it is.
    pub(in crate::dataplane) hook: Hook,
    pub(in crate::dataplane) trail: Vec<Step>,
    /// The endpoint that it was sent to.
    redirected: Option<SocketAddr>,
}

impl<'a> Traveller<'a> {
    pub(in crate::dataplane) fn new(
        packet: &Packet,
        surroundings: &'a Surroundings,
        choices: &'a mut Choices,
    ) -> Self {
        let has_new_destination = matches!(
            packet.connection,
            Connection::Established {
                redirected: Some(_),
                ..
            }
        );
        Self {
            surroundings,
            choices,
            packet: packet.clone(),
            priority: 0,
            memory: surroundings.memory.clone(),
            has_new_destination,
            masqueraded: false,
            settled: packet.connection != Connection::New,
            hook: Hook::Prerouting,
            trail: Vec::new(),
            redirected: None,
        }
    }

    pub(super) fn into_path(self, outcome: Outcome) -> Path {
        Path {
            outcome,
            share: 1.0,
            trail: self.trail,
            memory: self.memory,
            source: self.packet.source,
            mark: self.packet.mark,
            priority: self.priority,
        }
    }

    /// Sends the packet to an endpoint.
    pub(in crate::dataplane) fn redirect(&mut self, to: SocketAddr) {
        let before = self.packet.clone();
        self.packet.redirect(to);
        self.has_new_destination |= self.packet != before;
        self.redirected = Some(to);
    }

    /// The rules of nat are passed by: they see first packets of connections only. To others is done here what was
    /// done to the first one.
    pub(in crate::dataplane) fn passes_nat_by(&mut self) -> bool {
        if let Connection::Established {
            redirected,
            masqueraded,
        } = self.packet.connection
        {
            match (self.hook, redirected) {
                (Hook::Prerouting | Hook::Output, Some(to)) => self.redirect(to),
                (Hook::Postrouting, _) => self.masqueraded = masqueraded,
                _ => {}
            }
        }
        self.settled
    }

    /// The name of the interface that the packet came in through; none for the host's own packets.
    pub(in crate::dataplane) fn input_interface(&self) -> anyhow::Result<&str> {
        match (&self.packet.origin, self.hook) {
            (_, Hook::Postrouting) => bail!("kernels do not agree on the input interface at postrouting"),
            (Origin::Host, _) => Ok(""),
            (Origin::Interface(name), _) => Ok(name),
        }
    }

    pub(super) fn arrived(&self) -> Outcome {
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
