//! What clients ask to learn what the server serves: versions, groups, resources, health.

use serde_json::{Value, json};

use super::resource::Resource;

/// The groups served, core apart. Core's own events are taken in but not kept.
const GROUPS: [&str; 3] = ["discovery.k8s.io", "networking.k8s.io", "events.k8s.io"];

/// The document at a path; `None` when there is none.
pub(crate) fn document(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["version"] => Some(version()),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let groups: Vec<Value> = GROUPS.into_iter().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", "v1"] => Some(resources("", "v1")),
        ["apis", name] if GROUPS.contains(name) => {
            let mut document = group(name);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            Some(document)
        }
        ["apis", name, "v1"] if GROUPS.contains(name) => Some(resources(name, &format!("{name}/v1"))),
        _ => None,
    }
}

/// Whether the path is one of those that answer `ok`.
pub(crate) fn is_health(path: &str) -> bool {
    matches!(path, "/readyz" | "/livez" | "/healthz")
}

/// Claims to be the release whose behaviour is reproduced.
fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
    })
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, group_version: &str) -> Value {
    let verbs = json!(["create", "delete", "get", "list", "patch", "update", "watch"]);
    let describe = |resource: Resource| {
        json!({
            "name": resource.plural(), "singularName": resource.kind().to_lowercase(), "kind": resource.kind(),
            "namespaced": resource.namespaced(), "verbs": verbs, "shortNames": resource.short_names(),
        })
    };
    let mut resources: Vec<Value> = Resource::ALL
        .into_iter()
        .filter(|resource| resource.group() == group)
        .map(describe)
        .collect();
    if group.is_empty() {
        resources.push(json!({
            "name": "events", "singularName": "event", "kind": "Event", "namespaced": true,
            "verbs": ["create", "patch"],
        }));
    }
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    })
}
