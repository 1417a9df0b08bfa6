//! What each expression does.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail, ensure};

use super::header;
use super::machine::{End, Machine};
use super::set::{Data, Verdict};
use crate::dataplane::nftables::expr::{
    Comparison, Conntrack, Expr, Find, Meta, Register, Remember, RouteOf, Verdict as Planned,
};
use crate::dataplane::walk::{Connection, Effect, Fate, Hook, Remembered};
use crate::model::object::Family;

/// `IFNAMSIZ`.
const INTERFACE_NAME: usize = 16;
/// Bits of `ct state`.
const STATE_INVALID: u32 = 1 << 0;
const STATE_ESTABLISHED: u32 = 1 << 1;
const STATE_RELATED: u32 = 1 << 2;
const STATE_NEW: u32 = 1 << 3;
/// Bits of `ct status`.
const STATUS_SEEN_REPLY: u32 = 1 << 1;
const STATUS_DNAT: u32 = 1 << 5;

impl Machine<'_, '_> {
    /// Carries out one expression.
    pub(super) fn execute(&mut self, expr: &Expr) -> anyhow::Result<End> {
        match expr {
            Expr::Payload {
                header,
                offset,
                length,
                to,
            } => {
                let bytes = header::bytes(&self.on.packet, *header, *offset, *length)?;
                self.registers.load(*to, &bytes)?;
            }
            Expr::SetAddress { offset, from, .. } => self.set_address(*offset, *from)?,
            Expr::LoadMeta(meta, to) => self.load_meta(*meta, *to)?,
            Expr::SetMeta(meta, from) => self.set_meta(*meta, *from)?,
            Expr::LoadConntrack(what, to) => return self.load_conntrack(*what, *to),
            Expr::RouteType(of, to) => {
                let ip = match of {
                    RouteOf::Source => self.on.packet.source,
                    RouteOf::Destination => self.on.packet.destination,
                };
                let kind = self.on.surroundings.route_type(ip);
                self.registers.load(*to, &kind.to_ne_bytes())?;
            }
            Expr::Bits { register, mask, flip } => {
                ensure!(
                    mask.len() == flip.len(),
                    "a mask of another length than the bits to flip"
                );
                let mut bytes = self.registers.read(*register, mask.len())?;
                for (byte, (mask, flip)) in bytes.iter_mut().zip(mask.iter().zip(flip)) {
                    *byte = *byte & mask ^ flip;
                }
                self.registers.load(*register, &bytes)?;
            }
            // It turns the bytes of each pair in one byte: of none.
            Expr::ByteOrder(register) => drop(self.registers.read(*register, 1)?),
            Expr::Constant(to, value) => self.registers.load(*to, value)?,
            Expr::Compare(register, comparison, value) => {
                let equal = self.registers.read(*register, value.len())? == *value;
                if equal != (*comparison == Comparison::Equal) {
                    return Ok(End::Mismatch);
                }
            }
            Expr::Lookup { set, key, find } => return self.look_up(set, *key, *find),
            Expr::Remember { map, key, value, how } => self.remember(map, *key, *value, *how)?,
            Expr::Random { modulus, offset, to } => self.draw(*modulus, *offset, *to)?,
            Expr::Dnat {
                family,
                address,
                port,
            } => return self.dnat(*family, *address, *port),
            Expr::Masquerade => return self.masquerade(),
            Expr::Reject(family) => return self.reject(*family),
            Expr::Verdict(verdict) => return Ok(End::Verdict(planned(verdict))),
        }
        Ok(End::Next)
    }

    fn set_address(&mut self, offset: u32, from: Register) -> anyhow::Result<()> {
        let ip: IpAddr = match self.table.family {
            Family::V4 => first::<4>(&self.registers.read(from, 4)?)?.into(),
            Family::V6 => first::<16>(&self.registers.read(from, 16)?)?.into(),
        };
        match (self.table.family, offset) {
            (Family::V4, 12) | (Family::V6, 8) => self.on.packet.source = ip,
            (Family::V4, 16) | (Family::V6, 24) => self.on.packet.destination = ip,
            _ => bail!("no address at {offset}"),
        }
        self.step.effects.push(Effect::Wrote(ip));
        Ok(())
    }

