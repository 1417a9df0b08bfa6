//! The table of flags: upstream's names, what each takes, and which fields of KubeProxyConfiguration it sets.
//! Parsing is in the parent module, meaning and defaults are in `config`.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `true` or `false`; the bare flag means true.
    Bool,
    /// Any text.
    Text,
    /// A whole number.
    Integer,
    /// The number of a port, or 0.
    Port,
    /// A number.
    Number,
    /// A duration as Go writes them: `1h30m`, `250ms`.
    Duration,
    /// A comma-separated list; a repeated flag appends.
    List,
    /// `key=true,key=false`; a repeated flag adds.
    Gates,
    /// `pattern=N,pattern=N`: verbosities of source files.
    Modules,
}

/// What a flag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Sets these fields of KubeProxyConfiguration, given as JSON pointers. Ignored when `--config` is given.
    Sets(&'static [&'static str]),
    /// Sets these fields, also on top of the file that `--config` names.
    Overrides(&'static [&'static str]),
    /// Is read by the program itself; see [`super::Flags`].
    Itself,
    /// Is accepted and has no effect, which the program says.
    Nothing,
}

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) takes: Takes,
    /// What it is when nobody sets it, as upstream writes it.
    pub(crate) default: &'static str,
    pub(crate) does: Does,
    /// Not in the help: deprecated, and a warning says so.
    pub(crate) hidden: bool,
    pub(crate) help: &'static str,
}

const fn flag(
    name: &'static str,
    takes: Takes,
    default: &'static str,
    does: Does,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        short: None,
        takes,
        default,
        does,
        hidden: false,
        help,
    }
}

const fn hidden(flag: Flag) -> Flag {
    Flag { hidden: true, ..flag }
}

const fn short(letter: char, flag: Flag) -> Flag {
    Flag {
        short: Some(letter),
        ..flag
    }
}

use Does::{Itself, Nothing, Overrides, Sets};
use Takes::{Bool, Duration, Gates, Integer, List, Modules, Number, Port, Text};

