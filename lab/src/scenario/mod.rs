//! Scenarios: one behaviour of kube-proxy a file, played with real packets.
//!
//! A scenario is a YAML file below `lab/scenarios/`:
//!
//! ```yaml
//! behaviour: A Service with two endpoints is reached at its ClusterIP.   # the sentence that it proves
//! objects: |                       # Kubernetes objects, as they are written everywhere
//!   apiVersion: v1
//!   kind: Service
//!   metadata: {name: web}
//!   spec: {clusterIP: $(cluster-ip-1), ports: [{port: 80, targetPort: 8080}]}
//! endpoints: {web: [a, c]}         # EndpointSlice of the Service web: pods a and c, ready
//! steps:
//! - ask: tcp $(cluster-ip-1):80    # or udp, sctp, ping
//!   expect:
//!     x y: a c, seen as itself     # from pods x and y: a and c answer, both and nobody else
//!     node-1: a c, seen as itself
//! - endpoints: {web: []}
//! - ask: tcp $(cluster-ip-1):80
//!   expect: {x node-1: refused}
//! ```
//!
//! [`mod@file`] documents every key, `expectation.rs` how outcomes are written, `names.rs` how many pods are named at
//! once, `placeholder.rs` what stands in `$(…)`, `mode.rs` the modes. Unless a scenario says otherwise it is played
//! once for IPv4 and once for IPv6 in the modes nftables, iptables and ipvs, in a lab of two nodes with the pods a and b (on
//! node-1) and c (on node-2), which serve ports 8080 and 8081 by TCP, UDP and SCTP, the pods x (on node-1) and y (on
//! node-2), which serve nothing, and one client outside.
//!
//! What a Service does may depend on who asks, so scenarios ask from every place that may differ: x, a pod of the
//! entry node; a, an endpoint, which may reach itself; node-1, the host; y and node-2, a pod and the host of another
//! node, whose own rules come first for all addresses but those of node-1; client, which enters by node-1.
//!
//! After a change an expectation may take a while to come true (ten seconds at most), but then it must hold
//! once more, without another try: a behaviour that comes and goes fails.

mod ask;
mod cluster;
mod expectation;
pub mod file;
mod mode;
mod names;
mod object;
mod placeholder;
mod play;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use file::SourceKind;

use crate::net::Family;
use crate::skip::{Skipped, skipped};

pub use mode::Mode;
pub use play::{Failure, Player};

/// One scenario in one mode and family.
#[derive(Clone, Debug)]
pub struct Play {
    /// The file.
    pub path: PathBuf,
    /// The behaviour, in a sentence.
    pub behaviour: String,
    /// The mode.
    pub mode: Mode,
    /// The family.
    pub family: Family,
    /// Where kube-proxy gets its objects from.
    pub source: SourceKind,
    /// The kernel must have IPVS.
    pub needs_ipvs: bool,
}

impl Play {
    /// `FILE::MODE::FAMILY`, such as `cluster-ip-tcp::nftables::ipv4`.
    pub fn name(&self) -> String {
        let file = self.path.file_stem().unwrap_or_default().to_string_lossy();
        format!("{file}::{}::{}", self.mode, self.family.pick("ipv4", "ipv6"))
    }
}

/// The folder of this repository's scenarios.
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))
}

/// All plays of a folder's scenarios, in order of name. Where the source does not matter, it is the given one; a
/// scenario for another source only is left out if one is given.
///
/// # Errors
/// When the folder or a file cannot be read as what it should be.
pub fn plays(folder: &Path, source: Option<SourceKind>) -> Result<Vec<Play>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read the folder {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let mut plays = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let scenario = file::Scenario::outline(&text).with_context(|| path.display().to_string())?;
        if source.is_some() && scenario.source.is_some_and(|only| Some(only) != source) {
            continue;
        }
        plays.extend(scenario.plays().map(|(mode, family)| Play {
            path: path.clone(),
            behaviour: scenario.behaviour.clone(),
            mode,
            family,
            source: scenario.source.or(source).unwrap_or_default(),
            needs_ipvs: mode == Mode::Ipvs || scenario.starts_in(Mode::Ipvs),
        }));
    }
    Ok(plays)
}

/// Leaves out those that this kernel cannot have, and tells standard error so.
pub fn leave_out_impossible(plays: &mut Vec<Play>) {
    let asked = plays.len();
    plays.retain(|play| !play.needs_ipvs || mode::has_ipvs());
    if plays.len() < asked {
        let left_out = format!("{} scenarios in mode ipvs", asked - plays.len());
        skipped(
            Skipped::Optional,
            &left_out,
            "no /proc/net/ip_vs: IPVS is not in this kernel, or not loaded",
        );
    }
}
