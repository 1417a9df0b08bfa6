//! Connections that break, servers that forget, and clusters that go back in time.

use std::time::Duration;

use kube_proxy::model::change::Kind;
use kube_proxy::source::api::Timing;
use lab::api::{Fault, Resource, Rule, Server, StreamFault, Verb};

use crate::observer::{Observer, eventually};
use crate::stage::{Stage, TIMING, service, slice};

/// A stage with Services `a` and `b` and a slice of each, observed.
fn two_services() -> (Stage, Observer) {
    let stage = Stage::in_process();
    for name in ["a", "b"] {
        stage.apply(&service(name, "", ""));
        stage.apply(&slice(&format!("{name}-1"), name, "", &["10.244.0.5"]));
    }
    let observer = stage.observe();
    observer.first_state();
    watching(stage.server());
    (stage, observer)
}

/// Waits until all three watches are open.
fn watching(server: &Server) {
    eventually("three open watches", || {
        [Resource::Services, Resource::EndpointSlices, Resource::Nodes]
            .into_iter()
            .all(|resource| server.watchers(resource) == 1)
    });
}

#[test]
fn a_deletion_missed_while_disconnected_is_noticed_at_the_relist() {
    let (stage, observer) = two_services();
    let server = stage.server();
    server.refuse_connections(true);
    stage.delete(Resource::Services, "a");
    stage.delete(Resource::EndpointSlices, "a-1");
    stage.apply(&service("c", "", ""));
    // The history since then is forgotten, so that only a list can tell.
    server.compact();
    server.refuse_connections(false);
    let observed = observer.until("the deletions", |observed| {
        observed.service("a").is_none() && observed.slice("a-1").is_none()
    });
    assert_eq!(observed.service_names(), ["b", "c"]);
    assert!(observed.slice("b-1").is_some());
    assert_eq!(observed.lists(Kind::Service), 2);
    assert_eq!(observer.failures("services", "expired"), 1);
}

#[test]
fn a_deletion_missed_while_disconnected_is_noticed_without_streaming_lists_too() {
    let stage = Stage::in_process();
    stage.server().set_streaming_lists(false);
    for name in ["a", "b"] {
        stage.apply(&service(name, "", ""));
    }
    let observer = stage.observe();
    observer.first_state();
    stage.server().refuse_connections(true);
    stage.delete(Resource::Services, "a");
    stage.server().compact();
    stage.server().refuse_connections(false);
    let observed = observer.until("the deletion", |observed| observed.service("a").is_none());
    assert_eq!(observed.service_names(), ["b"]);
}

#[test]
fn a_short_disconnection_is_bridged_without_a_new_list() {
    let (stage, observer) = two_services();
    let server = stage.server();
    for round in 1..=3 {
        server.refuse_connections(true);
        stage.delete(Resource::Services, "a");
        stage.apply(&slice("b-1", "b", "", &[&format!("10.244.1.{round}")]));
        server.refuse_connections(false);
        observer.until("the deletion", |observed| observed.service("a").is_none());
        watching(server);
        stage.apply(&service("a", "", ""));
        observer.until("the Service again", |observed| observed.service("a").is_some());
    }
    let observed = observer.now();
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node] {
        assert_eq!(observed.lists(kind), 1, "{kind:?}");
    }
}

#[test]
fn while_the_server_is_away_what_is_known_stays_and_the_metric_says_so() {
    let (stage, observer) = two_services();
    let before = observer.now();
    assert!(observer.is_watching("services"));
    stage.server().refuse_connections(true);
    eventually("some failed tries", || {
        observer.failures("services", "connect") > 3
    });
    assert!(!observer.is_watching("services"));
    let after = observer.now();
    assert_eq!(after.changes, before.changes);
    stage.server().refuse_connections(false);
    eventually("the watch again", || observer.is_watching("services"));
}

#[test]
fn a_server_that_is_not_there_at_start_is_waited_for() {
    let stage = Stage::in_process();
    stage.server().refuse_connections(true);
    stage.apply(&service("a", "", ""));
    let observer = stage.observe();
    eventually("some failed tries", || observer.failures("nodes", "connect") > 2);
    assert!(observer.now().changes.is_empty());
    stage.server().refuse_connections(false);
    assert_eq!(observer.first_state().service_names(), ["a"]);
}

