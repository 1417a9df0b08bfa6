//! The modes that scenarios are played in: their names, which plays a file asks for, and what each means on a node.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Deserializer};

use crate::net::{Family, Namespace};

/// A mode of kube-proxy, on nodes of a certain kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// nftables.
    Nftables,
    /// iptables, where its programs write nftables underneath.
    Iptables,
    /// The same, on whatever node: to name what may be left of it on one for the older programs. Nothing is played in it.
    IptablesNft,
    /// iptables, where kubelet uses the older programs, whose rules are in tables of their own. Little but the programs
    /// differs, so only those scenarios are played so that ask for it.
    IptablesLegacy,
    /// IPVS, where the kernel has it.
    Ipvs,
}

impl Mode {
    const ALL: [Self; 5] = [
        Self::Nftables,
        Self::Iptables,
        Self::IptablesNft,
        Self::IptablesLegacy,
        Self::Ipvs,
    ];
    const USUAL: [Self; 3] = [Self::Nftables, Self::Iptables, Self::Ipvs];

    /// Whether this kernel has what the mode needs. (The file is there once the module is loaded.)
    pub(super) fn is_possible(self) -> bool {
        self != Self::Ipvs || Path::new("/proc/net/ip_vs").exists()
    }

    /// As scenarios and the names of plays have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Ipvs => "ipvs",
        }
    }

    /// As the configuration of kube-proxy has it. What differs from other modes differs for all that share it.
    pub(crate) fn configured(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables | Self::IptablesNft | Self::IptablesLegacy => "iptables",
            Self::Ipvs => "ipvs",
        }
    }

    /// This mode on a node that was made for another one: a node has one variant of iptables.
    pub(super) fn on_node_of(self, other: Self) -> Self {
        match (self, other) {
            (Self::Iptables, Self::IptablesLegacy) => Self::IptablesLegacy,
            _ => self,
        }
    }

    /// The program that the names of all others of this mode begin with, in IPv4, if it has any.
    pub(crate) fn program_of_iptables(self) -> Option<&'static str> {
        match self {
            Self::Nftables | Self::Ipvs => None,
            Self::Iptables | Self::IptablesNft => Some("iptables-nft"),
            Self::IptablesLegacy => Some("iptables-legacy"),
        }
    }

    /// Makes a node one for this mode, before its kube-proxy starts.
    pub(crate) fn prepare(self, node: &Namespace) -> Result<()> {
        if self == Self::IptablesLegacy {
            // As kubelet does it, for kube-proxy to see which programs the node uses.
            for program in ["iptables-legacy", "ip6tables-legacy"] {
                node.run(program, &["-w", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT"])?;
            }
        }
        Ok(())
    }

    /// Loads rules with the variant of `iptables-restore` that a node of this mode has.
    pub(super) fn restore(self, node: &Namespace, family: Family, rules: &str) -> Result<()> {
        let program = self.program(family, "-restore");
        node.run_with_input(&program, &["-w", "60", "--noflush"], rules)?;
        Ok(())
    }

    fn program(self, family: Family, suffix: &str) -> String {
        let base = family.pick("iptables", "ip6tables");
        let variant = match self {
            Self::Nftables | Self::Iptables | Self::IptablesNft | Self::Ipvs => "nft",
            Self::IptablesLegacy => "legacy",
        };
        format!("{base}-{variant}{suffix}")
    }

    /// What is left on a node of a kube-proxy in this mode: lines of lists that name it.
    pub(super) fn left(self, node: &Namespace) -> Result<Vec<String>> {
        const KUBELETS: [&str; 3] = ["KUBE-FIREWALL", "KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];
        let is_kube_proxys = |line: &str| match self {
            Self::Nftables => line.ends_with(" kube-proxy"),
            // Its tables may be those of the nftables mode by now. kube-router's sets begin with KUBE-SRC- and KUBE-DST-.
            Self::Ipvs => {
                let others = ["KUBE-SRC-", "KUBE-DST-"];
                let is_others = others.iter().any(|prefix| line.starts_with(prefix));
                line.contains(" kube-ipvs0:")
                    || line.ends_with(" kube-proxy-lingering")
                    || (line.starts_with("KUBE-") && !is_others)
            }
            Self::Iptables | Self::IptablesNft | Self::IptablesLegacy => {
                let chain = line.strip_prefix(':').and_then(|line| line.split(' ').next());
                chain.is_some_and(|chain| chain.starts_with("KUBE-") && !KUBELETS.contains(&chain))
            }
        };
        let lists = match self {
            Self::Nftables => vec![node.run("nft", &["list", "tables"])?],
            Self::Ipvs => vec![
                node.run("ip", &["-o", "link", "show"])?,
                node.run("ipset", &["list", "-n"])?,
                node.run("nft", &["list", "tables"])?,
            ],
            Self::Iptables | Self::IptablesNft | Self::IptablesLegacy => Family::ALL
                .into_iter()
                .map(|family| node.run(&self.program(family, "-save"), &[]))
                .collect::<Result<_>>()?,
        };
        let lines = lists.iter().flat_map(|list| list.lines());
        Ok(lines
            .filter(|line| is_kube_proxys(line))
            .map(str::to_owned)
            .collect())
    }

    /// The rules of a node, as the tools of this mode show them.
    pub(super) fn rules(self, node: &Namespace) -> String {
        // nft shows whatever is in nftables, though not every match of iptables' that is used there.
        let commands: &[&[&str]] = match self {
            Self::Nftables => &[&["nft", "list", "ruleset"]],
            Self::Iptables | Self::IptablesNft => &[
                &["nft", "list", "ruleset"],
                &["iptables-nft-save"],
                &["ip6tables-nft-save"],
            ],
            Self::Ipvs => &[
                &["nft", "list", "ruleset"],
                &["ipvsadm", "--list", "--numeric"],
                &["ipvsadm", "--list", "--numeric", "--connection"],
                &["ip", "address", "show", "dev", "kube-ipvs0"],
            ],
            Self::IptablesLegacy => &[
                &["nft", "list", "ruleset"],
                &["iptables-legacy-save"],
                &["ip6tables-legacy-save"],
            ],
        };
        let shown = commands.iter().filter_map(|command| {
            let (program, args) = command.split_first()?;
            let shown = node.run(program, args);
            Some(shown.unwrap_or_else(|error| format!("{error:#}")))
        });
        shown.collect::<Vec<_>>().join("\n")
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The plays that a file asks for: `MODE`, or `MODE::FAMILY` for one family of it, as in the names of plays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Modes(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    mode: Mode,
    family: Option<Family>,
}

impl Modes {
    /// What is played unless a scenario says otherwise.
    pub fn usual() -> Self {
        let entry = |mode| Entry { mode, family: None };
        Self(Mode::USUAL.map(entry).to_vec())
    }

    /// The plays of these and others, mode by mode.
    pub(super) fn plays(&self, others: &Self) -> impl Iterator<Item = (Mode, Family)> {
        let all = Mode::ALL
            .into_iter()
            .flat_map(|mode| Family::ALL.map(|family| (mode, family)));
        all.filter(|&(mode, family)| {
            let mut entries = self.0.iter().chain(&others.0);
            entries.any(|entry| entry.mode == mode && entry.family.is_none_or(|only| only == family))
        })
    }
}

impl std::str::FromStr for Entry {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, family) = match text.split_once("::") {
            None => (text, None),
            Some((name, family)) => {
                let known = Family::ALL
                    .into_iter()
                    .find(|known| known.pick("ipv4", "ipv6") == family);
                let known = known.with_context(|| format!("{family} is no family: ipv4 or ipv6"))?;
                (name, Some(known))
            }
        };
        let mode = name.parse()?;
        Ok(Self { mode, family })
    }
}

impl std::str::FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let mode = Self::ALL.into_iter().find(|mode| mode.name() == name);
        mode.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            anyhow!("{name} is no mode: {names}")
        })
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| serde::de::Error::custom(format!("{error:#}")))
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| serde::de::Error::custom(format!("{error:#}")))
    }
}
