//! The test bench of kube-proxy. A library for tests and, as the program `lab`, the demo and the benchmarks.
//! It knows kube-proxy only as a program that it starts, so any kube-proxy can be put on it.

pub mod api;
pub mod bench;
pub mod client;
pub mod control_plane;
pub mod demo;
mod interrupt;
pub mod kernel;
pub mod net;
pub mod probe;
pub mod proxy;
pub mod scenario;
pub mod sctp;
pub mod serve;
pub mod skip;
