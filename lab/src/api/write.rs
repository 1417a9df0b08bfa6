//! Creating, replacing, patching and deleting objects: metadata as the real server keeps it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use serde_json::{Value, json};

use super::admit::{self, Allocator};
use super::object::{Object, key};
use super::resource::Resource;
use super::status::Status;
use super::store::Store;

/// The store with what writing needs beside it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) store: Store,
    allocator: Allocator,
    uids: RandomState,
}

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything, as no client of the real server can: for test benches.
    Whole,
    /// Everything but `status`, where that is a subresource.
    Main,
    /// `status` only.
    Status,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self {
            store: Store::new(),
            allocator: Allocator::default(),
            uids: RandomState::new(),
        }
    }

    /// The object of that name.
    ///
    /// # Errors
    /// 404.
    pub(crate) fn get(&self, resource: Resource, namespace: &str, name: &str) -> Result<Arc<Object>, Status> {
        let object = self.store.objects(resource).get(&key(namespace, name));
        object.cloned().ok_or_else(|| Status::not_found(resource, name))
    }

    /// Replaces an object, or creates it where its kind may be created so. Says whether it did.
    ///
    /// # Errors
    /// As [`Cluster::create`] and [`Cluster::replace`].
    pub(crate) fn put(
        &mut self,
        resource: Resource,
        namespace: &str,
        name: &str,
        object: Value,
        part: Part,
    ) -> Result<(bool, Arc<Object>), Status> {
        let own = text(&object, "name");
        if !own.is_empty() && own != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({own}) does not match the name on the URL ({name})"
            )));
        }
        let exists = self.store.objects(resource).contains_key(&key(namespace, name));
        let create = !exists && part == Part::Main && resource.created_by_put();
        let object = if create {
            self.create(resource, namespace, object, part)?
        } else {
            self.replace(resource, namespace, name, object, part)?
        };
        Ok((create, object))
    }

    /// Creates an object in a namespace (empty for cluster-scoped kinds).
    ///
    /// # Errors
    /// 409 when it exists, 422 or 400 when it is not acceptable.
    pub(crate) fn create(
        &mut self,
        resource: Resource,
        namespace: &str,
        mut object: Value,
        part: Part,
    ) -> Result<Arc<Object>, Status> {
        check_shape(resource, namespace, &object)?;
        let name = self.name(resource, &mut object)?;
        if self.store.objects(resource).contains_key(&key(namespace, &name)) {
            return Err(Status::already_exists(resource, &name));
        }
        if part == Part::Main && matches!(resource, Resource::Services | Resource::Pods) {
            remove(&mut object, "status");
        }
        let metadata = &mut object["metadata"];
        metadata["uid"] = self.uid(resource).into();
        metadata["creationTimestamp"] = now().into();
        if has_generation(resource) {
            metadata["generation"] = 1.into();
        }
        if resource.namespaced() {
            metadata["namespace"] = namespace.into();
        }
        self.keep(resource, object, None)
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// 404 when there is none, 409 when it names another version, 422 or 400 when it is not acceptable.
    pub(crate) fn replace(
        &mut self,
        resource: Resource,
        namespace: &str,
        name: &str,
        mut object: Value,
        part: Part,
    ) -> Result<Arc<Object>, Status> {
        check_shape(resource, namespace, &object)?;
        let current = self.get(resource, namespace, name)?;
        let before = current.value();
        let asked = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !asked.is_empty() && asked != current.version.to_string() {
            return Err(Status::conflict(resource, name));
        }
        match part {
            Part::Main if resource.has_status() => object["status"] = before["status"].clone(),
            Part::Status => {
                let status = object["status"].take();
                object = before.clone();
                object["status"] = status;
            }
            Part::Main | Part::Whole => {}
        }
        let metadata = &mut object["metadata"];
        for field in [
            "uid",
            "creationTimestamp",
            "generation",
            "namespace",
            "managedFields",
        ] {
            metadata[field] = before["metadata"][field].clone();
        }
        self.keep(resource, object, Some(&before))
    }

    /// Applies a JSON merge patch (RFC 7386).
    ///
    /// # Errors
    /// As [`Cluster::replace`].
    pub(crate) fn merge(
        &mut self,
        resource: Resource,
        namespace: &str,
        name: &str,
        patch: &Value,
        part: Part,
    ) -> Result<Arc<Object>, Status> {
        let mut object = self.get(resource, namespace, name)?.value();
        merge(&mut object, patch);
        self.replace(resource, namespace, name, object, part)
    }

    /// Creates the object, or replaces the one of that name.
    ///
    /// # Errors
    /// 422 or 400 when it is not acceptable.
    pub(crate) fn apply(
        &mut self,
        resource: Resource,
        namespace: &str,
        object: Value,
    ) -> Result<Arc<Object>, Status> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.store.objects(resource).contains_key(&key(namespace, &name)) {
            self.replace(resource, namespace, &name, object, Part::Whole)
        } else {
            self.create(resource, namespace, object, Part::Whole)
        }
    }

    /// Deletes an object and gives back its last version.
    ///
    /// # Errors
    /// 404.
    pub(crate) fn delete(
        &mut self,
        resource: Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        self.store
            .remove(resource, &key(namespace, name))
            .ok_or_else(|| Status::not_found(resource, name))
    }

    /// Puts an object in place that is known to be complete and right: its metadata but for uid, time and
    /// version, the values of [`Resource::selectable`], and the other members as JSON text.
    pub(crate) fn put_trusted(
        &mut self,
        resource: Resource,
        mut metadata: Value,
        fields: Vec<String>,
        members: &str,
    ) {
        let text = |key: &str| metadata[key].as_str().unwrap_or_default();
        let key = key(text("namespace"), text("name"));
        let (uid, created) = match self.store.objects(resource).get(&key) {
            Some(before) => (before.uid.clone(), before.created.clone()),
            None => (self.uid(resource), now()),
        };
        metadata["uid"] = uid.into();
        metadata["creationTimestamp"] = created.into();
        metadata["resourceVersion"] = self.store.advance().to_string().into();
        let text = format!("{{\"metadata\":{metadata},{members}}}");
        let object = Object::trusted(resource, &metadata, fields, text);
        self.store.put(Arc::new(object));
    }

    /// Completes, versions and stores; an update that changes nothing is none.
    fn keep(
        &mut self,
        resource: Resource,
        mut object: Value,
        before: Option<&Value>,
    ) -> Result<Arc<Object>, Status> {
        remove(&mut object, "kind");
        remove(&mut object, "apiVersion");
        let services = self.store.objects(resource);
        admit::complete(resource, &mut object, before, &mut self.allocator, services)?;
        if let Some(before) = before {
            object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if object == *before {
                let key = key(text(before, "namespace"), text(before, "name"));
                if let Some(current) = services.get(&key) {
                    return Ok(current.clone());
                }
            }
            if has_generation(resource) {
                let generation = before["metadata"]["generation"].as_u64().unwrap_or_default();
                object["metadata"]["generation"] = (generation + 1).into();
            }
        }
        object["metadata"]["managedFields"] = managed_fields(resource, &object);
        object["metadata"]["resourceVersion"] = (self.store.version() + 1).to_string().into();
        let object = Arc::new(Object::new(resource, &object)?);
        self.store.advance();
        self.store.put(object.clone());
        Ok(object)
    }

    /// The name, made from `generateName` when there is none.
    fn name(&self, resource: Resource, object: &mut Value) -> Result<String, Status> {
        let metadata = &mut object["metadata"];
        if metadata["name"].as_str().is_none_or(str::is_empty) {
            let Some(prefix) = metadata["generateName"].as_str() else {
                let why = "Required value: name or generateName is required";
                let field = "metadata.name";
                let kind = resource.kind();
                return Err(Status::invalid(
                    resource.group(),
                    kind,
                    "",
                    "FieldValueRequired",
                    field,
                    why,
                ));
            };
            let suffix = self.uids.hash_one((self.store.version(), "name")) % 100_000;
            metadata["name"] = format!("{prefix}{suffix:05}").into();
        }
        Ok(metadata["name"].as_str().unwrap_or_default().to_owned())
    }

    fn uid(&self, resource: Resource) -> String {
        let version = self.store.version();
        let (high, low) = (
            self.uids.hash_one((resource, version)),
            self.uids.hash_one(version),
        );
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 50 | 0x8000,
            low & 0xffff_ffff_ffff
        )
    }
}

