//! Kubernetes objects in scenarios: found in YAML text, and the ones that a cluster's controllers would make.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::file::EndpointEntry;
use crate::net::{Family, Lab, Member, Role, network};

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectKey {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectKey {
    fn of(object: &Value) -> Result<Self> {
        let kind = object["kind"].as_str().context("an object without kind")?;
        let metadata = &object["metadata"];
        let name = metadata["name"]
            .as_str()
            .with_context(|| format!("{kind} without metadata.name"))?;
        Ok(Self {
            kind: kind.to_owned(),
            namespace: metadata["namespace"].as_str().unwrap_or("default").to_owned(),
            name: name.to_owned(),
        })
    }
}

impl ObjectKey {
    /// A file name of its own for every object.
    pub(super) fn file(&self) -> String {
        let kind = self.kind.to_lowercase();
        format!("{kind}.{}.{}.yaml", self.namespace, self.name)
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl std::str::FromStr for ObjectKey {
    type Err = anyhow::Error;

    /// `KIND/NAME` or `KIND/NAMESPACE/NAME`.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let (kind, namespace, name) = match parts[..] {
            [kind, name] => (kind, "default", name),
            [kind, namespace, name] => (kind, namespace, name),
            _ => anyhow::bail!("{text}: neither KIND/NAME nor KIND/NAMESPACE/NAME"),
        };
        Ok(Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// An object, as it was written.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) key: ObjectKey,
    pub(super) text: String,
    pub(super) value: Value,
}

impl Object {
    fn from_value(value: Value) -> Result<Self> {
        Ok(Self {
            key: ObjectKey::of(&value)?,
            text: serde_json::to_string_pretty(&value)?,
            value,
        })
    }
}

/// The objects of a text with documents separated by `---` lines.
pub(super) fn objects(text: &str) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for document in documents(text) {
        let value: Value = serde_saphyr::from_str(&document)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| format!("in this document:\n{document}"))?;
        objects.push(Object {
            key: ObjectKey::of(&value)?,
            text: document,
            value,
        });
    }
    Ok(objects)
}

fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        match documents.last_mut() {
            Some(document) if line.trim_end() != "---" => {
                document.push_str(line);
                document.push('\n');
            }
            _ => documents.push(String::new()),
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}

/// The Node object of a node.
pub(super) fn node(member: &Member) -> Result<Object> {
    let Role::Node { number } = member.role else {
        anyhow::bail!("{} is no node", member.name);
    };
    let addresses = Family::ALL.map(|family| json!({ "type": "InternalIP", "address": member.ip(family) }));
    let pod_cidrs = Family::ALL.map(|family| network::pods_of_node(number, family));
    Object::from_value(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": member.name, "labels": { "topology.kubernetes.io/zone": format!("zone-{number}") } },
        "spec": { "podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs },
        "status": { "addresses": addresses },
    }))
}

/// The EndpointSlice of a Service in one family, as the cluster's controller would write it.
pub(super) fn slice(
    service: &Value,
    family: Family,
    endpoints: &[EndpointEntry],
    lab: &Lab,
) -> Result<Object> {
    let key = ObjectKey::of(service)?;
    let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let ports = ports.iter().map(slice_port).collect::<Result<Vec<_>>>()?;
    let endpoints = endpoints.iter().flat_map(|entry| {
        let pods = entry.pods().iter();
        pods.map(|pod| endpoint(pod, entry, family, lab))
    });
    let endpoints = endpoints.collect::<Result<Vec<_>>>()?;
    let mut labels = json!({ "kubernetes.io/service-name": key.name });
    if service["spec"]["clusterIP"] == "None" {
        labels["service.kubernetes.io/headless"] = json!("");
    }
    Object::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": key.namespace,
            "name": format!("{}-{}", key.name, family.pick("v4", "v6")),
            "labels": labels,
        },
        "addressType": family.to_string(),
        "ports": ports,
        "endpoints": endpoints,
    }))
}

fn slice_port(port: &Value) -> Result<Value> {
    let target = if port["targetPort"].is_null() {
        &port["port"]
    } else {
        &port["targetPort"]
    };
    ensure!(
        target.is_u64(),
        "a slice needs numeric target ports, not {target}"
    );
    let or = |value: &Value, default: &str| {
        if value.is_null() {
            json!(default)
        } else {
            value.clone()
        }
    };
    Ok(json!({ "name": or(&port["name"], ""), "protocol": or(&port["protocol"], "TCP"), "port": target }))
}

fn endpoint(pod: &str, entry: &EndpointEntry, family: Family, lab: &Lab) -> Result<Value> {
    let mut conditions = Map::from_iter([("ready".to_owned(), json!(true))]);
    let mut endpoint = Map::new();
    if let EndpointEntry::Fields { fields, .. } = entry {
        for (name, value) in fields {
            let is_condition = matches!(name.as_str(), "ready" | "serving" | "terminating");
            let target = if is_condition {
                &mut conditions
            } else {
                &mut endpoint
            };
            target.insert(name.clone(), value.clone());
        }
    }
    let pod = lab.member(pod)?;
    endpoint.insert("addresses".to_owned(), json!([pod.ip(family)]));
    endpoint.insert("nodeName".to_owned(), json!(lab.node_of(pod)?.name));
    endpoint.insert("conditions".to_owned(), Value::Object(conditions));
    Ok(Value::Object(endpoint))
}
