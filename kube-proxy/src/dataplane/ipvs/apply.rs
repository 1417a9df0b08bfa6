//! Brings what changed in force: virtual servers that come, then the rules, then what goes. And finds out who is to
//! blame when the kernel refuses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use nix::errno::Errno;
use tracing::{error, warn};

use super::Ipvs;
use super::device::DEVICE;
use super::entry::{At, Key, Scheduler};
use super::kernel::{Kernel, failed};
use super::message;
use super::steps::{Step, after, steps};
use super::sysctl;
use crate::dataplane::retry::Retry;
use crate::dataplane::{CommitError, CommitReport, Refusal, iptables, nftables};
use crate::model::object::Family;
use crate::netlink::Failure;

/// So often a virtual server is tried when the kernel holds something else than expected.
const ROUNDS: usize = 4;

/// Something that the kernel may refuse by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thing {
    Server(At),
    Address(IpAddr),
}

/// Steps that were taken, and the kernel's complaints by their number, counted from 1.
type Attempt = (Vec<(At, Step)>, HashMap<u32, Failure>);

/// What to do about a step that the kernel refused.
enum Answer {
    /// The kernel holds something else than this process left there.
    Drift,
    /// It lacks this scheduler.
    Lacks(Scheduler),
    /// It will not.
    Refused(String),
}

