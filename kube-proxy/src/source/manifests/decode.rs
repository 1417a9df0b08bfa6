//! From a document's text to the wire's types: finds out of what kind it is, then reads it as that, so that
//! an error has a line and a field. In a list each broken item affects only itself.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Track;

use super::documents::{Document, Language};
use super::object::{Class, Key, Kind, class, object_name};
use crate::source::wire;

/// A broken item of a list costs one more reading of it; with more than so many the whole list is broken.
const MOST_BROKEN_ITEMS: usize = 100;
/// Depth, events and sizes that no honest manifest has, for the parser's protection against the others.
const MOST_YAML_NODES: usize = 100_000_000;
const MOST_YAML_BYTES: usize = 1 << 30;

/// An object as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Written {
    Service(wire::Service),
    EndpointSlice(wire::EndpointSlice),
    Endpoints(wire::Endpoints),
    Node(wire::Node),
    Pod(wire::Pod),
    ServiceCidr(wire::ServiceCidr),
}

/// What a document gives.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) objects: Vec<(Key, Written)>,
    pub(super) broken: Vec<Broken>,
    /// Kinds and names of documents that are for controllers, which a manifest source has none of.
    pub(super) workloads: Vec<String>,
    /// Kinds and names of documents that are not for us at all.
    pub(super) others: Vec<String>,
}

/// A document, or an item of a list, that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// What it is, where that much can be told.
    pub(super) key: Option<Key>,
    /// Document and line in the file.
    pub(super) place: String,
    /// Path of the field; empty when it is not about one field.
    pub(super) field: String,
    /// What is wrong.
    pub(super) reason: String,
}

/// What a document, or an item of a list, says it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<HeadMeta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HeadMeta {
    name: Option<String>,
    namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListHead {
    items: Option<Vec<Head>>,
}

impl Head {
    fn name(&self) -> &str {
        self.metadata
            .as_ref()
            .and_then(|meta| meta.name.as_deref())
            .unwrap_or_default()
    }

    /// What it is known by; `None` without a name.
    fn key(&self, kind: Kind) -> Option<Key> {
        let namespace = self.metadata.as_ref().and_then(|meta| meta.namespace.as_deref());
        (!self.name().is_empty()).then(|| Key {
            kind,
            name: object_name(kind, namespace.unwrap_or_default(), self.name()),
        })
    }

    fn class(&self) -> Result<Class, Fault> {
        let missing = |field: &str| Fault {
            field: field.to_owned(),
            reason: "is missing".to_owned(),
            line: None,
        };
        let kind = self
            .kind
            .as_deref()
            .filter(|kind| !kind.is_empty())
            .ok_or(missing("kind"))?;
        let version = self.api_version.as_deref().filter(|version| !version.is_empty());
        match class(version.ok_or(missing("apiVersion"))?, kind) {
            Class::Outdated(wanted) => Err(Fault {
                field: "apiVersion".to_owned(),
                reason: format!("{kind} must be of {wanted}"),
                line: None,
            }),
            class => Ok(class),
        }
    }

    fn describe(&self) -> String {
        format!("{} {}", self.kind.as_deref().unwrap_or_default(), self.name())
    }
}

/// What is wrong with a text.
#[derive(Debug)]
struct Fault {
    field: String,
    reason: String,
    /// Line within the text, from 1.
    line: Option<u64>,
}

/// Reads one document.
pub(super) fn decode(document: &Document<'_>) -> Decoded {
    let mut decoded = Decoded::default();
    let head: Head = match read(document, Strictness::Head, std::marker::PhantomData) {
        Ok(head) => head,
        Err(fault) => {
            decoded.broken.push(fault.at(document, None));
            return decoded;
        }
    };
    match head.class() {
        Err(fault) => decoded.broken.push(fault.at(document, None)),
        Ok(Class::Ours(kind)) => match (
            head.key(kind),
            read(document, Strictness::Full, WrittenSeed(Some(kind))),
        ) {
            (Some(key), Ok(Some(object))) => decoded.objects.push((key, object)),
            (key, Err(fault)) => decoded.broken.push(fault.at(document, key)),
            (_, Ok(_)) => decoded.broken.push(nameless("metadata.name").at(document, None)),
        },
        Ok(Class::List(kind)) => decode_list(document, kind, &mut decoded),
        Ok(Class::Workload) => decoded.workloads.push(head.describe()),
        Ok(Class::Other | Class::Outdated(_)) => decoded.others.push(head.describe()),
    }
    decoded
}

fn nameless(field: &str) -> Fault {
    Fault {
        field: field.to_owned(),
        reason: "is missing".to_owned(),
        line: None,
    }
}

