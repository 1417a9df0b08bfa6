//! What nf_tables says, as fuzzing makes it.

use super::config::Config;
use super::layout::Layout;
use super::listed::{self, Element};
use super::object::Object;
use super::others::Others;
use super::{iptables, listing, memory};
use crate::model::object::Family;
use crate::netlink::messages;

/// Reads messages: as notifications, and as parts of a list of whatever there can be.
///
/// # Panics
/// When what is read depends on how often it is read.
pub(crate) fn read(bytes: &[u8]) {
    let config = Config::default();
    let (mut others, mut again) = (Others::default(), Others::default());
    let mut elements = Vec::new();
    for message in messages(bytes) {
        assert_eq!(others.read(message, &config), again.read(message, &config));
        let body = message.body();
        listed::read(body, &mut elements);
        let attributes = body.get(4..).unwrap_or_default();
        assert_eq!(listing::held_chain(attributes), listing::held_chain(attributes));
        assert_eq!(listing::held_rule(attributes), listing::held_rule(attributes));
        let _ = iptables::chain(attributes);
        iptables::targets(attributes).for_each(drop);
    }
    for family in Family::ALL {
        for object in Object::ALL {
            let lines = listing::set_lines(object, Layout::of(family), &elements);
            assert!(lines.len() <= elements.len(), "{object:?}: {lines:?}");
            for element in &elements {
                let _ = memory::place(element, family, object);
            }
        }
        for element in &elements {
            let _ = memory::client(element, family);
        }
    }
    seated(&elements);
}

/// Half of the elements, as if they were planned, take the seats of the other half: no two the same.
fn seated(elements: &[Element]) {
    let (planned, held) = elements.split_at(elements.len() / 2);
    let mut seated = planned.to_vec();
    listing::seat(&mut seated, held);
    let distinct = |elements: &[Element]| {
        let mut keys: Vec<_> = elements.iter().map(|element| element.key.clone()).collect();
        keys.sort();
        keys.dedup();
        keys.len()
    };
    assert_eq!(distinct(&seated), distinct(planned), "{planned:?} among {held:?}");
}
