//! The pure heart: what the cluster says, and what this node must therefore do.
//!
//! Nothing here does I/O, reads a clock, awaits, or knows the Kubernetes API's types. Changes come in
//! ([`change::Change`]), the observed state is kept in [`cluster::Cluster`], and one Service at a time is
//! resolved into a [`view::ServiceView`], in which everything is decided: policies, topology, terminating
//! fallback, source ranges, masquerade, reject or drop. A dataplane only translates a view.

pub mod change;
pub mod cluster;
pub mod ledger;
pub mod object;
pub mod view;
