//! Why a request to the API server failed, and what that says about the way on.

use std::time::Duration;

use http::StatusCode;

use super::resource::Resource;
use crate::source::wire::Status;

/// A failed request or a broken stream.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Failure {
    /// The client could not be set up: unreadable kubeconfig, failing exec plugin, bad certificates.
    #[error("cannot set up the client: {0}")]
    Client(String),
    /// There was no answer: unreachable, refused, TLS.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection broke while the answer was read.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server refused, before the answer or in an ERROR event.
    #[error("the server answers {}{}", .status.code, describe(.status))]
    Refused {
        status: Status,
        /// The `Retry-After` header.
        retry_after: Option<Duration>,
    },
    /// The server's answer makes no sense.
    #[error("the answer cannot be read: {0}")]
    Decode(String),
    /// Nothing came for too long.
    #[error("nothing came for {} s while {during}", .after.as_secs_f32())]
    Stalled { during: &'static str, after: Duration },
    /// A version lower than one already seen: the cluster was restored from a backup.
    #[error("the resource version went back from {seen} to {now}; was the cluster restored from a backup?")]
    WentBack { seen: String, now: String },
}

impl Failure {
    /// A refusal of which nothing but the HTTP status is known.
    pub(super) fn of_code(code: StatusCode) -> Self {
        let status = Status {
            code: i32::from(code.as_u16()),
            ..Status::default()
        };
        Self::Refused {
            status,
            retry_after: None,
        }
    }

    /// The label `reason` of the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Client(_) | Self::Connect(_) | Self::Broken(_) => "connect",
            Self::Refused { .. } if self.is_expired() => "expired",
            Self::Refused { .. } => "status",
            Self::Decode(_) => "decode",
            Self::Stalled { .. } => "stalled",
            Self::WentBack { .. } => "expired",
        }
    }

    /// HTTP status of a refusal.
    pub(super) fn code(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => StatusCode::from_u16(u16::try_from(status.code).ok()?).ok(),
            _ => None,
        }
    }

    /// Whether one log line serves for both.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let is_out_of_order = |failure: &Self| match failure {
            Self::Connect(_) | Self::Broken(_) | Self::Stalled { .. } => true,
            _ => failure.code().is_some_and(|code| code.is_server_error()),
        };
        let same_kind = std::mem::discriminant(self) == std::mem::discriminant(other);
        (same_kind && self.code() == other.code()) || (is_out_of_order(self) && is_out_of_order(other))
    }

    /// The history since the version we asked for is gone (410).
    pub(super) fn is_expired(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                status.code == 410 || status.reason == "Expired" || status.reason == "Gone"
            }
            _ => false,
        }
    }

    /// The server has never heard of the version we asked for: another replica lags, or a backup was
    /// restored.
    pub(super) fn is_version_too_large(&self) -> bool {
        let Self::Refused { status, .. } = self else {
            return false;
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let mut causes = causes.map(|cause| cause.reason.as_str());
        causes.any(|cause| cause == "ResourceVersionTooLarge")
            || (status.reason == "Timeout" && status.message.contains("Too large resource version"))
    }

    /// How long the server asks us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        /// Longer than this we do not wait, whatever the server says.
        const LONGEST: Duration = Duration::from_secs(300);
        let Self::Refused { status, retry_after } = self else {
            return None;
        };
        // It asks for the time until it gets to that version; we ask for another one.
        if self.is_version_too_large() {
            return None;
        }
        let seconds = status.details.as_ref().map(|details| details.retry_after_seconds);
        let in_status = seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|s| *s > 0);
        let asked = retry_after.or(in_status.map(Duration::from_secs))?;
        Some(asked.min(LONGEST))
    }

    /// The server does not know the resource, or does not let us have it.
    pub(super) fn is_missing_resource(&self) -> bool {
        matches!(self.code(), Some(StatusCode::NOT_FOUND | StatusCode::FORBIDDEN))
    }

    /// What the operator can do about it.
    pub(super) fn advice(&self, resource: &Resource) -> Option<String> {
        let Resource { plural, group, .. } = resource;
        match self.code()? {
            StatusCode::UNAUTHORIZED => Some(
                "the credentials are not accepted: is the token or client certificate of the kubeconfig (or of \
                 the service account) valid for this cluster?"
                    .into(),
            ),
            StatusCode::FORBIDDEN => Some(format!(
                "kube-proxy needs the verbs list and watch on resource {plural:?} of API group {group:?} in the \
                 whole cluster; the ClusterRole system:node-proxier grants them"
            )),
            StatusCode::NOT_FOUND => Some(format!(
                "does this server serve {plural:?} of API group {group:?}, version v1?"
            )),
            _ => None,
        }
    }
}

