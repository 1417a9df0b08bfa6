//! What a source tells the model.

use super::object::{EndpointSlice, Node, ObjectName, Service, ServiceCidr};

/// The kinds of object that a source watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// v1 Node, this one only.
    Node,
    /// networking.k8s.io/v1 ServiceCIDR.
    ServiceCidr,
}

/// One step of what a source observed, in the order in which it was observed.
///
/// A list (at start, or again after a disconnection) is `ListStart`, an upsert (or `Kept`) for each object, `ListDone`.
/// At `ListDone` every object of that kind which the list did not name is gone: that is how a deletion
/// missed while disconnected is noticed. Until then the old objects stay. A second `ListStart` without a
/// `ListDone` begins the list anew. Single changes may come between the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A full list of this kind begins.
    ListStart(Kind),
    /// The list is complete; see above.
    ListDone(Kind),
    /// A Service was added or changed.
    Service(Box<Service>),
    /// An EndpointSlice was added or changed.
    EndpointSlice(Box<EndpointSlice>),
    /// This Node was added or changed.
    Node(Box<Node>),
    /// A ServiceCIDR was added or changed.
    ServiceCidr(Box<ServiceCidr>),
    /// An object exists but can no longer be read: what is held of it stays. A list names it by this.
    Kept(Kind, ObjectName),
    /// An object is gone.
    Deleted(Kind, ObjectName),
}
