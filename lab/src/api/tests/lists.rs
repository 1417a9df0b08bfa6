//! Lists.

use super::*;

#[tokio::test]
async fn pages_show_one_version_while_objects_come_and_go() {
    let server = server();
    apply_services(&server, &["a", "b", "c", "d"]);
    let first = get(&server, "/api/v1/services?limit=2").await;
    assert_eq!(first.names(), ["a", "b"]);
    let meta = first.json()["metadata"].clone();
    assert_eq!(meta["remainingItemCount"], 2);
    let (token, version) = (
        meta["continue"].as_str().expect("a token"),
        meta["resourceVersion"].clone(),
    );

    delete(&server, "c");
    apply_services(&server, &["bb", "e"]);
    let second = get(&server, &format!("/api/v1/services?limit=2&continue={token}")).await;
    assert_eq!(second.names(), ["c", "d"]);
    assert_eq!(second.json()["metadata"]["resourceVersion"], version);
    assert_eq!(second.json()["metadata"]["continue"], Value::Null);
    assert_eq!(
        get(&server, "/api/v1/services").await.names(),
        ["a", "b", "bb", "d", "e"]
    );
}

#[tokio::test]
async fn an_expired_page_is_answered_with_410_and_a_token_that_goes_on_with_what_is_current() {
    let server = server();
    apply_services(&server, &["a", "b", "c"]);
    let first = get(&server, "/api/v1/services?limit=1").await.json();
    let token = first["metadata"]["continue"].as_str().expect("a token");
    delete(&server, "b");
    server.compact();
    let expired = get(&server, &format!("/api/v1/services?limit=1&continue={token}")).await;
    assert_eq!(
        (expired.code, &expired.json()["reason"]),
        (410, &Value::from("Expired"))
    );
    let token = expired.json()["metadata"]["continue"].clone();
    let token = token.as_str().expect("a token");
    let rest = get(&server, &format!("/api/v1/services?limit=1&continue={token}")).await;
    assert_eq!(rest.names(), ["c"]);
}

#[tokio::test]
async fn a_list_shows_the_version_that_is_asked_for() {
    let server = server();
    apply_services(&server, &["a"]);
    let old = server.version();
    apply_services(&server, &["b"]);
    let now = server.version();
    let future = now + 5;
    let cases = [
        (String::new(), 200, now),
        ("resourceVersion=0".to_owned(), 200, now),
        (format!("resourceVersion={old}"), 200, now),
        (
            format!("resourceVersion={old}&resourceVersionMatch=NotOlderThan"),
            200,
            now,
        ),
        (
            format!("resourceVersion={old}&resourceVersionMatch=Exact"),
            200,
            old,
        ),
        (format!("resourceVersion={old}&limit=10"), 200, old),
        (format!("resourceVersion={future}"), 504, 0),
        (
            format!("resourceVersion={future}&resourceVersionMatch=Exact"),
            504,
            0,
        ),
        ("resourceVersion=abc".to_owned(), 400, 0),
        ("continue=abc".to_owned(), 400, 0),
        (
            "resourceVersion=99&resourceVersionMatch=Exact".to_owned(),
            200,
            99,
        ),
    ];
    for (query, code, version) in cases {
        let answer = get(&server, &format!("/api/v1/services?{query}")).await;
        assert_eq!(answer.code, code, "{query}");
        if code == 200 {
            let meta = &answer.json()["metadata"];
            assert_eq!(meta["resourceVersion"], version.to_string(), "{query}");
            let both = version == now;
            assert_eq!(
                answer.names().len(),
                if both { 2 } else { usize::from(version == old) }
            );
        }
    }
    let too_large = get(&server, &format!("/api/v1/services?resourceVersion={future}")).await;
    assert_eq!(too_large.header("retry-after"), "1");
    let reason = &too_large.json()["details"]["causes"][0]["reason"];
    assert_eq!(reason, "ResourceVersionTooLarge");

    server.compact();
    let query = format!("resourceVersion={old}&resourceVersionMatch=Exact");
    assert_eq!(get(&server, &format!("/api/v1/services?{query}")).await.code, 410);
}

#[tokio::test]
async fn the_limit_is_ignored_when_any_version_is_good_enough_and_there_is_a_cache() {
    let server = server();
    apply_services(&server, &["a", "b", "c"]);
    let list = get(&server, "/api/v1/services?limit=1&resourceVersion=0").await;
    assert_eq!(list.names(), ["a", "b", "c"]);
    server.set_list_cache(false);
    let list = get(&server, "/api/v1/services?limit=1&resourceVersion=0").await;
    assert_eq!(list.names(), ["a"]);
}

#[tokio::test]
async fn a_list_is_of_one_namespace_or_of_all_and_items_carry_no_type() {
    let server = server();
    apply_services(&server, &["a"]);
    server
        .apply(&service("b", ", namespace: other"))
        .expect("applied");
    assert_eq!(
        get(&server, "/api/v1/namespaces/other/services").await.names(),
        ["b"]
    );
    let all = get(&server, "/api/v1/services").await;
    assert_eq!(all.names(), ["a", "b"]);
    assert_eq!(all.json()["kind"], "ServiceList");
    assert_eq!(all.json()["items"][0]["kind"], Value::Null);
    let one = get(&server, "/api/v1/namespaces/default/services/a").await.json();
    assert_eq!(
        (&one["kind"], &one["apiVersion"]),
        (&"Service".into(), &"v1".into())
    );
}

#[tokio::test]
async fn refusals_have_the_real_servers_code_and_reason_in_the_encoding_asked_for() {
    let server = server();
    let cases = [
        ("/api/v1/namespaces/default/services/none", 404, "NotFound"),
        ("/api/v1/nopes", 404, "NotFound"),
        ("/api/v1/services?labelSelector=a%20in", 400, "BadRequest"),
        ("/api/v1/services?sendInitialEvents=true", 422, "Invalid"),
    ];
    for (path, code, reason) in cases {
        let answer = get(&server, path).await;
        assert_eq!(
            (answer.code, &answer.json()["reason"]),
            (code, &reason.into()),
            "{path}"
        );
        let protobuf = ask(&server, request("GET", path, &[("Accept", PROTOBUF)], "")).await;
        assert_eq!((protobuf.code, protobuf.header("content-type")), (code, PROTOBUF));
        assert!(protobuf.body.starts_with(b"k8s\0"), "{path}");
    }
}

#[tokio::test]
async fn protobuf_can_be_switched_off() {
    let server = server();
    server.set_protobuf(false);
    let path = "/api/v1/services";
    let only = ask(&server, request("GET", path, &[("Accept", PROTOBUF)], "")).await;
    assert_eq!(
        (only.code, &only.json()["reason"]),
        (406, &"NotAcceptable".into())
    );
    let both = format!("{PROTOBUF}, application/json");
    let fallback = ask(&server, request("GET", path, &[("Accept", &both)], "")).await;
    assert_eq!(
        (fallback.code, fallback.header("content-type")),
        (200, "application/json")
    );
}