impl Ipvs {
    /// [`commit`](crate::dataplane::Dataplane::commit) at a given time.
    pub(super) fn commit_at(&mut self, now: Instant) -> Result<CommitReport, CommitError> {
        let mut report = CommitReport::default();
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => self.begin()?,
        };
        let committed = self.change(&mut kernel, now, &mut report);
        // After a failure all is read anew.
        committed?;
        self.others.begin(&kernel, now);
        report.drift += std::mem::take(&mut self.others.drift);
        self.kernel = Some(kernel);
        let retries = self.refused.values().map(|retry| retry.due);
        let due = retries.chain(self.look_at).min();
        let due = due.map(|due| due.saturating_duration_since(now));
        report.again_after = report.again_after.into_iter().chain(due).min();
        report.refused_now += self.refused.len();
        Ok(report)
    }

    /// Looks at what there is, and notes all that is wanted or there as changed.
    fn begin(&mut self) -> Result<Kernel, CommitError> {
        let mut kernel = Kernel::open()?;
        sysctl::set(self.config.strict_arp);
        kernel.takes_over = kernel.device.is_there() || is_served()?;
        let made = kernel.device.make();
        made.map_err(|errno| failed(&format!("make the device {}", DEVICE), errno))?;
        self.set_timeouts(&mut kernel)?;
        self.read(&mut kernel)?;
        Ok(kernel)
    }

    /// Whether a virtual server is this process's to change, whoever made it.
    pub(super) fn is_ours(&self, at: At) -> bool {
        let excluded = self.config.exclude_cidrs.iter().any(|net| net.contains(&at.ip));
        self.config.families.contains(&Family::of(at.ip)) && (!excluded || self.desired.server(at).is_some())
    }

    fn read(&mut self, kernel: &mut Kernel) -> Result<(), CommitError> {
        kernel.read(|at| self.is_ours(at))?;
        let all = self.desired.all();
        self.moved.servers.extend(all.servers);
        self.moved.servers.extend(kernel.servers.keys().copied());
        self.moved.addresses.extend(all.addresses);
        let ours = |ip: &&IpAddr| self.config.families.contains(&Family::of(**ip));
        self.moved
            .addresses
            .extend(kernel.addresses.iter().filter(ours).copied());
        Ok(())
    }

    fn set_timeouts(&self, kernel: &mut Kernel) -> Result<(), CommitError> {
        if self.config.timeouts == [None; 3] {
            return Ok(());
        }
        let mut requests = kernel.ipvs.requests();
        message::timeouts(&mut requests, self.config.timeouts);
        let failures = kernel.ipvs.ask(&requests);
        let failures = failures.map_err(|errno| failed("set the timeouts of IPVS", errno))?;
        if let Some(failure) = failures.first() {
            warn!(
                reason = failure.reason(),
                "IPVS does not take its timeouts; they stay as they are"
            );
        }
        Ok(())
    }

    fn change(
        &mut self,
        kernel: &mut Kernel,
        now: Instant,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        for (thing, _) in self.refused.iter().filter(|(_, retry)| retry.due <= now) {
            match thing {
                Thing::Server(at) => _ = self.moved.servers.insert(*at),
                Thing::Address(ip) => _ = self.moved.addresses.insert(*ip),
            }
        }
        if !kernel.device.is_there() {
            let made = kernel.device.make();
            made.map_err(|errno| failed(&format!("make the device {DEVICE} anew"), errno))?;
        }
        self.settle(kernel, false, now, report)?;
        // IPVS sees a packet once its address is there. One that no rule masquerades begins a connection that will
        // never be answered; but where rules of a predecessor still serve, the new ones count on the addresses.
        if kernel.takes_over {
            self.add_addresses(kernel, now, report)?;
        }
        self.guard_addresses(kernel);
        let rules = self.rules.commit_at(now)?;
        report.messages += rules.messages;
        report.drift += rules.drift;
        report.refused.extend(rules.refused);
        report.refused_now = rules.refused_now;
        report.again_after = rules.again_after;
        self.add_addresses(kernel, now, report)?;
        kernel.takes_over = false;
        self.settle(kernel, true, now, report)?;
        self.look(kernel, now, report)?;
        self.remove_addresses(kernel, report)?;
        self.moved = super::Moved::default();
        Ok(())
    }

    /// Takes the steps of the virtual servers that changed; of those that nobody wants any more only if `goes`.
    pub(super) fn settle(
        &mut self,
        kernel: &mut Kernel,
        goes: bool,
        now: Instant,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        let mut todo = self.moved.servers.clone();
        let mut reasons: BTreeMap<At, String> = BTreeMap::new();
        for _ in 0..ROUNDS {
            let (taken, failures) = self.attempt(kernel, &todo, goes, report)?;
            todo = BTreeSet::new();
            let mut blamed = BTreeSet::new();
            let mut drift = false;
            for (number, (at, step)) in (1..).zip(taken) {
                let Some(failure) = failures.get(&number) else {
                    if let Some(held) = after(kernel.servers.remove(&at), &step) {
                        kernel.servers.insert(at, held);
                    }
                    continue;
                };
                // The first complaint about a virtual server explains those that follow.
                if !blamed.insert(at) {
                    continue;
                }
                match judge(&step, failure) {
                    Answer::Drift => drift = true,
                    Answer::Lacks(scheduler) => self.lacks(scheduler),
                    Answer::Refused(reason) => {
                        self.refuse(Thing::Server(at), reason, now, report);
                        continue;
                    }
                }
                todo.insert(at);
                reasons.insert(at, failure.reason());
            }
            if drift {
                report.drift += 1;
                warn!("the virtual servers of IPVS were changed by another hand; looking at all of them");
                self.read(kernel)?;
                todo.extend(&self.moved.servers);
            }
            if todo.is_empty() {
                break;
            }
        }
        for at in todo {
            let reason = reasons
                .remove(&at)
                .unwrap_or_else(|| "another hand keeps changing it".to_owned());
            self.refuse(Thing::Server(at), reason, now, report);
        }
        self.note_leaving(kernel, now);
        Ok(())
    }

    /// Takes the steps of these virtual servers.
    fn attempt(
        &mut self,
        kernel: &mut Kernel,
        servers: &BTreeSet<At>,
        goes: bool,
        report: &mut CommitReport,
    ) -> Result<Attempt, CommitError> {
        let (mut requests, mut taken) = (kernel.ipvs.requests(), Vec::new());
        for &at in servers {
            let wanted = self.desired.server(at).map(|(server, _)| server);
            let is_early = wanted.is_none() || self.comes_after_rules(kernel, at);
            if is_early && !goes {
                continue;
            }
            for step in steps(kernel.servers.get(&at), wanted, &self.lacking) {
                message::request(&mut requests, at, &step);
                taken.push((at, step));
            }
        }
        if taken.is_empty() {
            return Ok((taken, HashMap::new()));
        }
        report.messages += requests.len();
        let failures = kernel.ipvs.ask(&requests);
        let failures = failures.map_err(|errno| failed("change virtual servers", errno))?;
        if let Some(denied) = failures.iter().find(|failure| failure.errno == Errno::EPERM) {
            return Err(failed("change virtual servers", denied.errno));
        }
        let failures = failures.into_iter().map(|failure| (failure.sequence, failure));
        Ok((taken, failures.collect()))
    }

    /// At an address that is the node's own already, IPVS would take packets that no rule in force masquerades.
    fn comes_after_rules(&self, kernel: &Kernel, at: At) -> bool {
        let is_new = !kernel.takes_over && !kernel.servers.contains_key(&at);
        is_new && self.desired.is_local(at.ip) && !self.rules.knows(at.ip, at.protocol, at.port)
    }

    fn lacks(&mut self, scheduler: Scheduler) {
        if !self.lacking.contains(&scheduler) {
            error!(
                scheduler = scheduler.name(),
                module = scheduler.module(),
                "This kernel lacks a scheduler of IPVS: its module is not there or cannot be loaded; \
                 round robin (rr) takes its place"
            );
            self.lacking.push(scheduler);
        }
    }

    pub(super) fn refuse(&mut self, thing: Thing, reason: String, now: Instant, report: &mut CommitReport) {
        let (element, service) = match thing {
            Thing::Server(at) => {
                self.moved.servers.remove(&at);
                let service = self.desired.server(at).map(|(_, service)| service.clone());
                (format!("virtual server {at}"), service)
            }
            Thing::Address(ip) => {
                self.moved.addresses.remove(&ip);
                let held = self.desired.ledger.get(&Key::Address(ip));
                let service = held.map(|held| held.holder.clone());
                (format!("address {ip} of {}", DEVICE), service)
            }
        };
        if let Some(known) = self.refused.get_mut(&thing) {
            known.refused_again(now);
            return;
        }
        self.refused.insert(thing, Retry::after_first(now));
        if let Some(service) = service {
            report.refused.push(Refusal {
                service,
                element,
                reason,
            });
        }
    }
}

