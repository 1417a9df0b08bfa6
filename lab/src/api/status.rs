//! What the API answers when it refuses: `Status` objects with the real server's reasons, codes and wording.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::resource::Resource;

/// A `Status` object.
#[derive(Clone, Debug)]
pub struct Status {
    code: StatusCode,
    body: Value,
}

impl Status {
    /// A failure with a code, a reason (empty: none) and a message.
    pub(crate) fn failure(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        let mut body = json!({
            "metadata": {},
            "status": "Failure",
            "message": message.into(),
            "code": code.as_u16(),
        });
        if !reason.is_empty() {
            body["reason"] = reason.into();
        }
        Self { code, body }
    }

    /// What the real server says with a code, for faults that name only the code.
    pub(crate) fn of_code(code: u16) -> Self {
        let (reason, message) = match code {
            401 => ("Unauthorized", "Unauthorized"),
            403 => ("Forbidden", "forbidden: User \"lab\" cannot do this"),
            404 => ("NotFound", "the server could not find the requested resource"),
            410 => ("Expired", "The resourceVersion for the provided list is too old."),
            429 => (
                "TooManyRequests",
                "The server has received too many requests and has asked us to try again later",
            ),
            503 => (
                "ServiceUnavailable",
                "The server is currently unable to handle the request",
            ),
            504 => ("Timeout", "request did not complete within the allotted timeout"),
            _ => (
                "InternalError",
                "Internal error occurred: etcdserver: request timed out",
            ),
        };
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::failure(code, reason, message)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// Nothing is served at this path.
    pub(crate) fn no_such_path() -> Self {
        Self::of_code(404).with_details(json!({}))
    }

    pub(crate) fn not_found(resource: Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(resource));
        Self::failure(StatusCode::NOT_FOUND, "NotFound", message).about(resource, name)
    }

    pub(crate) fn already_exists(resource: Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(resource));
        Self::failure(StatusCode::CONFLICT, "AlreadyExists", message).about(resource, name)
    }

    pub(crate) fn conflict(resource: Resource, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your \
             changes to the latest version and try again",
            qualified(resource)
        );
        Self::failure(StatusCode::CONFLICT, "Conflict", message).about(resource, name)
    }

    /// One field of an object (or of the options, with `kind` ListOptions) is not acceptable.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, reason: &str, field: &str, why: &str) -> Self {
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let message = format!("{qualified} \"{name}\" is invalid: {field}: {why}");
        let mut details = Map::new();
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), value.into());
            }
        }
        let causes = json!([{"reason": reason, "message": why, "field": field}]);
        details.insert("causes".to_owned(), causes);
        Self::failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
            .with_details(Value::Object(details))
    }

    /// A list option may not be used like this.
    pub(crate) fn forbidden_option(field: &str, why: &str) -> Self {
        let why = format!("Forbidden: {why}");
        Self::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            "FieldValueForbidden",
            field,
            &why,
        )
    }

    pub(crate) fn anonymous(resource: Option<(Resource, &str)>, path: &str) -> Self {
        let (message, details) = match resource {
            Some((resource, verb)) => (
                format!(
                    "{} is forbidden: User \"system:anonymous\" cannot {verb} resource \"{}\" in API group \
                     \"{}\" at the cluster scope",
                    qualified(resource),
                    resource.plural(),
                    resource.group()
                ),
                details(resource, ""),
            ),
            None => (
                format!("forbidden: User \"system:anonymous\" cannot get path \"{path}\""),
                json!({}),
            ),
        };
        Self::failure(StatusCode::FORBIDDEN, "Forbidden", message).with_details(details)
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf, application/json;stream=watch, \
                       application/vnd.kubernetes.protobuf;stream=watch";
        Self::failure(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message).with_details(json!({}))
    }

    /// The list at this version, or the rest of a paged list, is no longer to be had; `continue_` goes on
    /// with what is current.
    pub(crate) fn expired_list(continue_: Option<String>) -> Self {
        let Some(continue_) = continue_ else {
            return Self::of_code(410);
        };
        let message = "The provided continue parameter is too old to display a consistent list result. You can \
                       start a new list without the continue parameter, or use the continue token in this \
                       response to retrieve the remainder of the results. Continuing with the provided token \
                       results in an inconsistent list - objects that were created, modified, or deleted \
                       between the time the first chunk was returned and now may show up in the list.";
        let mut status = Self::failure(StatusCode::GONE, "Expired", message);
        status.body["metadata"] = json!({"continue": continue_});
        status
    }

    /// The history that a watch asks for is forgotten.
    pub(crate) fn expired_watch(asked: u64, oldest: u64) -> Self {
        let message = format!("too old resource version: {asked} ({oldest})");
        Self::failure(StatusCode::GONE, "Expired", message)
    }

    /// The version asked for is yet to come.
    pub(crate) fn too_large_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        Self::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).with_details(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }))
    }

    /// What a deletion answers for kinds whose object is not returned.
    pub(crate) fn deleted(resource: Resource, name: &str, uid: &str) -> Self {
        let mut details = details(resource, name);
        details["uid"] = uid.into();
        Self {
            code: StatusCode::OK,
            body: json!({"metadata": {}, "status": "Success", "details": details}),
        }
    }

    /// The HTTP status.
    pub fn code(&self) -> StatusCode {
        self.code
    }

    /// `reason`; empty when there is none.
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }

    /// `message`; empty when there is none.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// Seconds for the `Retry-After` header, when the Status asks for a retry.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.body["details"]["retryAfterSeconds"].as_u64()
    }

    /// The object without `kind` and `apiVersion`.
    pub(crate) fn json(&self) -> String {
        self.body.to_string()
    }

    fn about(self, resource: Resource, name: &str) -> Self {
        self.with_details(details(resource, name))
    }

    fn with_details(mut self, details: Value) -> Self {
        self.body["details"] = details;
        self
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.code.as_u16(), self.reason(), self.message())
    }
}

impl std::error::Error for Status {}

/// The resource with its group, as messages name it.
fn qualified(resource: Resource) -> String {
    match resource.group() {
        "" => resource.plural().to_owned(),
        group => format!("{}.{group}", resource.plural()),
    }
}

fn details(resource: Resource, name: &str) -> Value {
    let mut details = Map::new();
    for (key, value) in [
        ("name", name),
        ("group", resource.group()),
        ("kind", resource.plural()),
    ] {
        if !value.is_empty() {
            details.insert(key.to_owned(), value.into());
        }
    }
    Value::Object(details)
}
