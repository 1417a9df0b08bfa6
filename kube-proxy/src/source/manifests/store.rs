//! What each file holds. A file or document that cannot be read keeps the objects that it last gave, until it
//! can be read again or the file is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tracing::{debug, error, info, warn};

use super::decode::{Broken, Decoded, Written, decode};
use super::documents::split;
use super::files::{Stamp, list, read};
use super::object::{Key, Object};
use super::world::World;
use crate::model::change::Change;
use crate::path_watch::PathWatch;
use crate::source::convert;

/// A file that vanished is gone only after this long: some editors save by deleting and writing anew.
const GRACE: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Store {
    root: PathBuf,
    node_name: Arc<str>,
    files: BTreeMap<PathBuf, File>,
    world: World,
    hashing: RandomState,
    /// Objects that two files define.
    doubled: HashSet<Key>,
    /// The root was there at the last look; `None` before the first.
    present: Option<bool>,
}

#[derive(Default)]
struct File {
    stamp: Option<Stamp>,
    objects: BTreeMap<Key, Arc<Object>>,
    /// What each document gave that was whole, by its text: an edit costs the documents that it touches.
    whole: HashMap<u64, Vec<(Key, Arc<Object>)>>,
    broken: usize,
    /// What was said about it, so that an edit elsewhere does not say it again.
    told: HashSet<String>,
    vanished: Option<Instant>,
}

impl Store {
    pub(super) fn new(root: PathBuf, node_name: Arc<str>, ranges: Vec<IpNet>) -> Self {
        Self {
            root,
            node_name,
            files: BTreeMap::new(),
            world: World::new(ranges),
            hashing: RandomState::new(),
            doubled: HashSet::new(),
            present: None,
        }
    }

    /// How many documents cannot be used at present.
    pub(super) fn broken(&self) -> usize {
        self.files.values().map(|file| file.broken).sum()
    }

    /// Whether the root was ever there, so that there is a first state to tell.
    pub(super) fn has_begun(&self) -> bool {
        self.present == Some(true) || !self.files.is_empty()
    }

