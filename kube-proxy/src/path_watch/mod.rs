//! Notices that the file or folder at a path changed, however that was done: written in place, renamed over,
//! deleted and made anew, or by swapping a symbolic link anywhere on the way, as the kubelet does for
//! ConfigMaps. Says that something changed, not what: whoever is told looks for himself.
//!
//! Every folder that the path leads through is watched for the next name on the way, so nothing is noticed too
//! little and strangers' files next to the path wake nobody. Without inotify it looks every second instead.

#[cfg(test)]
mod tests;
mod trail;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tracing::warn;

use self::trail::{Trail, follow};

/// Changes that come together are told together when no more come for this long.
const SETTLE: Duration = Duration::from_millis(2);
/// But not longer than this.
const SETTLE_MOST: Duration = Duration::from_millis(50);
/// How often to look without inotify.
const POLL: Duration = Duration::from_secs(1);
/// A file that was written to and not closed counts as finished after this long.
const WRITER_PATIENCE: Duration = Duration::from_secs(10);
const BUFFER: usize = 16 * 1024;

/// Watches one path. Must be used within a tokio runtime.
pub struct PathWatch {
    path: PathBuf,
    events: Option<EventStream<Vec<u8>>>,
    places: HashMap<WatchDescriptor, Place>,
    trail: Trail,
    /// Files that were written to and not closed yet.
    open: HashMap<PathBuf, Instant>,
    /// Files that were closed after writing since the caller last asked.
    written: HashSet<PathBuf>,
}

/// A watched folder or file.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The names that matter in it; `None`: all of them, or it is a file.
    names: Option<HashSet<OsString>>,
}

impl PathWatch {
    /// Begins to watch. Whatever changes after this returns is told.
    pub fn new(path: &Path) -> Self {
        let events = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER]));
        let events = events
            .inspect_err(
                |err| warn!(path = %path.display(), %err, "Cannot watch with inotify; looking every second"),
            )
            .ok();
        let mut watch = Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            events,
            places: HashMap::new(),
            trail: Trail::default(),
            open: HashMap::new(),
            written: HashSet::new(),
        };
        watch.place_watches();
        watch
    }

    /// Waits until something changed. May be dropped while it waits without losing a change.
    pub async fn changed(&mut self) {
        loop {
            let Some(events) = &mut self.events else {
                tokio::time::sleep(POLL).await;
                return;
            };
            let relevant = match events.next().await {
                Some(Ok(event)) => self.note(event),
                Some(Err(err)) => {
                    self.give_up(&err.to_string());
                    true
                }
                None => {
                    self.give_up("the kernel ended it");
                    true
                }
            };
            if relevant {
                self.settle().await;
                self.place_watches();
                return;
            }
        }
    }

    /// Whether a file (by a path without links) is being written right now, so that reading it would give half
    /// of it.
    pub fn is_being_written(&self, file: &Path) -> bool {
        self.open
            .get(file)
            .is_some_and(|since| since.elapsed() < WRITER_PATIENCE)
    }

    /// When to look again although nothing will be told: a writer's patience ends.
    pub fn look_again(&self) -> Option<Instant> {
        self.open.values().min().map(|since| *since + WRITER_PATIENCE)
    }

    /// The files (by paths without links) that were written and closed since this was last asked.
    pub fn take_written(&mut self) -> HashSet<PathBuf> {
        self.open.retain(|_, since| since.elapsed() < WRITER_PATIENCE);
        std::mem::take(&mut self.written)
    }

    /// Takes in an event; whether it says that something changed.
    fn note(&mut self, event: EventOwned) -> bool {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.open.clear();
            return true;
        }
        let Some(place) = self.places.get(&event.wd) else {
            return false;
        };
        if event.mask.contains(EventMask::IGNORED) {
            self.places.remove(&event.wd);
            return true;
        }
        let path = match &event.name {
            Some(name) if place.names.as_ref().is_some_and(|names| !names.contains(name)) => return false,
            Some(name) => place.path.join(name),
            None => place.path.clone(),
        };
        if event.mask.contains(EventMask::MODIFY) {
            self.open.entry(path).or_insert_with(Instant::now);
            return false;
        }
        self.open.remove(&path);
        if event.mask.contains(EventMask::CLOSE_WRITE) {
            self.written.insert(path);
        }
        true
    }

    /// Takes in what comes right after.
    async fn settle(&mut self) {
        let deadline = tokio::time::Instant::now() + SETTLE_MOST;
        loop {
            let Some(events) = &mut self.events else { return };
            let quiet = (tokio::time::Instant::now() + SETTLE).min(deadline);
            match tokio::time::timeout_at(quiet, events.next()).await {
                Ok(Some(Ok(event))) => {
                    self.note(event);
                }
                Ok(_) => return self.give_up("reading its events failed"),
                Err(_) => break,
            }
            if tokio::time::Instant::now() >= deadline {
                break;
            }
        }
        // What is there already belongs to it as well.
        while let Some(Some(Some(Ok(event)))) =
            self.events.as_mut().map(|events| events.next().now_or_never())
        {
            self.note(event);
        }
    }

    fn give_up(&mut self, reason: &str) {
        warn!(path = %self.path.display(), err = reason, "Cannot watch with inotify any more; looking every second");
        self.events = None;
        self.open.clear();
    }

    /// Watches the way to the path as it is now. It may change while the watches are placed: then once more.
    fn place_watches(&mut self) {
        for _ in 0..10 {
            let trail = follow(&self.path);
            let wanted = wanted(&trail);
            if let Err(err) = self.watch(wanted) {
                return self.give_up(&err.to_string());
            }
            let same = follow(&self.path) == trail;
            self.trail = trail;
            if same {
                return;
            }
        }
    }

    /// Makes the watches those that are wanted.
    fn watch(&mut self, wanted: HashMap<PathBuf, Option<HashSet<OsString>>>) -> std::io::Result<()> {
        let Some(events) = &self.events else { return Ok(()) };
        let mut watches = events.watches();
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF;
        let mut places = HashMap::new();
        for (path, names) in wanted {
            match watches.add(&path, mask) {
                Ok(descriptor) => {
                    places.insert(descriptor, Place { path, names });
                }
                // Gone again, or not for us to read: the folder above it is watched as well.
                Err(err)
                    if matches!(
                        err.raw_os_error(),
                        Some(libc::ENOENT | libc::EACCES | libc::ENOTDIR)
                    ) => {}
                Err(err) => return Err(err),
            }
        }
        for descriptor in self.places.keys().filter(|old| !places.contains_key(*old)) {
            // Fails when its folder is gone, which is as good.
            let _ = watches.remove(descriptor.clone());
        }
        self.places = places;
        Ok(())
    }
}

/// What to watch: the names on the way in each folder, everything in the folder at its end and the ways of the
/// links in it, or the file at its end (which may have another name elsewhere, as a bind mount has).
fn wanted(trail: &Trail) -> HashMap<PathBuf, Option<HashSet<OsString>>> {
    let mut wanted: HashMap<PathBuf, Option<HashSet<OsString>>> = HashMap::new();
    let mut want = |trail: &Trail| {
        for (folder, name) in &trail.steps {
            let names = wanted
                .entry(folder.clone())
                .or_insert_with(|| Some(HashSet::new()));
            if let Some(names) = names {
                names.insert(name.clone());
            }
        }
    };
    want(trail);
    let Some(end) = &trail.end else { return wanted };
    if let Ok(entries) = std::fs::read_dir(end) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                want(&follow(&entry.path()));
            }
        }
    }
    wanted.insert(end.clone(), None);
    wanted
}
