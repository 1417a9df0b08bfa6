//! Which chains of iptables are kube-proxy's. Pure.
//!
//! By name, table for table, and not by the comment of whoever jumps to them: names have stayed the same over the
//! years, comments have not. What is not listed is somebody else's: kubelet's `KUBE-IPTABLES-HINT`,
//! `KUBE-KUBELET-CANARY`, `KUBE-MARK-DROP` and `KUBE-FIREWALL` (kube-proxy adds a rule to that one, which kubelet has
//! as well, and nobody removes it), kube-router's `KUBE-ROUTER-…`, `KUBE-POD-FW-…` and `KUBE-NWPLCY-…`.

/// The tables of iptables that kube-proxy has chains in.
pub(in crate::dataplane) const TABLES: [&str; 3] = ["filter", "nat", "mangle"];

/// What others use as well: port mappings of CNI plugins may be masqueraded by it. While they do, it stays as it is.
pub(in crate::dataplane) const MARK_MASQ: &str = "KUBE-MARK-MASQ";

/// Without use but that a flush takes it along.
pub(in crate::dataplane) const CANARY: &str = "KUBE-PROXY-CANARY";

const FILTER: [&str; 10] = [
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-NODE-PORT",
    "KUBE-NODEPORTS",
    CANARY,
    "KUBE-PROXY-FIREWALL",
    "KUBE-SERVICES",
    "KUBE-SOURCE-RANGES-FIREWALL",
];
const NAT: [&str; 8] = [
    "KUBE-FIRE-WALL",
    "KUBE-LOAD-BALANCER",
    MARK_MASQ,
    "KUBE-NODE-PORT",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    CANARY,
    "KUBE-SERVICES",
];
/// Chains of Services and endpoints, in nat; `KUBE-XLB-` until Kubernetes 1.24.
const NAT_PREFIXES: [&str; 6] = [
    "KUBE-EXT-",
    "KUBE-FW-",
    "KUBE-SEP-",
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-XLB-",
];
const MANGLE: [&str; 1] = [CANARY];

/// Those among them that only upstream's IPVS mode has.
const FILTER_OF_IPVS: [&str; 4] = [
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-NODE-PORT",
    "KUBE-SOURCE-RANGES-FIREWALL",
];
const NAT_OF_IPVS: [&str; 3] = ["KUBE-FIRE-WALL", "KUBE-LOAD-BALANCER", "KUBE-NODE-PORT"];

/// Which chains of kube-proxy are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Which {
    All,
    /// Those that the iptables mode does not have, ours and upstream's.
    OfIpvsOnly,
}

impl Which {
    /// Whether a chain of a table is one of them.
    pub(in crate::dataplane) fn includes(self, table: &str, chain: &str) -> bool {
        match (self, table) {
            (Self::All, _) => is_of_kube_proxy(table, chain),
            (Self::OfIpvsOnly, "filter") => FILTER_OF_IPVS.contains(&chain),
            (Self::OfIpvsOnly, "nat") => NAT_OF_IPVS.contains(&chain),
            (Self::OfIpvsOnly, _) => false,
        }
    }

    /// Whether a rule in one of the kernel's own chains that leads there is kube-proxy's.
    pub(in crate::dataplane) fn is_entered(self, table: &str, chain: &str) -> bool {
        chain != MARK_MASQ && self.includes(table, chain)
    }
}

/// Whether a chain of a table is kube-proxy's, in iptables mode or in IPVS mode.
pub(in crate::dataplane) fn is_of_kube_proxy(table: &str, chain: &str) -> bool {
    match table {
        "filter" => FILTER.contains(&chain),
        "nat" => NAT.contains(&chain) || NAT_PREFIXES.iter().any(|prefix| chain.starts_with(prefix)),
        "mangle" => MANGLE.contains(&chain),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_others_are_not_kube_proxys() {
        for (table, chain) in [
            ("mangle", "KUBE-IPTABLES-HINT"),
            ("mangle", "KUBE-KUBELET-CANARY"),
            ("nat", "KUBE-KUBELET-CANARY"),
            ("nat", "KUBE-MARK-DROP"),
            ("filter", "KUBE-FIREWALL"),
            ("filter", "KUBE-ROUTER-FORWARD"),
            ("filter", "KUBE-POD-FW-AAAAAAAAAAAAAAAA"),
            ("filter", "KUBE-SVC-AAAAAAAAAAAAAAAA"),
            ("nat", "KUBE-SERVICES-OF-MINE"),
            ("raw", "KUBE-SERVICES"),
            ("nat", "PREROUTING"),
        ] {
            assert!(!is_of_kube_proxy(table, chain), "{chain} in {table}");
        }
    }

    #[test]
    fn chains_of_the_ipvs_mode_alone_are_among_all_of_them() {
        let all = FILTER_OF_IPVS.map(|chain| ("filter", chain)).into_iter();
        for (table, chain) in all.chain(NAT_OF_IPVS.map(|chain| ("nat", chain))) {
            assert!(Which::All.includes(table, chain), "{chain} in {table}");
            assert!(Which::OfIpvsOnly.is_entered(table, chain), "{chain} in {table}");
        }
        for (table, chain) in [
            ("nat", "KUBE-SERVICES"),
            ("filter", "KUBE-NODEPORTS"),
            ("mangle", "KUBE-NODE-PORT"),
        ] {
            assert!(!Which::OfIpvsOnly.includes(table, chain), "{chain} in {table}");
        }
    }
}
