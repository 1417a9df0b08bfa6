//! Brings what changed in force, and finds out which Service is to blame when it is refused.

use std::collections::BTreeSet;
use std::time::Instant;

use tracing::{info, warn};

use super::entry::{Key, Value};
use super::restore::{Changed, Desired, Saved};
use super::tools::{ToolError, Tools};
use super::{Config, Iptables, State};
use crate::dataplane::retry::Retry;
use crate::dataplane::{CommitError, CommitReport, Refusal};
use crate::model::ledger::Ledger;
use crate::model::object::ObjectName;
use crate::node::sysctl;

impl Iptables {
    /// [`commit`](crate::dataplane::Dataplane::commit) at a given time.
    pub(super) fn commit_at(&mut self, now: Instant) -> Result<CommitReport, CommitError> {
        let mut report = CommitReport::default();
        self.find_tools()?;
        for state in self.families.iter_mut().filter(|state| !state.off) {
            state.commit(&self.config, &self.ledger, now, &mut report)?;
        }
        let due = self
            .families
            .iter()
            .filter(|state| !state.off)
            .filter_map(State::next_due)
            .min();
        report.again_after = due.map(|due| due.saturating_duration_since(now));
        report.refused_now = self.families.iter().map(|state| state.refused.len()).sum();
        Ok(report)
    }

    /// Finds the programs of each family. A family whose programs do not work is left alone, unless none does.
    fn find_tools(&mut self) -> Result<(), CommitError> {
        let mut first = None;
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
                Err(error) => {
                    first.get_or_insert((state.family, error));
                }
            }
        }
        let Some((family, error)) = first else {
            return Ok(());
        };
        if family == self.config.primary || self.families.iter().all(|state| state.tools.is_none()) {
            return Err(error.explain());
        }
        let reason = error.explain();
        info!(ip_family = %family, %reason, "No iptables support for family");
        self.families[family as usize].off = true;
        Ok(())
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
            if !tools.has_canary().map_err(ToolError::explain)? {
                warn!(ip_family = %self.family, "iptables canary is gone: another hand flushed the rules; writing all");
                self.full = true;
            }
            self.look_at = Some(now + config.sync_period);
        }
        if !self.full && !self.changed.is_empty() {
            self.partial(&tools, ledger, report)?;
        }
        if self.full {
            self.full(&tools, ledger, &due, now, report)?;
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
        match tools.restore(&restore.text) {
            Ok(()) => self.changed = Changed::default(),
            Err(error) if error.is_of_the_machine() => return Err(error.explain()),
            Err(error) => {
                warn!(ip_family = %self.family, reason = error.reason, "Failed to execute iptables-restore for what changed; writing all");
                self.full = true;
            }
        }
        Ok(())
    }

    /// Writes everything but the Services that are refused.
    fn full(
        &mut self,
        tools: &Tools,
        ledger: &Ledger<Key, Value>,
        retried: &[ObjectName],
        now: Instant,
        report: &mut CommitReport,
    ) -> Result<(), CommitError> {
        let mut left_out: BTreeSet<ObjectName> = self.refused.keys().cloned().collect();
        for service in retried {
            left_out.remove(service);
        }
        loop {
            let saved = Saved::parse(&tools.save().map_err(ToolError::explain)?);
            let desired = self.desired(ledger, &left_out);
            let restore = desired.full(&saved);
            report.messages += 1;
            let Err(error) = tools.restore(&restore.text) else {
                break;
            };
            let named = error.lines.iter().filter_map(|line| restore.to_blame(*line));
            let mut guilty: BTreeSet<ObjectName> = named.cloned().collect();
            if guilty.is_empty() && !error.is_of_the_machine() {
                guilty.extend(find_guilty(tools, &desired)?);
            }
            if guilty.is_empty() {
                return Err(error.explain());
            }
            for service in guilty {
                if self.refuse(&service, now) {
                    report.refused.push(Refusal {
                        service: service.clone(),
                        element: format!("rules of {} in iptables", self.family),
                        reason: error.reason.clone(),
                    });
                }
                left_out.insert(service);
            }
        }
        self.refused.retain(|service, _| left_out.contains(service));
        self.changed = Changed::default();
        self.full = false;
        Ok(())
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

/// Looks for a Service whose rules are refused, among all that are wanted: by halves, in chains that nothing leads to.
fn find_guilty(tools: &Tools, desired: &Desired<'_>) -> Result<Option<ObjectName>, CommitError> {
    let holders: BTreeSet<&ObjectName> = desired
        .ledger
        .iter()
        .filter(|entry| entry.key.family() == desired.family && !desired.left_out.contains(entry.holder))
        .map(|entry| entry.holder)
        .collect();
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