    fn load_meta(&mut self, meta: Meta, to: Register) -> anyhow::Result<()> {
        match meta {
            Meta::Mark => self.registers.load(to, &self.on.packet.mark.to_ne_bytes()),
            Meta::Priority => self.registers.load(to, &self.on.priority.to_ne_bytes()),
            Meta::L4proto => self.registers.load(to, &[self.on.packet.protocol()]),
            Meta::InputInterface => {
                let mut name = self.on.input_interface()?.as_bytes().to_vec();
                ensure!(name.len() < INTERFACE_NAME, "an interface's name is too long");
                name.resize(INTERFACE_NAME, 0);
                self.registers.load(to, &name)
            }
        }
    }

    fn set_meta(&mut self, meta: Meta, from: Register) -> anyhow::Result<()> {
        let value = self.registers.number(from)?;
        match meta {
            Meta::Mark => {
                self.on.packet.mark = value;
                self.step.effects.push(Effect::Marked(value));
            }
            Meta::Priority => self.on.priority = value,
            Meta::L4proto | Meta::InputInterface => bail!("{meta:?} cannot be set"),
        }
        Ok(())
    }

    fn load_conntrack(&mut self, what: Conntrack, to: Register) -> anyhow::Result<End> {
        if !self.is_tracked() {
            return Ok(End::Mismatch);
        }
        let connection = self.on.packet.connection;
        let bits = match (what, connection) {
            (Conntrack::State, Connection::New) => STATE_NEW,
            (Conntrack::State, Connection::Established { .. }) => STATE_ESTABLISHED,
            (Conntrack::State, Connection::Related) => STATE_RELATED,
            (Conntrack::State, Connection::Invalid) => STATE_INVALID,
            (Conntrack::Direction | Conntrack::Status, Connection::Invalid) => return Ok(End::Mismatch),
            // No packet that is walked answers another one.
            (Conntrack::Direction, _) => {
                self.registers.load(to, &[0])?;
                return Ok(End::Next);
            }
            (Conntrack::Status, _) => {
                let is_new = connection == Connection::New;
                let seen_reply = if is_new { 0 } else { STATUS_SEEN_REPLY };
                let dnat = if self.on.has_new_destination {
                    STATUS_DNAT
                } else {
                    0
                };
                seen_reply | dnat
            }
        };
        self.registers.load(to, &bits.to_ne_bytes())?;
        Ok(End::Next)
    }

    fn look_up(&mut self, name: &str, key: Register, find: Find) -> anyhow::Result<End> {
        let set = self.table.set(name)?;
        let (length, _) = set.lengths();
        let key = self.registers.read(key, length)?;
        let found = self
            .recall(set.name, &key)
            .map(|value| (Data::Bytes(value), None));
        let found = found.or_else(|| {
            let element = set.find(&key)?;
            Some((element.data.clone(), Some(element.text.clone())))
        });
        let Some((data, text)) = found else {
            if find != Find::NotMember {
                return Ok(End::Mismatch);
            }
            self.step.effects.push(Effect::NotIn(set.name.into()));
            return Ok(End::Next);
        };
        match text {
            Some(text) => self.step.elements.push(text),
            None => self.step.effects.push(Effect::Recalled(set.name.into())),
        }
        match (find, data) {
            (Find::Member, _) => Ok(End::Next),
            (Find::NotMember, _) => Ok(End::Mismatch),
            (Find::Verdict, Data::Verdict(verdict)) => Ok(End::Verdict(verdict)),
            (Find::Load(to), Data::Bytes(value)) => {
                self.registers.load(to, &value)?;
                Ok(End::Next)
            }
            (find, data) => bail!("{find:?} in {name}, which holds {data:?}"),
        }
    }

