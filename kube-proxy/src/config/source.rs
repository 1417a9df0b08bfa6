//! Where objects come from: `clientConnection`, and the flags for an API server or for manifests.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Source;
use super::check::{Problems, family, text};
use super::file::KubeProxyConfiguration;
use crate::cli::Flags;
use crate::source::api::ClientOptions;
use crate::source::convert::parse_cidr;

pub(super) const DEFAULT_CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// Where Services of a manifest source get their clusterIP from, unless told: what kubeadm and kind take.
const SERVICE_RANGES: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0),
        112,
    )),
];
/// Checks the section and the flags.
pub(super) fn check(file: &KubeProxyConfiguration, flags: &Flags, problems: &mut Problems) -> Source {
    let connection = file.client_connection.clone().unwrap_or_default();
    if let Some(burst) = connection.burst.filter(|&burst| burst < 0) {
        problems.invalid(
            "ClientConnection.Burst",
            burst,
            "must be greater than or equal to 0",
        );
    }
    let Some(path) = flags.manifests.clone() else {
        if flags.service_cluster_ip_range.is_some() {
            problems.refuse(
                "--service-cluster-ip-range needs --manifests: an API server knows its own".to_owned(),
            );
        }
        return Source::Api(ClientOptions {
            kubeconfig: text(&connection.kubeconfig).map(PathBuf::from),
            master: flags.master.clone(),
            accept_content_types: connection.accept_content_types.unwrap_or_default(),
            content_type: text(&connection.content_type)
                .unwrap_or(DEFAULT_CONTENT_TYPE)
                .to_owned(),
        });
    };
    if flags.master.is_some() {
        problems
            .refuse("--manifests and --master exclude each other: objects come from one place".to_owned());
    }
    Source::Manifests {
        path,
        service_cluster_ip_range: service_range(flags, problems),
    }
}

fn service_range(flags: &Flags, problems: &mut Problems) -> Vec<IpNet> {
    let Some(range) = &flags.service_cluster_ip_range else {
        return SERVICE_RANGES.to_vec();
    };
    let mut refuse = |problem: &str| {
        problems.refuse(format!("invalid --service-cluster-ip-range {range:?}: {problem}"));
    };
    let Some(networks) = range.split(',').map(parse_cidr).collect::<Option<Vec<_>>>() else {
        refuse("must be one CIDR, or one IPv4 and one IPv6 CIDR separated by a comma");
        return Vec::new();
    };
    if networks
        .iter()
        .any(|net| net.max_prefix_len() - net.prefix_len() < 2)
    {
        refuse("is too small to hold Services");
    }
    if networks.len() > 2 || (networks.len() == 2 && family(&networks[0]) == family(&networks[1])) {
        refuse("must be at most one CIDR of each family");
    }
    networks
}
