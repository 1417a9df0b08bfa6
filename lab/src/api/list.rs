//! Lists: which version they show, and pages.

use std::ops::Bound;
use std::sync::Arc;

use super::object::Object;
use super::proto::ListMeta;
use super::query::ListOptions;
use super::resource::Resource;
use super::select::Selector;
use super::status::Status;
use super::store::{Begin, Forgotten, Objects, Store};

/// A list to be sent.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) meta: ListMeta,
    pub(crate) items: Vec<Arc<Object>>,
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Continue {
    /// The version that all pages show; `None`: whatever is current.
    version: Option<u64>,
    /// The first key of the page is the first above this one.
    above: String,
}

impl Continue {
    /// Opaque to clients.
    fn encode(&self) -> String {
        let version = self
            .version
            .map_or_else(|| "-".to_owned(), |version| version.to_string());
        let text = format!("{version} {}", self.above);
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }

    fn decode(token: &str) -> Option<Self> {
        let digits: Vec<u8> = token
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        let bytes = digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or_default());
        let text = String::from_utf8(bytes.collect()).ok()?;
        let (version, above) = text.split_once(' ')?;
        Some(Self {
            version: if version == "-" {
                None
            } else {
                Some(version.parse().ok()?)
            },
            above: above.to_owned(),
        })
    }
}

/// Lists what the options and the selector ask for; `cached`: if any version is good enough, whole.
///
/// # Errors
/// 400 for a malformed token or version, 410 for a version that is forgotten, 504 for one yet to come.
pub(crate) fn list(
    store: &Store,
    resource: Resource,
    selector: &Selector,
    options: &ListOptions,
    cached: bool,
) -> Result<List, Status> {
    let page = if options.continue_.is_empty() {
        None
    } else {
        let malformed = || Status::bad_request("invalid continue token: continue key is not valid");
        Some(Continue::decode(&options.continue_).ok_or_else(malformed)?)
    };
    let exact = match &page {
        Some(page) => page.version,
        None => exact_version(store, options)?,
    };
    let version = exact.unwrap_or_else(|| store.version());
    if version > store.version() {
        return Err(Status::too_large_version(version, store.version()));
    }
    let whole = cached && options.resource_version == "0";
    let limit = if options.limit == 0 || whole {
        usize::MAX
    } else {
        options.limit
    };
    let above = page.as_ref().map(|page| page.above.as_str());
    if version == store.version() {
        return Ok(select(store.objects(resource), version, selector, limit, above));
    }
    match store.objects_at(resource, version) {
        Ok(objects) => Ok(select(&objects, version, selector, limit, above)),
        Err(Forgotten(_)) => Err(Status::expired_list(above.map(|above| {
            let above = above.to_owned();
            Continue { version: None, above }.encode()
        }))),
    }
}

/// The page above a key, of objects as they are at a version.
fn select(objects: &Objects, version: u64, selector: &Selector, limit: usize, above: Option<&str>) -> List {
    let begin = above.map_or(Bound::Unbounded, Bound::Excluded);
    let mut selected = objects
        .range::<str, _>((begin, Bound::Unbounded))
        .filter(|(_, object)| selector.matches(object));
    let items: Vec<(&String, &Arc<Object>)> = selected.by_ref().take(limit).collect();
    let remaining = selected.count();
    let mut meta = ListMeta {
        resource_version: version.to_string(),
        ..ListMeta::default()
    };
    if let (true, Some((last, _))) = (remaining > 0, items.last()) {
        let next = Continue {
            version: Some(version),
            above: (*last).clone(),
        };
        meta.continue_ = next.encode();
        if !selector.is_restricting() {
            meta.remaining_item_count = i64::try_from(remaining).ok();
        }
    }
    List {
        meta,
        items: items.into_iter().map(|(_, object)| object.clone()).collect(),
    }
}

/// The version that has to be shown exactly; `None`: the current one.
fn exact_version(store: &Store, options: &ListOptions) -> Result<Option<u64>, Status> {
    let invalid = |why: String| Status::bad_request(format!("invalid resource version: {why}"));
    let asked = options.version().map_err(invalid)?.unwrap_or_default();
    if asked > store.version() {
        return Err(Status::too_large_version(asked, store.version()));
    }
    // A page of an unspecified match shows exactly the version, too.
    let paged = options.limit > 0 && options.resource_version_match.is_empty();
    let exact = options.resource_version_match == "Exact" || paged;
    Ok((exact && asked > 0).then_some(asked))
}

/// Where a watch begins, and the version up to which it tells no events.
///
/// # Errors
/// A Status with which the watch ends at once: 504 for a streaming list of a version yet to come. Others
/// than that go as plain answers: see [`ListOptions::version`].
pub(crate) fn begin(store: &Store, options: &ListOptions, asked: u64) -> Result<(Begin, u64), Status> {
    if options.send_initial_events == Some(true) {
        if asked > store.version() {
            return Err(Status::too_large_version(asked, store.version()));
        }
        return Ok((Begin::Objects, store.version()));
    }
    Ok(match (asked, options.send_initial_events) {
        (0, None) => (Begin::Objects, store.version()),
        (0, Some(_)) => (Begin::Now, store.version()),
        (asked, _) => (Begin::After(asked), asked),
    })
}
