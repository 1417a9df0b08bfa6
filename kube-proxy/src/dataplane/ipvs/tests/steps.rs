//! From what the kernel holds to what is wanted.

use std::collections::BTreeMap;

use super::super::entry::{Scheduler, Server, Weight};
use super::super::steps::{Held, Step, after, leaves, steps};
use super::{backend, server, settings};

const A: &str = "10.180.0.1:8080";
const B: &str = "10.180.0.2:8080";
const C: &str = "10.180.0.3:8080";

fn held(scheduler: &str, endpoints: &[(&str, Weight)]) -> Held {
    Held {
        settings: settings(scheduler, None),
        is_usual: true,
        endpoints: endpoints
            .iter()
            .map(|(text, weight)| (backend(text), *weight))
            .collect(),
    }
}

fn shown(steps: &[Step]) -> Vec<String> {
    let shown = |step: &Step| match step {
        Step::NewServer(settings) => format!("new {}", settings.scheduler.name()),
        Step::SetServer(settings) => format!("set {}", settings.scheduler.name()),
        Step::DeleteServer => "delete".to_owned(),
        Step::NewEndpoint(backend, weight) => format!("+{} {weight}", backend.ip),
        Step::SetEndpoint(backend, weight) => format!("={} {weight}", backend.ip),
        Step::DeleteEndpoint(backend) => format!("-{}", backend.ip),
    };
    steps.iter().map(shown).collect()
}

#[test]
fn only_what_differs_is_changed_and_what_comes_comes_first() {
    struct Case<'a> {
        what: &'a str,
        held: Option<Held>,
        wanted: Option<Server>,
        steps: &'a [&'a str],
    }
    let table = [
        Case {
            what: "a new one",
            held: None,
            wanted: Some(server("rr", &[(A, 1), (B, 1)])),
            steps: &["new rr", "+10.180.0.1 1", "+10.180.0.2 1"],
        },
        Case {
            what: "the same",
            held: Some(held("rr", &[(A, 1), (B, 1)])),
            wanted: Some(server("rr", &[(A, 1), (B, 1)])),
            steps: &[],
        },
        Case {
            what: "one endpoint replaced: its connections may go on",
            held: Some(held("rr", &[(A, 1), (B, 1)])),
            wanted: Some(server("rr", &[(A, 1), (C, 1)])),
            steps: &["+10.180.0.3 1", "=10.180.0.2 0"],
        },
        Case {
            what: "one that was to go comes back, and one stays on its way",
            held: Some(held("rr", &[(A, 0), (B, 0), (C, 1)])),
            wanted: Some(server("rr", &[(A, 1), (C, 1)])),
            steps: &["=10.180.0.1 1"],
        },
        Case {
            what: "weights and scheduler, with all connections kept",
            held: Some(held("rr", &[(A, 1), (B, 1)])),
            wanted: Some(server("wrr", &[(A, 3), (B, 1)])),
            steps: &["set wrr", "=10.180.0.1 3"],
        },
        Case {
            what: "the only one with a weight hands over to another one",
            held: Some(held("wrr", &[(A, 1), (B, 0)])),
            wanted: Some(server("wrr", &[(A, 0), (B, 2), (C, 0)])),
            steps: &["=10.180.0.2 2", "+10.180.0.3 0", "=10.180.0.1 0"],
        },
        Case {
            what: "no longer wanted, and endpoints may have something to finish",
            held: Some(held("rr", &[(A, 1), (B, 0)])),
            wanted: None,
            steps: &["=10.180.0.1 0"],
        },
        Case {
            what: "no longer wanted, and empty",
            held: Some(held("rr", &[])),
            wanted: None,
            steps: &["delete"],
        },
        Case {
            what: "a predecessor's with other flags",
            held: Some(Held {
                is_usual: false,
                ..held("rr", &[(A, 1)])
            }),
            wanted: Some(server("rr", &[(A, 1)])),
            steps: &["set rr"],
        },
    ];
    for case in table {
        let found = steps(case.held.as_ref(), case.wanted.as_ref(), &[]);
        assert_eq!(shown(&found), case.steps, "{}", case.what);
        let mut held = case.held;
        for step in &found {
            held = after(held, step);
        }
        let left = steps(held.as_ref(), case.wanted.as_ref(), &[]);
        assert!(left.is_empty(), "{}: {left:?}", case.what);
    }
}

#[test]
fn a_scheduler_that_the_kernel_lacks_is_replaced_by_round_robin() {
    let wanted = server("twos", &[(A, 1)]);
    let lacking = [Scheduler::named("twos")];
    let found = steps(None, Some(&wanted), &lacking);
    assert_eq!(shown(&found), ["new rr", "+10.180.0.1 1"]);
    // And it is not tried again and again.
    let found = steps(Some(&held("rr", &[(A, 1)])), Some(&wanted), &lacking);
    assert!(found.is_empty());
}

#[test]
fn what_stays_for_its_connections_alone_is_known() {
    let held = held("rr", &[(A, 0), (B, 1)]);
    let going = |wanted: Option<&Server>| leaves(&held, wanted).copied().collect::<Vec<_>>();
    // An endpoint may be wanted without new connections.
    assert!(going(Some(&server("rr", &[(A, 0), (B, 1)]))).is_empty());
    assert_eq!(going(Some(&server("rr", &[(B, 1)]))), [backend(A)]);
    assert_eq!(going(None), [backend(A), backend(B)]);
    let empty = Held {
        endpoints: BTreeMap::new(),
        ..held.clone()
    };
    assert_eq!(leaves(&empty, None).count(), 0);
}

#[test]
fn an_endpoint_that_keeps_flows_gets_no_new_ones_and_stays_for_as_long_as_it_does() {
    let held = held("rr", &[(A, 1), (B, 1), (C, 0)]);
    let mut wanted = server("rr", &[(B, 1)]);
    wanted.keeping = vec![backend(A)];
    assert_eq!(shown(&steps(Some(&held), Some(&wanted), &[])), ["=10.180.0.1 0"]);
    assert_eq!(leaves(&held, Some(&wanted)).collect::<Vec<_>>(), [&backend(C)]);
    assert_eq!(leaves(&held, None).count(), 3);
}
