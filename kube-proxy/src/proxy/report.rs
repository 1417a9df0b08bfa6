//! What a commit reports: to the metrics, the health server and the log, and when the next one is due.

use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tracing::{debug, error, info};

use super::{FAMILIES, Proxy};
use crate::config::Mode;
use crate::dataplane::{CommitError, CommitReport, FamilyReport};
use crate::model::object::Family;
use crate::status::{MOST, Refused};

/// The pause after the first failed sync; doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Proxy {
    /// What was queued is in force.
    pub(super) fn synced(&mut self, start: Instant, services: usize, report: CommitReport) {
        let elapsed = start.elapsed();
        if report.drift > 0 {
            self.conntrack.rules_were_lost();
        }
        self.conntrack.in_force();
        self.setup.health_checks.in_force();
        self.count(elapsed, &report);
        let metrics = &self.setup.metrics;
        let families: Vec<Family> = programmed(&report).map(|(family, _)| family).collect();
        for family in &families {
            self.setup.health.synced(*family, Timestamp::now());
        }
        self.measures.in_force(&families, SystemTime::now(), metrics);
        for family in families {
            let last = metrics.sync_last.with_label_values(&[FAMILIES[family as usize]]);
            last.set(unix_seconds());
        }
        metrics.service_changes_pending.set(0);
        metrics.endpoint_changes_pending.set(0);
        let refused_now = i64::try_from(report.refused_now);
        metrics.refused_now.set(refused_now.unwrap_or(i64::MAX));
        if self.failures > 0 {
            info!(failures = self.failures, "Sync succeeded again");
        }
        if self.in_force {
            debug!(
                services,
                messages = report.messages,
                ?elapsed,
                "SyncProxyRules complete"
            );
        } else {
            info!(
                services,
                messages = report.messages,
                ?elapsed,
                "SyncProxyRules complete for the first time"
            );
            (self.setup.remove_others)(self.dataplane.variants());
        }
        let counts = self.cluster.counts();
        let lag = self.measures.lag();
        self.setup.status.update(|status| {
            status.last_sync_seconds = elapsed.as_secs_f64();
            status.lag_seconds = lag;
            (status.services, status.endpoint_slices) = counts;
            status.node_ips = self.ips.known();
            (status.failures, status.last_error) = (0, None);
            status.refused_elements = report.refused_now;
            if report.refused_now == 0 {
                status.refusals.clear();
            }
            status.conflicting_addresses = self.conflicts.count();
            status.conflicts = self.conflicts.list();
        });
        self.in_force = true;
        self.queued = false;
        self.failures = 0;
        self.again = report.again_after.map(|pause| Instant::now() + pause);
    }

    /// It is not: plans the next attempt.
    ///
    /// # Errors
    /// When there is no use in trying again.
    pub(super) fn failed(
        &mut self,
        start: Instant,
        error: CommitError,
        report: CommitReport,
    ) -> anyhow::Result<()> {
        self.count(start.elapsed(), &report);
        // One family's failure is not the other's.
        for (family, of_family) in programmed(&report) {
            if of_family.failures == 0 {
                self.setup.health.synced(family, Timestamp::now());
            }
        }
        let hopeless = matches!(
            error,
            CommitError::Permission { .. }
                | CommitError::Unsupported { .. }
                | CommitError::NotInstalled { .. }
        );
        if hopeless && !self.in_force {
            return Err(error.into());
        }
        let what = match self.setup.config.mode {
            Mode::Nftables => "nftables sync failed",
            Mode::Ipvs => "ipvs sync failed",
            Mode::Iptables => "Failed to execute iptables-restore",
        };
        let pause = pause(self.failures, self.setup.config.sync_period);
        self.failures = self.failures.saturating_add(1);
        self.again = Some(Instant::now() + pause);
        self.setup.status.update(|status| {
            status.failures = self.failures;
            status.last_error = Some(error.to_string());
        });
        error!(err = %error, failures = self.failures, retry_after = ?pause, "{what}; what is in force stays");
        error!(retry_after = ?pause, "Sync failed");
        Ok(())
    }

    /// Counts an attempt, and names what was refused.
    fn count(&self, elapsed: Duration, report: &CommitReport) {
        let off = report.families.each_ref().map(|of_family| of_family.off);
        self.setup.health.programmed(off.map(|off| !off));
        let full = programmed(report).any(|(_, of_family)| of_family.full);
        debug!(fullSync = full, "Syncing {} rules", self.setup.config.mode);
        self.setup.metrics.drift.inc_by(report.drift);
        self.setup.status.update(|status| {
            status.drift += report.drift;
            for refusal in &report.refused {
                if status.refusals.len() == MOST {
                    status.refusals.remove(0);
                }
                status.refusals.push(Refused {
                    service: refusal.service.to_string(),
                    element: refusal.element.clone(),
                    reason: refusal.reason.clone(),
                });
            }
        });
        for (family, of_family) in programmed(report) {
            self.count_family(FAMILIES[family as usize], of_family, elapsed);
        }
        self.setup.metrics.refusals.inc_by(report.refused.len() as u64);
        for refusal in &report.refused {
            error!(
                service = %refusal.service, element = refusal.element, reason = refusal.reason,
                "The kernel refused an element; it is left out and tried again later"
            );
        }
    }

    fn count_family(&self, family: &str, report: &FamilyReport, elapsed: Duration) {
        let metrics = &self.setup.metrics;
        let kind = match report.full {
            true => &metrics.sync_full_duration,
            false => &metrics.sync_partial_duration,
        };
        for durations in [&metrics.sync_duration, kind] {
            durations
                .with_label_values(&[family])
                .observe(elapsed.as_secs_f64());
        }
        let failures = match self.setup.config.mode {
            Mode::Nftables => &metrics.nftables_sync_failures,
            // By upstream's name, which is of a program that our IPVS mode does not use.
            Mode::Iptables | Mode::Ipvs => &metrics.iptables_restore_failures,
        };
        for (failures, count) in [
            (failures, report.failures),
            (
                &metrics.iptables_partial_restore_failures,
                report.partial_failures,
            ),
            (&metrics.nftables_cleanup_failures, report.cleanup_failures),
        ] {
            // A series begins with the first failure.
            if count > 0 {
                failures.with_label_values(&[family]).inc_by(count);
            }
        }
        for rules in &report.rules {
            for (gauge, number) in [
                (&metrics.iptables_rules, rules.total),
                (&metrics.iptables_rules_last, rules.written),
            ] {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                gauge.with_label_values(&[rules.table, family]).set(number);
            }
        }
    }
}

/// The families that are programmed, and what was done in each.
fn programmed(report: &CommitReport) -> impl Iterator<Item = (Family, &FamilyReport)> {
    let families = Family::ALL.into_iter().zip(&report.families);
    families.filter(|(_, of_family)| !of_family.off)
}

/// The pause after so many failures: growing, at most `longest`, between half and all of that at random so
/// that the nodes of a cluster do not move in step.
pub(super) fn pause(failures: u32, longest: Duration) -> Duration {
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(longest);
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

pub(super) fn unix_seconds() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}
