//! Watches and streaming lists.

use super::*;
use crate::api::StreamFault;

const STREAMING: &str = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

#[tokio::test]
async fn a_watch_without_version_tells_the_objects_then_every_change() {
    let server = server();
    apply_services(&server, &["b", "a"]);
    let mut watch = Watch::open(&server, "/api/v1/services?watch=1").await;
    assert_eq!(watch.told().await, told("ADDED", "a"));
    assert_eq!(watch.told().await, told("ADDED", "b"));
    apply_services(&server, &["c"]);
    assert_eq!(watch.told().await, told("ADDED", "c"));
    server.apply(&service("a", ", labels: {x: z}")).expect("applied");
    assert_eq!(watch.told().await, told("MODIFIED", "a"));
    delete(&server, "b");
    let (event, name, version) = watch.event().await;
    assert_eq!(
        (event.as_str(), name.as_str(), version),
        ("DELETED", "b", server.version())
    );
}

#[tokio::test]
async fn a_watch_from_a_version_tells_what_came_after_it() {
    let server = server();
    apply_services(&server, &["a"]);
    let version = server.version();
    apply_services(&server, &["b"]);
    delete(&server, "a");
    let path = format!("/api/v1/services?watch=1&resourceVersion={version}");
    let mut watch = Watch::open(&server, &path).await;
    assert_eq!(watch.told().await, told("ADDED", "b"));
    assert_eq!(watch.told().await, told("DELETED", "a"));
    assert!(watch.is_quiet().await);
}

