//! Brings what changed in force, and finds out which Service is to blame when it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tracing::{info, warn};

use super::changed::Changed;
use super::counters::{Counted, Counter, Counters};
use super::entry::{Key, Value};
use super::failure::ToolError;
use super::restore::{Desired, Restore};
use super::runs::removal;
use super::saved::{Comparison, Saved};
use super::tools::{Tools, Variant};
use super::{Config, Iptables, State};
use crate::dataplane::retry::Retry;
use crate::dataplane::{CommitError, CommitReport, Refusal};
use crate::model::ledger::Ledger;
use crate::model::object::ObjectName;
use crate::netlink::NOBODY;
use crate::node::sysctl;

impl Iptables {
    /// [`commit`](crate::dataplane::Dataplane::commit) at a given time. A family that fails does not hold up the
    /// other one.
    pub(super) fn commit_at(&mut self, now: Instant, report: &mut CommitReport) -> Result<(), CommitError> {
        let mut failed = self.find_tools(report)?;
        self.hear_others(now, report);
        for state in self.families.iter_mut().filter(|state| !state.off) {
            let committed = state.commit(&self.config, &self.ledger, &mut self.counters, now, report);
            if let Err(error) = committed {
                let failures = &mut report.families[state.family as usize].failures;
                *failures = (*failures).max(1);
                failed.get_or_insert(error);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let due = self
            .families
            .iter()
            .filter(|state| !state.off)
            .filter_map(State::next_due)
            .chain(self.others.repair_due())
            .min();
        report.again_after = due.map(|due| due.saturating_duration_since(now));
        report.refused_now = self.families.iter().map(|state| state.refused.len()).sum();
        Ok(())
    }

    /// Begins to hear what others do to our chains before there is any, and has all written when they did something.
    fn hear_others(&mut self, now: Instant, report: &mut CommitReport) {
        let ours = self.heard_of();
        let heard = |state: &&mut State| ours.families.contains(&state.family);
        if self.families.iter_mut().any(|state| heard(&state) && state.full) {
            self.others.open(Ok(NOBODY));
        }
        for state in self.families.iter_mut().filter(heard) {
            if let Some(tools) = &mut state.tools {
                tools.leave_out_by(self.others.filter());
            }
        }
        self.others.hear(&ours, now);
        if self.others.take_repair(now) {
            report.drift += 1;
            let states = self.families.iter_mut().filter(heard);
            states.for_each(|state| state.full = true);
        }
    }

    /// Finds the programs of each family. A family whose programs do not work is left alone, unless it is the node's
    /// primary one or none does. Returns what kept a family from being looked at, which may pass.
    fn find_tools(&mut self, report: &mut CommitReport) -> Result<Option<CommitError>, CommitError> {
        let (mut passing, mut lacking) = (None, Vec::new());
        for state in self
            .families
            .iter_mut()
            .filter(|state| !state.off && state.tools.is_none())
        {
            match Tools::detect(state.family) {
                Ok(tools) => {
                    state.tools = Some(tools);
                    if state.fixed.guards_localhost() {
                        route_localnet();
                    }
                }
                Err(error) if error.passes() => {
                    report.families[state.family as usize].failures = 1;
                    passing.get_or_insert(error.explain());
                }
                Err(error) => lacking.push((state.family, error)),
            }
        }
        let all = self.families.iter().filter(|state| !state.off).count();
        for (family, error) in &lacking {
            if *family == self.config.primary || lacking.len() == all {
                report.families[*family as usize].failures = 1;
                return Err(error.explain());
            }
        }
        for (family, error) in lacking {
            let reason = error.explain();
            info!(ip_family = %family, %reason, "No iptables support for family");
            self.families[family as usize].off = true;
        }
        for state in &self.families {
            report.families[state.family as usize].off = state.off;
        }
        Ok(passing)
    }
}

impl State {
    fn next_due(&self) -> Option<Instant> {
        let retries = self.refused.values().map(|retry| retry.due);
        retries.chain(self.look_at).min()
    }

    fn commit(
        &mut self,
        config: &Config,
        ledger: &Ledger<Key, Value>,
        counters: &mut Counters,
        now: Instant,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        let Some(tools) = self.tools.clone() else {
            return Ok(());
        };
        let due = self.refused.iter().filter(|(_, retry)| retry.due <= now);
        let due: Vec<ObjectName> = due.map(|(service, _)| service.clone()).collect();
        self.full |= !due.is_empty();
        if !self.full && self.look_at.is_some_and(|at| at <= now) {
            if !tools.has_canary().map_err(|error| error.explain())? {
                warn!(ip_family = %self.family, "iptables canary is gone: another hand flushed the rules; writing all");
                report.drift += 1;
                self.full = true;
            }
            self.look_at = Some(now + config.sync_period);
        }
        if !self.full && !self.changed.is_empty() {
            self.partial(&tools, ledger, report)?;
        }
        if self.full {
            self.fixed.counted = counters.make();
            self.full(&tools, ledger, counters, &due, now, report)?;
            self.look_at = Some(now + config.sync_period);
        }
        Ok(())
    }

    pub(super) fn desired<'a>(
        &'a self,
        ledger: &'a Ledger<Key, Value>,
        left_out: &'a BTreeSet<ObjectName>,
    ) -> Desired<'a> {
        Desired {
            family: self.family,
            fixed: &self.fixed,
            ledger,
            shared: &self.shared,
            node_ports: &self.node_ports,
            left_out,
        }
    }

