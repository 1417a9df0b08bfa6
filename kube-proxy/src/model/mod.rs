//! The pure heart: what the cluster says, and what this node must therefore do.
//!
//! Nothing here does I/O, reads a clock, awaits, or knows the Kubernetes API's types. Changes come in
//! ([`change::Change`]), the observed state is kept in [`cluster::Cluster`], and one Service at a time is
//! resolved into a [`view::ServiceView`], in which everything is decided: policies, topology, terminating
//! fallback, source ranges, masquerade, reject or drop. A dataplane only translates a view.
//!
//! One question, one file: `slice` how EndpointSlices are held, `endpoint` how they are merged, `topology`
//! which hints count, `traffic_policy` who gets which endpoints, `address` what a Service asks for and who
//! may use it, `resolve` all of it for one Service, `service_cidr` which networks ClusterIPs come from; [`ledger`]
//! settles what two Services want, [`books`] adds up what is counted for each port.

mod address;
pub mod books;
pub mod change;
pub mod cluster;
mod endpoint;
pub mod ledger;
pub mod object;
mod pool;
mod resolve;
mod service_cidr;
mod slice;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod topology;
mod traffic_policy;
pub mod view;
