//! What goes slowly: endpoints whose connections have yet to end, and the addresses that these came to.

use std::collections::BTreeSet;
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
use crate::netlink::Failure;

/// When endpoints that are to go are looked at for the first time, and how often then.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const NEXT_LOOK: Duration = Duration::from_secs(5);

impl Ipvs {
    /// Notes which of the virtual servers that moved have endpoints that stay only for their connections, and which are as they
    /// should be.
    pub(super) fn note_leaving(&mut self, kernel: &Kernel, now: Instant) {
        for &at in &self.moved.servers {
            let wanted = self.desired.server(at).map(|(server, _)| server);
            let held = kernel.servers.get(&at);
            let is_leaving =
                at.has_connections() && held.is_some_and(|held| leaves(held, wanted).next().is_some());
            if !is_leaving {
                self.leaving.remove(&at);
            } else if self.leaving.insert(at) && wanted.is_none() {
                // Others may have the address next, so this one goes at once if it can.
                self.look_at = Some(now);
            }
            // Had it been refused again, it would not be among those that moved.
            self.refused.remove(&Thing::Server(at));
        }
        self.look_at = match self.look_at {
            _ if self.leaving.is_empty() => None,
            None => Some(now + FIRST_LOOK),
            at => at,
        };
    }

    /// Deletes the endpoints that are to go and whose connections have ended, and virtual servers without any.
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
        for &at in &self.leaving {
            let wanted = self.desired.server(at).map(|(server, _)| server);
            // As upstream, an endpoint also waits for what has ended to be forgotten; a whole virtual server does not.
            let is_idle = |listed: &Listed| listed.active == 0 && (listed.inactive == 0 || wanted.is_none());
            let listed = kernel.endpoints(at)?;
            let idle: BTreeSet<Backend> = listed
                .iter()
                .filter(|listed| is_idle(listed))
                .map(|listed| listed.backend)
                .collect();
            let Some(held) = kernel.servers.get(&at) else {
                continue;
            };
            for backend in leaves(held, wanted).filter(|backend| idle.contains(backend)) {
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
        self.look_at = Some(now + NEXT_LOOK);
        // Virtual servers that were left without endpoints go now, and with them their addresses.
        let looked_at = self.leaving.clone();
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
        for ip in self.moved.addresses.clone() {
            if kernel.addresses.contains(&ip) {
                self.refused.remove(&Thing::Address(ip));
            }
            // As long as it is on the device, whether it is still wanted there or not.
            let there = kernel.addresses.contains(&ip) && !self.desired.is_local(ip);
            self.rules.guard(ip, there || self.desired.has_address(ip));
        }
        Ok(())
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
            self.rules.guard(ip, false);
        }
        let rules = self.rules.commit_at(Instant::now())?;
        report.messages += rules.messages;
        report.again_after = report.again_after.into_iter().chain(rules.again_after).min();
        Ok(())
    }

    /// The address is wanted on the device, or connections still come to it there.
    fn stays(&self, kernel: &Kernel, ip: IpAddr) -> bool {
        let comes = || self.leaving.iter().any(|at| at.ip == ip);
        self.desired.has_address(ip)
            || (kernel.addresses.contains(&ip) && !self.desired.is_local(ip) && comes())
    }
}
