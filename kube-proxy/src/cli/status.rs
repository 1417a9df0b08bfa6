//! The arguments of `kube-proxy status`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Command, UsageError};

/// Where the metrics server listens unless told.
const METRICS_PORT: u16 = 10249;

/// Reads what stands behind `status`.
pub(super) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, UsageError> {
    let mut address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), METRICS_PORT);
    let mut json = false;
    while let Some(argument) = arguments.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let known = match name {
            "--metrics-bind-address" | "--output" | "-o" => name,
            "-h" | "--help" => return Ok(Command::Help),
            _ => match name.strip_prefix("--") {
                Some(name) => return Err(UsageError::UnknownFlag(name.to_owned())),
                None => return Err(UsageError::Positional(vec![argument])),
            },
        };
        let value = value.or_else(|| arguments.next());
        let value = value.ok_or_else(|| UsageError::NeedsArgument(known.to_owned()))?;
        let refuse = |problem| UsageError::InvalidArgument {
            flag: known.to_owned(),
            value: value.clone(),
            problem,
        };
        match (known, value.as_str()) {
            ("--metrics-bind-address", text) => {
                let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, METRICS_PORT));
                address = alone
                    .or_else(|_| text.parse())
                    .map_err(|_| refuse("must be IP or IP:port"))?;
            }
            (_, "json") => json = true,
            (_, "text") => json = false,
            _ => return Err(refuse("must be text or json")),
        }
    }
    Ok(Command::Status { address, json })
}
