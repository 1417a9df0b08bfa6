//! A resource that can be done without, and that the server does not serve or does not let us have.

use std::time::Duration;

use kube_proxy::model::change::Kind;
use kube_proxy::source::api::Timing;
use lab::api::{Fault, Resource, Rule, StreamFault};

use crate::observer::{Observed, Observer, eventually};
use crate::stage::{Stage, TIMING, node, service, service_cidr, slice};

/// A server of which ServiceCIDRs are not to be had.
fn without_service_cidrs(code: u16) -> Stage {
    let stage = Stage::in_process();
    let retry_after = None;
    let refusal = Rule::new(Fault::Status { code, retry_after });
    stage.server().inject(refusal.on(Resource::ServiceCidrs));
    stage
}

fn has_the_others(observed: &Observed) -> bool {
    [Kind::Service, Kind::EndpointSlice, Kind::Node]
        .into_iter()
        .all(|kind| observed.lists(kind) == 1)
}

fn watches_the_others(observer: &Observer) -> bool {
    ["services", "endpointslices", "nodes"]
        .into_iter()
        .all(|resource| observer.is_watching(resource))
}

#[test]
fn the_other_watches_go_on_as_if_nothing_was_missing() {
    for code in [403, 404] {
        let stage = without_service_cidrs(code);
        stage.apply(&service("a", "", ""));
        let observer = stage.observe();
        observer.until("the others", has_the_others);
        eventually("refusals", || observer.failures("servicecidrs", "status") > 2);
        stage.apply(&service("b", "", ""));
        stage.apply(&slice("b-1", "b", "", &["10.244.0.5"]));
        stage.apply(&node(crate::stage::NODE, "zone-1"));
        let observed = observer.until("what was created", |observed| {
            observed.service("b").is_some() && observed.slice("b-1").is_some() && !observed.nodes.is_empty()
        });
        assert!(has_the_others(&observed), "{code}: no list was made anew");
        assert!(watches_the_others(&observer), "{code}");
        for resource in [Resource::Services, Resource::EndpointSlices, Resource::Nodes] {
            assert_eq!(
                stage.server().requests_for(resource).len(),
                1,
                "{code}: {resource}"
            );
        }
        assert_eq!(observed.lists(Kind::ServiceCidr), 0);
        // An alert on a watch that is down must not go off for a server that has none.
        let metrics = observer.metrics.text().expect("metrics");
        assert!(
            !metrics.contains("kubeproxy_api_watching{resource=\"servicecidrs\"}"),
            "{metrics}"
        );
    }
}

#[test]
fn what_was_missing_is_told_once_the_server_gives_it() {
    for code in [403, 404] {
        let stage = without_service_cidrs(code);
        let observer = stage.observe();
        eventually("refusals", || observer.failures("servicecidrs", "status") > 2);
        stage.apply(&service_cidr("more", "10.98.0.0/16"));
        stage.server().clear_faults();
        observer.until("the ServiceCIDR", |observed| {
            observed.service_cidr("more").is_some()
        });
        assert!(observer.is_watching("servicecidrs"), "{code}");
    }
}

#[test]
fn what_is_known_stays_when_the_right_to_it_is_taken_away() {
    let stage = Stage::in_process();
    stage.apply(&service_cidr("more", "10.98.0.0/16"));
    let observer = stage.observe();
    observer.first_state();
    let retry_after = None;
    let refusal = Rule::new(Fault::Status {
        code: 403,
        retry_after,
    });
    stage.server().inject(refusal.on(Resource::ServiceCidrs));
    stage
        .server()
        .spoil_watches(Resource::ServiceCidrs, StreamFault::End);
    stage.apply(&service_cidr("another", "10.99.0.0/16"));
    eventually("refusals", || observer.failures("servicecidrs", "status") > 2);
    assert!(observer.now().service_cidr("more").is_some());
    stage.server().clear_faults();
    let observed = observer.until("what was missed", |observed| {
        observed.service_cidr("another").is_some()
    });
    assert!(observed.service_cidr("more").is_some());
}

#[test]
fn a_missing_resource_is_not_asked_for_in_other_ways_and_not_again_for_long() {
    let stage = without_service_cidrs(404);
    let calm = Timing {
        first_retry: Duration::from_secs(3600),
        longest_retry_of_missing: Duration::from_secs(3600),
        ..TIMING
    };
    let observer = stage.observe_with(stage.options(), calm);
    observer.until("the others", has_the_others);
    eventually("a refusal", || observer.failures("servicecidrs", "status") == 1);
    for number in 0..20 {
        let name = format!("s-{number}");
        stage.apply(&service(&name, "", ""));
        observer.until("the Service", |observed| observed.service(&name).is_some());
    }
    assert_eq!(stage.server().requests_for(Resource::ServiceCidrs).len(), 1);
}
