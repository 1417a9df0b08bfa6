//! Which Services a change touches, and the list protocol.

use crate::model::change::{Change, Kind};
use crate::model::cluster::Cluster;
use crate::model::object::{EndpointSlice, ObjectName, Service};
use crate::model::testing::*;

fn web() -> Service {
    service("ns/web", "10.0.0.1", "p/TCP:80")
}

fn api() -> Service {
    service("ns/api", "10.0.0.2", "p/TCP:80")
}

fn web_slice(endpoints: &[&str]) -> EndpointSlice {
    slice("ns/web-a", "web", "p/TCP:80", endpoints)
}

fn upsert(service: Service) -> Change {
    Change::Service(Box::new(service))
}

fn upsert_slice(slice: EndpointSlice) -> Change {
    Change::EndpointSlice(Box::new(slice))
}

/// Applies all and names the Services that they touched.
fn touched(cluster: &mut Cluster, changes: impl IntoIterator<Item = Change>) -> Vec<ObjectName> {
    for change in changes {
        cluster.apply(change);
    }
    cluster.take_dirty()
}

#[test]
fn what_equals_the_held_state_touches_nothing() {
    let mut cluster = cluster(
        &[web(), api()],
        &[web_slice(&["10.1.0.1", "10.1.0.2 zone:a zone:b"])],
    );
    cluster.take_dirty();
    let cases = [
        ("the same Service", upsert(web())),
        (
            "the same slice",
            upsert_slice(web_slice(&["10.1.0.1", "10.1.0.2 zone:a zone:b"])),
        ),
        (
            "the same hints in another order",
            upsert_slice(web_slice(&["10.1.0.1", "10.1.0.2 zone:b zone:a"])),
        ),
        (
            "an unknown Service's deletion",
            Change::Deleted(Kind::Service, name("ns/x")),
        ),
        (
            "an unknown slice's deletion",
            Change::Deleted(Kind::EndpointSlice, name("ns/x")),
        ),
    ];
    for (case, change) in cases {
        assert_eq!(touched(&mut cluster, [change]), [], "{case}");
    }
    let mut elsewhere = web_slice(&["10.1.0.1", "10.1.0.2 zone:a zone:b"]);
    elsewhere.endpoints[0].node_name = Some("yet-another-node".into());
    assert_eq!(
        touched(&mut cluster, [upsert_slice(elsewhere)]),
        [],
        "a pod on another other node"
    );
}

#[test]
fn a_service_is_named_once_however_often_it_was_touched() {
    let mut cluster = Cluster::new(config());
    let changes = [
        upsert(web()),
        upsert(api()),
        upsert_slice(web_slice(&["10.1.0.1"])),
        upsert_slice(web_slice(&["10.1.0.2"])),
        upsert(service("ns/web", "10.0.0.1", "p/TCP:81")),
    ];
    assert_eq!(touched(&mut cluster, changes), [name("ns/api"), name("ns/web")]);
    assert_eq!(cluster.take_dirty(), []);
}

#[test]
fn a_cluster_is_synced_when_both_lists_are_complete() {
    use Kind::{EndpointSlice, Node, Service};
    let mut cluster = Cluster::new(config());
    let steps = [
        (Change::ListStart(Service), false),
        (upsert(web()), false),
        (Change::ListDone(Service), false),
        (Change::ListStart(Node), false),
        (Change::ListDone(Node), false),
        (Change::ListStart(EndpointSlice), false),
        (Change::ListDone(EndpointSlice), true),
        // A list that begins again takes nothing back.
        (Change::ListStart(Service), true),
    ];
    for (change, expected) in steps {
        let text = format!("{change:?}");
        cluster.apply(change);
        assert_eq!(cluster.is_synced(), expected, "{text}");
    }
}

#[test]
fn a_list_removes_the_services_that_it_does_not_name() {
    let mut cluster = cluster(&[web(), api()], &[]);
    cluster.take_dirty();
    let changes = [Change::ListStart(Kind::Service), upsert(web())];
    assert_eq!(
        touched(&mut cluster, changes),
        [],
        "until the list is complete, the old ones stay"
    );
    assert!(cluster.resolve(&api().name).is_some());
    assert_eq!(
        touched(&mut cluster, [Change::ListDone(Kind::Service)]),
        [api().name]
    );
    assert_eq!(cluster.resolve(&api().name), None);
    assert!(cluster.resolve(&web().name).is_some());
}