/// Whether this node may have rules by which a predecessor serves, in any mode but this one.
fn is_served() -> Result<bool, CommitError> {
    let by_iptables = |family| nftables::has_chains(family) || iptables::uses_legacy_tables(family);
    Ok(nftables::node_ports()?.is_some() || Family::ALL.into_iter().any(by_iptables))
}

/// What a complaint of the kernel about a step means.
fn judge(step: &Step, failure: &Failure) -> Answer {
    match (step, failure.errno) {
        (Step::NewServer(settings) | Step::SetServer(settings), Errno::ENOENT)
            if settings.scheduler != Scheduler::round_robin() =>
        {
            Answer::Lacks(settings.scheduler.clone())
        }
        (Step::NewServer(_) | Step::NewEndpoint(..), Errno::EEXIST)
        | (Step::SetEndpoint(..) | Step::DeleteEndpoint(_), Errno::ENOENT)
        | (_, Errno::ESRCH) => Answer::Drift,
        (Step::NewServer(settings) | Step::SetServer(settings), Errno::ENOENT) => {
            let (name, module) = (settings.scheduler.name(), settings.scheduler.module());
            Answer::Refused(format!(
                "this kernel lacks the scheduler {name} (module {module})"
            ))
        }
        _ => Answer::Refused(failure.reason()),
    }
}
