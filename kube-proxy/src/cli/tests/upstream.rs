//! Upstream's command line, flag by flag.

use super::*;

/// What becomes of a flag beside `--config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// It goes before the file.
    Counts,
    /// The file alone counts.
    Ignored,
}

use Beside::{Counts, Ignored};

/// A flag of upstream's: its name, its default, a value for it, the fields that it sets (none: the program reads it
/// itself, or it has no effect), what they are then (empty: the value), and what becomes of it beside a file.
pub(crate) type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
    Beside,
);

#[rustfmt::skip] // A table: one flag, one line.
pub(crate) const UPSTREAM: &[Row] = &[
    ("config", "", "/c", &[], "", Counts),
    ("write-config-to", "", "/w", &[], "", Counts),
    ("cleanup", "false", "true", &[], "", Counts),
    ("init-only", "false", "true", &[], "", Counts),
    ("master", "", "https://10.0.0.1", &[], "", Counts),
    ("kubeconfig", "", "/k", &["/clientConnection/kubeconfig"], "", Ignored),
    ("kube-api-content-type", "application/vnd.kubernetes.protobuf", "application/json", &["/clientConnection/contentType"], "", Ignored),
    ("kube-api-qps", "5", "2.5", &["/clientConnection/qps"], "", Ignored),
    ("kube-api-burst", "10", "7", &["/clientConnection/burst"], "", Ignored),
    ("hostname-override", "", "node-1", &["/hostnameOverride"], "", Counts),
    ("bind-address", "0.0.0.0", "10.0.0.1", &["/bindAddress"], "", Ignored),
    ("healthz-bind-address", "0.0.0.0:10256", "10.0.0.1:1", &["/healthzBindAddress"], "", Ignored),
    ("metrics-bind-address", "127.0.0.1:10249", "10.0.0.1:1", &["/metricsBindAddress"], "", Ignored),
    ("healthz-port", "10256", "1", &[], "", Ignored),
    ("metrics-port", "10249", "1", &[], "", Ignored),
    ("bind-address-hard-fail", "false", "true", &["/bindAddressHardFail"], "", Ignored),
    ("proxy-mode", "", "ipvs", &["/mode"], "", Ignored),
    ("feature-gates", "", "ComponentFlagz=false", &["/featureGates"], r#"{"ComponentFlagz":false}"#, Ignored),
    ("profiling", "false", "true", &["/enableProfiling"], "", Ignored),
    ("config-sync-period", "15m0s", "1m0s", &["/configSyncPeriod"], "", Ignored),
    ("oom-score-adj", "-999", "-5", &["/oomScoreAdj"], "", Ignored),
    ("show-hidden-metrics-for-version", "", "1.35", &["/showHiddenMetricsForVersion"], "", Ignored),
    ("iptables-masquerade-bit", "14", "7", &["/iptables/masqueradeBit"], "", Ignored),
    ("masquerade-all", "false", "true", &["/iptables/masqueradeAll", "/nftables/masqueradeAll"], "", Ignored),
    // Ours is for nftables mode as well.
    ("iptables-localhost-nodeports", "true", "false", &["/iptables/localhostNodePorts", "/nftables/localhostNodePorts"], "", Ignored),
    ("iptables-sync-period", "30s", "40s", &["/iptables/syncPeriod", "/nftables/syncPeriod"], "", Ignored),
    ("iptables-min-sync-period", "1s", "2s", &["/iptables/minSyncPeriod", "/nftables/minSyncPeriod"], "", Ignored),
    ("ipvs-sync-period", "30s", "40s", &["/ipvs/syncPeriod"], "", Ignored),
    ("ipvs-min-sync-period", "1s", "2s", &["/ipvs/minSyncPeriod"], "", Ignored),
    ("ipvs-scheduler", "", "lc", &["/ipvs/scheduler"], "", Ignored),
    ("ipvs-exclude-cidrs", "[]", "10.0.0.0/8,fd00::/8", &["/ipvs/excludeCIDRs"], r#"["10.0.0.0/8","fd00::/8"]"#, Ignored),
    ("ipvs-strict-arp", "false", "true", &["/ipvs/strictARP"], "", Ignored),
    ("ipvs-tcp-timeout", "0s", "1s", &["/ipvs/tcpTimeout"], "", Ignored),
    ("ipvs-tcpfin-timeout", "0s", "1s", &["/ipvs/tcpFinTimeout"], "", Ignored),
    ("ipvs-udp-timeout", "0s", "1s", &["/ipvs/udpTimeout"], "", Ignored),
    ("detect-local-mode", "", "NodeCIDR", &["/detectLocalMode"], "", Ignored),
    ("cluster-cidr", "", "10.0.0.0/8", &["/clusterCIDR"], "", Ignored),
    ("pod-bridge-interface", "", "cbr0", &["/detectLocal/bridgeInterface"], "", Ignored),
    ("pod-interface-name-prefix", "", "veth", &["/detectLocal/interfaceNamePrefix"], "", Ignored),
    ("nodeport-addresses", "[]", "primary", &["/nodePortAddresses"], r#"["primary"]"#, Ignored),
    ("conntrack-max-per-core", "32768", "1", &["/conntrack/maxPerCore"], "", Ignored),
    ("conntrack-min", "131072", "1", &["/conntrack/min"], "", Ignored),
    ("conntrack-tcp-timeout-established", "24h0m0s", "1s", &["/conntrack/tcpEstablishedTimeout"], "", Ignored),
    ("conntrack-tcp-timeout-close-wait", "1h0m0s", "1s", &["/conntrack/tcpCloseWaitTimeout"], "", Ignored),
    ("conntrack-tcp-be-liberal", "false", "true", &["/conntrack/tcpBeLiberal"], "", Ignored),
    ("conntrack-udp-timeout", "0s", "1s", &["/conntrack/udpTimeout"], "", Ignored),
    ("conntrack-udp-timeout-stream", "0s", "1s", &["/conntrack/udpStreamTimeout"], "", Ignored),
    ("v", "0", "4", &["/logging/verbosity"], "", Counts),
    ("vmodule", "", "proxy=4", &["/logging/vmodule"], r#"[{"filePattern":"proxy","verbosity":4}]"#, Counts),
    ("logging-format", "text", "json", &["/logging/format"], "", Counts),
    ("log-flush-frequency", "5s", "1s", &["/logging/flushFrequency"], "", Counts),
    ("log-text-split-stream", "false", "true", &["/logging/options/text/splitStream"], "", Counts),
    ("log-text-info-buffer-size", "0", "1Ki", &["/logging/options/text/infoBufferSize"], "", Counts),
    ("log-json-split-stream", "false", "true", &["/logging/options/json/splitStream"], "", Counts),
    ("log-json-info-buffer-size", "0", "1Ki", &["/logging/options/json/infoBufferSize"], "", Counts),
    ("version", "false", "false", &[], "", Counts),
    ("boot-id-file", "/proc/sys/kernel/random/boot_id", "x", &[], "", Ignored),
    ("machine-id-file", "/etc/machine-id,/var/lib/dbus/machine-id", "x", &[], "", Ignored),
];

/// As a flag or a table writes it: texts without quotes.
fn written(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn every_flag_of_upstream_is_known_with_its_default_and_the_fields_that_it_sets() {
    let defaults = run("").values;
    for (name, default, given, fields, becomes, _) in UPSTREAM {
        assert_eq!(defaults.get(name).map(String::as_str), Some(*default), "{name}");
        for line in [
            format!("--{name}={given}"),
            format!("--{}={given}", name.replace('-', "_")),
        ] {
            let flags = run(&line);
            assert_eq!(flags.values[name], *given, "{line}");
            let mut expected = json!({});
            for field in *fields {
                let value = flags.settings.pointer(field).unwrap_or_else(|| panic!("{line}"));
                let becomes = if becomes.is_empty() { given } else { becomes };
                assert_eq!(written(value), *becomes, "{line}");
                set(&mut expected, field, value.clone());
            }
            assert_eq!(flags.settings, expected, "{line} sets more");
        }
    }
    let mut added: Vec<_> = defaults.into_keys().collect();
    added.retain(|name| UPSTREAM.iter().all(|(upstream, ..)| upstream != name));
    assert_eq!(
        added,
        [
            "conntrack-count-bytes",
            "help",
            "manifests",
            "nftables-count-connections",
            "service-cluster-ip-range"
        ]
    );
}

#[test]
fn beside_a_file_every_flag_counts_or_is_ignored_as_upstreams() {
    for (name, _, given, fields, _, beside) in UPSTREAM {
        let alone = run(&format!("--{name}={given}"));
        let flags = run(&format!("--config=/etc/kp.yaml --{name}={given}"));
        match beside {
            Counts => {
                assert_eq!(flags.settings, alone.settings, "{name}");
                assert!(flags.ignored.is_empty(), "{name}");
            }
            Ignored => {
                assert_eq!(flags.settings, json!({}), "{name}");
                assert_eq!(flags.ignored, [*name]);
                assert_eq!((flags.healthz_port, flags.metrics_port), (None, None), "{name}");
            }
        }
        // Those that have no effect are named alone, too.
        let has_none = name.ends_with("-id-file");
        assert_eq!(alone.ignored.is_empty(), !has_none, "{name}");
        assert!(!has_none || fields.is_empty());
    }
}

#[test]
fn the_help_marks_what_a_file_overrides_and_hides_what_is_deprecated() {
    let help = help();
    let (_, help) = help.split_once("Flags:\n").unwrap();
    for (name, _, _, _, _, beside) in UPSTREAM {
        let line = help.lines().find(|line| line.contains(&format!("--{name} ")));
        match (line, name.ends_with("-port")) {
            (None, true) => {}
            (Some(line), false) => {
                let marked = line.starts_with('*');
                // What has no effect at all needs no mark.
                let expected = *beside == Ignored && !name.ends_with("-id-file");
                assert_eq!(marked, expected, "{line}");
            }
            (line, _) => panic!("{name}: {line:?}"),
        }
    }
}
