//! Command lines and what becomes of them.

pub(crate) mod upstream;

use serde_json::{Value, json};

use super::*;

fn run(line: &str) -> Flags {
    match parse(line.split_whitespace().map(str::to_owned)) {
        Ok(Command::Run(flags)) => *flags,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    parse(line.split_whitespace().map(str::to_owned))
        .unwrap_err()
        .to_string()
}

#[test]
fn every_spelling_of_a_flag_sets_its_field() {
    let table: &[(&str, Value)] = &[
        ("", json!({})),
        ("-v=2", json!({"logging": {"verbosity": 2}})),
        ("-v2", json!({"logging": {"verbosity": 2}})),
        ("-v 2", json!({"logging": {"verbosity": 2}})),
        ("--v=2", json!({"logging": {"verbosity": 2}})),
        ("--v 2 --v 5", json!({"logging": {"verbosity": 5}})),
        ("--proxy-mode nftables", json!({"mode": "nftables"})),
        ("--proxy_mode=nftables", json!({"mode": "nftables"})),
        ("--proxy-mode=", json!({"mode": ""})),
        (
            "--masquerade-all",
            json!({"iptables": {"masqueradeAll": true}, "nftables": {"masqueradeAll": true}}),
        ),
        (
            "--masquerade-all=F",
            json!({"iptables": {"masqueradeAll": false}, "nftables": {"masqueradeAll": false}}),
        ),
        (
            "--nodeport-addresses 10.0.0.0/8,fd00::/8 --nodeport-addresses=192.168.0.0/16",
            json!({"nodePortAddresses": ["10.0.0.0/8", "fd00::/8", "192.168.0.0/16"]}),
        ),
        (
            "--feature-gates=A=true,B=false --feature-gates C=1",
            json!({"featureGates": {"A": true, "B": false, "C": true}}),
        ),
        (
            "--cluster-cidr=10.244.0.0/16",
            json!({"clusterCIDR": "10.244.0.0/16"}),
        ),
        ("--cleanup=false --boot-id-file x", json!({})),
        (
            "--vmodule=proxy=4,re*=2 --vmodule a=1",
            json!({"logging": {"vmodule": [
                {"filePattern": "proxy", "verbosity": 4}, {"filePattern": "re*", "verbosity": 2},
                {"filePattern": "a", "verbosity": 1},
            ]}}),
        ),
        ("--healthz-port=1 --metrics-port=2", json!({})),
        ("--oom-score-adj=-5", json!({"oomScoreAdj": -5})),
    ];
    for (line, settings) in table {
        assert_eq!(&run(line).settings, settings, "{line}");
    }
}

#[test]
fn a_command_line_that_upstream_refuses_is_refused_in_its_words() {
    let table = [
        ("--nope", "unknown flag: --nope"),
        ("--nope=1", "unknown flag: --nope"),
        ("--cleanup-ipvs", "unknown flag: --cleanup-ipvs"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("--=1", "bad flag syntax: --=1"),
        ("---x", "bad flag syntax: ---x"),
        ("--proxy-mode", "flag needs an argument: --proxy-mode"),
        ("-v", "flag needs an argument: 'v' in -v"),
        (
            "--v=two",
            "invalid argument \"two\" for \"-v, --v\" flag: must be a whole number",
        ),
        (
            "--masquerade-all=maybe",
            "invalid argument \"maybe\" for \"--masquerade-all\" flag: must be true or false",
        ),
        (
            "--conntrack-udp-timeout=5",
            "invalid argument \"5\" for \"--conntrack-udp-timeout\" flag: must be a duration like 1h30m or 250ms",
        ),
        (
            "--vmodule=a",
            "invalid argument \"a\" for \"--vmodule\" flag: must be pattern=N,...",
        ),
        (
            "--healthz-port=65536",
            "invalid argument \"65536\" for \"--healthz-port\" flag: must be a port number",
        ),
        (
            "status -o yaml",
            "invalid argument \"yaml\" for \"-o\" flag: must be text or json",
        ),
        (
            "status --metrics-bind-address",
            "flag needs an argument: --metrics-bind-address",
        ),
        ("status --nope", "unknown flag: --nope"),
        (
            "serve",
            "\"kube-proxy\" does not take any arguments, got [\"serve\"]",
        ),
        (
            "-- -v=2",
            "\"kube-proxy\" does not take any arguments, got [\"-v=2\"]",
        ),
        (
            "--masquerade-all true",
            "\"kube-proxy\" does not take any arguments, got [\"true\"]",
        ),
        (
            "--cleanup=perhaps",
            "invalid argument \"perhaps\" for \"--cleanup\" flag: must be true or false",
        ),
    ];
    for (line, message) in table {
        assert_eq!(refusal(line), message, "{line}");
    }
}

#[test]
fn with_a_configuration_file_only_the_overriding_flags_count() {
    let flags =
        run("--config=/etc/kp.yaml --proxy-mode=nftables --hostname-override=n1 -v=3 --master=https://a");
    assert_eq!(
        flags.config.as_deref(),
        Some(std::path::Path::new("/etc/kp.yaml"))
    );
    assert_eq!(
        flags.settings,
        json!({"hostnameOverride": "n1", "logging": {"verbosity": 3}})
    );
    assert_eq!(flags.ignored, ["proxy-mode"]);
    assert_eq!(flags.master.as_deref(), Some("https://a"));
}

#[test]
fn what_to_do_instead_of_running_is_told_beside_a_configuration_file_too() {
    for line in ["", "--config=/etc/kp.yaml "] {
        let flags = run(&format!(
            "{line}--cleanup --init_only=true --write-config-to=/tmp/x"
        ));
        assert!(flags.cleanup && flags.init_only, "{line}");
        let path = flags.write_config_to;
        assert_eq!(path.as_deref(), Some(std::path::Path::new("/tmp/x")));
        assert!(flags.ignored.is_empty(), "{line}");
    }
    let flags = run("--cleanup --cleanup=f --write-config-to=");
    assert_eq!((flags.cleanup, flags.write_config_to), (false, None));
}

#[test]
fn help_and_version_win_over_everything_else() {
    let parse = |line: &str| parse(line.split_whitespace().map(str::to_owned)).unwrap();
    assert!(matches!(parse("-h"), Command::Help));
    assert!(matches!(parse("--version --help"), Command::Help));
    assert!(matches!(parse("--version"), Command::Version { raw: false }));
    assert!(matches!(parse("--version=raw"), Command::Version { raw: true }));
    assert!(matches!(parse("--version=false"), Command::Run(_)));
    assert!(help().lines().any(|line| line.contains("--manifests TEXT")));
}

#[test]
fn the_status_of_a_running_proxy_is_asked_for_where_its_metrics_are() {
    let parse = |line: &str| parse(line.split_whitespace().map(str::to_owned)).unwrap();
    for (line, at, as_json) in [
        ("status", "127.0.0.1:10249", false),
        ("status -o json", "127.0.0.1:10249", true),
        (
            "status --metrics-bind-address=10.0.0.1 --output=text",
            "10.0.0.1:10249",
            false,
        ),
        ("status --metrics-bind-address [::1]:9 -o=json", "[::1]:9", true),
    ] {
        match parse(line) {
            Command::Status { address, json } => {
                assert_eq!((address.to_string().as_str(), json), (at, as_json));
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn a_value_is_what_was_given_or_the_default() {
    let values = run("--masquerade_all -v 3").values;
    for (name, value) in [
        ("masquerade-all", "true"),
        ("v", "3"),
        ("conntrack-min", "131072"),
        ("config", ""),
    ] {
        assert_eq!(values[name], value, "{name}");
    }
    assert_eq!(values.len(), FLAGS.len());
    assert!(!help().contains("healthz-port") && help().contains("(default 0.0.0.0:10256)"));
}

#[test]
fn no_flag_is_listed_twice() {
    let mut names: Vec<_> = FLAGS.iter().map(|flag| flag.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FLAGS.len());
}
