//! Events come to the API server, whatever it does meanwhile.

use kube_proxy::config::Mode;
use kube_proxy::events::{Event, EventType, Regarding};
use kube_proxy::model::object::ObjectName;
use lab::api::Resource;

use crate::observer::{Observer, eventually};
use crate::stage::Stage;

fn record(observer: &Observer, service: &str) {
    observer.recorder.record(Event {
        regarding: Regarding::Service(ObjectName::new("shop", service)),
        event_type: EventType::Warning,
        reason: "FailedToStartServiceHealthcheck",
        action: "Listen",
        note: "the port is taken".to_owned(),
    });
}

/// The names of the objects that Events are about.
fn told(stage: &Stage) -> Vec<String> {
    let events = stage.server().all(Resource::Events);
    let name = |event: &serde_json::Value| event["regarding"]["name"].as_str().expect("a name").to_owned();
    events.iter().map(name).collect()
}

#[test]
fn what_is_recorded_is_an_event_of_its_object() {
    let stage = Stage::in_process();
    let observer = stage.observe();
    observer.recorder.started(Mode::Nftables);
    record(&observer, "web");
    eventually("two Events", || told(&stage).len() == 2);
    let events = stage.server().all(Resource::Events);
    let node = &events[0];
    assert_eq!(
        (&node["reason"], &node["type"]),
        (&"Starting".into(), &"Normal".into())
    );
    assert_eq!(node["regarding"]["kind"], "Node");
    assert_eq!(node["metadata"]["namespace"], "default");
    let service = &events[1];
    assert_eq!(service["metadata"]["namespace"], "shop");
    assert_eq!(service["note"], "the port is taken");
    assert_eq!(service["reportingController"], "kube-proxy");
}

#[test]
fn an_event_waits_for_a_server_that_is_away() {
    let stage = Stage::in_process();
    let observer = stage.observe();
    observer.first_state();
    stage.server().refuse_connections(true);
    record(&observer, "web");
    eventually("a lost watch", || !observer.is_watching("services"));
    stage.server().refuse_connections(false);
    eventually("the Event", || told(&stage) == ["web"]);
}

#[test]
fn an_event_that_may_not_be_written_holds_nothing_up() {
    let stage = Stage::in_process();
    let observer = stage.observe();
    observer.first_state();
    stage.server().set_token("another").expect("a new token");
    record(&observer, "refused");
    let refused = || {
        let asked = stage.server().requests_for(Resource::Events);
        asked.last().is_some_and(|request| request.status == 401)
    };
    eventually("a refusal", refused);
    stage.server().set_token("lab-token").expect("the old token");
    record(&observer, "web");
    eventually("the next Event", || told(&stage) == ["web"]);
    assert!(observer.is_watching("services"));
}
