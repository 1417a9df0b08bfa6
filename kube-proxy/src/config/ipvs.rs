//! The section of IPVS. Upstream checks it in that mode only.

use std::time::Duration;

use super::Ipvs;
use super::check::Problems;
use super::file::{KubeProxyConfiguration, Period};
use crate::source::convert::parse_cidr;

/// Checks the section. Which schedulers there are the kernel knows.
pub(super) fn check(file: &KubeProxyConfiguration, problems: &mut Problems) -> Ipvs {
    let section = file.ipvs.clone().unwrap_or_default();
    let mut exclude_cidrs = Vec::new();
    for (index, entry) in section.exclude_cidrs.iter().flatten().enumerate() {
        let path = format!("KubeProxyIPVSConfiguration.ExcludeCidrs[{index}]");
        exclude_cidrs.extend(problems.parse(&path, entry, parse_cidr, "must be a valid IP block"));
    }
    let timeouts = [section.tcp_timeout, section.tcp_fin_timeout, section.udp_timeout];
    let scheduler = section.scheduler.filter(|name| !name.is_empty());
    Ipvs {
        scheduler: scheduler.unwrap_or_else(|| Ipvs::default().scheduler),
        exclude_cidrs,
        strict_arp: section.strict_arp.unwrap_or_default(),
        timeouts: timeouts.map(set),
    }
}

/// Zero leaves it as it is.
fn set(period: Option<Period>) -> Option<Duration> {
    period.map(|Period(given)| given).filter(|given| !given.is_zero())
}