fn describe(status: &Status) -> String {
    let code = u16::try_from(status.code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok());
    let name = code
        .and_then(|code| code.canonical_reason())
        .unwrap_or(&status.reason);
    match status.message.as_str() {
        "" => format!(" {name}"),
        message => format!(" {name}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::wire::{StatusCause, StatusDetails};

    fn refused(code: i32, reason: &str, message: &str) -> Failure {
        let status = Status {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
        };
        let retry_after = None;
        Failure::Refused { status, retry_after }
    }

    #[test]
    fn expired_versions_are_known_by_code_or_reason() {
        for (code, reason, expected) in [
            (410, "", true),
            (410, "Gone", true),
            (0, "Expired", true),
            (500, "InternalError", false),
        ] {
            assert_eq!(
                refused(code, reason, "").is_expired(),
                expected,
                "{code} {reason}"
            );
        }
    }

    #[test]
    fn versions_from_the_future_are_known_by_cause_or_by_the_words_of_old_servers() {
        let mut by_cause = refused(504, "Timeout", "");
        let Failure::Refused { status, .. } = &mut by_cause else {
            unreachable!()
        };
        let cause = StatusCause {
            reason: "ResourceVersionTooLarge".into(),
            message: String::new(),
        };
        status.details = Some(StatusDetails {
            causes: vec![cause],
            retry_after_seconds: 1,
        });
        assert!(by_cause.is_version_too_large());
        assert_eq!(by_cause.retry_after(), None);
        let by_words = refused(
            504,
            "Timeout",
            "Timeout: Too large resource version: 9, current: 1",
        );
        assert!(by_words.is_version_too_large());
        assert!(!refused(504, "Timeout", "slow").is_version_too_large());
    }

    #[test]
    fn one_line_serves_for_a_server_that_is_down_but_not_for_different_refusals() {
        let broken = Failure::Broken(String::new());
        let connect = Failure::Connect(String::new());
        assert!(broken.is_like(&connect));
        assert!(refused(403, "", "a").is_like(&refused(403, "", "b")));
        assert!(!refused(403, "", "").is_like(&refused(401, "", "")));
        assert!(refused(503, "", "").is_like(&broken));
        assert!(!refused(403, "", "").is_like(&broken));
        assert!(!Failure::Decode(String::new()).is_like(&broken));
    }

    #[test]
    fn the_header_beats_the_status_and_neither_may_ask_for_hours() {
        for (header, in_status, expected) in [
            (None, 0, None),
            (None, 3, Some(3)),
            (Some(7), 3, Some(7)),
            (Some(86400), 0, Some(300)),
        ] {
            let details = StatusDetails {
                causes: Vec::new(),
                retry_after_seconds: in_status,
            };
            let status = Status {
                details: Some(details),
                ..Status::default()
            };
            let retry_after = header.map(Duration::from_secs);
            let failure = Failure::Refused { status, retry_after };
            assert_eq!(failure.retry_after(), expected.map(Duration::from_secs));
        }
    }

    #[test]
    fn a_refusal_says_what_is_needed() {
        let forbidden = refused(403, "Forbidden", "services is forbidden");
        assert_eq!(
            forbidden.to_string(),
            "the server answers 403 Forbidden: services is forbidden"
        );
        let advice = forbidden.advice(&Resource::endpoint_slices()).unwrap();
        assert!(
            advice.contains("list and watch") && advice.contains("endpointslices"),
            "{advice}"
        );
        assert!(refused(401, "", "").advice(&Resource::services()).is_some());
        assert!(refused(500, "", "").advice(&Resource::services()).is_none());
    }
}
