//! What only flags can say, and what they say beside a file.

use super::*;
use crate::cli::help;
use crate::cli::tests::upstream::UPSTREAM;
use crate::logging::{Format, Module};

#[test]
fn every_flag_of_upstream_is_taken_with_its_default_as_if_it_were_not_given() {
    let bare = of_flags("--proxy-mode=nftables").unwrap();
    for (name, value) in flags("").values {
        // Those that are read elsewhere, or have no value that could be given.
        if matches!(
            name,
            "help" | "version" | "service-cluster-ip-range" | "proxy-mode" | "nodeport-addresses"
        ) {
            continue;
        }
        let value = value.trim_matches(['[', ']']).to_owned();
        let given = of_flags(&format!("--proxy-mode=nftables --{name}={value}"));
        assert_eq!(given.unwrap().config, bare.config, "--{name}={value}");
    }
}

#[test]
fn a_period_of_zero_is_refused_from_the_command_line_where_a_file_means_the_default_by_it() {
    for (line, message) in [
        (
            "--iptables-sync-period=0s",
            "KubeProxyConfiguration.KubeProxyNFTablesConfiguration.SyncPeriod: Invalid value: \"0s\": must be greater than 0",
        ),
        (
            "--config-sync-period=0",
            "KubeProxyConfiguration.ConfigSyncPeriod: Invalid value: \"0s\": must be greater than 0",
        ),
    ] {
        assert_eq!(of_flags(line).unwrap_err().to_string(), message);
    }
    let file = of_file("configSyncPeriod: 0s\nnftables: {syncPeriod: 0s}", "").unwrap();
    assert_eq!(file.config.sync_period, Duration::from_secs(30));
}

#[test]
fn a_deprecated_port_counts_where_the_address_has_none_and_zero_switches_health_off() {
    let of = |line: &str| {
        let loaded = of_flags(line).unwrap();
        let healthz = loaded.config.healthz_address.map(|address| address.to_string());
        (
            healthz.unwrap_or_default(),
            loaded.config.metrics_address.to_string(),
            loaded.notes,
        )
    };
    let (healthz, metrics, notes) = of("--healthz-port=1111 --metrics-port=2222");
    assert_eq!(
        (healthz.as_str(), metrics.as_str()),
        ("0.0.0.0:10256", "127.0.0.1:10249")
    );
    assert_eq!(
        notes,
        ["healthz", "metrics"].map(|name| format!(
            "Flag --{name}-port has been deprecated, please use --{name}-bind-address instead"
        ))
    );
    let addresses = "--healthz-bind-address=10.0.0.1 --metrics-bind-address=::1";
    let (healthz, metrics, _) = of(&format!("{addresses} --healthz-port=1111 --metrics-port=2222"));
    assert_eq!(
        (healthz.as_str(), metrics.as_str()),
        ("10.0.0.1:1111", "[::1]:2222")
    );
    assert_eq!(of("--healthz-port=0").0, "");
    let refusal = of_flags("--metrics-port=0").unwrap_err().to_string();
    assert!(
        refusal.starts_with("KubeProxyConfiguration.MetricsBindAddress: Invalid value"),
        "{refusal}"
    );
    let ignored = of_file("", "--healthz-port=0").unwrap();
    assert!(ignored.config.healthz_address.is_some());
    assert!(
        ignored
            .notes
            .contains(&"flag --healthz-port is ignored because --config is given".to_owned())
    );
}

#[test]
fn logging_is_as_the_section_or_the_flags_say() {
    let module = |pattern: &str, verbosity| Module {
        pattern: pattern.to_owned(),
        verbosity,
    };
    let body = "logging: {format: text, verbosity: 1, vmodule: [{filePattern: 'pro*', verbosity: 4}]}";
    let expected = Logging {
        format: Format::Text,
        verbosity: 1,
        modules: vec![module("pro*", 4)],
    };
    assert_eq!(of_file(body, "").unwrap().config.logging, expected);
    assert_eq!(
        of_flags("-v=1 --vmodule=pro*=4").unwrap().config.logging,
        expected
    );
    let json = of_file("logging: {format: text}", "--logging-format=json").unwrap();
    assert_eq!(json.config.logging.format, Format::Json, "the flag wins");
    assert!(json.notes.is_empty());
    for line in [
        "--log-flush-frequency=1s",
        "--log-text-split-stream",
        "--log-json-split-stream=false",
        "--log-text-info-buffer-size=1Ki",
        "--log-json-info-buffer-size=0",
    ] {
        of_file("", line).unwrap();
    }
}

#[test]
fn the_help_says_of_a_flag_that_it_has_no_effect_if_it_has_none_in_any_mode() {
    let help = help();
    for (name, _, given, fields, ..) in UPSTREAM {
        if fields.is_empty() || *name == "proxy-mode" {
            continue;
        }
        // Without their mode these are not looked at.
        let needed = match *name {
            "pod-bridge-interface" => "--detect-local-mode=BridgeInterface --pod-bridge-interface=x",
            "pod-interface-name-prefix" => {
                "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=x"
            }
            _ => "",
        };
        let has_effect = ["nftables", "iptables", "ipvs"].iter().any(|mode| {
            let without = format!("--proxy-mode={mode} {needed}");
            let with = format!("{without} --{name}={given}");
            of_flags(&with).unwrap().config != of_flags(&without).unwrap().config
        });
        let line = help.lines().find(|line| line.contains(&format!("--{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in the help"));
        assert_eq!(!line.contains("no effect"), has_effect, "{line}");
    }
}