#[test]
fn a_list_removes_the_slices_that_it_does_not_name() {
    let other = slice("ns/web-b", "web", "p/TCP:80", &["10.1.0.2"]);
    let mut cluster = cluster(&[web()], &[web_slice(&["10.1.0.1"]), other.clone()]);
    cluster.take_dirty();
    let kind = Kind::EndpointSlice;
    let changes = [
        Change::ListStart(kind),
        upsert_slice(other),
        Change::ListDone(kind),
    ];
    assert_eq!(touched(&mut cluster, changes), [web().name]);
    assert_eq!(
        endpoints(&cluster.resolve(&web().name).unwrap()),
        ["p/TCP: 10.1.0.2:80 |"]
    );
}

#[test]
fn a_list_may_name_what_it_cannot_read() {
    let mut cluster = cluster(&[web(), api()], &[web_slice(&["10.1.0.1"])]);
    cluster.take_dirty();
    let changes = [
        Change::ListStart(Kind::Service),
        Change::Kept(Kind::Service, name("ns/web")),
        Change::Kept(Kind::Service, name("ns/never-seen")),
        Change::ListDone(Kind::Service),
        Change::ListStart(Kind::EndpointSlice),
        Change::Kept(Kind::EndpointSlice, name("ns/web-a")),
        Change::ListDone(Kind::EndpointSlice),
    ];
    assert_eq!(touched(&mut cluster, changes), [name("ns/api")]);
    assert_eq!(
        endpoints(&cluster.resolve(&web().name).unwrap()),
        ["p/TCP: 10.1.0.1:80 |"]
    );
    assert_eq!(cluster.resolve(&name("ns/never-seen")), None);
}

#[test]
fn a_list_that_begins_anew_forgets_what_the_broken_one_named() {
    let mut cluster = cluster(&[web(), api()], &[]);
    cluster.take_dirty();
    let start = || Change::ListStart(Kind::Service);
    let changes = [
        start(),
        upsert(web()),
        upsert(api()),
        start(),
        upsert(web()),
        Change::ListDone(Kind::Service),
    ];
    assert_eq!(touched(&mut cluster, changes), [api().name]);
}

#[test]
fn single_changes_may_come_inside_a_list_and_after_it() {
    let mut cluster = cluster(&[web()], &[]);
    cluster.take_dirty();
    let kind = Kind::Service;
    let inside = [
        Change::ListStart(kind),
        upsert(web()),
        Change::Deleted(kind, web().name),
        upsert(api()),
        Change::ListDone(kind),
    ];
    assert_eq!(touched(&mut cluster, inside), [api().name, web().name]);
    assert_eq!(cluster.resolve(&web().name), None);
    assert!(cluster.resolve(&api().name).is_some());
    // A watch's later additions outlive the end of a list that was over before.
    assert_eq!(
        touched(&mut cluster, [upsert(web()), Change::ListDone(kind)]),
        [web().name]
    );
    assert!(cluster.resolve(&web().name).is_some());
}

#[test]
fn slices_outlive_their_service_and_serve_it_when_it_is_back() {
    let mut cluster = cluster(&[web()], &[web_slice(&["10.1.0.1"])]);
    assert_eq!(
        touched(&mut cluster, [Change::Deleted(Kind::Service, web().name)]),
        [web().name]
    );
    assert_eq!(cluster.resolve(&web().name), None);
    assert_eq!(
        touched(&mut cluster, [upsert_slice(web_slice(&["10.1.0.2"]))]),
        []
    );
    assert_eq!(touched(&mut cluster, [upsert(web())]), [web().name]);
    assert_eq!(
        endpoints(&cluster.resolve(&web().name).unwrap()),
        ["p/TCP: 10.1.0.2:80 |"]
    );
}

#[test]
fn nothing_is_held_of_what_is_gone() {
    let mut cluster = cluster(&[web()], &[web_slice(&["10.1.0.1"])]);
    cluster.apply(Change::Deleted(Kind::Service, web().name));
    cluster.apply(Change::Deleted(Kind::EndpointSlice, name("ns/web-a")));
    assert!(cluster.is_empty());
    observe(&mut cluster, &[web()], &[web_slice(&["10.1.0.1"])]);
    cluster.apply(Change::Deleted(Kind::EndpointSlice, name("ns/web-a")));
    cluster.apply(Change::Deleted(Kind::Service, web().name));
    assert!(cluster.is_empty());
}
