//! Faults on demand: which requests they befall and what they do to the answer.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::resource::Resource;

/// What goes wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A Status of this code instead of the answer; `Retry-After` in seconds, if given.
    Status {
        /// The HTTP status.
        code: u16,
        /// The header `Retry-After`.
        retry_after: Option<u64>,
    },
    /// The answer comes only after this time.
    Delay(Duration),
    /// Something is written and all history up to it forgotten, just before the answer is made.
    Forget,
    /// The connection is closed without an answer.
    HangUp,
    /// After this many bytes of the body nothing more comes; the connection stays open.
    StallAfter(usize),
    /// After this many bytes of the body the connection is closed.
    CutAfter(usize),
    /// The body comes in pieces of so many bytes with a pause after each.
    Slow(usize, Duration),
    /// Status 200, and a body that is of no encoding.
    Garbage,
    /// The body is right, the header `Content-Type` names this instead.
    ContentType(&'static str),
}

/// What a rule befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Lists, the pages of paged ones too.
    List,
    /// Watches, streaming lists too.
    Watch,
}

/// A fault with what it befalls: everything, until restricted.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    resource: Option<Resource>,
    verb: Option<Verb>,
    left: Option<usize>,
}

impl Rule {
    /// This fault, for every list and watch until [`Faults::clear`].
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            resource: None,
            verb: None,
            left: None,
        }
    }

    /// Only for this resource.
    #[must_use]
    pub fn on(self, resource: Resource) -> Self {
        Self {
            resource: Some(resource),
            ..self
        }
    }

    /// Only for lists, or only for watches.
    #[must_use]
    pub fn when(self, verb: Verb) -> Self {
        Self {
            verb: Some(verb),
            ..self
        }
    }

    /// Only the next `times` times.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self {
            left: Some(times),
            ..self
        }
    }

    fn befalls(&self, resource: Resource, verb: Verb) -> bool {
        self.resource.is_none_or(|only| only == resource)
            && self.verb.is_none_or(|only| only == verb)
            && self.left != Some(0)
    }
}

/// The rules in force; for a request the first that befalls it counts.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Rule>);

impl Faults {
    pub(crate) fn add(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault of a request, counted as used.
    pub(crate) fn take(&mut self, resource: Resource, verb: Verb) -> Option<Fault> {
        let rule = self.0.iter_mut().find(|rule| rule.befalls(resource, verb))?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some(rule.fault.clone())
    }
}

/// A body as it comes.
pub(crate) type Chunks = BoxStream<'static, io::Result<Bytes>>;

impl Fault {
    /// Spoils a body.
    pub(crate) fn spoil(self, chunks: Chunks) -> Chunks {
        match self {
            Self::StallAfter(bytes) => take_bytes(chunks, bytes).chain(stream::pending()).boxed(),
            Self::CutAfter(bytes) => {
                let cut = io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a fault");
                take_bytes(chunks, bytes).chain(stream::iter([Err(cut)])).boxed()
            }
            Self::Slow(bytes, pause) => slowly(chunks, bytes.max(1), pause),
            Self::Garbage => {
                let garbage = Bytes::from_static(b"\x00\x00\x00\x05\xff\xff\xff\xff\xff{]\n");
                stream::iter([Ok(garbage)]).boxed()
            }
            Self::Status { .. } | Self::Delay(_) | Self::Forget | Self::HangUp | Self::ContentType(_) => {
                chunks
            }
        }
    }
}

/// The first so many bytes; if the body is shorter, it ends there.
fn take_bytes(chunks: Chunks, bytes: usize) -> Chunks {
    stream::unfold((chunks, bytes), |(mut chunks, left)| async move {
        if left == 0 {
            return None;
        }
        let chunk = chunks
            .next()
            .await?
            .map(|chunk| chunk.slice(..chunk.len().min(left)));
        let length = chunk.as_ref().map_or(0, Bytes::len);
        Some((chunk, (chunks, left - length)))
    })
    .boxed()
}

fn slowly(chunks: Chunks, bytes: usize, pause: Duration) -> Chunks {
    let split = move |chunk: io::Result<Bytes>| {
        let pieces = match chunk {
            Ok(mut rest) => {
                let mut pieces = Vec::new();
                while !rest.is_empty() {
                    pieces.push(Ok(rest.split_to(rest.len().min(bytes))));
                }
                pieces
            }
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces)
    };
    chunks
        .flat_map(split)
        .then(move |piece| async move {
            tokio::time::sleep(pause).await;
            piece
        })
        .boxed()
}
