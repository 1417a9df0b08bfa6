//! What a request asks for: the path's resource, the options of list and watch, the wanted encoding.

use std::time::Duration;

use super::resource::Resource;
use super::status::Status;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) resource: Resource,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    /// `status`, or what nothing serves.
    pub(crate) subresource: Option<String>,
}

impl Target {
    /// The target of a path below `/api/v1` or `/apis/GROUP/v1`.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        if parts.next()? != "v1" {
            return None;
        }
        let parts: Vec<&str> = parts.collect();
        let (namespace, rest) = match parts.as_slice() {
            ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status" | "finalize"]) => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let [plural, rest @ ..] = rest else { return None };
        let resource = Resource::of_path(group, plural)?;
        if rest.len() > 2 || (namespace.is_some() && !resource.namespaced()) {
            return None;
        }
        Some(Self {
            resource,
            namespace,
            name: rest.first().map(|name| (*name).to_owned()),
            subresource: rest.get(1).map(|name| (*name).to_owned()),
        })
    }
}

/// The query of a list or watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListOptions {
    pub(crate) watch: bool,
    pub(crate) limit: usize,
    pub(crate) continue_: String,
    pub(crate) resource_version: String,
    pub(crate) resource_version_match: String,
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) timeout: Option<Duration>,
    pub(crate) allow_watch_bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 when a number is none.
    pub(crate) fn parse(query: &[(String, String)]) -> Result<Self, Status> {
        let mut options = Self::default();
        let truth = |value: &str| !matches!(value, "false" | "0");
        let number = |value: &str| -> Result<u64, Status> {
            let wrong =
                || Status::bad_request(format!("strconv.ParseInt: parsing \"{value}\": invalid syntax"));
            value.parse().map_err(|_| wrong())
        };
        for (key, value) in query {
            match key.as_str() {
                "watch" => options.watch = truth(value),
                "limit" => options.limit = usize::try_from(number(value)?).unwrap_or(usize::MAX),
                "continue" => options.continue_.clone_from(value),
                "resourceVersion" => options.resource_version.clone_from(value),
                "resourceVersionMatch" => options.resource_version_match.clone_from(value),
                "labelSelector" => options.label_selector.clone_from(value),
                "fieldSelector" => options.field_selector.clone_from(value),
                "timeoutSeconds" => options.timeout = Some(Duration::from_secs(number(value)?)),
                "allowWatchBookmarks" => options.allow_watch_bookmarks = truth(value),
                "sendInitialEvents" => options.send_initial_events = Some(truth(value)),
                _ => {}
            }
        }
        Ok(options)
    }

    /// Checks that the options go together.
    ///
    /// # Errors
    /// 422 with the real server's wording.
    pub(crate) fn validate(&self, streaming_lists: bool) -> Result<(), Status> {
        let forbidden = |field: &str, why: &str| Err(Status::forbidden_option(field, why));
        let version_match = self.resource_version_match.as_str();
        if self.send_initial_events.is_some() {
            if !self.watch {
                return forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
            }
            if version_match != "NotOlderThan" {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return forbidden("resourceVersionMatch", why);
            }
            if !streaming_lists {
                let why =
                    "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
                return forbidden("sendInitialEvents", why);
            }
        }
        if version_match.is_empty() {
            return Ok(());
        }
        let field = "resourceVersionMatch";
        if self.watch && self.send_initial_events.is_none() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return forbidden(field, why);
        }
        if !self.watch && self.resource_version.is_empty() {
            return forbidden(
                field,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if !self.continue_.is_empty() {
            return forbidden(
                field,
                "resourceVersionMatch is forbidden when continue is provided",
            );
        }
        if version_match == "Exact" && self.resource_version == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            return forbidden(field, why);
        }
        if !matches!(version_match, "Exact" | "NotOlderThan") {
            let why = format!(
                "Unsupported value: \"{version_match}\": supported values: \"Exact\", \"NotOlderThan\", \"\""
            );
            let reason = "FieldValueNotSupported";
            return Err(Status::invalid(
                "meta.k8s.io",
                "ListOptions",
                "",
                reason,
                field,
                &why,
            ));
        }
        Ok(())
    }

    /// `resourceVersion` as a number; `None` when unset.
    ///
    /// # Errors
    /// The real server's message when it is no number.
    pub(crate) fn version(&self) -> Result<Option<u64>, String> {
        let text = &self.resource_version;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            format!(
                "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
            )
        })
    }
}

/// Splits and decodes a query.
pub(crate) fn parse_query(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(pair)
        .collect()
}

/// Undoes percent-encoding and `+`; what is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |at: usize| {
        let digits = bytes.get(at..at + 2)?;
        u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], hex(at + 1)) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How objects travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    /// The first media type of an `Accept` header that the server speaks; JSON when there is none. `None`
    /// when it speaks none of them.
    pub(crate) fn negotiate(accept: Option<&str>, protobuf: bool) -> Option<Self> {
        let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else {
            return Some(Self::Json);
        };
        accept.split(',').find_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next()?;
            // Tables and bare metadata are not served.
            if parts.any(|parameter| parameter.starts_with("as=")) {
                return None;
            }
            match media_type {
                "application/json" | "*/*" | "application/*" => Some(Self::Json),
                "application/vnd.kubernetes.protobuf" if protobuf => Some(Self::Protobuf),
                _ => None,
            }
        })
    }

    /// The media type of a whole object.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of a stream of watch events.
    pub(crate) fn stream_content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

#[cfg(test)]
mod tests;
