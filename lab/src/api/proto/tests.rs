//! `recorded/` holds objects as kube-apiserver 1.36.2 served them, each in both encodings.

use serde_json::Value;

use super::*;

macro_rules! recorded {
    ($name:literal) => {
        (
            include_str!(concat!("recorded/", $name, ".json")),
            include_bytes!(concat!("recorded/", $name, ".pb")).as_slice(),
        )
    };
}

/// The JSON without `kind` and `apiVersion`, as objects are kept.
fn bare(json: &str) -> String {
    let mut value: Value = serde_json::from_str(json).expect("recorded JSON");
    let members = value.as_object_mut().expect("an object");
    members.remove("kind");
    members.remove("apiVersion");
    value.to_string()
}

#[test]
fn objects_are_encoded_byte_for_byte_as_kube_apiserver_does() {
    let cases = [
        (Resource::Services, recorded!("service")),
        (Resource::EndpointSlices, recorded!("endpointslice")),
        (Resource::Nodes, recorded!("node")),
        (Resource::Endpoints, recorded!("endpoints")),
        (Resource::Namespaces, recorded!("namespace")),
        (Resource::ServiceCidrs, recorded!("servicecidr")),
    ];
    for (resource, (json, protobuf)) in cases {
        let raw = encode(resource, bare(json).as_bytes()).expect("encodes");
        let ours = envelope(resource.api_version(), resource.kind(), &raw);
        assert!(
            ours == protobuf,
            "{resource}:\n{}\n{}",
            ours.escape_ascii(),
            protobuf.escape_ascii()
        );
    }
}

#[test]
fn a_status_is_encoded_byte_for_byte_as_kube_apiserver_does() {
    let (json, protobuf) = recorded!("status");
    let ours = envelope("v1", "Status", &encode_status(bare(json).as_bytes()));
    assert_eq!(
        ours.escape_ascii().to_string(),
        protobuf.escape_ascii().to_string()
    );
}

#[test]
fn the_part_of_a_pod_that_is_known_is_encoded_as_kube_apiserver_does() {
    let (json, protobuf) = recorded!("pod");
    let unknown = meta::Unknown::decode(&protobuf[MAGIC.len()..]).expect("an envelope");
    let theirs = core::Pod::decode(unknown.raw.as_slice()).expect("a Pod");
    let ours: core::Pod = serde_json::from_str(json).expect("a Pod");
    assert_eq!(ours, theirs);
    assert_eq!(ours.status.pod_ips.len(), 2);
}

#[test]
fn a_list_decodes_to_its_items_and_metadata() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct EndpointSliceList {
        #[prost(message, required, tag = "1")]
        metadata: ListMeta,
        #[prost(message, repeated, tag = "2")]
        items: Vec<discovery::EndpointSlice>,
    }
    let (json, _) = recorded!("endpointslice");
    let item = encode(Resource::EndpointSlices, bare(json).as_bytes()).expect("encodes");
    let meta = ListMeta {
        resource_version: "7".to_owned(),
        remaining_item_count: Some(3),
        ..ListMeta::default()
    };
    for count in [0, 1, 300] {
        let items = std::iter::repeat_n(item.as_slice(), count);
        let list = encode_list(Resource::EndpointSlices, &meta, items);
        let unknown = meta::Unknown::decode(&list[MAGIC.len()..]).expect("an envelope");
        assert_eq!(unknown.type_meta.kind, "EndpointSliceList");
        let list = EndpointSliceList::decode(unknown.raw.as_slice()).expect("a list");
        assert_eq!((&list.metadata, list.items.len()), (&meta, count));
        assert!(list.items.iter().all(|slice| slice.endpoints.len() == 3));
    }
}

#[test]
fn a_wrong_type_is_refused_in_the_words_of_kube_apiserver() {
    let error = encode(Resource::Services, br#"{"spec": {"ports": [{"port": "x"}]}}"#).expect_err("refused");
    assert!(
        error.starts_with("Service in version \"v1\" cannot be handled as a Service: json: "),
        "{error}"
    );
}
