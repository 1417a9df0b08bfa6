//! What is remembered of changes for the metrics: how long ago that happened which made EndpointSlices change, and which
//! Services have all their endpoints on other nodes although their policy is Local.

use std::collections::HashMap;
use std::time::SystemTime;

use super::FAMILIES;
use crate::metrics::Metrics;
use crate::model::object::{Family, ObjectName};
use crate::model::view::ServiceView;

/// The values of `traffic_policy`, in the order of [`Lacking`].
const POLICIES: [&str; 2] = ["internal", "external"];

/// How many ports of a Service lack endpoints here, by policy and family.
type Lacking = [[i64; 2]; 2];

#[derive(Debug)]
pub(super) struct Measures {
    /// What was under way before this program was there says nothing about it.
    since: SystemTime,
    /// By slice, its family, and when it happened; not yet in force.
    triggers: Vec<(ObjectName, Family, SystemTime)>,
    lacking: HashMap<ObjectName, Lacking>,
    /// All of them together.
    lacking_now: Lacking,
    /// What the last slice took, in seconds.
    lag: Option<f64>,
}

impl Measures {
    /// Nothing is known; counts what happens after `since`.
    pub(super) fn new(since: SystemTime) -> Self {
        Self {
            since,
            triggers: Vec::new(),
            lacking: HashMap::new(),
            lacking_now: Lacking::default(),
            lag: None,
        }
    }

    /// How long it took from what made the last EndpointSlice change until that was in force, in seconds.
    pub(super) fn lag(&self) -> Option<f64> {
        self.lag
    }

    /// A slice says something new.
    pub(super) fn slice_changed(&mut self, name: ObjectName, family: Family, trigger: Option<SystemTime>) {
        if let Some(trigger) = trigger.filter(|trigger| *trigger > self.since) {
            self.triggers.push((name, family, trigger));
        }
    }

    /// A slice is gone. Its annotation is that of an earlier change, which is in force or never will be.
    pub(super) fn slice_gone(&mut self, name: &ObjectName) {
        self.triggers.retain(|(slice, ..)| slice != name);
    }

    /// This is what becomes of a Service.
    pub(super) fn resolved(&mut self, name: &ObjectName, view: Option<&ServiceView>) {
        let mut lacking = Lacking::default();
        for port in view.iter().flat_map(|view| &view.ports) {
            let family = port.family as usize;
            lacking[0][family] += i64::from(port.lacks_internal_endpoints());
            lacking[1][family] += i64::from(port.lacks_external_endpoints());
        }
        let before = if lacking == Lacking::default() {
            self.lacking.remove(name)
        } else {
            self.lacking.insert(name.clone(), lacking)
        };
        let before = before.unwrap_or_default();
        for (policy, now) in self.lacking_now.iter_mut().enumerate() {
            for (family, now) in now.iter_mut().enumerate() {
                *now += lacking[policy][family] - before[policy][family];
            }
        }
    }

    /// All of it is in force, in the families that are programmed.
    pub(super) fn in_force(&mut self, programmed: &[Family], now: SystemTime, metrics: &Metrics) {
        for (_, family, trigger) in self.triggers.drain(..) {
            if let (true, Ok(took)) = (programmed.contains(&family), now.duration_since(trigger)) {
                let seconds = metrics
                    .network_programming
                    .with_label_values(&[FAMILIES[family as usize]]);
                seconds.observe(took.as_secs_f64());
                self.lag = Some(took.as_secs_f64());
            }
        }
        for (policy, name) in POLICIES.into_iter().enumerate() {
            for family in programmed {
                let gauge = metrics
                    .no_local_endpoints
                    .with_label_values(&[name, FAMILIES[*family as usize]]);
                gauge.set(self.lacking_now[policy][*family as usize]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::object::TrafficPolicy::{Cluster, Local};
    use crate::model::testing::{name, service, slice, view_of};

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn the_time_from_what_happened_until_it_is_in_force_is_measured_for_each_slice() {
        let metrics = Metrics::new().unwrap();
        let mut measures = Measures::new(at(100));
        let [a, b] = ["ns/a", "ns/b"].map(name);
        measures.slice_changed(a.clone(), Family::V4, Some(at(99)));
        measures.slice_changed(a.clone(), Family::V4, None);
        measures.slice_changed(a.clone(), Family::V4, Some(at(101)));
        measures.slice_changed(a, Family::V4, Some(at(103)));
        measures.slice_changed(b.clone(), Family::V4, Some(at(103)));
        measures.slice_gone(&b);
        measures.slice_changed(b, Family::V6, Some(at(103)));
        measures.in_force(&[Family::V4], at(104), &metrics);
        measures.in_force(&[Family::V4], at(1000), &metrics);
        let of_family = |family| metrics.network_programming.with_label_values(&[family]);
        let v4 = of_family("IPv4");
        assert_eq!((v4.get_sample_count(), v4.get_sample_sum()), (2, 4.0));
        assert_eq!(of_family("IPv6").get_sample_count(), 0);
    }

    #[test]
    fn ports_without_endpoints_here_are_counted_by_policy_and_family_until_they_have_one() {
        let metrics = Metrics::new().unwrap();
        let mut measures = Measures::new(START);
        let of = |policies: (_, _), endpoint: &str| {
            let service =
                service("ns/web", "10.0.0.1", "p/TCP:80:30080").with_policies(policies.0, policies.1);
            let service = service.of_type(crate::model::object::ServiceType::NodePort);
            view_of(&service, &[slice("ns/web-a", "web", "p/TCP:80", &[endpoint])])
        };
        let [web, api] = ["ns/web", "ns/api"].map(name);
        let mut counts = |changes: &[(&ObjectName, Option<ServiceView>)]| {
            for (name, view) in changes {
                measures.resolved(name, view.as_ref());
            }
            measures.in_force(&[Family::V4], START, &metrics);
            POLICIES.map(|policy| {
                metrics
                    .no_local_endpoints
                    .with_label_values(&[policy, "IPv4"])
                    .get()
            })
        };
        let (both, outside) = ((Local, Local), (Cluster, Local));
        let all = [
            (&web, Some(of(both, "10.1.0.1"))),
            (&api, Some(of(outside, "10.1.0.1"))),
        ];
        assert_eq!(counts(&all), [1, 2]);
        assert_eq!(counts(&[(&web, Some(of(both, "10.1.0.1 local")))]), [0, 1]);
        assert_eq!(counts(&[(&api, None)]), [0, 0]);
        assert!(
            !metrics.text().unwrap().contains("IPv6\",traffic_policy"),
            "it is not programmed"
        );
    }
}
