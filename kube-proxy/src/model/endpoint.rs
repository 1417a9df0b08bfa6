//! The endpoints of one Service port: merged over all slices, each `ip:port` once, in a fixed order.

use std::io::Write;
use std::net::IpAddr;

use super::object::{Family, Protocol};
use super::slice::{HeldEndpoint, HeldSlice};
use super::view::Endpoint;

/// An endpoint of one Service port that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    pub(super) held: &'a HeldEndpoint,
    pub(super) ipvs_weight: Option<u16>,
}

impl Candidate<'_> {
    /// The endpoint still answers, although it is going away.
    pub(super) fn is_serving_terminating(&self) -> bool {
        self.held.serving && self.held.terminating
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint {
            ip: self.ip,
            port: self.port,
            is_local: self.held.is_local,
            ipvs_weight: self.ipvs_weight,
        }
    }

    /// Which of two endpoints with one `ip:port` counts: the greater one. A running pod beats a terminating
    /// one whose address it inherited. Two running ones show only while an endpoint moves between slices;
    /// then the ready one, the local one, and the heavier one, is a guess as good as any, and not a matter of chance.
    fn standing(&self) -> ([bool; 4], Option<u16>) {
        let conditions = [
            !self.held.terminating,
            self.held.ready,
            self.held.serving,
            self.held.is_local,
        ];
        (conditions, self.ipvs_weight)
    }
}

/// Merges what the slices say about one port of a Service: distinct, sorted by the text `ip:port`. The slices
/// are in order of their names, so the result does not depend on the order in which they came.
pub(super) fn merge<'a>(
    slices: &'a [HeldSlice],
    family: Family,
    name: &str,
    protocol: Protocol,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        for port in &slice.ports {
            if port.protocol == protocol && *port.name == *name {
                candidates.extend(slice.endpoints.iter().map(|held| Candidate {
                    ip: held.ip,
                    port: port.port,
                    held,
                    ipvs_weight: slice.ipvs_weight,
                }));
            }
        }
    }
    candidates.sort_by_cached_key(|candidate| Text::of(candidate.ip, candidate.port));
    candidates.dedup_by(|later, kept| {
        let same = (later.ip, later.port) == (kept.ip, kept.port);
        if same && later.standing() > kept.standing() {
            *kept = *later;
        }
        same
    });
    candidates
}

/// The text `ip:port`, or `[ip]:port` for IPv6; orders bytewise.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Text([u8; Self::LONGEST]);

impl Text {
    /// Eight groups of four digits with their colons, brackets, colon and port; shorter texts end in zeros.
    const LONGEST: usize = 39 + 2 + 6;

    fn of(ip: IpAddr, port: u16) -> Self {
        let mut text = [0; Self::LONGEST];
        let mut rest = &mut text[..];
        // A text that did not fit would only sort by its beginning.
        let _ = match ip {
            IpAddr::V4(ip) => write!(rest, "{ip}:{port}"),
            IpAddr::V6(ip) => write!(rest, "[{ip}]:{port}"),
        };
        Self(text)
    }
}
