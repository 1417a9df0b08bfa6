//! What is asked, and what is asked instead when the server does not serve that.

use kube_proxy::model::change::Kind;
use lab::api::{Fault, Request, Resource, Rule, Verb};

use crate::observer::eventually;
use crate::stage::{NODE, Stage, service};

/// The requests that began with a list: until and including the first watch from a version.
fn requests(stage: &Stage, resource: Resource) -> Vec<Request> {
    let asked = || stage.server().requests_for(resource);
    let is_plain_watch =
        |request: &Request| request.is_watch() && request.parameter("sendInitialEvents").is_none();
    eventually("a watch", || asked().iter().any(is_plain_watch));
    let mut asked = asked();
    let end = asked.iter().position(is_plain_watch).expect("just seen");
    asked.truncate(end + 1);
    asked
}

#[test]
fn exactly_upstreams_objects_are_asked_for_in_protobuf_by_streaming_lists() {
    let stage = Stage::in_process();
    let observer = stage.observe();
    observer.first_state();
    let by_name = format!("metadata.name={NODE}");
    let cases = [
        (
            Resource::Services,
            "/api/v1/services",
            Some("!service.kubernetes.io/service-proxy-name"),
            Some("spec.clusterIP!=None"),
        ),
        (
            Resource::EndpointSlices,
            "/apis/discovery.k8s.io/v1/endpointslices",
            Some("!service.kubernetes.io/headless"),
            None,
        ),
        (Resource::Nodes, "/api/v1/nodes", None, Some(by_name.as_str())),
        (
            Resource::ServiceCidrs,
            "/apis/networking.k8s.io/v1/servicecidrs",
            None,
            None,
        ),
    ];
    for (resource, path, labels, fields) in cases {
        let asked = stage.server().requests_for(resource);
        let request = asked.first().expect("a request");
        assert_eq!(request.path, path);
        assert_eq!(request.parameter("labelSelector"), labels);
        assert_eq!(request.parameter("fieldSelector"), fields);
        assert!(request.is_watch());
        assert_eq!(request.parameter("sendInitialEvents"), Some("true"));
        assert_eq!(request.parameter("resourceVersionMatch"), Some("NotOlderThan"));
        assert_eq!(request.parameter("allowWatchBookmarks"), Some("true"));
        assert!(
            request.accept.starts_with("application/vnd.kubernetes.protobuf,"),
            "{}",
            request.accept
        );
        assert!(
            request.user_agent.starts_with("kube-proxy/"),
            "{}",
            request.user_agent
        );
        assert_eq!(asked.len(), 1, "the list goes on as the watch");
    }
}

#[test]
fn without_streaming_lists_a_list_and_a_watch_from_its_version_are_used() {
    let stage = Stage::in_process();
    let server = stage.server();
    server.set_streaming_lists(false);
    stage.apply(&service("a", "", ""));
    let observer = stage.observe();
    assert_eq!(observer.first_state().service_names(), ["a"]);
    let asked = requests(&stage, Resource::Services);
    let statuses: Vec<u16> = asked.iter().map(|request| request.status).collect();
    assert_eq!(statuses[..2], [422, 200]);
    assert_eq!(asked[1].parameter("resourceVersion"), Some("0"));
    assert_eq!(asked[1].parameter("limit"), Some("500"));
    let version = server.version().to_string();
    assert_eq!(asked[2].parameter("resourceVersion"), Some(version.as_str()));
    assert_eq!(asked[2].parameter("allowWatchBookmarks"), Some("true"));
}

/// A server that serves neither streaming lists nor lists from a cache, with so many Services.
fn paging(services: usize) -> Stage {
    let stage = Stage::in_process();
    stage.server().set_streaming_lists(false);
    stage.server().set_list_cache(false);
    for number in 0..services {
        stage.apply(&service(&format!("s-{number:04}"), "", ""));
    }
    stage
}

#[test]
fn a_list_comes_in_pages_from_a_server_that_pages() {
    let stage = paging(1201);
    let observer = stage.observe();
    let observed = observer.first_state();
    assert_eq!(observed.services.len(), 1201);
    assert_eq!(observed.lists(Kind::Service), 1);
    let asked = requests(&stage, Resource::Services);
    let is_page = |request: &&Request| request.parameter("limit") == Some("500");
    let tokens = asked
        .iter()
        .filter(is_page)
        .map(|page| page.parameter("continue").is_some());
    assert_eq!(tokens.collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn pages_that_expire_midway_give_way_to_a_whole_list() {
    let stage = paging(700);
    let forgetful = Rule::new(Fault::Forget).on(Resource::Services).when(Verb::List);
    stage.server().inject(forgetful);
    let observer = stage.observe();
    assert_eq!(observer.first_state().services.len(), 700);
    let asked = requests(&stage, Resource::Services);
    let statuses: Vec<u16> = asked.iter().map(|request| request.status).collect();
    // Streaming list, first page, second page, whole list, watch.
    assert_eq!(statuses[..4], [422, 200, 410, 200]);
    assert_eq!(asked[3].parameter("limit"), None);
}

#[test]
fn when_protobuf_is_refused_json_is_used() {
    let stage = Stage::in_process();
    stage.server().set_protobuf(false);
    stage.apply(&service("a", "", ""));
    let observer = stage.observe();
    assert_eq!(observer.first_state().service_names(), ["a"]);
    stage.delete(Resource::Services, "a");
    observer.until("the deletion", |observed| observed.service("a").is_none());
}

#[test]
fn when_only_protobuf_is_asked_for_and_refused_json_is_asked_for() {
    let stage = Stage::in_process();
    stage.server().set_protobuf(false);
    stage.apply(&service("a", "", ""));
    let mut options = stage.options();
    options.accept_content_types = "application/vnd.kubernetes.protobuf".to_owned();
    let observer = stage.observe_with(options, crate::stage::TIMING);
    assert_eq!(observer.first_state().service_names(), ["a"]);
    let asked = stage.server().requests_for(Resource::Services);
    assert_eq!(asked.first().map(|request| request.status), Some(406));
    assert_eq!(
        asked.last().map(|request| request.accept.as_str()),
        Some("application/json")
    );
}

#[test]
fn an_answer_of_a_wrong_content_type_is_not_read() {
    let stage = Stage::in_process();
    stage.apply(&service("a", "", ""));
    let html = Rule::new(Fault::ContentType("text/html")).on(Resource::Services);
    stage.server().inject(html.times(3));
    let observer = stage.observe();
    assert_eq!(observer.first_state().service_names(), ["a"]);
    assert!(observer.failures("services", "decode") >= 3);
}
