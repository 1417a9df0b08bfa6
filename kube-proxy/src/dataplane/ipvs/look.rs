//! What the kernel holds otherwise than this process left it. Reads; what is found is noted as held, and as moved.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound::{Excluded, Unbounded};

use super::desired::Moved;
use super::device::DEVICE;
use super::entry::{At, Settings, Weight};
use super::kernel::{Kernel, failed};
use super::message::{self, command};
use super::steps::Held;
use crate::dataplane::CommitError;
use crate::dataplane::nftables::Backend;

/// So many differences are named.
const NAMED: usize = 10;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) moved: Moved,
    /// The first differences, readable.
    pub(super) named: Vec<String>,
    /// How many there are.
    pub(super) count: usize,
}

impl Found {
    fn server(&mut self, at: At, what: impl FnOnce() -> String) {
        self.moved.servers.insert(at);
        self.name(|| format!("virtual server {at} {}", what()));
    }

    fn name(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(text());
        }
    }
}

impl Kernel {
    /// Looks at all virtual servers that are ours, at the endpoints of `some` of them, after those that it looked at before,
    /// and at the addresses that are ours. What was found before an error is found.
    pub(super) fn look(
        &mut self,
        is_ours: impl Fn(At) -> bool,
        is_our_address: impl Fn(IpAddr) -> bool,
        some: usize,
        found: &mut Found,
    ) -> Result<(), CommitError> {
        self.look_at_servers(is_ours, found)?;
        for at in next(&self.servers, self.looked_at, some) {
            self.looked_at = Some(at);
            self.look_at_endpoints(at, found)?;
        }
        self.look_at_addresses(is_our_address, found)
    }

    fn look_at_servers(
        &mut self,
        is_ours: impl Fn(At) -> bool,
        found: &mut Found,
    ) -> Result<(), CommitError> {
        let (mut there, mut others) = (BTreeSet::new(), Vec::new());
        let servers = &self.servers;
        let listed = self.ipvs.list(
            command::GET_SERVICE,
            |_| {},
            |entry| {
                let Some((at, now)) = message::server(entry).filter(|(at, _)| is_ours(*at)) else {
                    return;
                };
                there.insert(at);
                let known = servers.get(&at);
                if known.is_none_or(|known| how(known) != how(&now)) {
                    others.push((at, now));
                }
            },
        );
        listed.map_err(|errno| failed("list the virtual servers of IPVS", errno))?;
        let gone = self.servers.keys().filter(|at| !there.contains(at));
        for at in gone.copied().collect::<Vec<_>>() {
            self.servers.remove(&at);
            found.server(at, || "is gone".to_owned());
        }
        for (at, now) in others {
            if let Some(known) = self.servers.get_mut(&at) {
                found.server(at, || differs(known, &now));
                (known.settings, known.is_usual) = (now.settings, now.is_usual);
            } else {
                let endpoints = self.weights(at)?;
                self.servers.insert(at, Held { endpoints, ..now });
                found.server(at, || "was added".to_owned());
            }
        }
        Ok(())
    }

    fn look_at_endpoints(&mut self, at: At, found: &mut Found) -> Result<(), CommitError> {
        let now = self.weights(at)?;
        let Some(held) = self.servers.get_mut(&at) else {
            return Ok(());
        };
        let backends: BTreeSet<&Backend> = held.endpoints.keys().chain(now.keys()).collect();
        for backend in backends {
            let (before, now) = (held.endpoints.get(backend), now.get(backend));
            if before == now {
                continue;
            }
            let endpoint = SocketAddr::new(backend.ip, backend.port);
            found.server(at, || match (before, now) {
                (Some(before), Some(now)) => {
                    format!("gives endpoint {endpoint} weight {now}, not {before}")
                }
                (Some(_), None) => format!("has lost endpoint {endpoint}"),
                (None, _) => format!("has got endpoint {endpoint}"),
            });
        }
        held.endpoints = now;
        Ok(())
    }

    fn look_at_addresses(
        &mut self,
        is_ours: impl Fn(IpAddr) -> bool,
        found: &mut Found,
    ) -> Result<(), CommitError> {
        let was_there = self.device.is_there();
        let now = self.device.find().and_then(|()| self.device.addresses());
        let now = now.map_err(|errno| failed("list addresses", errno))?;
        let before = std::mem::replace(&mut self.addresses, now);
        let differing = before.symmetric_difference(&self.addresses);
        let differing: Vec<IpAddr> = differing.copied().filter(|ip| is_ours(*ip)).collect();
        if was_there && !self.device.is_there() {
            found.name(|| format!("the device {DEVICE} is gone"));
        } else {
            for ip in &differing {
                let what = if before.contains(ip) {
                    "is gone from"
                } else {
                    "was added to"
                };
                found.name(|| format!("address {ip} {what} {DEVICE}"));
            }
        }
        found.moved.addresses.extend(differing);
        Ok(())
    }

    fn weights(&mut self, at: At) -> Result<BTreeMap<Backend, Weight>, CommitError> {
        let listed = self.endpoints(at)?.into_iter();
        Ok(listed.map(|listed| (listed.backend, listed.weight)).collect())
    }
}

/// So many virtual servers, in order, after the one that was looked at last.
fn next(servers: &BTreeMap<At, Held>, last: Option<At>, some: usize) -> Vec<At> {
    let Some(last) = last else {
        return servers.keys().take(some).copied().collect();
    };
    let after = servers.range((Excluded(last), Unbounded));
    let all = after.chain(servers.range(..=last));
    all.take(some).map(|(at, _)| *at).collect()
}

/// How a virtual server chooses.
fn how(held: &Held) -> (&Settings, bool) {
    (&held.settings, held.is_usual)
}

fn differs(before: &Held, now: &Held) -> String {
    let persistence = |settings: &Settings| settings.persistence.unwrap_or(0);
    let (old, new) = (&before.settings, &now.settings);
    if old.scheduler != new.scheduler {
        let (old, new) = (old.scheduler.name(), new.scheduler.name());
        format!("has scheduler {new}, not {old}")
    } else if old.persistence != new.persistence {
        let (old, new) = (persistence(old), persistence(new));
        format!("keeps clients for {new} s, not {old} s")
    } else {
        "has other flags".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::entry::Scheduler;
    use super::*;
    use crate::model::object::Protocol;

    #[test]
    fn endpoints_are_looked_at_in_turn_whatever_comes_and_goes() {
        let place = |port| At {
            ip: Ipv4Addr::LOCALHOST.into(),
            protocol: Protocol::Tcp,
            port,
        };
        let held = || Held {
            settings: Settings {
                scheduler: Scheduler::round_robin(),
                persistence: None,
            },
            is_usual: true,
            endpoints: BTreeMap::new(),
        };
        let mut servers: BTreeMap<At, Held> = (1..=5).map(|port| (place(port), held())).collect();
        let of = |servers: &BTreeMap<At, Held>, last: Option<u16>, some| -> Vec<u16> {
            let next = next(servers, last.map(place), some);
            next.into_iter().map(|at| at.port).collect()
        };
        assert_eq!(of(&servers, None, 2), [1, 2]);
        assert_eq!(of(&servers, Some(2), 2), [3, 4]);
        assert_eq!(of(&servers, Some(4), 2), [5, 1]);
        assert_eq!(of(&servers, Some(4), 9), [5, 1, 2, 3, 4]);
        servers.remove(&place(3));
        assert_eq!(of(&servers, Some(3), 2), [4, 5]);
    }
}