#[tokio::test]
async fn an_object_that_leaves_the_selector_is_told_as_deleted_in_its_former_state() {
    let server = server();
    apply_services(&server, &["a"]);
    let mut watch = Watch::open(&server, "/api/v1/services?watch=1&labelSelector=!hidden").await;
    assert_eq!(watch.told().await, told("ADDED", "a"));
    server
        .apply(&service("a", ", labels: {hidden: \"\"}"))
        .expect("applied");
    let line = watch.line().await.expect("no error").expect("an event");
    assert_eq!(line["type"], "DELETED");
    assert_eq!(line["object"]["metadata"]["labels"], Value::Null);
    assert_eq!(
        line["object"]["metadata"]["resourceVersion"],
        server.version().to_string()
    );
    server
        .apply(&service("a", ", labels: {hidden: x}"))
        .expect("applied");
    apply_services(&server, &["a"]);
    assert_eq!(watch.told().await, told("ADDED", "a"));
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_ends_with_an_error_event() {
    let server = server();
    apply_services(&server, &["a"]);
    let version = server.version();
    apply_services(&server, &["b"]);
    server.compact();
    let path = format!("/api/v1/services?watch=1&resourceVersion={version}");
    let mut watch = Watch::open(&server, &path).await;
    let line = watch.line().await.expect("no error").expect("an event");
    let now = server.version();
    assert_eq!(line["type"], "ERROR");
    assert_eq!(
        (&line["object"]["code"], &line["object"]["reason"]),
        (&410.into(), &"Expired".into())
    );
    let message = format!("too old resource version: {version} ({now})");
    assert_eq!(line["object"]["message"], message);
    assert_eq!(watch.line().await.expect("no error"), None);
}

#[tokio::test]
async fn a_watch_from_a_future_version_is_silent_until_then() {
    let server = server();
    let future = server.version() + 1;
    let path = format!("/api/v1/services?watch=1&resourceVersion={future}");
    let mut watch = Watch::open(&server, &path).await;
    apply_services(&server, &["a", "b"]);
    assert_eq!(watch.told().await, told("ADDED", "b"));
}

#[tokio::test]
async fn a_streaming_list_ends_with_a_marked_bookmark_and_goes_on_as_a_watch() {
    let server = server();
    apply_services(&server, &["a"]);
    let path = format!("/api/v1/services?{STREAMING}&allowWatchBookmarks=true");
    let mut watch = Watch::open(&server, &path).await;
    assert_eq!(watch.told().await, told("ADDED", "a"));
    let bookmark = watch.line().await.expect("no error").expect("a bookmark");
    let metadata = &bookmark["object"]["metadata"];
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(metadata["resourceVersion"], server.version().to_string());
    apply_services(&server, &["b"]);
    assert_eq!(watch.told().await, told("ADDED", "b"));
}

#[tokio::test]
async fn a_bookmark_of_a_slice_has_null_lists_as_go_writes_them() {
    let server = server();
    let path = format!("/apis/discovery.k8s.io/v1/endpointslices?{STREAMING}&allowWatchBookmarks=true");
    let mut watch = Watch::open(&server, &path).await;
    let bookmark = watch.line().await.expect("no error").expect("a bookmark");
    let object = bookmark["object"].as_object().expect("an object");
    assert_eq!(object.get("endpoints"), Some(&Value::Null));
    assert_eq!(object.get("ports"), Some(&Value::Null));
}

#[tokio::test]
async fn a_streaming_list_of_a_future_version_ends_with_an_error_event() {
    let server = server();
    let path = format!("/api/v1/services?{STREAMING}&resourceVersion=99999");
    let mut watch = Watch::open(&server, &path).await;
    let line = watch.line().await.expect("no error").expect("an event");
    assert_eq!(
        (&line["type"], &line["object"]["code"]),
        (&"ERROR".into(), &504.into())
    );
}

#[tokio::test]
async fn streaming_lists_can_be_switched_off() {
    let server = server();
    server.set_streaming_lists(false);
    let answer = get(&server, &format!("/api/v1/services?{STREAMING}")).await;
    let field = &answer.json()["details"]["causes"][0]["field"];
    assert_eq!((answer.code, field), (422, &"sendInitialEvents".into()));
}

#[tokio::test]
async fn bookmarks_come_on_demand_and_from_time_to_time_to_those_who_take_them() {
    let interval = Duration::from_millis(20);
    let server = Server::builder().plain_http().bookmark_interval(interval).start();
    let server = server.expect("a server");
    let mut without = Watch::open(&server, "/api/v1/services?watch=1").await;
    let mut with = Watch::open(&server, "/api/v1/services?watch=1&allowWatchBookmarks=true").await;
    let version = server.advance_version();
    server.send_bookmarks(Resource::Services);
    assert_eq!(
        with.event().await,
        ("BOOKMARK".to_owned(), String::new(), version)
    );
    let version = server.advance_version();
    assert_eq!(
        with.event().await,
        ("BOOKMARK".to_owned(), String::new(), version)
    );
    assert!(without.is_quiet().await);
}

#[tokio::test]
async fn a_last_bookmark_comes_two_seconds_before_the_timeout() {
    let server = server();
    let path = "/api/v1/services?watch=1&allowWatchBookmarks=true&timeoutSeconds=2";
    let mut watch = Watch::open(&server, path).await;
    assert_eq!(watch.told().await, told("BOOKMARK", ""));
}

#[tokio::test]
async fn a_watch_ends_in_good_order_at_its_timeout() {
    let server = server();
    let mut watch = Watch::open(&server, "/api/v1/services?watch=1&timeoutSeconds=0").await;
    assert_eq!(watch.line().await.expect("no error"), None);
}

#[tokio::test]
async fn a_watch_that_its_client_dropped_is_not_counted() {
    let server = server();
    let watch = Watch::open(&server, "/api/v1/services?watch=1").await;
    assert_eq!(server.watchers(Resource::Services), 1);
    drop(watch);
    assert_eq!(server.watchers(Resource::Services), 0);
}

#[tokio::test]
async fn restoring_a_backup_turns_versions_back_and_ends_watches() {
    let server = server();
    apply_services(&server, &["a"]);
    let (backup, version) = (server.backup(), server.version());
    apply_services(&server, &["b", "c"]);
    let mut watch = Watch::open(&server, "/api/v1/services?watch=1&resourceVersion=999").await;
    server.restore(&backup);
    assert_eq!(watch.line().await.expect("no error"), None);
    assert_eq!(server.version(), version);
    assert_eq!(get(&server, "/api/v1/services").await.names(), ["a"]);
}

#[tokio::test]
async fn an_open_watch_is_spoiled_as_asked() {
    let server = server();
    let spoiled = async |fault: StreamFault| {
        let watch = Watch::open(&server, "/api/v1/services?watch=1").await;
        server.spoil_watches(Resource::Services, fault);
        apply_services(&server, &["a"]);
        delete(&server, "a");
        watch
    };
    assert!(spoiled(StreamFault::Stall).await.is_quiet().await);
    let mut half = spoiled(StreamFault::StallMidFrame).await;
    assert!(half.is_quiet().await);
    assert!(half.rest.starts_with(b"{\"type\":\"BOOKMARK\""));
    assert!(spoiled(StreamFault::Cut).await.line().await.is_err());
    let mut half = spoiled(StreamFault::CutMidFrame).await;
    assert!(half.line().await.is_err());
    assert!(!half.rest.is_empty());
    assert_eq!(
        spoiled(StreamFault::End).await.line().await.expect("no error"),
        None
    );
    assert!(spoiled(StreamFault::Garbage).await.line().await.is_err());
    let mut error = spoiled(StreamFault::Error(410)).await;
    assert_eq!(error.told().await, told("ERROR", ""));
    assert_eq!(error.line().await.expect("no error"), None);
    let mut lossy = spoiled(StreamFault::Lose(1)).await;
    assert_eq!(lossy.told().await, told("DELETED", "a"));
}