    /// What changed since the last call.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        self.world.changes()
    }

    /// Looks at all files and reads those that changed. Returns when to look again although nothing changes.
    pub(super) fn look(&mut self, watch: &mut PathWatch) -> Option<Instant> {
        let written = watch.take_written();
        let listed = match list(&self.root) {
            Ok(listed) => listed,
            Err(err) => {
                // Who removes a whole folder while it is in use rarely wants every Service gone.
                if self.present != Some(false) {
                    warn!(path = %self.root.display(), %err, "Cannot find the manifests; what they said so far stays");
                }
                self.present = Some(false);
                return None;
            }
        };
        self.present = Some(true);
        for path in &listed {
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            if !watch.is_being_written(&real) {
                self.look_at(path, written.contains(&real));
            }
        }
        let again = self.forget_vanished(&listed.into_iter().collect());
        again.into_iter().chain(watch.look_again()).min()
    }

    fn look_at(&mut self, path: &Path, written: bool) {
        let stamp = Stamp::of(path);
        let file = self.files.entry(path.to_owned()).or_default();
        file.vanished = None;
        if let Ok(stamp) = &stamp
            && file.stamp == Some(*stamp)
            && !written
        {
            return;
        }
        let text = stamp.and_then(|stamp| {
            let text = read(path, &stamp)?;
            file.stamp = Some(stamp);
            Ok(text)
        });
        // Without a stamp the next look reads it again: a permission, say, may come back.
        let text = text.unwrap_or_else(|error| {
            file.stamp = None;
            Err(format!("the file cannot be read: {error}"))
        });
        self.load(path, text);
    }

    /// Takes in the text of a file, or why there is none.
    pub(super) fn load(&mut self, path: &Path, text: Result<String, String>) {
        let mut file = self.files.remove(path).unwrap_or_default();
        let mut teller = Teller {
            path,
            before: std::mem::take(&mut file.told),
            told: HashSet::new(),
        };
        let old = std::mem::take(&mut file.objects);
        match text {
            Ok(text) => self.read_documents(&text, &mut file, &old, &mut teller),
            Err(reason) => {
                teller.tell(&reason, |file, reason| {
                    error!(
                        file,
                        reason, "A file of the manifests cannot be used; what it said before stays"
                    );
                });
                file.broken = 1;
                file.objects.clone_from(&old);
            }
        }
        file.told = teller.told;
        let keys: BTreeSet<Key> = old.into_keys().chain(file.objects.keys().cloned()).collect();
        self.files.insert(path.to_owned(), file);
        self.settle(keys);
    }

    fn read_documents(
        &mut self,
        text: &str,
        file: &mut File,
        old: &BTreeMap<Key, Arc<Object>>,
        teller: &mut Teller<'_>,
    ) {
        let named_json = teller
            .path
            .extension()
            .is_some_and(|extension| extension == "json");
        let mut broken = Vec::new();
        let mut known = std::mem::take(&mut file.whole);
        for document in split(text, named_json) {
            let hash = self.hashing.hash_one(document.text);
            let objects = match known.remove(&hash) {
                Some(objects) => objects,
                None => {
                    let decoded = decode(&document);
                    let Read { objects, whole } = self.take(decoded, teller, &mut broken);
                    if !whole {
                        give(objects, file, teller);
                        continue;
                    }
                    objects
                }
            };
            file.whole.insert(hash, objects.clone());
            give(objects, file, teller);
        }
        for broken in &broken {
            teller.tell_broken(broken);
            match &broken.key {
                Some(key) => {
                    let kept = old.get(key).map(|object| (key.clone(), Arc::clone(object)));
                    file.objects.extend(kept);
                }
                // It may be any of those that no other document gave.
                None => {
                    for (key, object) in old {
                        file.objects
                            .entry(key.clone())
                            .or_insert_with(|| Arc::clone(object));
                    }
                }
            }
        }
        file.broken = broken.len();
        debug!(file = %teller.path.display(), objects = file.objects.len(), broken = broken.len(), "Read manifests");
    }

    /// Takes in what one document gave.
    fn take(&mut self, decoded: Decoded, teller: &mut Teller<'_>, broken: &mut Vec<Broken>) -> Read {
        let mut whole =
            decoded.broken.is_empty() && decoded.workloads.is_empty() && decoded.others.is_empty();
        broken.extend(decoded.broken);
        for what in decoded.workloads {
            teller.tell(&what, |file, what| {
                info!(
                    file,
                    what,
                    "Not used: there is no cluster here to make Pods of it; write Pods with status.podIP, or EndpointSlices"
                );
            });
        }
        for what in decoded.others {
            teller.tell(&what, |file, what| {
                debug!(file, what, "Not used: not about Services");
            });
        }
        let mut objects = Vec::with_capacity(decoded.objects.len());
        for (key, written) in decoded.objects {
            let (object, problems) = self.convert(written);
            whole &= problems.is_empty();
            for problem in problems {
                teller.tell(&problem.to_string(), |file, problem| {
                    warn!(file, problem, "A field of a manifest cannot be used");
                });
            }
            objects.extend(object.map(|object| (key, Arc::new(object))));
        }
        Read { objects, whole }
    }

    /// Parses what an object holds; `None` for one that is not for us.
    fn convert(&mut self, written: Written) -> (Option<Object>, Vec<convert::Problem>) {
        let node_name = Arc::clone(&self.node_name);
        let interner = self.world.interner();
        match written {
            Written::Service(service) => {
                let problems = convert::service(&service, interner).problems;
                (Some(Object::Service(Box::new(service))), problems)
            }
            Written::EndpointSlice(slice) if convert::selects_endpoint_slice(&slice) => {
                let converted = convert::endpoint_slice(&slice, interner);
                let object = converted
                    .object
                    .map(|slice| Object::EndpointSlice(Box::new(slice)));
                (object, converted.problems)
            }
            Written::Node(node) if convert::selects_node(&node, &node_name) => {
                let converted = convert::node(&node, interner);
                (
                    converted.object.map(|node| Object::Node(Box::new(node))),
                    converted.problems,
                )
            }
            Written::ServiceCidr(cidr) => {
                let converted = convert::service_cidr(&cidr);
                let object = converted.object.map(|cidr| Object::ServiceCidr(Box::new(cidr)));
                (object, converted.problems)
            }
            Written::EndpointSlice(_) | Written::Node(_) => (None, Vec::new()),
            Written::Endpoints(endpoints) => (Some(Object::Endpoints(Box::new(endpoints))), Vec::new()),
            Written::Pod(pod) => (Some(Object::Pod(Box::new(pod))), Vec::new()),
        }
    }

    /// Forgets files that are gone for long enough; when the next one may be.
    fn forget_vanished(&mut self, listed: &BTreeSet<PathBuf>) -> Option<Instant> {
        let now = Instant::now();
        let mut gone = Vec::new();
        let mut again: Option<Instant> = None;
        for (path, file) in self.files.iter_mut().filter(|(path, _)| !listed.contains(*path)) {
            let due = *file.vanished.get_or_insert(now) + GRACE;
            if due <= now {
                gone.push(path.clone());
            } else {
                again = Some(again.map_or(due, |again| again.min(due)));
            }
        }
        for path in gone {
            info!(file = %path.display(), "A file of the manifests is gone, and its objects with it");
            let keys = self
                .files
                .remove(&path)
                .map(|file| file.objects.into_keys().collect());
            self.settle(keys.unwrap_or_default());
        }
        again
    }

    /// Tells the world what these objects are now: as the last file that has them says.
    fn settle(&mut self, keys: BTreeSet<Key>) {
        for key in keys {
            let mut having = self
                .files
                .values()
                .rev()
                .filter_map(|file| file.objects.get(&key));
            let object = having.next().map(Arc::clone);
            if having.next().is_none() {
                self.doubled.remove(&key);
            } else if self.doubled.insert(key.clone()) {
                warn!(object = %key, "Two files define one object; the last one in order of name counts");
            }
            self.world.set(key, object);
        }
    }
}