    /// What a rule wrote under this key, unless it is forgotten.
    fn recall(&self, map: &'static str, key: &[u8]) -> Option<Vec<u8>> {
        let remembered = self.on.memory.get(&(map.into(), key.to_vec()))?;
        let age = self.on.surroundings.now.saturating_sub(remembered.at);
        let lasts = remembered.lasts.is_none_or(|lasts| age < lasts);
        lasts.then(|| remembered.value.clone())
    }

    fn remember(&mut self, name: &str, key: Register, value: Register, how: Remember) -> anyhow::Result<()> {
        let set = self.table.set(name)?;
        ensure!(set.is_dynamic, "rules may not write to {name}");
        let (key_length, value_length) = set.lengths();
        let key = self.registers.read(key, key_length)?;
        let value = self.registers.read(value, value_length)?;
        let before = self.recall(set.name, &key);
        let key = (set.name.into(), key);
        let effect = match how {
            Remember::For(lasts) => {
                let remembered = Remembered {
                    value: before.unwrap_or(value),
                    at: self.on.surroundings.now,
                    lasts: Some(lasts),
                };
                self.on.memory.insert(key, remembered);
                Effect::Remembered(set.name.into())
            }
            Remember::NoLonger => {
                self.on.memory.remove(&key);
                Effect::Forgot(set.name.into())
            }
        };
        self.step.effects.push(effect);
        Ok(())
    }

    fn draw(&mut self, modulus: u32, offset: u32, to: Register) -> anyhow::Result<()> {
        ensure!(
            modulus != 0 && offset.checked_add(modulus - 1).is_some(),
            "no random number from {offset} on below {modulus} more"
        );
        let number = offset + self.on.choices.draw(modulus);
        self.registers.load(to, &number.to_ne_bytes())?;
        self.step.effects.push(Effect::Drew {
            slot: number,
            of: modulus,
        });
        Ok(())
    }

    fn dnat(&mut self, family: Family, address: Register, port: Register) -> anyhow::Result<End> {
        ensure!(
            self.place.kind == "nat" && matches!(self.on.hook, Hook::Prerouting | Hook::Output),
            "no dnat in a {} chain at {:?}",
            self.place.kind,
            self.on.hook
        );
        ensure!(family == self.table.family, "dnat in another family");
        let ip: IpAddr = match family {
            Family::V4 => first::<4>(&self.registers.read(address, 4)?)?.into(),
            Family::V6 => first::<16>(&self.registers.read(address, 16)?)?.into(),
        };
        let port = u16::from_be_bytes(first(&self.registers.read(port, 2)?)?);
        let to = SocketAddr::new(ip, port);
        self.on.redirect(to);
        self.step.effects.push(Effect::Dnat(to));
        Ok(End::Fate(Fate::Accepted))
    }

    fn masquerade(&mut self) -> anyhow::Result<End> {
        ensure!(
            self.place.kind == "nat" && self.on.hook == Hook::Postrouting,
            "no masquerade in a {} chain at {:?}",
            self.place.kind,
            self.on.hook
        );
        self.on.masqueraded = true;
        self.step.effects.push(Effect::Masquerade);
        Ok(End::Fate(Fate::Accepted))
    }

    fn reject(&mut self, family: Family) -> anyhow::Result<End> {
        ensure!(
            self.place.kind == "filter" && matches!(self.on.hook, Hook::Input | Hook::Forward | Hook::Output),
            "no reject in a {} chain at {:?}",
            self.place.kind,
            self.on.hook
        );
        ensure!(family == self.table.family, "reject in another family");
        self.step.effects.push(Effect::Reject);
        Ok(End::Fate(Fate::Rejected))
    }
}

fn planned(verdict: &Planned) -> Verdict {
    match verdict {
        Planned::Drop => Verdict::Drop,
        Planned::Return => Verdict::Return,
        Planned::Jump(chain) => Verdict::Jump((*chain).to_owned()),
        Planned::Goto(chain) => Verdict::Goto(chain.clone()),
    }
}

fn first<const LENGTH: usize>(bytes: &[u8]) -> anyhow::Result<[u8; LENGTH]> {
    let found = bytes.first_chunk().copied();
    found.with_context(|| format!("{LENGTH} bytes are needed, {} are there", bytes.len()))
}
