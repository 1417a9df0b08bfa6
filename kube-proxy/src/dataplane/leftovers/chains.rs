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

const FILTER: [&str; 10] = [
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-NODE-PORT",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-CANARY",
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
    "KUBE-PROXY-CANARY",
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
const MANGLE: [&str; 1] = ["KUBE-PROXY-CANARY"];

/// Whether a chain of a table is kube-proxy's, in iptables mode or in IPVS mode.
pub(in crate::dataplane) fn is_of_kube_proxy(table: &str, chain: &str) -> bool {
    match table {
        "filter" => FILTER.contains(&chain),
        "nat" => NAT.contains(&chain) || NAT_PREFIXES.iter().any(|prefix| chain.starts_with(prefix)),
        "mangle" => MANGLE.contains(&chain),
        _ => false,
    }
}

/// Whether a rule in one of the kernel's own chains that leads there is kube-proxy's.
pub(in crate::dataplane) fn is_entered_by_kube_proxy(table: &str, chain: &str) -> bool {
    chain != MARK_MASQ && is_of_kube_proxy(table, chain)
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
}
