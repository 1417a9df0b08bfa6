//! An open watch: initial objects, missed events, then what happens, as frames.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::fault::Chunks;
use super::object::Object;
use super::query::Encoding;
use super::render::{self, EventType};
use super::resource::Resource;
use super::select::Selector;
use super::state::State;
use super::status::Status;
use super::store::{Event, Signal, Subscription};

/// So long before a watch ends by its timeout comes its last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// About how much is written at once.
const CHUNK: usize = 64 * 1024;

/// What goes wrong with watches that are already open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamFault {
    /// Nothing more comes; the connection stays open.
    Stall,
    /// Half a frame comes, then nothing; the connection stays open.
    StallMidFrame,
    /// The connection is closed between two frames, without the end that HTTP prescribes.
    Cut,
    /// Half a frame comes, then the connection is closed.
    CutMidFrame,
    /// The watch ends in good order, as at its timeout.
    End,
    /// Bytes come that are no frame; the watch goes on.
    Garbage,
    /// An ERROR event of this code comes and the watch ends.
    Error(u16),
    /// The next so many events are never told.
    Lose(usize),
}

/// What a watch was asked for.
#[derive(Debug)]
pub(crate) struct WatchRequest {
    pub(crate) resource: Resource,
    pub(crate) selector: Selector,
    pub(crate) encoding: Encoding,
    pub(crate) bookmarks: bool,
    /// A streaming list: a bookmark ends the initial objects.
    pub(crate) initial_end: bool,
    /// Only events after this version are told (it may be in the future).
    pub(crate) after: u64,
    pub(crate) timeout: Duration,
    pub(crate) bookmark_interval: Duration,
}

struct Watch {
    request: WatchRequest,
    subscription: Subscription,
    /// What of the subscription's objects and events is already told.
    told: usize,
    started: bool,
    deadline: Instant,
    /// When the last bookmark before the deadline is due; `None` when it was sent, or there is no time for it.
    last_bookmark: Option<Instant>,
    bookmarks: Interval,
    lose: usize,
    then: Then,
    guard: Guard,
}

/// What follows the chunk just made.
enum Then {
    More,
    End,
    Stall,
    Cut,
}

/// Takes the watch off the store when the connection is gone.
struct Guard {
    state: Arc<State>,
    resource: Resource,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.state.cluster().store.unwatch(self.resource, self.id);
    }
}

/// The body of a watch.
pub(crate) fn watch(state: Arc<State>, request: WatchRequest, subscription: Subscription) -> Chunks {
    let period = request.bookmark_interval;
    let mut bookmarks = tokio::time::interval_at(Instant::now() + period, period);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let last_bookmark = request.timeout.checked_sub(LAST_BOOKMARK);
    let watch = Watch {
        told: 0,
        started: false,
        deadline: Instant::now() + request.timeout,
        last_bookmark: last_bookmark.map(|time| Instant::now() + time),
        bookmarks,
        lose: 0,
        then: Then::More,
        guard: Guard {
            state,
            resource: request.resource,
            id: subscription.id,
        },
        request,
        subscription,
    };
    stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((chunk, watch))
    })
    .boxed()
}

/// Waits until then, or for ever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The body of a watch that fails at once.
pub(crate) fn failed(status: &Status, encoding: Encoding) -> Chunks {
    let mut frame = Vec::new();
    render::push_error(&mut frame, status, encoding);
    stream::iter([Ok(Bytes::from(frame))]).boxed()
}

