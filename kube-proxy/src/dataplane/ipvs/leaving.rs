//! What goes slowly: endpoints that have yet to finish what they began, and the addresses that this came to.
//!
//! With an endpoint of UDP the kernel forgets, within milliseconds, who asked it (since 5.9), so an answer under way would
//! be lost. Hence the pause before it goes, which is that of `conntrack/worker.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tracing::warn;

use super::Ipvs;
use super::apply::Thing;
use super::device::DEVICE;
use super::entry::At;
use super::kernel::{Kernel, failed};
use super::message::{self, Listed};
use super::steps::{Step, after, leaves};
use crate::dataplane::nftables::Backend;
use crate::dataplane::{CommitError, CommitReport};
use crate::model::object::Protocol;
use crate::netlink::Failure;

/// How long an endpoint of UDP stays for answers under way.
const ANSWERING: Duration = Duration::from_millis(50);
/// How often endpoints that may have connections are looked at: while some began to go a moment ago, and later.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(5);

/// The endpoints of a virtual server that are to go, and since when.
pub(super) type Leaving = BTreeMap<Backend, Instant>;

impl Ipvs {
    /// Notes which of the virtual servers that moved have endpoints that are to go, and which are as they should be.
    pub(super) fn note_leaving(&mut self, kernel: &Kernel, now: Instant) {
        for &at in &self.moved.servers {
            let wanted = self.desired.server(at).map(|(server, _)| server);
            let before = self.leaving.remove(&at).unwrap_or_default();
            let held = kernel.servers.get(&at);
            let going = held.into_iter().flat_map(|held| leaves(held, wanted));
            let since = |backend: &Backend| before.get(backend).copied().unwrap_or(now);
            let going: Leaving = going.map(|backend| (*backend, since(backend))).collect();
            let first = if !at.has_connections() {
                going.values().min().map(|since| *since + ANSWERING)
            } else if going.is_empty() {
                None
            } else if wanted.is_none() && before.is_empty() {
                // Others may have the address next, so this one goes at once if it can.
                Some(now)
            } else {
                self.look_at.is_none().then_some(now + SOON)
            };
            self.look_at = self.look_at.into_iter().chain(first).min();
            if !going.is_empty() {
                self.leaving.insert(at, going);
            }
            // Had it been refused again, it would not be among those that moved.
            self.refused.remove(&Thing::Server(at));
        }
        if self.leaving.is_empty() {
            self.look_at = None;
        }
    }

    /// Deletes the endpoints that are to go and have nothing left to do, and virtual servers without any.
    pub(super) fn look(
        &mut self,
        kernel: &mut Kernel,
        now: Instant,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        if self.look_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        let (mut requests, mut taken) = (kernel.ipvs.requests(), Vec::new());
        for (&at, going) in &self.leaving {
            let idle: BTreeSet<Backend> = if at.has_connections() {
                let is_wanted = self.desired.server(at).is_some();
                // As upstream, an endpoint also waits for what has ended to be forgotten; a whole virtual server does
                // not.
                let is_idle = |listed: &Listed| listed.active == 0 && (listed.inactive == 0 || !is_wanted);
                let listed = kernel.endpoints(at)?.into_iter().filter(is_idle);
                listed.map(|listed| listed.backend).collect()
            } else {
                let ripe = going.iter().filter(|(_, since)| **since + ANSWERING <= now);
                ripe.map(|(backend, _)| *backend).collect()
            };
            for backend in going.keys().filter(|backend| idle.contains(backend)) {
                let step = Step::DeleteEndpoint(*backend);
                message::request(&mut requests, at, &step);
                taken.push((at, step));
            }
        }
        if !taken.is_empty() {
            report.messages += requests.len();
            let failures = kernel.ipvs.ask(&requests);
            // One that another hand deleted is gone as well; anything else shows when it is looked at again.
            let failures = failures.map_err(|errno| failed("delete endpoints", errno))?;
            for (number, (at, step)) in (1..).zip(taken) {
                let refused = failures.iter().find(|failure| failure.sequence == number);
                if refused.is_none_or(|failure| failure.errno == Errno::ENOENT)
                    && let Some(held) = after(kernel.servers.remove(&at), &step)
                {
                    kernel.servers.insert(at, held);
                }
            }
        }
        let mut going = self.leaving.values().flat_map(Leaving::values);
        let some_began = going.any(|since| *since + LATER > now);
        self.look_at = Some(now + if some_began { SOON } else { LATER });
        // Virtual servers that were left without endpoints go now, and with them their addresses.
        let looked_at: BTreeSet<At> = self.leaving.keys().copied().collect();
        let gone = |at: &&At| self.desired.server(**at).is_none();
        self.moved
            .addresses
            .extend(looked_at.iter().filter(gone).map(|at| at.ip));
        self.moved.servers.extend(&looked_at);
        self.settle(kernel, true, now, report)
    }

