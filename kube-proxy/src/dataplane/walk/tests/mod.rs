//! Where packets go, from objects to the answer: Service and EndpointSlice objects, resolved, planned in each mode,
//! walked.
//!
//! Objects, packets and what must become of them are the same in all modes; in which points a mode differs, and why,
//! is said in `modes`.

mod catalogue;
pub(in crate::dataplane) mod happenings;
mod kernel;
mod modes;
mod node;
mod packets;
pub(in crate::dataplane) mod plain;
mod random;
pub(in crate::dataplane) mod world;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

pub(in crate::dataplane) use self::modes::MODES;
pub(in crate::dataplane) use self::node::{Node, Planned, Setup, ips};
use self::node::{in_service_cidrs, in_zone};
use super::*;
use crate::config::Mode;
use crate::dataplane::{LocalTraffic, NodePortAddresses};
use crate::model::change::Change;
use crate::model::object::{EndpointSlice, Family, ObjectName, Protocol, Service};
use crate::model::testing;

/// All outcomes, in order; those that differ in the endpoint only share their last words:
/// `10.0.0.1:80 10.0.0.2:80 masqueraded`.
pub(in crate::dataplane) fn text(paths: &[Path]) -> String {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for outcome in shares(paths).into_keys() {
        match outcome {
            Outcome::To {
                endpoint,
                masqueraded,
            } => {
                let words = if masqueraded { " masqueraded" } else { "" };
                let endpoints = kinds.entry(words.to_owned()).or_default();
                endpoints.push(endpoint.to_string());
            }
            other => kinds.entry(other.to_string()).or_default().push(String::new()),
        }
    }
    let kinds: Vec<String> = kinds
        .into_iter()
        .map(|(words, endpoints)| endpoints.join(" ") + &words)
        .collect();
    kinds.join("; ")
}

/// How much of the traffic has which outcome.
pub(in crate::dataplane) fn shares(paths: &[Path]) -> BTreeMap<Outcome, f64> {
    let mut shares = BTreeMap::new();
    for path in paths {
        *shares.entry(path.outcome).or_default() += path.share;
    }
    shares
}

/// Every way with the rules that had a say.
pub(in crate::dataplane) fn trails(paths: &[Path]) -> String {
    let line = |path: &Path| {
        let steps: String = path.trail.iter().map(|step| format!("\n    {step}")).collect();
        format!("  {:.3} {}{steps}\n", path.share, path.outcome)
    };
    paths.iter().map(line).collect()
}
