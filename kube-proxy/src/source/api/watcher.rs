//! Performs the requests of one resource: sends what the reflector asks for, reads the answer piece by piece,
//! and passes on what it says.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::Timing;
use super::backoff::Backoff;
use super::connection::{Connection, in_words};
use super::failure::Failure;
use super::frame::{Encoding, Frames};
use super::health::Health;
use super::list::ListBody;
use super::object::{self, Arrival, Event};
use super::reflector::{Pace, Reflector, Request};
use super::resource::Resource;
use crate::metrics::Metrics;
use crate::model::change::Change;
use crate::source::convert::Interner;
use crate::source::wire::Status;

/// A watch that is closed sooner than this without a word was not a working watch.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);
/// As much of a refusal's body is read.
const MAX_REFUSAL: usize = 64 << 10;

/// Lists and watches one resource.
#[derive(Debug)]
pub(super) struct Watcher {
    resource: Resource,
    connection: Arc<Connection>,
    timing: Timing,
    changes: mpsc::Sender<Change>,
    interner: Arc<Mutex<Interner>>,
    reflector: Reflector,
    backoff: Backoff,
    health: Health,
    accept: String,
}

/// Why a request ended early.
enum Stop {
    Failed(Failure),
    /// Nobody listens any more.
    Closed,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Watcher {
    pub(super) fn new(
        resource: Resource,
        connection: Arc<Connection>,
        timing: Timing,
        changes: mpsc::Sender<Change>,
        interner: Arc<Mutex<Interner>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let health = Health::new(metrics, &resource);
        let accept = connection.options().accept();
        Self {
            resource,
            connection,
            timing,
            changes,
            interner,
            reflector: Reflector::new(),
            backoff: Backoff::new(timing.first_retry, timing.longest_retry),
            health,
            accept,
        }
    }

    /// Goes on until nobody listens.
    pub(super) async fn run(mut self) {
        loop {
            let request = self.reflector.next();
            let outcome = match &request {
                Request::StreamList { .. } | Request::Watch { .. } => self.watch(&request).await,
                Request::List { .. } | Request::Check { .. } => self.list(&request).await,
            };
            match outcome {
                Ok(()) => {}
                Err(Stop::Closed) => return,
                Err(Stop::Failed(failure)) => self.recover(&request, failure).await,
            }
        }
    }

    /// After a failure: says so, and waits as long as it takes.
    async fn recover(&mut self, request: &Request, failure: Failure) {
        let refused_encoding = matches!(failure.code().map(|code| code.as_u16()), Some(406 | 415));
        if refused_encoding && self.accept != "application/json" {
            info!(resource = self.resource.plural, reason = %failure, "Using JSON instead of protobuf");
            self.accept = "application/json".into();
            return;
        }
        if matches!(failure, Failure::Connect(_)) || failure.code() == Some(StatusCode::UNAUTHORIZED) {
            self.connection.rebuild().await;
        }
        let jitter = fastrand::f32();
        if self.resource.without.is_some() && failure.is_missing_resource() {
            self.health
                .missing(&self.resource, self.connection.server(), &failure);
            let longest = self.timing.longest_retry_of_missing;
            return sleep(self.backoff.delay_up_to(longest, jitter)).await;
        }
        let delay = match self.reflector.failed(&failure) {
            Pace::AnotherWay => {
                let next = self.reflector.next().name();
                self.health.goes_on(&self.resource, &failure, next);
                self.backoff.delay_before_another_way(jitter)
            }
            Pace::Wait => {
                let server = self.connection.server();
                self.health
                    .failed(&self.resource, request.verb(), server, &failure);
                self.backoff.delay(jitter)
            }
        };
        sleep(delay.max(failure.retry_after().unwrap_or_default())).await;
    }

    /// Sends a request and makes sure that the answer is one to read.
    async fn get(&self, request: &Request) -> Result<(Encoding, Body), Failure> {
        let patience = match request {
            Request::StreamList { .. } | Request::Check { .. } => self.timing.initial_events,
            // Some proxies hold the header back until the first event.
            Request::Watch { .. } => self.timing.idle,
            Request::List { .. } => self.timing.list,
        };
        let url = request.url(&self.resource, self.timing.watch.mul_f32(1.0 + fastrand::f32()));
        debug!(url, "Asking the API server");
        let response = timeout(patience, self.connection.get(&url, &self.accept)).await;
        let response = response.map_err(|_| Failure::Stalled {
            during: "waiting for the answer",
            after: patience,
        })??;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let encoding = Encoding::of_content_type(&content_type);
        if !response.status().is_success() {
            return Err(refusal(encoding, response, patience).await);
        }
        let encoding = encoding.ok_or_else(|| {
            Failure::Decode(format!(
                "it is {content_type:?} instead of protobuf or JSON; is {} an API server?",
                self.connection.server()
            ))
        })?;
        Ok((encoding, response.into_body()))
    }

    /// A list, or a page of one, or a list for the sake of its version only.
    async fn list(&mut self, request: &Request) -> Result<(), Stop> {
        let (encoding, mut body) = self.get(request).await?;
        let only_check = matches!(request, Request::Check { .. });
        if matches!(request, Request::List { token, .. } if token.is_empty()) {
            self.send(Change::ListStart(self.resource.kind)).await?;
        }
        let unreadable = |error: super::list::ListError| Failure::Decode(format!("the list: {error}"));
        let mut list = ListBody::new(encoding);
        let patience = self.timing.list;
        let stalled = |_| Failure::Stalled {
            during: "reading the list",
            after: patience,
        };
        while let Some(piece) = timeout(patience, next_piece(&mut body))
            .await
            .map_err(stalled)??
        {
            list.push(&piece).map_err(unreadable)?;
            while let Some(item) = list.next().map_err(unreadable)? {
                if !only_check {
                    self.upsert(encoding, &item).await?;
                }
            }
        }
        let meta = list.end().map_err(unreadable)?;
        if only_check {
            return Ok(self.reflector.checked(&meta.resource_version)?);
        }
        while let Some(item) = list.next().map_err(unreadable)? {
            self.upsert(encoding, &item).await?;
        }
        if self.reflector.page(meta)? {
            self.send(Change::ListDone(self.resource.kind)).await?;
        }
        Ok(())
    }

    /// A watch, with or without all objects first.
    async fn watch(&mut self, request: &Request) -> Result<(), Stop> {
        let opened = Instant::now();
        let (encoding, mut body) = self.get(request).await?;
        let mut listing = matches!(request, Request::StreamList { .. });
        if listing {
            self.send(Change::ListStart(self.resource.kind)).await?;
        } else {
            self.health.delivers(&self.resource, self.connection.server());
        }
        let mut frames = Frames::new(encoding);
        let mut told_something = false;
        loop {
            let (patience, during) = if listing {
                (
                    self.timing.initial_events,
                    "waiting for the end of the streaming list",
                )
            } else {
                (self.timing.idle, "watching")
            };
            // Pieces of an event that never becomes whole do not count.
            let frame = timeout(patience, next_frame(&mut body, &mut frames)).await;
            let stalled = |_| Failure::Stalled {
                during,
                after: patience,
            };
            let Some(frame) = frame.map_err(stalled)?? else {
                break;
            };
            self.event(encoding, frame, &mut listing).await?;
            told_something = true;
        }
        if opened.elapsed() < SHORTEST_WATCH {
            if !told_something {
                return Err(Failure::Broken("the watch was closed at once".into()).into());
            }
            sleep(self.timing.first_retry).await;
        } else {
            self.backoff.reset();
        }
        debug!(resource = self.resource.plural, listing, "The watch was closed");
        self.reflector.closed();
        Ok(())
    }

    async fn event(&mut self, encoding: Encoding, frame: Bytes, listing: &mut bool) -> Result<(), Stop> {
        let unreadable = |error: object::DecodeError| Failure::Decode(format!("an event: {error}"));
        let event = object::event(encoding, frame).map_err(unreadable)?;
        if !*listing {
            self.backoff.reset();
        }
        let version = match event {
            Event::Upsert(object) => self.upsert(encoding, &object).await?,
            Event::Delete(object) => {
                let arrival = object::delete(self.resource.kind, encoding, &object).map_err(unreadable)?;
                self.pass_on(arrival).await?
            }
            Event::Bookmark { version, ends_list } if *listing => {
                if !ends_list || version.is_empty() {
                    let why =
                        "a bookmark that does not end the streaming list; the server cannot stream lists";
                    return Err(Failure::Decode(why.into()).into());
                }
                *listing = false;
                self.reflector.listed(version);
                self.send(Change::ListDone(self.resource.kind)).await?;
                self.health.delivers(&self.resource, self.connection.server());
                return Ok(());
            }
            Event::Bookmark { version, .. } => version,
            Event::Error(status) => {
                let retry_after = None;
                return Err(Failure::Refused { status, retry_after }.into());
            }
            Event::Unknown(kind) => {
                debug!(
                    resource = self.resource.plural,
                    kind, "Ignoring an event of unknown type"
                );
                return Ok(());
            }
        };
        // Objects of a streaming list come in order of name; their versions say nothing.
        if !*listing {
            self.reflector.observed(version)?;
        }
        Ok(())
    }

    /// An object came. Gives its version.
    async fn upsert(&self, encoding: Encoding, object: &Bytes) -> Result<String, Stop> {
        let arrival = {
            let mut interner = self.interner.lock().unwrap_or_else(PoisonError::into_inner);
            object::upsert(self.resource.kind, encoding, object, &mut interner)
        };
        self.pass_on(arrival).await
    }

    async fn pass_on(&self, arrival: Arrival) -> Result<String, Stop> {
        let plural = self.resource.plural;
        for problem in &arrival.problems {
            warn!(resource = plural, %problem, "Ignoring a field");
        }
        if let Some(error) = &arrival.unreadable {
            let object = match &arrival.change {
                Some(Change::Kept(_, name)) => name.to_string(),
                _ => "(no name)".into(),
            };
            warn!(resource = plural, object, %error, "An object cannot be read; what is known of it stays");
        }
        if let Some(change) = arrival.change {
            self.send(change).await?;
        }
        Ok(arrival.version)
    }

    async fn send(&self, change: Change) -> Result<(), Stop> {
        self.changes.send(change).await.map_err(|_| Stop::Closed)
    }
}

/// The next piece of a body; `None` at its end.
async fn next_piece(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Broken(in_words(&error)))?;
        if let Ok(piece) = frame.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

/// The next whole event; `None` when the stream ends behind one.
async fn next_frame(body: &mut Body, frames: &mut Frames) -> Result<Option<Bytes>, Failure> {
    loop {
        if let Some(frame) = frames
            .next()
            .map_err(|error| Failure::Decode(error.to_string()))?
        {
            return Ok(Some(frame));
        }
        match next_piece(body).await? {
            Some(piece) => frames.push(&piece),
            None if frames.is_empty() => return Ok(None),
            None => return Err(Failure::Broken("it ended in the middle of an event".into())),
        }
    }
}

/// What a refusal says. Its body is a Status, unless something else than an API server answers.
async fn refusal(encoding: Option<Encoding>, response: Response<Body>, patience: Duration) -> Failure {
    let code = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let retry_after = retry_after
        .and_then(|seconds| seconds.trim().parse().ok())
        .map(Duration::from_secs);
    let mut body = response.into_body();
    let mut text = BytesMut::new();
    while let Ok(Ok(Some(piece))) = timeout(patience, next_piece(&mut body)).await {
        text.extend_from_slice(&piece);
        if text.len() > MAX_REFUSAL {
            break;
        }
    }
    let text = text.freeze();
    let mut status = object::status(encoding, text.clone()).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&text);
        let message = text
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect();
        Status {
            message,
            ..Status::default()
        }
    });
    status.code = code.into();
    Failure::Refused { status, retry_after }
}