#[test]
fn an_expired_error_event_leads_to_a_new_list() {
    let (stage, observer) = two_services();
    let server = stage.server();
    // What happened before the error is told by the list at the latest.
    server.spoil_watches(Resource::Services, StreamFault::Lose(1));
    stage.delete(Resource::Services, "a");
    server.spoil_watches(Resource::Services, StreamFault::Error(410));
    let observed = observer.until("the deletion", |observed| observed.service("a").is_none());
    assert_eq!(observed.lists(Kind::Service), 2);
    assert_eq!(observed.lists(Kind::EndpointSlice), 1);
}

#[test]
fn a_version_that_the_server_answers_with_410_leads_to_a_new_list() {
    let (stage, observer) = two_services();
    let server = stage.server();
    let gone = Fault::Status {
        code: 410,
        retry_after: None,
    };
    server.inject(Rule::new(gone).on(Resource::Services).when(Verb::Watch).times(1));
    server.spoil_watches(Resource::Services, StreamFault::End);
    observer.until("a new list", |observed| observed.lists(Kind::Service) == 2);
    stage.delete(Resource::Services, "a");
    observer.until("the deletion", |observed| observed.service("a").is_none());
}

#[test]
fn a_watch_that_breaks_goes_on_where_it_was() {
    for fault in [
        StreamFault::Cut,
        StreamFault::CutMidFrame,
        StreamFault::Garbage,
        StreamFault::End,
    ] {
        let (stage, observer) = two_services();
        stage.server().spoil_watches(Resource::Services, fault.clone());
        stage.delete(Resource::Services, "a");
        stage.apply(&service("c", "", ""));
        let observed = observer.until("the Service behind the fault", |observed| {
            observed.service("c").is_some()
        });
        assert_eq!(observed.service_names(), ["b", "c"], "{fault:?}");
        assert_eq!(observed.lists(Kind::Service), 1, "{fault:?}");
    }
}

#[test]
fn a_first_list_that_breaks_midway_opens_nothing() {
    for fault in [Fault::CutAfter(700), Fault::Garbage, Fault::HangUp] {
        let stage = Stage::in_process();
        for name in ["a", "b", "c"] {
            stage.apply(&service(name, "", ""));
        }
        let always = Rule::new(fault.clone()).on(Resource::Services);
        stage.server().inject(always);
        let observer = stage.observe();
        eventually("some tries", || {
            stage.server().requests_for(Resource::Services).len() > 4
        });
        assert_eq!(observer.now().lists(Kind::Service), 0, "{fault:?}");
        stage.server().clear_faults();
        assert_eq!(
            observer.first_state().service_names(),
            ["a", "b", "c"],
            "{fault:?}"
        );
    }
}

#[test]
fn a_cluster_that_is_restored_from_a_backup_is_listed_anew() {
    let server = Server::builder().bookmark_interval(Duration::from_millis(40));
    let stage = Stage::of(server.start().expect("the in-process API starts"));
    for name in ["a", "b"] {
        stage.apply(&service(name, "", ""));
    }
    let timing = Timing {
        idle: Duration::from_millis(200),
        ..TIMING
    };
    let observer = stage.observe_with(stage.options(), timing);
    observer.first_state();
    let server = stage.server();
    let backup = server.backup();
    stage.delete(Resource::Services, "a");
    for name in ["c", "d", "e"] {
        stage.apply(&service(name, "", ""));
    }
    observer.until("the later state", |observed| {
        observed.service_names() == ["b", "c", "d", "e"]
    });
    // To a watch from a version that is now in the future the server says nothing, not even bookmarks. Asked
    // for a list as new as that, it says that there is no such version.
    server.restore(&backup);
    stage.apply(&service("f", "", ""));
    observer.until("the earlier state and what came after it", |observed| {
        observed.service_names() == ["a", "b", "f"]
    });
}
