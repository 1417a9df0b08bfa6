//! Which endpoint sits in which slot. Pure.
//!
//! Slots have no gaps (the kernel draws one at random), and an endpoint keeps its slot as long as it can, so
//! that a change costs the slots that changed.

use std::collections::{HashMap, HashSet};

use super::entry::{Backend, FIRST_LOCAL_SLOT, Frontend, Key, Value};
use crate::model::view::{Endpoint, EndpointList};

/// The endpoints of the lists of each frontend, as last planned.
pub(super) type Seated = HashMap<(Frontend, EndpointList), Seats>;

/// An endpoint list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seats {
    /// By slot.
    pub(super) backends: Vec<Backend>,
    /// The numbers of those that clients stay with.
    pub(super) numbers: HashMap<Backend, u32>,
}

/// Reads who sits where out of the entries of a Service, which come in the order in which they were planned:
/// slots count up, and the endpoint of a number comes before the slot that names it.
pub(super) fn seated<'a>(entries: impl Iterator<Item = (&'a Key, &'a Value)>) -> Seated {
    let mut seated = Seated::new();
    let mut numbered: HashMap<(Frontend, u32), Backend> = HashMap::new();
    for (key, value) in entries {
        let (frontend, slot, backend, number) = match (key, value) {
            (Key::Endpoint(frontend, slot), Value::Endpoint(backend)) => (frontend, slot, backend, None),
            (Key::AffinityEndpoint(frontend, id), Value::Endpoint(backend)) => {
                numbered.insert((*frontend, *id), *backend);
                continue;
            }
            (Key::AffinitySlot(frontend, slot), Value::EndpointId(id)) => {
                match numbered.get(&(*frontend, *id)) {
                    Some(backend) => (frontend, slot, backend, Some(*id)),
                    None => continue,
                }
            }
            _ => continue,
        };
        let list = match *slot < FIRST_LOCAL_SLOT {
            true => EndpointList::Cluster,
            false => EndpointList::Local,
        };
        let seats = seated.entry((*frontend, list)).or_default();
        seats.backends.push(*backend);
        seats.numbers.extend(number.map(|id| (*backend, id)));
    }
    seated
}

/// Gives each endpoint a slot: those that had one below the new number keep it, the others fill the gaps.
pub(super) fn seat(endpoints: &[Endpoint], held: Option<&[Backend]>) -> Vec<Backend> {
    let Some(held) = held else {
        return endpoints.iter().map(Backend::from).collect();
    };
    let mut standing: HashSet<Backend> = endpoints.iter().map(Backend::from).collect();
    let mut slots: Vec<Option<Backend>> = vec![None; endpoints.len()];
    for (slot, backend) in slots.iter_mut().zip(held) {
        if standing.remove(backend) {
            *slot = Some(*backend);
        }
    }
    // Those that sat too high first, then the new ones in the order of the view.
    let too_high = held.iter().skip(endpoints.len()).copied();
    let mut next = too_high
        .chain(endpoints.iter().map(Backend::from))
        .filter(|backend| standing.remove(backend));
    slots
        .into_iter()
        .filter_map(|slot| slot.or_else(|| next.next()))
        .collect()
}