/// Every flag, in the order of the help.
#[rustfmt::skip]
pub(crate) const FLAGS: &[Flag] = &[
    short('h', flag("help", Bool, "false", Itself, "print this help")),
    flag("version", Bool, "false", Itself, "print the version; --version=raw prints the bare number"),
    flag("config", Text, "", Itself, "file with a KubeProxyConfiguration (YAML or JSON); flags marked with * are then ignored"),
    flag("write-config-to", Text, "", Itself, "write the complete configuration to this file, and exit"),
    flag("cleanup", Bool, "false", Itself, "remove all rules that kube-proxies left in this node's kernel, whatever their mode, and exit"),
    flag("init-only", Bool, "false", Itself, "do what needs more privileges than CAP_NET_ADMIN (settings of the kernel), and exit"),
    flag("manifests", Text, "", Itself, "file or folder of manifests (YAML or JSON) to use instead of a Kubernetes API server; watched for changes"),
    flag("service-cluster-ip-range", Text, "10.96.0.0/16,fd00:10:96::/112", Itself, "with --manifests: networks (IPv4, IPv6 or both, separated by a comma) from which Services without a clusterIP get one"),
    flag("master", Text, "", Itself, "URL of the API server; wins over the kubeconfig"),
    flag("kubeconfig", Text, "", Sets(&["/clientConnection/kubeconfig"]), "file with credentials and address of the API server; without it and --master: the service account of the pod"),
    flag("hostname-override", Text, "", Overrides(&["/hostnameOverride"]), "name of this node, instead of the host name"),
    flag("proxy-mode", Text, "", Sets(&["/mode"]), "nftables, iptables or ipvs; empty: nftables where the kernel has all that it needs, else iptables"),
    flag("cluster-cidr", Text, "", Sets(&["/clusterCIDR"]), "networks of all pods, one or one per family separated by a comma"),
    flag("nodeport-addresses", List, "[]", Sets(&["/nodePortAddresses"]), "networks whose addresses of this node accept node ports, or the word primary (the default in nftables mode; else all)"),
    flag("iptables-localhost-nodeports", Bool, "true", Sets(&["/iptables/localhostNodePorts", "/nftables/localhostNodePorts"]), "serve node ports at the loopback address as well, for processes of this host"),
    flag("detect-local-mode", Text, "", Sets(&["/detectLocalMode"]), "how traffic of pods is recognised: ClusterCIDR (the default), NodeCIDR, BridgeInterface, InterfaceNamePrefix"),
    flag("pod-bridge-interface", Text, "", Sets(&["/detectLocal/bridgeInterface"]), "bridge that the pods are connected to, for BridgeInterface"),
    flag("pod-interface-name-prefix", Text, "", Sets(&["/detectLocal/interfaceNamePrefix"]), "start of the names of pods' interfaces, for InterfaceNamePrefix"),
    flag("masquerade-all", Bool, "false", Sets(&["/iptables/masqueradeAll", "/nftables/masqueradeAll"]), "masquerade all traffic to ClusterIPs"),
    flag("bind-address", Text, "0.0.0.0", Sets(&["/bindAddress"]), "IP address of this node, instead of the one in its Node object; nothing is bound to it"),
    flag("healthz-bind-address", Text, "0.0.0.0:10256", Sets(&["/healthzBindAddress"]), "address and port of the health server"),
    flag("metrics-bind-address", Text, "127.0.0.1:10249", Sets(&["/metricsBindAddress"]), "address and port of the metrics server"),
    hidden(flag("healthz-port", Port, "10256", Itself, "deprecated: the port of healthz-bind-address if that has none; 0: no health server")),
    hidden(flag("metrics-port", Port, "10249", Itself, "deprecated: the port of metrics-bind-address if that has none")),
    flag("bind-address-hard-fail", Bool, "false", Sets(&["/bindAddressHardFail"]), "exit when a server cannot bind its port, instead of trying again"),
    flag("oom-score-adj", Integer, "-999", Sets(&["/oomScoreAdj"]), "oom_score_adj of this process, -1000 to 1000"),
    short('v', flag("v", Integer, "0", Overrides(&["/logging/verbosity"]), "how much to log: 0, 2 for each sync, 4 and more for every detail")),
    flag("feature-gates", Gates, "", Sets(&["/featureGates"]), "features to switch: AllowServiceExternalIPs=false"),
    flag("kube-api-content-type", Text, "application/vnd.kubernetes.protobuf", Sets(&["/clientConnection/contentType"]), "content type of requests to the API server"),
    flag("iptables-sync-period", Duration, "30s", Sets(&["/iptables/syncPeriod", "/nftables/syncPeriod"]), "longest pause before a failed sync is tried again; twice as long without success is unhealthy"),
    // Accepted for upstream's sake; `config` warns when one is set to something that would matter.
    flag("kube-api-qps", Number, "5", Sets(&["/clientConnection/qps"]), "no effect"),
    flag("kube-api-burst", Integer, "10", Sets(&["/clientConnection/burst"]), "no effect"),
    flag("config-sync-period", Duration, "15m0s", Sets(&["/configSyncPeriod"]), "no effect: every change is watched"),
    flag("iptables-min-sync-period", Duration, "1s", Sets(&["/iptables/minSyncPeriod", "/nftables/minSyncPeriod"]), "no effect: changes go at once, and together while a sync runs"),
    flag("iptables-masquerade-bit", Integer, "14", Sets(&["/iptables/masqueradeBit"]), "bit of the packet mark for masquerading, in iptables and ipvs mode"),
    flag("nftables-count-connections", Bool, "false", Sets(&["/nftables/countConnections"]), "count the connections of each ServicePort for the metrics, in nftables mode"),
    flag("ipvs-sync-period", Duration, "30s", Sets(&["/ipvs/syncPeriod"]), "iptables-sync-period, in ipvs mode"),
    flag("ipvs-min-sync-period", Duration, "1s", Sets(&["/ipvs/minSyncPeriod"]), "no effect: changes go at once, and together while a sync runs"),
    flag("ipvs-scheduler", Text, "", Sets(&["/ipvs/scheduler"]), "how IPVS chooses endpoints, in ipvs mode: any scheduler that the kernel has; empty: rr"),
    flag("ipvs-exclude-cidrs", List, "[]", Sets(&["/ipvs/excludeCIDRs"]), "networks at whose addresses virtual servers of others are left alone, in ipvs mode"),
    flag("ipvs-strict-arp", Bool, "false", Sets(&["/ipvs/strictARP"]), "answer no ARP about addresses of Services, in ipvs mode: arp_ignore and arp_announce"),
    flag("ipvs-tcp-timeout", Duration, "0s", Sets(&["/ipvs/tcpTimeout"]), "after how long IPVS forgets an idle TCP connection, in ipvs mode (0: leave it)"),
    flag("ipvs-tcpfin-timeout", Duration, "0s", Sets(&["/ipvs/tcpFinTimeout"]), "the same after a FIN (0: leave it)"),
    flag("ipvs-udp-timeout", Duration, "0s", Sets(&["/ipvs/udpTimeout"]), "the same of a UDP flow (0: leave it)"),
    flag("conntrack-max-per-core", Integer, "32768", Sets(&["/conntrack/maxPerCore"]), "tracked connections for each processor: nf_conntrack_max (0: leave it)"),
    flag("conntrack-min", Integer, "131072", Sets(&["/conntrack/min"]), "what nf_conntrack_max is at least, unless conntrack-max-per-core is 0"),
    flag("conntrack-tcp-timeout-established", Duration, "24h0m0s", Sets(&["/conntrack/tcpEstablishedTimeout"]), "nf_conntrack_tcp_timeout_established (0: leave it)"),
    flag("conntrack-tcp-timeout-close-wait", Duration, "1h0m0s", Sets(&["/conntrack/tcpCloseWaitTimeout"]), "nf_conntrack_tcp_timeout_close_wait (0: leave it)"),
    flag("conntrack-tcp-be-liberal", Bool, "false", Sets(&["/conntrack/tcpBeLiberal"]), "set nf_conntrack_tcp_be_liberal: take packets outside of the TCP window for valid"),
    flag("conntrack-udp-timeout", Duration, "0s", Sets(&["/conntrack/udpTimeout"]), "nf_conntrack_udp_timeout (0: leave it)"),
    flag("conntrack-udp-timeout-stream", Duration, "0s", Sets(&["/conntrack/udpStreamTimeout"]), "nf_conntrack_udp_timeout_stream (0: leave it)"),
    flag("conntrack-count-bytes", Bool, "false", Sets(&["/conntrack/countBytes"]), "count the bytes of each ServicePort for the metrics: set nf_conntrack_acct, and listen for ended connections"),
    flag("profiling", Bool, "false", Sets(&["/enableProfiling"]), "let the metrics server change -v, at /debug/flags/v"),
    flag("show-hidden-metrics-for-version", Text, "", Sets(&["/showHiddenMetricsForVersion"]), "no effect: no metric is hidden; only 1.35 is allowed"),
    flag("logging-format", Text, "text", Overrides(&["/logging/format"]), "text or json"),
    flag("vmodule", Modules, "", Overrides(&["/logging/vmodule"]), "-v for single source files: pattern=N,... (text format only)"),
    flag("log-flush-frequency", Duration, "5s", Overrides(&["/logging/flushFrequency"]), "no effect: every line is written at once"),
    flag("log-text-split-stream", Bool, "false", Overrides(&["/logging/options/text/splitStream"]), "no effect: all lines go to stderr"),
    flag("log-text-info-buffer-size", Text, "0", Overrides(&["/logging/options/text/infoBufferSize"]), "no effect: every line is written at once"),
    flag("log-json-split-stream", Bool, "false", Overrides(&["/logging/options/json/splitStream"]), "no effect: all lines go to stderr"),
    flag("log-json-info-buffer-size", Text, "0", Overrides(&["/logging/options/json/infoBufferSize"]), "no effect: every line is written at once"),
    flag("boot-id-file", Text, "/proc/sys/kernel/random/boot_id", Nothing, "no effect"),
    flag("machine-id-file", Text, "/etc/machine-id,/var/lib/dbus/machine-id", Nothing, "no effect"),
];
