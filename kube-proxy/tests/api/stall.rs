//! Connections that stay open and say nothing.

use std::time::Duration;

use kube_proxy::model::change::Kind;
use kube_proxy::source::api::Timing;
use lab::api::{Fault, Resource, Rule, Server, StreamFault, Verb};

use crate::observer::{Observer, eventually};
use crate::stage::{Stage, TIMING, service};

/// Little patience; the server's bookmarks come five times as often, so that healthy watches are kept.
const IMPATIENT: Timing = Timing {
    list: Duration::from_millis(500),
    initial_events: Duration::from_millis(500),
    idle: Duration::from_millis(500),
    ..TIMING
};

fn observed_impatiently() -> (Stage, Observer) {
    let server = Server::builder().bookmark_interval(Duration::from_millis(100));
    let stage = Stage::of(server.start().expect("the in-process API starts"));
    stage.apply(&service("a", "", ""));
    let observer = stage.observe_with(stage.options(), IMPATIENT);
    (stage, observer)
}

#[test]
fn a_watch_that_stalls_is_replaced_and_what_it_missed_is_told() {
    for fault in [StreamFault::Stall, StreamFault::StallMidFrame] {
        let (stage, observer) = observed_impatiently();
        observer.first_state();
        stage.server().spoil_watches(Resource::Services, fault.clone());
        stage.apply(&service("b", "", ""));
        stage.delete(Resource::Services, "a");
        let observed = observer.until("what the stalled watch missed", |observed| {
            observed.service_names() == ["b"]
        });
        assert_eq!(observed.lists(Kind::Service), 1, "{fault:?}");
        assert!(observer.failures("services", "stalled") > 0, "{fault:?}");
    }
}

#[test]
fn a_watch_that_gets_bookmarks_is_not_taken_for_stalled() {
    let (_stage, observer) = observed_impatiently();
    observer.first_state();
    // Five times as long as the patience with silence. One stall may be this machine's own.
    std::thread::sleep(IMPATIENT.idle * 5);
    assert!(observer.failures("services", "stalled") <= 1);
}

#[test]
fn a_streaming_list_that_stalls_gives_way_to_a_paged_one() {
    let stall = |stage: &Stage| {
        let stalled = Rule::new(Fault::StallAfter(300))
            .on(Resource::Services)
            .when(Verb::Watch);
        stage.server().inject(stalled.times(1));
    };
    let (stage, observer) = observed_impatiently();
    observer.first_state();
    stall(&stage);
    stage
        .server()
        .spoil_watches(Resource::Services, StreamFault::Error(410));
    observer.until("a new list", |observed| observed.lists(Kind::Service) == 2);
    let requests = stage.server().requests_for(Resource::Services);
    assert!(
        requests
            .iter()
            .any(|request| request.parameter("limit").is_some() || !request.is_watch())
    );
}

#[test]
fn a_list_that_stalls_is_asked_for_again() {
    let (stage, observer) = {
        let server = Server::start().expect("the in-process API starts");
        server.set_streaming_lists(false);
        let stalled = Rule::new(Fault::StallAfter(40)).when(Verb::List).times(3);
        server.inject(stalled);
        let stage = Stage::of(server);
        stage.apply(&service("a", "", ""));
        let observer = stage.observe_with(stage.options(), IMPATIENT);
        (stage, observer)
    };
    assert_eq!(observer.first_state().service_names(), ["a"]);
    let lists = stage.server().requests();
    assert!(lists.iter().filter(|request| !request.is_watch()).count() >= 6);
}

#[test]
fn an_answer_that_does_not_begin_is_given_up() {
    let (stage, observer) = observed_impatiently();
    observer.first_state();
    let never = Rule::new(Fault::Delay(Duration::from_secs(600)))
        .on(Resource::Services)
        .times(1);
    stage.server().inject(never);
    stage.server().spoil_watches(Resource::Services, StreamFault::End);
    stage.apply(&service("b", "", ""));
    observer.until("the Service", |observed| observed.service("b").is_some());
    assert!(observer.failures("services", "stalled") > 0);
}

#[test]
fn a_slow_list_is_waited_for_as_long_as_it_moves() {
    let server = Server::start().expect("the in-process API starts");
    server.set_streaming_lists(false);
    let stage = Stage::of(server);
    for name in ["a", "b", "c"] {
        stage.apply(&service(name, "", ""));
    }
    // Together longer than the patience with a list, so that it would never be had; each piece well within it.
    let slow = Rule::new(Fault::Slow(100, Duration::from_millis(60)));
    let slow = slow.on(Resource::Services).when(Verb::List);
    stage.server().inject(slow);
    let observer = stage.observe_with(stage.options(), IMPATIENT);
    assert_eq!(observer.first_state().service_names(), ["a", "b", "c"]);
    eventually("the watch", || stage.server().watchers(Resource::Services) == 1);
}