/// What a document gave.
struct Read {
    objects: Vec<(Key, Arc<Object>)>,
    /// There is nothing to say about it.
    whole: bool,
}

/// Adds a document's objects to its file's.
fn give(objects: Vec<(Key, Arc<Object>)>, file: &mut File, teller: &mut Teller<'_>) {
    for (key, object) in objects {
        if file.objects.contains_key(&key) {
            teller.tell(&key.to_string(), |file, object| {
                warn!(
                    file,
                    object, "Two documents define one object; the last one counts"
                );
            });
        }
        file.objects.insert(key, object);
    }
}

/// Says each thing about a file once, until it is no longer so.
struct Teller<'a> {
    path: &'a Path,
    before: HashSet<String>,
    told: HashSet<String>,
}

impl Teller<'_> {
    fn tell(&mut self, text: &str, say: impl FnOnce(&str, &str)) {
        if self.told.insert(text.to_owned()) && !self.before.contains(text) {
            say(&self.path.to_string_lossy(), text);
        }
    }

    fn tell_broken(&mut self, broken: &Broken) {
        let Broken {
            key,
            place,
            field,
            reason,
        } = broken;
        let object = key.as_ref().map(Key::to_string).unwrap_or_default();
        self.tell(&format!("{object} {field}: {reason} {place}"), |file, _| {
            error!(
                file,
                document = place,
                object,
                field,
                reason,
                "A document of the manifests cannot be used; what it said before stays"
            );
        });
    }
}
