//! What to ask the API server next: list (streamed or paged), watch, go back to listing. The rules are those
//! of client-go's reflector. Pure: the watcher performs the requests and reports what came of them.

use std::time::Duration;

use super::failure::Failure;
use super::resource::Resource;
use crate::source::wire::ListMeta;

/// Objects per page of a paged list.
const PAGE: &str = "500";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A watch that begins with all objects, as new as `version` (empty: as of now), and a bookmark behind
    /// them.
    StreamList { version: String },
    /// One page of a list, or the whole list.
    List {
        /// As new as this; `0` for anything that the server has at hand, empty for as of now.
        version: String,
        /// In pages.
        paged: bool,
        /// The next page; empty for the first one.
        token: String,
    },
    /// Changes since this version.
    Watch { version: String },
    /// Whether the server has got to this version. A watch from the future (the cluster was restored from a
    /// backup) is accepted and then silent, for hours or for ever; a list says so.
    Check { version: String },
}

impl Request {
    /// Path and query. A watch is closed by the server after `timeout`.
    pub(super) fn url(&self, resource: &Resource, timeout: Duration) -> String {
        let timeout = timeout.as_secs().to_string();
        let mut parameters = Vec::new();
        match self {
            Self::StreamList { version } => {
                parameters.extend([
                    ("watch", "true"),
                    ("sendInitialEvents", "true"),
                    ("resourceVersionMatch", "NotOlderThan"),
                ]);
                if !version.is_empty() {
                    parameters.push(("resourceVersion", version));
                }
            }
            Self::Watch { version } => parameters.extend([("watch", "true"), ("resourceVersion", version)]),
            Self::Check { version } => parameters.extend([
                ("limit", "1"),
                ("resourceVersionMatch", "NotOlderThan"),
                ("resourceVersion", version),
            ]),
            Self::List {
                version,
                paged,
                token,
            } => {
                if *paged {
                    parameters.push(("limit", PAGE));
                }
                // The token says the version itself, and the server takes only one of the two.
                if !token.is_empty() {
                    parameters.push(("continue", token));
                } else if !version.is_empty() {
                    parameters.push(("resourceVersion", version));
                }
            }
        }
        if self.is_watch() {
            parameters.extend([("allowWatchBookmarks", "true"), ("timeoutSeconds", &timeout)]);
        }
        resource.url(&parameters)
    }

    pub(super) fn is_watch(&self) -> bool {
        matches!(self, Self::StreamList { .. } | Self::Watch { .. })
    }

    /// The verb that RBAC must allow.
    pub(super) fn verb(&self) -> &'static str {
        if self.is_watch() { "watch" } else { "list" }
    }

    /// The request in words.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::StreamList { .. } => "a streaming list",
            Self::List { paged: true, .. } => "a paged list",
            Self::List { .. } => "a list",
            Self::Watch { .. } => "a watch",
            Self::Check { .. } => "a check of the version",
        }
    }
}

/// How soon to go on after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// The next request is another one, and may well work.
    AnotherWay,
    /// The same again: wait first.
    Wait,
}

/// The state of one resource's list and watch.
#[derive(Debug)]
pub(super) struct Reflector {
    state: State,
    /// The version up to which everything is known; empty before the first list.
    version: String,
    /// The server does not know `version`, or no longer: lists must not ask for it.
    version_lost: bool,
    /// The server pages lists even from its cache (it has none), so pages are worth while for every list.
    pages_from_cache: bool,
    /// Failures of the watch since it last told something.
    watch_failures: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// All objects must be fetched, by a streaming list unless that was just refused.
    Unlisted { stream: bool },
    /// In the middle of a paged list.
    Paging { token: String },
    /// A page was too old to be had: all objects at once.
    ListWhole,
    /// All objects are known.
    Watching,
    /// The same, but the connection was lost, and the server may not be what it was.
    Resuming,
}

impl Reflector {
    /// After this many failures that are not the connection's fault, the list is fetched again.
    const WATCH_FAILURES: u8 = 3;

    pub(super) fn new() -> Self {
        Self {
            state: State::Unlisted { stream: true },
            version: String::new(),
            version_lost: false,
            pages_from_cache: false,
            watch_failures: 0,
        }
    }

    /// The next request.
    pub(super) fn next(&self) -> Request {
        let version = if self.version_lost {
            String::new()
        } else {
            self.version.clone()
        };
        // For the first list anything from the cache does, so that a restarted cluster's nodes do not all
        // make the server read its store.
        let or_anything = |version: String| match version.as_str() {
            "" if !self.version_lost => "0".to_owned(),
            _ => version,
        };
        match &self.state {
            State::Unlisted { stream: true } => Request::StreamList { version },
            State::Unlisted { stream: false } => {
                let version = or_anything(version);
                // The cache ignores the page size for version 0, and is left out when a page size comes
                // with any other version.
                let paged = matches!(version.as_str(), "" | "0") || self.pages_from_cache;
                let token = String::new();
                Request::List {
                    version,
                    paged,
                    token,
                }
            }
            State::Paging { token } => Request::List {
                version: String::new(),
                paged: true,
                token: token.clone(),
            },
            State::ListWhole => Request::List {
                version: or_anything(version),
                paged: false,
                token: String::new(),
            },
            State::Watching => Request::Watch {
                version: self.version.clone(),
            },
            State::Resuming => Request::Check {
                version: self.version.clone(),
            },
        }
    }

