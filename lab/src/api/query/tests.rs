use super::*;

#[test]
fn paths_name_a_resource_a_namespace_an_object_and_a_subresource() {
    let target = |resource, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>| {
        Some(Target {
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    };
    use Resource::{EndpointSlices, Namespaces, Nodes, Services};
    let cases = [
        ("/api/v1/services", target(Services, None, None, None)),
        (
            "/api/v1/namespaces/a/services",
            target(Services, Some("a"), None, None),
        ),
        (
            "/api/v1/namespaces/a/services/b/status",
            target(Services, Some("a"), Some("b"), Some("status")),
        ),
        ("/api/v1/nodes/n", target(Nodes, None, Some("n"), None)),
        ("/api/v1/namespaces/a", target(Namespaces, None, Some("a"), None)),
        (
            "/apis/discovery.k8s.io/v1/endpointslices",
            target(EndpointSlices, None, None, None),
        ),
        ("/api/v1/endpointslices", None),
        ("/api/v2/services", None),
        ("/api/v1/namespaces/a/nodes", None),
        ("/nope", None),
    ];
    for (path, expected) in cases {
        assert_eq!(Target::parse(path), expected, "{path}");
    }
}

#[test]
fn queries_are_decoded() {
    let query = parse_query("labelSelector=%21service.kubernetes.io%2Fx&watch&a=b+c%zz&=1");
    let expected = [
        ("labelSelector", "!service.kubernetes.io/x"),
        ("watch", ""),
        ("a", "b c%zz"),
        ("", "1"),
    ];
    assert_eq!(
        query,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
}

#[test]
fn options_that_do_not_go_together_are_refused_as_upstream_does() {
    let cases = [
        (
            "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
            None,
        ),
        (
            "watch=1&sendInitialEvents=true",
            Some("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ),
        (
            "sendInitialEvents=true",
            Some("sendInitialEvents is forbidden for list"),
        ),
        (
            "watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan",
            Some("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"),
        ),
        (
            "resourceVersionMatch=Exact",
            Some("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ),
        (
            "resourceVersion=5&resourceVersionMatch=Exact&continue=x",
            Some("resourceVersionMatch is forbidden when continue is provided"),
        ),
        ("resourceVersion=5&resourceVersionMatch=Exact", None),
    ];
    for (query, expected) in cases {
        let options = ListOptions::parse(&parse_query(query)).expect(query);
        let refusal = options.validate(true).err();
        let message = refusal.as_ref().map(|status| status.message());
        match expected {
            None => assert_eq!(message, None, "{query}"),
            Some(expected) => assert!(
                message.is_some_and(|message| message.ends_with(expected)),
                "{query}"
            ),
        }
        assert!(
            refusal.is_none_or(|status| status.code().as_u16() == 422),
            "{query}"
        );
    }
}

#[test]
fn the_first_acceptable_media_type_is_spoken() {
    let protobuf = "application/vnd.kubernetes.protobuf";
    let cases = [
        ("", true, Some(Encoding::Json)),
        ("*/*", true, Some(Encoding::Json)),
        (protobuf, true, Some(Encoding::Protobuf)),
        (protobuf, false, None),
        (
            "application/vnd.kubernetes.protobuf;stream=watch, application/json",
            true,
            Some(Encoding::Protobuf),
        ),
        (
            "application/vnd.kubernetes.protobuf,application/json",
            false,
            Some(Encoding::Json),
        ),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            true,
            Some(Encoding::Json),
        ),
        ("text/plain", true, None),
    ];
    for (accept, spoken, expected) in cases {
        assert_eq!(Encoding::negotiate(Some(accept), spoken), expected, "{accept}");
    }
}
