//! The API source from end to end: `kube_proxy::source::api` against a Kubernetes API.
//!
//! `behaviours` are what any API server must bring about: they run against the in-process API, and as one test
//! against a real kube-apiserver where `KUBEBUILDER_ASSETS` names a folder with `kube-apiserver` and `etcd`.
//! The other modules need faults, which only the in-process API has.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod behaviours;
mod credentials;
mod disconnection;
mod events;
mod fallback;
mod missing;
mod observer;
mod real;
mod stage;
mod stall;
