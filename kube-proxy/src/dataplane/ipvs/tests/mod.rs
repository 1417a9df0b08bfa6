//! Tests of the mode: what is planned, how the kernel gets there, and what is said to it.

mod desired;
mod kernel;
mod messages;
mod plan;
mod retiring;
mod steps;

use std::net::IpAddr;
use std::sync::Arc;

use super::entry::{At, Scheduler, Server, Settings, Weight};
use crate::dataplane::nftables::Backend;
use crate::model::object::Protocol;

fn at(text: &str) -> At {
    let (protocol, address) = text.split_once(' ').unwrap();
    let address: std::net::SocketAddr = address.parse().unwrap();
    At {
        ip: address.ip(),
        protocol: Protocol::ALL
            .into_iter()
            .find(|known| known.to_string() == protocol)
            .unwrap(),
        port: address.port(),
    }
}

fn backend(text: &str) -> Backend {
    let address: std::net::SocketAddr = text.parse().unwrap();
    Backend {
        ip: address.ip(),
        port: address.port(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn settings(scheduler: &str, persistence: Option<u32>) -> Settings {
    Settings {
        scheduler: Scheduler::named(scheduler),
        persistence,
    }
}

/// A virtual server with these endpoints and weights.
fn server(scheduler: &str, endpoints: &[(&str, Weight)]) -> Server {
    let mut endpoints: Vec<_> = endpoints
        .iter()
        .map(|(text, weight)| (backend(text), *weight))
        .collect();
    endpoints.sort_unstable();
    Server {
        settings: settings(scheduler, None),
        keeping: Vec::new(),
        endpoints,
    }
}

fn shared(server: Server) -> super::entry::Value {
    super::entry::Value::Server(Arc::new(server))
}
