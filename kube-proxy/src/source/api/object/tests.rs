//! Events and objects in both encodings, and unreadable ones.

use serde_json::json;

use super::*;
use crate::source::wire::{Pair, RawExtension, StatusDetails};

fn envelope(raw: Vec<u8>) -> Bytes {
    let unknown = Unknown { raw: raw.into() };
    [MAGIC.to_vec(), unknown.encode_to_vec()].concat().into()
}

fn frame(kind: &str, object: &impl Message) -> Bytes {
    let raw = envelope(object.encode_to_vec());
    let event = WatchEvent {
        kind: kind.into(),
        object: Some(RawExtension { raw }),
    };
    event.encode_to_vec().into()
}

fn json_frame(kind: &str, object: serde_json::Value) -> Bytes {
    json!({"type": kind, "object": object}).to_string().into()
}

fn slice(name: &str) -> EndpointSlice {
    EndpointSlice {
        metadata: Some(ObjectMeta {
            name: name.into(),
            namespace: "default".into(),
            resource_version: "7".into(),
            ..ObjectMeta::default()
        }),
        address_type: "IPv4".into(),
        ..EndpointSlice::default()
    }
}

fn slice_json(name: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "namespace": "default", "resourceVersion": "7"}, "addressType": "IPv4"})
}

#[test]
fn events_mean_the_same_in_both_encodings() {
    let status = Status {
        code: 410,
        reason: "Expired".into(),
        message: "too old".into(),
        details: Some(StatusDetails::default()),
    };
    let end = Pair {
        key: INITIAL_EVENTS_END.into(),
        value: "true".into(),
    };
    let bookmark = |annotations: Vec<Pair>| Bookmark {
        metadata: Some(crate::source::wire::BookmarkMeta {
            resource_version: "9".into(),
            annotations,
        }),
    };
    let is_bookmark = |ends_list| Event::Bookmark {
        version: "9".into(),
        ends_list,
    };
    for (protobuf, json, expected) in [
        (
            frame("BOOKMARK", &bookmark(Vec::new())),
            json_frame(
                "BOOKMARK",
                json!({"kind": "Service", "metadata": {"resourceVersion": "9"}}),
            ),
            is_bookmark(false),
        ),
        (
            frame("BOOKMARK", &bookmark(vec![end])),
            json_frame(
                "BOOKMARK",
                json!({"metadata": {"resourceVersion": "9", "annotations": {INITIAL_EVENTS_END: "true"}}}),
            ),
            is_bookmark(true),
        ),
        (
            frame("ERROR", &status),
            json_frame(
                "ERROR",
                json!({"code": 410, "reason": "Expired", "message": "too old", "details": {}}),
            ),
            Event::Error(status),
        ),
        (
            frame("NEWS", &slice("a")),
            json_frame("NEWS", slice_json("a")),
            Event::Unknown("NEWS".into()),
        ),
    ] {
        assert_eq!(event(Encoding::Protobuf, protobuf).unwrap(), expected);
        assert_eq!(event(Encoding::Json, json).unwrap(), expected);
    }
}

#[test]
fn objects_mean_the_same_in_both_encodings() {
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        let frames = [
            (Encoding::Protobuf, frame(kind, &slice("a"))),
            (Encoding::Json, json_frame(kind, slice_json("a"))),
        ];
        let arrivals = frames.map(|(encoding, frame)| match event(encoding, frame).unwrap() {
            Event::Upsert(object) => upsert(Kind::EndpointSlice, encoding, &object, &mut Interner::default()),
            Event::Delete(object) => delete(Kind::EndpointSlice, encoding, &object).unwrap(),
            other => panic!("{other:?}"),
        });
        let [protobuf, json] = arrivals;
        assert_eq!(protobuf.change, json.change);
        assert_eq!((protobuf.version.as_str(), json.version.as_str()), ("7", "7"));
        let name = ObjectName::new("default", "a");
        let deleted = Some(Change::Deleted(Kind::EndpointSlice, name));
        assert_eq!(protobuf.change == deleted, kind == "DELETED", "{kind}");
        assert!(protobuf.change.is_some());
    }
}