    /// A page arrived whole. Says whether it was the last one.
    pub(super) fn page(&mut self, meta: ListMeta) -> Result<bool, Failure> {
        if meta.continue_token.is_empty() {
            if meta.resource_version.is_empty() {
                return Err(Failure::Decode("a list without a resource version".into()));
            }
            self.listed(meta.resource_version);
            return Ok(true);
        }
        if self.next() == self.first_page_from_cache() {
            self.pages_from_cache = true;
        }
        self.state = State::Paging {
            token: meta.continue_token,
        };
        Ok(false)
    }

    fn first_page_from_cache(&self) -> Request {
        Request::List {
            version: "0".into(),
            paged: true,
            token: String::new(),
        }
    }

    /// All objects are known, as of this version.
    pub(super) fn listed(&mut self, version: String) {
        self.version = version;
        self.version_lost = false;
        self.watch_failures = 0;
        self.state = State::Watching;
    }

    /// The server is at this version, so the watch can be resumed.
    pub(super) fn checked(&mut self, version: &str) -> Result<(), Failure> {
        if is_before(version, &self.version) {
            return Err(self.went_back(version));
        }
        self.state = State::Watching;
        Ok(())
    }

    /// The watch told everything up to this version.
    pub(super) fn observed(&mut self, version: String) -> Result<(), Failure> {
        self.watch_failures = 0;
        if version.is_empty() {
            return Ok(());
        }
        if is_before(&version, &self.version) {
            return Err(self.went_back(&version));
        }
        self.version = version;
        Ok(())
    }

    fn went_back(&self, version: &str) -> Failure {
        Failure::WentBack {
            seen: self.version.clone(),
            now: version.to_owned(),
        }
    }

    /// The watch was closed in good order. A streaming list that never said it was complete is not tried
    /// again at once.
    pub(super) fn closed(&mut self) {
        if self.state == (State::Unlisted { stream: true }) {
            self.state = State::Unlisted { stream: false };
        }
    }

    /// A request failed.
    pub(super) fn failed(&mut self, failure: &Failure) -> Pace {
        let before = (self.next(), self.version_lost);
        let unknown_version = failure.is_expired() || failure.is_version_too_large();
        match &self.state {
            State::Unlisted { stream: true } => {
                if unknown_version && !self.version_lost && !self.version.is_empty() {
                    self.version_lost = true;
                } else if !is_same_for_every_request(failure) {
                    self.state = State::Unlisted { stream: false };
                }
            }
            State::Paging { .. } if is_about_the_question(failure) => self.state = State::ListWhole,
            State::Unlisted { stream: false } | State::ListWhole | State::Paging { .. } => {
                if unknown_version {
                    self.version_lost = true;
                    self.state = State::Unlisted { stream: false };
                }
            }
            State::Watching | State::Resuming => self.watch_failed(failure),
        }
        if self.state == State::Resuming || before == (self.next(), self.version_lost) {
            Pace::Wait
        } else {
            Pace::AnotherWay
        }
    }

    fn watch_failed(&mut self, failure: &Failure) {
        let went_back = matches!(failure, Failure::WentBack { .. }) || failure.is_version_too_large();
        // What else the server may find wrong with our question is its version.
        let bad_request = is_about_the_question(failure);
        if self.state == State::Resuming && bad_request {
            // It does not know how to check.
            self.state = State::Watching;
            return;
        }
        let lost = matches!(
            failure,
            Failure::Connect(_) | Failure::Broken(_) | Failure::Stalled { .. }
        );
        if !lost && !is_same_for_every_request(failure) {
            self.watch_failures += 1;
        }
        if went_back || bad_request || self.watch_failures >= Self::WATCH_FAILURES {
            self.version_lost = went_back || (bad_request && !failure.is_expired());
            self.watch_failures = 0;
            self.state = State::Unlisted { stream: true };
        } else if lost {
            self.state = State::Resuming;
        }
    }
}

/// Whether another request would fare no better: no connection, no permission, too many requests.
fn is_same_for_every_request(failure: &Failure) -> bool {
    match failure {
        Failure::Client(_) | Failure::Connect(_) => true,
        _ => failure
            .code()
            .is_some_and(|code| matches!(code.as_u16(), 401 | 403 | 408 | 429)),
    }
}

/// Whether the server objects to what was asked, rather than to us, now, or at all. 410 is among these.
fn is_about_the_question(failure: &Failure) -> bool {
    failure.is_expired()
        || failure
            .code()
            .is_some_and(|code| code.is_client_error() && !is_same_for_every_request(failure))
}

/// Versions are decimal numbers that grow. If one is not, nothing can be said.
fn is_before(one: &str, other: &str) -> bool {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => one < other,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
