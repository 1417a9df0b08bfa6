//! Objects from text: JSON, or YAML with several documents, or a `List` of either.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::resource::Resource;

/// An object with where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) resource: Resource,
    pub(crate) namespace: String,
    pub(crate) object: Value,
}

/// Reads every object of a text; empty documents are skipped. Objects without a namespace go to `default`.
///
/// # Errors
/// When a document is neither JSON nor YAML, or of a kind that is not served.
pub(crate) fn parse(text: &str) -> Result<Vec<Manifest>> {
    // JSON is YAML, but YAML takes ten times as long to read.
    let documents: Vec<Value> = match serde_json::from_str(text) {
        Ok(document) => vec![document],
        Err(_) => serde_saphyr::from_multiple(text).context("reading YAML documents")?,
    };
    let mut manifests = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => {
                let items = list.remove("items").unwrap_or_default();
                for item in items.as_array().into_iter().flatten() {
                    manifests.push(manifest(item.clone())?);
                }
            }
            document => manifests.push(manifest(document)?),
        }
    }
    Ok(manifests)
}

/// Reads a single object.
///
/// # Errors
/// When it is neither JSON nor YAML.
pub(crate) fn parse_one(body: &[u8]) -> Result<Value> {
    if let Ok(object) = serde_json::from_slice(body) {
        return Ok(object);
    }
    let text = std::str::from_utf8(body).context("the body is no text")?;
    serde_saphyr::from_str(text).context("reading a YAML document")
}

fn manifest(object: Value) -> Result<Manifest> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let Some(resource) = Resource::of_kind(api_version, kind) else {
        bail!("the in-process API does not serve apiVersion \"{api_version}\", kind \"{kind}\"");
    };
    let namespace = match object["metadata"]["namespace"].as_str() {
        _ if !resource.namespaced() => "",
        None | Some("") => "default",
        Some(namespace) => namespace,
    };
    Ok(Manifest {
        resource,
        namespace: namespace.to_owned(),
        object,
    })
}