    /// Writes what changed. When that fails, everything will be written.
    fn partial(
        &mut self,
        tools: &Tools,
        ledger: &Ledger<Key, Value>,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        let left_out = self.refused.keys().cloned().collect();
        let restore = self.desired(ledger, &left_out).partial(&self.changed);
        report.messages += 1;
        let family = &mut report.families[self.family as usize];
        let Err(error) = tools.restore(&restore.text) else {
            self.changed = Changed::default();
            family.rules = self.tally.changes_written(&restore);
            return Ok(());
        };
        family.failures += 1;
        family.partial_failures += 1;
        if error.is_of_the_machine() {
            return Err(error.explain());
        }
        let reason = error.reason();
        warn!(ip_family = %self.family, reason, "Failed to execute iptables-restore for what changed; writing all");
        self.full = true;
        Ok(())
    }

    /// Writes everything but the Services that are refused.
    fn full(
        &mut self,
        tools: &Tools,
        ledger: &Ledger<Key, Value>,
        counters: &mut Counters,
        retried: &[ObjectName],
        now: Instant,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        let at = self.family as usize;
        report.families[at].full = true;
        let mut left_out: BTreeSet<ObjectName> = self.refused.keys().cloned().collect();
        for service in retried {
            left_out.remove(service);
        }
        let written = loop {
            let desired = self.desired(ledger, &left_out);
            let mut saved = compare(tools, &desired)?;
            let (restore, done) = write(&desired, &mut saved, tools.variant(), |text| {
                report.messages += 1;
                tools.restore(text)
            });
            let Err(error) = done else {
                self.remove_stale(tools, &saved, report);
                break restore;
            };
            report.families[at].failures += 1;
            if error.is_of_the_machine() {
                return Err(error.explain());
            }
            if let Some(reason) = refuses_counters(tools, &desired)? {
                counters.do_without(&Counter::ALL, &reason);
                self.fixed.counted = Counted::default();
                continue;
            }
            let guilty = find_guilty(tools, &desired, &restore, &error)?;
            if guilty.is_empty() {
                return Err(error.explain());
            }
            for service in guilty {
                if self.refuse(&service, now) {
                    report.refused.push(Refusal {
                        service: service.clone(),
                        element: format!("rules of {} in iptables", self.family),
                        reason: error.explain().to_string(),
                    });
                }
                left_out.insert(service);
            }
        };
        report.families[at].rules = self.tally.all_written(&written);
        self.refused.retain(|service, _| left_out.contains(service));
        self.changed = Changed::default();
        self.full = false;
        Ok(())
    }

    /// Removes the chains of Services that are gone. Somebody else's rule may lead to one of them; then they stay.
    fn remove_stale(&self, tools: &Tools, saved: &Saved, report: &mut CommitReport) {
        for restore in removal(saved.stale(), tools.variant()) {
            report.messages += 1;
            if let Err(error) = tools.restore(&restore.text) {
                let err = error.explain();
                warn!(ip_family = %self.family, %err, "Chains that no Service needs any more are still there");
                break;
            }
        }
    }