#[test]
fn an_object_that_cannot_be_read_is_kept_under_its_name() {
    let mut broken = slice("a").encode_to_vec();
    // Field 3, ports, with contents that are no message.
    broken.extend([3 << 3 | 2, 1, 0xff]);
    let mut wrong_type = slice_json("a");
    wrong_type["endpoints"] = json!("none");
    for (encoding, object) in [
        (Encoding::Protobuf, Bytes::from(broken)),
        (Encoding::Json, wrong_type.to_string().into()),
    ] {
        let arrival = upsert(Kind::EndpointSlice, encoding, &object, &mut Interner::default());
        let name = ObjectName::new("default", "a");
        assert_eq!(arrival.change, Some(Change::Kept(Kind::EndpointSlice, name)));
        assert_eq!(arrival.version, "7");
        assert!(arrival.unreadable.is_some());
    }
}

#[test]
fn an_object_without_even_a_name_changes_nothing() {
    for (encoding, object) in [
        (Encoding::Protobuf, &b"\xff"[..]),
        (Encoding::Json, b"3"),
        (Encoding::Json, b"{"),
    ] {
        let object = Bytes::from_static(object);
        let arrival = upsert(Kind::Service, encoding, &object, &mut Interner::default());
        assert_eq!(arrival.change, None);
        assert!(arrival.unreadable.is_some());
        assert!(delete(Kind::Service, encoding, &object).is_err());
    }
}

#[test]
fn frames_that_are_no_events_are_errors() {
    let no_object = WatchEvent {
        kind: "ADDED".into(),
        object: None,
    };
    let no_magic = WatchEvent {
        kind: "ADDED".into(),
        object: Some(RawExtension {
            raw: Bytes::from_static(b"no magic"),
        }),
    };
    for frame in [
        &b"\xff\xff"[..],
        &no_object.encode_to_vec(),
        &no_magic.encode_to_vec(),
    ] {
        assert!(event(Encoding::Protobuf, Bytes::copy_from_slice(frame)).is_err());
    }
    for frame in ["", "nonsense", "{}", r#"{"type":"ADDED"}"#] {
        assert!(
            event(Encoding::Json, Bytes::from_static(frame.as_bytes())).is_err(),
            "{frame}"
        );
    }
}

#[test]
fn refusals_are_read_in_both_encodings_and_anything_else_is_none() {
    let refusal = Status {
        code: 403,
        message: "forbidden".into(),
        ..Status::default()
    };
    let protobuf = envelope(refusal.encode_to_vec());
    assert_eq!(status(Some(Encoding::Protobuf), protobuf), Some(refusal.clone()));
    let text = Bytes::from_static(br#"{"kind":"Status","code":403,"message":"forbidden"}"#);
    assert_eq!(status(Some(Encoding::Json), text.clone()), Some(refusal));
    assert_eq!(status(None, text.clone()), None);
    assert_eq!(status(Some(Encoding::Protobuf), text), None);
    assert_eq!(status(Some(Encoding::Json), Bytes::from_static(b"{}")), None);
}

fn good_frames() -> [(Encoding, Vec<u8>); 2] {
    let mut json = slice_json("web-1");
    json["endpoints"] =
        json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "hints": {"forZones": []}}]);
    json["ports"] = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    [
        (Encoding::Json, json_frame("ADDED", json).to_vec()),
        (Encoding::Protobuf, frame("MODIFIED", &slice("web-1")).to_vec()),
    ]
}

/// Reads a frame as each kind that it could be, and each time to its end.
fn read_to_the_end(encoding: Encoding, bytes: Vec<u8>) {
    if let Ok(Event::Upsert(object) | Event::Delete(object)) = event(encoding, bytes.into()) {
        for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node] {
            let _ = upsert(kind, encoding, &object, &mut Interner::default());
            let _ = delete(kind, encoding, &object);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 4096, failure_persistence: None, ..Default::default() })]
    #[test]
    fn no_frame_of_a_watch_makes_its_reader_panic(
        json in crate::garbage::spoilt(good_frames()[0].1.clone()),
        protobuf in crate::garbage::spoilt(good_frames()[1].1.clone()),
    ) {
        read_to_the_end(Encoding::Json, json);
        read_to_the_end(Encoding::Protobuf, protobuf);
    }
}
