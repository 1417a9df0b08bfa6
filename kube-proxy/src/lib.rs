//! kube-proxy: what the Kubernetes API says about Services and EndpointSlices, in this node's kernel.
//!
//! ```text
//! source            model (pure)                          dataplane/<mode>
//! api | manifests → Cluster ─ dirty Services ─▶ resolve ─▶ plan ─▶ ledger diff ─▶ apply ─▶ kernel
//! ```

pub mod cli;
pub mod config;
pub mod dataplane;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod node;
pub mod path_watch;
pub mod proxy;
pub mod server;
pub mod source;
