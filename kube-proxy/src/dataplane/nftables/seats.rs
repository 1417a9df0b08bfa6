//! Which endpoint sits in which slot, and which number stands for it. Pure.
//!
//! Slots have no gaps (the kernel draws one at random), and an endpoint keeps its slot as long as it can, so
//! that a change costs the slots that changed. Numbers, by which clients are remembered to an endpoint, follow
//! from the endpoint alone, so that a restarted process means the same by them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::entry::{Backend, FIRST_ENDPOINT_ID, FIRST_LOCAL_SLOT, Frontend, Key, Value};
use crate::model::view::{Endpoint, EndpointList};

/// Set in the numbers of endpoints of the local list, so that a client that was sent anywhere in the cluster
/// is not kept there when it is entitled to local endpoints only.
const LOCAL_ID: u32 = 1 << 30;

/// The endpoints in the slots of a frontend, as last planned.
pub(super) type Seated = HashMap<(Frontend, EndpointList), Vec<Backend>>;

/// Reads who sits where out of the entries of a Service, which come in the order in which they were planned:
/// slots count up, and the endpoint of a number comes before the slot that names it.
pub(super) fn seated<'a>(entries: impl Iterator<Item = (&'a Key, &'a Value)>) -> Seated {
    let mut seated = Seated::new();
    let mut numbered: HashMap<(Frontend, u32), Backend> = HashMap::new();
    for (key, value) in entries {
        let (frontend, slot, backend) = match (key, value) {
            (Key::Endpoint(frontend, slot), Value::Endpoint(backend)) => (frontend, slot, backend),
            (Key::AffinityEndpoint(frontend, id), Value::Endpoint(backend)) => {
                numbered.insert((*frontend, *id), *backend);
                continue;
            }
            (Key::AffinitySlot(frontend, slot), Value::EndpointId(id)) => {
                match numbered.get(&(*frontend, *id)) {
                    Some(backend) => (frontend, slot, backend),
                    None => continue,
                }
            }
            _ => continue,
        };
        let list = match *slot < FIRST_LOCAL_SLOT {
            true => EndpointList::Cluster,
            false => EndpointList::Local,
        };
        seated.entry((*frontend, list)).or_default().push(*backend);
    }
    seated
}

/// Gives each endpoint a slot: those that had one below the new number keep it, the others fill the gaps.
pub(super) fn seat(endpoints: &[Endpoint], held: Option<&Vec<Backend>>) -> Vec<Backend> {
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

/// The numbers of endpoints, each another one.
pub(super) fn numbers(list: EndpointList, backends: &[Backend]) -> HashMap<Backend, u32> {
    let first = match list {
        EndpointList::Cluster => FIRST_ENDPOINT_ID,
        EndpointList::Local => FIRST_ENDPOINT_ID | LOCAL_ID,
    };
    // Sorted, so that it does not depend on who sits where which of two gets the number of both.
    let mut sorted = backends.to_vec();
    sorted.sort_unstable();
    let mut taken = HashSet::new();
    let mut number = |backend: Backend| {
        let mut id = hash(backend) % LOCAL_ID;
        while !taken.insert(id) {
            id = (id + 1) % LOCAL_ID;
        }
        (backend, first | id)
    };
    sorted.into_iter().map(&mut number).collect()
}

/// FNV-1a: the same in every process, which the standard library does not promise of its own.
fn hash(backend: Backend) -> u32 {
    let feed = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let address = match backend.ip {
        IpAddr::V4(ip) => ip.octets().iter().fold(0x811c_9dc5, feed),
        IpAddr::V6(ip) => ip.octets().iter().fold(0x811c_9dc5, feed),
    };
    backend.port.to_be_bytes().iter().fold(address, feed)
}
