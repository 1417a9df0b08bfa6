//! Whether this proxy does its work, as the health server tells it: shared between the loop, which reports,
//! and the servers, which ask.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::model::object::{Family, Node};

/// Taint by which the cluster autoscaler announces that it will delete the node.
const DELETION_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// The state. Every method takes the lock for a moment only.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    /// A change queued this long without a successful sync makes the proxy unhealthy.
    patience: Duration,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// IPv4 and IPv6.
    families: [Syncs; 2],
    eligible: bool,
}

/// What one family waits for.
#[derive(Clone, Copy, Debug)]
struct Syncs {
    programmed: bool,
    queued: Option<Instant>,
    synced: Option<Timestamp>,
}

/// What the server tells at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// IPv4 and IPv6, if they are programmed here.
    pub families: [Option<FamilyReport>; 2],
    /// The last successful sync of any of them.
    pub synced: Option<Timestamp>,
    /// How long the first of the changes that are not in force has waited.
    pub waiting: Option<Duration>,
    /// Nothing waits for too long.
    pub healthy: bool,
    /// The node should get traffic from outside.
    pub eligible: bool,
}

/// The same of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyReport {
    /// The last successful sync.
    pub synced: Option<Timestamp>,
    /// Nothing waits for too long.
    pub healthy: bool,
}

impl Health {
    /// Nothing queued, nothing synced. With an API server a node that was not seen is not eligible; without
    /// one there is nobody to announce it.
    pub fn new(sync_period: Duration, eligible: bool) -> Self {
        let families = [Syncs {
            programmed: true,
            queued: None,
            synced: None,
        }; 2];
        Self {
            state: Mutex::new(State { families, eligible }),
            patience: sync_period * 2,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // The state is plain data: whoever panicked with the lock held left it whole.
        act(&mut self.state.lock().unwrap_or_else(|poison| poison.into_inner()))
    }

    /// Which families are programmed; of the others nothing is told.
    pub fn programmed(&self, families: [bool; 2]) {
        self.with(|state| {
            for (family, programmed) in state.families.iter_mut().zip(families) {
                family.programmed = programmed;
            }
        });
    }

    /// A change waits to be put in force. The first one counts.
    pub fn queued(&self, now: Instant) {
        self.with(|state| {
            for family in &mut state.families {
                family.queued = family.queued.or(Some(now));
            }
        });
    }

    /// Everything that waited is in force in this family.
    pub fn synced(&self, family: Family, now: Timestamp) {
        self.with(|state| {
            let family = &mut state.families[family as usize];
            family.queued = None;
            family.synced = Some(now);
        });
    }

    /// The Node was seen.
    pub fn node(&self, node: &Node) {
        let going = node.deleting || node.taints.iter().any(|taint| **taint == *DELETION_TAINT);
        self.with(|state| state.eligible = !going);
    }

    /// The state as of now.
    pub fn report(&self, now: Instant) -> Report {
        let state = self.with(|state| *state);
        let waiting = |family: &Syncs| family.queued.map(|queued| now.saturating_duration_since(queued));
        let families = state.families.map(|family| {
            family.programmed.then(|| FamilyReport {
                synced: family.synced,
                healthy: waiting(&family).is_none_or(|waiting| waiting < self.patience),
            })
        });
        let programmed = || state.families.iter().filter(|family| family.programmed);
        Report {
            families,
            synced: programmed().filter_map(|family| family.synced).max(),
            waiting: programmed().filter_map(waiting).max(),
            healthy: families.iter().flatten().all(|family| family.healthy),
            eligible: state.eligible,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_unhealthy_while_the_first_waiting_change_waits_for_two_sync_periods() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let health = Health::new(Duration::from_secs(30), true);
        assert!(health.report(at(0)).healthy, "nothing was ever queued");
        health.queued(at(0));
        health.queued(at(50));
        assert!(health.report(at(59)).healthy);
        assert!(!health.report(at(60)).healthy, "the first one counts");
        health.synced(Family::V4, Timestamp::UNIX_EPOCH);
        let report = health.report(at(60));
        assert!(!report.healthy, "one family is late");
        assert_eq!(
            report.families.map(|family| family.unwrap().healthy),
            [true, false]
        );
        assert_eq!(report.waiting, Some(Duration::from_secs(60)));
        health.synced(Family::V6, Timestamp::UNIX_EPOCH);
        let report = health.report(at(5000));
        assert!(report.healthy);
        assert_eq!(
            (report.synced, report.waiting),
            (Some(Timestamp::UNIX_EPOCH), None)
        );
    }

    #[test]
    fn of_a_family_that_is_not_programmed_nothing_is_told() {
        let start = Instant::now();
        let health = Health::new(Duration::from_secs(30), true);
        health.queued(start);
        health.programmed([true, false]);
        health.synced(Family::V4, Timestamp::UNIX_EPOCH);
        let report = health.report(start + Duration::from_secs(100));
        assert!(report.healthy, "the other one waits in vain");
        assert_eq!(report.families[1], None);
    }

    #[test]
    fn a_node_is_eligible_until_it_is_about_to_go() {
        let health = Health::new(Duration::from_secs(30), false);
        let eligible = || health.report(Instant::now()).eligible;
        assert!(!eligible(), "not seen yet");
        let table: &[(bool, &[&str], bool)] = &[
            (false, &[], true),
            (false, &["node.kubernetes.io/not-ready"], true),
            (false, &["other", "ToBeDeletedByClusterAutoscaler"], false),
            (true, &[], false),
            (false, &[], true),
        ];
        for (deleting, taints, expected) in table {
            health.node(&Node {
                deleting: *deleting,
                taints: taints.iter().map(|taint| (*taint).into()).collect(),
                ..Node::default()
            });
            assert_eq!(eligible(), *expected, "{deleting} {taints:?}");
        }
    }
}
