use serde_json::json;

use super::*;

fn service(labels: serde_json::Value, cluster_ip: &str) -> Object {
    let value = json!({
        "metadata": {"namespace": "default", "name": "a", "labels": labels},
        "spec": {"clusterIP": cluster_ip},
    });
    Object::new(Resource::Services, &value).expect("a Service")
}

#[test]
fn label_selectors_select_as_upstreams_do() {
    let cases = [
        ("", true),
        ("app", true),
        ("!app", false),
        ("none", false),
        ("!none", true),
        ("app=web", true),
        ("app==web", true),
        ("app=db", false),
        ("app!=db", true),
        ("none!=db", true),
        ("app in (db, web)", true),
        ("app in (db)", false),
        ("app notin (db)", true),
        ("none notin (db)", true),
        ("app,!none , tier=front", true),
        ("app,!tier", false),
        ("empty=", true),
        ("empty=,app", true),
        ("rank>2", true),
        ("rank<3", false),
        ("!example.com/x-y_z.w", true),
    ];
    let object = service(
        json!({"app": "web", "tier": "front", "empty": "", "rank": "3"}),
        "10.96.0.1",
    );
    for (text, expected) in cases {
        let selector = Selector::parse(Resource::Services, None, text, "").expect(text);
        assert_eq!(selector.matches(&object), expected, "{text}");
    }
}

#[test]
fn malformed_label_selectors_are_refused_with_upstreams_words() {
    let cases = [
        ("a in", "unable to parse requirement: found '' expected: '('"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
    ];
    for (text, expected) in cases {
        let status = Selector::parse(Resource::Services, None, text, "").expect_err(text);
        assert_eq!(
            (status.code().as_u16(), status.message()),
            (400, expected),
            "{text}"
        );
    }
}

#[test]
fn field_selectors_know_the_fields_of_each_kind() {
    let headless = service(json!({}), "None");
    let cases = [
        ("spec.clusterIP!=None", false),
        ("spec.clusterIP=None", true),
        ("metadata.name=a,metadata.namespace==default", true),
        ("metadata.name!=a", false),
        ("spec.type=", true),
    ];
    for (text, expected) in cases {
        let selector = Selector::parse(Resource::Services, None, "", text).expect(text);
        assert_eq!(selector.matches(&headless), expected, "{text}");
    }
    let refused = [
        (
            Resource::Services,
            "spec.foo=x",
            "field label not supported: spec.foo",
        ),
        (
            Resource::Services,
            "xx",
            "invalid selector: 'xx'; can't understand 'xx'",
        ),
        (
            Resource::EndpointSlices,
            "spec.type=x",
            "\"spec.type\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
    ];
    for (resource, text, expected) in refused {
        let status = Selector::parse(resource, None, "", text).expect_err(text);
        assert_eq!(status.message(), expected, "{text}");
    }
}
