//! What a predecessor's table tells: its node ports, and what it remembers of clients, which is carried over into the
//! table that replaces it.
//!
//! Numbers may mean something else in the new table, so each is read by its meaning: the address, port and
//! endpoint that it stood for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::affinity::{GROUP_MASK, is_of_local_list};
use super::config::Config;
use super::entry::{Backend, Destination, Frontend, Key, Value};
use super::kernel::Kernel;
use super::listed::Element;
use super::object::Object;
use super::takeover::stand_in;
use crate::dataplane::CommitError;
use crate::model::object::{Family, Protocol};

/// A client and the endpoint that it stays with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The number of the endpoint, whose group is part of the key.
    pub(super) number: u32,
    pub(super) client: IpAddr,
    /// After how long a silence it is forgotten, and when that will be if it says nothing.
    pub(super) timeout: Duration,
    pub(super) left: Duration,
}

/// Where an endpoint stands: at which frontend, and in which of its lists.
type Place = (Frontend, Backend, bool);

/// Numbers of endpoints by where they stand.
#[derive(Debug, Default)]
pub(super) struct Numbers(HashMap<Place, u32>);

impl Numbers {
    /// Those among the elements that are wanted.
    pub(super) fn among<'a>(wanted: impl Iterator<Item = (&'a Key, &'a Value)>) -> Self {
        let entries = wanted.filter_map(|element| match element {
            (Key::AffinityEndpoint(frontend, number), Value::Endpoint(backend)) => {
                Some(((*frontend, *backend, is_of_local_list(*number)), *number))
            }
            _ => None,
        });
        Self(entries.collect())
    }

    /// What the table of this family remembers, in these numbers; what they do not know is left behind.
    pub(super) fn translate(
        &self,
        kernel: &mut Kernel,
        table: &str,
        family: Family,
    ) -> Result<Vec<Remembered>, CommitError> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let remembered = kernel.elements(family, table, Object::Affinity)?;
        if remembered.is_empty() {
            return Ok(Vec::new());
        }
        let mut now: HashMap<u32, u32> = HashMap::new();
        for object in [Object::AffinityEndpoints, Object::NodePortAffinityEndpoints] {
            for element in kernel.elements(family, table, object)? {
                if let Some((frontend, number, backend)) = place(&element, family, object)
                    && let Some(new) = self.0.get(&(frontend, backend, is_of_local_list(number)))
                {
                    now.insert(number, *new);
                }
            }
        }
        // A client that asked while a table was replaced may have two entries, and two that meant different things
        // may mean one now: the one that lasts longer stays.
        let mut carried: HashMap<_, Remembered> = HashMap::new();
        for element in &remembered {
            if let Some((client, number)) = client(element, family)
                && let Some(&number) = now.get(&number)
            {
                let remembered = Remembered {
                    number,
                    client,
                    timeout: element.timeout,
                    left: element.left,
                };
                let same = carried.entry((client, number & GROUP_MASK));
                let same = same.or_insert_with(|| remembered.clone());
                if same.left < remembered.left {
                    *same = remembered;
                }
            }
        }
        Ok(carried.into_values().collect())
    }
}

/// The node ports in the tables of a kube-proxy; `None` where there are no tables.
///
/// # Errors
/// When the kernel does not list them.
pub(in crate::dataplane) fn node_ports() -> Result<Option<Vec<(Protocol, u16)>>, CommitError> {
    let (table, mut kernel) = (Config::default().table, Kernel::default());
    let mut found: Option<Vec<(Protocol, u16)>> = None;
    let tables = [stand_in(&table), table];
    let tables = tables
        .iter()
        .flat_map(|table| Family::ALL.map(|family| (table, family)));
    for (table, family) in tables {
        if kernel.table_exists(family, table)? {
            let elements = kernel.elements(family, table, Object::ServiceNodePorts)?;
            let ports = elements.iter().filter_map(|element| {
                let mut key = Fields(&element.key);
                Some((key.protocol()?, key.port()?))
            });
            found.get_or_insert_default().extend(ports);
        }
    }
    Ok(found)
}

/// Reads an element of one of the two maps of endpoints by number.
pub(super) fn place(element: &Element, family: Family, object: Object) -> Option<(Frontend, u32, Backend)> {
    let mut key = Fields(&element.key);
    let address = match object {
        Object::AffinityEndpoints => Destination::Ip(key.address(family)?),
        _ => Destination::Node(family),
    };
    let frontend = Frontend {
        address,
        protocol: key.protocol()?,
        port: key.port()?,
    };
    let number = u32::from_ne_bytes(*key.field()?);
    let mut value = Fields(&element.value);
    let backend = Backend {
        ip: value.address(family)?,
        port: value.port()?,
    };
    Some((frontend, number, backend))
}

/// Reads an element of the map of clients. One of another shape than ours is nobody's.
pub(super) fn client(element: &Element, family: Family) -> Option<(IpAddr, u32)> {
    let mut key = Fields(&element.key);
    let group = u32::from_ne_bytes(*key.field()?);
    let client = key.address(family)?;
    let number = u32::from_ne_bytes(*Fields(&element.value).field()?);
    (key.0.is_empty() && number & GROUP_MASK == group).then_some((client, number))
}

/// The rest of a key or value: fields, each padded to a register.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn field<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }

    pub(super) fn address(&mut self, family: Family) -> Option<IpAddr> {
        Some(match family {
            Family::V4 => IpAddr::from(*self.field::<4>()?),
            Family::V6 => IpAddr::from(*self.field::<16>()?),
        })
    }

    pub(super) fn protocol(&mut self) -> Option<Protocol> {
        let [number, ..] = *self.field::<4>()?;
        let mut all = Protocol::ALL.into_iter();
        all.find(|known| known.number() == number)
    }

    pub(super) fn port(&mut self) -> Option<u16> {
        let [high, low, ..] = *self.field::<4>()?;
        Some(u16::from_be_bytes([high, low]))
    }
}
