//! kube-proxy: what the Kubernetes API says about Services and EndpointSlices, in this node's kernel.
//!
//! ```text
//! source            model (pure)                          dataplane/<mode>
//! api | manifests → Cluster ─ dirty Services ─▶ resolve ─▶ plan ─▶ ledger diff ─▶ apply ─▶ kernel
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`cli`], [`config`] | flags and KubeProxyConfiguration: one checked configuration |
//! | [`source`] | where objects come from: the API server or manifests |
//! | [`model`] | what they mean for this node: pure |
//! | [`dataplane`] | how the kernel is told: a folder a mode |
//! | [`proxy`] | the loop between them, on a thread of its own |
//! | [`conntrack`] | the tracked flows that a change made stale, for all modes; on a thread of its own |
//! | [`node`] | what this node is called, which addresses it has, and settings of its kernel |
//! | [`health`], [`metrics`], [`status`], [`server`], [`events`] | what others are told about this proxy |
//! | [`oneshot`] | what the program does instead, when asked to: clean up, initialise, write its configuration |
//! | [`plan`] | what a proxy would program, and how the kernel differs from it |
//! | [`logging`], [`path_watch`], `netlink` | log lines; changes of files; how the kernel is spoken to |
//!
//! Sources and servers run on the main thread's event loop; only the proxy's thread programs the kernel, and
//! conntrack's cleans up after it.

pub mod cli;
pub mod config;
pub mod conntrack;
pub mod dataplane;
pub mod events;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod garbage;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod model;
mod netlink;
pub mod node;
pub mod oneshot;
pub mod path_watch;
pub mod plan;
pub mod proxy;
pub mod server;
pub mod source;
pub mod status;