    /// Adds the addresses that Services have and the device has not.
    pub(super) fn add_addresses(
        &mut self,
        kernel: &mut Kernel,
        now: Instant,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        let wanted = self.moved.addresses.iter().copied();
        let missing = |ip: &IpAddr| self.desired.has_address(*ip) && !kernel.addresses.contains(ip);
        let missing: Vec<IpAddr> = wanted.filter(missing).collect();
        if !missing.is_empty() {
            self.add(kernel, &missing, now, report)?;
        }
        for ip in self.moved.addresses.intersection(&kernel.addresses) {
            self.refused.remove(&Thing::Address(*ip));
        }
        Ok(())
    }

    /// Has the rules guard addresses as long as they are on the device, whether they are still wanted there or not.
    pub(super) fn guard_addresses(&mut self, kernel: &Kernel) {
        for ip in self.moved.addresses.clone() {
            let there = kernel.addresses.contains(&ip) && !self.desired.is_local(ip);
            if self.desired.has_address(ip) {
                self.rules.guard(ip);
            } else if there {
                let ports = coming_to(&self.leaving, ip).map(|at| (at.protocol, at.port));
                let ports = ports.collect();
                self.guard_for_connections(ip, ports);
            } else {
                self.rules.leave_alone(ip);
            }
        }
    }

    /// Has the rules guard an address that only has connections to end, to these ports. The kernel would refuse new ones;
    /// where ClusterIPs come from they are dropped.
    pub(super) fn guard_for_connections(&mut self, ip: IpAddr, ports: Vec<(Protocol, u16)>) {
        if self.desired.comes_from_service_cidr(ip) {
            self.rules.drop_new(ip, ports);
        } else {
            self.rules.guard(ip);
        }
    }

    fn add(
        &mut self,
        kernel: &mut Kernel,
        missing: &[IpAddr],
        now: Instant,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        let tried = || format!("add addresses to {DEVICE}");
        let mut missing = missing.to_vec();
        report.messages += missing.len();
        let mut failures = kernel.device.change(&missing, &[]);
        let is_gone = |failure: &Failure| failure.errno == Errno::ENODEV;
        if matches!(&failures, Ok(failures) if failures.iter().any(is_gone)) {
            warn!(
                device = DEVICE,
                "the device was removed by another hand; making it anew"
            );
            report.drift += 1;
            kernel.device.make().map_err(|errno| failed(&tried(), errno))?;
            missing.extend(&std::mem::take(&mut kernel.addresses));
            failures = kernel.device.change(&missing, &[]);
        }
        let failures = failures.map_err(|errno| failed(&tried(), errno))?;
        for (number, ip) in (1..).zip(missing) {
            match failures.iter().find(|failure| failure.sequence == number) {
                None => _ = kernel.addresses.insert(ip),
                Some(failure) => self.refuse(Thing::Address(ip), failure.reason(), now, report),
            }
        }
        Ok(())
    }

    /// Removes the addresses that nothing needs any more.
    pub(super) fn remove_addresses(
        &mut self,
        kernel: &mut Kernel,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        let there = self.moved.addresses.iter().copied();
        let surplus = |ip: &IpAddr| kernel.addresses.contains(ip) && !self.stays(kernel, *ip);
        let surplus: Vec<IpAddr> = there.filter(surplus).collect();
        if surplus.is_empty() {
            return Ok(());
        }
        report.messages += surplus.len();
        let tried = || format!("remove addresses from {}", DEVICE);
        let failures = kernel.device.change(&[], &surplus);
        for failure in failures.map_err(|errno| failed(&tried(), errno))? {
            warn!(reason = failure.reason(), "An address stays on {DEVICE}");
        }
        for ip in surplus {
            kernel.addresses.remove(&ip);
            self.rules.leave_alone(ip);
        }
        let rules = self.rules.commit_at(Instant::now())?;
        report.messages += rules.messages;
        report.again_after = report.again_after.into_iter().chain(rules.again_after).min();
        Ok(())
    }

    /// The address is wanted on the device, or connections still come to it there.
    fn stays(&self, kernel: &Kernel, ip: IpAddr) -> bool {
        let comes = || coming_to(&self.leaving, ip).next().is_some();
        self.desired.has_address(ip)
            || (kernel.addresses.contains(&ip) && !self.desired.is_local(ip) && comes())
    }
}

/// The virtual servers at an address that have endpoints which are to go.
fn coming_to(leaving: &BTreeMap<At, Leaving>, ip: IpAddr) -> impl Iterator<Item = &At> {
    let first = At {
        ip,
        protocol: Protocol::Tcp,
        port: 0,
    };
    leaving
        .range(first..)
        .map(|(at, _)| at)
        .take_while(move |at| at.ip == ip)
}
