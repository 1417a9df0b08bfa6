//! Whether this proxy does its work, as the health server tells it: shared between the loop, which reports,
//! and the server, which asks. The complete health checks (per family, per Service) stand on this.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::model::object::Node;

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
    queued: Option<Instant>,
    synced: Option<Timestamp>,
    eligible: bool,
}

/// What the server tells at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The last successful sync.
    pub synced: Option<Timestamp>,
    /// How long the first of the changes that are not in force has waited.
    pub waiting: Option<Duration>,
    /// Nothing waits for too long.
    pub healthy: bool,
    /// The node should get traffic from outside.
    pub eligible: bool,
}

impl Health {
    /// Nothing queued, nothing synced. With an API server a node that was not seen is not eligible; without
    /// one there is nobody to announce it.
    pub fn new(sync_period: Duration, eligible: bool) -> Self {
        Self {
            state: Mutex::new(State {
                queued: None,
                synced: None,
                eligible,
            }),
            patience: sync_period * 2,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // The state is plain data: whoever panicked with the lock held left it whole.
        act(&mut self.state.lock().unwrap_or_else(|poison| poison.into_inner()))
    }

    /// A change waits to be put in force. The first one counts.
    pub fn queued(&self, now: Instant) {
        self.with(|state| state.queued = state.queued.or(Some(now)));
    }

    /// Everything that waited is in force.
    pub fn synced(&self, now: Timestamp) {
        self.with(|state| {
            state.queued = None;
            state.synced = Some(now);
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
        let waiting = state.queued.map(|queued| now.saturating_duration_since(queued));
        Report {
            synced: state.synced,
            waiting,
            healthy: waiting.is_none_or(|waiting| waiting < self.patience),
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
        health.synced(Timestamp::UNIX_EPOCH);
        let report = health.report(at(5000));
        assert!(report.healthy);
        assert_eq!(report.synced, Some(Timestamp::UNIX_EPOCH));
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
