//! The arguments of `kube-proxy status`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Command, UsageError, cut, is_json};

/// Where the metrics server listens unless told.
const METRICS_PORT: u16 = 10249;

/// Reads what stands behind `status`.
pub(super) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, UsageError> {
    let mut address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), METRICS_PORT);
    let mut json = false;
    while let Some(argument) = arguments.next() {
        let (name, value) = cut(&argument);
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
        match (known, value.as_str()) {
            ("--metrics-bind-address", text) => {
                let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, METRICS_PORT));
                address = alone
                    .or_else(|_| text.parse())
                    .map_err(|_| UsageError::invalid(known, text, "must be IP or IP:port"))?;
            }
            (_, text) => json = is_json(known, text)?,
        }
    }
    Ok(Command::Status { address, json })
}
