//! What the connections and the handle share: the cluster, who may ask, the faults, and what was asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fault::Faults;
use super::resource::Resource;
use super::write::Cluster;

/// How many requests are remembered.
const REMEMBERED_REQUESTS: usize = 20_000;

/// Everything behind the server.
#[derive(Debug)]
pub(crate) struct State {
    cluster: Mutex<Cluster>,
    settings: Mutex<Settings>,
    faults: Mutex<Faults>,
    requests: Mutex<Vec<Request>>,
}

/// What can be switched while the server runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Bearer tokens that are let in.
    pub(crate) tokens: Vec<String>,
    /// Whether protobuf is spoken.
    pub(crate) protobuf: bool,
    /// Whether streaming lists are served.
    pub(crate) streaming_lists: bool,
    /// Whether lists for which any version is good enough come from a cache, whole.
    pub(crate) list_cache: bool,
    /// How often a watch that takes bookmarks gets one.
    pub(crate) bookmark_interval: Duration,
}

/// A request as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The header `Accept`; empty when there is none.
    pub accept: String,
    /// The header `Authorization`; empty when there is none.
    pub authorization: String,
    /// The header `User-Agent`; empty when there is none.
    pub user_agent: String,
    /// The resource that the path names.
    pub resource: Option<Resource>,
    /// The status answered; 0 until then.
    pub status: u16,
}

impl Request {
    /// The value of a parameter of the query; `None` when it is absent.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it is a watch (or streaming list).
    pub fn is_watch(&self) -> bool {
        matches!(self.parameter("watch"), Some("1" | "true" | ""))
    }
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            cluster: Mutex::new(Cluster::new()),
            settings: Mutex::new(settings),
            faults: Mutex::default(),
            requests: Mutex::default(),
        }
    }

    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        lock(&self.cluster)
    }

    pub(crate) fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub(crate) fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        lock(&self.requests)
    }

    /// Remembers a request; the answer's status is noted under the index returned.
    pub(crate) fn note(&self, request: Request) -> usize {
        let mut requests = self.requests();
        if requests.len() < REMEMBERED_REQUESTS {
            requests.push(request);
        }
        requests.len() - 1
    }

    pub(crate) fn note_status(&self, index: usize, status: u16) {
        if let Some(request) = self.requests().get_mut(index) {
            request.status = status;
        }
    }
}

/// A panic of another thread does not spoil what it held: every write is done in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