impl Watch {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        match self.then {
            Then::More => {}
            Then::End => return None,
            Then::Stall => std::future::pending().await,
            Then::Cut => {
                self.then = Then::End;
                return Some(Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "cut by a fault",
                )));
            }
        }
        let mut out = Vec::new();
        if !self.started {
            self.begin(&mut out);
        }
        while out.is_empty() && matches!(self.then, Then::More) {
            tokio::select! {
                biased;
                signal = self.subscription.signals.recv() => match signal {
                    Some(signal) => self.take(&mut out, signal),
                    None => self.then = Then::End,
                },
                () = tokio::time::sleep_until(self.deadline) => self.then = Then::End,
                () = at(self.last_bookmark) => {
                    self.last_bookmark = None;
                    self.bookmark_now(&mut out);
                }
                _ = self.bookmarks.tick() => self.bookmark_now(&mut out),
            }
        }
        // What else has happened goes out with it.
        self.drain(&mut out, CHUNK);
        if out.is_empty() {
            return Box::pin(self.next()).await;
        }
        Some(Ok(out.into()))
    }

    /// A bookmark of the store's version. Every event up to it is in the queue: they go out first.
    fn bookmark_now(&mut self, out: &mut Vec<u8>) {
        let version = self.guard.state.cluster().store.version();
        self.drain(out, usize::MAX);
        if matches!(self.then, Then::More) {
            self.bookmark(out, version, false);
        }
    }

    /// Takes what is waiting, until there are so many bytes to write.
    fn drain(&mut self, out: &mut Vec<u8>, bytes: usize) {
        while out.len() < bytes && matches!(self.then, Then::More) {
            match self.subscription.signals.try_recv() {
                Ok(signal) => self.take(out, signal),
                Err(_) => return,
            }
        }
    }

    /// Initial objects and missed events, a chunk at a time.
    fn begin(&mut self, out: &mut Vec<u8>) {
        while out.len() < CHUNK {
            let at = self.told;
            self.told += 1;
            let objects = self.subscription.objects.len();
            if let Some(object) = self.subscription.objects.get(at).cloned() {
                if self.request.selector.matches(&object) {
                    render::push_event(out, EventType::Added, &object, self.request.encoding);
                }
            } else if let Some(event) = self.subscription.missed.get(at - objects).cloned() {
                self.event(out, &event);
            } else {
                self.started = true;
                self.subscription.objects = Vec::new();
                self.subscription.missed = Vec::new();
                if self.request.initial_end {
                    self.bookmark(out, self.subscription.version, true);
                }
                return;
            }
        }
    }

    fn take(&mut self, out: &mut Vec<u8>, signal: Signal) {
        match signal {
            Signal::Event(event) => self.event(out, &event),
            Signal::Bookmark(version) => self.bookmark(out, version, false),
            Signal::Fault(fault) => self.fault(out, &fault),
        }
    }

    fn event(&mut self, out: &mut Vec<u8>, event: &Event) {
        if event.version <= self.request.after {
            return;
        }
        if self.lose > 0 {
            self.lose -= 1;
            return;
        }
        let selected = |object: &Option<Arc<Object>>| {
            object
                .clone()
                .filter(|object| self.request.selector.matches(object))
        };
        let encoding = self.request.encoding;
        match (selected(&event.before), selected(&event.after)) {
            (None, Some(after)) => render::push_event(out, EventType::Added, &after, encoding),
            (Some(_), Some(after)) => render::push_event(out, EventType::Modified, &after, encoding),
            (Some(before), None) => {
                let last = before.at_version(event.version);
                render::push_event(out, EventType::Deleted, &last, encoding);
            }
            (None, None) => {}
        }
    }

    fn bookmark(&self, out: &mut Vec<u8>, version: u64, initial_end: bool) {
        let request = &self.request;
        if request.bookmarks && version >= request.after {
            render::push_bookmark(out, request.resource, version, initial_end, request.encoding);
        }
    }

    fn fault(&mut self, out: &mut Vec<u8>, fault: &StreamFault) {
        let request = &self.request;
        let half_frame = |out: &mut Vec<u8>| {
            let mut frame = Vec::new();
            let version = self.subscription.version;
            render::push_bookmark(&mut frame, request.resource, version, false, request.encoding);
            out.extend_from_slice(&frame[..frame.len() / 2]);
        };
        match fault {
            StreamFault::Stall => self.then = Then::Stall,
            StreamFault::StallMidFrame => {
                half_frame(out);
                self.then = Then::Stall;
            }
            StreamFault::Cut => self.then = Then::Cut,
            StreamFault::CutMidFrame => {
                half_frame(out);
                self.then = Then::Cut;
            }
            StreamFault::End => self.then = Then::End,
            StreamFault::Garbage => out.extend_from_slice(b"\x00\x00\x00\x05\xff\xff\xff\xff\xff{]\n"),
            StreamFault::Error(code) => {
                render::push_error(out, &Status::of_code(*code), request.encoding);
                self.then = Then::End;
            }
            StreamFault::Lose(events) => self.lose = *events,
        }
    }
}
