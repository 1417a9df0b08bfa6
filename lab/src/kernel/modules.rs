//! The kernel modules that a guest loads. All at once when it starts, since nothing in it could load one on demand.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// By name; what they depend on comes by itself. Programs ask the kernel for more by aliases (`nft-expr-numgen`,
/// `ipt_REJECT`, `net-pf-2-proto-132`), so what is missing here shows up in a guest as "no such file" or "not
/// supported".
const MODULES: &[&[&str]] = &[
    // Links.
    &["veth", "bridge", "br_netfilter", "dummy"],
    // SCTP sockets.
    &["sctp"],
    // Conntrack, and its netlink.
    &["nf_conntrack", "nf_conntrack_netlink", "nf_nat"],
    // nftables.
    &[
        "nf_tables",
        "nft_chain_nat",
        "nft_nat",
        "nft_masq",
        "nft_redir",
        "nft_ct",
    ],
    &[
        "nft_numgen",
        "nft_hash",
        "nft_fib_ipv4",
        "nft_fib_ipv6",
        "nft_log",
        "nft_limit",
    ],
    &[
        "nft_reject",
        "nft_reject_ipv4",
        "nft_reject_ipv6",
        "nft_reject_inet",
        "nft_compat",
    ],
    // iptables, in tables of its own and through nftables.
    &["iptable_nat", "iptable_filter", "iptable_mangle"],
    &["ip6table_nat", "ip6table_filter", "ip6table_mangle"],
    &[
        "ipt_REJECT",
        "ip6t_REJECT",
        "xt_MASQUERADE",
        "xt_nat",
        "xt_mark",
        "xt_comment",
        "xt_conntrack",
    ],
    &[
        "xt_addrtype",
        "xt_statistic",
        "xt_recent",
        "xt_tcpudp",
        "xt_sctp",
        "xt_multiport",
        "xt_physdev",
    ],
    &[
        "xt_set",
        "ip_set_hash_ip",
        "ip_set_hash_ipport",
        "ip_set_hash_ipportip",
        "ip_set_hash_ipportnet",
    ],
    &[
        "ip_set_bitmap_port",
        "xt_nfacct",
        "nfnetlink_acct",
        "nfnetlink_log",
    ],
    // IPVS and its schedulers.
    &[
        "ip_vs",
        "ip_vs_rr",
        "ip_vs_wrr",
        "ip_vs_lc",
        "ip_vs_wlc",
        "ip_vs_lblc",
        "ip_vs_lblcr",
        "ip_vs_sh",
    ],
    &[
        "ip_vs_dh",
        "ip_vs_sed",
        "ip_vs_nq",
        "ip_vs_mh",
        "ip_vs_fo",
        "ip_vs_ovf",
        "xt_ipvs",
    ],
];

/// A module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) file: PathBuf,
    /// What `/etc/modprobe.d` of this machine says for it: distributions let `dummy` begin without an interface.
    pub(super) parameters: String,
}

/// All modules from a kernel's package, each after those that it needs.
pub(super) fn find(package: &Path, version: &str) -> Result<Vec<Module>> {
    let mut command = Command::new("modprobe");
    command.arg("--dirname").arg(package);
    command.args(["--set-version", version, "--show-depends", "--all"]);
    command.args(MODULES.concat());
    let output = command.output().context("start modprobe")?;
    let problem = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "look up modules below {}: {}",
        package.display(),
        problem.trim()
    );
    let mut modules = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["insmod", file, ref parameters @ ..] => {
                let module = Module {
                    file: file.into(),
                    parameters: parameters.join(" "),
                };
                if !modules.contains(&module) {
                    modules.push(module);
                }
            }
            ["builtin", _] => {}
            _ => bail!("modprobe --show-depends printed {line:?}"),
        }
    }
    Ok(modules)
}