/// Reads a list: first what its items are, then each as what it is, leaving out those that cannot be read.
fn decode_list(document: &Document<'_>, of: Option<Kind>, decoded: &mut Decoded) {
    let heads = match read::<ListHead>(document, Strictness::Head, std::marker::PhantomData) {
        Ok(list) => list.items.unwrap_or_default(),
        Err(fault) => return decoded.broken.push(fault.at(document, None)),
    };
    let mut kinds = Vec::with_capacity(heads.len());
    for (index, head) in heads.iter().enumerate() {
        let class = match (head.kind.as_deref(), of) {
            // The items of an API server's own lists do not repeat what they are.
            (None | Some(""), Some(kind)) => Ok(Class::Ours(kind)),
            _ => head.class(),
        };
        let mut kind = None;
        match class {
            Ok(Class::Ours(ours)) if head.key(ours).is_some() => kind = Some(ours),
            Ok(Class::Ours(_)) => {
                decoded
                    .broken
                    .push(nameless(&format!("items[{index}].metadata.name")).at(document, None));
            }
            Ok(Class::Workload) => decoded.workloads.push(head.describe()),
            Ok(_) => decoded.others.push(head.describe()),
            Err(mut fault) => {
                fault.field = format!("items[{index}].{}", fault.field);
                decoded.broken.push(fault.at(document, None));
            }
        }
        kinds.push(kind);
    }
    for _ in 0..MOST_BROKEN_ITEMS {
        let fault = match read(document, Strictness::Full, ListSeed(&kinds)) {
            Ok(items) => {
                let keyed = heads.iter().zip(&kinds).zip(items);
                decoded
                    .objects
                    .extend(keyed.filter_map(|((head, kind), item)| Some((head.key((*kind)?)?, item?))));
                return;
            }
            Err(fault) => fault,
        };
        let item = fault
            .item()
            .filter(|item| kinds.get(*item).is_some_and(Option::is_some));
        let Some(item) = item else {
            return decoded.broken.push(fault.at(document, None));
        };
        let key = kinds[item].take().and_then(|kind| heads[item].key(kind));
        decoded.broken.push(fault.at(document, key));
    }
    decoded.broken.push(
        Fault {
            field: "items".to_owned(),
            reason: format!("more than {MOST_BROKEN_ITEMS} of them are broken"),
            line: None,
        }
        .at(document, None),
    );
}

impl Fault {
    fn at(self, document: &Document<'_>, key: Option<Key>) -> Broken {
        let line = self
            .line
            .and_then(|line| usize::try_from(line).ok())
            .unwrap_or(1)
            .max(1);
        Broken {
            key,
            place: format!("document {} (line {})", document.number, document.line + line - 1),
            field: self.field,
            reason: self.reason,
        }
    }

    /// The item of a list in which it is.
    fn item(&self) -> Option<usize> {
        let (index, _) = self.field.strip_prefix("items[")?.split_once(']')?;
        index.parse().ok()
    }
}

/// How to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// Find out what it is, as long as that can be told.
    Head,
    /// As the API server does: keys once, strings where strings belong.
    Full,
}

/// Reads a text as what `seed` wants.
fn read<'a, T>(
    document: &Document<'a>,
    strictness: Strictness,
    seed: impl DeserializeSeed<'a, Value = T>,
) -> Result<T, Fault> {
    let mut track = Track::new();
    let result = match document.language {
        Language::Json => {
            let mut reader = serde_json::Deserializer::from_str(document.text);
            seed.deserialize(serde_path_to_error::Deserializer::new(&mut reader, &mut track))
                .map_err(|error| (error.to_string(), Some(error.line() as u64)))
        }
        Language::Yaml => serde_saphyr::with_deserializer_from_str_with_options(
            document.text,
            yaml_options(strictness),
            |reader| seed.deserialize(serde_path_to_error::Deserializer::new(reader, &mut track)),
        )
        .map_err(|error| {
            let line = error.location().map(|location| location.line());
            (error.without_snippet().to_string(), line)
        }),
    };
    result.map_err(|(reason, line)| Fault {
        field: Some(track.path().to_string())
            .filter(|path| path != "." && path != "?")
            .unwrap_or_default(),
        reason: reason
            .rsplit_once(" at line ")
            .map_or(reason.clone(), |(reason, _)| reason.to_owned()),
        line,
    })
}

fn yaml_options(strictness: Strictness) -> serde_saphyr::Options {
    let full = strictness == Strictness::Full;
    serde_saphyr::options! {
        with_snippet: false,
        no_schema: full,
        duplicate_keys: if full {
            serde_saphyr::options::DuplicateKeyPolicy::Error
        } else {
            serde_saphyr::options::DuplicateKeyPolicy::LastWins
        },
        budget: serde_saphyr::budget! {
            max_events: MOST_YAML_NODES,
            max_nodes: MOST_YAML_NODES,
            max_total_scalar_bytes: MOST_YAML_BYTES,
        },
    }
}

/// Reads an object of a known kind; of none: skips it.
struct WrittenSeed(Option<Kind>);

impl<'de> DeserializeSeed<'de> for WrittenSeed {
    type Value = Option<Written>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        Ok(Some(match self.0 {
            None => return IgnoredAny::deserialize(reader).map(|_| None),
            Some(Kind::Service) => Written::Service(Deserialize::deserialize(reader)?),
            Some(Kind::EndpointSlice) => Written::EndpointSlice(Deserialize::deserialize(reader)?),
            Some(Kind::Endpoints) => Written::Endpoints(Deserialize::deserialize(reader)?),
            Some(Kind::Node) => Written::Node(Deserialize::deserialize(reader)?),
            Some(Kind::Pod) => Written::Pod(Deserialize::deserialize(reader)?),
            Some(Kind::ServiceCidr) => Written::ServiceCidr(Deserialize::deserialize(reader)?),
        }))
    }
}

/// Reads a list whose items are of known kinds.
struct ListSeed<'a>(&'a [Option<Kind>]);

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = Vec<Option<Written>>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = Vec<Option<Written>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(field) = map.next_key::<String>()? {
            if field == "items" {
                items = map.next_value_seed(ItemsSeed(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(items)
    }
}

struct ItemsSeed<'a>(&'a [Option<Kind>]);

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = Vec<Option<Written>>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = Vec<Option<Written>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut read = Vec::with_capacity(self.0.len());
        for kind in self.0 {
            match items.next_element_seed(WrittenSeed(*kind))? {
                Some(item) => read.push(item),
                None => break,
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(read)
    }
}
