//! The objects, their history and who watches them. One lock, held for microseconds; nothing here waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::object::Object;
use super::resource::Resource;
use super::stream::StreamFault;

/// How many events of a resource are remembered.
const HISTORY: usize = 10_000;

/// The version of a store in which nothing was ever written.
const FIRST_VERSION: u64 = 100;

/// Objects in the order of their keys.
pub(crate) type Objects = BTreeMap<String, Arc<Object>>;

/// One write.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) version: u64,
    /// `None` for a creation.
    pub(crate) before: Option<Arc<Object>>,
    /// `None` for a deletion.
    pub(crate) after: Option<Arc<Object>>,
}

/// What reaches an open watch.
#[derive(Clone, Debug)]
pub(crate) enum Signal {
    Event(Arc<Event>),
    /// Send a bookmark of this version, if the watch takes them.
    Bookmark(u64),
    Fault(StreamFault),
}

#[derive(Debug, Default)]
struct Shelf {
    objects: Objects,
    history: VecDeque<Arc<Event>>,
    /// Events up to this version are forgotten.
    forgotten: u64,
    watchers: Vec<(u64, UnboundedSender<Signal>)>,
}

/// All resources under one version counter.
#[derive(Debug)]
pub(crate) struct Store {
    version: u64,
    shelves: BTreeMap<Resource, Shelf>,
    next_watcher: u64,
}

/// The objects at some time, to go back to.
#[derive(Clone, Debug)]
pub struct Backup {
    version: u64,
    objects: BTreeMap<Resource, Objects>,
}

/// What a watch begins with.
pub(crate) struct Subscription {
    pub(crate) id: u64,
    /// The store's version at the beginning.
    pub(crate) version: u64,
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) missed: Vec<Arc<Event>>,
    pub(crate) signals: UnboundedReceiver<Signal>,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With the current objects.
    Objects,
    /// With the next event.
    Now,
    /// With the first event after this version.
    After(u64),
}

/// The version asked for is forgotten; this is the oldest that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten(pub(crate) u64);

impl Store {
    pub(crate) fn new() -> Self {
        let shelf = |resource| (resource, Shelf::default());
        Self {
            version: FIRST_VERSION,
            shelves: Resource::ALL.into_iter().map(shelf).collect(),
            next_watcher: 0,
        }
    }

    /// The version of the latest write.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Counts a version without a write to any object that is served, as other kinds' writes do.
    pub(crate) fn advance(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn shelf(&mut self, resource: Resource) -> &mut Shelf {
        self.shelves.entry(resource).or_default()
    }

    pub(crate) fn objects(&self, resource: Resource) -> &Objects {
        static NONE: Objects = Objects::new();
        self.shelves.get(&resource).map_or(&NONE, |shelf| &shelf.objects)
    }

    /// The objects as they were at a version that is not in the future.
    pub(crate) fn objects_at(&self, resource: Resource, version: u64) -> Result<Objects, Forgotten> {
        let Some(shelf) = self.shelves.get(&resource) else {
            return Ok(Objects::new());
        };
        if version < shelf.forgotten {
            return Err(Forgotten(shelf.forgotten));
        }
        let mut objects = shelf.objects.clone();
        for event in shelf
            .history
            .iter()
            .rev()
            .take_while(|event| event.version > version)
        {
            match (&event.before, &event.after) {
                (Some(before), _) => objects.insert(before.key(), before.clone()),
                (None, Some(after)) => objects.remove(&after.key()),
                (None, None) => None,
            };
        }
        Ok(objects)
    }

    /// Puts an object in place; its version is that of [`Store::advance`].
    pub(crate) fn put(&mut self, object: Arc<Object>) {
        let shelf = self.shelf(object.resource);
        let before = shelf.objects.insert(object.key(), object.clone());
        shelf.tell(Event {
            version: object.version,
            before,
            after: Some(object),
        });
    }

    /// Removes an object; `None` when there is none.
    pub(crate) fn remove(&mut self, resource: Resource, key: &str) -> Option<Arc<Object>> {
        let version = self.version + 1;
        let shelf = self.shelf(resource);
        let before = shelf.objects.remove(key)?;
        shelf.tell(Event {
            version,
            before: Some(before.clone()),
            after: None,
        });
        self.version = version;
        Some(before)
    }

    /// Begins a watch.
    pub(crate) fn watch(&mut self, resource: Resource, begin: Begin) -> Result<Subscription, Forgotten> {
        let (sender, signals) = unbounded_channel();
        let (id, version) = (self.next_watcher, self.version);
        self.next_watcher += 1;
        let shelf = self.shelf(resource);
        let mut subscription = Subscription {
            id,
            version,
            objects: Vec::new(),
            missed: Vec::new(),
            signals,
        };
        match begin {
            Begin::Objects => subscription.objects = shelf.objects.values().cloned().collect(),
            Begin::Now => {}
            Begin::After(version) if version < shelf.forgotten => return Err(Forgotten(shelf.forgotten)),
            Begin::After(version) => {
                let missed = shelf.history.iter().filter(|event| event.version > version);
                subscription.missed = missed.cloned().collect();
            }
        }
        shelf.watchers.push((id, sender));
        Ok(subscription)
    }

    pub(crate) fn unwatch(&mut self, resource: Resource, id: u64) {
        self.shelf(resource)
            .watchers
            .retain(|(watcher, _)| *watcher != id);
    }

    pub(crate) fn watchers(&self, resource: Resource) -> usize {
        self.shelves
            .get(&resource)
            .map_or(0, |shelf| shelf.watchers.len())
    }

    /// Sends a signal to every watch of a resource.
    pub(crate) fn signal(&mut self, resource: Resource, signal: &Signal) {
        self.shelf(resource).send(signal);
    }

    /// Forgets all history.
    pub(crate) fn compact(&mut self) {
        let version = self.version;
        for shelf in self.shelves.values_mut() {
            shelf.history.clear();
            shelf.forgotten = version;
        }
    }

    pub(crate) fn backup(&self) -> Backup {
        let objects = |(resource, shelf): (&Resource, &Shelf)| (*resource, shelf.objects.clone());
        Backup {
            version: self.version,
            objects: self.shelves.iter().map(objects).collect(),
        }
    }

    /// Goes back to a backup: the version counter too, and open watches end without a word.
    pub(crate) fn restore(&mut self, backup: &Backup) {
        self.version = backup.version;
        for (resource, shelf) in &mut self.shelves {
            *shelf = Shelf {
                objects: backup.objects.get(resource).cloned().unwrap_or_default(),
                forgotten: backup.version,
                ..Shelf::default()
            };
        }
    }
}

impl Shelf {
    fn tell(&mut self, event: Event) {
        let event = Arc::new(event);
        self.history.push_back(event.clone());
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.version;
        }
        self.send(&Signal::Event(event));
    }

    /// A watch whose receiver is gone is dropped.
    fn send(&mut self, signal: &Signal) {
        self.watchers
            .retain(|(_, watcher)| watcher.send(signal.clone()).is_ok());
    }
}