    /// Notes a refusal; whether it is news.
    fn refuse(&mut self, service: &ObjectName, now: Instant) -> bool {
        match self.refused.get_mut(service) {
            Some(retry) => {
                retry.refused_again(now);
                false
            }
            None => {
                self.refused.insert(service.clone(), Retry::after_first(now));
                true
            }
        }
    }
}

/// Lets packets from and to 127.0.0.0/8 pass between interfaces; `KUBE-FIREWALL` keeps others out.
pub(in crate::dataplane) fn route_localnet() {
    const SETTING: &str = "net/ipv4/conf/all/route_localnet";
    if let Err(err) = sysctl::set(SETTING, 1) {
        warn!(setting = SETTING, %err, "Node ports do not answer at 127.0.0.1");
    }
}

/// What is in the kernel, beside what is wanted.
fn compare(tools: &Tools, desired: &Desired<'_>) -> Result<Saved, CommitError> {
    let mut comparison = Comparison::with(desired);
    let listed = tools.save(&mut |line| comparison.line(line));
    listed.map_err(|error| error.explain())?;
    Ok(comparison.end())
}

/// Writes what differs, in as many runs as it takes. Returns what was written last, and whether that was refused.
pub(super) fn write<E>(
    desired: &Desired<'_>,
    saved: &mut Saved,
    variant: Variant,
    mut restore: impl FnMut(&str) -> Result<(), E>,
) -> (Restore, Result<(), E>) {
    let mut written = BTreeMap::new();
    for run in desired.runs(saved, variant) {
        if let Err(error) = restore(&run.restore.text) {
            return (run.restore, Err(error));
        }
        for (table, rules) in &run.restore.written {
            *written.entry(*table).or_default() += rules;
        }
        run.note(saved);
    }
    let mut last = desired.full(saved);
    last.follows(&written);
    let done = restore(&last.text);
    (last, done)
}

/// Why the rules that count are refused, where they are: the program or the kernel has no match for nfacct.
fn refuses_counters(tools: &Tools, desired: &Desired<'_>) -> Result<Option<String>, CommitError> {
    if desired.fixed.counted.is_empty() {
        return Ok(None);
    }
    match tools.restore(&desired.counters_alone().text) {
        Ok(()) => Ok(None),
        Err(error) if error.is_of_the_machine() => Err(error.explain()),
        Err(error) => Ok(Some(error.explain().to_string())),
    }
}

/// The Services because of which everything was refused: those that use what is missing, that the program named, or
/// one that is found by trying. None when the fault is not with Services.
fn find_guilty(
    tools: &Tools,
    desired: &Desired<'_>,
    restore: &Restore,
    error: &ToolError,
) -> Result<BTreeSet<ObjectName>, CommitError> {
    if let Some(extension) = error.missing_extension() {
        return Ok(desired.users_of(extension));
    }
    let named = error.lines().iter().filter_map(|line| restore.to_blame(*line));
    let mut guilty: BTreeSet<ObjectName> = named.cloned().collect();
    if guilty.is_empty() {
        guilty.extend(find_by_halves(tools, desired)?);
    }
    Ok(guilty)
}

/// Looks for a Service whose rules are refused, among all that are wanted: by halves, in chains that nothing leads to.
fn find_by_halves(tools: &Tools, desired: &Desired<'_>) -> Result<Option<ObjectName>, CommitError> {
    let holders: BTreeSet<&ObjectName> = desired.entries().map(|entry| entry.holder).collect();
    let mut suspects: Vec<&ObjectName> = holders.into_iter().collect();
    let refused = |services: &[&ObjectName]| {
        let services = services.iter().copied().collect();
        match tools.restore(&desired.trial(&services).text) {
            Ok(()) => Ok(false),
            Err(error) if error.is_of_the_machine() => Err(error.explain()),
            Err(_) => Ok(true),
        }
    };
    if !refused(&suspects)? {
        return Ok(None);
    }
    while suspects.len() > 1 {
        let second = suspects.split_off(suspects.len() / 2);
        if !refused(&suspects)? {
            suspects = second;
        }
    }
    Ok(suspects.first().map(|service| (*service).clone()))
}
