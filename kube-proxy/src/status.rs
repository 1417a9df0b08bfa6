//! What a running proxy does, for `/status` of the metrics server, and how `kube-proxy status` asks for it and shows it.
//! The loop writes; everybody else reads.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::health::Health;

/// So many contested addresses, and as many refusals, are told one by one.
pub(crate) const MOST: usize = 50;
/// A proxy on the same machine answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is told. Times are RFC 3339, in UTC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// Version of the program.
    pub version: String,
    /// `nftables`, `iptables` or `ipvs`.
    pub mode: String,
    /// Name of the Node.
    pub node_name: String,
    /// The addresses by which the cluster knows it.
    pub node_ips: Vec<IpAddr>,
    /// When the program began.
    pub started: String,
    /// `/livez` says so.
    pub healthy: bool,
    /// `/healthz` says so, apart from health.
    pub node_eligible: bool,
    /// Services that are known, proxied or not.
    pub services: usize,
    /// EndpointSlices that are known.
    pub endpoint_slices: usize,
    /// When the kernel was last made equal to what is wanted.
    pub last_sync: Option<String>,
    /// How many seconds that took.
    pub last_sync_seconds: f64,
    /// For how many seconds the oldest change has waited to be put in force.
    pub waiting_seconds: Option<f64>,
    /// Failed syncs since the last success.
    pub failures: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// Seconds from what made the last EndpointSlice change until that was in force.
    pub lag_seconds: Option<f64>,
    /// How often another hand had changed what was in force.
    pub drift: u64,
    /// Addresses that a Service asks for and another holds.
    pub conflicting_addresses: usize,
    /// Those, or the first of them.
    pub conflicts: Vec<Contested>,
    /// Elements that are left out because the kernel refuses them.
    pub refused_elements: usize,
    /// The last refusals; none when nothing is left out.
    pub refusals: Vec<Refused>,
}

/// An address that is contested.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Contested {
    /// Who asks for it in vain.
    pub service: String,
    /// Protocol, address and port.
    pub address: String,
    /// Who has it.
    pub winner: String,
}

/// An element that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Refused {
    /// Whose it is.
    pub service: String,
    /// The element.
    pub element: String,
    /// The kernel's reason.
    pub reason: String,
}

/// The state that is told.
#[derive(Debug)]
pub struct Status {
    report: Mutex<Report>,
    health: Arc<Health>,
}

impl Status {
    /// A proxy that has done nothing yet.
    pub fn new(config: &Config, node_name: &str, health: Arc<Health>) -> Self {
        let report = Mutex::new(Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: config.mode.to_string(),
            node_name: node_name.to_owned(),
            started: Timestamp::now().to_string(),
            ..Report::default()
        });
        Self { report, health }
    }

    /// Changes what is told.
    pub(crate) fn update(&self, update: impl FnOnce(&mut Report)) {
        update(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All of it, as of now.
    pub(crate) fn report(&self) -> Report {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let health = self.health.report(Instant::now());
        report.healthy = health.healthy;
        report.node_eligible = health.eligible;
        report.waiting_seconds = health.waiting.map(|waiting| waiting.as_secs_f64());
        report.last_sync = health.synced.map(|synced| synced.to_string());
        report
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> String {
        // A structure of texts and numbers always has a text.
        serde_json::to_string(&self.report()).unwrap_or_default() + "\n"
    }
}

/// Asks the metrics server at an address; the answer as it came.
///
/// # Errors
/// When no kube-proxy answers there.
pub fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let address = match address.ip() {
        ip if !ip.is_unspecified() => address,
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
    };
    let asked = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = asked()
        .with_context(|| format!("no kube-proxy answers at {address} (its --metrics-bind-address)"))?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => bail!(
            "what answers at {address} is another program, or a kube-proxy without /status: {}",
            answer.lines().next().unwrap_or_default()
        ),
    }
}

/// Reads an answer.
///
/// # Errors
/// When it is not one.
pub fn read(answer: &str) -> anyhow::Result<Report> {
    serde_json::from_str(answer).context("the answer is not the status of a kube-proxy")
}

/// The report for people.
pub fn text(report: &Report) -> String {
    let ips: Vec<String> = report.node_ips.iter().map(|ip| ip.to_string()).collect();
    let health = if report.healthy { "healthy" } else { "NOT HEALTHY" };
    let waiting = report.waiting_seconds.map_or("nothing".to_owned(), |seconds| {
        format!("a change, for {seconds:.1} s; {} failed syncs", report.failures)
    });
    let synced = report.last_sync.as_ref().map_or("never".to_owned(), |last| {
        format!("{last}, took {:.1} ms", report.last_sync_seconds * 1000.0)
    });
    let lag = report
        .lag_seconds
        .map_or("not measured yet".to_owned(), |seconds| format!("{seconds:.3} s"));
    let mut text = String::new();
    let rows = [
        ("Version", report.version.clone()),
        ("Node", format!("{} {}", report.node_name, ips.join(" "))),
        ("Mode", report.mode.clone()),
        (
            "Health",
            format!("{health}, node eligible: {}", report.node_eligible),
        ),
        ("Started", report.started.clone()),
        ("Services", report.services.to_string()),
        ("EndpointSlices", report.endpoint_slices.to_string()),
        ("Last sync", synced),
        ("Waiting", waiting),
        (
            "Last error",
            report.last_error.clone().unwrap_or("none".to_owned()),
        ),
        ("Lag", lag),
        ("Drift found", format!("{} times", report.drift)),
        ("Conflicts", report.conflicting_addresses.to_string()),
        ("Refused", report.refused_elements.to_string()),
    ];
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<16}{}", value.trim_end());
    }
    for Contested {
        service,
        address,
        winner,
    } in &report.conflicts
    {
        let _ = writeln!(
            text,
            "  conflict: {service} asks for {address}, which {winner} has"
        );
    }
    for Refused {
        service,
        element,
        reason,
    } in &report.refusals
    {
        let _ = writeln!(text, "  refused: {element} of {service}: {reason}");
    }
    text
}