fn has_generation(resource: Resource) -> bool {
    resource == Resource::EndpointSlices
}

fn check_shape(resource: Resource, namespace: &str, object: &Value) -> Result<(), Status> {
    let kind = object["kind"].as_str().unwrap_or(resource.kind());
    let api_version = object["apiVersion"].as_str().unwrap_or(resource.api_version());
    if kind != resource.kind() || api_version != resource.api_version() {
        return Err(Status::bad_request(format!(
            "{kind} in version \"{api_version}\" cannot be handled as a {}: unknown conversion",
            resource.kind()
        )));
    }
    if !object["metadata"].is_object() {
        return Err(Status::bad_request(format!("{kind}: metadata is missing")));
    }
    let own = text(object, "namespace");
    if resource.namespaced() && !own.is_empty() && own != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"][key].as_str().unwrap_or_default()
}

fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            remove(target, key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// Who wrote which fields: one writer, and the tree to the depth of two.
fn managed_fields(resource: Resource, object: &Value) -> Value {
    let names = |value: &Value| -> serde_json::Map<String, Value> {
        let keys = value.as_object().into_iter().flat_map(serde_json::Map::keys);
        keys.map(|key| (format!("f:{key}"), json!({}))).collect()
    };
    let mut tree = names(object);
    tree.remove("f:metadata");
    for (key, value) in &mut tree {
        *value = names(&object[&key[2..]]).into();
    }
    json!([{
        "manager": "lab", "operation": "Update", "apiVersion": resource.api_version(),
        "time": object["metadata"]["creationTimestamp"], "fieldsType": "FieldsV1", "fieldsV1": tree,
    }])
}

/// The time in whole seconds, RFC 3339.
fn now() -> String {
    let now = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(now).unwrap_or_default().to_string()
}
